"""Several acquisitions at once: the end of one is its own, and its seconds begin when all its cameras have started."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lab
import numpy as np
import pytest

import mutoscope as ms
from mutoscope.cameras import CopyingCamera, Setting
from mutoscope.runtime import control


class Late(CopyingCamera):
    """A camera that begins to run once there is a file; the next one is started after a second at the latest."""

    settings = (Setting(name="go", kind="str", default="", doc="The file."),)

    @property
    def shape(self) -> tuple[int, int]:
        return (4, 6)

    @property
    def dtype(self) -> str:
        return "uint8"

    def frames(self) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        while not Path(self.get("go")).exists():
            time.sleep(0.01)
        tick = 0
        while True:
            tick += 1
            self.wait_until(time.monotonic_ns() + 10_000_000)
            yield np.zeros((4, 6), np.uint8), {"tick": tick}


@pytest.fixture
def scope(tmp_path: Path) -> Iterator[ms.Scope]:
    """Cameras `left`, `late` and `right`; at the end `late` is let go."""
    cameras = {"left": lab.camera(100), "late": Late(go=str(tmp_path / "go")), "right": lab.camera(100)}
    with ms.Scope(cameras=cameras) as running:
        try:
            yield running
        finally:
            (tmp_path / "go").touch()


def produced(scope: ms.Scope, camera: str) -> int:
    count: int = scope.ledger.cameras[camera]["produced"]
    return count


def start(scope: ms.Scope, *cameras: str, seconds: float | None = None) -> None:
    scope._ask(control.StartAcquisition(streams=cameras, seconds=seconds), timeout_s=30.0)


def test_the_end_of_one_acquisition_leaves_out_no_camera_of_another(scope: ms.Scope) -> None:
    start(scope, "left", seconds=0.3)
    start(scope, "late", "right")  # `left` ends meanwhile
    lab.until(lambda: produced(scope, "right") > 0, timeout_s=10.0)


def test_the_seconds_of_an_acquisition_begin_when_all_its_cameras_have_started(scope: ms.Scope) -> None:
    start(scope, "late", "right", seconds=0.3)
    lab.until(lambda: produced(scope, "right") > 0, timeout_s=10.0)
