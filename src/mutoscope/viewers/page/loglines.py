"""Lines of ``scope.log``, read back: what happened before the page's process began."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["lines_of"]

_LINE = re.compile(
    r"(?P<utc>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z (?P<level>\w+) +(?P<worker>[^:]+): (?P<text>.*)", re.DOTALL
)


def lines_of(path: Path, last_bytes: int) -> list[dict[str, Any]]:
    """Return the last lines of a log, as the protocol has them; what lies below a line belongs to it. Empty without a log."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - last_bytes))
            text = file.read(last_bytes).decode("utf-8", "replace")
    except OSError:
        return []
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is not None:
            at = datetime.fromisoformat(match["utc"]).replace(tzinfo=UTC)
            level = logging.getLevelNamesMapping().get(match["level"], logging.INFO)
            found.append({"utc_ms": at.timestamp() * 1e3, "level": level, "worker": match["worker"], "text": match["text"]})
        elif found:
            found[-1]["text"] += f"\n{line}"
    return found
