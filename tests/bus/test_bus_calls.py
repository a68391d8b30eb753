"""What callers of the bus meet: replies, errors, permissions, time-outs, events, the supervisor's own commands."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import bus_support as support
import numpy as np
import pytest
from bus_support import Add, Echo, EndpointThread, HubThread, Poke, Raise, Shared, Worker

from mutoscope import bus
from mutoscope.model import errors
from mutoscope.model.errors import (
    BadPayloadError,
    ClosedError,
    CommandTimeoutError,
    ConfigError,
    PeerDiedError,
    RemoteError,
    ScopeStateError,
    UnknownCommandError,
)
from polling import until

ERRORS = [
    name
    for name in errors.__all__
    if isinstance(getattr(errors, name), type) and issubclass(getattr(errors, name), errors.MutoscopeError)
]


class Scope:
    """A hub, one worker in a thread, and the user's program."""

    def __init__(self, hub: HubThread) -> None:
        self.hub = hub
        self.worker = Worker("tracker")
        self.thread = EndpointThread(hub, "tracker", self.worker)
        self.program = hub.client()


@pytest.fixture
def scope(hub: HubThread) -> Iterator[Scope]:
    running = Scope(hub)
    yield running
    running.program.close()
    running.thread.close()


def test_a_reply_is_typed_as_its_handler_is_annotated(scope: Scope) -> None:
    assert scope.program.request(Add(a=2, b=3)) == 5
    assert scope.program.request(support.Ticks()) == (0, True)
    assert scope.program.request(support.Ticks(), returns=list[int | bool]) == [0, True]
    with pytest.raises(BadPayloadError, match="reply of tracker to Add"):
        scope.program.request(Add(a=2, b=3), returns=str)


def test_numpy_values_pass(scope: Scope) -> None:
    value = {
        "scalar": np.float64(1.5),
        "integer": np.uint16(7),
        "rows": np.array([(1, 2.5), (3, 4.5)], dtype=[("id", "u4"), ("x", "f8")]),
        "image": np.arange(12, dtype=">u2").reshape(3, 4)[:, ::2],
        "empty": np.zeros((0, 5), np.float32),
        "one": np.array(3.0),
    }
    answer = scope.program.request(Echo(value=value))
    assert answer["scalar"] == 1.5
    assert answer["integer"] == 7
    for name in ("rows", "image", "empty", "one"):
        np.testing.assert_array_equal(answer[name], value[name])
        assert answer[name].dtype == value[name].dtype
        assert answer[name].shape == value[name].shape


@pytest.mark.parametrize(
    "value",
    [np.array([object()]), object(), {1, 2, lambda: 0}, 1 << 70, np.array([1j])[0]],
    ids=["array of objects", "object", "set with a function", "too large an integer", "complex number"],
)
def test_what_has_no_encoding_is_refused_before_it_is_sent(scope: Scope, value: Any) -> None:
    with pytest.raises(BadPayloadError, match="Echo cannot be encoded"):
        scope.program.request(Echo(value=value))
    assert scope.program.request(Echo(value=1)) == 1


def test_a_wrong_field_is_the_senders_error_for_send_request_and_post(scope: Scope) -> None:
    for call in (scope.program.send, scope.program.request):
        with pytest.raises(BadPayloadError, match=r"Add: Expected `int`, got `str` - at `\$.b`"):
            call(Add(a=1, b="two"))  # type: ignore[arg-type]
    scope.program.post(Add(a=1, b="two"))  # type: ignore[arg-type]
    with pytest.raises(BadPayloadError):
        scope.program.flush()
    scope.program.flush()
    assert scope.program.request(Add(a=1, b=2)) == 3


def test_a_class_that_differs_on_the_other_side_is_refused(scope: Scope) -> None:
    class Other(bus.Command, name="Add"):
        a: int
        b: int
        c: int = 0

    with pytest.raises(BadPayloadError, match="unknown field `c`"):
        scope.program.request(Other(a=1, b=2))


