"""Classes of scripts and notebooks on their way into a child process.

cloudpickle loses the fields of ``msgspec.Struct`` classes that are not importable, commands and events among them; the pickler
here rebuilds such classes from their fields, with the bounds and descriptions of those
(``msgspec.Meta``, which no pickler takes).
Since 3.1.3 it loses the names of files, too, which tracebacks show; they are kept. Only for the start-up payload that a child
inherits, never for a socket.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from typing import Any

import msgspec

__all__ = ["dumps"]

_META = (
    *("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz"),
    *("title", "description", "examples", "extra_json_schema", "extra"),
)
_OWN = {"__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "__annotations__", "__slots__", "handled_by"}


def dumps(value: object) -> bytes:
    """Pickle a value, with the classes that cannot be imported elsewhere included; ``pickle.loads`` reads it.

    Parameters
    ----------
    value : object
        A worker class of a script or notebook, or arguments for one.
    """
    import cloudpickle

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, msgspec.StructMeta) and not _importable(obj):
                return _reduce_struct(obj)
            if isinstance(obj, msgspec.Meta):
                return _rebuild_meta, ({name: told for name in _META if (told := getattr(obj, name)) is not None},)
            if isinstance(obj, types.CodeType):
                _, arguments = self.dispatch_table[types.CodeType](obj)
                return _rebuild_code, (obj.co_filename, arguments)
            return super().reducer_override(obj)

    buffer = io.BytesIO()
    Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def _rebuild_meta(told: dict[str, Any]) -> msgspec.Meta:
    return msgspec.Meta(**told)


def _rebuild_code(filename: str, arguments: tuple[Any, ...]) -> types.CodeType:
    return types.CodeType(*arguments).replace(co_filename=filename)


def _importable(cls: type) -> bool:
    if cls.__module__ == "__main__":
        return False
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls


def _reduce_struct(cls: Any) -> tuple[Any, ...]:
    config = cls.__struct_config__
    options = {
        name: getattr(config, name)
        for name in ("frozen", "eq", "order", "array_like", "gc", "omit_defaults", "forbid_unknown_fields", "weakref", "dict")
    }
    options["cache_hash"] = config.cache_hash
    if config.tag is not None:
        options |= {"tag": config.tag, "tag_field": config.tag_field}
    if hasattr(cls, "message_name"):
        options["name"] = cls.message_name
    inherited = {name for base in cls.__bases__ for name in getattr(base, "__struct_fields__", ())}
    fields = []
    for field in msgspec.structs.fields(cls):
        if field.name not in inherited or field.name in vars(cls).get("__annotations__", {}):
            if field.default_factory is not msgspec.NODEFAULT:
                fields.append((field.name, field.type, "factory", field.default_factory))
            elif field.default is not msgspec.NODEFAULT:
                fields.append((field.name, field.type, "default", field.default))
            else:
                fields.append((field.name, field.type, "required", None))
    extra = {name: value for name, value in vars(cls).items() if name not in _OWN and not _generated(cls, name, value)}
    arguments = (type(cls), cls.__name__, cls.__bases__, cls.__module__, cls.__qualname__, cls.__doc__, tuple(fields), options)
    return _rebuild_struct, arguments, extra, None, None, _set_attributes


def _generated(cls: Any, name: str, value: Any) -> bool:
    return name in cls.__struct_fields__ or name.startswith(("__struct_", "__match_args__")) or name == "message_name"


def _rebuild_struct(
    metaclass: Any,
    name: str,
    bases: tuple[type, ...],
    module: str,
    qualname: str,
    doc: str | None,
    fields: tuple[tuple[str, Any, str, Any], ...],
    options: dict[str, Any],
) -> Any:
    namespace: dict[str, Any] = {"__module__": module, "__qualname__": qualname, "__doc__": doc}
    namespace["__annotations__"] = {field: kind for field, kind, _, _ in fields}
    for field, _, what, default in fields:
        if what != "required":
            namespace[field] = msgspec.field(default_factory=default) if what == "factory" else default
    return metaclass(name, bases, namespace, **options)


def _set_attributes(cls: Any, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        setattr(cls, name, value)
