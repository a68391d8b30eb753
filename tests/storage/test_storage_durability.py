"""Durability "power": what a receipt says, and that the data and the folders do reach fdatasync."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from storage_oracles import assert_exact, frame_of

from mutoscope import storage
from mutoscope.model.errors import ClosedError, DatasetError
from mutoscope.storage import _sync


@pytest.mark.alone
def test_a_receipt_becomes_durable_within_the_stated_bound(tmp_path: Path) -> None:
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(24, 40), dtype="uint16", durability="power", frames_per_shard=4) as writer:
        first = writer.append(frame_of(1))
        began = time.monotonic()
        assert first.durable == "process"
        assert writer.wait_durable(first, timeout_s=30)
        assert time.monotonic() - began < 10 * _sync.BOUND_S  # loose: the device is shared
        assert first.durable == "power"
        receipts = [writer.append(frame_of(frame_id)) for frame_id in range(2, 20)]
        assert receipts[-1].durable == "process"
        assert not writer.wait_durable(receipts[-1], timeout_s=0)
    assert {receipt.durable for receipt in receipts} == {"power"}
    assert writer.statistics().durable_frames == 19
    assert_exact(path, list(range(1, 20)))


def test_everything_that_changed_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[str] = set()

    def note(real):  # type: ignore[no-untyped-def]
        def sync(fd: int) -> None:
            synced.add(os.readlink(f"/proc/self/fd/{fd}"))
            real(fd)

        return sync

    monkeypatch.setattr(os, "fdatasync", note(os.fdatasync))
    monkeypatch.setattr(os, "fsync", note(os.fsync))
    path = tmp_path / "run.ome.zarr"
    with storage.open_writer(path, shape=(24, 40), dtype="uint16", durability="power", frames_per_shard=4) as writer:
        for frame_id in range(1, 11):
            writer.append(frame_of(frame_id), index={"c": 1})
    missing = [p for p in (path, *path.rglob("*")) if str(p) not in synced]
    assert missing == []
    assert str(tmp_path) in synced


def test_a_device_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.ome.zarr"
    writer = storage.open_writer(path, shape=(24, 40), dtype="uint16", durability="power")
    receipt = writer.append(frame_of(1))
    assert writer.wait_durable(receipt, timeout_s=30)
    real = os.fdatasync

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    receipt = writer.append(frame_of(2))
    assert not writer.wait_durable(receipt, timeout_s=30)
    assert receipt.durable == "process"
    with pytest.raises(DatasetError, match="Input/output error"):
        writer.append(frame_of(3))
    monkeypatch.setattr(os, "fdatasync", real)
    writer.close()
    with pytest.raises(ClosedError):
        writer.append(frame_of(3))


def test_process_durability_starts_no_thread_and_syncs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> None:
        pytest.fail("nothing is to be synced")

    monkeypatch.setattr(os, "fdatasync", refuse)
    monkeypatch.setattr(os, "fsync", refuse)
    with storage.open_writer(tmp_path / "run.ome.zarr", shape=(24, 40), dtype="uint16") as writer:
        receipt = writer.append(frame_of(1))
        assert not writer.wait_durable(receipt, timeout_s=0)
    assert receipt.durable == "process"
