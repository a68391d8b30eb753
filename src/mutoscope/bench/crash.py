"""Writers of streams under fire: what a stock reader finds of the frames that each said were stored.

Every writer of `mutoscope.bench.streams.WAYS`, Mutoscope's and others', runs in a process of its own and meets the same:
SIGKILL at random instants of a stream, a full disk, and a caller who uses its buffer again. What is left is read as it lies,
with zarr-python or tifffile, before any recovery step.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mutoscope.bench.harness import Bench, Report
from mutoscope.bench.peers import Control, Peers
from mutoscope.bench.streams import WAYS, Way, frame_of, read
from mutoscope.model.errors import ConfigError, PeerDiedError

__all__ = ["Fate", "fill", "kill", "reuse", "run"]

SHAPE = (256, 256)
RATE_HZ = 500.0
EARLIEST_S, LATEST_S = 0.05, 1.25
"""When a stream is killed: after its first frame was acknowledged, and after its first append had returned, in turn."""

_SINCE = "acknowledgement", "append"

REUSED = 100
DISK_KIB = 16 * 1024
DISK_FRAMES = 600
"""More than fit, compressed or not, by so many that an append comes after the first failure is known."""

_NOT_TRIED = "not tried"

MAX_KEPT = 3
"""Data sets of a writer of Mutoscope that are kept for whoever asks why frames were lost."""

ANSWER_S = 30.0
"""A writer that says nothing for so long hangs."""


def stream(control: Control, label: str, path: str) -> None:
    """A process that appends frames at a camera's rate for ever, and says after each how many are appended and acknowledged."""
    writer = _way(label).open(Path(path), SHAPE)
    control.say("ready")
    control.hear()
    begin, number = time.monotonic(), 0
    while True:
        writer.append(frame_of(number, SHAPE))
        control.say([writer.appended, writer.acknowledged])
        number += 1
        if (wait := begin + number / RATE_HZ - time.monotonic()) > 0:
            time.sleep(wait)


def lend(control: Control, label: str, path: str, reused: bool) -> None:
    """A process that appends frames as fast as it can, from one buffer if `reused`, and closes."""
    writer = _way(label).open(Path(path), SHAPE)
    control.say("ready")
    frames = [frame_of(number, SHAPE) for number in range(REUSED)]
    buffer = np.empty_like(frames[0])
    for frame in frames:
        if reused:
            buffer[...] = frame
            writer.append(buffer)
            buffer[...] = 7
        else:
            writer.append(frame)
    writer.close()
    control.say(writer.appended)


def overfill(control: Control, label: str, path: str) -> None:
    """A process that appends until something fails, or all frames are handed over, closes, and says what it was told."""
    writer = _way(label).open(Path(path), SHAPE)
    control.say("ready")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # some print tracebacks of their threads
    said = {"append": "", "close": ""}
    try:
        for number in range(DISK_FRAMES):
            writer.append(frame_of(number, SHAPE))
    except Exception as error:  # noqa: BLE001 - whatever it says is what is asked for
        said["append"] = type(error).__name__
    with contextlib.suppress(Exception):  # of the failed write again, in a future: nothing is known to be acknowledged then
        said["acknowledged"] = writer.acknowledged  # type: ignore[assignment]
    try:
        writer.close()
    except Exception as error:  # noqa: BLE001 - as above
        said["close"] = type(error).__name__
    control.say(said)


@dataclass
class Fate:
    """What happened to one writer."""

    way: Way
    kills: int = 0
    acknowledged: int = 0
    """Frames that were acknowledged before the kills."""
    lost: int = 0
    """Of those, the ones that the reader does not find."""
    bad_kills: int = 0
    """Kills after which frames were lost."""
    unreadable: int = 0
    """Kills after which the reader cannot open a data set at all that has acknowledged frames."""
    kept: list[str] = field(default_factory=list)
    """Where data sets are whose frames were lost, and what the reader said, in a line each."""
    untold: int = 0
    """Frames that the data sets declare, that are not there, and that nothing marks."""
    unstored: int = 0
    """Frames of a stream that was closed in order that the reader does not find: must be 0, or the way is wrong."""
    reused: int = 0
    """Frames that are wrong because the caller used its buffer again."""
    disk: str = ""
    """What a full disk led to."""
    disk_failed: bool = False
    """Whether it was not told, or frames that were acknowledged are lost."""

    def row(self) -> tuple[str, ...]:
        """Return the cells of its row."""
        name = f"**{self.way.label}**" if self.way.ours else self.way.label
        if self.way.missing:
            return (name, self.way.acknowledged, f"not installed: `{self.way.missing}`", "", "", "", "")
        lost = f"{self.lost:,} of {self.acknowledged:,}"
        if self.lost:
            lost += f", in {self.bad_kills} of {self.kills} kills"
        if self.unreadable:
            lost += f"; {self.unreadable} data sets cannot be opened"
        reused = f"{self.reused} of {REUSED}"
        if self.unstored:
            reused += f" ({self.unstored} wrong without that)"
        return (name, self.way.acknowledged, str(self.kills), lost, f"{self.untold:,}", self.disk, reused)


