"""Who gets a command: the check before anything runs, and the look-up while it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from mutoscope.bus.commands import HandlerSpec, Manifest, SendSpec
from mutoscope.bus.wire import SUPERVISOR
from mutoscope.model.errors import ConfigError, UnknownCommandError

__all__ = ["check_routes", "find_broadcast", "find_owner"]


def check_routes(manifests: Mapping[str, Manifest], local: Mapping[str, str] | None = None) -> None:
    """Check that every command of a scope can reach exactly whom it should.

    Parameters
    ----------
    manifests : mapping of str to Manifest
        By worker name.
    local : mapping of str to str, optional
        The supervisor's own commands: name to identity.

    Raises
    ------
    ConfigError
        Naming the first fault: two classes of one command name, two workers of different classes that own one direct
        command, a command that is sent but handled by nobody, a target that does not exist or does not handle it, several
        instances and no target named, one command both direct and broadcast.
    """
    local = dict(local or {})
    _check_names(manifests, local)
    _check_owners(manifests, local)
    for sender, manifest in manifests.items():
        for sent in manifest.sends:
            try:
                if sent.to == SUPERVISOR or (sent.to is None and sent.command in local):
                    _check_local(sent.command, local)
                elif sent.to is None and find_broadcast(sent.command, manifests):
                    continue
                else:
                    find_owner(sent.command, sent.to, manifests)
            except UnknownCommandError as error:
                raise ConfigError(f"{sender} sends {sent.command}, but {error}") from error
            except ConfigError as error:
                raise ConfigError(f"{sender} sends {sent.command} without a target, but {error}") from error


def _check_local(command: str, local: Mapping[str, str]) -> None:
    if command not in local:
        raise UnknownCommandError(f"the supervisor does not handle {command}")


def _check_names(manifests: Mapping[str, Manifest], local: Mapping[str, str]) -> None:
    first: dict[str, tuple[str, str]] = {command: (identity, SUPERVISOR) for command, identity in local.items()}
    for name, manifest in manifests.items():
        specs: list[HandlerSpec | SendSpec] = [*manifest.handles, *manifest.sends]
        for spec in specs:
            identity, who = first.setdefault(spec.command, (spec.identity, name))
            if identity != spec.identity:
                raise ConfigError(
                    f'two commands are called "{spec.command}": {identity} (of {who}) and {spec.identity} (of {name});'
                    f" give one of them a name of its own: class {spec.command}(Command, name=...)"
                )


def _check_owners(manifests: Mapping[str, Manifest], local: Mapping[str, str]) -> None:
    owners: dict[str, tuple[str, Manifest, HandlerSpec]] = {}
    for name, manifest in manifests.items():
        for spec in manifest.handles:
            if spec.delivery == "supervisor":
                continue
            if spec.command in local:
                raise ConfigError(f"{spec.command} is the supervisor's own command, {name} cannot handle it too")
            other, theirs, known = owners.setdefault(spec.command, (name, manifest, spec))
            if known.delivery != spec.delivery:
                raise ConfigError(f"{spec.command} is {known.delivery} in {other} and {spec.delivery} in {name}: choose one")
            if spec.delivery == "direct" and theirs.owner != manifest.owner:
                raise ConfigError(
                    f"{spec.command} is a direct command with two owners: {other} ({theirs.owner}) and {name}"
                    f" ({manifest.owner}); only one class may handle it, or declare it delivery='broadcast'"
                )


def _handlers(command: str, manifests: Mapping[str, Manifest]) -> dict[str, HandlerSpec]:
    found = {}
    for name, manifest in manifests.items():
        spec = manifest.handler(command)
        if spec is not None and spec.delivery != "supervisor":
            found[name] = spec
    return found


def find_owner(
    command: str, to: str | None, manifests: Mapping[str, Manifest], known: Collection[str] = ()
) -> tuple[str, HandlerSpec]:
    """Return the one worker that gets a command, and how it handles it.

    Parameters
    ----------
    command : str
        Its name.
    to : str or None
        The target; None where the command has one handler only.
    manifests : mapping of str to Manifest
        By worker name.
    known : collection of str
        Further peers, which handle nothing.

    Raises
    ------
    UnknownCommandError
        If nobody handles it, the target does not exist, or does not handle it.
    ConfigError
        If several handle it and `to` is None.
    """
    handlers = _handlers(command, manifests)
    if to is not None:
        if to in handlers:
            return to, handlers[to]
        if to == SUPERVISOR:
            raise UnknownCommandError(f"the supervisor does not handle {command}")
        if to not in manifests and to not in known:
            raise UnknownCommandError(f'nobody is called "{to}"; there are {_listed(manifests)}')
        raise UnknownCommandError(f"{to} does not handle {command}; it is handled by {_listed(handlers)}")
    if not handlers:
        raise UnknownCommandError(f"nobody handles {command}")
    if len(handlers) > 1:
        raise ConfigError(f"{command} is handled by {_listed(handlers)}: say which with to=")
    return next(iter(handlers.items()))


def find_broadcast(command: str, manifests: Mapping[str, Manifest]) -> dict[str, HandlerSpec]:
    """Return the workers that a broadcast of this command reaches, and how they handle it."""
    return {name: spec for name, spec in _handlers(command, manifests).items() if spec.delivery == "broadcast"}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nobody"
