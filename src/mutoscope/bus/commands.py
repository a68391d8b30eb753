"""Commands and events, and how a class says which of them it handles."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from mutoscope.bus import payload
from mutoscope.bus.forms import Form, form_of
from mutoscope.model.arguments import shown
from mutoscope.model.errors import ConfigError

__all__ = [
    "Command",
    "Delivery",
    "Event",
    "Handler",
    "HandlerSpec",
    "HandlerTable",
    "Manifest",
    "SendSpec",
    "check_instance",
    "collect_handlers",
    "handles",
    "identity",
    "manifest",
    "message_name",
    "reply_type",
]

Delivery = Literal["direct", "broadcast", "supervisor"]
_DELIVERIES = typing.get_args(Delivery)
_MARK = "__mutoscope_handles__"


class _MessageType(msgspec.StructMeta):
    """Gives each message class its name: ``name=`` of the class statement, else the class's own name."""

    message_name: str | None
    handled_by: dict[str, Callable[..., Any]]

    def __new__(
        mcls, cls_name: str, bases: tuple[type, ...], namespace: dict[str, Any], *, name: str | None = None, **options: Any
    ) -> Any:
        cls = super().__new__(mcls, cls_name, bases, namespace, **options)
        cls.message_name = name or cls_name
        cls.handled_by = {}
        return cls


if TYPE_CHECKING:

    class _Message(msgspec.Struct, metaclass=_MessageType):  # type checkers want each subclass to repeat frozen=True
        def __init_subclass__(cls, *, name: str | None = None, **options: Any) -> None: ...

else:

    class _Message(msgspec.Struct, metaclass=_MessageType, frozen=True, forbid_unknown_fields=True):
        pass


class Command(_Message):
    """Something that one process asks of another. Subclass it and annotate the fields.

    A command is known by its class name, or by ``name=`` in the class statement. Instances are immutable.

    Examples
    --------
    >>> class SetThreshold(Command):
    ...     value: float
    >>> class MoveStage(Command, name="lab.move_stage"):
    ...     z_um: float
    >>> message_name(SetThreshold), message_name(MoveStage)
    ('SetThreshold', 'lab.move_stage')
    """


class Event(_Message):
    """Something that happened or changed, for whoever subscribed; the last value is replayed to those who join later."""


Command.message_name = None
Event.message_name = None

Handling = TypeVar("Handling", bound=Callable[..., Any])


def message_name(kind: type[Command] | type[Event]) -> str:
    """Return the name by which a command or event class travels.

    Raises
    ------
    ConfigError
        If `kind` is not a subclass of :class:`Command` or :class:`Event`.
    """
    name: str | None = getattr(kind, "message_name", None)
    if name is None or not isinstance(kind, _MessageType):
        raise ConfigError(f"{getattr(kind, '__name__', kind)!s} is not a subclass of Command or Event")
    return name


def check_instance(message: object, base: type[Command] | type[Event]) -> None:
    """Raise ConfigError unless `message` is an instance of `base`, :class:`Command` or :class:`Event`; says what to give."""
    if isinstance(message, base):
        return
    what = "a command" if base is Command else "an event"
    if isinstance(message, type) and issubclass(message, Command | Event):
        fields = ", ".join(f"{each.name}=…" for each in msgspec.structs.fields(message) if each.required)
        raise ConfigError(f"{message.__name__} is a class of messages: give an instance: {message.__name__}({fields})")
    if isinstance(message, Command | Event):
        said = "an event: publish it" if base is Command else "a command: send or request it"
        raise ConfigError(f"{type(message).__name__} is {said}")
    raise ConfigError(f"{what} is an instance of a subclass of mutoscope.{base.__name__}, not {shown(message)}")


def identity(kind: type) -> str:
    """Return ``module:class`` of a class; two classes of one name in different modules are told apart by it."""
    module = "__main__" if kind.__module__ == "__mp_main__" else kind.__module__
    return f"{module}:{kind.__qualname__}"


class HandlerSpec(msgspec.Struct, frozen=True):
    """One command that a worker handles, as it announces it; with its form, if the scope's page may send it."""

    command: str
    identity: str
    delivery: Delivery = "direct"
    script: bool = True
    page: bool = False
    form: Form | None = None


class SendSpec(msgspec.Struct, frozen=True):
    """One command that a worker says it will send, to whom if it matters."""

    command: str
    identity: str
    to: str | None = None


class Manifest(msgspec.Struct, frozen=True):
    """What a worker handles and sends. It is sent before ``setup``, so that routes are checked before anything moves."""

    owner: str = ""
    handles: tuple[HandlerSpec, ...] = ()
    sends: tuple[SendSpec, ...] = ()

    def handler(self, command: str) -> HandlerSpec | None:
        """Return how `command` is handled here, or None."""
        return next((spec for spec in self.handles if spec.command == command), None)


class _Mark(msgspec.Struct, frozen=True):
    command: type[Command]
    delivery: Delivery
    script: bool
    page: bool


