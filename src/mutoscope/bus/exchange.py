"""The hub's part in lines: it introduces processes to each other, says when a line is over, and collects what was done on it.

The hub owns both ends of a new line until each has been sent, and the memory of each process's records.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

from mutoscope.bus import routes, wire
from mutoscope.bus.audit import AuditReader
from mutoscope.bus.commands import Manifest
from mutoscope.bus.flow import LINE_BYTES
from mutoscope.bus.local import LocalCommands, Post
from mutoscope.bus.peer import Peer
from mutoscope.bus.wire import CallRecord, MalformedError
from mutoscope.model.errors import ConfigError, UnknownCommandError

__all__ = ["Exchange"]

logger = logging.getLogger(__name__)

DRAIN_S = 0.25
"""How often the records of what went over lines are collected."""

_BROKEN_LINES = 5
_WORD_S = 0.1  # how long an asking side that met the end of its line waits for the reason, when nobody died


class Line:
    """One line, from the offer to its end. `far` is the end that is still here, or -1."""

    __slots__ = ("alone", "commands", "ended_at", "far", "number", "sender", "taken", "target", "window_bytes")

    def __init__(self, number: int, sender: Peer, target: Peer, commands: tuple[str, ...], far: int) -> None:
        self.number = number
        self.sender = sender
        self.target = target
        self.commands = commands
        self.window_bytes = min(LINE_BYTES, target.inbox_bytes)
        self.alone: tuple[str, ...] = ()
        self.far = far
        self.taken = False
        self.ended_at: float | None = None


class Exchange:
    """All lines of a scope.

    Parameters
    ----------
    post : callable
        How the hub sends a message.
    note : callable
        Returns who hears how each command ended that went over a line: a callable(CallRecord), or None.
    """

    def __init__(self, post: Post, note: Callable[[], Callable[[CallRecord], None] | None]) -> None:
        self._post = post
        self._note = note
        self._lines: dict[int, Line] = {}
        self._numbers = itertools.count(1)
        self._records: dict[Peer, AuditReader] = {}
        self._next_drain: float | None = None

    def count(self, peer: Peer) -> int:
        """Return how many lines a process has, of both kinds."""
        return sum(line.sender is peer or line.target is peer for line in self._lines.values())

    # -- how a line comes about

    def offer(self, sender: Peer, target: Peer, manifests: Mapping[str, Manifest], local: LocalCommands) -> None:
        """Give `sender` a line to `target`, unless there is one; its next commands go over it."""
        if not (sender.takes_lines and target.takes_lines) or sender.kind == "page" or target.manifest is None:
            return
        if any(line.sender is sender and line.target is target for line in self._lines.values()):
            return
        if sender.broken_lines[target.name] >= _BROKEN_LINES:
            return
        permitted = [spec for spec in target.manifest.handles if spec.delivery != "supervisor" and sender.permits(spec)]
        commands = tuple(spec.command for spec in permitted if spec.command not in local)
        try:
            near, far = socket.socketpair()
        except OSError as error:
            logger.warning("%s and %s go on through the supervisor: no line can be made: %s", sender.name, target.name, error)
            return
        line = Line(next(self._numbers), sender, target, commands, far.detach())
        line.alone = _alone(line, manifests)
        self._lines[line.number] = line
        message = wire.Line(line.number, target.name, line.window_bytes, commands, line.alone, self._note() is not None)
        self._post(sender, message, [near.detach()], give=True)

    def taken(self, peer: Peer, message: wire.LineTaken) -> None:
        """The asking side uses the line from now on: what it had said before is on its way to the other, so that may begin."""
        line = self._lines.get(message.line)
        if line is None or line.ended_at is not None:
            return  # its other side has gone meanwhile
        if line.sender is not peer or line.taken:
            raise MalformedError(f"it takes line {message.line}, which it was not offered")
        line.taken = True
        if not line.target.held:
            self._hand_over(line)

    def released(self, target: Peer) -> None:
        """Nothing is kept back for `target` any more: it may have the lines that waited for that."""
        for line in list(self._lines.values()):
            if line.target is target and line.taken and line.far >= 0:
                self._hand_over(line)

    def _hand_over(self, line: Line) -> None:
        target, fds = line.target, [line.far]
        line.far = -1
        audited = self._note() is not None
        if audited and target not in self._records:
            try:
                self._records[target] = memory = AuditReader()
                fds.append(memory.detach())
            except OSError as error:
                logger.warning("%s sends its records as messages: no memory can be made for them: %s", target.name, error)
        message = wire.Accept(line.sender.name, line.window_bytes, line.commands, audited, len(fds))
        self._post(target, message, fds, give=True)
        if self._next_drain is None:
            self._next_drain = time.monotonic() + DRAIN_S

    def reroute(self, manifests: Mapping[str, Manifest]) -> None:
        """A worker came or went: say which commands reach which target without naming it."""
        for line in self._lines.values():
            alone = _alone(line, manifests)
            if alone != line.alone:
                line.alone = alone
                self._post(line.sender, wire.Routes(line.number, alone))

    # -- how it ends

    def ended(self, peer: Peer, message: wire.LineEnded) -> None:
        """The asking side met the end; the reason follows when the other side's end is known, or soon."""
        line = self._lines.get(message.line)
        if line is None:
            return  # it has been told meanwhile
        if line.sender is not peer:
            raise MalformedError(f"it ends line {message.line}, which is not its own")
        line.ended_at = time.monotonic()

    def drop(self, peer: Peer, reason: str) -> None:
        """End every line of a process whose stream is over."""
        for line in [line for line in self._lines.values() if line.sender is peer or line.target is peer]:
            self._end(line, reason)
        self.drain(peer)
        records = self._records.pop(peer, None)
        if records is not None:
            records.close()

    def _end(self, line: Line, reason: str) -> None:
        del self._lines[line.number]
        if line.far >= 0:
            os.close(line.far)
        line.sender.routes.clear()  # its next command finds the way anew, and gets another line
        self._post(line.sender, wire.Cut(line.number, reason))

    # -- what was done

    def done(self, peer: Peer, record: CallRecord) -> None:
        """A process says how a command ended."""
        if peer.name not in (record.sender, record.target):
            raise MalformedError(f"it reports a command of {record.sender} to {record.target}")
        self.drain(peer)
        note = self._note()
        if note is not None:
            note(record)

    def drain_all(self) -> None:
        """Collect the records of every process: what the hub notes next comes after them."""
        for peer in list(self._records):
            self.drain(peer)

    def drain(self, peer: Peer) -> None:
        """Collect the records of a process."""
        records, note = self._records.get(peer), self._note()
        if records is None:
            return
        try:
            taken = records.take()
        except MalformedError as error:
            logger.error(
                "the records of %s are not readable, what it does on lines is not known any more: %s", peer.name, error
            )
            self._records.pop(peer).close()
            return
        for record in taken:
            if note is not None:
                note(record)

    def next_deadline(self) -> float | None:
        """Return when :meth:`advance` has something to do, or None."""
        waiting = [line.ended_at + _WORD_S for line in self._lines.values() if line.ended_at is not None]
        return min((moment for moment in (*waiting, self._next_drain) if moment is not None), default=None)

    def advance(self, now: float) -> None:
        """Collect records, and say that a line broke whose other side lives."""
        for line in [line for line in self._lines.values() if line.ended_at is not None]:
            if line.ended_at is not None and line.ended_at + _WORD_S <= now:
                self._end(line, "the line to it broke")
                _count_broken(line)
        if self._next_drain is not None and self._next_drain <= now:
            self.drain_all()
            self._next_drain = now + DRAIN_S if self._records else None


def _count_broken(line: Line) -> None:
    """Two processes whose lines break again and again go on through the hub."""
    sender, target = line.sender, line.target
    sender.broken_lines[target.name] += 1
    if sender.broken_lines[target.name] == _BROKEN_LINES:
        logger.warning("%s gets no more lines to %s: %d of them broke", sender.name, target.name, _BROKEN_LINES)


def _alone(line: Line, manifests: Mapping[str, Manifest]) -> tuple[str, ...]:
    """Which commands of a line reach its target also when none is named."""
    found = []
    for command in line.commands:
        try:
            if routes.find_owner(command, None, manifests)[0] == line.target.name:
                found.append(command)
        except (ConfigError, UnknownCommandError):
            continue
    return tuple(found)
