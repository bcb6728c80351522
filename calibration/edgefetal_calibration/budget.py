"""The accuracy budget: how far the shipped graph may stray from the float one, in the units of the clinic.

A budget has lines; each is judged over all frames, and where it says so in each band of size and for each source.
Frames are paired: both graphs saw the very same ones. Every bound is one-sided 95 %, bootstrapped over subjects.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgefetal_calibration.bootstrap import (
    Bounded,
    Statistic,
    balanced_error_of,
    bounded,
    macro_f1_loss_of,
    mean_of,
    worst_share_of,
)
from edgefetal_calibration.evaluate import SIZE_BANDS_MM
from edgefetal_devices.errors import InputError
from edgefetal_runtime.biometry.principal import PRINCIPAL
from edgefetal_runtime.biometry.quantities import HC
from edgefetal_runtime.growth.dating import DATING
from edgefetal_runtime.growth.gestation import DAYS_PER_WEEK
from edgefetal_runtime.growth.measures import Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefetal_calibration.frames import FrameResult


PASSED: Final = "passed"
BROKEN: Final = "broken"
NOT_JUDGED: Final = "not judged"

_WORST_SHARE: Final = 0.1
_PERCENT: Final = 100.0
_MM, _DAYS, _POINTS = "mm", "days", "percentage points"
_UNITS: Final = {
    "hc": _MM,
    "ac": _MM,
    "fl": _MM,
    "gestational_age": _DAYS,
    "dice": "Dice",
    "plane_f1": "F1",
    "quality_f1": "F1",
    "failures": _POINTS,
    "worst_tenth": _MM,
    "largest_hc_difference": _MM,
    "float_hc_error": _MM,
    "float_not_measured": _POINTS,
    "float_quality_error": _POINTS,
}
# Lines that are no mean over subjects, so that a single one of them says something.
_UNBOUNDED: Final = ("largest_hc_difference",)
# Lines over frames of all planes, which have no size in common.
_SIZELESS: Final = ("plane_f1", "quality_f1", "float_quality_error")
_GOOD, _NOT_GOOD = "good", "not good"
_GA_BY_HC = next(formula for formula in DATING if formula.measures == (Measure.HC,))


class BudgetLine(BaseModel):
    """One line of a budget.

    Args:
        limit: what the bound of the figure may be, in `unit`.
        group_limit: what it may be within one band of size or one source; None for `limit`.
        unit: what the limits are in.
        min_cases: with fewer frames the line is not judged.
        min_subjects: nor is it with fewer subjects.
        by_size: whether it is judged in each band of the reference length too.
        by_source: whether it is judged for each kind of dataset too, where there are several.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    limit: float = Field(gt=0)
    group_limit: float | None = Field(default=None, gt=0)
    unit: str
    min_cases: int = Field(ge=1)
    min_subjects: int = Field(ge=1)
    by_size: bool
    by_source: bool


class AccuracyBudget(BaseModel):
    """What is allowed, line by line; `default_budget.yaml` says what each is.

    Args:
        hc: increase of the absolute error of HC.
        ac: of AC.
        fl: of FL.
        gestational_age: of the gestational age by HC, for heads in the formula's range.
        dice: decrease of the overlap with the label, for each structure.
        plane_f1: decrease of F1, averaged over the planes that frames show.
        quality_f1: decrease of F1 of frames graded as showing their plane.
        failures: frames that the float graph measures and the shipped one does not, for each length.
        worst_tenth: mean of the worst tenth of the increases of an absolute error, for each length.
        largest_hc_difference: between the graphs, in any frame.
        float_hc_error: mean absolute error of the float graph.
        float_not_measured: frames that the float graph does not measure, for each length.
        float_quality_error: frames that the float graph calls wrongly good or not, the mean of both kinds; asked of
            networks that do nothing else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    hc: BudgetLine
    ac: BudgetLine
    fl: BudgetLine
    gestational_age: BudgetLine
    dice: BudgetLine
    plane_f1: BudgetLine
    quality_f1: BudgetLine
    failures: BudgetLine
    worst_tenth: BudgetLine
    largest_hc_difference: BudgetLine
    float_hc_error: BudgetLine
    float_not_measured: BudgetLine
    float_quality_error: BudgetLine

    @model_validator(mode="after")
    def _lines_make_sense(self) -> AccuracyBudget:
        """Refuse a unit that is not the line's, bands where nothing has a size, and a bootstrap over one subject."""
        for key, unit in _UNITS.items():
            line: BudgetLine = getattr(self, key)
            if line.unit != unit:
                raise ValueError(f"{key}.unit is {line.unit!r}, and the line is in {unit!r}")
            if line.by_size and key in _SIZELESS:
                raise ValueError(f"{key}.by_size cannot be true, because its frames have no size in common")
            if line.min_subjects < 2 and key not in _UNBOUNDED:  # noqa: PLR2004 - one subject does not vary
                raise ValueError(f"{key}.min_subjects is 1, and a bound over subjects needs 2 or more")
        return self


