"""What the measurements of a sweep say: an age where none is known, and size where one is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgefetal_runtime.biometry.measurement import Abstained, Measured, Quantity
from edgefetal_runtime.biometry.quantities import AC, BPD, BPD_INNER, FL, HC, OFD
from edgefetal_runtime.exam.record import GrowthRecord, measurement_record
from edgefetal_runtime.growth.assess import assess
from edgefetal_runtime.growth.intervals import Interval, centile_interval, estimate_interval
from edgefetal_runtime.growth.measures import Biometry, Calipers, Measure, convert_bpd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefetal_runtime.exam.record import FrameRecord, MeasurementRecord
    from edgefetal_runtime.growth.assess import GrowthReport, Row
    from edgefetal_runtime.growth.formula import Estimate
    from edgefetal_runtime.growth.gestation import GestationalAge

    Measurements = Mapping[Quantity, Measured | Abstained]

_MEASURES = {HC: Measure.HC, BPD: Measure.BPD, OFD: Measure.OFD, AC: Measure.AC, FL: Measure.FL}


def interpret(
    sweep: str, measured: Measurements, frames: tuple[FrameRecord, ...], age: GestationalAge | None
) -> tuple[tuple[MeasurementRecord, ...], tuple[GrowthRecord, ...]]:
    """Convert, date, weigh and chart what was measured in a sweep.

    Args:
        sweep: its name.
        measured: what was measured in it.
        frames: the frames that the values rest on.
        age: the age, where it is known beforehand; then the measures are read as size.

    Returns:
        Further values: BPD outer to inner, and the age and weight by every formula whose measures there are. And the
        place of every measure on every chart; empty where no age is known.
    """
    values = {m: v for q, v in measured.items() if (m := _MEASURES.get(q)) and isinstance(v, Measured)}
    if not values:
        return (), ()
    biometry = _biometry(values)
    intervals = {m: Interval(*v.interval) for m, v in values.items() if v.interval is not None}
    report = assess(biometry, age, None)
    records = [
        measurement_record(
            sweep, _quantity(estimate, known_age=age is not None), _estimated(estimate, biometry, intervals), frames
        )
        for estimate in (*report.dating, *report.weights)
        if all(measure in values for measure in estimate.formula.measures)
    ]
    if Measure.BPD in values:
        records.insert(0, measurement_record(sweep, BPD_INNER, _outer_inner(values[Measure.BPD]), frames))
    return tuple(records), tuple(_growth(sweep, report, intervals)) if age else ()


def _biometry(values: Mapping[Measure, Measured]) -> Biometry:
    by_measure = {measure: value.value for measure, value in values.items()}
    return Biometry(
        hc_mm=by_measure.get(Measure.HC),
        bpd_mm=by_measure.get(Measure.BPD),
        bpd_calipers=Calipers.OUTER_OUTER if Measure.BPD in by_measure else None,
        ofd_mm=by_measure.get(Measure.OFD),
        ac_mm=by_measure.get(Measure.AC),
        fl_mm=by_measure.get(Measure.FL),
    )


def _outer_inner(bpd: Measured) -> Measured:
    """Convert a BPD and its interval from outer-to-outer to outer-to-inner."""

    def convert(mm: float) -> float:
        return convert_bpd(mm, Calipers.OUTER_OUTER, Calipers.OUTER_INNER)

    interval = None if bpd.interval is None else (convert(bpd.interval[0]), convert(bpd.interval[1]))
    return replace(bpd, value=convert(bpd.value), interval=interval)


def _quantity(estimate: Estimate, *, known_age: bool) -> Quantity:
    """Name an age or a weight by its formula; its bounds are the formula's own."""
    formula = estimate.formula
    # Beside a known age, the age of a fetus of this size dates nobody.
    age = "size_as_age" if known_age else "GA"
    method = f"{formula.name}; {estimate.note}" if estimate.note else formula.name
    return Quantity(age if formula.unit == "weeks" else "EFW", formula.unit, method, formula.lowest, formula.highest)


def _estimated(estimate: Estimate, biometry: Biometry, intervals: Mapping[Measure, Interval]) -> Measured | Abstained:
    if isinstance(estimate.value, Abstained):
        return estimate.value
    interval = estimate_interval(estimate.formula, biometry, intervals)
    if isinstance(interval, Abstained):
        return Measured(estimate.value, estimate.formula.unit, no_interval=interval.reason)
    return Measured(estimate.value, estimate.formula.unit, (interval.lower, interval.upper))


def _growth(sweep: str, report: GrowthReport, intervals: Mapping[Measure, Interval]) -> list[GrowthRecord]:
    return [
        GrowthRecord(
            sweep=sweep,
            measure=row.chart.measure.value,
            chart=row.chart.name,
            value=row.value,
            z=row.z,
            centile=row.centile,
            centile_interval=_centiles(row, report, intervals),
            note=row.note,
        )
        for row in report.rows
    ]


def _centiles(row: Row, report: GrowthReport, intervals: Mapping[Measure, Interval]) -> tuple[float, float] | None:
    """Carry a row's interval to centiles, where it has one in the chart's own convention."""
    if row.centile is None or isinstance(report.age_weeks, Abstained):
        return None
    chart, biometry = row.chart, report.biometry
    if chart.weight_formula is not None:
        read = estimate_interval(chart.weight_formula, biometry, intervals)
    elif chart.measure in intervals:
        ends = intervals[chart.measure]
        read = Interval(
            biometry.as_read_by(chart.measure, ends.lower, chart.calipers),
            biometry.as_read_by(chart.measure, ends.upper, chart.calipers),
        )
    else:
        return None
    carried = centile_interval(chart, report.age_weeks, read) if isinstance(read, Interval) else read
    return (carried.lower, carried.upper) if isinstance(carried, Interval) else None
