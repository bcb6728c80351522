"""How well a score tells frames that show the plane from those that do not: on whole exams, every sweep included.

A figure that is undefined is None: recall where nothing is there to be found, precision where nothing was called, AUROC
where all frames are of one kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgefetal_calibration.datasets.labelled import NOT_THE_PLANE
from edgefetal_devices.errors import DatasetError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledExam, LabelledSweep

    Array = npt.NDArray[np.float64]
    Figures = dict[str, float | None]

METRICS: Final = ("accuracy", "f1", "precision", "recall", "auroc", "auprc", "ece", "brier")
ECE_BINS: Final = 15
_RESAMPLES: Final = 1000
_TAIL: Final = 0.025
# A temperature is looked for from the first to the second of these.
_TEMPERATURES: Final = (0.02, 50.0)
_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_STEPS: Final = 80


@dataclass(frozen=True, eq=False)
class ScoredExam:
    """The scores of an exam beside its grades.

    Args:
        exam: its name.
        subject: whose it is.
        sweep: number of the sweep of each frame, from 0, shape (N,).
        scores: probability that each frame shows the plane, shape (N,).
        grades: of each frame, shape (N,).
    """

    exam: str
    subject: str
    sweep: npt.NDArray[np.intp]
    scores: Array
    grades: npt.NDArray[np.uint8]

    @property
    def truths(self) -> npt.NDArray[np.bool_]:
        """Mark the frames that show the plane, optimal or not, shape (N,)."""
        shown: npt.NDArray[np.bool_] = self.grades != NOT_THE_PLANE
        return shown


def evaluate_quality(
    exams: Iterable[LabelledExam],
    score_sweep: Callable[[LabelledSweep], npt.ArrayLike],
    on_sweep: Callable[[], None] = lambda: None,
) -> list[ScoredExam]:
    """Score every frame of every sweep, a sweep at a time in memory.

    Args:
        exams: graded exams.
        score_sweep: returns the probability that each frame of a sweep shows the plane, shape (N,).
        on_sweep: called after each sweep.

    Raises:
        DatasetError: an exam cannot be read, or nobody graded it.
        InputError: there are not as many scores as frames, or one is no probability.
    """
    return [score_exam(exam, score_sweep, on_sweep) for exam in exams]


def score_exam(
    exam: LabelledExam,
    score_sweep: Callable[[LabelledSweep], npt.ArrayLike],
    on_sweep: Callable[[], None] = lambda: None,
) -> ScoredExam:
    """Score every frame of an exam, as `evaluate_quality` does of many."""
    numbers, scores, grades = list[Any](), list[Any](), list[Any]()
    for number, sweep in enumerate(exam.sweeps()):
        if sweep.grades is None:
            raise DatasetError(
                f"{exam.name}: nobody graded the frames of {sweep.name}, so nothing can be said of a score; give exams "
                "of the abdomen, such as acouslic:PATH or phantom:PATH."
            )
        of_sweep = np.asarray(score_sweep(sweep), np.float64)
        if of_sweep.shape != sweep.grades.shape:
            raise InputError(
                f"{exam.name}, {sweep.name}: {of_sweep.shape} scores for {len(sweep.grades)} frames; give one a frame."
            )
        numbers.append(np.full(len(of_sweep), number))
        scores.append(of_sweep)
        grades.append(sweep.grades)
        on_sweep()
    scored = np.concatenate(scores)
    _check(scored)
    return ScoredExam(exam.name, exam.subject, np.concatenate(numbers), scored, np.concatenate(grades))


def _check(scores: Array) -> None:
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InputError("A score is not between 0 and 1; give probabilities.")


def frame_metrics(scores: Array, truths: npt.NDArray[np.bool_], threshold: float) -> Figures:
    """Return the figures of `METRICS` over frames.

    Args:
        scores: probability that each frame shows the plane, shape (N,).
        truths: whether it does, shape (N,).
        threshold: least score at which a frame is called one that does.

    Raises:
        InputError: a score is no probability.
    """
    _check(scores)
    return _Frames(scores, truths, threshold).figures(np.ones(len(scores)))


class _Frames:
    """Frames in the order of their scores, so that figures of resampled frames need no sorting."""

    def __init__(self, scores: Array, truths: npt.NDArray[np.bool_], threshold: float) -> None:
        self.order = np.argsort(-scores, kind="stable")
        self.scores, self.truths = scores[self.order], truths[self.order].astype(np.float64)
        # Frames of one score are called or not called together: only the last of each such group is a cut.
        self.cuts = np.flatnonzero(np.diff(self.scores, append=-1.0))
        self.called = self.scores >= threshold
        self.bins = np.minimum((self.scores * ECE_BINS).astype(np.intp), ECE_BINS - 1)

    def figures(self, weights: Array) -> Figures:
        """Return the figures where each frame counts as often as its weight says, shape (N,), in the given order."""
        weights = weights[self.order]
        total = float(weights.sum())
        if total == 0:
            return dict.fromkeys(METRICS)
        positive, negative = weights * self.truths, weights * (1 - self.truths)
        positives, negatives = float(positive.sum()), float(negative.sum())
        hits, alarms = float(positive[self.called].sum()), float(negative[self.called].sum())
        misses = positives - hits
        return {
            "accuracy": (hits + negatives - alarms) / total,
            "f1": _ratio(2 * hits, 2 * hits + alarms + misses),
            "precision": _ratio(hits, hits + alarms),
            "recall": _ratio(hits, positives),
            "auroc": self._auroc(positive, negative),
            "auprc": self._auprc(positive, negative),
            "ece": self._ece(weights) / total,
            "brier": float((weights * (self.scores - self.truths) ** 2).sum()) / total,
        }

    def _auroc(self, positive: Array, negative: Array) -> float | None:
        """Area under the curve of recall over false alarms, straight between cuts, which gives ties half."""
        recall, alarms = (np.concatenate(([0.0], np.cumsum(part)[self.cuts])) for part in (positive, negative))
        area = float((np.diff(alarms) * (recall[1:] + recall[:-1])).sum()) / 2
        return _ratio(area, float(recall[-1] * alarms[-1]))

    def _auprc(self, positive: Array, negative: Array) -> float | None:
        """Average precision: the precision at each cut, weighted by the recall that it adds."""
        hits, alarms = (np.cumsum(part)[self.cuts] for part in (positive, negative))
        called = hits + alarms
        precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
        return _ratio(float((np.diff(hits, prepend=0.0) * precision).sum()), float(hits[-1]))

    def _ece(self, weights: Array) -> float:
        """Sum over bins of equal width of |mean score - share of truths|, times the weight of the bin."""
        gaps = np.bincount(self.bins, weights * (self.scores - self.truths), minlength=ECE_BINS)
        return float(np.abs(gaps).sum())


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def best_threshold(scores: Array, truths: npt.NDArray[np.bool_], *, above: float = -1.0) -> float:
    """Return the threshold of the largest F1, which is to be looked for on validation subjects.

    It lies half-way between the least score that is called and the next below, where that is possible.

    Args:
        scores: probability that each frame shows the plane, shape (N,).
        truths: whether it does, shape (N,).
        above: frames whose score is not above this are never called; the threshold is at least the next score seen.

    Raises:
        DatasetError: no frame shows the plane.
        InputError: a score is no probability, or none is above `above`.
    """
    _check(scores)
    if not truths.any():
        raise DatasetError("No validation frame shows the plane, so no threshold can be chosen; give more exams.")
    if not (scores > above).any():
        raise InputError(f"No score is above {above}, so no threshold can be chosen; look at the network first.")
    frames = _Frames(scores, truths, 0.0)
    hits = np.cumsum(frames.truths)[frames.cuts]
    f1 = 2 * hits / (frames.cuts + 1 + frames.truths.sum())
    # Scores fall from cut to cut, so those that may be called come first.
    levels = frames.scores[frames.cuts]
    levels = levels[levels > above]
    # Of equal F1 the highest score, which calls the fewest frames.
    best = int(np.argmax(f1[: len(levels)]))
    lowest = float(levels[best])
    following = float(levels[best + 1]) if best + 1 < len(levels) else lowest
    return (lowest + following) / 2


def fit_temperature(logits: Array, truths: npt.NDArray[np.bool_]) -> float:
    """Return the temperature that makes `sigmoid(logits / temperature)` most likely (Guo et al. 2017).

    The likelihood has one peak over the temperature, which is found by golden section between 0.02 and 50.

    Args:
        logits: of frames of validation subjects, shape (N,).
        truths: whether each shows the plane, shape (N,).

    Raises:
        DatasetError: the frames are all of one kind.
        InputError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise InputError("A logit is not finite; look at the network before it is calibrated.")
    if truths.all() or not truths.any():
        raise DatasetError(
            "The validation frames are all of one kind, so scores cannot be calibrated; give more exams."
        )
    signed = np.where(truths, logits, -logits)

    def cost(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -signed / math.exp(log_temperature)).mean())

    low, high = (math.log(value) for value in _TEMPERATURES)
    inner, outer = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    costs = [cost(inner), cost(outer)]
    for _ in range(_STEPS):
        if costs[0] <= costs[1]:
            high, outer, inner = outer, inner, outer - _GOLDEN * (outer - low)
            costs = [cost(inner), costs[0]]
        else:
            low, inner, outer = inner, outer, inner + _GOLDEN * (high - inner)
            costs = [costs[1], cost(outer)]
    return math.exp((low + high) / 2)


