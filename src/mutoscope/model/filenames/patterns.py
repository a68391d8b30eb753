"""Parsers made of named-group patterns: one regular expression a name, one a folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import msgspec

from mutoscope.model.errors import ConfigError
from mutoscope.model.filenames.components import PLACES, Components, escape, fill, places
from mutoscope.model.plate import WellName, row_letters

__all__ = ["NameParser", "Pattern", "PatternParser"]

MAX_NAME = 4096
"""Longest path that is looked at; Linux has no longer ones."""

REMEMBERED = 4096
"""Names of which it is remembered what they say."""

GROUPS = {*PLACES, "row", "column", "row_number", "well_number", "thumbnail", "projection"}
_NUMBERS = {"field", "z", "t", "column", "row_number", "well_number"}
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
_WELL = re.compile(r"([A-Za-z]{1,2})([0-9]{1,3})")


@runtime_checkable
class NameParser(Protocol):
    """What reads and writes the file names of one vendor. Give one as ``filenames=``, or offer it as an entry point of the
    group ``mutoscope.filenames``."""

    @property
    def name(self) -> str:
        """The name by which it is asked for."""

    def parse(self, path: str) -> Components | None:
        """Return what a path says, or None if it is not of this vendor. Must not open the file."""

    def format(self, components: Components) -> str:
        """Return the name of such a plane; raises :class:`ConfigError` if the components do not suffice."""


class Pattern(msgspec.Struct, frozen=True):
    """How one kind of name looks.

    Parameters
    ----------
    file : str
        A regular expression for the whole last part of the path. Its named groups are components: `source`, `well` (or `row`
        and `column`, or `row_number` and `column`, or `well_number`), `field` (or `site`), `channel`, `z` (or `z_index`), `t`
        (or `timepoint`), and the marks `thumbnail` and `projection`, which say so by being there. Whatever else the name
        has may match but stays as it is.
    folders : tuple of str
        The same for folders of the path; a folder is compared with each in turn. The file's own groups win, then the inner
        folder's.
    counted_from_0 : tuple of str
        The components whose first is 0.
    template : str
        How a name is made from components alone (places as in :func:`~mutoscope.model.filenames.components.fill`; what is in
        ``[]`` is left out with its component); empty if it cannot be.
    kind : str
        ``"image"`` or ``"metadata"``.
    """

    file: str
    folders: tuple[str, ...] = ()
    counted_from_0: tuple[str, ...] = ()
    template: str = ""
    kind: str = "image"


class PatternParser:
    """A :class:`NameParser` made of patterns; the first that matches decides.

    Parameters
    ----------
    name : str
        The name by which it is asked for.
    patterns : sequence of Pattern
        In order of preference.

    Examples
    --------
    >>> ours = PatternParser("ours", [Pattern(r"(?P<well>[A-H]\\d\\d)-f(?P<site>\\d+)-(?P<channel>[A-Za-z]+)\\.tif")])
    >>> found = ours.parse("run 7/B03-f2-GFP.tif")
    >>> found.place()
    {'well': 'B03', 'field': 2, 'channel': 'GFP'}
    >>> ours.format(found.replace(field=10))
    'run 7/B03-f10-GFP.tif'
    """

    def __init__(self, name: str, patterns: Sequence[Pattern]) -> None:
        self.name = name
        self.patterns = tuple(patterns)
        self._compiled = [
            (_compile(pattern.file, name), [_compile(folder, name) for folder in pattern.folders], pattern)
            for pattern in patterns
        ]

    def __repr__(self) -> str:
        return f"PatternParser({self.name!r}, {len(self.patterns)} pattern(s))"

    def parse(self, path: str) -> Components | None:
        """Return what a path says, or None if no pattern matches. What was asked for lately is remembered."""
        return _remembered(self, path)

    def _parse(self, path: str) -> Components | None:
        if len(path) > MAX_NAME or "\0" in path:
            return None
        parts = [(match.start(), match[0]) for match in re.finditer(r"[^\\/]+", path)]
        if not parts or parts[-1][0] + len(parts[-1][1]) != len(path):
            return None
        for file, folders, pattern in self._compiled:
            match = file.fullmatch(parts[-1][1])
            if match is None:
                continue
            spans = _spans(match, parts[-1][0])
            for begin, text in reversed(parts[:-1]):
                found = next((hit for folder in folders if (hit := folder.fullmatch(text))), None)
                spans += _spans(found, begin) if found else []
            components = _components(path, spans, pattern, self.name)
            if components is not None:
                return components
        return None

    def format(self, components: Components) -> str:
        """Rebuild a parsed name, or make one after this vendor's first template that holds every component given."""
        if components.template and components.parser == self.name:
            return fill(components.template, components)
        given = components.place().keys()
        for pattern in self.patterns:
            template = _OPTIONAL.sub(lambda match: match[1] if places(match[1]) <= given else "", pattern.template)
            if template and places(template) == given:
                return fill(template, components)
        made = "; ".join(pattern.template for pattern in self.patterns if pattern.template) or "none but those it has parsed"
        raise ConfigError(f"{self.name} makes no name of just {', '.join(given) or 'nothing'}; its names: {made}")


