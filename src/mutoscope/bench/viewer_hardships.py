"""What becomes of images when a viewer or a sender is late, stopped or killed, or shared memory is scarce: counts, not times.

Mutoscope's viewer without a window, and beside it one named block of shared memory for each image, announced by JSON over zmq,
into the same display model: by PUB (zmq's own limits of a queue), and by REQ with an answer for each image, which is waited for
`ANSWER_S`; then the block is removed and the image told as lost. What was handed over and shown is written down by number as it
happens, so that it outlives a process that is killed; what Mutoscope's viewer shows is read from its planes.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mutoscope.bench.blocks import announce_block, number_of, take_block
from mutoscope.bench.faults import left_behind, marked_processes, marked_run
from mutoscope.bench.harness import Bench
from mutoscope.bench.peers import Control, Peer, Peers
from mutoscope.bench.viewer_kills import quiet
from mutoscope.model.errors import PeerDiedError
from mutoscope.viewers.announce import private_folder
from mutoscope.viewers.display import Display
from mutoscope.viewers.headless import HeadlessAdapter
from mutoscope.viewers.launch import find
from mutoscope.viewers.model import DisplayModel
from mutoscope.viewers.sink import ViewerSink, open_viewer, progress

__all__ = ["LateViewer", "measure_hardships"]

NAME = "hardship"
LATE_S = STOPPED_S = 3.0
ANSWER_S = 5.0
SMALL_BYTES = 64 << 20
_PATIENCE_S = 60.0
_QUIET_MS = 1000
_BLOCK = "mutoscope-bench-block-"
_LATE = f"{__name__}:LateViewer"


@dataclass(frozen=True)
class Way:
    """How images come to the viewer: "Mutoscope", "PUB" or "REQ"; `tracked`: Python removes a dead sender's blocks."""

    name: str
    policy: str = "block"
    tracked: bool = False

    @property
    def ours(self) -> bool:
        return self.name == "Mutoscope"


@dataclass(frozen=True)
class Hardship:
    """One hardship; the images, the pause between them, and after how many of them it comes."""

    what: str
    count: int
    side: int = 512
    pace_s: float = 0.01
    name: str = ""


@dataclass(frozen=True)
class Outcome:
    """What it came to: images offered, not shown, of these unsaid, things left, and the longest `save`."""

    offered: int
    lost: int
    unsaid: int
    left: int
    longest_s: float
    goes_on: bool = True
    sender: str = ""

    def cell(self) -> str:
        """Return it in words."""
        parts = [f"{self.offered} offered, {self.lost} not shown, {self.unsaid} of them unsaid", f"{self.left} left"]
        if self.longest_s:
            parts.append(f"longest save {self.longest_s:.1f} s")
        parts += [] if self.goes_on else ["the viewer ended"]
        return "; ".join(parts + ([self.sender] if self.sender else []))


class LateViewer(HeadlessAdapter):
    """The viewer without a window, which takes its time to come."""

    def open(self, title: str) -> None:
        time.sleep(LATE_S)


