"""Plain values as an indented outline for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["outline"]

LONGEST = 100


def outline(values: Mapping[str, Any], indent: int = 0) -> list[str]:
    """Return nested plain values as lines, one a value.

    Parameters
    ----------
    values : mapping
        What JSON can hold.
    indent : int
        Spaces before each line.

    Examples
    --------
    >>> print("\\n".join(outline({"frames": 1200, "shape": [512, 512], "ledger": {"stored": 1200, "dropped": {}}})))
    frames: 1,200
    shape: 512, 512
    ledger:
      stored: 1,200
      dropped: none
    """
    found = []
    for name, value in values.items():
        inline = _inline(value)
        if inline is not None:
            found.append(f"{' ' * indent}{name}: {inline}")
        elif isinstance(value, Mapping):
            found += [f"{' ' * indent}{name}:", *outline(value, indent + 2)]
        else:
            found.append(f"{' ' * indent}{name}:")
            for item in value:
                if isinstance(item, Mapping):
                    found += [f"{' ' * (indent + 2)}-", *outline(item, indent + 4)]
                else:
                    found.append(f"{' ' * (indent + 2)}- {_inline(item) or item}")
    return found


def _inline(value: Any) -> str | None:
    """Return what fits on the line of its name, None for what does not."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, str):
        return value
    if not value:
        return "none"
    if isinstance(value, Sequence):
        parts = [_inline(item) for item in value if not isinstance(item, Mapping)]
        texts = [part for part in parts if part is not None]
        line = ", ".join(texts)
        return line if len(texts) == len(value) and len(line) <= LONGEST else None
    return None