@lru_cache(maxsize=REMEMBERED)
def _remembered(parser: PatternParser, path: str) -> Components | None:
    """An image is named again by the next step of a pipeline, by its ROIs, and by a viewer that shows it anew."""
    return parser._parse(path)


class _Span(msgspec.Struct, frozen=True):
    group: str
    begin: int
    end: int
    text: str


_ALIASED = {"site": "field", "z_index": "z", "timepoint": "t"}


def _compile(expression: str, parser: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(expression)
    except re.error as error:
        raise ConfigError(f"file name parser {parser}: {expression!r} is no regular expression: {error}") from error
    unknown = sorted({_ALIASED.get(group, group) for group in compiled.groupindex} - GROUPS)
    if unknown:
        raise ConfigError(
            f"file name parser {parser}: unknown group(s) {', '.join(unknown)}; known: {', '.join(sorted(GROUPS))}"
        )
    return compiled


def _spans(match: re.Match[str], offset: int) -> list[_Span]:
    return [
        _Span(_ALIASED.get(group, group), match.start(group) + offset, match.end(group) + offset, text)
        for group, text in match.groupdict().items()
        if text is not None
    ]


def _components(path: str, spans: Iterable[_Span], pattern: Pattern, parser: str) -> Components | None:
    values: dict[str, Any] = {}
    placed: list[tuple[int, int, str]] = []
    marks: set[str] = set()
    for span in spans:
        if span.group in ("thumbnail", "projection"):
            marks.add(span.group)
            continue
        read = _read(span)
        if read is None:
            return None
        value, place = read
        if span.group in values and values[span.group] != value:
            continue  # an outer folder says otherwise: the inner part holds, and this one stays as it is
        if span.group == "z" and value == 0 and "z" not in pattern.counted_from_0:
            marks.add("projection")
            continue
        values[span.group] = value
        placed.append((span.begin, span.end, place))
    well = _well(values)
    if well is False:
        return None
    return Components(
        source=values.get("source", ""),
        well=None if well is None else str(well),
        field=values.get("field"),
        channel=values.get("channel"),
        z=values.get("z"),
        t=values.get("t"),
        kind="thumbnail" if "thumbnail" in marks and pattern.kind == "image" else pattern.kind,
        projection="projection" in marks,
        well_number=values.get("well_number"),
        counted_from_0=pattern.counted_from_0,
        parser=parser,
        template=_template(path, placed),
    )


def _read(span: _Span) -> tuple[Any, str] | None:
    """Return the value of a group and the place that stands for it in a template, or None if it cannot be that."""
    group, text = span.group, span.text
    if group == "well":
        match = _WELL.fullmatch(text) if text.isascii() else None
        if match is None or int(match[2]) == 0:
            return None
        row = _row_place(match[1])
        return (WellName.parse(text), f"{row}{{column:{len(match[2])}}}") if row else None
    if group == "row":
        row = _row_place(text) if 1 <= len(text) <= 2 and text.isascii() and text.isalpha() else ""
        return (text.upper(), row) if row else None
    if group in _NUMBERS or (group == "channel" and text.isascii() and text.isdigit()):
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            return None
        return int(text), f"{{{group}:{len(text)}}}"
    return text, f"{{{group}}}"


def _row_place(letters: str) -> str:
    return {letters.upper(): "{row}", letters.lower(): "{row:lower}"}.get(letters, "")


def _well(values: dict[str, Any]) -> WellName | bool | None:
    """Return the well that the groups name, None if none does, False if what they say is no well."""
    well: WellName | None = values.get("well")
    if well is not None:
        return well
    row, column = values.get("row"), values.get("column")
    if "row_number" in values:
        if not 1 <= values["row_number"] <= 702:
            return False
        row = row_letters(values["row_number"] - 1)
    if row is None or column is None:
        return None
    return WellName.parse(f"{row}{column}") if 1 <= column <= 999 else False


def _template(path: str, placed: list[tuple[int, int, str]]) -> str:
    parts: list[str] = []
    at = 0
    for begin, end, place in sorted(placed):
        parts += [escape(path[at:begin]), place]
        at = end
    return "".join([*parts, escape(path[at:])])