class _Numbers:
    """Numbers in a file, each there as soon as it is written."""

    def __init__(self, folder: str, what: str) -> None:
        self._fd = os.open(Path(folder, what), os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def add(self, number: int) -> None:
        os.write(self._fd, number.to_bytes(4, "little"))

    @staticmethod
    def read(folder: str, what: str) -> set[int]:
        file = Path(folder, what)
        return set(array.array("I", file.read_bytes())) if file.exists() else set()


# -- those who send


def sender(control: Control, way: dict[str, Any], hardship: dict[str, Any], folder: str, kind: str) -> None:
    """Send what a hardship says when told so, and say how long `save` took at most, and the account if there is one."""
    chosen, what = Way(**way), Hardship(**hardship)
    with quiet():
        save, finish = _our_way(chosen, kind) if chosen.ours else _block_way(control, chosen, what, folder)
        if chosen.ours:
            control.say("ready")
        handed, longest = _Numbers(folder, "handed"), 0.0
        image = np.empty((what.side, what.side), np.uint16)
        for _ in control.orders():
            start = time.perf_counter()
            for number in range(what.count):
                time.sleep(max(0.0, start + number * what.pace_s - time.perf_counter()))
                image.fill(number + 1)
                began = time.perf_counter()
                save(number, image)
                longest = max(longest, time.perf_counter() - began)
                handed.add(number)
            control.say([longest, *finish()])


def _our_way(way: Way, kind: str) -> tuple[Callable[[int, npt.NDArray[Any]], None], Callable[[], list[int]]]:
    sink = ViewerSink(NAME, kind=kind, filenames="imagexpress", policy=way.policy)  # type: ignore[arg-type]

    def finish() -> list[int]:
        images = sink.wait(_PATIENCE_S).images
        return [images.displayed, images.failed + images.dropped]

    return lambda number, image: sink.save(image, f"A01_s1_w1_z1_t{number + 1}.tif", source="raw"), finish


def _block_way(
    control: Control, way: Way, hardship: Hardship, folder: str
) -> tuple[Callable[[int, npt.NDArray[Any]], None], Callable[[], list[int]]]:
    import zmq

    if way.tracked:  # its tracker warns of every block that the viewer has removed
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    wait, told = way.name == "REQ", _Numbers(folder, "told")
    sock = zmq.Context().socket(zmq.REQ if wait else zmq.XPUB)
    sock.linger = 0
    if wait:
        sock.setsockopt(zmq.REQ_RELAXED, 1)
        sock.setsockopt(zmq.REQ_CORRELATE, 1)
        sock.rcvtimeo = sock.sndtimeo = int(1000 * ANSWER_S)
    port = sock.bind_to_random_port("tcp://127.0.0.1")
    control.say("ready")
    control.say(port)
    subscribed = wait or hardship.what == "late"

    def save(number: int, image: npt.NDArray[Any]) -> None:
        nonlocal subscribed
        if not subscribed:
            sock.recv()  # what is sent before the subscription reaches nobody
            subscribed = True
        name = f"{_BLOCK}{os.getpid()}-{number}"
        block = None
        try:
            block = announce_block(sock.send, image, number, name, tracked=way.tracked)
            if wait:
                sock.recv()
        except zmq.Again:
            told.add(number)
            Path("/dev/shm", name).unlink(missing_ok=True)
        if block is not None:
            block.close()

    return save, lambda: [0, 0]


def block_viewer(control: Control, port: int, wait: bool, folder: str) -> None:
    """Place each image that is announced and remove its block; one whose block is gone is told; "drain": until it is quiet."""
    import zmq

    sock = zmq.Context().socket(zmq.REP if wait else zmq.SUB)
    sock.linger = 0
    if not wait:
        sock.setsockopt(zmq.SUBSCRIBE, b"")
    sock.connect(f"tcp://127.0.0.1:{port}")
    model, display = DisplayModel({"source": "layer"}), Display()
    shown, told = _Numbers(folder, "shown"), _Numbers(folder, "told")

    def take() -> None:
        note = json.loads(sock.recv())
        number = number_of(note)
        try:
            image = take_block(note, np.copy)
        except FileNotFoundError:
            told.add(number)
        else:
            model.put_image(display, "raw", "", {"well": "A01", "t": number + 1}, [], image)
            shown.add(number)
        if wait:
            sock.send(b"ok")

    poller = zmq.Poller()
    poller.register(sock, zmq.POLLIN)
    poller.register(control.fileno(), zmq.POLLIN)
    control.say("ready")
    while True:
        ready = dict(poller.poll())
        if sock in ready:
            take()
        if control.fileno() in ready:
            try:
                control.hear()
            except EOFError:
                return
            while sock.poll(_QUIET_MS):
                take()
            control.say("done")


# -- the viewers, as the bench holds them


class _OurViewer:
    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._sink: ViewerSink | None = None

    def open(self) -> None:
        self._sink = self._sink or open_viewer(self._kind, NAME, filenames="imagexpress", timeout_s=_PATIENCE_S)
        self._sink.connect()

    @property
    def pid(self) -> int:
        found = find(NAME)
        return 0 if found is None else found.pid

    def shown(self, gone: int | None) -> set[int]:
        """Return what its planes have; `gone`: a sender that was killed, of which all is settled first."""
        assert self._sink is not None
        if gone is not None:
            _until(lambda: not any(each.pid == gone and (each.connected or each.images.pending) for each in _senders()))
        found = set()
        for layer in self._sink.layers():
            for index in np.ndindex(*layer.shape[:-2]):
                plane = self._sink.plane(layer, index)
                if plane[0, 0] and (plane == plane[0, 0]).all():
                    found.add(int(plane[0, 0]) - 1)
        return found

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close(leave_open=False)


class _BlockViewer:
    def __init__(self, peers: Peers, port: int, wait: bool, folder: str) -> None:
        self._peers = peers
        self._arguments: dict[str, Any] = {"port": port, "wait": wait, "folder": folder}
        self._peer: Peer | None = None

    def open(self) -> None:
        self._peer = self._peers.start(block_viewer, **self._arguments)

    @property
    def pid(self) -> int:
        return 0 if self._peer is None or self._peer.process.poll() is not None else self._peer.pid

    def shown(self, gone: int | None) -> set[int]:
        assert self._peer is not None
        self._peer.ask("drain")
        return _Numbers.read(self._arguments["folder"], "shown")

    def close(self) -> None:
        pass  # its Peers end it


def _senders() -> Sequence[Any]:
    return progress(NAME, timeout_s=_PATIENCE_S).senders


def _until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"a hardship did not come to its end within {_PATIENCE_S:.0f} s")
        time.sleep(0.002)


