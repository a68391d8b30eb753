"""Lines: processes that the hub has introduced talk past it, in order, within a window, and every command is accounted for."""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import bus_support as support
import pytest
from bus_support import Add, Blob, Echo, EndpointThread, Flood, HubThread, Poke, Raise, Stop, Tick, Ticks, Worker

from mutoscope import bus
from mutoscope.bus import wire
from mutoscope.bus.lines import OutLine
from mutoscope.model.errors import (
    BadPayloadError,
    CommandTimeoutError,
    ConfigError,
    ErrorRecord,
    PeerDiedError,
    RemoteError,
    UnknownCommandError,
)
from polling import until

MIB = 1024 * 1024


class Audit(list[bus.CallRecord]):
    """What the hub notes."""

    def __init__(self, hub: HubThread) -> None:
        super().__init__()
        hub.do(lambda: setattr(hub.hub, "on_call", self.append))

    def outcomes(self, command: str) -> list[tuple[str, str, int, str]]:
        return [(each.sender, each.target, each.kind, each.outcome) for each in self if each.command == command]


class Asker:
    """A worker that the test itself drives."""

    def __init__(self, hub: HubThread, name: str = "asker", *owners: object, **options: Any) -> None:
        self.endpoint = bus.Endpoint(hub.connect(name), name, **options)
        for owner in owners:
            self.endpoint.serve(owner)
            owner.endpoint = self.endpoint  # type: ignore[attr-defined]
        self.endpoint.hello()

    @property
    def lines(self) -> int:
        return self.endpoint.statistics().lines

    def get_line(self, to: str) -> None:
        self.endpoint.request(Echo(value="a line, please"), to=to)
        until(lambda: (self.endpoint.pump(0.01), ("Echo", to) in self.endpoint._lines.routes)[1])


@pytest.fixture
def audit(hub: HubThread) -> Audit:
    return Audit(hub)


@pytest.fixture
def asker(hub: HubThread) -> Iterator[Asker]:
    running = Asker(hub)
    yield running
    running.endpoint.close()


@pytest.fixture
def tracker(hub: HubThread) -> Iterator[EndpointThread]:
    thread = EndpointThread(hub, "tracker", Worker("tracker"))
    yield thread
    thread.close()


def sent_by_hub(hub: HubThread, to: str) -> int:
    count: int = hub.do(hub.hub.statistics)[to].sent
    return count


def test_from_the_second_command_on_they_talk_past_the_hub(
    hub: HubThread, audit: Audit, tracker: EndpointThread, asker: Asker
) -> None:
    endpoint = asker.endpoint
    asker.get_line("tracker")
    assert endpoint.request(Echo(value=1)) == 1
    passed = sent_by_hub(hub, "tracker")
    for n in range(100):
        assert endpoint.request(Echo(value=n), to="tracker") == n
        assert endpoint.request(Add(a=n, b=1)) == n + 1
        endpoint.send(Tick(n=n))
    assert endpoint.request(Ticks()) == (100, True)
    assert sent_by_hub(hub, "tracker") == passed
    assert endpoint.broadcast(Poke()) == {"tracker": "tracker"}
    assert sent_by_hub(hub, "tracker") == passed + 1
    assert {name: peer.lines for name, peer in hub.do(hub.hub.statistics).items()} == {"asker": 1, "tracker": 1}


def test_who_asks_without_a_pause_hears_everything_else_too(hub: HubThread, tracker: EndpointThread, asker: Asker) -> None:
    heard: list[int] = []
    asker.endpoint.subscribe(support.Shared, lambda event: heard.append(event.n))
    asker.get_line("tracker")
    hub.do(lambda: hub.hub.publish(support.Shared(n=7)))
    deadline = time.monotonic() + support.DEADLINE_S
    while not heard and time.monotonic() < deadline:
        assert asker.endpoint.request(Echo(value=1)) == 1
    assert heard == [7]


