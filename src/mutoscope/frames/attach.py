"""Attaching to a ring from a process that its owner did not start.

The owner listens on an abstract Unix socket: no file, gone with its process. The kernel vouches for the user id of whoever
connects; only the owner's own user gets in. One request and one answer: a length, then msgpack; descriptors come with the
answer.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from mutoscope.frames import _os
from mutoscope.frames._segments import close_all
from mutoscope.frames.reader import FrameReader
from mutoscope.frames.writer import FrameWriter
from mutoscope.model.errors import (
    ErrorRecord,
    MutoscopeError,
    PeerDiedError,
    RingClosedError,
    from_record,
    to_record,
)

if TYPE_CHECKING:
    from mutoscope.frames.ring import FrameRing, OnFull, Policy, Start

__all__ = ["RingListener", "attach_reader", "attach_writer"]

_log = logging.getLogger(__name__)
_LENGTH = struct.Struct("<I")
_MOST_BYTES = 65536
_ANSWER_S = 10.0


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: str
    options: dict[str, str | int | float | None] = {}


class _Answer(msgspec.Struct, frozen=True):
    meta: dict[str, Any] = {}
    error: ErrorRecord | None = None


def _send(sock: socket.socket, message: msgspec.Struct, fds: list[int]) -> None:
    data = msgspec.msgpack.encode(message)
    _os.send_message(sock, _LENGTH.pack(len(data)) + data, fds)


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    data, fds = b"", []
    needed = _LENGTH.size
    try:
        while len(data) < needed:
            part, came = _os.receive_message(sock, _MOST_BYTES)
            fds += came
            if not part:
                raise PeerDiedError("the other end of the ring's socket hung up")
            data += part
            if len(data) >= _LENGTH.size:
                needed = _LENGTH.size + _LENGTH.unpack_from(data)[0]
                if needed > _MOST_BYTES:
                    raise PeerDiedError("the other end of the ring's socket does not speak its language")
    except BaseException:
        close_all(fds)
        raise
    return data[_LENGTH.size : needed], fds


class RingListener:
    """Answers those who attach, in a thread of its own. Made and closed by ``FrameRing``."""

    def __init__(self, ring: FrameRing, name: str | None) -> None:
        self.address = name or f"mutoscope-ring-{os.getpid()}-{secrets.token_hex(8)}"
        self._ring = ring
        self._socket = _os.listen_privately(self.address)
        self._stop = _os.create_bell()
        self._thread = threading.Thread(target=self._run, name=f"mutoscope-listen-{ring.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._stop not in _os.wait_readable([self._socket.fileno(), self._stop], None):
            sock, _ = self._socket.accept()
            with sock:
                sock.settimeout(1.0)
                try:
                    self._serve(sock)
                except (OSError, MutoscopeError) as error:
                    _log.warning("ring %r: a process that wanted to attach failed: %s", self._ring.name, error)

    def _serve(self, sock: socket.socket) -> None:
        pid, uid, _ = _os.peer_credentials(sock)
        if uid != os.getuid():
            _log.warning("ring %r: process %s of user %s was refused", self._ring.name, pid, uid)
            return
        data, fds = _receive(sock)
        close_all(fds)
        try:
            request = msgspec.msgpack.decode(data, type=_Request)
            options: dict[str, Any] = request.options
            if request.role == "writer":
                handle = self._ring.assign_writer(pid=pid, watched=True)
            else:
                handle = self._ring.assign_reader(pid=pid, watched=True, **options)
        except (MutoscopeError, msgspec.MsgspecError, TypeError, ValueError, AttributeError) as error:
            _send(sock, _Answer(error=to_record(error)), [])
            return
        meta, fds = handle
        try:
            _send(sock, _Answer(meta=meta), fds)
        except OSError:
            if request.role == "writer":
                self._ring.writer_died()
            else:
                self._ring.reader_died(meta["row"], keep=False)
            raise

    def close(self) -> None:
        """Stop listening."""
        _os.ring_bell(self._stop)
        self._thread.join()
        self._socket.close()
        os.close(self._stop)


def _ask(address: str, role: str, timeout_s: float, options: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    try:
        sock = _os.connect_privately(address, timeout_s)
    except ConnectionRefusedError as error:
        raise RingClosedError(f"no ring listens at {address!r}") from error
    with sock:
        try:
            _send(sock, _Request(role, options), [])
            data, fds = _receive(sock)
        except (ConnectionError, PeerDiedError) as error:
            raise PeerDiedError(f"the ring at {address!r} hung up: it is another user's, or it is closing") from error
        answer = msgspec.msgpack.decode(data, type=_Answer)
        if answer.error is not None:
            raise from_record(answer.error)
        return answer.meta, fds


def attach_reader(
    address: str,
    policy: Policy = "every",
    *,
    leases: int = 2,
    on_full: OnFull = "block",
    lag_limit: int | None = None,
    at_most_hz: float | None = None,
    group: str | None = None,
    name: str = "reader",
    start: Start = "new",
    timeout_s: float = _ANSWER_S,
) -> FrameReader:
    """Attach a reader to a ring of another process of the same user.

    Parameters
    ----------
    address : str
        What the ring's ``listen`` returned.
    policy, leases, on_full, lag_limit, at_most_hz, group, name, start
        As for ``FrameRing.reader``.
    timeout_s : float
        Longest wait in seconds for the ring's owner.

    Raises
    ------
    RingClosedError
        If no ring listens there.
    PeerDiedError
        If it hung up: another user's ring does.
    ConfigError
        What ``FrameRing.reader`` refuses.
    """
    options = {
        "policy": policy,
        "leases": leases,
        "on_full": on_full,
        "lag_limit": lag_limit,
        "at_most_hz": at_most_hz,
        "group": group,
        "name": name,
        "start": start,
    }
    return FrameReader.from_handle(*_ask(address, "reader", timeout_s, options))


def attach_writer(address: str, *, timeout_s: float = _ANSWER_S) -> FrameWriter:
    """Attach the writer to a ring of another process of the same user.

    Parameters
    ----------
    address : str
        What the ring's ``listen`` returned.
    timeout_s : float
        Longest wait in seconds for the ring's owner.

    Raises
    ------
    ScopeStateError
        If the ring has a writer already.
    """
    return FrameWriter.from_handle(*_ask(address, "writer", timeout_s, {}))