# -- the hardships


def suffer(way: Way, hardship: Hardship) -> Outcome:
    """Send images through a hardship, and return what it came to."""
    what, kind = hardship.what, _LATE if hardship.what == "late" and way.ours else "model"
    with tempfile.TemporaryDirectory(prefix="mutoscope-bench-") as folder, marked_run() as mark:
        with Peers(answer_s=2 * _PATIENCE_S) as peers:
            near = peers.start(sender, way=asdict(way), hardship=asdict(hardship), folder=folder, kind=kind)
            viewer = _OurViewer(kind) if way.ours else _BlockViewer(peers, near.answer(), way.name == "REQ", folder)
            try:
                if what != "late":
                    viewer.open()
                near.tell("go")
                _strike(what, near, viewer, lambda: len(_Numbers.read(folder, "handed")) >= hardship.count // 3)
                answer, ended = _answer(near)
                goes_on = viewer.pid != 0
                shown = viewer.shown(near.pid if ended else None)
            finally:
                viewer.close()
        offered = set(range(hardship.count)) if what == "small" else _Numbers.read(folder, "handed")
        told = len(_Numbers.read(folder, "told") - shown) + answer[2]
        lost = len(offered) - answer[1] if what == "viewer killed" and way.ours else len(offered - shown)
        left = _left(mark, way, near.pid)
    return Outcome(len(offered), lost, max(0, lost - told), left, answer[0], goes_on, ended if what == "small" else "")


def _strike(what: str, near: Peer, viewer: _OurViewer | _BlockViewer, under_way: Callable[[], bool]) -> None:
    if what == "late":
        if isinstance(viewer, _BlockViewer):
            time.sleep(LATE_S)
        viewer.open()
    elif what != "small":
        _until(under_way)
        victim = near.pid if what == "sender killed" else viewer.pid
        os.kill(victim, signal.SIGSTOP if what == "stopped" else signal.SIGKILL)
        if what == "stopped":
            time.sleep(STOPPED_S)
            os.kill(victim, signal.SIGCONT)
        elif what == "viewer killed" and isinstance(viewer, _BlockViewer):
            viewer.open()


def _answer(near: Peer) -> tuple[list[Any], str]:
    """What the sender says at its end: the longest `save`, displayed, told; or how it was killed."""
    try:
        return near.answer(), ""
    except PeerDiedError:
        code = near.process.returncode
        return [0.0, 0, 0], f"the sender died of {signal.Signals(-code).name}" if code < 0 else f"the sender ended: {code}"


def _left(mark: str, way: Way, pid: int) -> int:
    """Return how many processes, blocks, memories and files are left, and remove the blocks of the sender `pid`."""
    if way.ours:
        return len(left_behind(mark, 10.0)) + sum(file.suffix != ".log" for file in private_folder().iterdir())
    _until(lambda: not marked_processes(mark))  # Python's trackers end after their processes
    blocks = list(Path("/dev/shm").glob(f"{_BLOCK}{pid}-*"))
    for block in blocks:
        block.unlink()
    return len(blocks)


def in_small_memory(control: Control, way: dict[str, Any], hardship: dict[str, Any]) -> None:
    """Go through a hardship where /dev/shm has 64 MB; says why not where that cannot be had."""
    libc, flags = ctypes.CDLL(None, use_errno=True), 0x4000 | 0x40000  # MS_REC | MS_PRIVATE
    refused = (
        libc.unshare(0x20000)  # CLONE_NEWNS
        or libc.mount(b"none", b"/", None, flags, None)
        or libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, f"size={SMALL_BYTES}".encode())
    )
    control.say("ready")
    control.say(os.strerror(ctypes.get_errno()) if refused else "")
    for _ in control.orders():
        control.say(asdict(suffer(Way(**way), Hardship(**hardship))))


