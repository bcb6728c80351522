"""Percentiles, the warm-up's rule, and whether the interval keeps its word on times like those of a busy machine."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_runtime.bench.statistics import (
    LEVEL,
    Interval,
    block_ratio,
    is_warm,
    least_values,
    median_interval,
    percentiles,
)

BLOCKS, ROUNDS, REPEATS = 12, 40, 200


def test_percentiles_of_known_times() -> None:
    of = percentiles([0.001 * k for k in range(1, 101)])
    assert (of.n, of.mean, of.p50, of.max) == pytest.approx((100, 50.5, 50.5, 100.0))
    assert (of.p90, of.p95, of.p99) == pytest.approx((90.1, 95.05, 99.01))
    assert of.jitter == pytest.approx(1.0)


def test_jitter_is_of_neighbours_and_not_of_the_spread() -> None:
    assert percentiles([0.010, 0.010, 0.030, 0.030]).jitter == pytest.approx(20 / 3)
    assert percentiles([0.010, 0.030, 0.010, 0.030]).jitter == pytest.approx(20.0)
    assert percentiles([0.010]).jitter == 0.0


def test_few_times_have_no_99th_percentile() -> None:
    assert percentiles([0.01] * 99).p99 is None


def test_the_interval_lies_between_sorted_values_that_are_known() -> None:
    """2 * (1 + 12) / 2**12 is 0.6 %, and with the next one, 2 * 79 / 2**12, it is 3.9 %."""
    of = median_interval(range(12))
    assert (of.median, of.low, of.high, of.n, of.level) == (5.5, 1.0, 10.0, 12, LEVEL)
    of = median_interval(range(12), level=0.95)
    assert (of.low, of.high) == (2.0, 9.0)


def test_too_few_values_have_no_interval() -> None:
    assert least_values() == 8
    assert median_interval(range(8)).low == 0.0
    assert median_interval(range(7)).low is None
    assert median_interval([2.0]) == Interval(2.0, None, None, LEVEL, 1)


@given(st.integers(2, 40), st.sampled_from([0.9, 0.95, 0.99, 0.999]))
def test_there_is_an_interval_exactly_from_the_least_number_on(n: int, level: float) -> None:
    of = median_interval(np.arange(n), level)
    assert (of.low is not None) == (n >= least_values(level))
    if of.low is not None and of.high is not None:
        k = int(of.low)
        assert of.high == n - 1 - k
        assert 2 * sum(math.comb(n, j) for j in range(k + 1)) / 2**n <= 1 - level
        assert 2 * sum(math.comb(n, j) for j in range(k + 2)) / 2**n > 1 - level or 2 * (k + 1) >= n - 1


@pytest.mark.parametrize(("low", "high", "side"), [(0.9, 1.1, 0), (1.01, 1.2, 1), (0.8, 0.99, -1), (None, None, 0)])
def test_side(low: float | None, high: float | None, side: int) -> None:
    assert Interval(1.0, low, high, LEVEL, 12).side() == side


def test_being_first_falls_out_of_a_block() -> None:
    """The second of each round is half as fast again, and both sides are equally fast."""
    first, second = 1.0, 1.5
    assert block_ratio([first, second] * 10, [second, first] * 10) == pytest.approx(1.0)
    assert block_ratio([2 * first, 2 * second] * 10, [second, first] * 10) == pytest.approx(2.0)


def test_the_ratio_says_how_many_times_as_fast_the_second_is() -> None:
    assert block_ratio([3.0] * 6, [1.0, 1.0, 100.0, 1.0, 1.0, 1.0]) == pytest.approx(3.0)


def test_a_warm_up_ends_when_two_windows_agree() -> None:
    falling = [2.0 - 0.05 * k for k in range(20)]
    assert not is_warm(falling)
    assert not is_warm([1.0] * 19)
    assert is_warm([1.0] * 20)
    assert is_warm([*falling, *[1.05] * 10, *[1.06] * 10])
    assert not is_warm([*[1.0] * 10, *[1.04] * 10])


def busy_machine(rng: np.random.Generator, slowdown: float, noise: float) -> Interval:
    """Simulate a run: how many times as fast a side is as one that takes `slowdown` times as long."""
    ratios = []
    for _ in range(BLOCKS):
        # Where each graph lies in memory, for as long as it lies there.
        place = np.exp(rng.normal(0, 0.005, 2))
        drift = np.exp(np.linspace(0, rng.normal(0, 0.3), 2 * ROUNDS))
        # Bursts that outlast a run, and runs that lose their core: never shorter, often longer.
        burst = np.repeat(1 + 2 * (rng.random(2 * ROUNDS // 10) < 0.3), 10)
        lost = 1 + np.where(rng.random(2 * ROUNDS) < 0.2, rng.exponential(1.0, 2 * ROUNDS), 0.0)
        turns = np.exp(rng.normal(0, noise, 2 * ROUNDS)) * drift * burst * lost
        # The first turn of each round pays for what the other left in the caches.
        turns[::2] *= 1.03
        first, second = turns[::2], turns[1::2]
        swapped = np.arange(ROUNDS) % 2 == 1
        a = np.where(swapped, second, first) * place[0]
        b = np.where(swapped, first, second) * place[1] * slowdown
        ratios.append(block_ratio(b, a))
    return median_interval(ratios)


def test_the_interval_holds_1_of_a_side_against_itself() -> None:
    rng = np.random.default_rng(1)
    held = np.mean([busy_machine(rng, 1.0, 0.05).side() == 0 for _ in range(REPEATS)])
    # In 20 repeats one may miss; the interval promises better.
    assert held >= 0.97


def test_a_planted_slowdown_of_5_per_cent_is_found() -> None:
    rng = np.random.default_rng(2)
    found = [busy_machine(rng, 1.05, 0.05) for _ in range(REPEATS)]
    assert np.mean([of.side() == 1 for of in found]) >= 0.95
    assert np.median([of.median for of in found]) == pytest.approx(1.05, abs=0.005)


def test_rounds_that_depend_on_one_another_do_not_narrow_the_interval() -> None:
    """Each block has a ratio of its own by 3 %: pooling their rounds would show a difference that is none."""
    rng = np.random.default_rng(3)
    held = []
    for _ in range(REPEATS):
        blocks = np.exp(rng.normal(0, 0.03, BLOCKS))
        held.append(median_interval([block_ratio(np.full(4, b), np.ones(4)) for b in blocks]).side() == 0)
    assert np.mean(held) >= 0.97
