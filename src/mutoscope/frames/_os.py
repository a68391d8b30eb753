"""The seam to the operating system: mapping, handle passing, wake-up, death notice, private endpoint, process name.

Everything of Linux that Mutoscope uses stands here, so that another system needs this one module. Nothing here has a name in a
file system: segments are memfds, endpoints are abstract sockets, so nothing is left behind when a process is killed.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mutoscope.model.errors import RingSizeError, UnsupportedPlatformError

if sys.platform != "linux":
    raise UnsupportedPlatformError(
        f"Mutoscope's frame ring runs on Linux only so far, this is {sys.platform}: use a Linux machine or a Linux container"
    )

PAGE = mmap.PAGESIZE
MAX_FDS = 250  # the kernel takes 253 descriptors in one message (SCM_MAX_FD)

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def round_to_page(size: int) -> int:
    """Return `size` in bytes rounded up to whole pages."""
    return (size + PAGE - 1) // PAGE * PAGE


def create_segment(name: str, size: int) -> int:
    """Create an anonymous shared segment of `size` bytes and reserve its pages.

    Parameters
    ----------
    name : str
        Shown as ``memfd:mutoscope-<name>`` in ``/proc/*/fd`` and ``/proc/*/maps``.
    size : int
        Bytes; the pages are allocated at once, so that no later write meets a lack of memory.

    Returns
    -------
    int
        A file descriptor, close-on-exec. The caller owns it.

    Raises
    ------
    RingSizeError
        If the segment does not fit in the memory that is available.
    """
    available = available_memory()
    if size > available:
        raise RingSizeError(f"{name}: {size:,} bytes of shared memory are needed, {available:,} are available")
    fd = os.memfd_create(f"mutoscope-{name}", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise RingSizeError(
                f"{name}: {size:,} bytes of shared memory could not be reserved ({os.strerror(error.errno)})"
            ) from error
        raise
    return fd


_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create_sealed_segment(name: str, size: int) -> int:
    """Create a segment as :func:`create_segment` does, whose size nobody can change any longer.

    Who maps such a segment of a stranger meets no missing page (SIGBUS) later.
    """
    available = available_memory()
    if size > available:
        raise RingSizeError(f"{name}: {size:,} bytes of shared memory are needed, {available:,} are available")
    fd = -1
    try:
        fd = os.memfd_create(f"mutoscope-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        os.posix_fallocate(fd, 0, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise RingSizeError(
            f"{name}: {size:,} bytes of shared memory cannot be had ({os.strerror(error.errno or 0)})"
        ) from error
    return fd


def sealed_bytes(fd: int) -> int:
    """Return the size of a segment that cannot shrink.

    Raises
    ------
    OSError
        If `fd` is no segment, or one that its owner could still shrink.
    """
    if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
        raise OSError(errno.EPERM, "the segment may still shrink")
    return os.fstat(fd).st_size


def reopen_read_only(fd: int) -> int:
    """Return a new descriptor of the same segment that can only be read. A guard against bugs, not a security boundary."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def map_segment(fd: int, size: int, *, writable: bool) -> mmap.mmap:
    """Map a segment with all its pages present in this process, so that no frame meets a page fault."""
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return mmap.mmap(fd, size, flags=flags, prot=protection)


def available_memory() -> int:
    """Return the bytes that can be taken now: the smaller of ``MemAvailable`` and what the cgroups leave."""
    available = sys.maxsize
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
                break
    for limit, used in _cgroup_memory():
        available = min(available, max(limit - used, 0))
    return available


def _cgroup_memory() -> list[tuple[int, int]]:
    """Return (limit, use) in bytes of every cgroup above this process that has a limit (v2, else v1)."""
    found = []
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        entries = [line.rstrip("\n").split(":", 2) for line in file]
    for _, controllers, path in entries:
        if controllers == "":
            root, limit_name, used_name = "/sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit_name, used_name = "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts), -1, -1):
            folder = os.path.join(root, *parts[:depth])
            limit, used = _read_number(f"{folder}/{limit_name}"), _read_number(f"{folder}/{used_name}")
            if limit is not None and used is not None:
                found.append((limit, used))
    return found


def _read_number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            text = file.read().strip()
    except FileNotFoundError:
        return None
    return int(text) if text.isdigit() else None


def create_bell() -> int:
    """Return a non-blocking eventfd, close-on-exec: the doorbell of one sleeper."""
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


def ring_bell(fd: int) -> None:
    """Wake whoever polls this bell."""
    os.eventfd_write(fd, 1)


def clear_bell(fd: int) -> None:
    """Take back all rings; returns at once when there are none."""
    try:
        os.eventfd_read(fd)
    except BlockingIOError:
        return


def wait_readable(fds: Sequence[int], timeout_s: float | None) -> list[int]:
    """Return those of `fds` that are readable within `timeout_s` seconds (``None``: wait without end)."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return [fd for fd, _ in poller.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000)]


def wait_writable(fd: int, timeout_s: float) -> bool:
    """Return whether `fd` takes bytes, or tells that nobody hears them any more, within `timeout_s` seconds."""
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    return bool(poller.poll(max(0.0, timeout_s) * 1000))


def open_pidfd(pid: int) -> int:
    """Return a descriptor that becomes readable when process `pid` ends; it never means another process."""
    return os.pidfd_open(pid)


def signal_process(pidfd: int, number: int) -> None:
    """Send a signal to the process of `pidfd`, never to another that got its number; nothing happens when it has ended."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return