@dataclass(frozen=True)
class LineVerdict:
    """What became of a line in one group of frames.

    Args:
        key: of the line in the budget.
        name: what was judged, in words.
        group: `all`, a band of size or a source.
        n: frames that it was judged on.
        n_subjects: whose they are.
        estimate: the figure over these frames, in `unit`, or None where it was not judged.
        upper: its bound, likewise.
        limit: what the bound may be.
        unit: what these are in.
        verdict: `passed`, `broken` or `not judged`.
        reason: why, in a sentence.
        of_float: whether it judges the float graph alone, which no other precision mends.
    """

    key: str
    name: str
    group: str
    n: int
    n_subjects: int
    estimate: float | None
    upper: float | None
    limit: float
    unit: str
    verdict: Literal["passed", "broken", "not judged"]
    reason: str
    of_float: bool

    @property
    def excess(self) -> float | None:
        """How far the bound lies beyond the limit, as a share of it; None where the line was not judged."""
        return None if self.upper is None else (self.upper - self.limit) / self.limit


@dataclass(frozen=True)
class Judgement:
    """What became of a budget.

    Args:
        budget: what was allowed.
        lines: what became of its lines, in their order.
        lacking: which data were lacking to judge a structure of the network, in sentences.
    """

    budget: AccuracyBudget
    lines: tuple[LineVerdict, ...]
    lacking: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether no line is broken, and the length of every structure was judged."""
        return not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it did not pass, in sentences."""
        return (*(line.reason for line in self.lines if line.verdict == BROKEN), *self.lacking)

    @property
    def excess(self) -> float:
        """Largest excess of a judged line; it passes at 0 and below. Infinite where data are lacking.

        Lines about the float graph alone count only where they are broken: they are the same for whatever is made of
        it, and would hide which of two graphs is the better one.
        """
        if self.lacking:
            return math.inf
        judged = [(line.excess, line.of_float) for line in self.lines if line.excess is not None]
        telling = [excess for excess, of_float in judged if not of_float or excess > 0]
        return max(telling or [excess for excess, _ in judged], default=math.inf)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; an infinite excess becomes None."""
        return {
            "passed": self.passed,
            "reasons": list(self.reasons),
            "excess": self.excess if math.isfinite(self.excess) else None,
            "lacking": list(self.lacking),
            "lines": [asdict(line) for line in self.lines],
            "budget": self.budget.model_dump(),
        }


@dataclass(frozen=True)
class _Pair:
    """A frame as both graphs saw it."""

    shipped: FrameResult
    reference: FrameResult

    @property
    def size_mm(self) -> float:
        """Reference length in mm, NaN where it has none."""
        return math.nan if self.shipped.reference_mm is None else self.shipped.reference_mm

    @property
    def both_measured(self) -> bool:
        """Whether there are a reference and two measurements to compare."""
        known = (self.shipped.reference_mm, self.shipped.measured_mm, self.reference.measured_mm)
        return all(value is not None for value in known)

    @property
    def lengths_mm(self) -> tuple[float, float, float]:
        """Reference, shipped and float length; NaN where there is none."""
        shipped_mm, float_mm = self.shipped.measured_mm, self.reference.measured_mm
        return (
            self.size_mm,
            math.nan if shipped_mm is None else shipped_mm,
            math.nan if float_mm is None else float_mm,
        )


@dataclass(frozen=True)
class _Question:
    """A line as it is asked of some frames: which frames count for it, and what is made of them.

    Args:
        key: of the line.
        name: in words.
        pairs: the frames.
        figure: from frames, at least one, to the figure and its bound; None where it is undefined.
        bands_mm: bands of size by name; empty where it has none.
        of_float: whether it judges the float graph alone.
    """

    key: str
    name: str
    pairs: tuple[_Pair, ...]
    figure: Callable[[Sequence[_Pair]], Bounded | None]
    bands_mm: dict[str, tuple[float, float]]
    of_float: bool = False


def judge_frames(
    shipped: Sequence[FrameResult],
    reference: Sequence[FrameResult],
    budget: AccuracyBudget,
    structures: Sequence[str],
) -> Judgement:
    """Judge the shipped graph by its results on the frames that the float one saw too.

    Args:
        shipped: results of the shipped graph.
        reference: results of the float graph, of the same frames in the same order.
        budget: what is allowed.
        structures: what the network outlines; the length of each has to be judged for the budget to pass, and where
            there are none the quality.

    Raises:
        InputError: the results are not of the same frames.
    """
    if [_identity(result) for result in shipped] != [_identity(result) for result in reference]:
        raise InputError("The two graphs were not run on the same frames; run both with one call of evaluate_frames.")
    pairs = tuple(_Pair(a, b) for a, b in zip(shipped, reference, strict=True))
    questions = [
        *(question for s in PRINCIPAL if s in structures for question in _questions_of_structure(s, pairs)),
        *_questions_of_frames(pairs, alone=not structures),
    ]
    order = list(AccuracyBudget.model_fields)
    questions.sort(key=lambda question: order.index(question.key))
    lines = tuple(line for question in questions for line in _judge_question(question, getattr(budget, question.key)))
    return Judgement(budget, lines, tuple(_lacking(lines, budget, structures)))


def _identity(result: FrameResult) -> tuple[Any, ...]:
    return (result.name, result.subject, result.source, result.plane, result.measure, result.reference_mm, result.good)


def _lacking(lines: Sequence[LineVerdict], budget: AccuracyBudget, structures: Sequence[str]) -> list[str]:
    """Say of which structures the length was not judged, and what would mend that."""
    if all(line.verdict == NOT_JUDGED for line in lines):
        return ["Nothing could be judged; give more labelled frames of what the network outlines, names or calls."]
    sentences = []
    if not structures:
        sentences += [line.reason for line in lines if line.key == "quality_f1" and line.verdict == NOT_JUDGED]
    for structure in structures:
        measure = PRINCIPAL[structure].name
        wanted: BudgetLine = getattr(budget, measure.lower())
        (line,) = (line for line in lines if (line.key, line.group) == (measure.lower(), "all"))
        if line.verdict == NOT_JUDGED:
            sentences.append(
                f"{measure} could not be judged: both graphs measure {line.n} frames of {line.n_subjects} subjects "
                f"with a reference, and at least {wanted.min_cases} frames of {wanted.min_subjects} subjects are "
                f"needed; give more labelled frames of the {structure} with {measure} and pixel size."
            )
    return sentences


def _questions_of_structure(structure: str, pairs: Sequence[_Pair]) -> list[_Question]:
    """Ask what there is to ask about a structure and its length."""
    measure = PRINCIPAL[structure].name
    of_measure = [pair for pair in pairs if pair.shipped.measure == measure]
    referenced = tuple(pair for pair in of_measure if pair.shipped.reference_mm is not None)
    measured = tuple(pair for pair in referenced if pair.both_measured)
    outlined = tuple(pair for pair in of_measure if pair.shipped.dice is not None and pair.reference.dice is not None)
    bands = _bands_mm(measure, [pair.size_mm for pair in referenced])
    questions = [
        _Question(measure.lower(), f"{measure} error increase", measured, partial(_mean, _error_increase_mm), bands),
        _Question("dice", f"Dice decrease, {structure}", outlined, partial(_mean, _dice_decrease), bands),
        _Question("failures", f"{measure} no longer measured", referenced, partial(_mean, _lost_percent), bands),
        _Question("worst_tenth", f"{measure} error increase, worst tenth", measured, _worst_tenth, bands),
        _Question(
            "float_not_measured",
            f"{measure} not measured by the float graph",
            referenced,
            partial(_mean, _not_measured_percent),
            bands,
            of_float=True,
        ),
    ]
    if measure == HC.name:
        by_float = tuple(pair for pair in referenced if pair.reference.measured_mm is not None)
        dated = tuple(pair for pair in measured if _in_range_of_dating(pair.size_mm))
        both = tuple(pair for pair in of_measure if None not in {pair.shipped.measured_mm, pair.reference.measured_mm})
        questions += [
            _Question("gestational_age", "gestational age error increase", dated, partial(_mean, _age_days), bands),
            _Question("largest_hc_difference", "largest HC difference of one frame", both, _largest_difference, bands),
            _Question(
                "float_hc_error",
                "HC error of the float graph",
                by_float,
                partial(_mean, _float_error_mm),
                bands,
                of_float=True,
            ),
        ]
    return questions


def _questions_of_frames(pairs: Sequence[_Pair], *, alone: bool) -> list[_Question]:
    """Ask what there is to ask about planes and quality, where the network has such heads.

    Args:
        pairs: the frames.
        alone: whether the network does nothing else, so that its calls have to be worth something by themselves.
    """
    questions = []
    named = [pair for pair in pairs if pair.shipped.named is not None and pair.reference.named is not None]
    if named:
        shown = tuple(pair for pair in named if pair.shipped.plane is not None)
        questions.append(_Question("plane_f1", "plane F1 decrease", shown, _plane_f1_loss, {}))
    scored = [pair for pair in pairs if pair.shipped.called is not None and pair.reference.called is not None]
    if scored:
        graded = tuple(pair for pair in scored if pair.shipped.good is not None)
        questions.append(_Question("quality_f1", "quality F1 decrease", graded, _quality_f1_loss, {}))
        if alone:
            name = "frames that the float graph calls wrongly"
            questions.append(_Question("float_quality_error", name, graded, _quality_error, {}, of_float=True))
    return questions


def _judge_question(question: _Question, line: BudgetLine) -> list[LineVerdict]:
    """Judge a line over all its frames, and in each group that it asks for."""
    verdicts = [_verdict(question, line, "all", question.pairs, line.limit)]
    group_limit = line.limit if line.group_limit is None else line.group_limit
    for band, (low_mm, high_mm) in question.bands_mm.items() if line.by_size else ():
        within = [pair for pair in question.pairs if low_mm <= pair.size_mm < high_mm]
        verdicts.append(_verdict(question, line, band, within, group_limit))
    sources = sorted({pair.shipped.source for pair in question.pairs})
    # One source alone is all of the frames, which were judged by the narrower limit.
    for source in sources if line.by_source and len(sources) > 1 else ():
        within = [pair for pair in question.pairs if pair.shipped.source == source]
        verdicts.append(_verdict(question, line, f"source {source}", within, group_limit))
    return verdicts


def _verdict(question: _Question, line: BudgetLine, group: str, pairs: Sequence[_Pair], limit: float) -> LineVerdict:
    """Judge a line on some frames."""
    n, n_subjects = len(pairs), len(set(_subjects(pairs)))
    what = question.name if group == "all" else f"{question.name} ({group})"
    verdict: Literal["passed", "broken", "not judged"] = NOT_JUDGED
    found = None
    if n < line.min_cases or n_subjects < line.min_subjects:
        reason = (
            f"{what} was not judged: {n} frames of {n_subjects} subjects, and at least {line.min_cases} frames of "
            f"{line.min_subjects} subjects are needed; give more labelled frames."
        )
    elif (found := question.figure(pairs)) is None:
        reason = f"{what} was not judged: it is undefined on these {n} frames; give frames of the other kind too."
    else:
        # Written so that a bound that is no number breaks the line.
        verdict = PASSED if found.upper <= limit else BROKEN
        relation = "within" if verdict == PASSED else "beyond"
        reason = (
            f"{what}: the bound {found.upper:.4g} {line.unit} is {relation} the limit {limit:g} {line.unit} "
            f"(estimate {found.estimate:.4g}, {n} frames of {n_subjects} subjects)."
        )
    return LineVerdict(
        key=question.key,
        name=question.name,
        group=group,
        n=n,
        n_subjects=n_subjects,
        estimate=None if found is None else found.estimate,
        upper=None if found is None else found.upper,
        limit=limit,
        unit=line.unit,
        verdict=verdict,
        reason=reason,
        of_float=question.of_float,
    )


def _bands_mm(measure: str, sizes_mm: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Return the bands of a length by name: those of the head are fixed, others are thirds of what is there."""
    if measure == HC.name:
        inner = [float(edge) for edge in SIZE_BANDS_MM[1:-1]]
    elif sizes_mm:
        inner = sorted({float(edge) for edge in np.quantile(sizes_mm, (1 / 3, 2 / 3))})
    else:
        inner = []
    edges = [-math.inf, *inner, math.inf]
    return {_band_name(measure, low, high): (low, high) for low, high in itertools.pairwise(edges) if inner}


