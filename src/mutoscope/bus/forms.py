"""What a command asks for, in plain values: a page makes a form of it without having the command's class."""

from __future__ import annotations

import inspect
from enum import Enum
from typing import Any

import msgspec
from msgspec import inspect as types

__all__ = ["Form", "FormField", "form_of"]

_UNITS = {
    "ns": "ns", "us": "µs", "ms": "ms", "s": "s", "hz": "Hz", "khz": "kHz", "mhz": "MHz", "nm": "nm", "um": "µm", "mm": "mm",
    "px": "px", "db": "dB", "mw": "mW", "mv": "mV", "v": "V", "deg": "°",
}  # fmt: skip
"""The unit that the end of a field's name says."""


class FormField(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One field of a command.

    Parameters
    ----------
    name : str
        Of the field; empty for the items of a list.
    type : str
        ``int``, ``float``, ``bool``, ``str``, ``choice``, ``list``, or ``json`` for anything else.
    required : bool
        Whether it has no default.
    default : object
        In plain values.
    optional : bool
        Whether None is a value.
    doc, unit : str
        The description of ``Annotated[…, Meta(description=…)]``; the unit that the name says, as in ``z_um``.
    minimum, maximum : float or None
        Inclusive, from ``Meta``.
    choices : tuple
        Of a ``choice``.
    items : FormField or None
        Of a ``list``.
    """

    name: str
    type: str
    required: bool = True
    default: Any = None
    optional: bool = False
    doc: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] = ()
    items: FormField | None = None


class Form(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A command as a form: its class's name, what its docstring says, its fields in order."""

    title: str
    doc: str = ""
    fields: tuple[FormField, ...] = ()


def form_of(kind: type[msgspec.Struct]) -> Form:
    """Return the form of a command's class.

    Examples
    --------
    >>> class MoveStage(msgspec.Struct):
    ...     z_um: float
    ...     relative: bool = False
    >>> [(field.name, field.type, field.unit, field.required) for field in form_of(MoveStage).fields]
    [('z_um', 'float', 'µm', True), ('relative', 'bool', '', False)]
    """
    described = types.type_info(kind)
    assert isinstance(described, types.StructType)
    doc = kind.__doc__ or ""
    return Form(
        title=kind.__name__,
        doc=inspect.cleandoc(doc) if doc else "",
        fields=tuple(_field(each.name, each.type, each) for each in described.fields),
    )


def _field(name: str, described: types.Type, stated: types.Field | None) -> FormField:
    doc, optional = "", False
    while True:
        if isinstance(described, types.Metadata):
            doc = doc or (described.extra_json_schema or {}).get("description", "")
            described = described.type
        elif isinstance(described, types.UnionType) and _without_none(described) is not None:
            optional = True
            only = _without_none(described)
            assert only is not None
            described = only
        else:
            break
    facts = _facts(described)
    return FormField(
        name=name,
        required=stated.required if stated is not None else True,
        default=_default(stated),
        optional=optional,
        doc=doc,
        unit=_UNITS.get(name.rpartition("_")[2], "") if "_" in name and facts["type"] in ("int", "float", "list") else "",
        **facts,
    )


def _without_none(union: types.UnionType) -> types.Type | None:
    """What is left of ``X | None`` without None; None if it is another union."""
    others = [each for each in union.types if not isinstance(each, types.NoneType)]
    return others[0] if len(others) == 1 and len(union.types) == 2 else None


def _facts(described: types.Type) -> dict[str, Any]:
    match described:
        case types.BoolType():
            return {"type": "bool"}
        case types.IntType() | types.FloatType():
            whole = 1 if isinstance(described, types.IntType) else 0
            low = described.ge if described.gt is None else described.gt + whole
            high = described.le if described.lt is None else described.lt - whole
            return {"type": "int" if whole else "float", "minimum": low, "maximum": high}
        case types.StrType():
            return {"type": "str"}
        case types.LiteralType():
            return {"type": "choice", "choices": tuple(described.values)}
        case types.EnumType():
            values: list[Enum] = list(described.cls)
            return {"type": "choice", "choices": tuple(each.value for each in values)}
        case types.ListType() | types.VarTupleType() | types.SetType() | types.FrozenSetType():
            return {"type": "list", "items": _field("", described.item_type, None)}
    return {"type": "json"}


def _default(stated: types.Field | None) -> Any:
    if stated is None or stated.required:
        return None
    value = stated.default if stated.default is not msgspec.NODEFAULT else stated.default_factory()
    try:
        return msgspec.to_builtins(value)
    except (TypeError, msgspec.MsgspecError):
        return None
