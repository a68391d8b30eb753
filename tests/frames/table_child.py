"""A process of its own for the table tests: ``table_child.py ROLE META FDS ARGUMENTS``, all but the role in JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np

from mutoscope.frames.table import TableReader, TableWriter


def row(value: int) -> tuple[int, int, float, int]:
    """A row whose columns all say the same, so that a torn one shows."""
    return value, value * 3, value * 0.5, (value * 7919) % (1 << 32)


def check(rows: np.ndarray) -> None:
    values = rows["value"]
    assert (rows["triple"] == values * 3).all(), "torn row"
    assert (rows["half"] == values * 0.5).all(), "torn row"
    assert (rows["tail"] == (values * 7919) % (1 << 32)).all(), "torn row"


def rows_of(values: Any, dtype: np.dtype[Any]) -> np.ndarray:
    made = np.empty(len(values), dtype)
    made["value"], made["triple"] = values, np.asarray(values) * 3
    made["half"], made["tail"] = np.asarray(values) * 0.5, (np.asarray(values) * 7919) % (1 << 32)
    return made


def say(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def write(writer: TableWriter, first: int, count: int, batch: int = 1) -> None:
    """Append `count` rows and say after each call what was acknowledged."""
    for value in range(first, first + count, batch):
        last = writer.append(row(value) if batch == 1 else rows_of(np.arange(value, value + batch), writer.dtype))
        say(acknowledged=value + batch - 1, row_id=last)


def flood(writer: TableWriter, first: int, count: int, batch: int) -> None:
    """Append as fast as it goes."""
    for value in range(first, first + count, batch):
        writer.append(rows_of(np.arange(value, value + batch), writer.dtype))


def read(reader: TableReader, until: int, pause_reads: int = 0) -> None:
    """Take rows until row `until`, check each, and say how many came and were lost."""
    say(ready=True)
    delivered, last = 0, reader.row_id
    while reader.row_id < until:
        rows = reader.read(timeout_s=20.0)
        assert len(rows), "no row in 20 s"
        check(rows)
        assert (reader.row_ids == rows["value"]).all(), "a row under another row's id"
        assert (np.diff(np.concatenate([[last], reader.row_ids.astype(np.int64)])) > 0).all(), "out of order"
        last = int(reader.row_ids[-1])
        delivered += len(rows)
        for _ in range(pause_reads):
            reader.latest(64)
    say(delivered=delivered, lost=reader.lost, row_id=reader.row_id)


def flood_wide(writer: TableWriter, count: int) -> None:
    """Append long rows, each filled with its own number."""
    made = np.empty(1, writer.dtype)
    for value in range(1, count + 1):
        made["fill"] = value
        writer.append(made)


def read_wide(reader: TableReader, until: int) -> None:
    """Take long rows: one that mixes two numbers is torn."""
    say(ready=True)
    delivered = 0
    while reader.row_id < until:
        fill = reader.read(timeout_s=20.0)["fill"]
        assert (fill == reader.row_ids[:, None]).all(), "torn row"
        delivered += len(fill)
    say(delivered=delivered, lost=reader.lost)


def take(reader: TableReader, max_rows: int, times: int) -> None:
    """Take a few rows at a time."""
    for _ in range(times):
        rows = reader.read(max_rows=max_rows)
        say(values=rows["value"].tolist(), lost=reader.lost)


def echo(reader: TableReader, writer: TableWriter, count: int) -> None:
    """Answer each row with the same one."""
    say(ready=True)
    for _ in range(count):
        rows = reader.read(timeout_s=20.0, max_rows=1)
        assert len(rows) == 1, "no row in 20 s: a wake-up was lost"
        writer.append(rows)


def main() -> None:
    role, meta, fds, arguments = sys.argv[1], *map(json.loads, sys.argv[2:5])
    ends = [
        (TableWriter if m["kind"] == "table-writer" else TableReader).from_handle(m, f) for m, f in zip(meta, fds, strict=True)
    ]
    globals()[role](*ends, **arguments)
    for end in ends:
        end.close()
    assert not [name for name in os.listdir("/proc/self/fd") if "memfd:mutoscope" in _target(name)], "descriptors left"


def _target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    main()
