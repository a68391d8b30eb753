"""SIGKILL of viewers and of those who send to them, at random instants, and the whole account after each."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mutoscope.bench.faults import left_behind, marked_run
from mutoscope.bench.harness import Bench
from mutoscope.bench.peers import Control, Peer, Peers
from mutoscope.model.errors import MutoscopeError, PeerDiedError
from mutoscope.viewers.announce import private_folder
from mutoscope.viewers.launch import find
from mutoscope.viewers.sink import ViewerSink, open_viewer, progress

__all__ = ["KillOutcome", "kill_many", "tell"]

NAME = "under fire"
SHAPE = (128, 160)
_PATIENCE_S = 60.0
_BURST = 64


@dataclass
class KillOutcome:
    """What the kills showed; an empty list of problems is the promise kept."""

    viewers: int = 0
    senders: int = 0
    unaccounted: int = 0
    left: int = 0
    recovery_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what sinks say of viewers that died: here they are killed."""
    log = logging.getLogger("mutoscope.viewers")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def image_of(number: int) -> Any:
    """Return an image of one value, so that one that is torn shows."""
    return np.full(SHAPE, number % 60000, np.uint16)


def name_of(number: int) -> str:
    """Return its name."""
    return f"A01_s1_w1_z{number % 8 + 1}_t1.tif"


def steady_sender(control: Control, kind: str, source: str) -> None:
    """Send bursts as told, and say what became of them; "account" waits for everything first."""
    logging.getLogger("mutoscope.viewers").setLevel(logging.ERROR)
    sink = open_viewer(kind, NAME, timeout_s=_PATIENCE_S, window_bytes=1 << 20)
    control.say("ready")
    number = 0
    for order in control.orders():
        if order == "account":
            account = sink.wait(_PATIENCE_S)
            images = account.images
            control.say([images.sent, images.displayed, images.failed, images.dropped, number])
            continue
        for _ in range(_BURST):
            sink.save(image_of(number), name_of(number), source=source)
            number += 1
        if order == "ask":
            control.say(number)
    sink.close()


def kill_many(
    kills: int,
    seed: int,
    kind: str = "model",
    helpers: Callable[[], Sequence[int]] = tuple,
    killed: Callable[[], None] = lambda: None,
) -> KillOutcome:
    """Kill so many viewers and senders, and return what that showed.

    Parameters
    ----------
    kills : int
        How many, half of them of viewers.
    seed : int
        Chooses the same victims and pauses again.
    kind : str
        Of the viewer.
    helpers : callable
        Returns the processes without which this viewer shows nothing; they are killed, too.
    killed : callable
        Called after each kill and what is checked after it.
    """
    rng = random.Random(seed)
    outcome = KillOutcome()
    before = _descriptors()
    with quiet(), marked_run() as mark, Peers() as peers:
        sink = open_viewer(kind, NAME, timeout_s=_PATIENCE_S)
        try:
            steady = peers.start(steady_sender, kind=kind, source="steady")
            steady.ask("ask")
            victims = ["viewer" if number % 2 else "sender" for number in range(kills)]
            rng.shuffle(victims)
            for victim in victims:
                if victim == "viewer":
                    _kill_viewer(sink, steady, rng, outcome, helpers)
                else:
                    _kill_sender(sink, kind, rng, outcome)
                killed()
            steady_account = steady.ask("account")
            _check_account(steady_account, outcome)
        except (MutoscopeError, TimeoutError, PeerDiedError) as error:
            outcome.problems.append(f"it hung, or ended: {error}")
        finally:
            sink.close(leave_open=False)
    left = left_behind(mark, timeout_s=10.0)
    left += [file.name for file in private_folder().iterdir() if file.suffix != ".log"]
    left += sorted(_descriptors() - before)
    outcome.left += len(left)
    outcome.problems += [f"left: {each}" for each in left]
    return outcome


