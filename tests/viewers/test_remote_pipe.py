"""Two ends of a pipe without a network between them, for what a network rarely does."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutoscope.viewers.remote.messages import CHUNK_BYTES, Ack, Data, decode
from mutoscope.viewers.remote.packing import pack, unpack
from mutoscope.viewers.remote.pipe import WINDOW_BYTES, Pipe
from mutoscope.viewers.wire import MalformedError


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, Pipe, socket.socket, socket.socket]]:
    """Two pipes, and the local socket of each."""
    near, inner = socket.socketpair()
    far, outer = socket.socketpair()
    pipes = Pipe(inner), Pipe(outer)
    yield *pipes, near, far
    for each in (*pipes, near, far):
        each.close()


def pass_on(source: Pipe, target: Pipe, most: int | None = None) -> bool:
    """Carry what one end has to say to the other; only so many messages if the connection breaks then, and whether it did."""
    news = source.news()
    messages = [*([news] if news is not None else []), *source.to_send()]
    for data in messages[:most]:
        message = decode(data)
        if isinstance(message, Ack):
            target.acknowledged(message.count)
        else:
            assert isinstance(message, Data)
            target.take(message)
    return most is not None and len(messages) > most


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), compression=st.sampled_from(["", "lz4", "zstd"]))
def test_connections_that_break_between_any_two_messages(seed: int, compression: str) -> None:
    rng = random.Random(seed)
    near, inner = socket.socketpair()
    far, outer = socket.socketpair()
    one, other = Pipe(inner, compression), Pipe(outer, compression)
    sent = [b"", b""]
    came = [b"", b""]
    try:
        for _ in range(60):
            for side, sock in enumerate((near, far)):
                data = rng.choice([b"", rng.randbytes(50), bytes(2000), bytes([side]) * 777])
                sock.sendall(data)
                sent[side] += data
            for pipe in (one, other):
                pipe.read()
            most = rng.choice([None, None, 0, 1, 2])
            if pass_on(one, other, most) | pass_on(other, one, most):  # what was not carried is lost with the connection
                one.resume(other.have)
                other.resume(one.have)
            for side, sock in enumerate((far, near)):
                sock.setblocking(False)
                try:
                    came[side] += sock.recv(1 << 20)
                except BlockingIOError:
                    pass
                sock.setblocking(True)
        near.shutdown(socket.SHUT_WR)
        far.shutdown(socket.SHUT_WR)
        one.resume(other.have)
        other.resume(one.have)
        while not (one.is_over and other.is_over):
            for pipe in (one, other):
                pipe.read()
            pass_on(one, other)
            pass_on(other, one)
        for side, sock in enumerate((far, near)):
            while data := sock.recv(1 << 20):
                came[side] += data
        assert came == sent
    finally:
        for each in (one, other, near, far):
            each.close()


def test_who_reads_nothing_holds_the_other_up(ends: tuple[Pipe, Pipe, socket.socket, socket.socket]) -> None:
    one, other, near, far = ends
    near.setblocking(False)
    written = 0
    block = bytes(CHUNK_BYTES)
    while True:
        try:
            written += near.send(block)
        except BlockingIOError:
            if not one.wants_to_read:
                break
        one.read()
        pass_on(one, other)
        other.write()
        pass_on(other, one)
    assert WINDOW_BYTES <= written < WINDOW_BYTES + (4 << 20)
    read = 0
    while read < written:
        read += len(far.recv(1 << 20))
        other.write()
        pass_on(other, one)
        one.read()
        pass_on(one, other)
    assert one.wants_to_read


def test_what_cannot_be(ends: tuple[Pipe, Pipe, socket.socket, socket.socket]) -> None:
    one, _, near, far = ends
    near.sendall(b"abc")
    one.read()
    (data,) = list(one.to_send())
    with pytest.raises(MalformedError, match="acknowledged"):
        one.acknowledged(2)
    with pytest.raises(MalformedError, match="the other end has 5 chunks"):
        one.resume(5)
    one.acknowledged(1)
    with pytest.raises(MalformedError, match="the other end has 0 chunks"):
        one.resume(0)  # it is kept no longer
    end = Data(0, 0, False, memoryview(b""))
    with pytest.raises(MalformedError, match="comes after 0 chunks"):
        one.take(Data(1, 1, False, memoryview(b"x")))
    one.take(end)
    one.take(end)  # again: passed over
    with pytest.raises(MalformedError, match="comes after 1 chunks"):
        one.take(Data(1, 1, False, memoryview(b"x")))
    with pytest.raises(MalformedError, match="a chunk of 3 bytes"):
        decode(data.replace(b"\x03\xc2", b"\x04\xc2"))
    assert near.recv(1) == b""
    assert one.ended_there
    far.close()


def test_chunks_that_do_not_unpack() -> None:
    packed = pack("lz4", bytes(5000))
    assert packed is not None
    assert bytes(unpack(memoryview(packed), 5000)) == bytes(5000)
    assert pack("lz4", random.Random(1).randbytes(5000)) is None
    for damaged, size in ((packed, 4999), (packed[:-1], 5000), (b"", 0), (packed[:20], 5000)):
        with pytest.raises(MalformedError):
            unpack(memoryview(damaged), size)
    rng = random.Random(2)
    for _ in range(500):
        data = bytearray(packed)
        for at in range(16, len(data)):
            if rng.random() < 0.3:
                data[at] = rng.randrange(256)
        try:
            assert len(unpack(memoryview(bytes(data)), 5000)) == 5000
        except MalformedError:
            continue
