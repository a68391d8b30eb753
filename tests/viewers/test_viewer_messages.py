"""Messages between sinks and viewers: golden bytes, and what is no message."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mutoscope import viewers
from mutoscope.bench.peers import memory_bytes
from mutoscope.bench.viewer_fuzz import fuzz, right_messages, wrong_frames, wrong_rois
from mutoscope.model.errors import ConfigError
from mutoscope.viewers import wire
from mutoscope.viewers.launch import find
from mutoscope.viewers.roi_pack import pack_rois, unpack_rois
from mutoscope.viewers.suite import ROIS

FRAMES = 100_000
LIVE_FRAMES = 2_000


def test_golden_bytes() -> None:
    """Whoever writes a sender in another language finds these on the wire; they change with the version only."""
    form = wire.Form([2, 3], "<u2", False)
    image = wire.Image(1, "a.tif", "raw", "", {"z": 2}, [], form, 4096, 12, 5)
    assert wire.frame(image, 0).hex() == ("21000000000000009b0201a5612e746966a3726177a081a17a029093920203a33c7532c2cd10000c05")
    assert wire.frame(wire.Call(7, "clear", {"source": None}), 0).hex() == (
        "1200000000000000940707a5636c65617281a6736f75726365c0"
    )
    account = wire.Account([(1, 3)], [(1, 2)], [(3, "no")], 9)
    assert wire.frame(account, 0).hex() == "110000000000000095219192010391920102919203a26e6f09"


def test_right_messages_are_taken() -> None:
    for message, _ in right_messages(1):
        wire.decode_from_sink(msgspec.msgpack.encode(message))


def test_what_is_no_message_is_refused_as_such() -> None:
    """A hundred thousand frames that are wrong in some way; most of what is in them is no message, and raises nothing else."""
    refused = 0
    for data in itertools.islice(wrong_frames(20261129), FRAMES):
        for decode in (wire.decode_from_sink, wire.decode_from_viewer):
            try:
                size, _ = wire.split(data[:8].ljust(8, b"\0"), wire.MAX_MESSAGE, wire.MAX_BEHIND)
                decode(data[8 : 8 + size])
            except wire.MalformedError:
                refused += 1
    assert FRAMES < refused < 2 * FRAMES


def test_damaged_rois_are_refused_as_such() -> None:
    refused = 0
    for data in itertools.islice(wrong_rois(20261129), FRAMES // 5):
        try:
            list(unpack_rois(data))
        except ConfigError:
            refused += 1
    assert FRAMES // 10 < refused < FRAMES // 5


def test_rois_come_back_exactly() -> None:
    assert list(unpack_rois(pack_rois(ROIS))) == list(ROIS)
    assert list(unpack_rois(pack_rois([]))) == []
    packed = unpack_rois(pack_rois(ROIS))
    assert np.array_equal(packed.vertices(0), [(1.0, 2.0), (1.0, 7.0), (5.0, 4.0)])
    assert packed[-1] == ROIS[-1]
    assert packed[1:3] == list(ROIS[1:3])


def test_a_viewer_survives_what_is_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with viewers.open("model", "fuzzed", timeout_s=60) as sink:
        try:
            entry = find("fuzzed")
            assert entry is not None
            fuzz("fuzzed", 200, 1)
            before = memory_bytes(entry.pid, "RssAnon")
            connections, ended = fuzz("fuzzed", LIVE_FRAMES, 2)
            assert 0.6 * connections < ended <= connections
            sink.save(np.ones((5, 6), np.uint8), "A01_s1_w1.tif", until="displayed")
            assert sink.progress().images.displayed == 1
            assert find("fuzzed") == entry
            assert memory_bytes(entry.pid, "RssAnon") - before < 32 << 20
        finally:
            sink.close(leave_open=False)
