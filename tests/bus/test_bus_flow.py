"""Windows: memory stays bounded, whoever is slow."""

from __future__ import annotations

import threading
import time

import bus_support as support
import pytest
from bus_support import Blob, Echo, EndpointThread, HubThread, Shared, Tick, Ticks, Worker, until

from mutoscope import bus
from mutoscope.bus.flow import CreditAccount, Window
from mutoscope.model.errors import CommandTimeoutError

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
        thread.paused.clear()
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
