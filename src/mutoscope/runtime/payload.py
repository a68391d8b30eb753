"""How a worker's class travels to its process: by import path, or by value when a script or a notebook cell defines it.

The bytes made here reach the child only inside its inherited start-up payload, never over a socket.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from typing import Any

import msgspec

from mutoscope.model.errors import ConfigError

__all__ = ["pack", "unpack"]


def pack(value: Any, what: str) -> bytes:
    """Pickle `value` for an inherited start-up payload.

    Parameters
    ----------
    value : object
        Usually a class and its settings.
    what : str
        How an error names it, for example ``"worker SpotCounter"``.

    Returns
    -------
    bytes
        By reference for what can be imported, by value for what ``__main__`` defines.

    Raises
    ------
    ConfigError
        If it cannot be pickled.
    """
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, item: Any) -> Any:
            if isinstance(item, msgspec.StructMeta) and _defined_in_main(item):
                return _rebuild_struct, _describe_struct(item)
            return super().reducer_override(item)

    buffer = io.BytesIO()
    try:
        Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"{what} cannot be sent to its process: {error}") from error
    return buffer.getvalue()


def unpack(data: bytes, what: str) -> Any:
    """Load what :func:`pack` made. Only ever called on a payload inherited from the parent process.

    Raises
    ------
    ConfigError
        If a module or name in it cannot be imported in this process.
    """
    try:
        return pickle.loads(data)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{what} cannot be imported in its process: {error}") from error


def _defined_in_main(item: type) -> bool:
    module = sys.modules.get(item.__module__)
    return item.__module__ == "__main__" or getattr(module, item.__qualname__.split(".")[0], None) is None


def _describe_struct(item: Any) -> tuple[Any, ...]:
    fields = []
    for field in msgspec.structs.fields(item):
        fields.append((field.name, field.type, field.default, field.default_factory))
    parents = [base for base in item.__mro__[1:] if isinstance(base, msgspec.StructMeta) and base is not msgspec.Struct]
    inherited = {name for base in parents for name in base.__struct_fields__}
    namespace = {
        name: value
        for name, value in vars(item).items()
        if name not in item.__struct_fields__
        and not name.startswith("__struct_")
        and not isinstance(value, types.MemberDescriptorType)
        and name not in ("__slots__", "__match_args__", "__module__", "__qualname__", "__dict__", "__weakref__", "__annotations__")
    }
    config = item.__struct_config__
    options = {name: getattr(config, name) for name in ("frozen", "order", "eq", "array_like", "forbid_unknown_fields")}
    options["tag"], options["tag_field"] = config.tag, config.tag_field
    own = [field for field in fields if field[0] not in inherited]
    return item.__name__, item.__module__, item.__bases__, own, namespace, options


def _rebuild_struct(
    name: str,
    module: str,
    bases: tuple[type, ...],
    fields: list[tuple[str, Any, Any, Any]],
    namespace: dict[str, Any],
    options: dict[str, Any],
) -> Any:
    declared: list[Any] = []
    for field, kind, default, factory in fields:
        if factory is not msgspec.NODEFAULT:
            declared.append((field, kind, msgspec.field(default_factory=factory)))
        elif default is not msgspec.NODEFAULT:
            declared.append((field, kind, default))
        else:
            declared.append((field, kind))
    return msgspec.defstruct(name, declared, bases=bases, namespace=namespace, module=module, **options)