def test_unknown_commands_and_targets(scope: Scope) -> None:
    with pytest.raises(UnknownCommandError, match="nobody handles Unknown"):
        scope.program.send(support.Unknown())
    with pytest.raises(UnknownCommandError, match='nobody is called "stage"; there are tracker'):
        scope.program.request(Echo(), to="stage")
    with pytest.raises(UnknownCommandError, match="tracker does not handle Unknown"):
        scope.program.request(support.Unknown(), to="tracker")
    with pytest.raises(UnknownCommandError, match="the supervisor does not handle Echo"):
        scope.program.request(Echo(), to=bus.SUPERVISOR)
    with pytest.raises(UnknownCommandError, match="nobody handles Unknown"):
        scope.program.broadcast(support.Unknown())
    with pytest.raises(UnknownCommandError, match="Echo is not a broadcast command"):
        scope.program.broadcast(Echo())


def test_several_instances_need_a_target(scope: Scope, hub: HubThread) -> None:
    second = EndpointThread(hub, "other", Worker("other"))
    with pytest.raises(ConfigError, match="Echo is handled by other, tracker: say which with to="):
        scope.program.request(Echo(value=1))
    assert scope.program.request(Echo(value=1), to="other") == 1
    assert scope.program.broadcast(Poke()) == {"tracker": "tracker", "other": "other"}
    second.close()


def test_a_raising_handler_tells_the_sender_and_harms_nobody(scope: Scope) -> None:
    with pytest.raises(KeyError, match="missing") as caught:
        scope.program.request(Raise(class_name="KeyError"))
    assert "in fail" in caught.value.remote_traceback  # type: ignore[attr-defined]
    assert any("in the other process" in note for note in caught.value.__notes__)
    with pytest.raises(RemoteError, match="StrangeError: nobody knows me") as remote:
        scope.program.request(Raise(class_name="StrangeError"))
    assert "support.StrangeError" in (remote.value.remote_traceback or "")
    assert scope.program.request(Echo(value=1)) == 1


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_of_the_model_crosses_as_its_own_class(scope: Scope, name: str) -> None:
    original = support.error_called(name)
    with pytest.raises(type(original)) as caught:
        scope.program.request(Raise(class_name=name))
    assert type(caught.value) is type(original)
    assert str(caught.value) == str(original)
    assert caught.value.args == original.args
    assert vars(caught.value).keys() >= vars(original).keys()
    assert "Traceback" in (caught.value.remote_traceback or "")


def test_a_handler_that_raises_after_a_send_is_reported_on_both_sides(scope: Scope, caplog: pytest.LogCaptureFixture) -> None:
    scope.program.send(Raise(class_name="CameraError"))
    until(lambda: scope.program.statistics().problems == 1)
    until(lambda: scope.hub.problems)
    handler, sender, command, error = scope.hub.problems[0]
    assert (handler, sender, command) == ("tracker", "program", "Raise")
    assert isinstance(error, errors.CameraError)
    assert "Raise, sent by program, failed in tracker: CameraError" in caplog.text


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        (1 << 80, "1208925819614629174706176"),
        ("\udcff surrogate", "surrogate"),
        ("long" * 1_000_000, "longlong"),
        ((1, "a"), "(1, 'a')"),
    ],
    ids=["large", "surrogate", "long", "tuple"],
)
def test_errors_with_arguments_that_cannot_be_sent_are_told_all_the_same(hub: HubThread, argument: Any, told: str) -> None:
    class Odd:
        @bus.handles(Echo)
        def echo(self, command):
            raise ValueError(argument)

    class Ask(bus.Command):
        pass

    hub.do(lambda: hub.hub.register_local(Ask, lambda sender, command: Odd().echo(command)))
    thread = EndpointThread(hub, "odd", Odd())
    with hub.client() as program:
        for command in (Echo(), Ask()):
            with pytest.raises(ValueError) as caught:
                program.request(command)
            assert told in str(caught.value)
    thread.close()