def _descriptors() -> set[str]:
    """What this process has open, by number and name."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(f"descriptor {number} {os.readlink(f'/proc/self/fd/{number}')}")
    return found


def tell(bench: Bench, outcome: KillOutcome) -> None:
    """Add to a bench what the kills showed."""
    bench.note(f"killed: {outcome.viewers} viewers and {outcome.senders} senders")
    for problem in outcome.problems[:20]:
        bench.note(problem)
    name = f"{outcome.viewers + outcome.senders} kills of either side"
    bench.figure(f"{name}: broken promises", len(outcome.problems), at_most=0, exact=True)
    bench.figure(f"{name}: items that are not accounted for", outcome.unaccounted, at_most=0, exact=True)
    bench.figure(f"{name}: memory, descriptors, files and processes left", outcome.left, at_most=0, exact=True)
    if outcome.recovery_s:
        bench.figure("from the death of a viewer until its successor shows", outcome.recovery_s, unit="s")


def _check_account(account: list[int], outcome: KillOutcome) -> None:
    sent, displayed, failed, dropped, offered = account
    missing = offered - displayed - failed - dropped
    if missing or sent + dropped != offered:
        outcome.unaccounted += abs(missing)
        outcome.problems.append(f"an account that is not exact: {account}")


def _kill_viewer(
    sink: ViewerSink, steady: Peer, rng: random.Random, outcome: KillOutcome, helpers: Callable[[], Sequence[int]]
) -> None:
    """Kill the viewer, or one of its helpers, in the middle of a burst; the next one shows again."""
    entry = find(NAME)
    if entry is None:
        sink.save(image_of(0), name_of(0), source="sink", until="displayed")
        entry = find(NAME)
        assert entry is not None
    steady.tell("send")
    time.sleep(rng.uniform(0.0, 0.02))
    os.kill(rng.choice([entry.pid, *helpers()]), signal.SIGKILL)
    died = time.monotonic()
    outcome.viewers += 1
    _until(lambda: find(NAME) not in (None, entry) or _shows(sink), "no viewer came back", outcome)
    steady.ask("ask")
    if _until(lambda: _shows(sink), "the viewer that came back shows nothing", outcome):
        outcome.recovery_s.append(time.monotonic() - died)
    account = sink.progress().images
    if account.pending or account.sent != account.displayed + account.failed:
        outcome.unaccounted += account.pending
        outcome.problems.append(f"an account that is not exact: {account}")


def _shows(sink: ViewerSink) -> bool:
    before = sink.progress().images.displayed
    sink.save(image_of(1), name_of(1), source="sink", until="displayed")
    return sink.progress().images.displayed > before


def _kill_sender(sink: ViewerSink, kind: str, rng: random.Random, outcome: KillOutcome) -> None:
    """Kill a sender in the middle of a burst; the viewer shows what it was told, and keeps nothing of it."""
    entry = find(NAME)
    with Peers() as peers:
        sender = peers.start(steady_sender, kind=kind, source="killed")
        sender.tell("send")
        time.sleep(rng.uniform(0.0, 0.02))
        sender.process.kill()
        sender.process.wait(_PATIENCE_S)
    outcome.senders += 1
    pid = sender.pid
    if entry is None or find(NAME) != entry:
        outcome.problems.append("a viewer ended with its sender")
        return

    def gone() -> bool:
        return not any(each.pid == pid and each.connected for each in progress(NAME, timeout_s=_PATIENCE_S).senders)

    _until(gone, "the viewer did not notice the death of a sender", outcome)

    def settled() -> bool:
        found = [each for each in progress(NAME, timeout_s=_PATIENCE_S).senders if each.pid == pid]
        return all(each.images.pending == 0 for each in found)

    _until(settled, "images of a dead sender are pending", outcome)
    arenas = _arenas(entry.pid)
    wanted = sum(each.connected for each in progress(NAME, timeout_s=_PATIENCE_S).senders)
    if arenas > wanted:
        outcome.left += arenas - wanted
        outcome.problems.append(f"{arenas} memories are mapped for {wanted} senders")
    _check_pixels(sink, outcome)


def _check_pixels(sink: ViewerSink, outcome: KillOutcome) -> None:
    for layer in sink.layers():
        if layer.name == "killed":
            front = layer.shape[:-2]
            for index in np.ndindex(*front):
                plane = sink.plane(layer, index)
                if not (plane == plane[0, 0]).all():
                    outcome.problems.append(f"a torn image at {index}")


def _arenas(pid: int) -> int:
    text = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    return sum("memfd:mutoscope-arena" in line for line in text.splitlines())


def _until(check: Callable[[], bool], problem: str, outcome: KillOutcome) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.005)
    outcome.problems.append(problem)
    return False
