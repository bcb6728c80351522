"""A fetus on its growth charts, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefetal_devices.errors import InputError
from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.growth.charts import find_chart
from edgefetal_runtime.growth.distributions import format_centile
from edgefetal_runtime.growth.gestation import format_weeks
from edgefetal_runtime.growth.measures import NAMES, Measure
from edgefetal_runtime.svg import BLUE, GREY, Band, Chart, Line, Points, draw_panels

if TYPE_CHECKING:
    from edgefetal_runtime.growth.assess import GrowthReport, Row
    from edgefetal_runtime.growth.charts import GrowthChart

CENTILES = (3.0, 10.0, 50.0, 90.0, 97.0)
_STEPS_PER_WEEK = 4

# One family throughout, so that the panels can be compared: of fetuses of the same study.
PICTURED = (
    *(
        find_chart("INTERGROWTH-21st 2014", measure)
        for measure in (Measure.HC, Measure.BPD, Measure.OFD, Measure.AC, Measure.FL)
    ),
    find_chart("INTERGROWTH-21st 2017", Measure.EFW),
)


def draw_growth(report: GrowthReport, charts: tuple[GrowthChart, ...] = PICTURED) -> str:
    """Draw each measure on its chart, with the centiles 3, 10, 50, 90 and 97, as SVG.

    What was done to a measure on the way, or why its chart does not hold at the age, is written below.

    Args:
        report: the fetus; its age must be known beforehand.
        charts: the charts, of which those are drawn whose measures there are.

    Raises:
        InputError: the age was not known beforehand, or none of the charts holds at it.
    """
    if not report.age_known or isinstance(report.age_weeks, Abstained):
        message = "A growth picture needs a gestational age that is known beforehand; give --ga, --lmp or --edd."
        raise InputError(message)
    rows = [row for row in report.rows if row.chart in charts]
    shown = [row for row in rows if row.value is not None and row.chart.covers(report.age_weeks)]
    if not shown:
        message = (
            f"No chart of these measures that can be drawn holds at {format_weeks(report.age_weeks)}; "
            "leave the picture out."
        )
        raise InputError(message)
    citations = dict.fromkeys(f"{row.chart.name}: {row.chart.citation}" for row in shown)
    return draw_panels(
        [_panel(row, report.age_weeks) for row in shown],
        title=f"Growth at {format_weeks(report.age_weeks)}: centiles 3, 10, 50, 90, 97",
        footer=(
            *citations,
            *(f"{row.chart.measure.value}: {row.note}" for row in rows if row.note),
            "Research software; not a medical device.",
        ),
        panel_px=(400, 330),
    )


def _panel(row: Row, age_weeks: float) -> Chart:
    chart = row.chart
    steps = round((chart.to_weeks - chart.from_weeks) * _STEPS_PER_WEEK)
    weeks = [chart.from_weeks + index / _STEPS_PER_WEEK for index in range(steps + 1)]
    curves = {centile: [_value(chart, at, centile) for at in weeks] for centile in CENTILES}
    lines = [
        Line(weeks, curve, end_label=f"{centile:g}", colour=GREY, width_px=2.0 if centile == 50.0 else 1.0)  # noqa: PLR2004
        for centile, curve in curves.items()
    ]
    value = row.value or 0.0
    where = "" if row.centile is None else f", centile {format_centile(row.centile)}"
    calipers = f" {chart.calipers.value}" if chart.calipers else ""
    return Chart(
        title=NAMES[chart.measure].capitalize(),
        x_label="gestational age (weeks)",
        y_label=f"{chart.measure.value}{calipers} ({chart.measure.unit})",
        series=(
            Band(weeks, curves[10.0], curves[90.0], colour=BLUE),
            *lines,
            Points([age_weeks], [value], label=f"{value:.0f} {chart.measure.unit}{where}"),
        ),
        # A fetus far off its chart is shown all the same.
        y_range=_with_room(min(curves[3.0][0], value), max(curves[97.0][-1], value)),
    )


def _value(chart: GrowthChart, weeks: float, centile: float) -> float:
    """Return a point of a curve; each chart has the curves drawn here at all its weeks."""
    value = chart.value_at(weeks, centile)
    if isinstance(value, Abstained):
        raise TypeError(value.reason)
    return value


def _with_room(low: float, high: float) -> tuple[float, float]:
    room = 0.05 * (high - low)
    return low - room, high + room
