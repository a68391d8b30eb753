"""The viewer without a window, and the one of the examples, pass what every viewer has to."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutoscope.viewers.suite import ViewerSuite

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class TestModel(ViewerSuite):
    kind = "model"


class TestExample(ViewerSuite):
    kind = "folder_viewer:FolderViewer"

    @pytest.fixture(autouse=True)
    def importable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(EXAMPLES)