def _in_small_memory(way: Way, hardship: Hardship) -> Outcome | str:
    with Peers(answer_s=4 * _PATIENCE_S) as peers:
        peer = peers.start(in_small_memory, way=asdict(way), hardship=asdict(hardship))
        return peer.answer() or Outcome(**peer.ask("go"))


def measure_hardships(bench: Bench, schemes: Sequence[str], *, quick: bool) -> None:
    """Add to a bench what becomes of images, by Mutoscope and by these schemes; only Mutoscope is judged.

    Parameters
    ----------
    bench : Bench
        Takes the counts, and a table.
    schemes : sequence of str
        "PUB" and "REQ", or what of them is to be had.
    quick : bool
        A viewer and a sender that are killed, with few images.
    """
    count = 60 if quick else 200
    every = {
        "late": Hardship("late", count, pace_s=0.025, name=f"the viewer comes {LATE_S:.0f} s late"),
        "viewer": Hardship("viewer killed", count, name="the viewer is killed and started again"),
        "sender": Hardship("sender killed", count, pace_s=0.0, name="the sender is killed in a batch"),
        "stopped": Hardship("stopped", 2 * count, name=f"the viewer is stopped for {STOPPED_S:.0f} s"),
        "small": Hardship("small", 24, 2048, 0.0, name="/dev/shm has 64 MB, images of 2048 x 2048"),
    }
    rows = []
    for key, hardship in every.items():
        if quick and key not in ("viewer", "sender"):
            continue
        ways = [[Way("Mutoscope"), *map(Way, schemes)]]
        if key == "stopped":
            ways.append([Way("Mutoscope", policy="drop")])
        if key == "sender":
            ways.append([Way(scheme, tracked=True) for scheme in schemes])
        for row in ways:
            tracked = row and row[0].tracked
            name = hardship.name + (", a sink that drops" if row and row[0].policy == "drop" else "")
            cells = ["", *(_measure(bench, name, way, hardship) for way in row)][0 if tracked else 1 :]
            name += ", Python's resource tracker left on" if tracked else ""
            rows.append([name, *cells, *[""] * (len(schemes) + 1 - len(cells))])
    bench.table("hardships", ["", "Mutoscope", *(f"a block each, {scheme}" for scheme in schemes)], rows)


def _measure(bench: Bench, name: str, way: Way, hardship: Hardship) -> str:
    with quiet():
        found = _in_small_memory(way, hardship) if hardship.what == "small" else suffer(way, hardship)
    if isinstance(found, str):
        bench.note(f"not measured: {name}: a mount of its own is refused ({found}); it needs root")
        return "not measured"
    if way.ours:
        promised = None if hardship.what == "sender killed" else 0  # by then `save` had only copied them
        bench.figure(f"{name}: not shown and unsaid", found.unsaid, at_most=promised, exact=True)
        bench.figure(f"{name}: memory, files and processes left", found.left, at_most=0, exact=True)
        bench.figure(f"{name}: viewers that ended", float(not found.goes_on), at_most=0, exact=True)
    return found.cell()