def _band_name(measure: str, low_mm: float, high_mm: float) -> str:
    if math.isinf(low_mm):
        return f"{measure} below {high_mm:.0f} mm"
    return (
        f"{measure} {low_mm:.0f} mm and more" if math.isinf(high_mm) else f"{measure} {low_mm:.0f} to {high_mm:.0f} mm"
    )


def _subjects(pairs: Sequence[_Pair]) -> list[str]:
    return [pair.shipped.subject for pair in pairs]


def _mean(value: Callable[[_Pair], float], pairs: Sequence[_Pair]) -> Bounded | None:
    subjects = _subjects(pairs)
    return bounded(subjects, mean_of(subjects, [value(pair) for pair in pairs]))


def _error_increase_mm(pair: _Pair) -> float:
    true_mm, shipped_mm, float_mm = pair.lengths_mm
    return abs(shipped_mm - true_mm) - abs(float_mm - true_mm)


def _float_error_mm(pair: _Pair) -> float:
    true_mm, _, float_mm = pair.lengths_mm
    return abs(float_mm - true_mm)


def _dice_decrease(pair: _Pair) -> float:
    return (pair.reference.dice or 0.0) - (pair.shipped.dice or 0.0)


def _lost_percent(pair: _Pair) -> float:
    return _PERCENT * (pair.reference.measured_mm is not None and pair.shipped.measured_mm is None)


