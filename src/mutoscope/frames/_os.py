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
from collections.abc import Sequence

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


def is_stopped(pid: int) -> bool:
    """Tell whether process `pid` is stopped (SIGSTOP, or under a debugger)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in ("T", "t")
    except (FileNotFoundError, ProcessLookupError):
        return False


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


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Return (pid, uid, gid) of the process that connected, as the kernel vouches for them."""
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid, gid


def name_process(name: str) -> None:
    """Name this process for ``ps`` and ``top``: whole in the command line, its first 15 characters as the short name."""
    _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, fields 48 and 49 of proc(5)
    if start and end - start > len(name):
        ctypes.memmove(start, name.encode()[: end - start - 1].ljust(end - start, b"\0"), end - start)


def wake_when_parent_dies(signal_number: int) -> None:
    """Have the kernel send `signal_number` to this process when its parent dies (SIGCONT also resumes a stopped one)."""
    if _libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
