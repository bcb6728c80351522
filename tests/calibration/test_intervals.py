"""Intervals hold what they state, on subjects that they were not fitted on, and say so honestly."""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.datasets.split import Part, Split
from edgefetal_calibration.evaluate import CaseResult, evaluate_heads
from edgefetal_calibration.intervals import (
    LEVEL,
    MIN_BAND,
    _fit_bands,
    _intraclass_correlation,
    binomial_band,
    conformal_half_width,
    coverage,
    fit_intervals,
    halves,
    risk_coverage,
    unused,
)
from edgefetal_runtime.biometry.interval import frame_half_width
from edgefetal_runtime.infer.bundle import IntervalBand, Intervals
from edgefetal_runtime.infer.network import load_network

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgefetal_runtime.infer.bundle import Bundle


@dataclass(frozen=True)
class Labelled:
    """A picture of a subject; its content is its own whatever it is called."""

    name: str
    subject: str
    content: str = ""

    def digest(self) -> str:
        return hashlib.sha256((self.content or self.name).encode()).hexdigest()


def result(
    true_mm: float,
    error_mm: float | None,
    *,
    subject: str = "a",
    agreement: float | None = 0.9,
    half_width_mm: float | None = None,
) -> CaseResult:
    measured = {} if error_mm is None else {"HC": true_mm + error_mm}
    held = {n: (v - half_width_mm, v + half_width_mm) for n, v in measured.items()} if half_width_mm is not None else {}
    return CaseResult(
        name=f"{subject}.png",
        subject=subject,
        truth={"HC": true_mm},
        measured=measured,
        intervals=held,
        abstained=None if measured else "no head is outlined",
        plane_probability=1.0,
        agreement=agreement,
        roughness=0.01,
        coverage=1.0,
        dice=0.9,
        seconds=0.02,
    )


def fitted(results: Sequence[CaseResult], level: float = LEVEL) -> Intervals | None:
    return fit_intervals(results, [f"{k:064x}" for k in range(len(results))], dataset="hc18", level=level)


# The quantile


@pytest.mark.parametrize(
    ("errors", "level", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], 0.9, 9),  # rank 9 of 9
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.9, 10),  # rank 9.9 is rounded up
        (list(range(1, 20)), 0.9, 18),  # rank 18 of 19
        (list(range(1, 100)), 0.9, 90),
        ([3, -1, 2], 0.5, 2),  # by absolute value, in any order
        ([-7.5], 0.5, 7.5),
        ([2.0] * 30, 0.9, 2.0),
    ],
)
def test_half_width_is_the_ranked_error(errors: list[float], level: float, expected: float) -> None:
    assert conformal_half_width(errors, level) == expected


@pytest.mark.parametrize(("n", "level"), [(0, 0.9), (1, 0.9), (8, 0.9), (18, 0.95), (98, 0.99), (0, 0.5)])
def test_too_few_errors_hold_nothing(n: int, level: float) -> None:
    assert conformal_half_width([1.0] * n, level) is None


@pytest.mark.parametrize(("n", "level"), [(9, 0.9), (19, 0.95), (99, 0.99), (1, 0.5)])
def test_one_more_is_enough_for_the_largest(n: int, level: float) -> None:
    assert conformal_half_width([float(k) for k in range(1, n + 1)], level) == n


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=300), st.sampled_from([50, 80, 90, 95]))
def test_half_width_is_the_least_that_holds_enough(errors: list[float], percent: int) -> None:
    """Compared with exact arithmetic, because the rank is a ceiling of a product of floats."""
    need = math.ceil(Fraction(percent, 100) * (len(errors) + 1))
    half_width = conformal_half_width(errors, percent / 100)
    if need > len(errors):
        assert half_width is None
        return
    assert half_width is not None
    assert sum(abs(e) <= half_width for e in errors) >= need
    assert sum(abs(e) < half_width for e in errors) < need


