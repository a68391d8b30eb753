"""The bench of the bus runs, with few messages and timing off."""

from __future__ import annotations

from mutoscope.bench import bus


def test_the_bench_runs_and_loses_no_command() -> None:
    report = bus.run(quick=True)
    by_name = {result.name: result for result in report.results}
    missing = [result for name, result in by_name.items() if name.endswith("missing")]
    assert len(missing) == 2
    assert all(result.passed for result in missing)
    assert by_name["request from worker to worker, p50"].passed is None
    assert by_name["request from worker to worker of a running scope, p50"].passed is None
    assert report.passed
