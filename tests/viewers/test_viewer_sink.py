"""Sinks of viewers: every item is accounted for, whoever ends, and nothing is left."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from viewer_senders import image, name

from mutoscope import viewers
from mutoscope.frames import _os
from mutoscope.model.errors import (
    ConfigError,
    ItemsFailedError,
    ViewerTimeoutError,
    ViewerUnavailableError,
)
from mutoscope.viewers import Display, ViewerSink, wire
from mutoscope.viewers.announce import announced
from mutoscope.viewers.launch import find, greet
from mutoscope.viewers.suite import plane_of
from polling import halt, until

HERE = Path(__file__).parent
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Announcements of the test's own, in a folder whose path is longer than a socket's may be."""
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    paths = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return folder / "mutoscope"


@pytest.fixture
def viewer() -> Iterator[ViewerSink]:
    """A viewer that is open, and ended at the end."""
    sink = viewers.open("model", "open", timeout_s=PATIENCE_S)
    yield sink
    ViewerSink("open", kind="model", timeout_s=PATIENCE_S).close(leave_open=False)
    sink.close()


@pytest.fixture
def ends() -> Iterator[Callable[[ViewerSink], ViewerSink]]:
    """Have the viewer of a sink end with the test."""
    sinks: list[ViewerSink] = []

    def take(sink: ViewerSink) -> ViewerSink:
        sinks.append(sink)
        return sink

    yield take
    for sink in sinks:
        sink.close(leave_open=False)


