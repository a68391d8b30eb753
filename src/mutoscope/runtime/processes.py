"""Starting worker processes clean (exec, never fork), noticing their end, and saying how they ended."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field

import msgspec

from mutoscope.frames import _os
from mutoscope.model.errors import ConfigError

__all__ = ["NOT_STARTED", "Child", "describe_exit", "encode", "open_pidfd", "out_of_files", "same_failure", "spawn_module"]

_ADDRESS = re.compile(r"0x[0-9a-f]+")
FAULT_BYTES = 65536
NOT_STARTED = 78
"""Exit code of a worker whose class could not be loaded; its fault file then holds the error."""


@dataclass
class Child:
    """A running child: its pid, a descriptor that becomes readable when it ends, and where faulthandler writes."""

    process: subprocess.Popen[bytes]
    pidfd: int
    fault_fd: int
    bus: socket.socket = field(repr=False)

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send a signal; it never reaches another process that got the same pid."""
        _os.signal_process(self.pidfd, number)

    @property
    def stopped(self) -> bool:
        """True while it is stopped (SIGSTOP, or under a debugger)."""
        return _os.is_stopped(self.pid)

    def reap(self) -> int:
        """Collect the exit status of the ended child: the exit code, or minus the signal. What it had started ends with it."""
        _os.kill_group_of(self.pid)
        return self.process.wait()

    def fault_text(self) -> str:
        """What faulthandler wrote when the child crashed in native code, or an empty string."""
        return os.pread(self.fault_fd, FAULT_BYTES, 0).decode(errors="replace").strip("\0\n ")

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.pidfd)
        os.close(self.fault_fd)


def spawn_module(
    module: str, payload: bytes, inherited: list[int], environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start ``python -m module FD`` in a session of its own; FD holds `payload`, `inherited` are passed on as they are."""
    fd = _os.create_file("payload", payload)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(fd)],
            pass_fds=[fd, *inherited],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    finally:
        os.close(fd)


def open_pidfd(process: subprocess.Popen[bytes]) -> int:
    """Return a pidfd of a child that was just started and not yet reaped."""
    return _os.open_pidfd(process.pid)


def describe_exit(status: int) -> str:
    """Say in words how a process ended.

    >>> describe_exit(-9)
    'was killed by SIGKILL'
    >>> describe_exit(70)
    'ended with exit code 70'
    """
    if status < 0:
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"
    return f"ended with exit code {status}"


def out_of_files(error: BaseException) -> ConfigError | None:
    """Return what to say in place of an error that means that no file can be opened any longer; None for any other."""
    if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if error.errno == errno.ENFILE:
        return ConfigError("this computer has as many open files as it allows (fs.file-max): close some programs")
    return ConfigError(
        f"the limit of open files is {limit}, and it is reached: raise it before you start your program, with: ulimit -n 4096"
    )


def same_failure(trace: str, before: str) -> bool:
    """Whether two tracebacks differ in nothing but addresses.

    >>> same_failure("at 0x7f00: ValueError", "at 0x7fab: ValueError")
    True
    """
    return _ADDRESS.sub("", trace) == _ADDRESS.sub("", before)


def encode(spec: msgspec.Struct) -> bytes:
    """Encode a start-up payload."""
    return msgspec.msgpack.encode(spec)
