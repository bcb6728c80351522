"""Pictures of what an evaluation found."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from edgefetal_runtime.biometry.interval import frame_half_width
from edgefetal_runtime.biometry.quantities import HC
from edgefetal_runtime.svg import BLUE, GREEN, GREY, ORANGE, Band, Chart, Line, Points, draw_panels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgefetal_calibration.evaluate import CaseResult
    from edgefetal_runtime.infer.bundle import Intervals

_STEPS = 200
_PANEL_PX = (560, 420)
# Room for the legend above the highest point, as a share of the farthest from 0.
_HEADROOM = 1.6


def draw_evaluation(
    results: Sequence[CaseResult],
    unseen: Sequence[CaseResult],
    risk: Sequence[Mapping[str, float]],
    intervals: Intervals | None,
    *,
    title: str,
) -> str:
    """Draw errors with the intervals that should hold them, and the error that is left when the least sure are refused.

    Args:
        results: all that was evaluated.
        unseen: those of them whose subjects the intervals were not fitted on.
        risk: what `risk_coverage` returns for them.
        intervals: the bundle's tables, or None where it has none.
        title: what was evaluated.

    Returns:
        A self-contained SVG picture.
    """
    panels = (_errors(results, unseen, intervals), _risk(risk))
    footer = ("An error is measured minus reference. Refused cases have none and count in the second panel only.",)
    return draw_panels(panels, title=title, footer=footer, columns=2, panel_px=_PANEL_PX)


def _errors(results: Sequence[CaseResult], unseen: Sequence[CaseResult], intervals: Intervals | None) -> Chart:
    """Error of HC over its measured value."""
    names = {result.name for result in unseen}
    fitted = _points([r for r in results if r.name not in names], "interval fitted on it", ORANGE)
    judged = _points(unseen, "not fitted on it" if intervals else "measured", BLUE)
    values = (*fitted.x, *judged.x)
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    series: list[Band | Line | Points] = []
    if intervals is not None:
        x = [low + (high - low) * step / _STEPS for step in range(_STEPS + 1)]
        widths = [frame_half_width(intervals, HC.name, value) or 0.0 for value in x]
        series.append(Band(x, [-w for w in widths], widths, f"{intervals.level:.0%} interval", GREY))
    series.append(Line((low, high), (0.0, 0.0), colour=GREY, width_px=1.0))
    series += [points for points in (fitted, judged) if len(points.x)]
    reach_mm = max((abs(error) for error in (*fitted.y, *judged.y)), default=0.0) or 1.0
    y_range = (-1.1 * reach_mm, _HEADROOM * reach_mm)
    return Chart("Error of HC", "measured HC (mm)", "error (mm)", tuple(series), y_range=y_range)


def _points(results: Sequence[CaseResult], label: str, colour: str) -> Points:
    pairs = [(r.hc_mm, r.hc_mm - r.hc_true_mm) for r in results if r.hc_mm is not None]
    return Points([value for value, _ in pairs], [error for _, error in pairs], label, colour)


def _risk(risk: Sequence[Mapping[str, float]]) -> Chart:
    """Mean error over the share refused."""
    x = [100 * point["abstained"] for point in risk]
    absolute = Line(x, [point["hc_mae_mm"] for point in risk], "mean absolute error (mm)", colour=ORANGE)
    relative = Line(x, [100 * point["hc_mean_relative_error"] for point in risk], "mean error (% of HC)", colour=GREEN)
    top = max(itertools.chain(absolute.y, relative.y), default=0.0) or 1.0
    return Chart(
        "Error of HC that is left",
        "cases refused, least sure first (%)",
        "error (mm, %)",
        (absolute, relative),
        x_range=(0.0, 100.0),
        y_range=(0.0, 1.05 * top),
    )
