"""The fit between ticks, monotonic time and UTC finds known clocks and says how well."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mutoscope.model import ClockFit

UTC = 1_769_860_800_000_000_000
MONOTONIC = 86_400_000_000_000
PERIOD = 5_000_123  # ns: a camera clock that runs 24.6 ppm slow


def stamps(count, *, jitter_ns=0.0, late=0.0, seed=1, drift=0.0):
    random = np.random.default_rng(seed)
    ticks = np.arange(1, count + 1)
    monotonic = MONOTONIC + ticks * PERIOD
    noise = random.normal(0, jitter_ns, count) if jitter_ns else np.zeros(count)
    if late:
        noise = noise + (random.random(count) < late) * random.exponential(50 * jitter_ns, count)
    stamped = monotonic + np.rint(noise).astype(np.int64)
    utc = UTC + (stamped - MONOTONIC) + np.rint((stamped - MONOTONIC) * drift).astype(np.int64)
    return ticks, stamped, utc


def test_an_exact_clock_is_found_exactly():
    fit = ClockFit()
    fit.add_many(*stamps(1000))
    relation = fit.tick_to_monotonic
    assert relation.rate == pytest.approx(PERIOD, abs=1e-6)
    assert relation.predict(1_000_000) == MONOTONIC + 1_000_000 * PERIOD
    assert relation.invert(MONOTONIC + 77 * PERIOD) == pytest.approx(77, abs=1e-6)
    assert max(abs(value) for value in relation.residual_quantiles.values()) < 1e-3
    assert fit.monotonic_to_utc.predict(MONOTONIC + 5 * PERIOD) == UTC + 5 * PERIOD


def test_late_wake_ups_do_not_bend_the_line():
    fit = ClockFit()
    fit.add_many(*stamps(2000, jitter_ns=20_000, late=0.1))
    relation = fit.tick_to_monotonic
    assert abs(relation.rate - PERIOD) < 5 * relation.rate_error
    assert relation.rate_error < 5.0
    ticks, stamped, _ = stamps(2000, jitter_ns=20_000, late=0.1)
    least_squares = np.polyfit(ticks - ticks[0], (stamped - stamped[0]).astype(float), 1)[0]
    assert abs(relation.rate - PERIOD) < abs(least_squares - PERIOD), "the robust line is nearer than least squares"


def test_the_stated_error_is_the_scatter_of_repeated_fits():
    rates, stated = [], []
    for seed in range(120):
        fit = ClockFit()
        fit.add_many(*stamps(400, jitter_ns=20_000, seed=seed))
        rates.append(fit.tick_to_monotonic.rate)
        stated.append(fit.tick_to_monotonic.rate_error)
    scatter = np.std(rates, ddof=1)
    assert 0.7 < np.median(stated) / scatter < 1.4
    assert abs(np.mean(rates) - PERIOD) < 4 * scatter / np.sqrt(len(rates))


def test_a_drifting_utc_is_seen():
    fit = ClockFit()
    fit.add_many(*stamps(2000, jitter_ns=1000, drift=12e-6))
    assert fit.monotonic_to_utc.rate - 1.0 == pytest.approx(12e-6, abs=1e-9)
    assert fit.utc_steps == 0


def test_a_stepped_utc_is_counted():
    fit = ClockFit()
    ticks, monotonic, utc = stamps(300)
    utc[200:] += 250_000_000
    fit.add_many(ticks, monotonic, utc)
    assert fit.utc_steps == 1
    assert fit.monotonic_to_utc.residual_quantiles["1.0"] > 100_000_000, "the step shows in the residuals"


def test_memory_is_bounded_and_the_whole_run_is_covered():
    fit = ClockFit(capacity=64)
    fit.add_many(*stamps(50_000, jitter_ns=20_000))
    relation = fit.tick_to_monotonic
    assert 32 <= relation.kept <= 64
    assert relation.samples == fit.samples == 50_000
    assert abs(relation.rate - PERIOD) < 5 * relation.rate_error
    assert relation.rate_error < 0.5, "the kept samples span the run"


def test_a_restarted_camera_begins_a_segment():
    fit = ClockFit()
    ticks, monotonic, utc = stamps(100)
    fit.add_many(ticks, monotonic, utc)
    fit.add_many(ticks, monotonic + 10_000_000_000, utc + 10_000_000_000)
    record = fit.to_dict()
    assert record["segments"] == 2
    assert [line["samples"] for line in record["tick_to_monotonic_ns"]] == [100, 100]
    assert fit.tick_to_monotonic.predict(1) == MONOTONIC + PERIOD + 10_000_000_000
    assert json.loads(json.dumps(record)) == record


def test_many_restarts_stay_bounded():
    fit = ClockFit()
    ticks, monotonic, utc = stamps(5)
    for restart in range(200):
        fit.add_many(ticks, monotonic + restart * 10**9, utc + restart * 10**9)
    record = fit.to_dict()
    assert record["segments"] == 200
    assert len(record["tick_to_monotonic_ns"]) <= 33


def test_a_camera_without_ticks_has_the_utc_relation_only():
    fit = ClockFit()
    _, monotonic, utc = stamps(50)
    fit.add_many(np.zeros(50, int), monotonic, utc)
    assert fit.tick_to_monotonic is None
    assert fit.monotonic_to_utc is not None
    assert fit.to_dict()["segments"] == 0


def test_too_few_samples_give_no_line():
    fit = ClockFit()
    fit.add(1, MONOTONIC, UTC)
    fit.add(2, MONOTONIC + PERIOD, UTC + PERIOD)
    assert fit.tick_to_monotonic is None
    assert fit.to_dict()["tick_to_monotonic_ns"] == []
    still = ClockFit()
    for tick in range(1, 10):
        still.add(tick, MONOTONIC, UTC)
    assert still.monotonic_to_utc is None, "a clock that stands still has no rate"
    with pytest.raises(ValueError, match="at least 16"):
        ClockFit(capacity=3)
