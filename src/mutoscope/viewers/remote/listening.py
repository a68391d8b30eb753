"""Having a viewer of this computer let senders from others in."""

from __future__ import annotations

import contextlib

import msgspec

from mutoscope.model.errors import MutoscopeError
from mutoscope.viewers.core import Listening
from mutoscope.viewers.launch import launch
from mutoscope.viewers.registry import check_viewer
from mutoscope.viewers.remote.address import address_of, load_zmq
from mutoscope.viewers.remote.keys import own_key
from mutoscope.viewers.sender import ask
from mutoscope.viewers.sink import checked_name

__all__ = ["listen"]


def listen(kind: str, address: str, name: str | None = None, *, timeout_s: float = 60.0) -> Listening:
    """Have a viewer listen for senders on other computers whose keys are trusted here; it is started if it is not open.

    Parameters
    ----------
    kind : str
        As in ``viewers.open(kind)``.
    address : str
        ``"tcp://0.0.0.0:5680"`` for all networks of this computer; a port alone for this computer only; 0 for any that is free.
    name : str, optional
        The viewer's name; that of its kind if not given.
    timeout_s : float
        Longest wait in seconds.

    Returns
    -------
    Listening
        Where it listens, and the key that senders have to trust.

    Raises
    ------
    ConfigError
        If it cannot listen there, listens elsewhere already, has no such name, or there is no key yet.
    BackendUnavailableError
        If pyzmq, or what the viewer needs, is not installed.
    ViewerUnavailableError, ViewerTimeoutError
        If it cannot be started.
    """
    check_viewer(kind)
    chosen = checked_name(kind, name)
    wanted = address_of(address, listens=True)
    load_zmq()
    own_key()
    found, started = launch(kind, chosen, timeout_s)
    try:
        return msgspec.convert(ask(kind, found.name, "listen", timeout_s, address=str(wanted)), Listening)
    except MutoscopeError:
        if started:  # for this alone
            with contextlib.suppress(MutoscopeError):  # why it cannot listen is what is to be said
                ask(kind, found.name, "quit", timeout_s)
        raise
