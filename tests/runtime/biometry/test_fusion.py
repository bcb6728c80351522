"""Fusion of frames: robust, and no surer than the frames are independent."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_runtime.biometry.fusion import MAX_OUTLIER_SHARE, MIN_SERIES, Fused, effective_frames, fuse
from edgefetal_runtime.biometry.interval import fused_share
from edgefetal_runtime.biometry.measurement import Abstained

LEVEL = 0.9
Series = npt.NDArray[np.float64]


def _ar1(rng: np.random.Generator, count: int, length: int, r: float) -> Series:
    """Stationary first-order autoregressive series of variance 1, shape (count, length)."""
    steps = rng.normal(0, math.sqrt(1 - r * r), (count, length))
    steps[:, 0] = rng.normal(0, 1, count)
    series = np.empty_like(steps)
    series[:, 0] = steps[:, 0]
    for k in range(1, length):
        series[:, k] = r * series[:, k - 1] + steps[:, k]
    return series


def _fused(sweeps: list[Series]) -> Fused:
    fused = fuse(sweeps)
    assert isinstance(fused, Fused), fused
    return fused


@pytest.mark.parametrize(
    ("n", "r"),
    [(30, 0.0), (60, 0.0), (60, 0.5), (60, 0.8), (200, 0.5), (200, 0.9), (400, 0.9), (400, 0.95), (400, 0.0)],
)
def test_effective_frames_of_an_ar1_series_are_at_most_n_times_1_minus_r_over_1_plus_r(n: int, r: float) -> None:
    series = 250 + _ar1(np.random.default_rng(0), 400, n, r)
    found = np.array([effective_frames(one) for one in series])
    true = n * (1 - r) / (1 + r)
    # At the median no more than is true, and no less than 0.4 of it; a single series says more than half as much again
    # in one case of ten at most.
    assert 0.4 * true < np.median(found) <= 1.02 * true
    assert np.quantile(found, 0.9) < 1.6 * true
    assert ((found >= 1) & (found <= n)).all()


def test_a_slow_wander_under_white_noise_is_not_taken_for_independent_frames() -> None:
    # The neighbours' correlation is 0.66, by which 200 frames would be worth 41; they are worth 7.
    rng = np.random.default_rng(0)
    series = 250 + 1.5 * _ar1(rng, 300, 200, 0.95) + rng.normal(0, 1, (300, 200))
    assert np.median([effective_frames(one) for one in series]) < 20


@pytest.mark.parametrize("r", [0.0, 0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("lengths", [(12,), (20,), (40,), (25, 25, 25), (120,)])
def test_the_fused_interval_keeps_its_coverage_where_the_naive_one_does_not(r: float, lengths: tuple[int, ...]) -> None:
    # A frame's error has a part shared by the whole examination, sd 1, and one of its own, sd 2, correlated in time.
    shared_sd, own_sd, count, truth = 1.0, 2.0, 1500, 250.0
    rng = np.random.default_rng(1)
    common = rng.normal(0, shared_sd, count)
    sweeps = [truth + common[:, None] + own_sd * _ar1(rng, count, length, r) for length in lengths]
    single = NormalDist().inv_cdf((1 + LEVEL) / 2) * math.hypot(shared_sd, own_sd)
    share = shared_sd**2 / (shared_sd**2 + own_sd**2)
    inside, naive = [], []
    for k in range(count):
        fused = fuse([sweep[k] for sweep in sweeps])
        if isinstance(fused, Abstained):
            continue
        error = abs(fused.value - truth)
        inside.append(error <= single * fused_share(share, fused.effective_frames))
        naive.append(error <= single / math.sqrt(sum(lengths)))
    assert len(inside) > 0.95 * count
    # Three standard errors of a share of 0.9 in 1500.
    assert np.mean(inside) > LEVEL - 3 * math.sqrt(LEVEL * (1 - LEVEL) / count)
    assert np.mean(naive) < 0.75


def test_more_independent_frames_narrow_the_interval_down_to_what_they_share() -> None:
    shares = [fused_share(0.2, n) for n in (1, 2, 10, 1e9)]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(math.sqrt(0.2))
    assert fused_share(1.0, 100) == 1
    assert fused_share(0.0, 100) == pytest.approx(0.1)


@pytest.mark.parametrize("length", [1, MIN_SERIES - 1, MIN_SERIES, 50])
def test_a_sweep_of_identical_frames_counts_as_one(length: int) -> None:
    fused = _fused([np.full(length, 251.3)])
    assert fused == Fused(251.3, 1.0, ((True,) * length,))


def test_sweeps_of_identical_frames_count_as_one_each() -> None:
    assert _fused([np.full(30, 251.0), np.full(30, 252.0), np.full(30, 251.5)]).effective_frames == 3


def test_a_slow_drift_is_worth_few_frames() -> None:
    assert effective_frames(np.linspace(240, 260, 100)) < 4


def test_a_short_series_counts_as_one_and_an_empty_one_as_none() -> None:
    assert effective_frames(np.array([])) == 0
    assert effective_frames(np.array([3.0])) == 1
    assert effective_frames(np.random.default_rng(0).normal(size=MIN_SERIES - 1)) == 1


def test_outliers_are_left_out() -> None:
    rng = np.random.default_rng(0)
    values = 250 + rng.normal(0, 1, 60)
    wrong = np.zeros(60, bool)
    wrong[[3, 17, 40, 41, 59]] = True
    values[wrong] = (180, 320, 300, 298, 90)
    fused = _fused([values[:30], values[30:]])
    assert [len(kept) for kept in fused.kept] == [30, 30]
    kept = np.concatenate(fused.kept)
    assert not kept[wrong].any()
    assert kept[~wrong].mean() > 0.98
    assert fused.value == pytest.approx(250, abs=0.5)
    assert fused.value == pytest.approx(np.median(values[kept]))


def test_a_frame_beside_equal_ones_is_no_outlier_for_being_a_little_off() -> None:
    assert _fused([np.array([250.0] * 9 + [251.0])]).kept == ((True,) * 10,)
    assert _fused([np.array([250.0] * 9 + [260.0])]).kept == ((True,) * 9 + (False,),)


def test_frames_that_contradict_each_other_give_no_value() -> None:
    fused = fuse([np.array([250.0] * 12 + [200.0] * 8)])
    assert isinstance(fused, Abstained)
    assert fused.reason == "8 of 20 frames contradict the others; sweep again, slowly"


@pytest.mark.parametrize(("wrong", "given"), [(6, True), (7, False)])
def test_a_third_of_the_frames_may_be_wrong_and_no_more(wrong: int, given: bool) -> None:  # noqa: FBT001 - a parameter
    assert (wrong / 20 <= MAX_OUTLIER_SHARE) == given
    assert isinstance(fuse([np.array([250.0] * (20 - wrong) + [400.0] * wrong)]), Fused) == given


@pytest.mark.parametrize("sweeps", [[], [[]], [[], []], [[1.0, math.nan]], [[math.inf]], [[1.0], [-math.inf]]])
def test_where_there_is_no_number_there_is_a_reason(sweeps: list[list[float]]) -> None:
    fused = fuse(sweeps)
    assert isinstance(fused, Abstained)
    assert fused.reason


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    sweeps=st.lists(st.lists(st.floats(1, 1000), max_size=30), min_size=1, max_size=4).filter(
        lambda s: any(map(len, s))
    ),
    factor=st.floats(0.1, 10),
)
def test_fusion_grows_with_its_values_and_stays_within_them(sweeps: list[list[float]], factor: float) -> None:
    fused, larger = fuse(sweeps), fuse([[factor * value for value in sweep] for sweep in sweeps])
    if isinstance(fused, Abstained) or isinstance(larger, Abstained):
        return
    values = [value for sweep in sweeps for value in sweep]
    assert min(values) <= fused.value <= max(values)
    assert 1 <= fused.effective_frames <= len(values)
    assert [len(kept) for kept in fused.kept] == [len(sweep) for sweep in sweeps]
    if fused.kept == larger.kept:
        assert larger.value == pytest.approx(factor * fused.value)
        assert larger.effective_frames == pytest.approx(fused.effective_frames, rel=0.05)