def test_a_reply_that_cannot_be_encoded_is_the_senders_error(hub: HubThread) -> None:
    class Bad:
        @bus.handles(Echo)
        def echo(self, command):
            return object()

    thread = EndpointThread(hub, "bad", Bad())
    with hub.client() as program, pytest.raises(BadPayloadError, match="reply of bad to Echo cannot be encoded"):
        program.request(Echo())
    thread.close()


def test_who_may_send(scope: Scope, hub: HubThread) -> None:
    with pytest.raises(PermissionError, match="NotForScripts may not be sent by the user's program"):
        scope.program.request(support.NotForScripts())
    with pytest.raises(UnknownCommandError, match="nobody handles Private"):
        scope.program.request(support.Private())
    page = bus.ThreadedEndpoint(hub.connect("page", "page"), "page")
    page.hello()
    with pytest.raises(PermissionError, match="Echo may not be sent by the page"):
        page.request(Echo())
    page.close()
    worker = bus.Endpoint(hub.connect("other"), "other")
    worker.hello()
    assert worker.request(support.NotForScripts()) == "done"
    worker.close()


def test_a_worker_that_would_wait_for_itself_hears_so(hub: HubThread) -> None:
    class Selfish:
        endpoint: bus.Endpoint

        @bus.handles(Echo)
        def echo(self, command):
            return self.endpoint.request(Echo(value=1))

        @bus.handles(support.Tick)
        def tick(self, command):
            self.endpoint.send(Add(a=1, b=1))

        @bus.handles(Add)
        def add(self, command):
            self.added = True

    selfish = Selfish()
    thread = EndpointThread(hub, "selfish", selfish)
    with hub.client() as program:
        with pytest.raises(ConfigError, match="selfish handles Echo itself and would wait for itself"):
            program.request(Echo())
        program.send(support.Tick(n=1))
        until(lambda: getattr(selfish, "added", False))
    thread.close()


def test_a_late_reply_is_dropped_and_counted(scope: Scope) -> None:
    with pytest.raises(CommandTimeoutError, match=r"Stop was not answered within 0.1 s"):
        scope.program.request(support.Stop(seconds=0.3), timeout_s=0.1)
    until(lambda: scope.program.statistics().late_replies == 1)
    assert scope.program.request(Echo(value=2)) == 2
    assert scope.program.statistics().pending == 0


def test_the_hub_forgets_deliveries_that_nobody_waits_for(scope: Scope) -> None:
    scope.thread.pause()
    with pytest.raises(CommandTimeoutError):
        scope.program.request(Echo(value=1), timeout_s=0.1)
    until(lambda: scope.hub.hub.expired == 1)
    assert scope.hub.do(scope.hub.hub.statistics)["tracker"].outstanding == 0
    until(lambda: scope.hub.do(scope.hub.hub.next_deadline) is None)
    scope.thread.resume()
    until(lambda: scope.hub.hub.late_replies == 1)


