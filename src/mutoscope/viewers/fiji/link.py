"""The socket to the plug-in: one request after the other, each with a deadline."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from mutoscope.model.errors import ClosedError, CommandTimeoutError, ConfigError, MutoscopeError, PeerDiedError
from mutoscope.viewers.fiji.messages import (
    MAX_BEHIND,
    MAX_MESSAGE,
    PREFIX,
    PROTOCOL,
    Answer,
    Hello,
    Notice,
    Refusal,
    Request,
    Welcome,
)

__all__ = ["ImageJError", "Link", "WindowGoneError"]

_CHUNK = 1 << 20

_Kind = TypeVar("_Kind", bound=Answer)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Answer)


class ImageJError(MutoscopeError):
    """ImageJ refused or failed; `code` is one of those of the protocol."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class WindowGoneError(ImageJError):
    """A person has closed this window, or made another image of it: open it again."""


class Link:
    """A connection to the plug-in. Not safe for several threads at a time.

    Parameters
    ----------
    address : str
        ``tcp://host:port``.
    token : str
        The receiver's.
    timeout_s : float
        For the connection and the welcome.

    Raises
    ------
    PeerDiedError
        If nobody listens there.
    ConfigError
        If the token is wrong, or the plug-in speaks another version.
    """

    def __init__(self, address: str, token: str, timeout_s: float = 10.0) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        if not address.startswith("tcp://") or not host or not port.isdigit():
            raise ConfigError(f"the address of a live receiver is tcp://host:port, not {address!r}")
        self.address = address
        self._numbers = 0
        self._received = bytearray()
        self._broken = ""
        self._noticed = False
        try:
            self._socket = socket.create_connection((host, int(port)), timeout_s)
        except OSError as error:
            raise PeerDiedError(
                f"no live receiver answers at {address} ({error}): start Plugins > Mutoscope > Live receiver"
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.welcome = self.ask(Hello(id=self.next_id(), version=PROTOCOL, token=token), Welcome, timeout_s=timeout_s)[0]
        except BaseException:
            self.close()
            raise

    def next_id(self) -> int:
        """Return the number for a request: each is used once."""
        self._numbers += 1
        return self._numbers

    def fileno(self) -> int:
        """Return the socket's descriptor: it becomes readable when ImageJ ends."""
        return self._socket.fileno()

    def ask(
        self, request: Request, kind: type[_Kind], behind: Sequence[Any] = (), timeout_s: float = 30.0
    ) -> tuple[_Kind, memoryview]:
        """Send a request and wait for its answer.

        Parameters
        ----------
        request : Request
            With an `id` of `next_id`.
        kind : type
            What the answer is, unless it is a refusal.
        behind : sequence of bytes-like
            Sent after it.
        timeout_s : float
            For all of it. An answer that comes later is thrown away.

        Returns
        -------
        answer, behind
            The answer, and the bytes that came after it.

        Raises
        ------
        ImageJError
            If ImageJ refused, or failed.
        WindowGoneError
            If a person has closed the window that is asked for, or changed its form.
        CommandTimeoutError
            If there is no answer in time; the request may still be carried out.
        PeerDiedError
            If ImageJ has ended.
        ClosedError
            If this link is closed.
        """
        if self._broken:
            raise ClosedError(f"the link to ImageJ is closed: {self._broken}")
        deadline = time.monotonic() + timeout_s
        views = [memoryview(each).cast("B") for each in behind]
        size = sum(view.nbytes for view in views)
        message = _encoder.encode(request)
        if len(message) > MAX_MESSAGE or size > MAX_BEHIND:
            raise ConfigError(f"a message of {len(message):,} bytes with {size:,} behind it is more than ImageJ takes")
        self._send([memoryview(PREFIX.pack(len(message), size) + message), *views], deadline)
        while True:
            answer, rest = self._receive(deadline)
            if isinstance(answer, Refusal) and answer.id in (0, request.id):
                raise self._error(answer)
            if answer.id != request.id:
                continue  # of a request whose time was over
            if not isinstance(answer, kind):
                raise self._fail(f"ImageJ answered {type(answer).__name__} to {type(request).__name__}")
            return answer, rest

    def _error(self, refusal: Refusal) -> MutoscopeError:
        if refusal.code == "token":
            return ConfigError(f"{self.address}: {refusal.message}")
        if refusal.code == "version":
            return ConfigError(refusal.message)
        if refusal.id == 0:
            return self._fail(refusal.message)
        if refusal.code in ("closed", "altered"):
            return WindowGoneError(refusal.code, refusal.message)
        return ImageJError(refusal.code, refusal.message)

    def _fail(self, why: str) -> PeerDiedError:
        self.close(why)
        return PeerDiedError(why)

    def _send(self, views: list[memoryview], deadline: float) -> None:
        """Send all of it, or break the link: half a message cannot be taken back."""
        try:
            for view in views:
                sent = 0
                while sent < view.nbytes:
                    self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
                    sent += self._socket.send(view[sent : sent + _CHUNK])
        except TimeoutError:
            self.close("ImageJ took nothing in time")
            raise CommandTimeoutError("ImageJ took nothing in time") from None
        except OSError as error:
            raise self._fail(f"ImageJ has ended: {error}") from error

    def take_notice(self) -> bool:
        """Return whether ImageJ has told that there are news since this was asked last; never waits, nor reads."""
        while self._has_message():
            self._noticed |= isinstance(self._receive_one(0.0)[0], Notice)
        noticed, self._noticed = self._noticed, False
        return noticed

    def _has_message(self) -> bool:
        """Whether a whole message has come together with the last one."""
        return len(self._received) >= PREFIX.size and len(self._received) >= PREFIX.size + sum(
            PREFIX.unpack_from(self._received)
        )

    def _receive(self, deadline: float) -> tuple[Answer, memoryview]:
        while True:
            answer, behind = self._receive_one(deadline)
            if not isinstance(answer, Notice):
                return answer, behind
            self._noticed = True

    def _receive_one(self, deadline: float) -> tuple[Answer, memoryview]:
        while True:
            if len(self._received) >= PREFIX.size:
                length, behind = PREFIX.unpack_from(self._received)
                if not 0 < length <= MAX_MESSAGE or behind > MAX_BEHIND:
                    raise self._fail(f"ImageJ sent a message of {length:,} bytes with {behind:,} behind it")
                end = PREFIX.size + length + behind
                if len(self._received) >= end:
                    break
            else:
                end = PREFIX.size
            self._receive_some(end, deadline)
        whole, self._received = self._received, self._received[end:]
        try:
            answer: Answer = _decoder.decode(memoryview(whole)[PREFIX.size : PREFIX.size + length])
        except msgspec.MsgspecError as error:
            raise self._fail(f"ImageJ sent what is no answer: {error}") from error
        return answer, memoryview(whole)[PREFIX.size + length : end]

    def has_ended(self) -> bool:
        """Return whether the other end has hung up; never waits, and throws late answers away."""
        try:
            while not self._broken:
                self._receive(time.monotonic())
        except CommandTimeoutError:
            return False
        except PeerDiedError:
            pass
        return True

    def _receive_some(self, end: int, deadline: float) -> None:
        try:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            data = self._socket.recv(min(max(end - len(self._received), 4096), _CHUNK))
        except TimeoutError:
            raise CommandTimeoutError("ImageJ did not answer in time: is a dialog open there, or a macro running?") from None
        except OSError as error:
            raise self._fail(f"ImageJ has ended: {error}") from error
        if not data:
            raise self._fail("ImageJ has ended, or its live receiver was stopped")
        self._received += data

    def close(self, why: str = "you closed it") -> None:
        """Close the connection; ImageJ keeps its windows. Twice is fine."""
        self._broken = self._broken or why
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
