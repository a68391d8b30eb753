"""Data sets to a viewer, against what is often done instead, and under fire.

Transport: a program sends images, the viewer without a window receives and places them. Beside it, in the same run, one named
block of shared memory for each image, announced by JSON over zmq (PUB with a reader that removes the blocks, and REQ with an
answer for each image), into the same display model; and ROIs as JSON. Then counts: images through few descriptors, frames that
are no messages, and SIGKILL of either side at random instants.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from mutoscope.bench.blocks import announce_block, number_of, take_block
from mutoscope.bench.harness import MIN_ROUNDS, Bench, Measures, Report, own_folder, percentile, touched
from mutoscope.bench.peers import Control, Peer, Peers, memory_bytes
from mutoscope.bench.viewer_floor import launch_copiers
from mutoscope.bench.viewer_fuzz import fuzz
from mutoscope.bench.viewer_hardships import measure_hardships
from mutoscope.bench.viewer_kills import kill_many, tell
from mutoscope.bench.viewer_windows import measure_windowed
from mutoscope.bench.viewers_afar import measure_afar
from mutoscope.frames import _os
from mutoscope.model.install import install_command
from mutoscope.model.roi import Polygon, Roi
from mutoscope.viewers.announce import Announced
from mutoscope.viewers.display import Display
from mutoscope.viewers.launch import find
from mutoscope.viewers.model import DisplayModel
from mutoscope.viewers.sink import ViewerSink, open_viewer

__all__ = ["run"]

IMAGES = {512: 4000, 2048: 300}
"""Side in pixels, and images a round: that the last of them are shown takes a viewer some milliseconds."""
PEER_IMAGES = {512: 500, 2048: 60}
AFAR = 40
AT_LEAST = {512: 5.0, 2048: 4.0}
PLACES = 8
"""Planes that the images of a round replace in turn: no memory of a display is touched for the first time."""
POLYGONS, VERTICES = 1000, 100
PACED, PACE_S = 300, 0.01
LITTLE, LITTLE_SHAPE, DESCRIPTORS = 20_000, (64, 64), 256
FRAMES = 100_000
KILLS = 500
_TIMEOUT_S = 60.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_NAME = "bench"
_COPIES = "copies"

Image = npt.NDArray[np.uint16]


def name_of(number: int) -> str:
    """Return the name of one of the planes."""
    return f"A01_s1_w1_z{number % PLACES + 1}_t1.tif"


@contextlib.contextmanager
def open_model(name: str = _NAME, **options: Any) -> Iterator[ViewerSink]:
    """Open the viewer without a window, required, and end it afterwards."""
    sink = open_viewer("model", name, filenames="imagexpress", required=True, timeout_s=_TIMEOUT_S, **options)
    try:
        yield sink
    finally:
        sink.close(leave_open=False)


# -- what is often done instead


def block_sender(control: Control, port: int, side: int, wait: bool) -> None:
    """Make a named block for each image and announce it to whoever has subscribed; `wait`: for the answer to each."""
    import zmq

    context = zmq.Context()
    sock = context.socket(zmq.REQ if wait else zmq.XPUB)
    sock.set_hwm(0)
    sock.bind(f"tcp://127.0.0.1:{port}")
    images = [touched((side, side), np.uint16) for _ in range(2)]
    if not wait:
        sock.recv()  # the subscription: what is sent before it reaches nobody
    control.say("ready")
    for count in control.orders():
        for number in range(count):
            block = announce_block(sock.send, images[number % 2], number)
            if wait:
                sock.recv()
            block.close()
    context.destroy(linger=0)


def block_viewer(control: Control, port: int, wait: bool) -> None:
    """Copy each image that is announced out of its block, as those do whose layers are built later, and place the copy."""
    import zmq

    context = zmq.Context()
    sock = context.socket(zmq.REP if wait else zmq.SUB)
    sock.set_hwm(0)
    if not wait:
        sock.setsockopt(zmq.SUBSCRIBE, b"")
    sock.connect(f"tcp://127.0.0.1:{port}")
    model, display = DisplayModel({"source": "layer"}), Display()
    control.say("ready")
    for count in control.orders():
        for _ in range(count):
            note = json.loads(sock.recv())
            image = take_block(note, np.copy)
            model.put_image(display, "raw", "", {"well": "A01", "z": number_of(note) % PLACES + 1}, [], image)
            if wait:
                sock.send(b"ok")
        model.take_changes()
        control.say("done")
    context.destroy(linger=0)


def json_viewer(control: Control, port: int) -> None:
    """Take ROIs as JSON, until each is an array of vertices, and answer."""
    import zmq

    context = zmq.Context()
    sock = context.socket(zmq.REP)
    sock.connect(f"tcp://127.0.0.1:{port}")
    control.say("ready")
    for count in control.orders():
        for _ in range(count):
            found = [np.array(each["coordinates"]) for each in json.loads(sock.recv())]
            sock.send(str(len(found)).encode())
        control.say("done")
    context.destroy(linger=0)


# -- the bench


def processor_s(*pids: int) -> float:
    """Return the processor time that these processes have taken, which the kernel tells in steps of 10 ms."""
    return sum(facts.processor_s for pid in pids if (facts := _os.process_facts(pid)) is not None)


def _rate(work: Callable[[], object], count: int, *pids: int) -> Measures:
    """Return images a second, and the processor time of both processes for each."""
    busy, began = processor_s(*pids), time.perf_counter()
    work()
    took = time.perf_counter() - began
    return {"rate": count / took, "processor": 1e6 * max(_TICK_S, processor_s(*pids) - busy) / count}


def _send_all(sink: ViewerSink, images: Sequence[Image], count: int) -> None:
    """Send images, until the viewer has shown them all."""
    for number in range(count):
        sink.save(images[number % 2], name_of(number), source="raw")
    sink.wait(_TIMEOUT_S)


def _images(bench: Bench, side: int, count: int, peer_count: int) -> None:
    images = [touched((side, side), np.uint16) for _ in range(2)]
    cases: dict[str, Callable[[], Measures]] = {}
    with Peers() as peers, open_model() as sink:
        pids = os.getpid(), _viewer().pid
        cases["viewer"] = lambda: _rate(lambda: _send_all(sink, images, count), count, *pids)
        for scheme in _schemes(bench):
            port, wait = _free_port(), scheme == "REQ"
            near = peers.launch(block_sender, port=port, side=side, wait=wait)
            far = peers.launch(block_viewer, port=port, wait=wait)
            cases[scheme] = _blocks(near, far, peer_count)
        cases[_COPIES] = _blocks(*launch_copiers(peers, side, PLACES), count)
        peers.wait_ready()
        rounds = bench.alternate(cases, label=f"images of {side} x {side}")
    name = f"{side} x {side} uint16"
    bench.figure(f"{name} to the screen", rounds.of("viewer", "rate"), unit="images/s", note=f"{count} images a round")
    note = f"{peer_count} images a round by blocks, into the same display model"
    bare = f"{name}, against two bare copies by NumPy"
    bench.ratio(bare, rounds, of="viewer", to=_COPIES, measure="rate", unit="images/s", note="each process copies, and spins")
    for scheme in (case for case in cases if case in ("PUB", "REQ")):
        against: dict[str, Any] = {"of": "viewer", "to": scheme}
        whole = f"{name}, against a block each over {scheme}"
        bench.ratio(whole, rounds, **against, measure="rate", unit="images/s", at_least=AT_LEAST[side], note=note)
        bench.ratio(f"{whole}: processor time of an image", rounds, **against, measure="processor", unit="µs")


def _schemes(bench: Bench) -> list[str]:
    if importlib.util.find_spec("zmq") is None:
        bench.note(f"not measured: a named block for each image, and ROIs as JSON; they need pyzmq: {install_command('pyzmq')}")
        return []
    return ["PUB", "REQ"]


def _blocks(near: Peer, far: Peer, count: int) -> Callable[[], Measures]:
    def work() -> None:
        far.tell(count)
        near.tell(count)
        far.answer()

    return lambda: _rate(work, count, near.pid, far.pid)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _rois(bench: Bench) -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(0, 2048, (POLYGONS, VERTICES, 2)).tolist()
    rois = [Roi(f"cell {number}", Polygon([(y, x) for y, x in ring])) for number, ring in enumerate(points)]
    if "REQ" not in _schemes(bench):
        return
    import zmq

    port = _free_port()
    context = zmq.Context()
    sock = context.socket(zmq.REQ)
    sock.bind(f"tcp://127.0.0.1:{port}")
    with Peers() as peers, open_model() as sink:
        far = peers.start(json_viewer, port=port)

        def as_json() -> Measures:
            far.tell(1)
            began = time.perf_counter()
            plain = [{"id": roi.id, "type": "polygon", "coordinates": roi.geometry.exterior} for roi in rois]  # type: ignore[union-attr]
            sock.send(json.dumps(plain).encode())
            sock.recv()
            took = time.perf_counter() - began
            far.answer()
            return 1e3 * took

        def packed() -> Measures:
            began = time.perf_counter()
            sink.save(rois, name_of(0), source="raw", until="received")
            return 1e3 * (time.perf_counter() - began)

        try:
            rounds = bench.alternate({"json": as_json, "viewer": packed}, label="ROIs")
        finally:
            context.destroy(linger=0)
    name = f"{POLYGONS:,} polygons of {VERTICES} vertices, against JSON"
    bench.ratio(name, rounds, of="viewer", to="json", unit="ms", at_most=0.2, note="to decoded geometry; at most a fifth")


def _paced(bench: Bench, count: int) -> None:
    """How long an image takes to the screen while the viewer keeps up."""
    image = touched((512, 512), np.uint16)
    blocked: list[float] = []
    with open_model() as sink:
        start = time.perf_counter()
        for number in range(count):
            time.sleep(max(0.0, start + number * PACE_S - time.perf_counter()))
            began = time.perf_counter()
            sink.save(image, name_of(number), source="raw")
            blocked.append(1e3 * (time.perf_counter() - began))
        account = sink.wait(_TIMEOUT_S)
    name = f"512 x 512 at {1 / PACE_S:.0f} a second"
    bench.figure(f"{name}: from save to the screen, p50", account.latency_ms or 0.0, unit="ms")
    bench.figure(f"{name}: from save to the screen, p99", account.latency_p99_ms or 0.0, unit="ms")
    bench.figure(f"{name}: save, p99", percentile(blocked, 99), unit="ms")


# -- counts


def little_sender(control: Control, count: int) -> None:
    """Send many small images with few descriptors."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    images = [np.full(LITTLE_SHAPE, number, np.uint16) for number in range(2)]
    sink = open_viewer("model", _NAME, required=True, timeout_s=_TIMEOUT_S, window_bytes=8 << 20)
    control.say("ready")
    for _ in control.orders():
        for number in range(count):
            sink.save(images[number % 2], f"A01_s1_w1_t{number % 1000 + 1}.tif", source="raw")
        account = sink.wait(600.0)
        control.say([account.images.displayed, account.images.failed, account.images.dropped, _descriptors(os.getpid())])
    sink.close()


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _viewer() -> Announced:
    found = find(_NAME)
    assert found is not None
    return found


