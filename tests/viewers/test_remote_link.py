"""Sinks whose viewer is behind a bad network: everything arrives once and whole, or is accounted for."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from remote_support import PATIENCE_S, Proxy, Users, importing, users_in
from viewer_senders import name

from mutoscope import viewers
from mutoscope.model.errors import ConfigError, ItemsFailedError, ViewerUnavailableError
from mutoscope.viewers import ViewerSink
from mutoscope.viewers.launch import find
from mutoscope.viewers.suite import plane_of
from polling import until

SHAPE = (200, 300)


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Users]:
    with users_in(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def proxy(users: Users) -> Iterator[Proxy]:
    """Between the microscope and a viewer that listens."""
    found = Proxy(users.listen())
    yield found
    found.close()


def program(role: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program that sends."""
    command = [sys.executable, "-W", "error", "-m", "viewer_senders", role, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=importing(), stdout=pipe, stderr=pipe, text=True)


def send(sink: ViewerSink, numbers: range) -> None:
    for number in numbers:
        sink.save(plane_of(number, SHAPE), name(number), source="raw")


def check_shown(count: int) -> None:
    """See in the viewer itself that each image was shown once, and is what was sent."""
    account = viewers.progress("model")
    assert (account.images.sent, account.images.received, account.images.displayed) == (count, count, count)
    looks = viewers.open("model", "model", timeout_s=PATIENCE_S)
    (layer,) = looks.layers()
    assert layer.missing == 0
    t = layer.axis_names.index("t")
    assert layer.shape[t] == count
    for number in range(count):
        index = [number if axis == t else 0 for axis in range(len(layer.shape) - 2)]
        assert np.array_equal(looks.plane(layer, index), plane_of(number, SHAPE)), number
    looks.close()


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_images_come_whole(users: Users, compression: str | None) -> None:
    sink = viewers.open("model", users.listen(), required=True, timeout_s=PATIENCE_S, compression=compression)
    send(sink, range(100))
    assert sink.wait(PATIENCE_S).images.displayed == 100
    check_shown(100)
    sink.close()


def test_connections_that_are_reset(proxy: Proxy) -> None:
    """Twenty times, at any moment."""
    rng = random.Random(11)
    sink = viewers.open("model", proxy.address, required=True, timeout_s=PATIENCE_S, window_bytes=1 << 20)
    for round_ in range(20):
        send(sink, range(20 * round_, 20 * round_ + 20))
        wanted = proxy.carried + rng.randrange(1, 2_000_000)
        until(lambda wanted=wanted: proxy.carried >= wanted or not sink.progress().images.pending)
        until(proxy.reset)
    account = sink.wait(PATIENCE_S)
    assert (account.images.sent, account.images.displayed, account.state) == (400, 400, "connected")
    assert proxy.connections > 20
    check_shown(400)
    sink.close()


def test_a_network_with_delay(proxy: Proxy) -> None:
    proxy.delay_s = 0.1
    sink = viewers.open("model", proxy.address, required=True, timeout_s=PATIENCE_S)
    send(sink, range(100))
    account = sink.wait(PATIENCE_S)
    assert account.latency_ms is not None
    assert account.latency_ms >= 200.0  # there, and the news of it back
    check_shown(100)
    sink.close()


def test_one_that_carries_nothing_for_a_while(proxy: Proxy) -> None:
    """For longer than either side waits for a sign of life."""
    sink = viewers.open("model", proxy.address, required=True, timeout_s=PATIENCE_S)
    send(sink, range(10))
    sink.wait(PATIENCE_S)
    proxy.carries = False
    send(sink, range(10, 50))
    until(lambda: proxy.connections > 1)  # it was given up, and another one is tried
    assert sink.progress().state == "connecting"
    proxy.carries = True
    sink.wait(PATIENCE_S)
    assert sink.progress().state == "connected"
    check_shown(50)
    sink.close()


