from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from edgefetal_calibration.datasets.labelled import LabelledSweep
from edgefetal_calibration.quality import (
    METRICS,
    ScoredExam,
    best_threshold,
    evaluate_quality,
    fit_temperature,
    frame_metrics,
    summarise_quality,
    tempered,
)
from edgefetal_devices.errors import DatasetError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator


def drawn(seed: int, n: int, *, steps: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truths that have to do with one another; of few distinct scores where `steps` says so."""
    rng = np.random.default_rng(seed)
    truths = rng.uniform(size=n) < 0.3
    scores = tempered(rng.normal(size=n) + truths, 1.0)
    return (np.round(scores * steps) / steps if steps else scores), truths


@pytest.mark.parametrize("steps", [0, 3, 10])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_figures_are_scikit_learn_s(seed: int, steps: int, threshold: float) -> None:
    scores, truths = drawn(seed, 300, steps=steps)
    called = scores >= threshold
    found = frame_metrics(scores, truths, threshold)
    expected = {
        "accuracy": metrics.accuracy_score(truths, called),
        "f1": metrics.f1_score(truths, called),
        "precision": metrics.precision_score(truths, called, zero_division=math.nan),
        "recall": metrics.recall_score(truths, called),
        "auroc": metrics.roc_auc_score(truths, scores),
        "auprc": metrics.average_precision_score(truths, scores),
        "brier": metrics.brier_score_loss(truths, scores),
    }
    for name, value in expected.items():
        if math.isnan(value):
            assert found[name] is None
        else:
            assert found[name] == pytest.approx(value, abs=1e-12), name


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), min_size=1, max_size=30))
def test_figures_are_scikit_learn_s_whatever_ties(pairs: list[tuple[float, bool]]) -> None:
    scores, truths = np.array([s for s, _ in pairs]), np.array([t for _, t in pairs])
    found = frame_metrics(scores, truths, 0.5)
    if 0 < truths.sum() < len(truths):
        assert found["auroc"] == pytest.approx(metrics.roc_auc_score(truths, scores))
    else:
        assert found["auroc"] is None
    if truths.any():
        assert found["auprc"] == pytest.approx(metrics.average_precision_score(truths, scores))
    else:
        assert found["auprc"] is None
    assert all(value is None or 0 <= value <= 1 for value in found.values())


def test_figures_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
    truths = np.array([True, True, False, True, False])
    found = frame_metrics(scores, truths, 0.8)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 / 3)
    # Of 3 x 2 pairs 0.9 wins both, 0.8 one and a half, 0.3 one.
    assert found["auroc"] == pytest.approx(4.5 / 6)
    # Precision 1 at recall 1/3, 2/3 at 2/3, 3/4 at 1.
    assert found["auprc"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.64 + 0.49 + 0.01) / 5)
    # Bins of 1/15: 0.9 alone; the two 0.8 together, 0.5 right; 0.3 alone; 0.1 alone.
    assert found["ece"] == pytest.approx((0.1 + 2 * 0.3 + 0.7 + 0.1) / 5)


def test_what_is_undefined_is_none() -> None:
    low, high = np.array([0.1, 0.2]), np.array([0.8, 0.9])
    nothing, everything = np.zeros(2, np.bool_), np.ones(2, np.bool_)
    assert {k: v for k, v in frame_metrics(low, nothing, 0.5).items() if v is None} == dict.fromkeys(
        ("f1", "precision", "recall", "auroc", "auprc")
    )
    called = frame_metrics(high, nothing, 0.5)
    assert (called["precision"], called["f1"], called["recall"], called["accuracy"]) == (0.0, 0.0, None, 0.0)
    missed = frame_metrics(low, everything, 0.5)
    assert (missed["precision"], missed["f1"], missed["recall"], missed["auroc"]) == (None, 0.0, 0.0, None)
    assert set(frame_metrics(np.empty(0), np.empty(0, np.bool_), 0.5).values()) == {None}


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, math.inf])
def test_scores_that_are_no_probabilities_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        frame_metrics(np.array([0.5, bad]), np.array([True, False]), 0.5)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.4, 0.6, 1.0]), st.booleans()), min_size=1, max_size=12))
def test_no_threshold_has_a_larger_f1(pairs: list[tuple[float, bool]]) -> None:
    scores, truths = np.array([s for s, _ in pairs]), np.array([t for _, t in pairs])
    if not truths.any():
        with pytest.raises(DatasetError, match="No validation frame"):
            best_threshold(scores, truths)
        return
    best = frame_metrics(scores, truths, best_threshold(scores, truths))["f1"]
    others = [metrics.f1_score(truths, scores >= t) for t in np.unique(scores)]
    assert best == pytest.approx(max(others))


def test_threshold_lies_between_what_is_called_and_what_is_not() -> None:
    assert best_threshold(np.array([0.9, 0.7, 0.3]), np.array([True, True, False])) == pytest.approx(0.5)
    assert best_threshold(np.array([0.9, 0.7]), np.array([True, True])) == pytest.approx(0.7)


def test_frames_that_are_never_called_have_no_part_in_the_threshold() -> None:
    scores, truths = np.array([0.4, 0.2, 0.1, 0.0, 0.0, 0.0]), np.array([True, False, True, True, True, True])
    assert best_threshold(scores, truths) == 0.0
    assert best_threshold(scores, truths, above=0.0) == 0.1
    with pytest.raises(InputError, match="No score is above"):
        best_threshold(np.zeros(2), np.array([True, False]), above=0.0)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_temperature_is_the_most_likely_one(temperature: float) -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(scale=3, size=20_000)
    truths = rng.uniform(size=len(logits)) < tempered(logits, temperature)
    found = fit_temperature(logits, truths)
    assert found == pytest.approx(temperature, rel=0.05)
    # A logistic regression without intercept has the inverse as its slope.
    slope = LogisticRegression(C=1e12, fit_intercept=False, tol=1e-10).fit(logits[:, None], truths).coef_.item()
    assert found == pytest.approx(1 / slope, rel=1e-4)


def test_temperature_needs_both_kinds_and_finite_logits() -> None:
    with pytest.raises(DatasetError, match="all of one kind"):
        fit_temperature(np.array([1.0, 2.0]), np.array([True, True]))
    with pytest.raises(InputError, match="not finite"):
        fit_temperature(np.array([1.0, math.nan]), np.array([True, False]))


def test_tempered_logits_do_not_overflow() -> None:
    assert tempered(np.array([-1e4, 0.0, 1e4]), 0.02).tolist() == [0.0, 0.5, 1.0]


def scored(
    exam: str, subject: str, scores: list[float], grades: list[int], sweep: list[int] | None = None
) -> ScoredExam:
    numbers = np.zeros(len(scores), np.intp) if sweep is None else np.array(sweep)
    return ScoredExam(exam, subject, numbers, np.array(scores), np.array(grades, np.uint8))


def test_summary_counts_the_sweeps_that_published_figures_leave_out() -> None:
    exams = [
        scored("a", "1", [0.9, 0.1, 0.8, 0.2], [1, 0, 0, 0], [0, 0, 1, 1]),
        scored("b", "2", [0.7, 0.6], [0, 0]),
        scored("c", "3", [0.9, 0.3], [2, 0]),
    ]
    summary = summarise_quality(exams, 0.5)
    assert (summary["n_exams"], summary["n_sweeps"], summary["n_sweeps_without_plane"]) == (3, 4, 2)
    assert (summary["n_frames"], summary["n_positive"]) == (8, 2)
    # Five frames are called, two of them rightly; in the sweeps with the plane none is called wrongly.
    assert summary["per_frame"]["precision"]["value"] == pytest.approx(2 / 5)
    assert summary["annotated_sweeps"]["precision"]["value"] == 1.0
    # Precision by exam: 1/2, 0 and 1; recall is undefined in b.
    assert summary["per_exam"]["precision"]["value"] == pytest.approx(0.5)
    assert summary["per_exam"]["precision"]["n"] == 3
    assert summary["per_exam"]["recall"] == {"value": 1.0, "interval": [1.0, 1.0], "n": 2}


def test_intervals_are_over_subjects_and_not_over_frames() -> None:
    rng = np.random.default_rng(0)
    # Each subject is all right or all wrong, so many frames of few subjects say little.
    exams = []
    for subject in range(8):
        truths = rng.uniform(size=500) < 0.5
        right = truths if subject % 4 else ~truths
        exams.append(scored(f"e{subject}", f"s{subject}", right.astype(float).tolist(), truths.astype(int).tolist()))
    summary = summarise_quality(exams, 0.5)
    for level in ("per_frame", "per_exam"):
        value, (low, high) = summary[level]["accuracy"]["value"], summary[level]["accuracy"]["interval"]
        assert low < value < high
        assert value == pytest.approx(0.75, abs=1e-9)
        assert high - low > 0.3
    same = [ScoredExam(e.exam, "one", e.sweep, e.scores, e.grades) for e in exams]
    assert summarise_quality(same, 0.5)["per_frame"]["accuracy"]["interval"] is None


def test_bootstrap_equals_a_plain_one() -> None:
    """Weights stand for repeated frames: the figures of a drawn sample are those of its frames written out."""
    exams = [scored(f"e{k}", f"s{k % 3}", *(part.tolist() for part in drawn(k, 40, steps=8))) for k in range(5)]
    found = summarise_quality(exams, 0.5)["per_frame"]["auroc"]["interval"]
    rng = np.random.default_rng(0)
    values = []
    for _ in range(1000):
        times = np.bincount(rng.integers(3, size=3), minlength=3)
        repeated = [exam for exam in exams for _ in range(times[int(exam.subject[1:])])]
        truths = np.concatenate([exam.truths for exam in repeated])
        values.append(metrics.roc_auc_score(truths, np.concatenate([exam.scores for exam in repeated])))
    assert found == pytest.approx(np.quantile(values, (0.025, 0.975)))


def test_summary_without_any_plane_is_of_nones() -> None:
    summary = summarise_quality([scored("a", "1", [0.1, 0.2], [0, 0]), scored("b", "2", [0.3], [0])], 0.5)
    assert summary["per_frame"]["recall"] == {"value": None, "interval": None}
    assert {name: summary["annotated_sweeps"][name]["value"] for name in METRICS} == dict.fromkeys(METRICS)


@dataclass(frozen=True)
class InMemory:
    name: str
    subject: str
    held: tuple[LabelledSweep, ...]

    def digest(self) -> str:
        return self.name

    def labels_digest(self) -> str:
        return self.name

    def sweeps(self) -> Iterator[LabelledSweep]:
        yield from self.held


def sweep(name: str, grades: list[int] | None, n: int = 3) -> LabelledSweep:
    return LabelledSweep(
        name, np.zeros((n, 16, 16), np.uint8), grades=None if grades is None else np.array(grades, np.uint8)
    )


def test_every_sweep_is_scored_one_at_a_time() -> None:
    exam = InMemory("e", "s", (sweep("1", [0, 1, 2]), sweep("2", [0, 0, 0])))
    seen: list[str] = []

    def score(one: LabelledSweep) -> list[float]:
        seen.append(one.name)
        return [0.0, 0.5, 1.0]

    ticks: list[None] = []
    (found,) = evaluate_quality([exam], score, lambda: ticks.append(None))
    assert seen == ["1", "2"]
    assert len(ticks) == 2
    assert found.sweep.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.truths.tolist() == [False, True, True, False, False, False]
    assert found.scores.tolist() == [0.0, 0.5, 1.0] * 2


def test_ungraded_exams_and_odd_scores_are_refused() -> None:
    with pytest.raises(DatasetError, match="nobody graded the frames of 1"):
        evaluate_quality([InMemory("e", "s", (sweep("1", None),))], lambda _: [0.0] * 3)
    with pytest.raises(InputError, match=r"\(2,\) scores for 3 frames"):
        evaluate_quality([InMemory("e", "s", (sweep("1", [0, 0, 0]),))], lambda _: [0.0, 0.0])
    with pytest.raises(InputError, match="between 0 and 1"):
        evaluate_quality([InMemory("e", "s", (sweep("1", [0, 0, 0]),))], lambda _: [0.0, 2.0, 0.0])