def test_coverage_of_new_errors_is_the_level() -> None:
    """Skewed, heavy-tailed, biased errors: whatever their distribution, as long as old and new are exchangeable."""
    rng = np.random.default_rng(11)
    draws, n = 1000, 57
    inside = 0
    for _ in range(draws):
        errors = rng.standard_t(2.5, n + 1) ** 3 + 0.7
        half_width = conformal_half_width(errors[:n].tolist(), LEVEL)
        assert half_width is not None
        inside += abs(errors[n]) <= half_width
    # For errors without ties the coverage is exactly this rank's share.
    exact = math.ceil(LEVEL * (n + 1)) / (n + 1)
    low, high = binomial_band(draws, exact)
    assert low <= inside <= high
    assert exact >= LEVEL


def test_coverage_by_bands_is_the_level_in_each() -> None:
    """Errors that grow with the head: one half width for all would hold too many small heads and too few large."""
    rng = np.random.default_rng(12)
    draws, counts = 1000, {"small": [0, 0], "large": [0, 0]}
    for _ in range(draws):
        measured = rng.uniform(60, 300, 61)
        errors = rng.normal(0, measured / 50)
        bands = _fit_bands(list(zip(measured[:60], errors[:60], strict=True)), (100.0, 200.0), LEVEL)
        intervals = Intervals(
            level=LEVEL, dataset="x", n_subjects=60, subjects=(), digests=(), shared=1.0, bands={"HC": bands}
        )
        half_width = frame_half_width(intervals, "HC", measured[60])
        assert half_width is not None
        of_size = counts["small" if measured[60] < 200 else "large"]
        of_size[0] += abs(errors[60]) <= half_width
        of_size[1] += 1
    for inside, n in counts.values():
        # Finite bands hold a little more than the level: at most one in the smallest band's size plus one.
        assert inside >= binomial_band(n, LEVEL)[0]
        assert inside <= binomial_band(n, LEVEL + 1 / (MIN_BAND + 1))[1]


# The binomial band


@pytest.mark.parametrize(("n", "percent"), [(1, 90), (7, 90), (20, 90), (63, 90), (100, 50), (40, 95), (10, 10)])
def test_binomial_band_against_exact_sums(n: int, percent: int) -> None:
    p, tail = Fraction(percent, 100), Fraction(25, 1000)
    shares = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    low, high = binomial_band(n, percent / 100)
    assert sum(shares[:low]) <= tail
    assert sum(shares[: low + 1]) > tail
    assert sum(shares[high + 1 :]) <= tail
    assert sum(shares[high:]) > tail


def test_binomial_band_of_a_large_set() -> None:
    """HC18 has 999 labelled pictures and other sets have more; the normal approximation is good to a case there."""
    for n in (999, 1500, 20_000):
        low, high = binomial_band(n, 0.9)
        spread = 1.96 * math.sqrt(n * 0.9 * 0.1)
        assert low == pytest.approx(0.9 * n - spread, abs=2)
        assert high == pytest.approx(0.9 * n + spread, abs=2)


# Bands


def bands(*groups: tuple[float, int]) -> tuple[IntervalBand, ...]:
    """Fit bands to groups of (measured value, how many), whose errors are 1 to n tenths."""
    values = [
        (value, sign * k / 10) for value, n in groups for k, sign in zip(range(1, n + 1), itertools.cycle((1, -1)))
    ]
    return _fit_bands(values, (100.0, 200.0), LEVEL)


def test_each_band_has_its_own_half_width() -> None:
    assert bands((80, 10), (150, 19), (250, 29)) == (
        IntervalBand(below=100.0, half_width=1.0, n=10),
        IntervalBand(below=200.0, half_width=1.8, n=19),
        IntervalBand(below=None, half_width=2.7, n=29),
    )


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (((80, 9), (150, 20), (250, 20)), [(200.0, 29), (None, 20)]),
        (((80, 20), (150, 9), (250, 20)), [(100.0, 20), (None, 29)]),
        (((80, 20), (150, 20), (250, 9)), [(100.0, 20), (None, 29)]),
        (((80, 20), (150, 4), (250, 4)), [(None, 28)]),
        (((80, 4), (150, 4), (250, 4)), [(None, 12)]),
        (((80, 3), (150, 3), (250, 3)), [(None, 9)]),
        (((250, 20),), [(None, 20)]),
        (((80, 20),), [(None, 20)]),
        (((100, 20), (200, 20)), [(200.0, 20), (None, 20)]),
    ],
)
def test_bands_with_too_few_join_a_neighbour(
    groups: tuple[tuple[float, int], ...], expected: list[tuple[float | None, int]]
) -> None:
    assert [(band.below, band.n) for band in bands(*groups)] == expected


