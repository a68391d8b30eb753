"""Named points at which a crash test may end the process. They do nothing unless the environment names one."""

from __future__ import annotations

import os
import signal

VARIABLE = "MUTOSCOPE_KILL_POINT"


def _parse(value: str) -> tuple[str, int]:
    name, _, nth = value.partition(":")
    return name, int(nth) if nth else 1


_name, _remaining = _parse(os.environ.get(VARIABLE, ""))


def kill_point(name: str) -> None:
    """End this process with SIGKILL when it reaches the named point for the n-th time.

    Parameters
    ----------
    name : str
        The point, for example ``"recorder.pixels_written"``. The environment variable ``MUTOSCOPE_KILL_POINT``
        holds ``name`` or ``name:n``; the native core reads the same variable when it is built for crash tests.
    """
    global _remaining
    if name != _name:
        return
    _remaining -= 1
    if _remaining == 0:
        os.kill(os.getpid(), signal.SIGKILL)