def test_errors_are_those_of_the_way_through_the_hub(hub: HubThread, tracker: EndpointThread, asker: Asker) -> None:
    asker.get_line("tracker")
    endpoint = asker.endpoint
    with pytest.raises(KeyError, match="missing") as caught:
        endpoint.request(Raise(class_name="KeyError"))
    assert "in fail" in caught.value.remote_traceback  # type: ignore[attr-defined]
    for call in (endpoint.send, endpoint.request):
        with pytest.raises(BadPayloadError, match=r"Add: Expected `int`, got `str` - at `\$.b`"):
            call(Add(a=1, b="two"))  # type: ignore[arg-type]
    endpoint.post(Add(a=1, b="two"))  # type: ignore[arg-type]
    with pytest.raises(BadPayloadError):
        endpoint.flush()
    with pytest.raises(BadPayloadError, match="reply of tracker to Add"):
        endpoint.request(Add(a=2, b=3), returns=str)
    with pytest.raises(UnknownCommandError, match="tracker does not handle Unknown"):
        endpoint.request(support.Unknown(), to="tracker")
    endpoint.send(Raise(class_name="CameraError"))
    until(lambda: hub.problems)
    assert hub.problems[0][:3] == ("tracker", "asker", "Raise")
    until(lambda: (endpoint.pump(0.01), endpoint.statistics().problems == 1)[1])
    assert endpoint.call_fds(Echo(value=3)) == (3, [])


def test_no_command_overtakes_another_at_the_switch(hub: HubThread, asker: Asker) -> None:
    hub.spawn("left")
    for n in range(20_000):
        asker.endpoint.post(Tick(n=n), to="left" if n % 3 else None, timeout_s=60.0)
        if n % 50 == 25:
            asker.endpoint.pump(0.0)
    asker.endpoint.flush(60.0)
    assert asker.lines == 1
    assert asker.endpoint.request(Ticks()) == (20_000, True)


def test_what_the_hub_keeps_back_arrives_before_what_comes_on_the_line(hub: HubThread) -> None:
    class Slow(Worker):
        @bus.handles(Blob)
        def blob(self, command) -> None:
            self.tick(Tick(n=int.from_bytes(command.data[:4], "big")))

    worker = Slow("slow")
    thread = EndpointThread(hub, "slow", worker, inbox_bytes=MIB)
    thread.pause()
    asker = Asker(hub, window_bytes=8 * MIB)
    for n in range(40):
        asker.endpoint.post(Blob(data=n.to_bytes(4, "big") + bytes(50_000)))
    until(lambda: hub.do(hub.hub.statistics)["slow"].held > 5)
    until(lambda: (asker.endpoint.pump(0.01), asker.lines)[1])
    for n in range(40, 60):
        asker.endpoint.post(Tick(n=n))
    assert hub.do(hub.hub.statistics)["slow"].held > 5
    thread.resume()
    asker.endpoint.flush()
    assert asker.endpoint.request(Ticks()) == (60, True)
    asker.endpoint.close()
    thread.close()


def test_what_waited_for_room_at_the_switch_is_not_overtaken(hub: HubThread) -> None:
    class Counts(Worker):
        @bus.handles(Blob)
        def blob(self, command) -> None:
            self.tick(Tick(n=int.from_bytes(command.data[:4], "big")))

    for _ in range(5):
        thread = EndpointThread(hub, "slow", Counts("slow"), inbox_bytes=MIB)
        asker = Asker(hub, window_bytes=100_000)
        for n in range(100):
            asker.endpoint.post(Blob(data=n.to_bytes(4, "big") + bytes(60_000 * (n % 2))))
        asker.endpoint.flush()
        assert asker.lines == 1
        assert asker.endpoint.request(Ticks()) == (100, True)
        asker.endpoint.close()
        thread.close()
        until(lambda: hub.do(lambda: hub.hub.peers) == [])


def test_a_broadcast_does_not_overtake_what_was_posted(hub: HubThread, asker: Asker) -> None:
    class Both:
        def __init__(self) -> None:
            self.seen: list[object] = []

        @bus.handles(Echo)
        def echo(self, command):
            self.seen.append(command.value)

        @bus.handles(Poke, delivery="broadcast")
        def poke(self, command) -> int:
            self.seen.append("poke")
            return len(self.seen)

    both = Both()
    thread = EndpointThread(hub, "both", both)
    asker.get_line("both")
    for n in range(500):
        asker.endpoint.post(Echo(value=n))
    assert asker.endpoint.broadcast(Poke()) == {"both": 502}
    assert both.seen[1:] == [*range(500), "poke"]
    thread.close()


