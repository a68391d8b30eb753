"""A real Chromium, headless, for the tests of the page."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]
"""Drawing without a graphics card, and no talk with the world."""

LUTS = {
    name: np.frombuffer(bytes.fromhex(text), np.uint8).reshape(256, 3)
    for name, text in json.loads((WEB.parent / "src/mutoscope/viewers/luts.json").read_text())["luts"].items()
}


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium; yields playwright's ``Browser``."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def build_module() -> ModuleType:
    """Return ``web/build.py`` as a module."""
    spec = importlib.util.spec_from_file_location("page_build", WEB / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bundle(entry: str, name: str, out: Path) -> Path:
    """Bundle ``web/test/<entry>`` into a script that defines the global `name`."""
    build = build_module()
    node, npm = build.find_node()
    build.install_modules(node, npm, development=True)
    program = str(WEB / "node_modules/esbuild/bin/esbuild")
    options = ["--bundle", "--format=iife", f"--global-name={name}", f"--outfile={out}", "--log-level=warning"]
    subprocess.run([node, program, entry, *options], cwd=WEB / "test", env=os.environ, check=True)
    return out


def index_of(values: NDArray[Any], lo: float, hi: float, gamma: float) -> NDArray[np.intp]:
    """The rounding rule of docs/page-protocol.md, in double precision."""
    unit = np.clip((values.astype(np.float64) - lo) / (hi - lo), 0.0, 1.0)
    return np.nan_to_num(np.floor(255.0 * unit**gamma + 0.5)).astype(np.intp)


def coloured(values: NDArray[Any], lo: float, hi: float, gamma: float, lut: str) -> NDArray[np.uint8]:
    """Colours ``(y, x, 3)`` of values ``(y, x)``."""
    return LUTS[lut][index_of(values, lo, hi, gamma)]


def places(size: int, middle: float, zoom: float) -> NDArray[np.float64]:
    """Where in the image the middles of a pane's device pixels lie along one axis, in corner coordinates."""
    origin = np.floor(size / 2 - middle * zoom + 0.5)
    return (np.arange(size) + 0.5 - origin) / zoom
