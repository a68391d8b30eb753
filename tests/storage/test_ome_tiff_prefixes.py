"""Every state that SIGKILL may leave of an OME-TIFF, and more: after each write, and with each write cut; no frame is lost.

The kernel copies what lies within one block in one go, so that a signal finds a link or a count written or not. They are cut
all the same: what follows then is left to chance by nothing but the reader's care.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from ome_tiff_oracles import RECORD, TAG
from storage_oracles_frames import frame_of
from write_tape import Event, Files, Tape, replay

from mutoscope import storage
from mutoscope.storage import FrameStreamWriter

SMALL, STRIPS, LARGE = (24, 40), (3, 40_000), (2, 70_000)
"""Ten pages fill an index block; three strips a page; frames that begin on blocks of the page cache."""

EACH_BYTE = 16
"""Writes up to this length are cut behind each of their bytes: links, counts, and where the description is."""

NAMING = 16
"""Bytes by which the first page names its description."""

CUTS = 6
"""Longer ones so often, at random."""


@dataclass
class Acknowledged:
    """Position → ids of the frames that the writer acknowledged, in order."""

    shape: tuple[int, int]
    ids: dict[int, list[int]] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        if event.kind == "note":
            position, frame_id = event.note
            self.ids.setdefault(position, []).append(frame_id)

    def check(self, files: Files, *, torn: bool, described: bool = True) -> None:
        """Assert that tifffile finds each of them, in its place, and at most one page more, which is whole, too.

        Parameters
        ----------
        torn : bool
            Whether counts may say too much, and a link lead to what is no page.
        described : bool
            Whether the first page names its description.
        """
        for position, ids in self.ids.items():
            name = "run.ome.tiff" if position == 0 else f"run.p{position}.ome.tiff"
            with tifffile.TiffFile(io.BytesIO(files[name])) as file:
                pages = list(file.pages)
                assert len(ids) <= len(pages) <= len(ids) + 1 or (torn and len(ids) <= len(pages))
                for number, page in enumerate(pages[: len(ids)] if torn else pages):
                    frame_id = RECORD.unpack(page.tags[TAG].value)[3]
                    assert number >= len(ids) or frame_id == ids[number]
                    assert np.array_equal(page.asarray(), frame_of(frame_id, self.shape)), f"{name}: frame {frame_id}"
                if not described:
                    continue
                assert file.is_ome
                [series] = file.series
                stack = series.asarray().reshape(-1, *self.shape)
                assert len(stack) in (len(pages), len(pages) - 1) or torn
                if series.shape[:-2] in ((), (len(stack),)):  # by time alone, so in the order of the pages
                    for found, frame_id in zip(stack, ids, strict=False):
                        assert np.array_equal(found, frame_of(frame_id, self.shape)), f"{name}: frame {frame_id} of the series"


def append(writer: FrameStreamWriter, tape: Tape, frames: int, positions: int) -> None:
    for number in range(frames):
        frame_id = writer.last_frame_id + 1 + (writer.last_frame_id % 7 == 6)  # some ids are missing
        index = {"position": number % positions, "c": number // positions % 2}
        receipt = writer.append(frame_of(frame_id, writer.shape), frame_id=frame_id, index=index if positions > 1 else None)
        assert receipt.acknowledged
        tape.note((number % positions, frame_id))


def recorded(folder: Path, patch: pytest.MonkeyPatch, shape: tuple[int, int], frames: int, positions: int, **how: Any) -> Tape:
    """Return the tape of a data set that is written, closed, gone on with, and closed."""
    tape = Tape(folder)
    with patch.context() as shims:
        tape.record(shims)
        with storage.open_writer(folder / "run.ome.tiff", shape=shape, dtype="uint16", **how) as writer:
            append(writer, tape, frames, positions)
        with storage.open_writer(folder / "run.ome.tiff", shape=shape, dtype="uint16", resume=True, **how) as writer:
            append(writer, tape, 2 * positions, positions)
    tape.check_complete()
    return tape


def check_prefixes(events: list[Event], shape: tuple[int, int]) -> None:
    """Check what is there after each event."""
    known = Acknowledged(shape)
    for event, files in replay(events):
        known.take(event)
        known.check(files, torn=False)


def cuts_of(event: Event, rng: random.Random) -> Iterator[int]:
    size = len(event.data)
    yield from range(1, size) if size <= EACH_BYTE else sorted(rng.sample(range(1, size), CUTS))


CASES = [
    (SMALL, 24, 2, "none", "process"),
    (SMALL, 13, 1, "zstd", "process"),
    (SMALL, 13, 1, "zlib", "power"),
    (STRIPS, 4, 1, "zstd", "process"),
    (STRIPS, 4, 1, "zlib", "process"),
    (LARGE, 3, 1, "none", "process"),
]


@pytest.mark.parametrize(("shape", "frames", "positions", "compression", "durability"), CASES)
def test_no_prefix_of_the_writes_loses_a_frame_that_was_acknowledged(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int],
    frames: int,
    positions: int,
    compression: str,
    durability: str,
) -> None:
    tape = recorded(tmp_path, monkeypatch, shape, frames, positions, compression=compression, durability=durability)
    check_prefixes(tape.events, shape)
    rng, known, states = random.Random(frames), Acknowledged(shape), 0
    for event, files in replay(tape.events, lambda event: cuts_of(event, rng)):
        known.take(event)
        known.check(files, torn=True, described=len(event.data) != NAMING)
        states += 1
    assert sum(map(len, known.ids.values())) == frames + 2 * positions
    assert states > 20 * frames


def test_each_byte_of_a_slot_may_be_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tape = recorded(tmp_path, monkeypatch, SMALL, 12, 1, compression="zstd")
    slots = [event for event in tape.events if event.data.startswith(b"mutoscope\0tiff")]
    assert len(slots) == 14
    known = Acknowledged(SMALL)
    chosen = (slots[1], slots[10])  # one beside others, and the first of a block
    for event, files in replay(tape.events, lambda event: iter(range(1, len(event.data)) if event in chosen else ())):
        known.take(event)
        if event in chosen:
            known.check(files, torn=False)


@pytest.mark.parametrize("later", ["pixels", "slot"])
def test_a_link_that_comes_too_early_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str) -> None:
    tape = recorded(tmp_path, monkeypatch, SMALL, 5, 1, compression="zstd")
    events = tape.events
    at = next(n for n, event in enumerate(events) if event.data.startswith(b"mutoscope\0tiff") and n > len(events) // 3)
    moved = at - 1 if later == "pixels" else at
    events.insert(at + 1, events.pop(moved))  # behind the link
    with pytest.raises((AssertionError, KeyError, ValueError, RuntimeError)):  # whichever tifffile and zstd have for it
        check_prefixes(events, SMALL)
