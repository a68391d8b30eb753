"""Adapters of a third party that go wrong, for the tests of sinks."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mutoscope.model.errors import ConfigError
from mutoscope.viewers.browser.adapter import BrowserAdapter
from mutoscope.viewers.headless import HeadlessAdapter
from mutoscope.viewers.model import ImageLayer

GATE = "MUTOSCOPE_TEST_GATE"
"""The variable that names the file for which `SlowToOpen` waits."""


class Choosy(HeadlessAdapter):
    """Shows no image of 64 bits, exits at one of float16, and fails as a whole at one whose source is "poison"."""

    kind = "adapters:Choosy"

    def check_image(self, dtype: np.dtype[Any], shape: tuple[int, ...], rgb: bool) -> None:
        if dtype.itemsize == 8:
            raise ConfigError(f"this viewer shows no {dtype}")
        if dtype == np.float16:
            sys.exit(3)

    def show_images(self, layer: ImageLayer) -> None:
        if layer.components.get("source") == "poison":
            raise RuntimeError("the window system has failed")
        super().show_images(layer)


class NeverThere(HeadlessAdapter):
    """Cannot be opened."""

    kind = "adapters:NeverThere"

    def open(self, title: str) -> None:
        raise RuntimeError("there is no display")


class SlowToOpen(HeadlessAdapter):
    """Cannot be opened before there is a file; says in another one that it waits."""

    kind = "adapters:SlowToOpen"

    def open(self, title: str) -> None:
        gate = Path(os.environ[GATE])
        with gate.with_suffix(".opening").open("a") as file:
            file.write(f"{os.getpid()}\n")
        while not gate.exists():
            time.sleep(0.01)


class SoonAlone(BrowserAdapter):
    """The viewer in the browser, which ends half a second after its last sender and its last browser."""

    kind = "adapters:SoonAlone"
    alone_s = 0.5
