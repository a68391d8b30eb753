"""Whole scopes under fire, in the fraction that ordinary tests can afford; ``mutoscope bench faults`` runs thousands."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mutoscope.bench import faults
from mutoscope.frames._compile import compile_core

FRAMES = 500


@pytest.fixture(scope="session")
def deadly_core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The native core with its kill points."""
    return compile_core(tmp_path_factory.mktemp("core") / "libmutoscope-deadly.so", ["MUTOSCOPE_KILL_POINTS"])


@pytest.mark.parametrize("number", range(max(len(points) for points in faults.POINTS.values())))
def test_every_role_dies_at_a_named_point_again_and_again(number: int, deadly_core: Path, tmp_path: Path) -> None:
    environment = faults.kill_points(deadly_core)[number]
    outcome = faults.FaultRun(tmp_path, seed=number, environment=environment).let_it_die(FRAMES)
    assert outcome.problems == []
    assert outcome.kills["camera"] >= 2
    assert outcome.kills["recorder"] >= 1  # a busy recorder seldom waits, and one of its points lies there
    assert outcome.kills["Counter"] >= 2
    assert outcome.frames >= FRAMES


@pytest.mark.parametrize("number", range(2))
def test_random_kills_lose_nothing(number: int, tmp_path: Path) -> None:
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")
    outcome = faults.FaultRun(tmp_path, seed=seed).kill_at_random(20)
    assert outcome.problems == [], f"seed {seed}"
    assert sum(outcome.kills.values()) == 20


@pytest.mark.parametrize("seed", [11, 12])
@pytest.mark.parametrize(
    ("victim", "options"), [("supervisor", {}), ("program", {}), ("program", {"outlive": True, "frames": 500})]
)
def test_whoever_stands_above_may_be_killed(victim: str, options: dict[str, object], seed: int, tmp_path: Path) -> None:
    outcome = faults.kill_above(tmp_path, seed, victim, **options)  # type: ignore[arg-type]
    assert outcome.problems == []
