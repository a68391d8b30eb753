"""Settings of a camera: name, unit, bounds, step and choices, and what is said when a value does not fit."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, get_args

import msgspec

from mutoscope.model.arguments import shown
from mutoscope.model.errors import ConfigError

__all__ = ["Setting", "SettingKind", "check_settings"]

SettingKind = Literal["int", "float", "bool", "str", "path", "shape", "ids"]

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "path": "a path",
    "shape": "two whole numbers (y, x)",
    "ids": "whole numbers",
}

_NUMBERS = ("int", "float", "shape", "ids")
_UNIT_OF_SUFFIX = {
    "ns": ("ns",), "us": ("µs", "us", "μs"), "ms": ("ms",), "s": ("s",), "hz": ("Hz",), "khz": ("kHz",), "mhz": ("MHz",),
    "nm": ("nm",), "um": ("µm", "um", "μm"), "mm": ("mm",), "px": ("px",), "db": ("dB",), "mw": ("mW",), "mv": ("mV",),
    "v": ("V",),
}  # fmt: skip
"""What the end of a setting's name says of its unit, with the ways to write it."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of a camera.

    Parameters
    ----------
    name : str
        With its unit where it has one, as ``exposure_ms``.
    kind : {"int", "float", "bool", "str", "path", "shape", "ids"}
        ``shape`` is ``(y, x)``, ``ids`` a tuple of whole numbers.
    default : object
        Used where nothing is given.
    doc : str
        One line for a person.
    unit : str
        As it is written after the number, ``"ms"``; empty for none.
    minimum, maximum : float or None
        Inclusive bounds; of each number for ``shape`` and ``ids``.
    step : float or None
        Values lie on ``minimum + k * step`` (from 0 where there is no minimum).
    choices : tuple
        The only values allowed; empty for any.
    optional : bool
        Whether None is a value.
    live : bool
        Whether it can be changed while the camera is open.

    Raises
    ------
    ConfigError
        If they contradict each other: no driver can have such a setting.
    """

    name: str
    kind: SettingKind
    default: Any = None
    doc: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[Any, ...] = ()
    optional: bool = False
    live: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isidentifier()):
            raise ConfigError(f"a setting's name is a Python name such as 'exposure_ms', not {self.name!r}")
        kinds = get_args(SettingKind)
        if self.kind not in kinds:
            near = get_close_matches(str(self.kind), kinds, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(kinds)}"
            raise ConfigError(f"setting {self.name!r}: there is no kind {self.kind!r}; {hint}")
        for problem in (self._unit_problem(), self._bounds_problem(), self._choices_problem()):
            if problem:
                raise ConfigError(f"setting {self.name!r}: {problem}")
        if self.default is not None:
            try:
                self.check(self.default)
            except ConfigError as error:
                raise ConfigError(f"setting {self.name!r}: its default does not fit: {error}") from None

    def _unit_problem(self) -> str | None:
        if self.unit and self.kind not in _NUMBERS:
            return f"{_WORDS[self.kind]} has no unit, and {self.unit!r} is given"
        said = _UNIT_OF_SUFFIX.get(self.name.rpartition("_")[2]) if "_" in self.name else None
        if self.unit and said is not None and self.unit not in said:
            return f"its name says {said[0]}, its unit is {self.unit!r}"
        return None

    def _bounds_problem(self) -> str | None:
        given = {name: value for name in ("minimum", "maximum", "step") if (value := getattr(self, name)) is not None}
        for name, value in given.items():
            if self.kind not in _NUMBERS:
                return f"{_WORDS[self.kind]} has no {name}, and {value!r} is given"
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                return f"its {name} is a number, not {value!r}"
            if self.kind != "float" and value != int(value):
                return f"its {name} is a whole number as its values are, not {value!r}"
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            return f"its minimum {_plain(self.minimum)} is above its maximum {_plain(self.maximum)}"
        if self.step is not None and not self.step > 0:
            return f"its step is above 0, not {self.step!r}"
        if self.step is not None and self.minimum is not None and self.maximum is not None:
            room = self.maximum - self.minimum
            if self.step > room * (1 + 1e-9):
                return f"its step {_plain(self.step)} is more than the {_plain(room)} from its minimum to its maximum"
        return None

    def _choices_problem(self) -> str | None:
        given: Any = self.choices
        if isinstance(given, list):
            msgspec.structs.force_setattr(self, "choices", tuple(given))
        elif not isinstance(given, tuple):
            return f"its choices are a tuple, not {given!r}"
        for choice in self.choices:
            try:
                fits = self.check(choice) == choice
            except ConfigError:
                fits = False
            if not fits:
                return f"the choice {choice!r} is not {_WORDS[self.kind]} within its bounds"
            if self.choices.count(choice) > 1:
                return f"the choice {choice!r} is there twice"
        return None

    def check(self, value: Any) -> Any:
        """Return `value` in its own type.

        Raises
        ------
        ConfigError
            If it does not fit; one sentence with the setting, its bounds and its unit.
        """
        if value is None and self.optional:
            return None
        checked = self._convert(value)
        if self.choices and checked not in self.choices:
            raise self._refuse(value)
        numbers = checked if isinstance(checked, tuple) else (checked,)
        if self.kind in _NUMBERS:
            for number in numbers:
                self._check_number(value, number)
        return checked

    def expected(self) -> str:
        """Return what fits, in words: ``"a number from 1 to 1000 Hz in steps of 0.5"``."""
        if self.choices:
            text = "one of " + ", ".join(repr(choice) for choice in self.choices)
        else:
            text = _WORDS[self.kind]
            if self.minimum is not None and self.maximum is not None:
                text += f" from {_plain(self.minimum)} to {_plain(self.maximum)}"
            elif self.minimum is not None:
                text += f" of at least {_plain(self.minimum)}"
            elif self.maximum is not None:
                text += f" of at most {_plain(self.maximum)}"
            if self.unit:
                text += f" {self.unit}"
            if self.step is not None:
                text += f" in steps of {_plain(self.step)}"
        return text + (" or None" if self.optional else "")

    def describe(self) -> dict[str, Any]:
        """Return plain values for a page or a data set."""
        record: dict[str, Any] = msgspec.to_builtins(self)
        return record

    def _convert(self, value: Any) -> Any:
        match self.kind:
            case "bool" if isinstance(value, bool):
                return value
            case "int" if _is_whole(value):
                return int(value)
            case "float" if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
            case "float" if hasattr(value, "__float__") and hasattr(value, "dtype"):
                return float(value)
            case "str" if isinstance(value, str):
                return value
            case "path" if isinstance(value, str | os.PathLike):
                return os.fspath(value)
            case "shape" | "ids" if isinstance(value, Iterable) and not isinstance(value, str | bytes):
                items = tuple(value)
                if all(_is_whole(item) for item in items) and (self.kind == "ids" or len(items) == 2):
                    return tuple(int(item) for item in items)
            case "ids" if _is_whole(value):
                return (int(value),)
        raise self._refuse(value)

    def _check_number(self, value: Any, number: float) -> None:
        if not math.isfinite(number):
            raise self._refuse(value)
        if self.minimum is not None and number < self.minimum:
            raise self._refuse(value)
        if self.maximum is not None and number > self.maximum:
            raise self._refuse(value)
        if self.step is not None:
            steps = (number - (self.minimum or 0.0)) / self.step
            if abs(steps - round(steps)) > 1e-6:
                raise self._refuse(value)

    def _refuse(self, value: Any) -> ConfigError:
        return ConfigError(f"{self.name} must be {self.expected()}, not {shown(value)}")


def check_settings(owner: str, specs: Iterable[Setting], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return every setting of `specs` with its checked value or its default.

    Raises
    ------
    ConfigError
        For a name that is not in `specs`, or a value that does not fit.
    """
    known: dict[str, Setting] = {}
    for spec in specs:
        if not isinstance(spec, Setting):
            raise ConfigError(f"the settings of {owner} are a tuple of Setting(name=…, kind=…), not of {spec!r}")
        if spec.name in known:
            raise ConfigError(f"{owner} has two settings of the name {spec.name!r}")
        known[spec.name] = spec
    for name in values:
        if name not in known:
            raise ConfigError(unknown_setting(owner, name, known))
    return {name: spec.check(values[name]) if name in values else spec.default for name, spec in known.items()}


def unknown_setting(owner: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence that names what is known instead."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names) or 'none'}"
    return f"{owner} has no setting {name!r}; {hint}"


def _is_whole(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (hasattr(value, "__index__"))


def _plain(number: float) -> str:
    return f"{number:g}" if abs(number) < 1e6 else f"{number:.15g}"
