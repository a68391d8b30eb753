"""What comes at a gate that is no message of a pipe, from who is trusted and from who is not, does no harm."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from remote_support import PATIENCE_S, users_in
from viewer_senders import image, name

from mutoscope import viewers
from mutoscope.bench.peers import memory_bytes
from mutoscope.bench.remote_fuzz import fuzz_as_stranger, fuzz_as_trusted
from mutoscope.viewers.launch import find
from mutoscope.viewers.remote.address import Address, address_of
from polling import until

COUNT = int(os.environ.get("MUTOSCOPE_FUZZ", "2000"))


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    with users_in(tmp_path, monkeypatch) as users:
        yield address_of(users.listen())


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("send", [fuzz_as_trusted, fuzz_as_stranger], ids=["trusted", "stranger"])
def test_what_is_no_message_does_no_harm(address: Address, send: Callable[[Address, int, int], int]) -> None:
    entry = find("model")
    assert entry is not None
    send(address, COUNT // 2, 1)
    until(lambda: viewers.progress("model").senders == [] or not any(s.connected for s in viewers.progress("model").senders))
    memory, open_ = memory_bytes(entry.pid, "RssAnon"), descriptors(entry.pid)
    send(address, COUNT, 2)
    sink = viewers.open("model", str(address), required=True, timeout_s=PATIENCE_S)
    sink.save(image(1), name(1), until="displayed")
    sink.close()
    assert find("model") == entry
    until(lambda: descriptors(entry.pid) <= open_ + 4)
    assert memory_bytes(entry.pid, "RssAnon") - memory < 32 << 20