def test_the_supervisors_own_commands(scope: Scope, hub: HubThread) -> None:
    class Ask(bus.Command):
        text: str

    class Later(bus.Command):
        pass

    class Workers(bus.Command):
        pass

    waiting: list[bus.Deferred] = []

    def ask(sender: str, command: Ask) -> str:
        if command.text == "raise":
            raise ValueError("no such thing")
        return f"{sender} asked {command.text}"

    def later(sender: str, command: Later) -> bus.Deferred:
        waiting.append(bus.Deferred())
        return waiting[-1]

    hub.do(lambda: hub.hub.register_local(Ask, ask))
    hub.do(lambda: hub.hub.register_local(Later, later))
    hub.do(lambda: hub.hub.register_local(Workers, ask, script=False))
    with pytest.raises(ConfigError, match="Ask is registered already"):
        hub.do(lambda: hub.hub.register_local(Ask, ask))
    program = scope.program
    assert program.request(Ask(text="why")) == "program asked why"
    program.send(Ask(text="why"), to=bus.SUPERVISOR)
    assert program.broadcast(Ask(text="all")) == {bus.SUPERVISOR: "program asked all"}
    with pytest.raises(ValueError, match="no such thing") as caught:
        program.request(Ask(text="raise"))
    assert "in ask" in caught.value.remote_traceback  # type: ignore[attr-defined]
    with pytest.raises(BadPayloadError):
        program.request(Ask(text=3))  # type: ignore[arg-type]
    with pytest.raises(PermissionError):
        program.request(Workers())

    threading.Timer(0.2, lambda: hub.do(lambda: waiting[0].resolve(17))).start()
    assert program.request(Later()) == 17
    threading.Timer(0.2, lambda: hub.do(lambda: waiting[1].reject(errors.DiskFullError("full")))).start()
    with pytest.raises(errors.DiskFullError, match="full"):
        program.request(Later())
    hub.do(lambda: waiting[1].resolve(1))
    with pytest.raises(CommandTimeoutError):
        program.request(Later(), timeout_s=0.1)
    hub.do(lambda: waiting[2].resolve(1))
    until(lambda: program.statistics().late_replies == 1)


def test_events_reach_who_subscribed_and_the_last_value_who_joins(scope: Scope, hub: HubThread) -> None:
    heard: list[Shared] = []
    early: list[Shared] = []
    here: list[Shared] = []
    hub.do(lambda: hub.hub.subscribe(Shared, here.append))
    scope.program.subscribe(Shared, early.append)
    scope.program.publish(Shared(n=1))
    scope.program.publish(Shared(n=2, text="last"))
    until(lambda: len(early) == 2)
    assert early == [Shared(n=1), Shared(n=2, text="last")] == here
    scope.program.subscribe(Shared, heard.append)
    until(lambda: heard == [Shared(n=2, text="last")])

    joins = bus.Endpoint(hub.connect("joins"), "joins")
    joins.hello()
    joined: list[Shared] = []
    joins.subscribe(Shared, joined.append)
    until(lambda: joins.pump(0.05))
    assert joined == []
    assert joins.dispatch() == 1
    assert joined == [Shared(n=2, text="last")]
    hub.do(lambda: hub.hub.publish(Shared(n=3)))
    until(lambda: joins.pump(0.05))
    joins.dispatch()
    joins.publish(Shared(n=4))
    until(lambda: joins.pump(0.05))
    joins.dispatch()
    assert [event.n for event in joined] == [2, 3, 4]
    until(lambda: [event.n for event in early] == [1, 2, 3, 4])
    joins.close()