def test_a_worker_that_hears_nothing_does_not_keep_a_broadcast_from_others(hub: HubThread, asker: Asker) -> None:
    stuck, _ = hub.spawn("stuck", "free")
    asker.get_line("stuck")
    stuck.send_signal(signal.SIGSTOP)
    asker.endpoint.post(Tick(n=0), to="stuck")
    answers = asker.endpoint.broadcast(Poke(), timeout_s=1.0)
    assert answers["free"] == "free"
    assert isinstance(answers["stuck"], CommandTimeoutError)
    stuck.send_signal(signal.SIGCONT)
    asker.endpoint.flush()


def test_two_that_ask_each_other_at_once_do_not_wait_for_ever(hub: HubThread) -> None:
    class Mutual:
        endpoint: bus.Endpoint

        def __init__(self, other: str) -> None:
            self.other = other

        @bus.handles(Flood)
        def flood(self, command) -> int:
            for n in range(command.count):
                self.endpoint.send(Tick(n=n), to=self.other)
            return command.count

        @bus.handles(Tick)
        def tick(self, command) -> None: ...

        @bus.handles(Echo)
        def echo(self, command):
            return command.value

    sums: dict[str, int] = {}
    barrier = threading.Barrier(2)

    def run(name: str, other: str) -> None:
        endpoint = bus.Endpoint(hub.connect(name), name)
        mutual = Mutual(other)
        mutual.endpoint = endpoint
        endpoint.serve(mutual)
        endpoint.hello()
        barrier.wait()
        sums[name] = sum(endpoint.request(Echo(value=n), to=other, timeout_s=20.0) for n in range(300))
        until(lambda: (endpoint.pump(0.01), endpoint.dispatch(), len(sums) == 2)[-1])
        lines[name] = endpoint.statistics().lines
        until(lambda: (endpoint.pump(0.01), endpoint.dispatch(), len(lines) == 2)[-1])
        endpoint.close()

    lines: dict[str, int] = {}
    threads = [threading.Thread(target=run, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == {"a": 44_850, "b": 44_850}
    assert lines == {"a": 2, "b": 2}


def test_a_full_window_bounds_what_a_slow_worker_has_not_handled(hub: HubThread, asker: Asker) -> None:
    worker = Worker("slow")
    thread = EndpointThread(hub, "slow", worker, inbox_bytes=MIB)
    asker.get_line("slow")
    thread.pause()
    data = bytes(100_000)

    def post_many() -> None:
        for _ in range(100):
            asker.endpoint.post(Blob(data=data), timeout_s=0.3)

    with pytest.raises(CommandTimeoutError, match=r"Blob was not sent: .* bytes are still on their way"):
        post_many()
    assert 10 <= asker.endpoint.statistics().pending <= 12
    thread.resume()
    for _ in range(50):
        asker.endpoint.post(Blob(data=data), timeout_s=10.0)
    asker.endpoint.flush()
    assert thread.endpoint is not None
    assert thread.endpoint.statistics().inbox_bytes_peak < 1.2 * MIB
    thread.close()


def test_large_replies_wait_for_a_stopped_reader_without_holding_up_anybody(hub: HubThread, tracker: EndpointThread) -> None:
    asker, other = Asker(hub, "asker"), Asker(hub, "other")
    asker.get_line("tracker")
    other.get_line("tracker")
    with pytest.raises(CommandTimeoutError):  # the answer comes when nobody reads it
        asker.endpoint.request(Blob(data=bytes(20_000_000)), timeout_s=0.0)
    until(lambda: other.endpoint.request(Echo(value=1), timeout_s=5.0) == 1)
    data = os.urandom(3_000_000)
    assert asker.endpoint.request(Blob(data=data)) == data[::-1]
    assert asker.endpoint.statistics().late_replies == 1
    asker.endpoint.close()
    other.endpoint.close()


# -- death


def test_a_killed_worker_fails_what_it_was_to_answer_at_once(hub: HubThread, audit: Audit, asker: Asker) -> None:
    (child,) = hub.spawn("tracker")
    asker.get_line("tracker")
    endpoint = asker.endpoint
    threading.Timer(0.3, child.kill).start()
    started = time.monotonic()
    with pytest.raises(PeerDiedError, match="tracker did not answer Stop: the stream ended"):
        endpoint.request(Stop(seconds=60.0), timeout_s=60.0)
    assert time.monotonic() - started < 20.0
    with pytest.raises(PeerDiedError, match="tracker is not running: the stream ended"):
        endpoint.request(Echo())
    assert asker.lines == 0
    until(lambda: audit.outcomes("Stop"))
    assert audit.outcomes("Stop") == [("asker", "tracker", 1, "PeerDiedError: tracker did not answer Stop: the stream ended")]
    hub.spawn("tracker")
    assert endpoint.request(Echo(value=5)) == 5
    asker.get_line("tracker")
    passed = sent_by_hub(hub, "tracker")
    assert endpoint.request(Echo(value=6), to="tracker") == 6
    assert sent_by_hub(hub, "tracker") == passed


@pytest.mark.parametrize("way", ["send", "post"])
def test_commands_that_a_killed_worker_has_not_taken_fail(hub: HubThread, audit: Audit, asker: Asker, way: str) -> None:
    (child,) = hub.spawn("tracker")
    asker.get_line("tracker")
    asker.endpoint.send(Stop(seconds=60.0), to="tracker")
    threading.Timer(0.3, child.kill).start()
    count = 1 if way == "send" else 5
    for _ in range(count if way == "post" else 0):
        asker.endpoint.post(Echo())
    with pytest.raises(PeerDiedError, match="tracker did not answer Echo: the stream ended"):
        asker.endpoint.flush(30.0) if way == "post" else asker.endpoint.send(Echo(), timeout_s=30.0)
    failed = ("asker", "tracker", 0, "PeerDiedError: tracker did not answer Echo: the stream ended")
    until(lambda: audit.outcomes("Echo").count(failed) == count)
    assert asker.endpoint.statistics().pending == 0


def test_a_goodbye_is_told_as_the_reason(hub: HubThread, tracker: EndpointThread, asker: Asker) -> None:
    class Leaves:
        endpoint: bus.Endpoint

        @bus.handles(Tick)
        def tick(self, command) -> int:
            self.endpoint.close("had enough")
            return 1

        @bus.handles(Echo)
        def echo(self, command):
            return command.value

    leaves = EndpointThread(hub, "leaves", Leaves())
    asker.get_line("leaves")
    with pytest.raises(PeerDiedError, match="leaves did not answer Tick: it closed its side: had enough"):
        asker.endpoint.request(Tick(n=1), to="leaves")
    leaves.close()


def test_a_removed_worker_is_cut_off_and_the_reason_told(hub: HubThread, asker: Asker) -> None:
    (child,) = hub.spawn("tracker")
    asker.get_line("tracker")
    threading.Timer(0.3, lambda: hub.do(lambda: hub.hub.remove_peer("tracker", "it hung"))).start()
    with pytest.raises(PeerDiedError, match="tracker did not answer Stop: it hung"):
        asker.endpoint.request(Stop(seconds=30.0), timeout_s=20.0)
    with pytest.raises(PeerDiedError, match="tracker is not running: it hung"):
        asker.endpoint.request(Echo())
    hub.do(lambda: hub.hub.remove_peer("tracker", "it hung", forget=True))
    with pytest.raises(UnknownCommandError, match="nobody handles Echo"):
        asker.endpoint.request(Echo())
    child.kill()


def test_a_killed_asker_leaves_a_worker_that_answers_others(hub: HubThread, audit: Audit, tracker: EndpointThread) -> None:
    (child,) = hub.spawn("left")
    with hub.client() as program:
        program.post(Flood(to="tracker", count=100_000), to="left")
        until(lambda: tracker.endpoint is not None and tracker.endpoint.statistics().lines == 1)
        until(lambda: tracker.owners[0].ticks > 100)  # type: ignore[attr-defined]
        child.kill()
        until(lambda: tracker.endpoint is not None and tracker.endpoint.statistics().lines == 0)
        assert program.request(Echo(value=1), to="tracker") == 1
        count, in_order = program.request(Ticks(), to="tracker")
    assert in_order
    until(lambda: len(audit.outcomes("Tick")) == count)
    assert set(audit.outcomes("Tick")) == {("left", "tracker", 0, "ok")}


def test_the_supervisors_end_is_the_end_of_lines_too(hub: HubThread, tracker: EndpointThread, asker: Asker) -> None:
    asker.get_line("tracker")
    threading.Timer(0.3, lambda: hub.do(hub.hub.close)).start()
    with pytest.raises(PeerDiedError, match="tracker did not answer Stop: the supervisor closed the bus"):
        asker.endpoint.request(Stop(seconds=1.0), timeout_s=20.0)
    until(lambda: (asker.endpoint.pump(0.01), asker.endpoint.peer_closed)[1])
    assert asker.lines == 0


# -- what goes wrong on a line


class FarEnd:
    """The answering side of a line without a process behind it: it says whatever the test wants."""

    def __init__(self, hub: HubThread) -> None:
        self.endpoint = bus.Endpoint(hub.connect("vandal"), "vandal")
        self.endpoint.hello(bus.manifest(Worker))

    def answer_hub(self) -> None:
        """Do what was asked through the hub."""
        self.endpoint.pump(0.02)

    @property
    def sock(self) -> socket.socket:
        (end,) = self.endpoint._lines._ends.values()
        return end.connection.sock


def line_to_vandal(hub: HubThread) -> tuple[FarEnd, Asker]:
    vandal, asker = FarEnd(hub), Asker(hub)
    with pytest.raises(CommandTimeoutError):
        asker.endpoint.request(Echo(), to="vandal", timeout_s=0.1)
    until(lambda: (asker.endpoint.pump(0.01), vandal.answer_hub(), asker.lines and vandal.endpoint.statistics().lines)[-1])
    return vandal, asker


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    "answer",
    [
        frame(b"\xc1garbage"),
        b"\xff\xff\xff\xff",
        wire.pack(wire.Return(999, wire.NIL)),
        wire.pack(wire.Credit(10**9)),
        wire.pack(wire.Deliver(1, 0, "x", "Echo", wire.NIL)),
    ],
    ids=["garbage", "endless", "unknown id", "too much credit", "not for a line"],
)
def test_a_line_that_says_what_is_no_answer_ends_and_nobody_dies(
    hub: HubThread, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    vandal, asker = line_to_vandal(hub)
    until_sent = threading.Timer(0.2, lambda: vandal.sock.sendall(answer))
    until_sent.start()
    with pytest.raises(PeerDiedError, match="vandal did not answer Echo: the line to it broke"):
        asker.endpoint.request(Echo(), to="vandal", timeout_s=10.0)
    until_sent.join()
    assert "asker: the line to vandal ends, it sent what is not a message" in caplog.text
    assert set(hub.do(lambda: hub.hub.peers)) == {"vandal", "asker"}
    asker.endpoint.close()
    vandal.endpoint.close()


@pytest.mark.parametrize("sent", [frame(b"\xc1garbage"), b"\xff\xff\xff\xff", wire.pack(wire.Return(1, wire.NIL))])
def test_a_worker_that_is_sent_garbage_ends_that_line_only(
    hub: HubThread, tracker: EndpointThread, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    vandal, other = Asker(hub, "vandal"), Asker(hub, "other")
    for each in (vandal, other):
        each.get_line("tracker")
    (end,) = vandal.endpoint._lines._ends.values()
    end.connection.sock.sendall(sent)
    until(lambda: (vandal.endpoint.pump(0.01), vandal.lines == 0)[1])
    assert "tracker: the line from vandal ends, it sent what is not a message" in caplog.text
    for each in (vandal, other):
        assert each.endpoint.request(Echo(value=1), to="tracker") == 1
    until(lambda: (vandal.endpoint.request(Echo(value=2), to="tracker"), vandal.endpoint.pump(0.01), vandal.lines == 1)[-1])
    for each in (vandal, other):
        each.endpoint.close()


def test_a_process_that_may_open_no_more_files_goes_on_through_the_hub(
    hub: HubThread, tracker: EndpointThread, asker: Asker
) -> None:
    asker.endpoint.post(Echo(value=1))
    until(lambda: hub.do(hub.hub.statistics)["asker"].lines == 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        asker.endpoint.flush()
        until(lambda: (asker.endpoint.pump(0.01), hub.do(hub.hub.statistics)["asker"].lines == 0)[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert asker.lines == 0
    assert asker.endpoint.request(Echo(value=2)) == 2
    asker.get_line("tracker")


def test_lines_that_break_again_and_again_are_given_up(
    hub: HubThread, tracker: EndpointThread, caplog: pytest.LogCaptureFixture
) -> None:
    vandal = Asker(hub, "vandal")
    for _ in range(5):
        vandal.get_line("tracker")
        (end,) = vandal.endpoint._lines._ends.values()
        end.connection.sock.sendall(frame(b"garbage"))
        until(lambda: (vandal.endpoint.pump(0.01), hub.do(hub.hub.statistics)["vandal"].lines == 0)[1])
    for n in range(10):
        assert vandal.endpoint.request(Echo(value=n), to="tracker") == n
    assert vandal.lines == 0
    assert "vandal gets no more lines to tracker: 5 of them broke" in caplog.text
    vandal.endpoint.close()
    other = Asker(hub, "other")
    other.get_line("tracker")
    other.endpoint.close()


def test_a_late_reply_is_dropped_and_counted(hub: HubThread, audit: Audit, tracker: EndpointThread, asker: Asker) -> None:
    asker.get_line("tracker")
    with pytest.raises(CommandTimeoutError, match=r"Stop was not answered within 0.1 s"):
        asker.endpoint.request(Stop(seconds=0.3), timeout_s=0.1)
    assert asker.endpoint.request(Echo(value=2)) == 2
    assert asker.endpoint.statistics().late_replies == 1
    assert asker.endpoint.statistics().pending == 0
    until(lambda: len(audit.outcomes("Stop")) == 2)
    assert audit.outcomes("Stop") == [("asker", "tracker", 1, "timeout"), ("asker", "tracker", 1, "late: ok")]


# -- who may, and what is known of it


def test_a_line_carries_only_what_its_sender_may_send(hub: HubThread) -> None:
    tracker = EndpointThread(hub, "tracker", Worker("tracker"))
    program = bus.Endpoint(hub.connect("program", "client"), "program")
    program.hello()
    assert program.request(Echo(value=1)) == 1
    until(lambda: (program.pump(0.01), program.statistics().lines)[1])
    with pytest.raises(PermissionError, match="NotForScripts may not be sent by the user's program"):
        program.request(support.NotForScripts())
    (line,) = {id(line): line for line in program._lines.routes.values()}.values()
    assert "NotForScripts" not in line.commands
    assert "Private" not in line.commands
    program._lines.routes["NotForScripts", None] = line  # a program that does as if
    with pytest.raises(PermissionError, match="NotForScripts may not be sent by program on its line to tracker"):
        program.request(support.NotForScripts())
    program.close()
    page = bus.Endpoint(hub.connect("page", "page"), "page")
    page.hello()
    with pytest.raises(PermissionError, match="Echo may not be sent by the page"):
        page.request(Echo())
    assert page.statistics().lines == 0
    page.close()
    tracker.close()


def test_a_second_instance_makes_a_target_necessary_on_lines_too(hub: HubThread, tracker: EndpointThread, asker: Asker) -> None:
    asker.get_line("tracker")
    assert asker.endpoint.request(Echo(value=1)) == 1
    second = EndpointThread(hub, "other", Worker("other"))
    with pytest.raises(ConfigError, match="Echo is handled by other, tracker: say which with to="):
        until(lambda: (asker.endpoint.pump(0.01), asker.endpoint.request(Echo(value=1)))[0])
    assert asker.endpoint.request(Echo(value=1), to="tracker") == 1
    assert asker.endpoint.request(Echo(value=2), to="other") == 2
    second.close()
    hub.do(lambda: hub.hub.remove_peer("other", "gone", forget=True))
    until(lambda: (asker.endpoint.pump(0.01), asker.lines == 1)[1])
    assert asker.endpoint.request(Echo(value=3)) == 3


def test_every_command_on_a_line_is_audited(hub: HubThread, audit: Audit, tracker: EndpointThread, asker: Asker) -> None:
    asker.get_line("tracker")
    before = time.time_ns()
    endpoint = asker.endpoint
    endpoint.request(Add(a=1, b=2))
    endpoint.send(Tick(n=0))
    with pytest.raises(KeyError):
        endpoint.request(Raise(class_name="KeyError"))
    with pytest.raises(BadPayloadError):
        endpoint.request(Add(a=1, b="2"))  # type: ignore[arg-type]
    endpoint.request(Blob(data=bytes(5000)))
    until(lambda: len(audit) == 6)
    seen = [(each.sender, each.target, each.command, each.kind) for each in audit[1:]]
    assert seen == [
        ("asker", "tracker", "Add", 1),
        ("asker", "tracker", "Tick", 0),
        ("asker", "tracker", "Raise", 1),
        ("asker", "tracker", "Add", 1),
        ("asker", "tracker", "Blob", 1),
    ]
    outcomes = [each.outcome for each in audit[1:]]
    assert outcomes[:3] == ["ok", "ok", "KeyError: 'missing'"]
    assert outcomes[3].startswith("BadPayloadError: Add: Expected `int`")
    assert [bus_decode(each.payload) for each in audit[1:3]] == [{"a": 1, "b": 2}, {"n": 0}]
    assert audit[5].payload == b""
    assert all(before <= each.utc_ns <= time.time_ns() and each.duration_s >= 0 for each in audit[1:])


def bus_decode(packed: bytes) -> Any:
    from mutoscope.bus import payload

    return payload.decode(packed, Any, "test")


def test_a_burst_is_audited_whole(hub: HubThread, audit: Audit, asker: Asker) -> None:
    hub.spawn("left")
    asker.get_line("left")
    for n in range(20_000):
        asker.endpoint.post(Tick(n=n))
    asker.endpoint.flush(60.0)
    until(lambda: len(audit.outcomes("Tick")) == 20_000)
    assert sorted(bus_decode(each.payload)["n"] for each in audit if each.command == "Tick") == list(range(20_000))


def test_what_a_killed_worker_answered_is_audited_to_the_last(hub: HubThread, audit: Audit, asker: Asker) -> None:
    (child,) = hub.spawn("left")
    asker.get_line("left")
    for n in range(200):
        asker.endpoint.request(Tick(n=n))
    child.kill()
    until(lambda: "left" in hub.lost)
    assert len(audit.outcomes("Tick")) == 200


def test_whatever_is_killed_whenever_nobody_waits_for_ever_and_every_answer_is_audited(hub: HubThread, audit: Audit) -> None:
    names = ("one", "two", "three")
    children = {name: hub.spawn(name)[0] for name in names}
    answered: list[float] = []
    wrong: list[object] = []
    stopping = threading.Event()

    def ask(program: bus.ThreadedEndpoint, seed: int) -> None:
        chance = random.Random(seed)
        while not stopping.is_set():
            to, other = chance.sample(names, 2)
            value = chance.random()
            try:
                if value < 0.7:
                    wrong.extend([value] if program.request(Echo(value=value), to=to) != value else [])
                    answered.append(value)
                elif value < 0.8:
                    program.request(Flood(to=other, count=20), to=to)
                else:
                    program.send(Tick(n=1), to=to)
            except PeerDiedError:
                continue
            except Exception as error:
                wrong.append(error)

    with hub.client() as program:
        threads = [threading.Thread(target=ask, args=(program, seed)) for seed in range(3)]
        for thread in threads:
            thread.start()
        chance = random.Random(1)
        for _ in range(8):
            support.wait(chance.random() * 0.3)
            name = chance.choice(names)
            children[name].kill()
            until(lambda name=name: name in hub.lost)
            (children[name],) = hub.spawn(name)
        stopping.set()
        for thread in threads:
            thread.join()
        assert program.statistics().pending == 0
    assert wrong == []
    until(lambda: sum(each.outcome == "ok" for each in audit if each.command == "Echo") >= len(answered))
    told = [bus_decode(each.payload)["value"] for each in audit if each.command == "Echo" and each.outcome == "ok"]
    assert set(told) >= set(answered)
    assert len(told) - len(answered) <= 8 * 3  # done, but killed before the answer was out


def test_no_descriptor_is_left_by_lines_that_come_and_go(hub: HubThread, asker: Asker) -> None:
    def open_fds(check: Callable[[int], bool]) -> int:
        until(lambda: check(len(os.listdir("/proc/self/fd"))))
        return len(os.listdir("/proc/self/fd"))

    before = open_fds(bool)
    for _ in range(5):
        (child,) = hub.spawn("tracker")
        asker.get_line("tracker")
        assert asker.endpoint.request(Echo(value=1)) == 1
        child.kill()
        child.wait()
        until(lambda: (asker.endpoint.pump(0.01), asker.lines == 0)[1])
    assert open_fds(lambda count: count <= before) <= before


def test_the_descriptor_to_wait_on_stays_the_same(tracker: EndpointThread, asker: Asker) -> None:
    number = asker.endpoint.fileno()
    asker.get_line("tracker")
    assert asker.endpoint.fileno() == number
    asker.endpoint.close()
    assert asker.endpoint.fileno() == -1


def test_an_answer_that_cannot_be_handled_ends_that_line_only(
    hub: HubThread, tracker: EndpointThread, asker: Asker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker.get_line("tracker")
    monkeypatch.setattr(asker.endpoint._session, "finish", lambda *_: {}["a fault of the asker"])
    with pytest.raises((PeerDiedError, CommandTimeoutError)):
        asker.endpoint.request(Echo(value=1), to="tracker", timeout_s=0.5)
    assert "asker: the line to tracker ends: handling what it sent failed" in caplog.text
    monkeypatch.undo()
    assert asker.endpoint.request(Echo(value=2), to="tracker", timeout_s=5.0) == 2


def test_a_command_that_cannot_be_handled_ends_that_line_only(
    hub: HubThread, tracker: EndpointThread, asker: Asker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker.get_line("tracker")
    assert tracker.endpoint is not None
    monkeypatch.setattr(tracker.endpoint._session, "take", lambda *_: {}["a fault of the tracker"])
    with pytest.raises(PeerDiedError, match="the line to it broke"):
        asker.endpoint.request(Echo(value=1), to="tracker", timeout_s=5.0)
    assert "tracker: the line from asker ends: handling what it sent failed" in caplog.text
    monkeypatch.undo()
    assert asker.endpoint.request(Echo(value=2), to="tracker", timeout_s=5.0) == 2


@pytest.mark.parametrize("name", ["ExceptionGroup", "UnicodeDecodeError", "no such class", "SystemExit"])
def test_an_error_on_a_line_that_cannot_be_made_again_arrives_as_a_remote_error(hub: HubThread, name: str) -> None:
    vandal, asker = line_to_vandal(hub)
    (out,) = asker.endpoint._lines._out.values()

    def answer() -> None:
        (number,) = out.waiting
        vandal.sock.sendall(wire.pack(wire.Fail(number, ErrorRecord(name, ("m", ""), "m"))))

    sending = threading.Timer(0.2, answer)
    sending.start()
    with pytest.raises(RemoteError, match=f"{name}: m"):
        asker.endpoint.request(Echo(), to="vandal", timeout_s=10.0)
    sending.join()
    asker.endpoint.close()
    vandal.endpoint.close()


def test_who_sends_beyond_the_window_of_a_line_loses_it(hub: HubThread, asker: Asker, caplog: pytest.LogCaptureFixture) -> None:
    target = Asker(hub, "target", Worker("target"))

    def turn() -> None:
        target.endpoint.pump(0.005)
        asker.endpoint.pump(0.005)

    asker.endpoint.post(Echo(), to="target")
    until(lambda: (turn(), target.endpoint.dispatch(), asker.lines and target.lines)[-1])
    (line,) = asker.endpoint._lines._ends.values()
    assert isinstance(line, OutLine)
    line.window.limit = 1024 * MIB  # it thinks so
    data = bytes(MIB)
    for _ in range(30):
        asker.endpoint.post(Blob(data=data), to="target")
    until(lambda: (turn(), target.lines == 0)[-1])  # it reads, and handles nothing
    assert "target: the line from asker ends" in caplog.text
    assert "beyond its window" in caplog.text
    assert target.endpoint.statistics().inbox_bytes < 6 * MIB
    until(lambda: (turn(), target.endpoint.dispatch(), not asker.endpoint._session.posted)[-1])
    with pytest.raises(PeerDiedError):
        asker.endpoint.flush()
    target.endpoint.close()


def test_many_posts_to_a_killed_worker_are_told_in_few_lines(
    hub: HubThread, asker: Asker, caplog: pytest.LogCaptureFixture
) -> None:
    (process,) = hub.spawn("slow")
    asker.get_line("slow")
    process.send_signal(signal.SIGSTOP)
    for n in range(5000):
        asker.endpoint.post(Tick(n=n), to="slow")
    process.kill()
    until(lambda: (asker.endpoint.pump(0.01), not asker.endpoint._session.posted)[1])
    told = [record.getMessage() for record in caplog.records if "was not delivered" in record.getMessage()]
    assert 2 <= len(told) < 20
    counts = [re.search(r"\(([\d,]+) posted commands", line) for line in told]
    assert sum(int(found[1].replace(",", "")) if found else 1 for found in counts) == 5000
    assert "slow did not answer Tick" in told[0]
    with pytest.raises(PeerDiedError):
        asker.endpoint.flush()