def tempered(logits: Array, temperature: float) -> Array:
    """Return probabilities of logits, shape (N,), at a temperature."""
    probabilities: Array = np.exp(-np.logaddexp(0.0, -np.asarray(logits, np.float64) / temperature))
    return probabilities


def summarise_quality(scored: Sequence[ScoredExam], threshold: float) -> dict[str, Any]:
    """Return the figures over all frames and over exams, each with its 95 % interval, as JSON values.

    Intervals are bootstrapped over subjects, whose frames are not independent; they are None where a figure is
    undefined or there is but one subject.

    Args:
        scored: at least one exam.
        threshold: least score at which a frame is called one that shows the plane.

    Returns:
        `per_frame`: over all frames together. `per_exam`: the mean over those exams in which a figure is defined.
        `annotated_sweeps`: over the frames of sweeps in which somebody found the plane, as published figures are.
    """
    annotated = [found for exam in scored if (found := _annotated(exam)) is not None]
    sweeps = sum(len(np.unique(exam.sweep)) for exam in scored)
    return {
        "n_exams": len(scored),
        "n_subjects": len({exam.subject for exam in scored}),
        "n_sweeps": sweeps,
        "n_sweeps_without_plane": sweeps - sum(len(np.unique(exam.sweep)) for exam in annotated),
        "n_frames": sum(len(exam.scores) for exam in scored),
        "n_positive": sum(int(exam.truths.sum()) for exam in scored),
        "threshold": threshold,
        "per_frame": _per_frame(scored, threshold),
        "per_exam": _per_exam(scored, threshold),
        "annotated_sweeps": _per_frame(annotated, threshold),
    }


