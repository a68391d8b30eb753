"""What is no frame of a sink, or nearly one: for the bench of viewers, and in part for the tests."""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from mutoscope.model.errors import ViewerUnavailableError
from mutoscope.model.roi import Ellipse, Points, Polygon, Roi
from mutoscope.viewers import wire
from mutoscope.viewers.launch import find, greet
from mutoscope.viewers.roi_pack import pack_rois
from mutoscope.viewers.sink import progress

__all__ = ["fuzz", "right_messages", "with_odd", "wrong_frames", "wrong_rois"]

_ROIS = [
    Roi("a", Polygon([(1.0, 2.0), (3.0, 4.0), (5.0, 1.0)]), name="x"),
    Roi("b", Points([(1.0, 1.0)])),
    Roi("c", Ellipse((3.0, 3.0), 2.0, 1.0)),
]
_PATIENCE_S = 60.0
_FRAMES = 2
"""Frames of a connection: most end it, and one that tells of more bytes than it has swallows those after it."""
_ODD: list[Any] = [
    *(None, -1, 0, 2**62, 2**64 - 1, 1e308, float("nan"), "", "x" * 5000, "\0", True, b"", b"\xff" * 40),
    *([], {}, [[[[]]]], {"a": {"b": None}}, ["z", 1], [["z", 1]], {"z": []}, "|O8", ">u2", "<u2"),
]


def right_messages(number: int) -> list[tuple[Any, bytes]]:
    """Return one message of each kind that a sink may send, with what is behind it, as plain values."""
    form = [[2, 4, 6], "<u2", False]
    pixels = bytes(96)
    rois = pack_rois(_ROIS)
    place = {"well": "A01", "channel": 1}
    return [
        ([2, number, "A01_s1_w1.tif", "raw", "", place, [["z", 1]], form, wire.BEHIND, 96, 1], pixels),
        ([2, number, "A01_s1_w1.tif", "raw", "", place, [["z", 1]], form, wire.BEHIND, 50, 1], pixels[:50]),
        ([2, number, "A01_s1_w1.tif", "raw", "", place, [["z", 1]], form, 4096, 96, 1], b""),
        ([3, number, "a.roi.zip", "raw", "/data", place, len(rois), wire.BEHIND, len(rois), 1], rois),
        ([4, number, wire.BEHIND, 46], pixels[:46]),
        ([5, number], b""),
        ([6, 3, 4], b""),
        ([7, number, "layers", {}], b""),
        ([7, number, "plane", {"layer": "1", "index": [0, 0]}], b""),
        ([7, number, "rois", {"layer": "2", "index": [0]}], b""),
        ([7, number, "clear", {"source": "raw"}], b""),
        ([7, number, "progress", {}], b""),
    ]


def wrong_frames(seed: int) -> Iterator[bytes]:
    """Yield frames without end, most of them wrong in some way."""
    rng = random.Random(seed)
    number = 0
    while True:
        number += 1
        message, behind = rng.choice(right_messages(number))
        match rng.randrange(7):
            case 0:
                yield rng.randbytes(rng.randrange(1, 200))
                continue
            case 1:
                message = with_odd(message, rng)
            case 2:
                damaged = bytearray(msgspec.msgpack.encode(message))
                for _ in range(rng.randrange(1, 4)):
                    damaged[rng.randrange(len(damaged))] = rng.randrange(256)
                yield wire.PREFIX.pack(len(damaged), len(behind)) + bytes(damaged) + behind
                continue
            case 3:
                message = message[: rng.randrange(len(message))]
            case 4:
                behind = rng.choice([b"", behind[:-1], behind + b"\0", rng.randbytes(rng.randrange(300))])
            case 5:
                data = msgspec.msgpack.encode(message)
                size = rng.choice([0, len(data) - 1, len(data) + 7, 2**31, 2**32 - 1])
                yield wire.PREFIX.pack(size, rng.choice([0, len(behind), 2**31])) + data + behind
                continue
            case _:
                pass
        data = msgspec.msgpack.encode(message)
        yield wire.PREFIX.pack(len(data), len(behind)) + data + behind


def with_odd(message: list[Any], rng: random.Random) -> list[Any]:
    """Return a message of which one value, however deep, is another."""
    changed = list(message)
    at = rng.randrange(1, len(changed))
    inner = changed[at]
    if isinstance(inner, list) and inner and rng.random() < 0.7:
        changed[at] = with_odd([None, *inner], rng)[1:]
    elif isinstance(inner, dict) and inner and rng.random() < 0.7:
        changed[at] = {**inner, rng.choice([*inner, "extra", "x" * 100]): rng.choice(_ODD)}
    else:
        changed[at] = rng.choice(_ODD)
    return changed


def wrong_rois(seed: int) -> Iterator[bytes]:
    """Yield packed ROIs without end, most of them damaged."""
    rng = random.Random(seed)
    whole = pack_rois(_ROIS)
    while True:
        data = bytearray(whole)
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at:]
                    data += rng.randbytes(rng.randrange(20))
                case 2:
                    data[at:at] = rng.randbytes(rng.randrange(1, 9))
                case _:
                    data[at : at + 8] = np.float64(rng.choice([np.nan, np.inf, 1e300])).tobytes()
            if not data:
                break
        yield bytes(data)


def fuzz(name: str, count: int, seed: int) -> tuple[int, int]:
    """Send so many wrong frames to a viewer; returns the connections that it took, and how many of them it ended for what came.

    Each connection is read to its end, so that the viewer has taken all of it.
    """
    frames, left, connections = wrong_frames(seed), count, 0
    viewer = find(name)
    if viewer is None:
        raise ViewerUnavailableError(f"no viewer is called {name!r}")
    before = progress(name, timeout_s=_PATIENCE_S).refused
    hello = wire.Hello(wire.WIRE_VERSION, viewer.token, "send", os.getpid(), "here", "fuzz", False, {})
    while left > 0:
        connections += 1
        sock, _ = greet(viewer, hello, [], _PATIENCE_S)
        with sock:
            sock.settimeout(_PATIENCE_S)
            try:
                for data in itertools.islice(frames, min(left, _FRAMES)):
                    sock.sendall(data)
                    left -= 1
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(1 << 16):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                continue  # it was ended while it sent
    return connections, progress(name, timeout_s=_PATIENCE_S).refused - before
