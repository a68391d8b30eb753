"""A small, wary XML reader for files that microscopes and other programs wrote.

No document type declaration is accepted, so there are no entities to expand and no outside files to fetch; depth, size and
number of elements are bounded. Only the parts that are asked for are kept in memory. Built on the standard library's expat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from xml.parsers import expat

from mutoscope.model.errors import DatasetError

__all__ = ["Element", "elements", "stream"]

MAX_DEPTH = 64
MAX_BYTES = 1 << 30
MAX_ELEMENTS = 50_000_000
MAX_TEXT = 16 << 20
_CHUNK = 1 << 16


class Element:
    """A part of a document: local name, attributes by local name, text before the first child, children."""

    __slots__ = ("attributes", "children", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.text = ""
        self.children: list[Element] = []

    def child(self, tag: str) -> Element | None:
        """Return the first child of this name, or None."""
        return next((child for child in self.children if child.tag == tag), None)

    def all(self, tag: str) -> list[Element]:
        """Return the children of this name."""
        return [child for child in self.children if child.tag == tag]

    def value(self, tag: str, default: str = "") -> str:
        """Return the stripped text of the first child of this name."""
        found = self.child(tag)
        return default if found is None else found.text.strip()

    def get(self, name: str, default: str = "") -> str:
        """Return an attribute by its local name."""
        return self.attributes.get(name, default)


def elements(data: bytes, names: Iterable[str], *, what: str) -> list[Element]:
    """Return the elements of these local names with what is inside them; see :func:`stream`."""
    return list(stream(data, names, what=what))


def stream(data: bytes | Iterable[bytes], names: Iterable[str], *, what: str) -> Iterator[Element]:
    """Yield the elements of these local names, each with what is inside it, in the order in which they end.

    An element inside another one that is asked for comes with its parent only.

    Parameters
    ----------
    data : bytes or iterable of bytes
        The document, whole or in pieces.
    names : iterable of str
        Local names, without prefix or namespace.
    what : str
        What the document is, for messages.

    Raises
    ------
    DatasetError
        If it is no well-formed XML, declares a document type, or is beyond the bounds.
    """
    reader = _Reader(frozenset(names), what)
    yield from reader.run([data] if isinstance(data, bytes) else data)


class _Reader:
    def __init__(self, names: frozenset[str], what: str) -> None:
        self.names, self.what = names, what
        self.open: list[Element] = []
        self.text: list[str] = []
        self.ready: list[Element] = []
        self.depth = self.count = self.length = 0
        parser = expat.ParserCreate()
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.characters
        parser.StartDoctypeDeclHandler = self.refuse
        parser.EntityDeclHandler = self.refuse
        parser.buffer_text = True
        self.parser = parser

    def run(self, pieces: Iterable[bytes]) -> Iterator[Element]:
        size = 0
        for piece in pieces:
            for begin in range(0, len(piece), _CHUNK):
                size += len(piece[begin : begin + _CHUNK])
                if size > MAX_BYTES:
                    raise self.bad(f"it is longer than {MAX_BYTES} bytes")
                yield from self.feed(bytes(piece[begin : begin + _CHUNK]), last=False)
        yield from self.feed(b"", last=True)

    def feed(self, piece: bytes, *, last: bool) -> list[Element]:
        try:
            self.parser.Parse(piece, last)
        except (expat.ExpatError, UnicodeError, LookupError, ValueError) as error:
            raise self.bad(str(error)) from error
        ready, self.ready = self.ready, []
        return ready

    def bad(self, why: str) -> DatasetError:
        return DatasetError(f"{self.what} cannot be read: {why}")

    def refuse(self, *_: Any) -> None:
        raise self.bad("it declares a document type, which is not accepted")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        self.count += 1
        if self.depth > MAX_DEPTH:
            raise self.bad(f"its elements are nested more than {MAX_DEPTH} deep")
        if self.count > MAX_ELEMENTS:
            raise self.bad(f"it has more than {MAX_ELEMENTS} elements")
        tag = _local(name)
        if self.open or tag in self.names:
            self.keep_text()
            element = Element(tag, {_local(key): value for key, value in attributes.items()})
            if self.open:
                self.open[-1].children.append(element)
            self.open.append(element)

    def end(self, _: str) -> None:
        self.depth -= 1
        if self.open:
            self.keep_text()
            element = self.open.pop()
            if not self.open:
                self.ready.append(element)

    def keep_text(self) -> None:
        if self.open and self.text and not self.open[-1].children:
            self.open[-1].text += "".join(self.text)
        self.text.clear()
        self.length = 0

    def characters(self, text: str) -> None:
        if self.open:
            self.length += len(text)
            if self.length > MAX_TEXT:
                raise self.bad(f"an element has more than {MAX_TEXT} characters of text")
            self.text.append(text)


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def number(text: str, convert: Callable[[str], Any], *, what: str) -> Any:
    """Convert a text to a number or raise a :class:`DatasetError` that says of what."""
    try:
        return convert(text.strip())
    except (ValueError, OverflowError) as error:
        raise DatasetError(f"{what} is no number: {text[:40]!r}") from error