def _annotated(exam: ScoredExam) -> ScoredExam | None:
    """Keep the sweeps of an exam in which somebody found the plane; None where there are none."""
    kept = np.isin(exam.sweep, np.unique(exam.sweep[exam.truths]))
    if not kept.any():
        return None
    return ScoredExam(exam.exam, exam.subject, exam.sweep[kept], exam.scores[kept], exam.grades[kept])


def _per_frame(scored: Sequence[ScoredExam], threshold: float) -> dict[str, Any]:
    if not scored:
        return _with_intervals(dict.fromkeys(METRICS), [])
    frames = _Frames(
        np.concatenate([exam.scores for exam in scored]), np.concatenate([exam.truths for exam in scored]), threshold
    )
    lengths = [len(exam.scores) for exam in scored]
    drawn = [frames.figures(np.repeat(counts, lengths)) for counts in _draws(scored)]
    return _with_intervals(frames.figures(np.ones(sum(lengths))), drawn)


def _per_exam(scored: Sequence[ScoredExam], threshold: float) -> dict[str, Any]:
    each = [frame_metrics(exam.scores, exam.truths, threshold) for exam in scored]
    table = np.array([[math.nan if (v := figures[name]) is None else v for name in METRICS] for figures in each])
    known = ~np.isnan(table)
    values = np.where(known, table, 0.0)

    def means(counts: Array) -> Figures:
        sums, weights = counts @ values, counts @ known.astype(np.float64)
        return {name: _ratio(float(sums[k]), float(weights[k])) for k, name in enumerate(METRICS)}

    figures = _with_intervals(means(np.ones(len(scored))), [means(counts) for counts in _draws(scored)])
    for k, name in enumerate(METRICS):
        figures[name]["n"] = int(known[:, k].sum())
    return figures


def _draws(scored: Sequence[ScoredExam]) -> Iterable[Array]:
    """Yield how often each exam counts when as many subjects as there are were drawn with replacement."""
    names, membership = np.unique([exam.subject for exam in scored], return_inverse=True)
    if len(names) < 2:  # noqa: PLR2004 - one subject does not vary
        return
    rng = np.random.default_rng(0)
    for _ in range(_RESAMPLES):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        yield times[membership].astype(np.float64)


def _with_intervals(figures: Figures, drawn: Sequence[Figures]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in figures.items():
        values = [v for one in drawn if (v := one[name]) is not None]
        interval = None
        if value is not None and values:
            interval = [float(bound) for bound in np.quantile(values, (_TAIL, 1 - _TAIL))]
        result[name] = {"value": value, "interval": interval}
    return result