def _not_measured_percent(pair: _Pair) -> float:
    return _PERCENT * (pair.reference.measured_mm is None)


def _in_range_of_dating(hc_mm: float) -> bool:
    return _GA_BY_HC.lowest <= _GA_BY_HC.equation(hc_mm) <= _GA_BY_HC.highest


def _age_days(pair: _Pair) -> float:
    """Increase of the absolute error of the age; the true one is in range, and a little beyond it the formula holds."""
    true, shipped, of_float = (DAYS_PER_WEEK * _GA_BY_HC.equation(mm) for mm in pair.lengths_mm)
    return float(abs(shipped - true) - abs(of_float - true))


def _worst_tenth(pairs: Sequence[_Pair]) -> Bounded | None:
    subjects = _subjects(pairs)
    increases_mm = [_error_increase_mm(pair) for pair in pairs]
    return bounded(subjects, worst_share_of(subjects, increases_mm, _WORST_SHARE))


def _largest_difference(pairs: Sequence[_Pair]) -> Bounded:
    """Largest difference of the graphs in mm; what was seen is all that is known of a maximum."""
    largest_mm = max(abs(shipped_mm - float_mm) for _, shipped_mm, float_mm in (pair.lengths_mm for pair in pairs))
    return Bounded(largest_mm, largest_mm)