def test_a_raising_event_callback_is_logged_and_the_next_runs(scope: Scope, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []

    def callback(event: Shared) -> None:
        heard.append(event.n)
        raise RuntimeError("a callback's own fault")

    scope.program.subscribe(Shared, callback)
    scope.program.publish(Shared(n=1))
    scope.program.publish(Shared(n=2))
    until(lambda: heard == [1, 2])
    until(lambda: scope.program.statistics().handler_errors == 2)
    assert "a callback's own fault" in caplog.text


def test_handlers_run_while_the_worker_waits_but_never_inside_another(hub: HubThread) -> None:
    class Nested:
        endpoint: bus.Endpoint
        depth = 0
        deepest = 0
        seen: list[int]

        def __init__(self) -> None:
            self.seen = []

        @bus.handles(support.Tick)
        def tick(self, command):
            self.depth += 1
            self.deepest = max(self.deepest, self.depth)
            if command.n == 0:
                self.endpoint.request(Echo(value="inside"), to="tracker")
            self.seen.append(command.n)
            self.depth -= 1

    nested = Nested()
    tracker = EndpointThread(hub, "tracker", Worker("tracker"))
    endpoint = bus.Endpoint(hub.connect("nested"), "nested")
    nested.endpoint = endpoint
    endpoint.serve(nested)
    endpoint.hello()
    with hub.client() as program:
        for n in range(5):
            program.post(support.Tick(n=n), to="nested")
        until(lambda: endpoint.pump(0.05) and endpoint.queued == 5)
        program.flush()
        assert nested.seen == []
        assert endpoint.request(Echo(value="outside"), to="tracker") == "outside"
        assert nested.seen == [0, 1, 2, 3, 4]
        assert nested.deepest == 1
    endpoint.close()
    tracker.close()


def test_another_thread_may_not_use_a_workers_bus(hub: HubThread) -> None:
    endpoint = bus.Endpoint(hub.connect("mine"), "mine")
    endpoint.hello()
    caught: list[Exception] = []

    def use() -> None:
        try:
            endpoint.request(Echo())
        except ConfigError as error:
            caught.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert "belongs to its main thread" in str(caught[0])
    endpoint.close()


def test_closed_by_you_is_not_the_peer_died(hub: HubThread) -> None:
    for kind in (bus.Endpoint, bus.ThreadedEndpoint):
        closed = kind(hub.connect("one"), "one")
        with pytest.raises(ScopeStateError, match="has not said hello"):
            closed.request(Echo())
        closed.hello()
        closed.close()
        closed.close()
        with pytest.raises(ClosedError):
            closed.request(Echo())
        assert closed.closed
        until(lambda: "one" not in hub.do(lambda: hub.hub.peers))
    left = bus.ThreadedEndpoint(hub.connect("left"), "left")
    left.hello()
    alone = bus.Endpoint(hub.connect("alone"), "alone")
    alone.hello()
    hub.do(hub.hub.close)
    for endpoint in (left, alone):
        with pytest.raises(PeerDiedError, match="the supervisor is gone: the supervisor closed the bus"):
            until(lambda endpoint=endpoint: endpoint.request(Echo()))
        assert endpoint.peer_closed
        endpoint.close()


def test_wrong_versions_are_refused_in_plain_words(hub: HubThread, monkeypatch: pytest.MonkeyPatch) -> None:
    from mutoscope.bus import wire

    real = wire.hello
    monkeypatch.setattr(wire, "hello", lambda *given: bus_replace(real(*given), version=99))
    for kind in (bus.Endpoint, bus.ThreadedEndpoint):
        endpoint = kind(hub.connect("old"), "old")
        with pytest.raises(ConfigError, match="old speaks version 99 of the bus, this supervisor version 1: install the same"):
            endpoint.hello()
        endpoint.close()
        until(lambda: "old" not in hub.do(lambda: hub.hub.peers))
    assert "version 99" in hub.lost["old"]


def test_a_supervisor_of_another_version_is_refused_too() -> None:
    import socket

    from mutoscope.bus import wire

    mine, theirs = socket.socketpair()
    with mine, bus.Endpoint(theirs, "new") as endpoint:
        mine.sendall(wire.pack(wire.Welcome(7, "new")))
        with pytest.raises(ConfigError, match="the supervisor speaks version 7 of the bus, new version 1"):
            endpoint.hello()


def bus_replace(message: Any, **changes: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(message, **changes)


def test_a_hub_that_does_not_answer_is_a_time_out() -> None:
    import socket

    for kind in (bus.Endpoint, bus.ThreadedEndpoint):
        mine, theirs = socket.socketpair()
        with mine, kind(theirs, "lonely") as endpoint, pytest.raises(CommandTimeoutError, match="did not welcome lonely"):
            endpoint.hello(timeout_s=0.2)


def test_every_command_can_be_audited(hub: HubThread) -> None:
    records: list[bus.CallRecord] = []
    hub.do(lambda: setattr(hub.hub, "on_call", records.append))
    thread = EndpointThread(hub, "tracker", Worker("tracker"))
    with hub.client() as program:
        program.request(Add(a=1, b=2))
        program.send(Echo())
        with pytest.raises(KeyError):
            program.request(Raise(class_name="KeyError"))
        with pytest.raises(UnknownCommandError):
            program.request(support.Unknown())
        program.broadcast(Poke())
    thread.close()
    seen = [(r.sender, r.target, r.command, r.kind, r.outcome) for r in records]
    assert seen[0] == ("program", "tracker", "Add", 1, "ok")
    assert seen[1] == ("program", "tracker", "Echo", 0, "ok")
    assert seen[2][4] == "KeyError: 'missing'"
    assert seen[3][2:] == ("Unknown", 1, "UnknownCommandError: nobody handles Unknown")
    assert seen[4] == ("program", "tracker", "Poke", 2, "ok")
    assert bus_decode(records[0].payload) == {"a": 1, "b": 2}
    assert all(record.duration_s >= 0 for record in records)


def bus_decode(packed: bytes) -> Any:
    from mutoscope.bus import payload

    return payload.decode(packed, Any, "test")


def test_crash_reports_arrive(hub: HubThread) -> None:
    endpoint = bus.Endpoint(hub.connect("crashes"), "crashes")
    endpoint.hello()
    endpoint.report_crash(errors.to_record(ValueError("bad lens"), "Traceback …"))
    endpoint.close("crashed")
    until(lambda: hub.crashes)
    name, record = hub.crashes[0]
    assert name == "crashes"
    assert isinstance(errors.from_record(record), ValueError)


def test_a_name_is_taken_once(hub: HubThread) -> None:
    with hub.connect("one"):
        with pytest.raises(ConfigError, match='there is a peer called "one" already'):
            hub.connect("one")
        with pytest.raises(ConfigError, match="kind is 'guest'"):
            hub.connect("two", "guest")
    with hub.connect("three") as sock:
        endpoint = bus.Endpoint(sock, "somebody-else")
        with pytest.raises(PeerDiedError):
            endpoint.hello()
        endpoint.close()
    assert 'it calls itself "somebody-else"' in until(lambda: hub.lost.get("three"))


def test_logging_is_not_needed_for_any_of_it() -> None:
    assert not logging.getLogger("mutoscope").handlers


def test_lines_of_other_threads_are_published_when_the_owner_waits(hub: HubThread) -> None:
    heard: list[int] = []
    hub.do(lambda: hub.hub.subscribe(Shared, lambda event: heard.append(event.n)))
    endpoint = bus.Endpoint(hub.connect("mine"), "mine")
    endpoint.hello()
    kept: list[bool] = []
    thread = threading.Thread(target=lambda: kept.extend(endpoint.publish_soon(Shared(n=n)) for n in range(1200)))
    thread.start()
    thread.join()
    assert kept == [True] * 1000 + [False] * 200
    assert heard == []
    endpoint.pump(0.0)
    assert endpoint.publish_soon(Shared(n=5000))
    until(lambda: len(heard) == 1001)
    assert heard == [*range(1000), 5000]
    ringing = threading.Timer(0.2, lambda: endpoint.publish_soon(Shared(n=6000)))
    ringing.start()
    until(lambda: (endpoint.pump(10.0), heard[-1] == 6000)[1])
    ringing.join()
    thread = threading.Thread(target=lambda: endpoint.publish_soon(Shared(n=7000)))
    thread.start()
    thread.join()
    endpoint.close()
    until(lambda: heard[-1] == 7000)
    with pytest.raises(ClosedError):
        endpoint.publish_soon(Shared(n=8000))


class Speechless(Exception):
    def __str__(self) -> str:
        raise KeyError("no words")


def test_a_crash_report_arrives_whatever_the_error_says(hub: HubThread) -> None:
    endpoint = bus.Endpoint(hub.connect("crashes"), "crashes")
    endpoint.hello()
    for error in (
        ValueError("cannot read /tmp/caf\udce9.tif"),
        Speechless(),
        ValueError(1 << 90),
        ValueError("x" * 70_000_000),
    ):
        endpoint.report_crash(errors.to_record(error, f"ValueError: {error.args}"))
    until(lambda: len(hub.crashes) == 4)
    endpoint.close("crashed")
    said = [errors.from_record(record) for _, record in hub.crashes]
    assert str(said[0]) == "cannot read /tmp/caf\\udce9.tif"
    assert "its text cannot be made: __str__ raised KeyError" in str(said[1])
    assert str(1 << 90) in str(said[2])
    assert str(said[3]).startswith("xxx")
    assert str(said[3]).endswith("… (69,900,000 more characters)")


def test_a_handler_whose_error_has_no_text_tells_the_sender(hub: HubThread) -> None:
    class Odd:
        @bus.handles(Echo)
        def echo(self, command):
            raise Speechless

    thread = EndpointThread(hub, "odd", Odd())
    with hub.client() as program:
        for _ in range(2):
            with pytest.raises(RemoteError, match="__str__ raised KeyError"):
                program.request(Echo(), timeout_s=5.0)
    thread.close()


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"to": 5}, TypeError),
        ({"to": b"tracker"}, TypeError),
        ({"to": ["tracker"]}, TypeError),
        ({"to": "x" * 70_000_000}, ConfigError),
        ({"to": "caf\udce9"}, ConfigError),
        ({"timeout_s": True}, TypeError),
        ({"timeout_s": "x"}, TypeError),
        ({"timeout_s": None}, TypeError),
        ({"timeout_s": float("nan")}, ConfigError),
        ({"timeout_s": 10**400}, ConfigError),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_wrong_target_or_timeout_is_the_callers_error_and_harms_nobody(
    scope: Scope, arguments: dict[str, Any], kind: type[Exception]
) -> None:
    worker = bus.Endpoint(scope.hub.connect("mine"), "mine")
    worker.hello()
    for endpoint in (scope.program, worker):
        for call in (endpoint.send, endpoint.request, endpoint.call_fds, endpoint.post):
            with pytest.raises(kind):
                call(Echo(), **arguments)
        if "timeout_s" in arguments:
            for other in (
                lambda endpoint=endpoint: endpoint.broadcast(Poke(), **arguments),
                lambda endpoint=endpoint: endpoint.publish(Shared(n=1), **arguments),
                lambda endpoint=endpoint: endpoint.flush(**arguments),
            ):
                with pytest.raises(kind):
                    other()
        assert endpoint.statistics().pending == 0
        assert endpoint.request(Echo(value=1), to="tracker", timeout_s=np.float32(5)) == 1
    worker.close()