def handles(
    command: type[Command], *more: type[Command], delivery: Delivery = "direct", script: bool = True, page: bool = False
) -> Callable[[Handling], Handling]:
    """Mark a method as the handler of one or more commands.

    The method takes the command and its return value is the reply: any value that msgspec can encode, NumPy scalars and
    arrays too. It runs in its worker's main thread, between steps or while the worker waits. Handlers are inherited; a
    subclass that overrides the method keeps it as the handler.

    Parameters
    ----------
    command, *more : type[Command]
        The commands.
    delivery : {"direct", "broadcast", "supervisor"}
        ``direct``: one owner in a scope (or ``to=`` names an instance). ``broadcast``: every worker that handles it may be
        addressed together. ``supervisor``: only the supervisor sends it.
    script : bool
        Whether the user's program may send it.
    page : bool
        Whether the scope's web page may send it.
    """
    if delivery not in _DELIVERIES:
        raise ConfigError(f"delivery is {delivery!r}, it must be one of {', '.join(_DELIVERIES)}")
    for kind in (command, *more):
        if isinstance(kind, type) and issubclass(kind, Event):
            name = kind.__name__
            raise ConfigError(
                f"handles() takes commands, and {name} is an Event: say self.subscribe({name}, callback) in setup()"
            )
        if not (isinstance(kind, type) and issubclass(kind, Command)):
            raise ConfigError(f"handles() takes subclasses of Command, got {kind!r}")
        message_name(kind)

    def decorate(method: Handling) -> Handling:
        marks: tuple[_Mark, ...] = getattr(method, _MARK, ())
        marks += tuple(_Mark(kind, delivery, script, page) for kind in (command, *more))
        setattr(method, _MARK, marks)
        for kind in (command, *more):
            kind.handled_by[f"{method.__module__}:{method.__qualname__}"] = method
        return method

    return decorate


def reply_type(kind: type[Command]) -> Any:
    """Return the type to which a reply to `kind` is decoded: what the handlers known to this process are annotated to return.

    ``Any`` where none is known here, none is annotated, or two disagree.
    """
    found = []
    for method in kind.handled_by.values():
        try:
            hints = typing.get_type_hints(method)
        except (NameError, TypeError):
            return Any
        found.append(hints.get("return", Any))
    if not found or any(hint != found[0] for hint in found):
        return Any
    return found[0]


class Handler(msgspec.Struct, frozen=True):
    """A handler bound to its object."""

    spec: HandlerSpec
    kind: type[Command]
    call: Callable[[Any], Any]


class HandlerTable(dict[str, Handler]):
    """The handlers of one or more objects, by command name."""

    def __init__(self, owner: str = "") -> None:
        super().__init__()
        self.owner = owner

    def add(self, handler: Handler) -> None:
        """Add one handler.

        Raises
        ------
        ConfigError
            If the command has one already.
        """
        known = self.get(handler.spec.command)
        if known is not None:
            raise ConfigError(
                f"{handler.spec.command} is handled twice in one worker: by {known.call.__qualname__} and"
                f" {handler.call.__qualname__}"
            )
        self[handler.spec.command] = handler

    def merge(self, other: HandlerTable) -> None:
        """Add all handlers of another table; raises as :meth:`add`."""
        for handler in other.values():
            self.add(handler)


def _marked(cls: type) -> Iterator[tuple[str, tuple[_Mark, ...]]]:
    """Yield (attribute, marks); the nearest class that marked the attribute counts, whoever overrides it."""
    seen = set()
    for base in cls.__mro__:
        for attribute, value in vars(base).items():
            marks = getattr(value, _MARK, None)
            if marks and attribute not in seen:
                seen.add(attribute)
                yield attribute, marks


def collect_handlers(owner: object) -> HandlerTable:
    """Return the handlers of an object, bound to it; those of a class, unbound.

    Raises
    ------
    ConfigError
        If one command has two handlers, or a command has a field that cannot be sent.
    """
    cls = owner if inspect.isclass(owner) else type(owner)
    table = HandlerTable(identity(cls))
    for attribute, marks in _marked(cls):
        for mark in marks:
            name = message_name(mark.command)
            payload.check_encodable(mark.command, name)
            form = form_of(mark.command) if mark.page else None
            spec = HandlerSpec(name, identity(mark.command), mark.delivery, mark.script, mark.page, form)
            table.add(Handler(spec, mark.command, getattr(owner, attribute)))
    return table


def manifest(*owners: object) -> Manifest:
    """Return what the first object (or class) and its companions handle and send.

    A class may list what it sends, so that a missing handler is found before anything moves::

        class Tracker(Worker):
            sends = (SetThreshold, (MoveStage, "stage"))

    Raises
    ------
    ConfigError
        As :func:`collect_handlers`; also when two commands of one name are of different modules.
    """
    table = HandlerTable(collect_handlers(owners[0]).owner if owners else "")
    sends: list[SendSpec] = []
    for owner in owners:
        table.merge(collect_handlers(owner))
        for entry in getattr(owner, "sends", ()):
            kind, to = entry if isinstance(entry, tuple) else (entry, None)
            name = message_name(kind)
            payload.check_encodable(kind, name)
            sends.append(SendSpec(name, identity(kind), to))
    return Manifest(table.owner, tuple(handler.spec for handler in table.values()), tuple(sends))