def test_too_few_values_in_all_make_no_band() -> None:
    assert bands((80, 3), (150, 3), (250, 2)) == ()
    assert bands() == ()


@given(st.lists(st.tuples(st.floats(40, 400), st.floats(-9, 9).filter(lambda e: abs(e) > 0.01)), max_size=120))
def test_bands_are_in_order_and_lose_no_value(values: list[tuple[float, float]]) -> None:
    made = _fit_bands(values, (100.0, 200.0), LEVEL)
    if len(values) < 9:
        assert made == ()
        return
    assert sum(band.n for band in made) == len(values)
    assert made[-1].below is None
    uppers = [band.below for band in made[:-1]]
    assert uppers == sorted(u for u in uppers if u is not None)
    assert all(band.n >= MIN_BAND for band in made) or len(made) == 1


# The tables of a bundle


def test_tables_name_what_they_were_fitted_on() -> None:
    results = [result(150.0, k / 8, subject=f"{k:03d}") for k in range(-1, 9)]
    refused = [result(150.0, None, subject="refused")]
    tables = fitted(results + refused)
    assert tables is not None
    assert (tables.level, tables.dataset) == (0.9, "hc18")
    assert tables.n_subjects == 11
    assert set(tables.subjects) == {r.subject for r in results} | {"refused"}
    assert len(tables.digests) == 11
    assert tables.bands == {"HC": (IntervalBand(below=None, half_width=1.0, n=10),)}
    assert Intervals.model_validate_json(tables.model_dump_json()) == tables


def test_without_enough_heads_there_are_no_tables() -> None:
    assert fitted([result(150.0, 1.0)] * 8) is None
    assert fitted([result(150.0, None)] * 50) is None
    assert fitted([]) is None


# Who is fitted on and who is judged on

names = st.lists(st.text("0123456789", min_size=1, max_size=4), max_size=60)


@given(names, st.integers(1, 4))
def test_halves_never_share_a_subject(subjects: list[str], per_subject: int) -> None:
    cases = [Labelled(f"{s}_{k}", s) for s in subjects for k in range(per_subject)]
    fitting, judging = halves(cases)
    a, b = {c.subject for c in fitting}, {c.subject for c in judging}
    assert not a & b
    assert a | b == set(subjects)
    assert 0 <= len(b) - len(a) <= 1
    assert sorted(map(id, fitting + judging)) == sorted(map(id, cases))


@given(st.sets(st.text("0123456789", min_size=1, max_size=4), min_size=2, max_size=40), st.randoms())
def test_halves_depend_on_names_only(subjects: set[str], shuffler: object) -> None:
    cases = [Labelled(s, s) for s in sorted(subjects)]
    fitting, _ = halves(cases)
    shuffled = cases[:]
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    other = [replace(case, content="other pictures " + case.name, name="again " + case.name) for case in shuffled]
    assert {c.subject for c in halves(shuffled)[0]} == {c.subject for c in fitting}
    assert {c.subject for c in halves(other)[0]} == {c.subject for c in fitting}


def test_pictures_that_were_fitted_on_are_known_under_other_names() -> None:
    cases = [Labelled(f"{s}_{k}", s, f"picture {s}_{k}") for s in "abcdef" for k in range(2)]
    fitting, judging = halves(cases)
    tables = Intervals(
        level=0.9,
        dataset="hc18",
        n_subjects=3,
        subjects=tuple(sorted({c.subject for c in fitting})),
        digests=tuple(c.digest() for c in fitting),
        shared=1.0,
        bands={},
    )
    assert unused(cases, tables) == judging
    renamed = [Labelled("9" + c.name, "9" + c.subject, c.content) for c in cases]
    assert [c.content for c in unused(renamed, tables)] == [c.content for c in judging]
    # A further picture of a subject that was fitted on is not fresh either.
    later = Labelled("later", fitting[0].subject, "taken later")
    assert later not in unused([*cases, later], tables)
    # Another hospital's numbers mean nothing.
    strangers = [Labelled(c.name, c.subject, "elsewhere " + c.content) for c in cases]
    assert unused(strangers, tables) == strangers


