"""The bus between real processes: death, bursts, large payloads, silence."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import bus_support as support
import numpy as np
import pytest
from bus_support import Blob, Echo, Flood, HubThread, Image, Poke, Private, Stop, Tick, Ticks

from mutoscope import bus
from mutoscope.model.errors import BadPayloadError, CommandTimeoutError, PeerDiedError, UnknownCommandError
from polling import until

EIGHT = tuple(f"w{i}" for i in range(8))


def test_a_request_goes_to_the_worker_and_back(hub: HubThread) -> None:
    hub.spawn("tracker")
    with hub.client() as program:
        assert program.request(Echo(value={"a": [1, 2.5, None, "ü", b"raw"]})) == {"a": [1, 2.5, None, "ü", b"raw"]}
        assert program.request(Echo(value=3), to="tracker") == 3


def test_ten_megabytes_there_and_back_as_bytes_and_as_an_array(hub: HubThread, way: str) -> None:
    hub.spawn("tracker")
    data = os.urandom(10_000_000)
    pixels = np.arange(5_000_000, dtype=np.uint16).reshape(2000, 2500)
    with hub.client() as program:
        assert program.request(Blob(data=data)) == data[::-1]
        answer = program.request(Image(pixels=pixels))
        np.testing.assert_array_equal(answer, pixels + 1)
        assert answer.flags.writeable
        assert answer.dtype == np.uint16


def test_what_is_larger_than_a_message_is_refused_here_and_there(hub: HubThread) -> None:
    hub.spawn("tracker")
    with hub.client() as program:
        with pytest.raises(BadPayloadError, match=r"Blob has 67,108,\d+ bytes, at most 67,108,864"):
            program.request(Blob(data=bytes(64 * 1024 * 1024)))
        assert program.request(Echo(value=1)) == 1


def test_twenty_thousand_commands_in_both_directions_at_once_from_within_handlers(hub: HubThread, way: str) -> None:
    hub.spawn("left", "right")
    with hub.client("one") as one, hub.client("two") as two:
        counts = []
        threads = [
            threading.Thread(
                target=lambda client=client, to=to, other=other: counts.append(
                    client.request(Flood(to=other, count=20_000), to=to, timeout_s=100.0)
                )
            )
            for client, to, other in ((one, "left", "right"), (two, "right", "left"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == [20_000, 20_000]
        for name in ("left", "right"):
            assert one.request(Ticks(), to=name) == (20_000, True)
    peaks = [peer.unsent_bytes_peak for peer in hub.do(hub.hub.statistics).values()]
    assert max(peaks) < 2 * 8 * 1024 * 1024


def test_posted_bursts_arrive_whole_and_in_order(hub: HubThread, way: str) -> None:
    hub.spawn("left", "right")
    with hub.client() as program:

        def burst(to: str) -> None:
            for n in range(20_000):
                program.post(Tick(n=n), to=to, timeout_s=60.0)

        threads = [threading.Thread(target=burst, args=(to,)) for to in ("left", "right")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        program.flush(60.0)
        assert program.request(Ticks(), to="left") == (20_000, True)
        assert program.request(Ticks(), to="right") == (20_000, True)


def test_a_killed_worker_fails_what_it_was_to_answer_at_once(hub: HubThread, way: str) -> None:
    (child,) = hub.spawn("tracker")
    with hub.client() as program:
        assert program.request(Echo(value=1)) == 1
        failures = []

        def ask() -> None:
            started = time.monotonic()
            try:
                program.request(Stop(seconds=60.0), timeout_s=60.0)
            except PeerDiedError as error:
                failures.append((str(error), time.monotonic() - started))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: program.statistics().pending == 3)
        assert program.statistics().lines == (way == "lines")
        child.kill()
        for thread in threads:
            thread.join(10.0)
        assert len(failures) == 3
        for text, _ in failures:
            assert text.startswith("tracker did not answer Stop: ")
        until(lambda: "tracker" in hub.lost)
        with pytest.raises(PeerDiedError, match="tracker is not running: the stream ended"):
            program.send(Echo(), to="tracker")
        hub.spawn("tracker")
        assert program.request(Echo(value=5)) == 5


def test_a_worker_that_is_starting_refuses_at_once(hub: HubThread) -> None:
    (child,) = hub.spawn("tracker")
    with hub.client() as program:
        child.kill()
        until(lambda: "tracker" in hub.lost)
        with hub.connect("tracker"), pytest.raises(PeerDiedError, match="tracker is starting and not ready yet"):
            program.request(Echo(), to="tracker")
        until(lambda: "tracker" not in hub.do(lambda: hub.hub.peers))
        hub.do(lambda: hub.hub.remove_peer("tracker", "out of restarts"))
        with pytest.raises(PeerDiedError, match="tracker is not running: out of restarts"):
            program.request(Echo(), to="tracker")
        hub.do(lambda: hub.hub.remove_peer("tracker", "gone for good", forget=True))
        with pytest.raises(UnknownCommandError, match="nobody handles Echo"):
            program.request(Echo())


def test_a_broadcast_is_acknowledged_by_each_of_eight(hub: HubThread) -> None:
    children = hub.spawn(*EIGHT, cls="Quiet")
    with hub.client() as program:
        assert program.broadcast(Poke()) == {name: name for name in EIGHT}
        children[2].kill()
        until(lambda: EIGHT[2] in hub.lost)
        children[5].send_signal(signal.SIGSTOP)
        answers = program.broadcast(Poke(), timeout_s=1.0)
        assert set(answers) == set(EIGHT)
        assert isinstance(answers[EIGHT[2]], PeerDiedError)
        assert isinstance(answers[EIGHT[5]], CommandTimeoutError)
        assert all(answers[name] == name for name in EIGHT if name not in (EIGHT[2], EIGHT[5]))
        children[5].send_signal(signal.SIGCONT)
        until(lambda: program.statistics().late_replies == 1)
        children[6].send_signal(signal.SIGSTOP)
        threading.Timer(0.3, children[6].kill).start()
        answers = program.broadcast(Poke(), timeout_s=10.0)
        assert isinstance(answers[EIGHT[6]], PeerDiedError)
        assert answers[EIGHT[5]] == EIGHT[5]


def test_the_supervisor_asks_hears_errors_deaths_and_time_outs(hub: HubThread) -> None:
    (child,) = hub.spawn("tracker")
    heard: list[tuple[object, Exception | None]] = []

    def ask(command: bus.Command, timeout_s: float = 10.0) -> tuple[object, Exception | None]:
        heard.clear()
        hub.do(lambda: hub.hub.request("tracker", command, timeout_s, lambda *answer: heard.append(answer)))
        until(lambda: heard)
        return heard[0]

    assert ask(Private()) == ("tracker did it", None)
    _, error = ask(support.Raise(class_name="CameraError"))
    assert type(error).__name__ == "CameraError"
    assert "said so" in (error.remote_traceback or "")
    _, error = ask(support.Unknown())
    assert isinstance(error, UnknownCommandError)
    _, error = ask(Stop(seconds=1.0), 0.2)
    assert isinstance(error, CommandTimeoutError)
    until(lambda: hub.do(lambda: hub.hub.late_replies) == 1)
    threading.Timer(0.3, child.kill).start()
    _, error = ask(Stop(seconds=60.0), 60.0)
    assert isinstance(error, PeerDiedError)
    _, error = ask(Private())
    assert isinstance(error, PeerDiedError)
    assert hub.do(hub.hub.next_deadline) is None


def test_a_worker_outlives_nobody_without_noticing(hub: HubThread) -> None:
    (child,) = hub.spawn("tracker")
    hub.do(hub.hub.close)
    assert child.wait(10.0) == 0


def test_a_stopped_worker_holds_up_nobody_else(hub: HubThread, way: str) -> None:
    stuck, _ = hub.spawn("stuck", "free")
    stuck.send_signal(signal.SIGSTOP)
    with hub.client() as program:
        with pytest.raises(CommandTimeoutError):
            program.send(Blob(data=bytes(20_000_000)), to="stuck", timeout_s=0.3)
        assert program.request(Echo(value=1), to="free", timeout_s=5.0) == 1
        stuck.send_signal(signal.SIGCONT)
        assert program.request(Echo(value=2), to="stuck") == 2


def test_descriptors_arrive_with_a_reply(hub: HubThread) -> None:
    read, write = os.pipe()

    class GiveBell(bus.Command):
        pass

    hub.do(lambda: hub.hub.register_local(GiveBell, lambda sender, command: bus.Reply({"for": sender}, [write])))
    with hub.client() as program:
        value, fds = program.call_fds(GiveBell())
        assert value == {"for": "program"}
        os.write(fds[0], b"ding")
        assert os.read(read, 10) == b"ding"
        os.close(fds[0])
        assert program.request(GiveBell()) == {"for": "program"}
        many = [program.call_fds(GiveBell())[1] for _ in range(50)]
        assert len({fd for fds in many for fd in fds}) == 50
        for fds in many:
            os.close(fds[0])
    os.close(read)
    os.close(write)


def test_garbage_from_one_process_closes_that_one_only(hub: HubThread, caplog: pytest.LogCaptureFixture) -> None:
    hub.spawn("tracker")
    with hub.client() as program, hub.connect("vandal") as vandal:
        vandal.sendall(b"\x00\x00\x00\x05hello")
        until(lambda: "vandal" in hub.lost)
        assert "malformed" in hub.lost["vandal"]
        assert "vandal sent what is not a message" in caplog.text
        assert program.request(Echo(value=1)) == 1
        with hub.connect("endless") as endless:
            endless.sendall(b"\xff\xff\xff\xff")
            until(lambda: "endless" in hub.lost)
            assert "4,294,967,295 bytes was announced" in hub.lost["endless"]


def test_the_end_of_a_stream_is_heard_also_behind_unread_data(hub: HubThread) -> None:
    mine: socket.socket = hub.connect("short")
    endpoint = bus.Endpoint(mine, "short")
    endpoint.hello()
    hub.do(lambda: hub.hub.publish(support.Shared(n=1)))
    endpoint.subscribe(support.Shared, print)
    endpoint.close("enough")
    until(lambda: "short" in hub.lost)
    assert hub.lost["short"] == "it closed its side: enough"
