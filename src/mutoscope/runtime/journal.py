"""What the supervisor writes beside the data: ``scope.log``, ``audit.jsonl``, ``ledger.json`` and a lock that ends with it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any, TextIO

import msgspec

from mutoscope.frames import _os
from mutoscope.model.errors import ConfigError
from mutoscope.storage._run_tables import TABLES

__all__ = ["REPORT", "Journal"]

AUDITED_BYTES = 4096
LOG, AUDIT, REPORT = "scope.log", "audit.jsonl", "report.html"
WRITTEN = (LOG, AUDIT, "scope.json", "ledger.json", REPORT)
UNBEGUN = ".starting"
FAILED_START = "failed-start.log"


class Journal:
    """The folder ``<name>.mutoscope`` of a run, or, without one, only the log lines of this process.

    Parameters
    ----------
    folder : path-like, optional
        Created when missing and locked while this object lives.
    anew : bool
        What an earlier run wrote there is replaced, but only by :meth:`begin`: until then this run writes beside it. A run that
        never begins leaves the earlier one's files, and its own log as ``failed-start.log``.

    Raises
    ------
    ConfigError
        If another running scope holds the folder, or it cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, *, anew: bool = False) -> None:
        self.folder = Path(folder) if folder is not None else None
        self._lock: TextIO | None = None
        self._log: TextIO | None = None
        self._audit: TextIO | None = None
        self._dead: str | None = None
        self._suffix = ""
        self._made: list[Path] = []
        if self.folder is None:
            return
        try:
            self._made = [place for place in (self.folder, *self.folder.parents) if not place.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._open("lock")
            if not _os.lock_file(self._lock.fileno()):
                raise ConfigError(f"{self.folder} belongs to a scope that is running: choose another name, or stop that one")
            if anew and any((self.folder / name).exists() for name in (*WRITTEN, TABLES)):
                self._suffix = UNBEGUN
                self._remove(UNBEGUN)
            self._log, self._audit = self._open(LOG + self._suffix), self._open(AUDIT + self._suffix)
        except OSError as error:
            self.close()
            raise ConfigError(f"{self.folder}: the folder of the run cannot be made ({error.strerror})") from error
        except BaseException:
            self.close()
            raise

    def _remove(self, suffix: str) -> None:
        assert self.folder is not None
        for name in WRITTEN:
            (self.folder / (name + suffix)).unlink(missing_ok=True)

    def _open(self, name: str) -> TextIO:
        assert self.folder is not None
        return open(self.folder / name, "a", encoding="utf-8", errors="backslashreplace", buffering=1)

    def begin(self) -> None:
        """The run has started: from now on the folder is its own."""
        if not self._suffix or self.folder is None:
            return
        try:
            for name in (*WRITTEN, FAILED_START):
                own = self.folder / (name + UNBEGUN)
                if own.exists():
                    os.replace(own, self.folder / name)
                else:
                    (self.folder / name).unlink(missing_ok=True)
            if (self.folder / TABLES).is_dir():
                shutil.rmtree(self.folder / TABLES)
        except OSError as error:
            self._failed(error)
        self._suffix = ""

    def line(self, level: int, source: str, text: str) -> None:
        """Write one line of ``scope.log``: UTC time, level, who, what."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        self._write(self._log, f"{stamp} {logging.getLevelName(level):7} {source}: {text}\n")

    def audit(self, who: str, to: str, command: str, payload: bytes, result: str, duration_s: float, utc_ns: int) -> None:
        """Write one line of ``audit.jsonl``: who sent which command to whom, what came of it, and when.

        `payload` is the command in msgpack; long ones are not kept.
        """
        if self._audit is None:
            return
        content = _readable(payload) if 0 < len(payload) <= AUDITED_BYTES else None
        entry = {
            "utc_ns": utc_ns,
            "who": who,
            "to": to,
            "command": command,
            "payload": content,
            "result": result,
            "ms": round(duration_s * 1e3, 3),
        }
        self._write(self._audit, json.dumps(entry) + "\n")

    def save(self, name: str, document: dict[str, Any]) -> None:
        """Write a JSON document whole: a reader sees the old one or the new one."""
        if self.folder is None:
            return
        partial = self.folder / f".{name}.{os.getpid()}"
        try:
            partial.write_bytes(msgspec.json.format(msgspec.json.encode(document, enc_hook=repr), indent=1))
            os.replace(partial, self.folder / (name + self._suffix))
        except OSError as error:
            self._failed(error)
            partial.unlink(missing_ok=True)

    @property
    def failure(self) -> str | None:
        """Why writing stopped working (a full disk, say), or None."""
        return self._dead

    def _write(self, file: TextIO | None, text: str) -> None:
        if file is None:
            return
        try:
            file.write(text)
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        # The journal must never end a run: what could not be written is remembered and said in the final report.
        self._dead = f"{self.folder}: {error.strerror or error}"

    def close(self, *, undo: bool = False) -> None:
        """Close the files and give the lock back; `undo`: delete them, and the folder, if this object has made it."""
        if undo and self.folder in self._made and self._lock is not None:
            self._undo()
        elif self._suffix and self.folder is not None and self._lock is not None:
            self._leave()
        for file in (self._log, self._audit, self._lock):
            if file is not None:
                try:
                    file.close()
                except OSError as error:
                    self._failed(error)
        self._log = self._audit = self._lock = None

    def _undo(self) -> None:
        """Delete what was made, of folders those that are empty then."""
        assert self.folder is not None
        for name in (*WRITTEN, "lock"):
            (self.folder / name).unlink(missing_ok=True)
        for place in self._made:
            try:
                place.rmdir()
            except OSError:  # somebody else has put something there
                break

    def _leave(self) -> None:
        """The start failed: the earlier run's files stay, beside the log of this one."""
        assert self.folder is not None
        try:
            os.replace(self.folder / (LOG + UNBEGUN), self.folder / FAILED_START)
            self._remove(UNBEGUN)
        except OSError as error:
            self._failed(error)
        self._suffix = ""


def _readable(payload: bytes) -> Any:
    """Return a command as JSON can hold it; one that cannot be shown is named as such, and must not end the supervisor."""
    try:
        content = msgspec.msgpack.decode(payload, strict=False)
        json.dumps(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, ValueError, RecursionError):
        return f"({len(payload)} bytes that JSON cannot show)"
    return content
