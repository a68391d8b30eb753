"""Typed commands and events between the processes of a scope.

One inherited Unix socket a process, length-prefixed msgpack of frozen Structs, a router in the supervisor. The supervisor
creates the socket pairs and its :class:`Hub` closes the hub's ends; each process closes its own. There are no names, so
nothing to unlink.

The hub introduces: when it has let a command of one process through to another, it hands each an end of a socket pair, and
commands between the two take that line from then on. Broadcasts, events and the supervisor's own commands stay on the hub.

- :class:`Command`, :class:`Event`, :func:`handles`: what travels, and who handles it.
- :class:`Hub`: the router, driven by the supervisor's selector loop.
- :class:`Endpoint`: a worker's side, single-threaded.
- :class:`ThreadedEndpoint`: the user's program's side.
"""

from mutoscope.bus.commands import (
    Command,
    Event,
    HandlerSpec,
    HandlerTable,
    Manifest,
    SendSpec,
    collect_handlers,
    handles,
    manifest,
    message_name,
)
from mutoscope.bus.endpoint import Endpoint
from mutoscope.bus.forms import Form, FormField
from mutoscope.bus.forward import Answers
from mutoscope.bus.hub import Hub
from mutoscope.bus.peer import PeerStatistics
from mutoscope.bus.portable import dumps
from mutoscope.bus.reply import Deferred, Reply
from mutoscope.bus.routes import check_routes
from mutoscope.bus.session import EndpointStatistics
from mutoscope.bus.threaded import ThreadedEndpoint
from mutoscope.bus.wire import SUPERVISOR, WIRE_VERSION, CallRecord

__all__ = [
    "SUPERVISOR",
    "WIRE_VERSION",
    "Answers",
    "CallRecord",
    "Command",
    "Deferred",
    "Endpoint",
    "EndpointStatistics",
    "Event",
    "Form",
    "FormField",
    "HandlerSpec",
    "HandlerTable",
    "Hub",
    "Manifest",
    "PeerStatistics",
    "Reply",
    "SendSpec",
    "ThreadedEndpoint",
    "check_routes",
    "collect_handlers",
    "dumps",
    "handles",
    "manifest",
    "message_name",
]