COLUMNS = (
    "writer",
    "a frame is acknowledged when",
    "kills",
    "acknowledged frames lost",
    "declared, not there, not told",
    "disk full",
    "wrong when the caller reuses its buffer",
)


def kill(way: Way, folder: Path, kills: int, seed: int, fate: Fate, keep: Path) -> None:
    """Kill so many streams, each at a random instant, and count what is left.

    Parameters
    ----------
    seed : int
        Of the instants.
    keep : Path
        A folder, made when it is needed, for data sets of Mutoscope that lost frames or that a reader cannot open; beside
        each is what is known of it.
    """
    chance = random.Random(f"{seed} {way.label}")  # the same instants, whichever others run beside it
    for number in range(kills):
        with _place(folder) as place, Peers(patience_s=0.5, answer_s=ANSWER_S) as peers:
            path = place / way.file
            peer = peers.start(stream, label=way.label, path=str(path))
            after_s = chance.uniform(EARLIEST_S, LATEST_S)
            timer = threading.Timer(after_s, peer.process.kill)
            peer.tell("go")
            appended, acknowledged = peer.control.hear()
            since, end = _SINCE[number % 2], time.monotonic() + ANSWER_S
            while since == _SINCE[0] and not acknowledged and time.monotonic() < end:
                appended, acknowledged = peer.control.hear()
            timer.start()
            try:
                while True:
                    appended, acknowledged = peer.control.hear()
            except (EOFError, ConnectionResetError):
                pass
            finally:
                timer.cancel()
                timer.join()
            if (code := peer.process.wait()) != -9:
                raise PeerDiedError(f"{way.label}: ended with code {code} before it was killed")
            found = read(way, path, SHAPE, appended + 1)
            lost = set(range(acknowledged)) - found.right
            if (lost or found.untold) and way.ours and len(fate.kept) < MAX_KEPT:
                what = {
                    "writer": way.label,
                    "seed": seed,
                    "kill": f"{number} of {kills}, {after_s:.4f} s after the first {since}",
                    "appended": appended,
                    "acknowledged": acknowledged,
                    "declared": found.declared,
                    "lost": sorted(lost),
                    "reader": f"{way.reader}: {found.problem or 'opens it'}",
                }
                fate.kept.append(_keep(place, keep, way, what, found.trace))
        fate.kills += 1
        fate.acknowledged += acknowledged
        fate.lost += len(lost)
        fate.bad_kills += bool(lost)
        fate.unreadable += bool(found.problem and acknowledged)
        fate.untold += found.untold


def _keep(place: Path, keep: Path, way: Way, what: dict[str, Any], trace: str) -> str:
    """Copy a data set to where it stays, with what is known of it; return a line that tells."""
    keep.mkdir(exist_ok=True)
    kept = Path(tempfile.mkdtemp(prefix="".join(each if each.isalnum() else "-" for each in way.label) + "-", dir=keep))
    shutil.copytree(place, kept, dirs_exist_ok=True)
    lines = [f"{name}: {value}" for name, value in what.items()]
    (kept / "what-happened.txt").write_text("\n".join([*lines, "", trace]), encoding="utf-8")
    lost = f"{len(what['lost'])} of {what['acknowledged']} frames lost"
    return f"{way.label}: {lost}, seed {what['seed']}, {what['reader']}; kept in {kept}"


def reuse(way: Way, folder: Path, fate: Fate) -> None:
    """Write a stream from one buffer; and, to know that the way works, one from buffers of their own."""
    for reused in (False, True):
        with _place(folder) as place, Peers(answer_s=ANSWER_S) as peers:
            peer = peers.start(lend, label=way.label, path=str(place / way.file), reused=reused)
            appended = peer.answer()
            found = read(way, place / way.file, SHAPE, appended)
        wrong = appended - len(found.right)
        if reused:
            fate.reused = wrong
        else:
            fate.unstored = wrong


def fill(way: Way, folder: Path, fate: Fate) -> None:
    """Write onto a file system that is too small, made for that: only root can."""
    if os.geteuid() != 0:
        fate.disk = f"{_NOT_TRIED}: only root can mount a small file system"
        return
    with _place(folder) as place:
        options = ["-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tmpfs", str(place)]
        done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
        if done.returncode:
            fate.disk = f"{_NOT_TRIED}: {done.stderr.strip()}"
            return
        try:
            _fill(way, place, fate)
        finally:
            subprocess.run(["umount", str(place)], check=True)


