"""The ring's bench, once and with few images: what must never fail is judged, times are not."""

from __future__ import annotations

from judged import missed

from mutoscope.bench import ring


def test_ring_bench_runs_and_loses_nothing() -> None:
    report = ring.run(quick=True)
    assert missed(report) == []
    names = [result.name for result in report.results]
    assert any("2048 x 2048" in name for name in names)
    lost = next(result for result in report.results if result.name.endswith("frames lost"))
    assert lost.counts
    assert lost.passed
