"""An ImageJ that shows what Python sends: one that a person has open, or one that is started."""

from __future__ import annotations

import logging
import os
import subprocess
import tempfile
import time
from typing import IO

from mutoscope.model.errors import BackendUnavailableError, ConfigError, MutoscopeError, PeerDiedError
from mutoscope.viewers.announce import Announced, announced, private_folder
from mutoscope.viewers.fiji.find import Installation, find_installation
from mutoscope.viewers.fiji.imagej import ImageJ
from mutoscope.viewers.fiji.install import is_installed, packaged_plugin
from mutoscope.viewers.fiji.link import Link

__all__ = ["attach", "running", "start"]

log = logging.getLogger(__name__)

KIND = "imagej"
_STARTED = "MUTOSCOPE_STARTED"
_TAIL_BYTES = 2000


def running() -> list[Announced]:
    """Return the live receivers of this user that run on this computer, in ImageJ and in Fiji.

    The `viewer` of an announcement is who has started that ImageJ; it is empty where a person has.
    """
    return announced(KIND)


def attach(receiver: Announced, *, shared: bool = True, timeout_s: float = 30.0) -> ImageJ:
    """Connect to a live receiver.

    Parameters
    ----------
    receiver : Announced
        One of `running`.
    shared : bool
        Whether planes may go through shared memory.
    timeout_s : float
        For each request.

    Raises
    ------
    PeerDiedError
        If it has ended meanwhile.
    ConfigError
        If the plug-in there speaks another version of the protocol.
    """
    return ImageJ(Link(receiver.address, receiver.token, timeout_s), shared=shared, timeout_s=timeout_s, pid=receiver.pid)


def start(
    installation: Installation | None = None,
    *,
    starter: str = "a program",
    shared: bool = True,
    timeout_s: float = 30.0,
    start_s: float = 120.0,
) -> ImageJ:
    """Start ImageJ or Fiji in a session of its own: it goes on when this process ends.

    Parameters
    ----------
    installation : Installation, optional
        Which one; by default the first one that is found.
    starter : str
        Who has started it: the `viewer` of its announcement.
    shared : bool
        Whether planes may go through shared memory.
    timeout_s : float
        For each request.
    start_s : float
        Until the live receiver is there.

    Raises
    ------
    BackendUnavailableError
        If there is none, or no Java, or no plug-in in this package.
    ConfigError
        If there is no screen, or Fiji has not this version of the plug-in.
    MutoscopeError
        If it ended at once, or its receiver is not there in time; with what it said last.
    """
    chosen = installation or find_installation()
    if not os.environ.get("DISPLAY"):
        raise ConfigError("ImageJ needs a screen: set DISPLAY, or run this under xvfb-run")
    plugin = packaged_plugin()
    if chosen.kind == "fiji" and not is_installed(chosen):
        raise BackendUnavailableError(f"{chosen.folder} has not this version of Mutoscope's plug-in: mutoscope fiji install")
    command = chosen.command(plugin)
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**os.environ, _STARTED: starter},
                start_new_session=True,
            )
        except OSError as error:
            raise BackendUnavailableError(f"{command[0]} cannot be started: {error.strerror}") from error
        log.info("started %s, process %d", chosen.program, process.pid)
        try:
            receiver = _await(process, said, start_s)
            made = ImageJ(
                Link(receiver.address, receiver.token, timeout_s),
                shared=shared,
                timeout_s=timeout_s,
                pid=receiver.pid,
                process=process,
            )
        except BaseException:
            process.kill()
            process.wait()
            raise
    return made


def _await(process: subprocess.Popen[bytes], said: IO[bytes], start_s: float) -> Announced:
    """Wait for the receiver of the session that `process` leads: a launcher may have started another process."""
    deadline = time.monotonic() + start_s
    while True:
        for receiver in running():
            if _session_of(receiver.pid) == process.pid:
                return receiver
        code = process.poll()
        if code is not None:
            raise PeerDiedError(f"ImageJ ended at once, with code {code}: {_tail(said)}")
        if time.monotonic() > deadline:
            raise MutoscopeError(f"ImageJ's live receiver was not there within {start_s:g} s: {_tail(said)}")
        time.sleep(0.05)


def ended_in_order(imagej: ImageJ) -> bool:
    """Return whether ImageJ, or its receiver, ended as a person ends it: it takes its announcement back then."""
    return not (private_folder() / f"{KIND}-{imagej.pid}.json").exists()


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _tail(said: IO[bytes]) -> str:
    size = os.fstat(said.fileno()).st_size
    text = os.pread(said.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES)).decode(errors="replace").strip()
    return text or "it said nothing"
