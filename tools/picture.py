"""Draw docs/demo.svg: what the terminal shows while `mutoscope demo` runs. Everything in it is of a real run on this machine.

python tools/picture.py [FILE]
"""

from __future__ import annotations

import dataclasses
import io
import os
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

import mutoscope as ms
from mutoscope.app.demo import BEAD_INTENSITY, SpotCounter
from mutoscope.app.display import ScopeDisplay, draw

FRAMES = 1000
SHOWN_AT = 0.6
PERIOD_S = 0.25
DEADLINE_S = 120.0
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""
"""Rich's own, without fonts that would be fetched from elsewhere."""


def picture(frames: int = FRAMES) -> str:
    """Run the demonstration's scope and return one look at it, as SVG."""
    display = ScopeDisplay("mutoscope demo", frames=frames, console=Console(file=io.StringIO(), width=112))
    camera = ms.cameras.SimulatedCamera(shape=(512, 512), dtype="uint16", rate_hz=100.0, bead_intensity=BEAD_INTENSITY)
    with ms.Scope(camera=camera, workers=[SpotCounter], record=True) as scope:
        assert scope.path is not None
        display._started_s = time.monotonic()
        scope.start_acquisition(frames)
        deadline = time.monotonic() + DEADLINE_S
        while (view := display.look(scope)).cameras["camera"]["produced"] < SHOWN_AT * frames:
            assert time.monotonic() < deadline, "the camera is too slow"
            time.sleep(PERIOD_S)
        scope.wait_acquisition(DEADLINE_S)
    console = Console(record=True, file=io.StringIO(), width=112, force_terminal=True, color_system="truecolor")
    console.print(draw(dataclasses.replace(view, path=os.path.relpath(scope.path))))
    return console.export_svg(title="mutoscope demo", code_format=FORMAT, unique_id="demo")


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "demo.svg").absolute()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        target.write_text(picture(), encoding="utf-8")
        os.chdir(target.parent)