def test_a_command_is_in_the_audit_before_its_answer_arrives(scope: Scope) -> None:
    told: list[bus.CallRecord] = []
    scope.hub.do(lambda: setattr(scope.hub.hub, "on_call", lambda record: (support.wait(0.05), told.append(record))))
    for value in range(3):
        assert scope.program.request(Echo(value=value)) == value
        assert len(told) >= 1  # the first goes through the hub


def test_an_event_that_comes_while_somebody_waits_for_an_answer_is_heard(hub: HubThread) -> None:
    class Later(bus.Command):
        pass

    promised: list[bus.Deferred] = []

    def later(sender: str, command: Later) -> bus.Deferred:
        promised.append(bus.Deferred())
        return promised[-1]

    hub.do(lambda: hub.hub.register_local(Later, later))
    program, heard, gate = hub.client(), [], threading.Event()

    def hear(event: Shared) -> None:
        heard.append(event)
        gate.wait(support.DEADLINE_S)

    program.subscribe(Shared, hear)
    hub.do(lambda: hub.hub.publish(Shared(n=1)))
    until(lambda: len(heard) == 1)
    hub.do(lambda: hub.hub.publish(Shared(n=2)))  # lies there while the first one is being heard
    until(lambda: program.statistics().queued == 1)
    asking = threading.Thread(target=program.request, args=(Later(),))
    asking.start()  # reads from here on, and began when one lay there
    until(lambda: bool(promised))
    gate.set()
    until(lambda: len(heard) == 2)
    hub.do(lambda: hub.hub.publish(Shared(n=3)))
    until(lambda: len(heard) == 3)
    hub.do(lambda: promised[0].resolve(None))
    asking.join()
    program.close()