def program(role: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program that sends to the open viewer."""
    command = [sys.executable, "-W", "error", "-m", "viewer_senders", role, "open", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


# -- other processes


def test_a_program_that_ends_without_waiting_has_sent_everything(viewer: ViewerSink) -> None:
    done = program("without_waiting")
    out, errors = done.communicate(timeout=PATIENCE_S)
    assert (done.returncode, out, errors) == (0, "", "")
    assert until(lambda: viewers.progress("open").images.displayed == 50)
    (layer,) = viewer.layers()
    assert np.array_equal(viewer.plane(layer, (0, 0, 7, 0)), image(7))


def test_a_program_that_ends_says_what_a_hung_viewer_has_not_displayed(viewer: ViewerSink) -> None:
    pid = find("open").pid  # type: ignore[union-attr]
    sender = program("after_a_word")
    assert sender.stdout is not None
    assert sender.stdout.readline() == "open\n"
    halt(pid)
    began = time.monotonic()
    try:
        assert sender.stdin is not None
        _, errors = sender.communicate("go on\n", timeout=PATIENCE_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert time.monotonic() - began >= 5.0  # for so long it waited
    assert sender.returncode == 0
    assert "not all was displayed: open, connected: 0 of 3 images displayed, 3 pending" in errors
    assert until(lambda: viewers.progress("open").images.displayed == 3)  # the memory outlives the sender


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_pool_sends_to_one_viewer(viewer: ViewerSink, method: str) -> None:
    done = program("pool", method)
    out, errors = done.communicate(timeout=PATIENCE_S)
    assert (done.returncode, errors) == (0, "")
    assert out.split() == ["80", "80" if method == "spawn" else "81"]
    assert len(viewers.progress("open").senders) <= 10  # the workers, the program and this one, not one an item
    layer = next(each for each in viewer.layers() if each.name == "pool")
    assert (layer.missing, layer.shape[2]) == (0, 80)


def test_a_sender_that_is_killed_harms_nobody(viewer: ViewerSink) -> None:
    viewer.save(image(1), name(1), source="other", until="displayed")
    pid = find("open").pid  # type: ignore[union-attr]
    before = descriptors(pid)
    for _ in range(3):
        sender = program("killed")
        assert sender.stdout is not None
        assert sender.stdout.readline() == "sending\n"
        sender.send_signal(signal.SIGKILL)
        sender.communicate(timeout=PATIENCE_S)
    until(lambda: descriptors(pid) == before)
    account = viewers.progress("open")
    gone = [sender for sender in account.senders if not sender.connected]
    assert len(gone) == 3
    assert any(sender.images.sent for sender in gone)
    until(lambda: viewers.progress("open").images.pending == 0)
    viewer.save(image(2), name(2), source="other", until="displayed")
    layer = next(each for each in viewer.layers() if each.name == "killed")
    plane = viewer.plane(layer, (0, 0, 5, 0))
    assert np.array_equal(plane, np.full_like(plane, plane[0, 0]))  # whole, whichever of them it is
    with open(f"/proc/{pid}/maps", encoding="utf-8") as file:
        assert sum("memfd:mutoscope-arena" in line for line in file) == 1


def test_images_come_where_there_is_no_shared_memory(viewer: ViewerSink) -> None:
    done = program("without_shared_memory")
    out, errors = done.communicate(timeout=PATIENCE_S)
    assert (done.returncode, out) == (0, "61\n"), errors
    assert "cannot be had" in errors
    layers = {layer.name: layer for layer in viewer.layers()}
    large = np.arange(3_000_000, dtype=np.uint32).reshape(3, 1000, 1000)
    for z in range(3):
        index = [z if axis == "z" else 0 for axis in layers["large"].axis_names[:-2]]
        index[layers["large"].axis_names.index("t")] = layers["large"].shape[layers["large"].axis_names.index("t")] - 1
        assert np.array_equal(viewer.plane(layers["large"], index), large[z])
    band = layers["band"]
    assert int(viewer.plane(band, (0, 0, 59, 0))[3, 4]) == 59


def test_many_images_with_few_descriptors(viewer: ViewerSink) -> None:
    pid = find("open").pid  # type: ignore[union-attr]
    before = descriptors(pid)
    done = program("little", "2000")
    until(lambda: done.poll() is not None or descriptors(pid) > before)
    assert descriptors(pid) - before <= 4
    out, errors = done.communicate(timeout=PATIENCE_S)
    assert (done.returncode, out, errors) == (0, "2000\n", "")


# -- what goes wrong in a viewer


def test_an_item_that_a_viewer_refuses_fails_alone(ends: Callable[[ViewerSink], ViewerSink]) -> None:
    sink = ends(viewers.open("adapters:Choosy", "choosy", timeout_s=PATIENCE_S))
    with pytest.raises(ItemsFailedError, match=r"A01_s1_w1_t2.*this viewer shows no float64"):
        sink.save_batch([image(1), plane_of(2, dtype="float64"), image(3)], [name(0), name(1), name(2)], until="displayed")
    assert sink.wait(PATIENCE_S).images.displayed == 2
    assert sink.progress().failures == [(name(1), "this viewer shows no float64")]
    sink.save(plane_of(2, dtype="float64"), name(1))
    with pytest.raises(ItemsFailedError, match="1 items"):
        sink.wait(PATIENCE_S)
    sink.wait(PATIENCE_S)  # told once


def test_a_viewer_that_fails_says_why_and_is_started_again(
    ends: Callable[[ViewerSink], ViewerSink], caplog: pytest.LogCaptureFixture
) -> None:
    sink = ends(viewers.open("adapters:Choosy", "choosy", timeout_s=PATIENCE_S))
    first = find("choosy")
    sink.save(image(1), name(1), source="poison")
    until(lambda: sink.progress().state != "connected")
    account = sink.wait(PATIENCE_S)
    assert account.state == "not connected"
    assert account.failures[0][1] == "the viewer failed: RuntimeError: the window system has failed"
    assert sink.log in caplog.text
    assert "the window system has failed" in Path(sink.log).read_text()
    sink.save(image(2), name(2), source="raw", until="displayed")
    assert find("choosy") not in (None, first)
    assert (sink.progress().images.displayed, sink.progress().images.failed) == (1, 1)


def test_one_that_cannot_start(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ViewerUnavailableError, match=r"there is no display; its log: .*never\.log"):
        viewers.open("adapters:NeverThere", "never", required=True)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        sink = viewers.open("adapters:NeverThere", "never")
        for number in range(100):
            sink.save(image(number), name(number))
    assert time.monotonic() - began < PATIENCE_S
    account = sink.progress()
    assert (account.images.dropped, account.images.sent, account.state) == (100, 0, "not connected")
    assert caplog.text.count("an item was dropped") == 1
    sink.close()
    assert caplog.text.count("100 dropped") == 1
    sink.close()


def test_a_required_one_that_is_closed_is_an_error(ends: Callable[[ViewerSink], ViewerSink]) -> None:
    sink = ends(viewers.open("model", "needed", required=True, timeout_s=PATIENCE_S))
    sink.save(image(1), name(1), until="displayed")
    viewers.open("model", "needed").close(leave_open=False)
    until(lambda: sink.progress().state == "closed")
    with pytest.raises(ViewerUnavailableError, match="it was asked to end"):
        sink.save(image(2), name(2))


def test_what_hangs_is_not_waited_for_twice(viewer: ViewerSink) -> None:
    """A viewer that hangs before it is connected to, or while it is asked for something."""
    pid = find("open").pid  # type: ignore[union-attr]
    halt(pid)
    try:
        with pytest.raises(ViewerTimeoutError):
            viewers.progress("open", timeout_s=0.2)
        sink = viewers.open("model", "open", timeout_s=0.5)
        for number in range(50):
            sink.save(image(number), name(number))
        assert sink.progress().images.dropped == 50
        sink.close()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert viewers.progress("open", timeout_s=PATIENCE_S).state == "connected"


def test_what_is_dropped_takes_no_memory(viewer: ViewerSink) -> None:
    pid = find("open").pid  # type: ignore[union-attr]
    sink = viewers.open("model", "open", policy="drop", window_bytes=1 << 16, timeout_s=PATIENCE_S)
    halt(pid)
    try:
        for number in range(20_000):
            sink.save(image(1), name(number % 100))
        assert sink.progress().images.dropped > 19_000
        channel = sink._sender._channel
        assert channel is not None
        assert channel.queued_bytes < 1 << 16
    finally:
        os.kill(pid, signal.SIGCONT)
    sink.wait(PATIENCE_S)
    sink.close()
    until(lambda: viewers.progress("open").images.dropped > 19_000)


# -- copies


def test_copies_of_a_sink_in_a_process_share_a_connection(viewer: ViewerSink) -> None:
    viewer.save(image(1), name(1), until="displayed")
    copy = pickle.loads(pickle.dumps(viewer))
    copy.save(image(2), name(2), until="displayed")
    assert (copy.progress().images.displayed, viewer.progress().images.displayed) == (2, 2)
    assert len(viewers.progress("open").senders) == 1
    copy.close()
    viewer.save(image(3), name(3), until="displayed")
    assert viewers.progress("open").images.displayed == 3


def test_a_sink_that_hung_up_connects_again(viewer: ViewerSink) -> None:
    viewer.save(image(1), name(1))
    viewer.disconnect()
    assert viewer.progress().images.displayed == 1
    viewer.save(image(2), name(2), until="displayed")
    assert viewer.progress().images.displayed == 2


def test_what_a_hung_viewer_was_told_stays_what_it_is(viewer: ViewerSink) -> None:
    """A sink that hangs up meanwhile puts nothing else where the viewer will look."""
    pid = find("open").pid  # type: ignore[union-attr]
    halt(pid)
    try:
        viewer.save(image(1), name(1), source="before")
        viewer.disconnect()
        sender = threading.Thread(target=viewer.save, args=(image(2), name(2)), kwargs={"source": "after"})
        sender.start()
    finally:
        os.kill(pid, signal.SIGCONT)
    sender.join()
    viewer.wait(PATIENCE_S)
    layers = {layer.name: layer for layer in viewer.layers()}
    for source, number in (("before", 1), ("after", 2)):
        layer = layers[source]
        t = layer.axis_names.index("t")
        planes = [viewer.plane(layer, [at if axis == t else 0 for axis in range(4)]) for at in range(layer.shape[t])]
        assert {int(plane[0, 0]) for plane in planes} <= {0, number}
        assert any(np.array_equal(plane, image(number)) for plane in planes)


def test_several_threads_send(viewer: ViewerSink) -> None:
    threads = [
        threading.Thread(target=lambda first=first: [viewer.save(image(n), name(n)) for n in range(first, first + 50)])
        for first in range(0, 400, 50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert viewer.wait(PATIENCE_S).images.displayed == 400
    (layer,) = viewer.layers()
    for number in range(0, 400, 37):
        assert np.array_equal(viewer.plane(layer, (0, 0, number, 0)), image(number))


# -- strangers


def test_strangers_get_nothing(viewer: ViewerSink, own_folder: Path) -> None:
    (entry,) = announced("viewer")
    assert own_folder.stat().st_mode & 0o777 == 0o700
    for file in own_folder.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    wrong = wire.Hello(wire.WIRE_VERSION, "guess", "send", 1, "here", "stranger", False, {})
    with pytest.raises(ViewerUnavailableError, match="the token is wrong"):
        greet(msgspec.structs.replace(entry, token="guess"), wrong, [], 10.0)
    other = msgspec.structs.replace(wrong, token=entry.token, version=99)
    with pytest.raises(ViewerUnavailableError, match="version 1 of the protocol, the sender 99"):
        greet(entry, other, [], 10.0)
    bad = msgspec.structs.replace(wrong, token=entry.token, display={"z": "pile"})
    with pytest.raises(ViewerUnavailableError, match="its Display cannot be"):
        greet(entry, bad, [], 10.0)
    with _os.connect_at(entry.address, 10.0) as sock:
        sock.sendall(wire.frame(wire.Call(1, "quit", {})))
        sock.settimeout(PATIENCE_S)
        assert sock.recv(1) == b""
    assert viewers.progress("open").refused == 4
    assert "1 connections were ended, the last that of process" in Path(viewer.log).read_text()
    viewer.save(image(1), name(1), until="displayed")


def test_shared_memory_that_could_shrink_is_not_mapped(viewer: ViewerSink) -> None:
    (entry,) = announced("viewer")
    fd = os.memfd_create("stranger")
    try:
        os.ftruncate(fd, 1 << 20)
        hello = wire.Hello(wire.WIRE_VERSION, entry.token, "send", 1, "here", "stranger", True, {})
        sock, welcome = greet(entry, hello, [fd], 10.0)
        sock.close()
    finally:
        os.close(fd)
    assert not welcome.shared


# -- words


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: viewers.open("napary"), ConfigError, r"there is no viewer 'napary'; there are .*model"),
        (lambda: viewers.open("no_such_module:X", required=True), ViewerUnavailableError, "does not load"),
        (lambda: viewers.open("json:loads", required=True), ViewerUnavailableError, "is no ViewerAdapter"),
        (lambda: viewers.open("model", "a/b"), ConfigError, "printable characters without /"),
        (lambda: viewers.open("model", "tcp://lab"), ConfigError, "an address of a viewer is such as"),
        (lambda: viewers.open("model", policy="lose"), ConfigError, "policy is 'block' or 'drop'"),
        (lambda: viewers.open("model", timeout_s=0), ConfigError, "timeout_s must be more than 0"),
        (lambda: viewers.open("model", window_bytes=10), ConfigError, "window_bytes must be at least"),
        (lambda: viewers.open("model", display="auto"), ConfigError, "display is a mutoscope.viewers.Display"),
        (lambda: viewers.open("model", filenames="nikon"), ConfigError, "no file name parser is called 'nikon'"),
        (lambda: viewers.progress("nobody"), ViewerUnavailableError, "no viewer is called 'nobody'"),
        (lambda: Display(channel="stack", lut={1: "green"}), ConfigError, "channels that are layers"),
        (lambda: Display(others={"z": "stack"}), ConfigError, "said by z="),
    ],
)
def test_what_cannot_be(make: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_descriptors_of_a_sender(viewer: ViewerSink) -> None:
    """In the viewer a socket, and that of the mapping; in the sender the memory and a bell, too."""
    pid = find("open").pid  # type: ignore[union-attr]
    viewer.save(image(1), name(1), until="displayed")
    theirs, ours = descriptors(pid), descriptors(os.getpid())
    sinks = [viewers.open("model", "open", window_bytes=1 << 20) for _ in range(10)]
    for number, sink in enumerate(sinks):
        sink.save(image(number), name(number), source=f"sink {number}", until="displayed")
    assert descriptors(pid) - theirs == 20
    assert descriptors(os.getpid()) - ours <= 40
    for sink in sinks:
        sink.close()
    until(lambda: descriptors(pid) == theirs)
    assert descriptors(os.getpid()) == ours
