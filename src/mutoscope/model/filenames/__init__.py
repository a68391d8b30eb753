"""File names as microscopes write them: what they say about a plane, and back.

Names are only read as text; no file is opened. Parsers are looked up by name in the table :data:`VENDORS`, among the entry
points of the group ``mutoscope.filenames``, or as ``"module:Class"``; any object with the methods of :class:`NameParser` will
do as well. The files that describe a plate are read by :mod:`~mutoscope.model.filenames.imagexpress`,
:mod:`~mutoscope.model.filenames.opera_phenix` and :mod:`~mutoscope.model.filenames.cellvoyager`, from bytes that a caller has.

Examples
--------
>>> from mutoscope.model import filenames
>>> found = filenames.parse("TimePoint_2/ZStep_3/9987_B02_s1_w117654C10-3E85-4358-AE51-A465AF87386F.TIF")
>>> found.place()
{'source': '9987', 'well': 'B02', 'field': 1, 'channel': 1, 'z': 3, 't': 2}
>>> filenames.format(found.replace(site=2, z=10))
'TimePoint_2/ZStep_10/9987_B02_s2_w117654C10-3E85-4358-AE51-A465AF87386F.TIF'
"""

from __future__ import annotations

import difflib
import importlib
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from typing import Any, TypeAlias

from mutoscope.model.errors import BackendUnavailableError, ConfigError
from mutoscope.model.filenames._table import VENDORS
from mutoscope.model.filenames.components import ALIASES, Components, fill
from mutoscope.model.filenames.patterns import NameParser, Pattern, PatternParser

__all__ = [
    "ALIASES",
    "ENTRY_POINTS",
    "VENDORS",
    "Components",
    "NameParser",
    "ParserLike",
    "Pattern",
    "PatternParser",
    "detect",
    "format",
    "get_parser",
    "names",
    "parse",
]

ENTRY_POINTS = "mutoscope.filenames"
"""The group of entry points under which other packages offer parsers."""

ParserLike: TypeAlias = str | NameParser
"""A parser's name (``"auto"``, one of the table or of an entry point, ``"module:Class"``) or a parser itself."""

_BUILT_IN: dict[str, NameParser] = {name: PatternParser(name, patterns) for name, patterns in VENDORS.items()}


def names() -> list[str]:
    """Return the names of the parsers that can be asked for: those of the table, then those of entry points."""
    return [*_BUILT_IN, *sorted(_entry_points())]


def get_parser(parser: ParserLike) -> NameParser:
    """Return a parser by its name.

    Parameters
    ----------
    parser : str or NameParser
        A name of :func:`names` (case and ``-`` for ``_`` do not matter), ``"auto"``, or ``"module:Class"``; a parser is
        returned as it is.

    Raises
    ------
    ConfigError
        If the name is unknown (the message lists the known and the nearest), claimed twice, or leads to something else.
    BackendUnavailableError
        If an entry point or module does not load.
    """
    if not isinstance(parser, str):
        return _checked(parser, repr(parser))
    key = parser.strip().lower().replace("-", "_")
    if key == "auto":
        return _Auto()
    offered = _entry_points()
    if key in _BUILT_IN and key in offered:
        raise ConfigError(f"two file name parsers are called {key!r}: Mutoscope's own and {offered[key].value}")
    if key in _BUILT_IN:
        return _BUILT_IN[key]
    if key in offered:
        return _load(offered[key].value, key)
    if ":" in parser:
        return _load(parser, parser)
    near = difflib.get_close_matches(key, [*_BUILT_IN, *offered, "auto"], n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ConfigError(f"no file name parser is called {parser!r}{hint}; known: auto, {', '.join(names())}")


def parse(name: str, parser: ParserLike = "auto") -> Components:
    """Read a file name, with or without folders (``/`` or ``\\``).

    Parameters
    ----------
    name : str
        The path as the microscope wrote it. No file is opened.
    parser : str or NameParser
        Whose names these are; ``"auto"`` asks every parser of the table in its order.

    Raises
    ------
    ConfigError
        If it is not a name of this vendor.
    """
    found = _quickly(parser).parse(name)
    if found is None:
        asked = ", ".join(_BUILT_IN) if parser == "auto" else parser if isinstance(parser, str) else parser.name
        raise ConfigError(f"not a file name of {asked}: {name[:200]!r}")
    return found


def format(components: Components, parser: ParserLike | None = None) -> str:  # noqa: A001
    """Return the file name of a plane.

    Parameters
    ----------
    components : Components
        As parsed (the name comes back exactly, with its folders), changed by :meth:`Components.replace`, or made by hand.
    parser : str or NameParser, optional
        Needed for components made by hand, or to name a plane after another vendor.

    Raises
    ------
    ConfigError
        If no parser is known, or the components do not suffice.
    """
    if parser is None:
        if components.template:
            return fill(components.template, components)
        raise ConfigError("these components were not parsed from a name: say after which vendor to name them (parser=)")
    return _quickly(parser).format(components)


def detect(names: Iterable[str]) -> NameParser:
    """Return the parser that reads the most of these names as images; of equals the first of the table.

    Raises
    ------
    ConfigError
        If none reads any.
    """
    votes: Counter[str] = Counter()
    parsers = {**_BUILT_IN, **{key: _load(entry.value, key) for key, entry in _entry_points().items()}}
    for name in names:
        for key, parser in parsers.items():
            found = parser.parse(name)
            if found is not None and found.kind == "image":
                votes[key] += 1
    if not votes:
        raise ConfigError(f"no file name parser knows these names; asked: {', '.join(parsers)}")
    best = max(votes.values())
    return next(parser for key, parser in parsers.items() if votes[key] == best)


def _quickly(parser: ParserLike) -> NameParser:
    """Return a parser without a look at the entry points where its name is in the table, as that takes a millisecond."""
    built_in = _BUILT_IN.get(parser) if isinstance(parser, str) else None
    return built_in or get_parser(parser)


class _Auto:
    """Asks the parsers of the table in their order."""

    name = "auto"

    def parse(self, path: str) -> Components | None:
        for parser in _BUILT_IN.values():
            found = parser.parse(path)
            if found is not None:
                return found
        return None

    def format(self, components: Components) -> str:
        if components.template:
            return fill(components.template, components)
        raise ConfigError("'auto' cannot name a plane: say after which vendor (filenames=)")


def _entry_points() -> dict[str, metadata.EntryPoint]:
    found: dict[str, metadata.EntryPoint] = {}
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        key = entry.name.lower().replace("-", "_")
        if key in found and found[key].value != entry.value:
            raise ConfigError(f"two file name parsers are called {key!r}: {found[key].value} and {entry.value}")
        found[key] = entry
    return found


def _load(address: str, name: str) -> NameParser:
    module_name, _, attribute = address.partition(":")
    try:
        made: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            made = getattr(made, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise BackendUnavailableError(f"file name parser {name!r} ({address}) does not load: {error}") from error
    return _checked(made() if isinstance(made, type) else made, address)


def _checked(parser: Any, address: str) -> NameParser:
    if not isinstance(parser, NameParser):
        raise ConfigError(f"{address} is no file name parser: it needs a name, parse(path) and format(components)")
    return parser
