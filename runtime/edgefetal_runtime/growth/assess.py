"""What the measures of one fetus say: an age where none is known, weights, and size for age."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.growth.charts import CHARTS
from edgefetal_runtime.growth.dating import HADLOCK, date_fetus, two_sd_weeks_at
from edgefetal_runtime.growth.gestation import format_weeks
from edgefetal_runtime.growth.measures import Measure
from edgefetal_runtime.growth.weight import weigh_fetus

if TYPE_CHECKING:
    from edgefetal_runtime.growth.charts import GrowthChart
    from edgefetal_runtime.growth.formula import Estimate
    from edgefetal_runtime.growth.gestation import GestationalAge
    from edgefetal_runtime.growth.measures import Biometry, Sex

# Dated and then charted by the same measure, every fetus is of average size.
AGE_FROM_SAME_MEASURES = "N/A: the age was read from these measures; size for age needs an age that is known beforehand"
NO_AGE = "N/A: the age is not known"
_BPD_CONVENTION_UNKNOWN = "N/A: how the calipers of this chart lay is not known here; read the BPD on another"


@dataclass(frozen=True)
class Row:
    """A measure on a chart.

    Args:
        chart: the chart, which names the measure.
        value: the figure as the chart reads it, in mm or g; None where there is none.
        z: standard deviations from the median; None where the chart gives none or does not hold.
        centile: 0 to 100; likewise.
        note: what was done to the figure, or why one is missing.
    """

    chart: GrowthChart
    value: float | None
    z: float | None
    centile: float | None
    note: str


@dataclass(frozen=True)
class GrowthReport:
    """What the measures of one fetus say.

    Args:
        biometry: the measures.
        age_weeks: gestational age in exact weeks, or why there is none.
        age_known: whether the age was known beforehand; else it was read from the measures.
        basis: where the age came from, in words.
        dating: the age by each formula whose measures there are, the most trusted first. Where the age was known these
            describe size only and change nothing.
        weights: the weight by each formula.
        rows: each measure and weight on each of its charts.
    """

    biometry: Biometry
    age_weeks: float | Abstained
    age_known: bool
    basis: str
    dating: tuple[Estimate, ...]
    weights: tuple[Estimate, ...]
    rows: tuple[Row, ...]


def assess(biometry: Biometry, age: GestationalAge | None, sex: Sex | None) -> GrowthReport:
    """Date, weigh and chart a fetus.

    A known age always wins. Without one the age is that of the most trusted formula whose measures there are, even
    where it abstains and a less trusted one would not; and no size for age is read from the measures that gave it.

    Args:
        biometry: the measures.
        age: the age, where it is known beforehand.
        sex: adds the charts that are drawn for it.
    """
    dating, weights = date_fetus(biometry), weigh_fetus(biometry)
    contradiction = disagreement(dating)
    if contradiction is not None:
        # A single measure still says what it says; what joins several would hide that they cannot all be right.
        dating, weights = _without_joint(dating, contradiction), _without_joint(weights, contradiction)
    age_weeks, basis = _age(age, dating)
    charts = [chart for chart in CHARTS if chart.sex in (None, sex) and _has(chart, biometry)]
    order = list(Measure)
    without_age = NO_AGE if isinstance(age_weeks, Abstained) else AGE_FROM_SAME_MEASURES
    rows = tuple(
        _row(c, biometry, weights, age or Abstained(without_age))
        for c in sorted(charts, key=lambda c: order.index(c.measure))
    )
    return GrowthReport(biometry, age_weeks, age is not None, basis, dating, weights, rows)


def _age(age: GestationalAge | None, dating: tuple[Estimate, ...]) -> tuple[float | Abstained, str]:
    if age is not None:
        return age.weeks, age.origin
    contradiction = disagreement(dating)
    if contradiction is not None:
        return contradiction, "none: the measures disagree"
    if not dating:
        return Abstained("N/A: no formula dates by these measures alone; HC is the best to add"), "none"
    return dating[0].value, f"the measures, by {dating[0].formula.name}"


def disagreement(dating: tuple[Estimate, ...]) -> Abstained | None:
    """Say that the measures cannot be of one fetus at one time, where the ages that each gives alone are too far apart.

    Two measures may each be two standard deviations off, one up and one down. The spread of Hadlock's age from HC is
    the one that was published by size, and is taken for all of them; that bound is ours.

    Args:
        dating: ages by every formula.
    """
    alone = {
        e.formula.measures[0]: e.value
        for e in dating
        if e.formula.author == HADLOCK and len(e.formula.measures) == 1 and isinstance(e.value, float)
    }
    if len(alone) < 2:  # noqa: PLR2004 - it takes two to disagree
        return None
    ages = sorted(alone.items(), key=lambda item: item[1])
    (least, low), (most, high) = ages[0], ages[-1]
    if high - low <= 2 * two_sd_weeks_at((low + high) / 2):
        return None
    return Abstained(
        f"N/A: the measures disagree, {least.value} is of {format_weeks(low)} and {most.value} of "
        f"{format_weeks(high)}; measure both again, and check which is which"
    )


def _without_joint(estimates: tuple[Estimate, ...], reason: Abstained) -> tuple[Estimate, ...]:
    """Abstain from what joins several measures."""
    return tuple(
        replace(e, value=reason, note="") if len(e.formula.measures) > 1 and isinstance(e.value, float) else e
        for e in estimates
    )


def _has(chart: GrowthChart, biometry: Biometry) -> bool:
    """Say whether what a chart reads was measured."""
    needed = chart.weight_formula.measures if chart.weight_formula else (chart.measure,)
    return all(measure in biometry.given() for measure in needed)


def _value(chart: GrowthChart, biometry: Biometry, weights: tuple[Estimate, ...]) -> tuple[float | Abstained, str]:
    """Return the figure that a chart reads, in its convention, and what was done to it."""
    if chart.measure is Measure.EFW:
        weight = next(w for w in weights if w.formula is chart.weight_formula)
        return weight.value, f"weight by {weight.formula.name}"
    measured_mm = biometry.given()[chart.measure]
    if chart.measure is Measure.BPD and chart.calipers is None:
        return Abstained(_BPD_CONVENTION_UNKNOWN), ""
    note = biometry.conversion_note(chart.calipers)
    return biometry.as_read_by(chart.measure, measured_mm, chart.calipers), note


def _row(chart: GrowthChart, biometry: Biometry, weights: tuple[Estimate, ...], age: GestationalAge | Abstained) -> Row:
    value, done = _value(chart, biometry, weights)
    if isinstance(value, Abstained):
        return Row(chart, None, None, None, value.reason)
    if isinstance(age, Abstained):
        return Row(chart, value, None, None, age.reason)
    reading = chart.read(age.weeks, value)
    if isinstance(reading, Abstained):
        return Row(chart, value, None, None, reading.reason)
    notes = (reading.note, done, chart.remark)
    return Row(chart, value, reading.z, reading.centile, "; ".join(note for note in notes if note))
