"""Whether a camera arrives in its own process as what it is here."""

from __future__ import annotations

from typing import Any

from mutoscope.cameras.driver import Camera
from mutoscope.model.errors import ConfigError
from mutoscope.runtime.payload import pack

__all__ = ["check_travel"]

_PLAIN = (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, type(None))
_OWN = frozenset({"waiter", "incarnation", "already_delivered", "counters", "lent_as"})
_MISSING = object()


def check_travel(camera: Camera) -> None:
    """Raise ConfigError, one sentence, if the camera's process would have another camera than this one.

    That is so with arguments that cannot be sent, and with attributes that were set after construction. The camera is
    constructed again for that, which opens nothing.
    """
    name = type(camera).__name__
    if camera.is_open:
        raise ConfigError(f"{name} is open here: close it first, the camera's own process opens it")
    for argument, value in camera.arguments().items():
        try:
            pack(value, argument)
        except ConfigError as error:
            raise ConfigError(
                f"the argument {argument!r} of {name} cannot travel to the camera's process ({error.__cause__}): "
                "take a plain value, and make the rest in open_device"
            ) from None
    plain = {key: value for key, value in vars(camera).items() if not key.startswith("_") and isinstance(value, _PLAIN)}
    for key in _OWN & plain.keys():
        del plain[key]
    if not plain:
        return
    again, once_more = _construct(camera), _construct(camera)
    for key, value in plain.items():
        there = getattr(again, key, _MISSING)
        if there is not _MISSING and there != value and there == getattr(once_more, key, _MISSING):
            raise ConfigError(
                f"{key} of {name} is {value!r} here and would be {there!r} in the camera's process, where it is constructed "
                f"again: what was changed since does not travel; make {key} a Setting, or an argument of the constructor"
            )


def _construct(camera: Camera) -> Any:
    rebuild, state = camera.__reduce__()
    return rebuild(*state)