# What the pictures of one examination share


def _shared(subject_sd: float, own_sd: float, subjects: int, pictures: int, seed: int = 5) -> float:
    rng = np.random.default_rng(seed)
    results = [
        result(200.0, 200 * float(common + rng.normal(0, own_sd)), subject=f"{s:03d}")
        for s, common in enumerate(rng.normal(0, subject_sd, subjects))
        for _ in range(pictures)
    ]
    tables = fitted(results)
    assert tables is not None
    return tables.shared


def test_few_repeats_share_everything() -> None:
    assert _shared(0.0, 0.01, subjects=200, pictures=1) == 1.0
    assert _shared(0.0, 0.01, subjects=9, pictures=4) == 1.0
    assert _shared(0.0, 0.01, subjects=10, pictures=4) < 1.0


def test_independent_errors_share_little_and_common_ones_nearly_all() -> None:
    independent, mixed, common = (
        _shared(*sds, subjects=100, pictures=4) for sds in ((0.0, 0.01), (0.01, 0.01), (0.01, 0.001))
    )
    assert 0 <= independent < 0.15
    # An upper bound of a true half.
    assert 0.5 <= mixed < 0.75
    assert common > 0.97


def test_the_shared_part_is_an_upper_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The true value is 0.5; a 95 % bound is below it in about one draw of twenty."""
    monkeypatch.setattr("edgefetal_calibration.intervals._RESAMPLES", 200)
    bounds = [_shared(0.01, 0.01, subjects=40, pictures=3, seed=seed) for seed in range(60)]
    assert np.mean([bound >= 0.5 for bound in bounds]) > 0.85


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        # MSB 4, MSW 1/2, two a group: (4 - 1/2) / (4 + 1/2).
        ([[1, 2], [3, 4]], 7 / 9),
        # Sizes 2 and 3: MSB 6/5, MSW 8/3, typical size (5 - 13/5) / 1 = 12/5.
        ([[0, 2], [1, 1, 4]], -11 / 37),
        # Nothing varies within.
        ([[1, 1], [3, 3]], 1.0),
        # Nothing varies between: -1 / (k - 1) at two a group.
        ([[1, 3], [1, 3]], -1.0),
        ([[2, 2], [2, 2]], 1.0),
    ],
)
def test_intraclass_correlation_by_hand(groups: list[list[float]], expected: float) -> None:
    assert _intraclass_correlation([np.array(g, float) for g in groups]) == pytest.approx(expected)


def test_intraclass_correlation_of_the_published_example() -> None:
    """Shrout and Fleiss 1979, tables 2 and 4: six targets, four judges, ICC(1, 1) = 0.17."""
    targets = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert _intraclass_correlation([np.array(t, float) for t in targets]) == pytest.approx(0.166, abs=0.0005)


# What is reported


def test_coverage_by_hand() -> None:
    results = [
        result(90.0, 1.0, subject="a", half_width_mm=2.0),
        result(150.0, 3.0, subject="a", half_width_mm=2.0),
        result(150.0, -4.0, subject="b", half_width_mm=4.0),  # the end counts as held
        result(250.0, 0.0, subject="c", half_width_mm=1.0),
        result(250.0, None, subject="d"),  # refused: neither held nor lost
        result(250.0, 1.0, subject="e"),  # measured without an interval: likewise
    ]
    ((name, table),) = coverage(results, 0.9).items()
    assert name == "HC"
    low, high = binomial_band(4, 0.9)
    assert {key: table[key] for key in table if key != "by_size"} == {
        "n": 4,
        "n_subjects": 3,
        "level": 0.9,
        "covered": 3,
        "share": 0.75,
        "expected": [low, high],
        "within_binomial_band": low <= 3 <= high,
        "mean_width": pytest.approx(4.5),
    }
    assert table["by_size"] == [
        {"from": 0.0, "below": 100.0, "n": 1, "covered": 1},
        {"from": 100.0, "below": 200.0, "n": 2, "covered": 1},
        {"from": 200.0, "below": None, "n": 1, "covered": 1},
    ]


def test_coverage_of_nothing_is_empty() -> None:
    assert coverage([], 0.9) == {}
    assert coverage([result(150.0, 1.0), result(150.0, None)], 0.9) == {}


def test_intervals_that_are_too_narrow_are_found_out() -> None:
    narrow = [result(150.0, k / 10, subject=str(k), half_width_mm=5.0) for k in range(100)]
    table = coverage(narrow, 0.9)["HC"]
    assert (table["covered"], table["within_binomial_band"]) == (51, False)


def test_risk_coverage_by_hand() -> None:
    results = [
        result(100.0, 4.0, agreement=0.7),
        result(200.0, -1.0, agreement=0.99),
        result(200.0, 3.0, agreement=0.9),
        result(200.0, None, agreement=None),
        result(200.0, None, agreement=0.95),
    ]
    points = risk_coverage(results)
    assert [p["kept"] for p in points] == [3, 2, 1]
    # Two of five were refused before anything was chosen.
    assert [p["abstained"] for p in points] == pytest.approx([0.4, 0.6, 0.8])
    assert [p["hc_mae_mm"] for p in points] == pytest.approx([8 / 3, 2.0, 1.0])
    assert [p["hc_mean_relative_error"] for p in points] == pytest.approx([(0.04 + 0.015 + 0.005) / 3, 0.01, 0.005])


def test_risk_coverage_of_nothing_measured() -> None:
    assert risk_coverage([result(200.0, None)] * 3) == []
    assert risk_coverage([]) == []


@given(
    st.lists(
        st.tuples(st.floats(50, 340), st.none() | st.floats(-20, 20), st.none() | st.floats(0, 1)),
        min_size=1,
        max_size=40,
    )
)
def test_risk_coverage_keeps_its_books(cases: list[tuple[float, float | None, float | None]]) -> None:
    results = [result(true_mm, error_mm, agreement=agreement) for true_mm, error_mm, agreement in cases]
    measured = [r for r in results if r.hc_mm is not None]
    points = risk_coverage(results)
    assert [p["kept"] for p in points] == list(range(len(measured), 0, -1))
    shares = [p["abstained"] for p in points]
    assert all(a < b for a, b in itertools.pairwise(shares))
    assert all(0 <= share < 1 for share in shares)
    if measured:
        assert shares[0] == pytest.approx(1 - len(measured) / len(results))
        # The first point is of all that were measured, in whatever order.
        errors = [abs(r.hc_mm - r.hc_true_mm) for r in measured if r.hc_mm is not None]
        assert points[0]["hc_mae_mm"] == pytest.approx(np.mean(errors))


# Real heads


def test_the_starter_s_intervals_hold_on_heads_that_they_were_not_fitted_on(hc18_root: Path, starter: Bundle) -> None:
    """Held-out subjects of HC18: half of them gave the intervals, and these are the others."""
    intervals = starter.manifest.intervals
    assert intervals is not None
    split = Split.model_validate_json(starter.read("split.json"))
    held_out = split.select(read_hc18(hc18_root), Part.HELD_OUT)
    fresh = unused(held_out, intervals)
    assert fresh == halves(held_out)[1]
    assert not {case.subject for case in fresh} & set(intervals.subjects)
    results = evaluate_heads({"shipped": load_network(starter)}, fresh)["shipped"]
    table = coverage(results, intervals.level)["HC"]
    assert table["n"] >= 50
    assert table["expected"][0] <= table["covered"] <= table["expected"][1]
    # An interval that spans the whole range of heads would hold too, and say nothing.
    assert table["mean_width"] < 20
