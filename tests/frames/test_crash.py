"""SIGKILL of producers and readers, between any two steps and at random: nothing torn, lost, doubled or stuck."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mutoscope.frames import _compile

ARENA = Path(__file__).with_name("ring_arena.py")
CORE = Path(_compile.__file__).with_name("_core")
POINTS = sorted(
    {name for path in CORE.glob("ring*.c") for name in re.findall(r'KILL_POINT\("(ring\.[a-z.]+)"\)', path.read_text())}
)
# the same points on other ways through the code: later passes, other roles
MORE = [
    "ring.claim.marked:30",
    "ring.claim.granted:57",
    "ring.publish.sequence:41",
    "ring.publish.head:99",
    "ring.commit.prepared:20@drop",
    "ring.commit.flipped:20@drop",
    "ring.next.pinned:9@latest",
    "ring.next.pinned:5@member2",
    "ring.next.checked:3@casual",
    "ring.share.taken:7@member2",
    "ring.share.prepared:8@casual",
    "ring.share.done:8@casual",
    "ring.release.unpinned:11@latest",
    "ring.wait.flagged:2@fast",
]


def run_arena(*arguments: str, library: Path | None = None, timeout_s: float = 120) -> list[dict[str, Any]]:
    environment = dict(os.environ)
    if library is not None:
        environment["MUTOSCOPE_CORE_LIBRARY"] = str(library)
    done = subprocess.run(
        [sys.executable, str(ARENA), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def deaths(kill_point_core: Path) -> dict[str, dict[str, Any]]:
    """What happened at each point; one program runs them all."""
    named = [*POINTS, *MORE]
    return dict(zip(named, run_arena("points", *named, library=kill_point_core), strict=True))


def test_the_points_cover_every_step() -> None:
    steps = {name.rpartition(".")[0] for name in POINTS}
    assert steps >= {"ring.claim", "ring.publish", "ring.next", "ring.commit", "ring.release", "ring.share", "ring.wait"}
    assert len(POINTS) >= 20


@pytest.mark.parametrize("named", [*POINTS, *MORE])
def test_death_between_two_steps(deaths: dict[str, dict[str, Any]], named: str) -> None:
    result = deaths[named]
    assert result["reached"], "nobody passed this point"
    assert result["others_alive"]
    assert result["went_on"]
    assert result["problems"] == []
    assert result["head"] >= 200


def test_random_kills() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    (result,) = run_arena("random", "150", str(seed))
    assert result["problems"] == [], result
    assert result["stalls"] == 0
    assert result["kills"] == 150
    assert result["head"] > 1000