def _few_descriptors(bench: Bench, count: int) -> None:
    with Peers(answer_s=900.0) as peers, open_model():
        pid = _viewer().pid
        before = _descriptors(pid)
        sender = peers.start(little_sender, count=count)
        each = _descriptors(pid) - before
        displayed, failed, dropped, own = sender.ask("send")
    bench.figure(
        f"{count:,} images under ulimit -n {DESCRIPTORS}: not displayed",
        count - displayed + failed + dropped,
        at_most=0,
        exact=True,
    )
    bench.figure("descriptors of the viewer for a sender", each, at_most=4, exact=True)
    bench.figure("descriptors of the sender, all", own, exact=True)


def _strangers(bench: Bench, count: int, seed: int) -> None:
    with open_model() as sink:
        entry = _viewer()
        fuzz(_NAME, min(count, 1000), seed + 1)
        before = memory_bytes(entry.pid, "RssAnon")
        connections, ended = fuzz(_NAME, count, seed)
        grown = memory_bytes(entry.pid, "RssAnon") - before
        sink.save(np.ones((8, 8), np.uint16), name_of(0), until="displayed")
        alive = find(_NAME) == entry
    note = f"{connections:,} connections, of which it ended {ended:,}"
    bench.figure(f"{count:,} wrong frames: viewers that died", float(not alive), at_most=0, exact=True, note=note)
    bench.figure(f"{count:,} wrong frames: the viewer's memory grew by", grown / 2**20, unit="MiB", at_most=32, exact=True)


