"""Intervals fitted and judged on subjects that were used for nothing else.

Split-conformal prediction (Vovk, Gammerman and Shafer 2005): the half width of an interval is that quantile of the
absolute errors on the fitting subjects which holds a new one at the stated level, whatever the errors' distribution, as
long as the new picture is drawn like the fitting ones. So a site with other probes or operators fits its own.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefetal_runtime.biometry.quantities import BPD, CEPHALIC_INDEX, HC, OFD
from edgefetal_runtime.infer.bundle import IntervalBand, Intervals

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgefetal_calibration.datasets.split import CaseT
    from edgefetal_calibration.evaluate import CaseResult

LEVEL = 0.90

# Bands of the measured value: an error in mm grows with what is measured. Those of BPD and OFD are HC's for a head of
# the usual proportions.
BAND_EDGES: dict[str, tuple[float, ...]] = {
    HC.name: (100.0, 200.0),
    BPD.name: (28.0, 56.0),
    OFD.name: (35.0, 70.0),
    CEPHALIC_INDEX.name: (),
}
# A band of fewer values is merged with its neighbour; at 90 % a quantile of fewer than nine does not even exist.
MIN_BAND = 10

# Fewer subjects with several pictures than this say nothing about what their errors share, and all of it counts as
# shared.
_MIN_REPEATED = 10
_RESAMPLES = 2000
_CONFIDENCE = 0.95


def halves(cases: Iterable[CaseT]) -> tuple[list[CaseT], list[CaseT]]:
    """Divide cases by subject into those that intervals are fitted on and those that they are judged on.

    Subjects are ranked by a hash of their name, so that nothing else decides.
    """
    cases = list(cases)
    subjects = sorted(
        {case.subject for case in cases}, key=lambda name: hashlib.sha256(f"intervals:{name}".encode()).digest()
    )
    fitting = set(subjects[: len(subjects) // 2])
    return [c for c in cases if c.subject in fitting], [c for c in cases if c.subject not in fitting]


def unused(cases: Sequence[CaseT], intervals: Intervals) -> list[CaseT]:
    """Return the cases of subjects that the intervals were not fitted on; pictures are known by their content."""
    digests = set(intervals.digests)
    fitted = {case.subject for case in cases if case.digest() in digests}
    return [case for case in cases if case.subject not in fitted]


def conformal_half_width(errors: Sequence[float], level: float) -> float | None:
    """Half width that holds a new error at a level, from the absolute values of errors; None where they are too few."""
    rank = math.ceil((len(errors) + 1) * level)
    return sorted(map(abs, errors))[rank - 1] if rank <= len(errors) else None


def fit_intervals(
    results: Sequence[CaseResult], digests: Sequence[str], *, dataset: str, level: float = LEVEL
) -> Intervals | None:
    """Fit the table of every measure.

    Args:
        results: results on the fitting subjects, with the thresholds that ship.
        digests: content hash of each of their pictures.
        dataset: kind of the dataset.
        level: share of the truths that an interval is to hold.

    Returns:
        The tables, or None where there are too few results even for a single band of HC.
    """
    bands = {
        name: of_measure
        for name, edges in BAND_EDGES.items()
        if (of_measure := _fit_bands([_pair(r, name) for r in results if name in r.measured], edges, level))
    }
    if HC.name not in bands:
        return None
    subjects = sorted({r.subject for r in results})
    return Intervals(
        level=level,
        dataset=dataset,
        n_subjects=len(subjects),
        subjects=tuple(subjects),
        digests=tuple(digests),
        shared=_shared_upper_bound(results),
        bands=bands,
    )


def _pair(result: CaseResult, name: str) -> tuple[float, float]:
    """Measured value, and its error."""
    return result.measured[name], result.measured[name] - result.truth[name]


def _fit_bands(values: Sequence[tuple[float, float]], edges: Sequence[float], level: float) -> tuple[IntervalBand, ...]:
    """Fit one half width a band of measured values, from small to large; bands with too few are merged upwards."""
    bounds = (*edges, math.inf)
    groups: list[tuple[float, list[float]]] = []
    low, waiting = 0.0, list[float]()
    for high in bounds:
        waiting += [error for value, error in values if low <= value < high]
        low = high
        if len(waiting) >= MIN_BAND:
            groups.append((high, waiting))
            waiting = []
    if groups:
        # What is left over at the top joins the band below it.
        groups[-1] = (math.inf, groups[-1][1] + waiting)
    elif waiting:
        groups = [(math.inf, waiting)]
    return tuple(
        IntervalBand(below=None if high == math.inf else high, half_width=half_width, n=len(errors))
        for high, errors in groups
        if (half_width := conformal_half_width(errors, level)) is not None
    )


def _shared_upper_bound(results: Sequence[CaseResult]) -> float:
    """Upper bound of the share of HC's error that pictures of one examination have in common.

    One-way random-effects intraclass correlation of the relative error (Shrout and Fleiss 1979), bootstrapped over
    subjects; 1 where too few subjects have several pictures.
    """
    by_subject: dict[str, list[float]] = {}
    for result in results:
        if result.hc_mm is not None:
            by_subject.setdefault(result.subject, []).append(result.hc_mm / result.hc_true_mm - 1)
    repeated = [np.array(errors) for errors in by_subject.values() if len(errors) > 1]
    if len(repeated) < _MIN_REPEATED:
        return 1.0
    rng = np.random.default_rng(0)
    drawn = [
        _intraclass_correlation([repeated[k] for k in rng.integers(len(repeated), size=len(repeated))])
        for _ in range(_RESAMPLES)
    ]
    return float(np.clip(np.quantile(drawn, _CONFIDENCE), 0.0, 1.0))


def _intraclass_correlation(groups: Sequence[np.ndarray[Any, np.dtype[np.float64]]]) -> float:
    """ICC(1) of groups of unequal sizes; 1 where nothing varies."""
    sizes = np.array([len(group) for group in groups])
    means = np.array([group.mean() for group in groups])
    total, count = int(sizes.sum()), len(groups)
    grand = float((sizes * means).sum() / total)
    between = float((sizes * (means - grand) ** 2).sum()) / max(count - 1, 1)
    within = float(sum(((group - group.mean()) ** 2).sum() for group in groups)) / max(total - count, 1)
    typical = (total - float((sizes**2).sum()) / total) / max(count - 1, 1)
    spread = between + (typical - 1) * within
    return (between - within) / spread if spread > 0 else 1.0


def binomial_band(n: int, level: float, confidence: float = _CONFIDENCE) -> tuple[int, int]:
    """Least and most successes of `n` that a true rate of `level` gives, with at most half the rest in either tail."""
    tail = (1 - confidence) / 2
    # Through logarithms, because the coefficients of a large n fit no float.
    shares = [
        math.exp(
            math.lgamma(n + 1)
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(level)
            + (n - k) * math.log1p(-level)
        )
        for k in range(n + 1)
    ]
    below = np.cumsum([0.0, *shares])
    low = int(np.searchsorted(below, tail, side="right")) - 1
    high = int(np.searchsorted(below, 1 - tail, side="left")) - 1
    return max(0, low), min(n, high)


def coverage(results: Sequence[CaseResult], level: float) -> dict[str, dict[str, Any]]:
    """Count how many truths the intervals hold, by measure, beside what chance allows.

    Args:
        results: results on subjects that the intervals were not fitted on, made with the bundle that carries them.
        level: the level that the intervals state.
    """
    table = {}
    for name in BAND_EDGES:
        held = [
            (r.intervals[name][0] <= r.truth[name] <= r.intervals[name][1], r.intervals[name][1] - r.intervals[name][0])
            for r in results
            if name in r.intervals
        ]
        if held:
            n, inside = len(held), sum(hit for hit, _ in held)
            low, high = binomial_band(n, level)
            table[name] = {
                "n": n,
                "n_subjects": len({r.subject for r in results if name in r.intervals}),
                "level": level,
                "covered": inside,
                "share": inside / n,
                "expected": [low, high],
                "within_binomial_band": low <= inside <= high,
                "mean_width": float(np.mean([width for _, width in held])),
                "by_size": _by_size(results, name),
            }
    return table


def _by_size(results: Sequence[CaseResult], name: str) -> list[dict[str, Any]]:
    """Count the truths held in each band of the true size."""
    bounds = (0.0, *BAND_EDGES[name], math.inf)
    counts = []
    for low, high in itertools.pairwise(bounds):
        within = [r for r in results if name in r.intervals and low <= r.truth[name] < high]
        inside = sum(r.intervals[name][0] <= r.truth[name] <= r.intervals[name][1] for r in within)
        counts.append({"from": low, "below": None if high == math.inf else high, "n": len(within), "covered": inside})
    return counts


def risk_coverage(results: Sequence[CaseResult]) -> list[dict[str, float]]:
    """Error of HC against the share of cases refused, if the least sure were refused first.

    How sure a case is, is its agreement between the network's probabilities and the ellipse. Cases that were refused
    anyway come first, with nothing measured on them.

    Returns:
        One point for every number of cases kept, from all that were measured to one: `abstained` share of all cases,
        `kept`, mean absolute error in mm and relative, both over the kept ones.
    """
    measured = sorted(
        ((r.agreement or 0.0, r.hc_mm, r.hc_true_mm) for r in results if r.hc_mm is not None), reverse=True
    )
    errors = np.array([abs(value - truth) for _, value, truth in measured])
    relative = errors / np.array([truth for _, _, truth in measured])
    return [
        {
            "abstained": 1 - kept / len(results),
            "kept": kept,
            "hc_mae_mm": float(errors[:kept].mean()),
            "hc_mean_relative_error": float(relative[:kept].mean()),
        }
        for kept in range(len(measured), 0, -1)
    ]
