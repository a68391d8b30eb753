"""The measuring itself: pairs, order, spread, verdicts, JSON; and that processes of a bench are gone at the end."""

from __future__ import annotations

import io
import json
import os
import time

import msgspec
import numpy as np
import pytest
from rich.console import Console

from mutoscope.bench.harness import MIN_ROUNDS, Bench, Report, Spread, percentile, touched
from mutoscope.bench.peers import Control, Peers, busy, memory_bytes
from mutoscope.model.errors import ConfigError, PeerDiedError


def test_cases_alternate_in_turned_order_after_an_uncounted_warm_up() -> None:
    order: list[str] = []

    def case(name: str) -> float:
        order.append(name)
        return len(order)

    rounds = Bench("b", rounds=3).alternate({"floor": lambda: case("f"), "test": lambda: case("t")})
    assert "".join(order) == "tf" + "ft" + "tf" + "ft"
    assert rounds.of("floor") == [3, 6, 7]
    assert rounds.of("test") == [4, 5, 8]


def test_a_ratio_is_the_median_of_pairs_not_the_pair_of_medians() -> None:
    floor, test = iter([1.0, 10.0, 100.0] * 3), iter([2.0, 30.0, 150.0] * 3)  # each three times, as the machine drifts
    bench = Bench("b", rounds=9)
    rounds = bench.alternate({"floor": lambda: next(floor), "test": lambda: next(test)}, warm_up=False)
    result = bench.ratio("x", rounds, of="test", to="floor", at_least=1.9, at_most=2.1)
    assert (result.ratio.median, result.ratio.smallest, result.ratio.largest, result.ratio.count) == (2.0, 1.5, 3.0, 9)
    assert result.test.median / result.floor.median == 3.0
    assert result.passed is True
    assert bench.ratio("y", rounds, of="test", to="floor", at_most=1.9).passed is False
    assert bench.ratio("z", rounds, of="test", to="floor").passed is None
    assert bench.report().passed is False


@pytest.mark.parametrize(("rounds", "timing"), [(MIN_ROUNDS - 1, True), (MIN_ROUNDS, False)])
def test_too_few_rounds_or_timing_off_judge_no_bound(rounds: int, timing: bool) -> None:
    bench = Bench("b", rounds=rounds, timing=timing)
    measured = bench.alternate({"floor": lambda: 1.0, "test": lambda: 9.0})
    assert len(measured.of("test")) == (rounds if timing else 1)
    assert bench.ratio("slow", measured, of="test", to="floor", at_most=2.0).passed is None
    assert bench.figure("lost", 0, at_most=0, exact=True).passed is True
    assert bench.figure("lost", 3, at_most=0, exact=True).passed is False


def test_several_measures_of_one_run() -> None:
    bench = Bench("b", timing=False)
    rounds = bench.alternate({"floor": lambda: {"p50": 1.0, "p99": 4.0}, "test": lambda: {"p50": 3.0, "p99": 4.0}})
    assert bench.ratio("p50", rounds, of="test", to="floor", measure="p50").ratio.median == 3.0
    assert bench.ratio("p99", rounds, of="test", to="floor", measure="p99").ratio.median == 1.0
    for case, measure in (("test", "p75"), ("other", "p50")):
        with pytest.raises(ConfigError, match="no measure"):
            rounds.of(case, measure)


def test_the_report_says_where_and_how_often_and_survives_json() -> None:
    bench = Bench("copy", rounds=7)
    rounds = bench.alternate({"floor": lambda: 1.0, "test": lambda: 1.25})
    bench.ratio("a copy", rounds, of="test", to="floor", unit="s", at_most=1.5, note="of a page")
    bench.figure("rate", [1.0, 2.0, 3.0], unit="1/s")
    report = bench.report()
    plain = json.loads(report.to_json())
    assert "\n" not in report.to_json()
    assert (plain["passed"], [result["passed"] for result in plain["results"]]) == (True, [True, None])
    assert plain["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    text = io.StringIO()
    report.show(Console(file=text, width=120))
    for words in ("mutoscope bench copy", "1.25 (1.25-1.25)", "<= 1.5", "ok", "7 rounds", "a copy: of a page"):
        assert words in text.getvalue()


def test_no_progress_is_drawn_where_there_is_no_terminal() -> None:
    text = io.StringIO()
    Bench("b", timing=False, console=Console(file=text)).alternate({"floor": lambda: 1.0})
    assert text.getvalue() == ""


def test_quartiles_and_touched_memory() -> None:
    spread = Spread.of([5, 1, 4, 2, 3])
    assert (spread.low, spread.median, spread.high, spread.smallest, spread.largest) == (2, 3, 4, 1, 5)
    assert percentile([0, 10], 50) == 5
    before = memory_bytes(os.getpid(), "RssAnon")
    made = touched((8192, 4096), np.uint16)  # 64 MiB: above the largest block that glibc serves from memory it holds already
    assert (made.shape, made.dtype) == ((8192, 4096), np.uint16)
    assert memory_bytes(os.getpid(), "RssAnon") - before > 0.9 * made.nbytes
    with pytest.raises(ConfigError):
        Bench("b", rounds=0)


def adder(control: Control, start: int) -> None:
    """Add up what it is told."""
    control.say("ready")
    for order in control.orders():
        start += order
        control.say(start)


def raiser(control: Control) -> None:
    """Fail at once."""
    raise SystemExit(3)


def deaf(control: Control) -> None:
    """Never notice that the bench is gone."""
    control.say("ready")
    while True:
        time.sleep(10)


def test_processes_answer_and_are_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    with Peers() as peers:
        one = peers.start(adder, start=1)
        working = peers.start(busy)
        assert (one.ask(2), one.ask(3)) == (3, 6)
        with pytest.raises(PeerDiedError, match="raiser ended with code 3"):
            peers.start(raiser)
        pids = [one.pid, working.pid]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_process_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    with Peers(patience_s=0.1) as peers:
        pid = peers.start(deaf).pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
