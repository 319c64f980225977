"""Figures of timed runs: intervals that cover, a warm-up rule that waits, ratios of pairs, what noise is said."""

import dataclasses
import json

import numpy as np
import pytest

from tfcompress.measurement.latency import Latency, Noise, Ratio, bootstrap_interval, is_steady, spread_of

QUIET = Noise(0.01, "performance", (2400.0, 2400.0), 0, 0.5, 0, (50.0, 51.0), cores=4)


def test_interval_holds_the_true_median_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    inside = 0
    for seed in range(100):
        low, high = bootstrap_interval(generator.lognormal(0.0, 0.3, 60), seed=seed)
        inside += low <= 1.0 <= high
    assert inside >= 88  # 95 expected; four standard deviations of a share of 100 below it are 86


def test_interval_is_wider_where_neighbours_are_alike():
    generator = np.random.default_rng(1)
    drifting = np.repeat(generator.normal(10, 1, 30), 10)  # ten equal values in a row are worth about one
    low, high = bootstrap_interval(drifting)
    shuffled = bootstrap_interval(generator.permutation(drifting))
    assert high - low > 1.5 * (shuffled[1] - shuffled[0])


def test_interval_is_the_same_every_time_and_orders_its_ends():
    values = np.random.default_rng(2).random(37)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    low, high = bootstrap_interval(values)
    assert values.min() <= low <= np.median(values) <= high <= values.max()
    assert bootstrap_interval([3.0]) == (3.0, 3.0)


def test_interval_agrees_with_scipy_where_runs_are_independent():
    from scipy.stats import bootstrap

    values = np.random.default_rng(3).normal(10, 1, 1000)
    other = bootstrap((values,), np.median, method="percentile", n_resamples=2000, random_state=0).confidence_interval
    ours = bootstrap_interval(values)
    width = other.high - other.low
    # Medians of resamples are the sample's own values: both ends differ by a few of those.
    assert ours == pytest.approx((other.low, other.high), abs=0.4 * width)


@pytest.mark.parametrize(
    ("times", "steady"),
    [([9, 5, 3] + [1.0] * 10, True), ([1.0] * 9, False), ([1.0, 1.1] * 5, False), ([1.0, 1.01] * 5, True)],
)
def test_steady_looks_at_the_last_ten(times, steady):
    assert is_steady(times) is steady


def test_latency_has_its_interval_and_unknown_percentiles():
    latency = Latency.of(np.linspace(1, 2, 101), warmup_runs=0, load_ms=0, first_ms=0, steady=True)
    assert latency.low_ms < latency.median_ms == 1.5 < latency.high_ms
    without = dataclasses.replace(latency, p90_ms=None, p99_ms=None)
    assert str(without) == "median 1.500 ms (101 runs)"


def test_ratio_is_of_pairs():
    slow = np.array([1.0, 10.0, 2.0])  # a disturbance that meets both files leaves the ratio alone
    ratio = Ratio.of("b", 2 * slow, slow)
    assert (ratio.median, ratio.low, ratio.high, ratio.pairs) == (2.0, 2.0, 2.0, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "quiet"),
        ({"spread": 0.2}, "spread by 20 %"),
        ({"spread": 0.2, "governor": "powersave"}, "governor powersave"),
        ({"governor": "powersave"}, "quiet"),
        ({"throttled": 3}, "throttled"),
        ({"load": 4.5}, "load 4.5 on 4 cores"),
        ({"temperature_c": (50.0, 75.0)}, "from 50 to 75"),
        ({"throttled": None, "load": None, "temperature_c": (None, None), "governor": None}, "quiet"),
    ],
    ids=str,
)
def test_noise_says_what_was_wrong(changes, said):
    noise = dataclasses.replace(QUIET, **changes)
    assert said in str(noise)
    assert Noise.from_json(json.loads(json.dumps(dataclasses.asdict(noise)))) == noise


def test_spread_is_relative():
    assert spread_of([1, 2, 3, 4, 5]) == pytest.approx(spread_of([10, 20, 30, 40, 50])) == pytest.approx(2 / 3)
