"""Where the real inputs are that are not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

EXTERNAL = "MUTOSCOPE_TEST_DATA"


def external_data_folder() -> Path | None:
    """Return the folder of real inputs, or None where there is none."""
    named = os.environ.get(EXTERNAL)
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None