def test_a_viewer_that_is_killed_is_accounted_for(users: Users) -> None:
    address = users.listen()
    sink = viewers.open("model", address, timeout_s=PATIENCE_S)
    send(sink, range(20))
    sink.wait(PATIENCE_S)
    entry = find("model")
    assert entry is not None
    os.kill(entry.pid, signal.SIGKILL)
    send(sink, range(20, 40))
    until(lambda: sink.progress().state == "not connected")
    account = sink.wait(PATIENCE_S)
    assert account.images.sent + account.images.dropped == 40
    assert account.images.displayed == 20
    assert account.images.failed == len(account.failures) == account.images.sent - 20
    assert all("no viewer listens" in reason for _, reason in account.failures)
    users.listen(port=int(address.rpartition(":")[2]))
    until(sink.connect)
    sink.save(plane_of(1, SHAPE), name(1), source="raw", until="displayed")
    assert sink.progress().images.displayed == 21
    assert viewers.progress("model").images.displayed == 1
    sink.close()


def test_a_viewer_that_was_started_anew_meanwhile(users: Users) -> None:
    """The proxy hides its death, and its successor knows nothing of the session."""
    address = users.listen()
    proxy = Proxy(address)
    sink = viewers.open("model", proxy.address, required=True, timeout_s=PATIENCE_S)
    send(sink, range(5))
    sink.wait(PATIENCE_S)
    entry = find("model")
    assert entry is not None
    proxy.carries = False
    os.kill(entry.pid, signal.SIGKILL)
    until(lambda: find("model") is None)
    users.listen(port=int(address.rpartition(":")[2]))
    proxy.carries = True
    with pytest.raises(ItemsFailedError, match="started anew meanwhile"):
        sink.save(plane_of(7, SHAPE), name(7), until="received")
    sink.save(plane_of(8, SHAPE), name(8), until="displayed")
    assert viewers.progress("model").images.sent == 1
    sink.close()
    proxy.close()


def test_a_copy_in_the_same_process_and_one_that_hung_up(users: Users) -> None:
    sink = viewers.open("model", users.listen(), required=True, timeout_s=PATIENCE_S)
    copy = pickle.loads(pickle.dumps(sink))
    send(sink, range(5))
    copy.save(plane_of(5, SHAPE), name(5), source="raw", until="displayed")
    assert sink.progress().images.displayed == 6
    sink.disconnect()
    sink.save(plane_of(6, SHAPE), name(6), source="raw", until="displayed")
    check_shown(7)
    sink.close()


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_pool_sends_from_afar(users: Users, method: str) -> None:
    """The sink goes to eight processes by pickle, or by fork with its connection."""
    address = users.listen()
    done = program("pool", address, method)
    out, errors = done.communicate(timeout=2 * PATIENCE_S)
    assert (done.returncode, errors) == (0, "")
    assert out.split() == ["80", "80" if method == "spawn" else "81"]
    looks = viewers.open("model", "model", timeout_s=PATIENCE_S)
    layer = next(each for each in looks.layers() if each.name == "pool")
    assert layer.missing == 0
    looks.close()


def test_a_program_that_ends_without_waiting_has_sent_everything(users: Users) -> None:
    done = program("without_waiting", users.listen())
    out, errors = done.communicate(timeout=PATIENCE_S)
    assert (done.returncode, out, errors) == (0, "", "")
    account = viewers.progress("model")
    assert account.images.displayed == 50
    until(lambda: not any(sender.connected for sender in viewers.progress("model").senders))


def test_a_scope_of_this_computer_cannot_be_watched_from_another(users: Users) -> None:
    sink = viewers.open("model", users.listen(), required=True, timeout_s=PATIENCE_S)
    with pytest.raises(ConfigError, match="give the link of a page that it can reach"):
        sink.watch("http://127.0.0.1:8123/?token=abc")
    sink.close()


def test_progress_and_the_end_from_afar(users: Users) -> None:
    address = users.listen()
    sink = viewers.open("model", address, required=True, timeout_s=PATIENCE_S)
    send(sink, range(3))
    sink.wait(PATIENCE_S)
    account = viewers.progress(address, timeout_s=PATIENCE_S)
    assert (account.viewer, account.images.displayed) == ("model", 3)
    assert [sender.peer for sender in account.senders] == ["scope at 127.0.0.1"]
    other = viewers.open("model", address, timeout_s=PATIENCE_S)
    other.close(leave_open=False)
    until(lambda: sink.progress().state == "closed")
    until(lambda: find("model") is None)
    with pytest.raises(ViewerUnavailableError, match="it was asked to end"):
        sink.save(plane_of(1, SHAPE), name(1))
    sink.close()
