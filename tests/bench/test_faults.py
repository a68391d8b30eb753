"""Whole scopes under fire, in the fraction that ordinary tests can afford; ``mutoscope bench faults`` runs thousands."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mutoscope.bench import faults

FRAMES = 500


@pytest.mark.parametrize("number", range(max(len(points) for points in faults.POINTS.values())))
def test_every_role_dies_at_a_named_point_again_and_again(number: int, kill_point_core: Path, tmp_path: Path) -> None:
    environment = faults.kill_points(kill_point_core)[number]
    outcome = faults.FaultRun(tmp_path, seed=number, environment=environment).let_it_die(FRAMES)
    assert outcome.problems == []
    assert outcome.kills["camera"] >= 2
    assert outcome.kills["recorder"] >= 1  # a busy recorder seldom waits, and one of its points lies there
    assert outcome.kills["Counter"] >= 2
    assert outcome.frames >= FRAMES


def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")
    outcome = faults.FaultRun(tmp_path, seed=seed).kill_at_random(20)
    assert outcome.problems == [], f"seed {seed}"
    assert sum(outcome.kills.values()) == 20


@pytest.mark.parametrize(
    ("victim", "outlive", "frames"), [("supervisor", False, None), ("program", False, None), ("program", True, 500)]
)
def test_whoever_stands_above_may_be_killed(victim: str, outlive: bool, frames: int | None, tmp_path: Path) -> None:
    outcome = faults.kill_above(tmp_path, 11, victim, outlive=outlive, frames=frames)
    assert outcome.problems == []
