"""What a process did for others on lines, written into memory that the hub reads now and then.

A record is in that memory before the reply goes out, at the cost of a copy and without a system call; the memory belongs to
the hub too, so that SIGKILL of the writer loses nothing. The hub creates it; it has no name and is freed with its last mapping.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from mutoscope.bus import wire
from mutoscope.bus.wire import HEADER_BYTES, CallRecord, MalformedError

__all__ = ["AuditReader", "AuditWriter"]

AUDIT_BYTES = 256 * 1024
AUDITED_BYTES = 4096
"""Commands longer than that are recorded without their content."""

_START = 64  # the two counters, each written by one side only
_END = _START + AUDIT_BYTES
_WRITTEN, _READ = 0, 1


class _Memory:
    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, _END)
        self._bytes = memoryview(self._map)
        self._counters = self._bytes[:16].cast("Q")

    def close(self) -> None:
        """Unmap it. Twice is fine."""
        for view in (self._counters, self._bytes):
            view.release()
        self._map.close()


class AuditWriter(_Memory):
    """The writing side.

    Parameters
    ----------
    fd : int
        From the hub; stays the caller's.
    """

    def append(self, record: CallRecord) -> bool:
        """Write a record; False when there is no room for it now."""
        packed = wire.pack(record)
        size = len(packed)
        counters = self._counters
        written = counters[_WRITTEN]
        if size > AUDIT_BYTES - (written - counters[_READ]):
            return False
        at = written % AUDIT_BYTES + _START
        if at + size <= _END:
            self._map[at : at + size] = packed
        else:
            first = _END - at
            self._map[at:_END], self._map[_START : _START + size - first] = packed[:first], packed[first:]
        counters[_WRITTEN] = written + size  # last: a record that was cut short by SIGKILL is none
        return True


class AuditReader(_Memory):
    """The hub's side; creates the memory."""

    def __init__(self) -> None:
        fd = os.memfd_create("mutoscope:audit", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, _END)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        super().__init__(fd)
        self._fd = fd
        self._read = 0

    def detach(self) -> int:
        """Return the descriptor for the writer; the caller owns it. Once."""
        fd, self._fd = self._fd, -1
        return fd

    def take(self) -> list[CallRecord]:
        """Return the records since the last call.

        Raises
        ------
        MalformedError
            If something else was written there.
        """
        left = self._counters[_WRITTEN] - self._read
        if not 0 <= left <= AUDIT_BYTES:
            raise MalformedError(f"{left:,} bytes of records are announced")
        at = self._read % AUDIT_BYTES + _START
        data = self._map[at : min(at + left, _END)]
        data += self._map[_START : _START + left - len(data)]
        records, position = [], 0
        while position < left:
            if left - position < HEADER_BYTES:
                raise MalformedError("a record is cut short")
            end = position + HEADER_BYTES + wire.body_bytes(data, position)
            if end > left:
                raise MalformedError("a record is longer than what was written")
            records.append(wire.decode_record(data[position + HEADER_BYTES : end]))
            position = end
        self._read += left
        self._counters[_READ] = self._read
        return records
