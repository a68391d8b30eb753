"""Finding a viewer that is open, starting one that is not, and being let in."""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from mutoscope.frames import _os
from mutoscope.model.errors import ConfigError, PeerDiedError, ViewerTimeoutError, ViewerUnavailableError
from mutoscope.viewers import wire
from mutoscope.viewers.announce import Announced, announced, private_folder
from mutoscope.viewers.core import log_file
from mutoscope.viewers.registry import check_viewer

__all__ = ["be_let_in", "find", "greet", "launch", "say_link", "wait_for_end"]

_LOOK_S = 0.01
_told: set[str] = set()
"""Links that this process has told its person."""


def find(name: str, kind: str | None = None) -> Announced | None:
    """Return the viewer of this name that is open; None if there is none.

    Raises
    ------
    ConfigError
        If no kind is given, and several have this name.
    """
    found = [entry for entry in announced("viewer") if entry.name == name and kind in (None, entry.viewer)]
    kinds = sorted({str(entry.viewer) for entry in found})
    if len(kinds) > 1:
        raise ConfigError(f"several viewers are called {name!r} ({', '.join(kinds)}): open them under names of their own")
    return found[0] if found else None


def say_link(viewer: Announced | None) -> None:
    """Tell the person where a viewer is looked at that has no window of its own, once: nothing else would show it."""
    if viewer is not None and viewer.link and viewer.link not in _told:
        _told.add(viewer.link)
        sys.stderr.write(f"the viewer {viewer.name}: {viewer.link}\n")


def launch(kind: str, name: str, timeout_s: float) -> tuple[Announced, bool]:
    """Return the viewer of this name, started if need be, and whether that was so. Only one process starts it at a time, and
    not while one that was started before has yet to come.

    Raises
    ------
    ViewerUnavailableError
        If it ended at its start; says why, and where its log is.
    ViewerTimeoutError
        If it was not there in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = find(name, kind)
        if found is not None:
            return found, False
        if not _is_starting(name):
            with _alone(deadline):
                found = find(name, kind)
                if found is not None:
                    return found, False
                if not _is_starting(name):
                    check_viewer(kind)
                    _start(kind, name, deadline)
                    found = find(name, kind)
                    break
        if time.monotonic() > deadline:
            raise ViewerTimeoutError(f"the viewer {name!r} was started, and is not there yet; its log: {log_file(name)}")
        time.sleep(_LOOK_S)
    if found is None:
        raise ViewerUnavailableError(f"the viewer {name!r} ended as soon as it had started; its log: {log_file(name)}")
    return found, True


def _is_starting(name: str) -> bool:
    """Whether a viewer of this name was started, and cannot be reached yet: so long it keeps its log locked."""
    try:
        fd = os.open(log_file(name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _os.lock_file(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _alone(deadline: float) -> Iterator[None]:
    """Hold the lock of those who start viewers: the private folder's own."""
    fd = os.open(private_folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while not _os.lock_file(fd):
            if time.monotonic() > deadline:
                raise ViewerTimeoutError("another program is starting a viewer, and takes too long")
            time.sleep(_LOOK_S)
        try:
            yield
        finally:
            _os.unlock_file(fd)
    finally:
        os.close(fd)


def _start(kind: str, name: str, deadline: float) -> None:
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        paths = [os.path.abspath(part) for part in sys.path]  # it finds an adapter where its starter does
        command = [sys.executable, "-m", "mutoscope.viewers._main", kind, name, str(theirs)]
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            pass_fds=[theirs],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            check=False,
            timeout=max(0.1, deadline - time.monotonic()),
        )
        os.close(theirs)
        theirs = -1
        said = _heard(ours, deadline)
    except subprocess.TimeoutExpired:
        raise ViewerTimeoutError(f"the viewer {name!r} could not be started in time") from None
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    if said != "ready":
        why = said or f"it ended (exit code {done.returncode})" if done.returncode else said or "it ended"
        raise ViewerUnavailableError(f"the viewer {name!r} cannot be started: {why}; its log: {log_file(name)}")


def _heard(fd: int, deadline: float) -> str:
    """What the viewer says; nothing if it ended instead."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    if not poller.poll(1000 * max(0.0, deadline - time.monotonic())):
        raise ViewerTimeoutError("the viewer was started, and did not say in time that it is there; it may still come")
    return os.read(fd, 4096).decode(errors="replace")


def greet(viewer: Announced, hello: wire.Hello, fds: Sequence[int], timeout_s: float) -> tuple[socket.socket, wire.Welcome]:
    """Connect to a viewer and be let in; returns the socket, which is the caller's, and what the viewer said.

    Raises
    ------
    PeerDiedError
        If it is not there, or hung up: it ends, and another may be started.
    ViewerUnavailableError
        If it does not let this sender in.
    ViewerTimeoutError
        If it does not answer in time.
    """
    try:
        sock = _os.connect_at(viewer.address, timeout_s)
    except (ConnectionError, FileNotFoundError, TimeoutError, BlockingIOError) as error:
        raise PeerDiedError(f"the viewer {viewer.name!r} (process {viewer.pid}) cannot be reached: {error}") from error
    return sock, be_let_in(sock, f"{viewer.name!r} (process {viewer.pid})", str(log_file(viewer.name)), hello, fds, timeout_s)


def be_let_in(
    sock: socket.socket, who: str, its_log: str, hello: wire.Hello, fds: Sequence[int], timeout_s: float
) -> wire.Welcome:
    """Greet the viewer at the other end of a socket, which is closed if it does not let this sender in; errors as `greet`."""
    deadline = time.monotonic() + timeout_s
    try:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        data = wire.frame(hello)
        if sock.sendmsg([data], rights) != len(data):
            raise ViewerUnavailableError(f"the viewer {who} takes no greeting")
        welcome = wire.decode_from_viewer(_frame_from(sock, deadline))
        if not isinstance(welcome, wire.Welcome):
            raise ViewerUnavailableError(f"the viewer {who} does not answer as one")
        if welcome.refused:
            raise ViewerUnavailableError(f"the viewer {who} does not let this sender in: {welcome.refused}; its log: {its_log}")
    except TimeoutError as error:
        sock.close()
        raise ViewerTimeoutError(f"the viewer {who} did not answer within {timeout_s:g} s") from error
    except ViewerUnavailableError:
        sock.close()
        raise
    except (ConnectionError, wire.MalformedError) as error:
        sock.close()
        raise PeerDiedError(f"the viewer {who} hung up ({error}); its log: {its_log}") from error
    except BaseException:
        sock.close()
        raise
    return welcome


def wait_for_end(viewer: Announced, timeout_s: float) -> bool:
    """Return whether the process of a viewer has ended within so many seconds."""
    try:
        pidfd = _os.open_pidfd(viewer.pid)
    except ProcessLookupError:
        return True
    try:
        return bool(_os.wait_readable([pidfd], timeout_s))
    finally:
        os.close(pidfd)


def _frame_from(sock: socket.socket, deadline: float) -> bytes:
    """Return the next message, of which nothing may be behind; exactly it is read."""
    size, _ = wire.split(_exactly(sock, wire.PREFIX.size, deadline), wire.MAX_MESSAGE, 0)
    return _exactly(sock, size, deadline)


def _exactly(sock: socket.socket, count: int, deadline: float) -> bytes:
    data = b""
    while len(data) < count:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        part = sock.recv(count - len(data))
        if not part:
            raise ConnectionResetError("it ended the connection")
        data += part
    return data