def _plane_f1_loss(pairs: Sequence[_Pair]) -> Bounded | None:
    truths = [str(pair.shipped.plane) for pair in pairs]
    named = ([str(pair.shipped.named) for pair in pairs], [str(pair.reference.named) for pair in pairs])
    return _f1_loss(pairs, truths, *named, classes=sorted(set(truths)))


def _quality_f1_loss(pairs: Sequence[_Pair]) -> Bounded | None:
    truths = _said([pair.shipped.good for pair in pairs])
    if len(set(truths)) == 1:
        return None
    called = (_said([pair.shipped.called for pair in pairs]), _said([pair.reference.called for pair in pairs]))
    return _f1_loss(pairs, truths, *called, classes=[_GOOD])


def _said(calls: Sequence[bool | None]) -> list[str]:
    return [_GOOD if call else _NOT_GOOD for call in calls]


def _quality_error(pairs: Sequence[_Pair]) -> Bounded | None:
    """Share of the good frames that are missed and of the others that are called good, the mean of both, in percent."""
    subjects = _subjects(pairs)
    share = balanced_error_of(
        subjects, [bool(pair.shipped.good) for pair in pairs], [bool(pair.reference.called) for pair in pairs]
    )
    return bounded(subjects, lambda times: _PERCENT * share(times))


def _f1_loss(
    pairs: Sequence[_Pair],
    truths: Sequence[str],
    shipped: Sequence[str],
    reference: Sequence[str],
    *,
    classes: Sequence[str],
) -> Bounded | None:
    subjects = _subjects(pairs)
    statistic: Statistic = macro_f1_loss_of(subjects, truths, shipped, reference, classes)
    return bounded(subjects, statistic)