def kill_group_of(pid: int) -> None:
    """Kill what is left of the process group that child `pid` leads; before it is reaped, while its number is its own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # nobody is left, or what is left has become another user's


class ProcessFacts(NamedTuple):
    """What the kernel says of a process, from ``/proc/PID/stat`` (proc(5)).

    Parameters
    ----------
    state : str
        A letter: R, S, D, T or t (stopped), Z (ended and not reaped), ….
    processor_s : float
        Processor time that it has taken, its own and the kernel's for it, in seconds.
    started : int
        When it was started, in the kernel's ticks since the boot: a later process may have its number.
    arguments : tuple of int
        Where its command line begins and ends in its memory; 0 where that is not told.
    """

    state: str
    processor_s: float
    started: int
    arguments: tuple[int, int]


def process_facts(pid: int) -> ProcessFacts | None:
    """Return what the kernel says of process `pid`; None if it is not there."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # from the third on: the name before them may hold anything
    except (FileNotFoundError, ProcessLookupError):
        return None
    processor_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return ProcessFacts(fields[0], processor_s, int(fields[19]), (int(fields[45]), int(fields[46])))


def is_stopped(pid: int) -> bool:
    """Tell whether process `pid` is stopped (SIGSTOP, or under a debugger)."""
    facts = process_facts(pid)
    return facts is not None and facts.state in ("T", "t")


def create_file(name: str, data: bytes = b"") -> int:
    """Return a descriptor of an anonymous file that holds `data`, positioned at its start, close-on-exec; the caller owns it.

    Parameters
    ----------
    name : str
        Shown as ``memfd:mutoscope-<name>`` in ``/proc/*/fd``.
    data : bytes
        What it holds.
    """
    fd = os.memfd_create(f"mutoscope-{name}", os.MFD_CLOEXEC)
    try:
        with open(os.dup(fd), "wb") as file:
            file.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def lock_file(fd: int) -> bool:
    """Lock an open file for this process until it is closed; False when another one holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock_file(fd: int) -> None:
    """Take a lock back, also where a process that was forked meanwhile has a copy of the descriptor."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def send_message(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send `data` whole over a Unix socket, with file descriptors attached to its first byte."""
    if not fds:
        sock.sendall(data)
        return
    if len(fds) > MAX_FDS:
        raise ValueError(f"{len(fds)} descriptors in one message, at most {MAX_FDS} are possible")
    sent = sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
    if sent < len(data):
        sock.sendall(data[sent:])


def receive_message(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Receive up to `size` bytes and the descriptors that came with them (close-on-exec; the caller owns them)."""
    room = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
    data, ancillary, flags, _ = sock.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if flags & socket.MSG_CTRUNC:
        for fd in fds:
            os.close(fd)
        raise OSError(errno.EMFILE, "descriptors were lost on the way: this process may open no more files")
    return data, list(fds)


def listen_privately(name: str) -> socket.socket:
    """Listen on an abstract Unix socket: no file, gone with the process. Check :func:`peer_credentials` of who comes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(f"\0{name}")
        listener.listen(64)
    except OSError:
        listener.close()
        raise
    return listener


def connect_privately(name: str, timeout_s: float) -> socket.socket:
    """Connect to the abstract socket `name` within `timeout_s` seconds."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout_s)
        sock.connect(f"\0{name}")
    except OSError:
        sock.close()
        raise
    return sock


_SUN_PATH = 107  # bytes of a socket's path (unix(7))


def listen_at(path: str) -> socket.socket:
    """Listen on a Unix socket with a name in the file system, that only its user may connect to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _at(path, listener.bind)
        os.chmod(path, 0o600)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def connect_at(path: str, timeout_s: float) -> socket.socket:
    """Connect to the Unix socket `path` within `timeout_s` seconds."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout_s)
        _at(path, sock.connect)
    except OSError:
        sock.close()
        raise
    return sock


def _at(path: str, call: Callable[[str], object]) -> None:
    """Call with a path that a socket takes, however long `path` is."""
    if len(os.fsencode(path)) <= _SUN_PATH:
        call(path)
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Return (pid, uid, gid) of the process that connected, as the kernel vouches for them."""
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid, gid


def name_process(name: str) -> None:
    """Name this process for ``ps`` and ``top``: whole in the command line, its first 15 characters as the short name."""
    _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)
    facts = process_facts(os.getpid())
    start, end = facts.arguments if facts is not None else (0, 0)
    if start and end - start > len(name):
        ctypes.memmove(start, name.encode()[: end - start - 1].ljust(end - start, b"\0"), end - start)


def wake_when_parent_dies(signal_number: int) -> None:
    """Have the kernel send `signal_number` to this process when its parent dies (SIGCONT also resumes a stopped one)."""
    if _libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