def _fill(way: Way, place: Path, fate: Fate) -> None:
    said: dict[str, Any] | None = None
    died = ""
    with Peers(patience_s=1.0, answer_s=ANSWER_S) as peers:
        peer = peers.start(overfill, label=way.label, path=str(place / way.file))
        try:
            said = peer.answer()
        except TimeoutError:
            died = "hangs"
        except PeerDiedError:
            died = "the process dies"
    if said is None:
        fate.disk, fate.disk_failed = died, True
        return
    found = read(way, place / way.file, SHAPE, DISK_FRAMES)
    known = "acknowledged" in said
    acknowledged = int(said.get("acknowledged", 0))
    lost = len(set(range(acknowledged)) - found.right)
    if said["append"]:
        told = f"append raises {said['append']}"
    else:
        told = f"close raises {said['close']}" if said["close"] else "nobody is told"
    earlier = f"{lost} of {acknowledged} earlier frames lost" if lost else f"all {acknowledged} earlier whole"
    fate.disk = f"{told}; {earlier if known else 'how many were stored is not told'}"
    fate.disk_failed = not said["append"] or lost > 0 or not acknowledged


@contextlib.contextmanager
def _place(folder: Path) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        yield place
    finally:
        shutil.rmtree(place)


def _way(label: str) -> Way:
    return next(way for way in WAYS if way.label == label)


def run(
    *,
    quick: bool = False,
    kills: int = 20,
    seed: int | None = None,
    only: str | None = None,
    ways: Sequence[Way] = WAYS,
    folder: str | os.PathLike[str] | None = None,
) -> Report:
    """Give every writer the same to bear, and tell what a stock reader finds.

    Parameters
    ----------
    quick : bool
        One kill a writer.
    kills : int
        A writer and codec.
    seed : int, optional
        Of the instants; chosen from the clock otherwise.
    only : str, optional
        Writers whose label has this in it.
    ways : sequence of Way
        The writers; those that are not installed get a row that says so.
    folder : path, optional
        Where to write; a temporary folder, if not given.
    """
    chosen = [way for way in ways if only is None or only.lower() in way.label.lower()]
    if not chosen:
        raise ConfigError(f"no writer has {only!r} in its name; there are {', '.join(way.label for way in ways)}")
    seed = time.time_ns() % 1_000_000_000 if seed is None else seed
    bench, fates = Bench("crash"), [Fate(way) for way in chosen]
    base = Path(tempfile.mkdtemp(prefix="mutoscope-crash-", dir=folder))
    keep = base.with_name(f"{base.name}-kept")
    try:
        for fate in fates:
            if fate.way.missing is None:
                kill(fate.way, base, 1 if quick else kills, seed, fate, keep)
                reuse(fate.way, base, fate)
                fill(fate.way, base, fate)
    finally:
        shutil.rmtree(base)
    bench.table("what is left of what was acknowledged", COLUMNS, [fate.row() for fate in fates])
    own = [fate for fate in fates if fate.way.ours]
    total = sum(fate.kills for fate in own)
    bench.figure("Mutoscope: writers killed", total, at_least=len(own), exact=True, note=f"seed {seed}")
    for fate in own:
        name = f"{fate.way.label}: frames acknowledged before {fate.kills} kills"
        bench.figure(name, fate.acknowledged, at_least=(fate.kills + 1) // 2, exact=True)
    untried = [fate.way.label for fate in own if fate.disk.startswith(_NOT_TRIED)]
    allowed = 0 if os.geteuid() == 0 else len(own)
    note = ", ".join(untried) if allowed == 0 else "only root can mount a small file system"
    bench.figure("Mutoscope: writers not tried on a full disk", len(untried), at_most=allowed, exact=True, note=note)
    for name, attribute in (
        ("acknowledged frames lost", "lost"),
        ("frames declared, not there, not told", "untold"),
        ("frames wrong when the caller reuses its buffer", "reused"),
        ("writers that do not tell of a full disk, or lose earlier frames", "disk_failed"),
    ):
        bench.figure(f"Mutoscope: {name}", sum(getattr(fate, attribute) for fate in own), at_most=0, exact=True)
    for fate in own:
        for line in fate.kept:
            bench.note(line)
    wrong = [fate.way.label for fate in fates if fate.unstored]
    bench.figure("writers that do not store a stream that is closed in order", len(wrong), exact=True, note=", ".join(wrong))
    bench.note(
        f"{SHAPE[0]} x {SHAPE[1]} uint16 at {RATE_HZ:.0f} frames/s, killed {EARLIEST_S} to {LATEST_S} s after the first"
        f" {_SINCE[0]} and after the first {_SINCE[1]} in turn"
    )
    return bench.report()
