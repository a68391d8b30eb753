"""What is no message of a pipe between computers, or nearly one; from who is trusted, and from who is not."""

from __future__ import annotations

import contextlib
import random
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from mutoscope.bench.viewer_fuzz import with_odd, wrong_frames
from mutoscope.viewers import wire
from mutoscope.viewers.remote.address import Address, load_zmq
from mutoscope.viewers.remote.keys import own_key, trusted_key
from mutoscope.viewers.remote.messages import CHUNK_BYTES, Data, End, Open, decode, encode

__all__ = ["fuzz_as_stranger", "fuzz_as_trusted", "wrong_messages"]

_PATIENCE_S = 60.0
_VERSION = 77
"""Of the protocol; there is none: the gate says so when it has taken all that came before."""
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15) + b"\0" + bytes(31)
"""Of ZMTP 3.1: https://rfc.zeromq.org/spec/37/."""


_HELLO = wire.frame(wire.Hello(wire.WIRE_VERSION, "", "send", 1, "here", "fuzz", False, {}))


def _right_messages(rng: random.Random, session: bytes) -> list[list[Any]]:
    content = rng.randbytes(rng.choice([0, 1, 100, 1 << 16]))
    return [
        [1, 1, session, 0, False, rng.choice(["", "lz4"])],
        [1, 1, session, 3, True, ""],
        [2, 0],
        [3, rng.randrange(3), len(content), False, content],
        [
            3,
            0,
            1000,
            True,
            b"\x02\x01\x33\x02" + (1000).to_bytes(4, "little") + bytes(4) + (64).to_bytes(4, "little") + rng.randbytes(48),
        ],
        [4, rng.randrange(3)],
        [5],
        [6, "over"],
    ]


def wrong_messages(seed: int) -> Iterator[list[bytes]]:
    """Yield messages without end, each with the parts that it is sent in, most of them wrong in some way."""
    rng = random.Random(seed)
    inner = wrong_frames(seed)
    while True:
        message = rng.choice(_right_messages(rng, rng.randbytes(16)))
        data = msgspec.msgpack.encode(message)
        match rng.randrange(8):
            case 0:
                yield [rng.randbytes(rng.randrange(1, 300))]
            case 1:
                yield [msgspec.msgpack.encode(with_odd(message, rng) if len(message) > 1 else [rng.randrange(300)])]
            case 2:
                damaged = bytearray(data)
                for _ in range(rng.randrange(1, 4)):
                    damaged[rng.randrange(len(damaged))] = rng.randrange(256)
                yield [bytes(damaged)]
            case 3:
                yield [data[: rng.randrange(len(data))]]
            case 4:
                yield [data] * rng.randrange(2, 5) if rng.random() < 0.5 else [b"", data]
            case 5:  # a pipe that is right, and in it a frame of a sink that is not
                frame = (_HELLO + next(inner))[:CHUNK_BYTES]
                yield [encode(Data(0, len(frame), False, memoryview(frame)))]
            case _:
                yield [data]


def fuzz_as_trusted(address: Address, count: int, seed: int) -> int:
    """Send so many wrong messages to a gate, as one whose key it trusts; returns how many sessions they were in.

    What it answers is read; at the end it has taken all of it, and answers still.
    """
    zmq = load_zmq()
    own, messages, sessions, sent = own_key(), wrong_messages(seed), 0, 0
    rng = random.Random(seed)
    context = zmq.Context()
    try:
        while sent < count:
            sock = context.socket(zmq.DEALER)
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.CURVE_SERVERKEY, trusted_key(None, address.host)[1].encode())
            sock.setsockopt(zmq.CURVE_PUBLICKEY, own.public.encode())
            sock.setsockopt(zmq.CURVE_SECRETKEY, own.secret.encode())
            sock.connect(str(address))
            for _ in range(min(500, count - sent)):
                if rng.random() < 0.7:
                    sessions += 1
                    sock.send(encode(Open(1, secrets.token_bytes(16), 0, False, "")))
                sock.send_multipart(next(messages))
                sent += 1
                with contextlib.suppress(zmq.Again):
                    while True:
                        sock.recv_multipart(zmq.NOBLOCK)
            _is_answered(zmq, sock)
            sock.close()
    finally:
        context.destroy(linger=0)
    return sessions


def _is_answered(zmq: Any, sock: Any) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    for _ in range(2):  # the first of these may only end what was there
        sock.send(encode(Open(_VERSION, secrets.token_bytes(16), 0, False, "")))
    while time.monotonic() < deadline:
        if sock.poll(100):
            answer = decode(sock.recv_multipart()[0])
            if isinstance(answer, End) and f"the sender {_VERSION}" in answer.reason:
                return
    raise TimeoutError("the gate does not answer any more")


def fuzz_as_stranger(address: Address, count: int, seed: int) -> int:
    """Send so many pieces of what may be a connection of ZeroMQ to a gate, without a key; returns in how many connections.

    Each connection is read until the gate ends it.
    """
    rng, connections, sent = random.Random(seed), 0, 0
    while sent < count:
        connections += 1
        with socket.create_connection((address.host, address.port), timeout=_PATIENCE_S) as sock:
            try:
                greeting = bytearray(_GREETING)
                if rng.random() < 0.3:
                    greeting[rng.randrange(len(greeting))] = rng.randrange(256)
                sock.sendall(greeting if rng.random() < 0.9 else rng.randbytes(rng.randrange(1, 200)))
                sent += 1
                for _ in range(rng.randrange(1, 8)):
                    sock.sendall(_piece(rng))
                    sent += 1
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(1 << 16):
                    pass
            except OSError:
                continue  # it was ended while it sent
    return connections


def _piece(rng: random.Random) -> bytes:
    """A command or a message of ZMTP, with a length that is right or not."""
    name = rng.choice([b"HELLO", b"INITIATE", b"MESSAGE", b"READY", b"PING", b"ERROR", rng.randbytes(5)])
    body = bytes([len(name)]) + name + rng.randbytes(rng.choice([0, 1, 194, 200, 300]))
    kind = rng.choice([0x04, 0x04, 0x06, 0x00, 0x01, 0x02, rng.randrange(256)])
    long = kind & 2
    size = rng.choice([len(body), len(body), len(body) + 1, 0, 255 if not long else 2**62])
    return bytes([kind]) + size.to_bytes(8 if long else 1, "big", signed=False) + body if long or size < 256 else body
