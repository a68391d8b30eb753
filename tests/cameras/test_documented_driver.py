"""The driver that the documentation tells a newcomer to write passes the conformance suite."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from mutoscope.cameras import Camera
from mutoscope.cameras.suite import CameraSuite

PAGE = Path(__file__).resolve().parents[2] / "docs" / "camera-driver.md"
NAME = "documented_driver"


@pytest.fixture(scope="module", autouse=True)
def documented() -> types.ModuleType:
    """The page's first program, as a module that pickle finds."""
    block = re.search(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    sys.modules[NAME] = module = types.ModuleType(NAME)
    exec(compile(block[1], str(PAGE), "exec"), module.__dict__)
    yield module
    del sys.modules[NAME]


class TestDocumentedDriver(CameraSuite):
    def make_camera(self) -> Camera:
        return sys.modules[NAME].GradientCamera(rate_hz=500.0)


def test_it_is_short(documented: types.ModuleType) -> None:
    text = re.search(r"^class GradientCamera.*?(?=^if __name__)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert text is not None
    assert len([line for line in text[0].splitlines() if line.strip()]) <= 32