def run(
    *,
    quick: bool = False,
    rounds: int = MIN_ROUNDS,
    kills: int | None = None,
    seed: int | None = None,
    only: str | None = None,
    console: Console | None = None,
) -> Report:
    """Measure images and ROIs to a viewer, and count what is lost and left.

    Parameters
    ----------
    quick : bool
        Everything once with few images; only what must never fail is judged.
    rounds : int
        How often the cases alternate; ratios are judged from 7 on.
    kills : int, optional
        How many viewers and senders to kill; 500, of a viewer with windows 20, or a few with `quick`.
    seed : int, optional
        Chooses the same victims and moments, and wrong frames, again.
    only : str, optional
        ``"napari"`` or ``"fiji"``: that viewer on the screen that there is, instead of the viewer without a window;
        ``"browser"``: the page, with nobody and then with a Chromium that looks. Or
        ``"hardships"``: what becomes of images when one side is late, stopped or killed.
    console : rich.console.Console, optional
        Where the progress goes; to standard error when None.
    """
    bench = Bench("viewers", rounds=rounds, timing=not quick, console=console)
    chosen = seed if seed is not None else int.from_bytes(os.urandom(4), "big")
    bench.note(f"seed {chosen}")
    if only == "hardships":
        with own_folder("XDG_RUNTIME_DIR"):
            measure_hardships(bench, _schemes(bench), quick=quick)
        return bench.report()
    if only is not None:
        with own_folder("XDG_RUNTIME_DIR"):
            measure_windowed(bench, only, quick=quick, kills=kills, seed=chosen)
        return bench.report()
    with own_folder("XDG_RUNTIME_DIR"):
        for side, count in IMAGES.items():
            _images(bench, side, count if not quick else 5, PEER_IMAGES[side] if not quick else 2)
        measure_afar(bench, AFAR if not quick else 3, name_of)
        _rois(bench)
        _paced(bench, PACED if not quick else 10)
        _few_descriptors(bench, LITTLE if not quick else 500)
        _strangers(bench, FRAMES if not quick else 500, chosen)
        wanted = kills if kills is not None else KILLS if not quick else 6
        with bench.counted("kills", wanted) as killed:
            outcome = kill_many(wanted, chosen, killed=killed)
    tell(bench, outcome)
    return bench.report()
