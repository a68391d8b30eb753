"""Windows: memory stays bounded, whoever is slow."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterable

import bus_support as support
import msgspec
import pytest
from bus_support import Blob, Echo, EndpointThread, HubThread, Shared, Tick, Ticks, Worker

from mutoscope import bus
from mutoscope.bus import wire
from mutoscope.bus.flow import CreditAccount, Window
from mutoscope.bus.last import LastValues
from mutoscope.model.errors import CommandTimeoutError
from polling import until

MIB = 1024 * 1024


def test_one_message_always_goes_and_a_waiting_sender_always_gets_on() -> None:
    window, account = Window(800), CreditAccount(800)
    window.charge(5000)
    assert not window.has_room
    assert account.add(5000) == 5000
    assert window.credit(5000)
    assert window.has_room
    owed = 0
    while window.has_room:
        window.charge(7)
        owed += account.add(7)
    assert owed >= 700
    assert window.credit(owed)
    assert window.has_room
    assert not window.credit(10_000)


def post_many(program: bus.ThreadedEndpoint, data: bytes, to: str) -> None:
    for _ in range(100):
        program.post(Blob(data=data), to=to, timeout_s=0.3)


def test_what_a_busy_worker_has_not_handled_is_bounded_and_the_rest_waits(hub: HubThread, no_lines: None) -> None:
    worker = Worker("slow")
    thread = EndpointThread(hub, "slow", worker, inbox_bytes=MIB)
    thread.pause()
    with hub.client(window_bytes=MIB) as program:
        data = bytes(100_000)
        with pytest.raises(CommandTimeoutError, match=r"Blob was not sent: .* bytes are still on their way"):
            post_many(program, data, "slow")
        sent = program.statistics().pending
        assert 20 <= sent <= 30  # one window in the worker's inbox, one held for it
        statistics = hub.do(hub.hub.statistics)["slow"]
        assert statistics.unhandled_bytes < 1.2 * MIB
        assert statistics.held_bytes_peak < 1.2 * MIB
        thread.resume()
        for _ in range(50):
            program.post(Blob(data=data))
        program.flush()
        assert program.statistics().in_flight_bytes < MIB
    assert thread.endpoint is not None
    assert thread.endpoint.statistics().inbox_bytes_peak < 1.2 * MIB
    thread.close()


def test_replies_pass_a_full_inbox(hub: HubThread, way: str) -> None:
    class Full:
        endpoint: bus.Endpoint
        answer: object = None

        @bus.handles(Tick)
        def tick(self, command):
            if command.n == 0:
                until(lambda: self.endpoint.pump(0.01) and self.endpoint.statistics().inbox_bytes >= 0.9 * MIB)
                self.answer = self.endpoint.request(Echo(value="through"), to="tracker", timeout_s=5.0)

        @bus.handles(Blob)
        def blob(self, command): ...

    full = Full()
    thread = EndpointThread(hub, "full", full, inbox_bytes=MIB)
    tracker = EndpointThread(hub, "tracker", Worker("tracker"))
    with hub.client() as program:
        program.post(Tick(n=0), to="full")
        for _ in range(40):
            program.post(Blob(data=bytes(50_000)), to="full")
        program.flush()
    until(lambda: full.answer == "through")
    thread.close()
    tracker.close()


def test_held_deliveries_are_forgotten_with_their_senders_patience(hub: HubThread, no_lines: None) -> None:
    thread = EndpointThread(hub, "slow", Worker("slow"), inbox_bytes=MIB)
    tracker = EndpointThread(hub, "tracker", Worker("tracker"))
    thread.pause()
    with hub.client(window_bytes=MIB) as program:
        with pytest.raises(CommandTimeoutError):
            post_many(program, bytes(100_000), "slow")
        assert hub.do(hub.hub.statistics)["slow"].held > 0
        assert program.request(Echo(value=1), to="tracker", timeout_s=10.0) == 1  # waits until they are
        until(lambda: hub.do(hub.hub.statistics)["slow"].held == 0)
    thread.close()
    tracker.close()


def test_a_slow_subscriber_gets_the_newest_value_and_the_count(hub: HubThread, caplog: pytest.LogCaptureFixture) -> None:
    slow = bus.Endpoint(hub.connect("slow"), "slow", inbox_bytes=MIB)
    slow.hello()
    heard: list[int] = []
    seen: list[int] = []
    hub.do(lambda: hub.hub.subscribe(Shared, lambda event: seen.append(event.n)))
    slow.subscribe(Shared, lambda event: heard.append(event.n))
    with hub.client() as program:
        for n in range(200):
            program.publish(Shared(n=n, text="x" * 20_000))
        until(lambda: hub.do(hub.hub.statistics)["slow"].events_dropped)
        program.publish(Shared(n=200))
        until(lambda: seen[-1] == 200)
    until(lambda: (slow.pump(0.05), slow.dispatch(), heard and heard[-1] == 200)[-1])
    dropped = slow.statistics().events_dropped
    assert dropped > 0
    assert len(heard) + dropped == 201
    assert heard == sorted(heard)
    assert "values of event Shared were passed over" in caplog.text
    slow.close()


def test_many_threads_of_the_program_call_at_once(hub: HubThread, way: str) -> None:
    threads = [EndpointThread(hub, name, Worker(name)) for name in ("left", "right")]
    wrong: list[object] = []
    with hub.client() as program:

        def ask(index: int) -> None:
            for n in range(200):
                answer = program.request(Echo(value=[index, n]), to=("left", "right")[n % 2])
                if answer != [index, n]:
                    wrong.append(answer)

        askers = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    assert wrong == []
    for thread in threads:
        thread.close()


def test_a_thread_that_waits_long_does_not_keep_the_others(hub: HubThread, way: str) -> None:
    thread = EndpointThread(hub, "left", Worker("left"))
    other = EndpointThread(hub, "right", Worker("right"))
    with hub.client() as program:
        done: list[object] = []
        slow = threading.Thread(target=lambda: done.append(program.request(support.Stop(seconds=1.0), to="left")))
        slow.start()
        until(lambda: program.statistics().pending == 1)
        started = time.monotonic()
        for n in range(20):
            assert program.request(Echo(value=n), to="right") == n
        assert done == []
        slow.join()
        assert done == [None]
        assert time.monotonic() - started >= 0.5
    thread.close()
    other.close()


def test_closing_wakes_whoever_waits(hub: HubThread, way: str) -> None:
    thread = EndpointThread(hub, "left", Worker("left"))
    program = hub.client()
    failures: list[str] = []

    def ask() -> None:
        try:
            program.request(support.Stop(seconds=1.0), to="left", timeout_s=30.0)
        except Exception as error:
            failures.append(type(error).__name__)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    until(lambda: program.statistics().pending == 3)
    program.close()
    for asker in askers:
        asker.join(10.0)
    assert failures == ["ClosedError"] * 3
    thread.close()


def test_a_callback_may_call(hub: HubThread) -> None:
    thread = EndpointThread(hub, "left", Worker("left"))
    answers: list[object] = []
    with hub.client() as program:
        program.subscribe(Shared, lambda event: answers.append(program.request(Echo(value=event.n))))
        program.publish(Shared(n=5))
        until(lambda: answers == [5])
        for n in range(100):
            program.publish(Shared(n=n))
            assert program.request(Ticks()) == (0, True)
        until(lambda: answers == [5, *range(100)])
    thread.close()


# -- processes that keep to no window


def raw(hub: HubThread, name: str = "vandal", inbox_bytes: int = 1000) -> socket.socket:
    """A process that says what the test wants."""
    sock = hub.connect(name)
    sock.sendall(wire.pack(wire.hello(name, inbox_bytes, bus.Manifest())))
    until(lambda: name in hub.hellos)
    return sock


def flood(hub: HubThread, sock: socket.socket, messages: Iterable[wire.Call | wire.Publish | wire.Subscribe]) -> int:
    """Send until the hub closes the stream; returns how many messages it may have taken."""
    count = 0
    sock.settimeout(support.DEADLINE_S)
    try:
        for message in messages:
            sock.sendall(wire.pack(message))
            count += 1
    except ConnectionError:
        until(lambda: "vandal" in hub.lost)
        return count
    raise AssertionError(f"the hub took {count} messages")


def test_a_process_that_sends_beyond_its_window_is_cut_off_and_nobody_else(hub: HubThread, no_lines: None) -> None:
    thread = EndpointThread(hub, "slow", Worker("slow"), inbox_bytes=MIB)
    other = EndpointThread(hub, "other", Worker("other"))
    content = msgspec.Raw(msgspec.msgpack.encode({"data": bytes(MIB)}))
    with hub.client() as program, raw(hub) as vandal:
        thread.pause()
        calls = (wire.Call(n, wire.SEND, "Blob", "slow", 60.0, content) for n in range(1, 400))
        assert flood(hub, vandal, calls) < 20
        assert "beyond its window of 8,388,608" in hub.lost["vandal"]
        assert hub.do(hub.hub.statistics)["slow"].held_bytes_peak < 12 * MIB
        assert program.request(Echo(value=1), to="other", timeout_s=5.0) == 1
        thread.resume()
        assert program.request(Echo(value=1), to="slow", timeout_s=5.0) == 1
    other.close()
    thread.close()


@pytest.mark.parametrize("kind", [wire.Publish, wire.Subscribe, wire.Call])
def test_endless_names_are_refused(hub: HubThread, kind: type) -> None:
    name = "x" * MIB
    message = {
        wire.Publish: wire.Publish(name, wire.NIL),
        wire.Subscribe: wire.Subscribe(name),
        wire.Call: wire.Call(1, wire.SEND, name, None, 1.0, wire.NIL),
    }[kind]
    with raw(hub) as vandal:
        assert flood(hub, vandal, itertools.repeat(message, 300)) < 10
    assert "names a command or an event with 1,048,576 characters" in hub.lost["vandal"]


def test_a_process_may_not_subscribe_to_everything_one_can_think_of(hub: HubThread) -> None:
    with raw(hub) as vandal:
        flood(hub, vandal, (wire.Subscribe(f"event {n}") for n in range(300_000)))
    assert "it subscribes to more than 4096 events" in hub.lost["vandal"]


def test_what_is_kept_of_events_is_bounded_and_the_rest_still_arrives(hub: HubThread, caplog: pytest.LogCaptureFixture) -> None:
    values = LastValues(max_events=3, max_bytes=100)
    kept = [values.keep(f"event {n}", "vandal", msgspec.Raw(bytes(10))) for n in range(5)]
    assert kept == [True, True, True, False, False]
    assert values.keep("event 0", "vandal", msgspec.Raw(bytes(80)))
    assert not values.keep("event 1", "vandal", msgspec.Raw(bytes(50)))
    assert values.get("event 1") is None  # rather than one that is not the last
    assert values.keep("event 1", "vandal", msgspec.Raw(bytes(5)))
    assert caplog.text.count("is not kept for later subscribers") == 1
    hub.do(lambda: setattr(hub.hub, "_latest", LastValues(max_events=0)))
    heard = threading.Event()
    with hub.client("hears") as hears, hub.client("says") as says:
        hears.subscribe(Shared, lambda event: heard.set())
        until(lambda: (says.publish(Shared(n=1)), heard.wait(0.01))[1])


def test_who_does_not_read_what_it_asks_for_is_cut_off(hub: HubThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mutoscope.bus.hub._MAX_UNSENT_BYTES", 20 * MIB)
    thread = EndpointThread(hub, "tracker", Worker("tracker"))
    content = msgspec.Raw(msgspec.msgpack.encode({"value": bytes(MIB)}))
    with hub.client() as program, raw(hub) as vandal:
        vandal.settimeout(support.DEADLINE_S)
        with contextlib.suppress(ConnectionError):
            for n in range(1, 100):
                vandal.sendall(wire.pack(wire.Call(n, wire.REQUEST, "Echo", "tracker", 60.0, content)))
                until(lambda: hub.lost or hub.do(hub.hub.statistics)["tracker"].outstanding == 0)
        until(lambda: "vandal" in hub.lost)
        assert "it did not read" in hub.lost["vandal"]
        assert program.request(Echo(value=1), timeout_s=5.0) == 1
    thread.close()
