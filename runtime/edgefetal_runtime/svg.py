"""Line charts as SVG text that needs nothing else: no script, no style sheet, no font of its own.

A chart is a value; `draw` turns one into a picture, and `draw_panels` several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Colours that differ for colour-blind readers too, after Okabe and Ito (2008).
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#6b7280"

_INK, _FAINT, _PAPER = "#1f2937", "#e5e7eb", "#ffffff"
_FONT = "font-family='DejaVu Sans, Verdana, Arial, sans-serif'"
_TEXT_PX, _SMALL_PX, _TITLE_PX = 13, 11, 15
# A letter of these fonts is about so wide, as a share of its height.
_LETTER_WIDTH, _BOLD_LETTER_WIDTH = 0.6, 0.7
_MARGIN_LEFT_PX, _MARGIN_TOP_PX, _MARGIN_BOTTOM_PX, _MARGIN_RIGHT_PX = 66, 40, 52, 20
_LEGEND_LINE_PX, _LEGEND_KEY_PX = 18, 26
_TITLE_ROW_PX, _FOOTER_ROW_PX = 34, 18
_POINT_RADIUS_PX = 5
_WANTED_TICKS = 6


@dataclass(frozen=True)
class Line:
    """A line through points.

    Args:
        x: abscissae.
        y: ordinates, as many.
        label: its entry in the legend; empty for none.
        end_label: a few letters written at its right end; empty for none.
        colour: as SVG writes it.
        width_px: its width.
        dashed: whether it is broken.
    """

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    end_label: str = ""
    colour: str = BLUE
    width_px: float = 2.0
    dashed: bool = False


@dataclass(frozen=True)
class Band:
    """The area between two lines.

    Args:
        x: abscissae.
        lower: lower ordinates, as many.
        upper: upper ordinates, as many.
        label: its entry in the legend; empty for none.
        colour: as SVG writes it; drawn faintly.
    """

    x: Sequence[float]
    lower: Sequence[float]
    upper: Sequence[float]
    label: str = ""
    colour: str = BLUE


@dataclass(frozen=True)
class Points:
    """Dots.

    Args:
        x: abscissae.
        y: ordinates, as many.
        label: its entry in the legend; empty for none.
        colour: as SVG writes it.
    """

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    colour: str = ORANGE


Series = Line | Band | Points


@dataclass(frozen=True)
class Chart:
    """One pair of axes with what is drawn on them, in that order.

    Args:
        title: written above.
        x_label: what the abscissa is, with its unit.
        y_label: what the ordinate is, with its unit.
        series: what is drawn.
        x_range: the ends of the abscissa; None for those of the series.
        y_range: the ends of the ordinate; likewise.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class _Frame:
    """Where a chart lies in the picture, in px, and what its axes span."""

    left_px: float
    top_px: float
    width_px: float
    height_px: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x_px(self, x: float) -> float:
        low, high = self.x_range
        return self.left_px + (x - low) / (high - low) * self.width_px

    def y_px(self, y: float) -> float:
        low, high = self.y_range
        return self.top_px + (high - y) / (high - low) * self.height_px

    def path(self, x: Iterable[float], y: Iterable[float]) -> str:
        return " ".join(f"{self.x_px(a):.1f},{self.y_px(b):.1f}" for a, b in zip(x, y, strict=True))


def draw(chart: Chart, *, size_px: tuple[int, int] = (800, 480)) -> str:
    """Draw one chart, as wide and high in px as told."""
    return draw_panels([chart], columns=1, panel_px=size_px)


def draw_panels(
    charts: Sequence[Chart],
    *,
    title: str = "",
    footer: Sequence[str] = (),
    columns: int = 2,
    panel_px: tuple[int, int] = (400, 320),
) -> str:
    """Draw charts side by side, row after row.

    Args:
        charts: at least one.
        title: written above them all.
        footer: lines written below them all.
        columns: at most so many charts stand in a row.
        panel_px: width and height of each chart with its margins.
    """
    columns = min(columns, len(charts))
    panel_width_px, panel_height_px = panel_px
    top_px = _TITLE_ROW_PX if title else 0
    rows = math.ceil(len(charts) / columns)
    below_px = top_px + rows * panel_height_px
    width_px = columns * panel_width_px
    height_px = below_px + (_FOOTER_ROW_PX * len(footer) + 8 if footer else 0)
    size = f"width='{width_px}' height='{height_px}'"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} viewBox='0 0 {width_px} {height_px}' {_FONT}>",
        f"<title>{escape(title or charts[0].title)}</title>",
        f"<rect {size} fill='{_PAPER}'/>",
    ]
    if title:
        parts.append(_text(width_px / 2, 24, title, size_px=_TITLE_PX + 1, anchor="middle", bold=True))
    for index, chart in enumerate(charts):
        row, column = divmod(index, columns)
        origin_px = (column * panel_width_px, top_px + row * panel_height_px)
        parts += _panel(chart, origin_px, panel_px, clip_id=f"axes{index}")
    for index, line in enumerate(footer):
        parts.append(_text(12, below_px + _FOOTER_ROW_PX * index + 12, line, size_px=_SMALL_PX, colour=GREY))
    return "\n".join([*parts, "</svg>", ""])


def ticks(low: float, high: float, wanted: int = _WANTED_TICKS) -> list[float]:
    """Return round figures from low to high, about as many as wanted: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _panel(chart: Chart, origin_px: tuple[float, float], size_px: tuple[int, int], clip_id: str) -> list[str]:
    """Draw one chart into its place."""
    labels = [line.end_label for line in chart.series if isinstance(line, Line)]
    room_px = max((_SMALL_PX * _LETTER_WIDTH * len(label) + 6 for label in labels if label), default=0)
    frame = _Frame(
        left_px=origin_px[0] + _MARGIN_LEFT_PX,
        top_px=origin_px[1] + _MARGIN_TOP_PX,
        width_px=size_px[0] - _MARGIN_LEFT_PX - _MARGIN_RIGHT_PX - room_px,
        height_px=size_px[1] - _MARGIN_TOP_PX - _MARGIN_BOTTOM_PX,
        x_range=chart.x_range or _span([s.x for s in chart.series]),
        y_range=chart.y_range or _span([y for s in chart.series for y in _ordinates(s)], margin=0.05),
    )
    x, y, right, bottom = frame.left_px, frame.top_px, frame.left_px + frame.width_px, frame.top_px + frame.height_px
    title_px = min(_TITLE_PX, int(frame.width_px / (_BOLD_LETTER_WIDTH * max(len(chart.title), 1))))
    return [
        f"<clipPath id='{clip_id}'>{_box(x, y, frame.width_px, frame.height_px)}</clipPath>",
        *_axes(frame),
        f"<g clip-path='url(#{clip_id})'>",
        *(_shape(frame, series) for series in chart.series if not isinstance(series, Points)),
        "</g>",
        # A dot on the edge of the axes is shown whole; one beyond them is not shown.
        *(_shape(frame, series) for series in chart.series if isinstance(series, Points)),
        *_end_labels(frame, [s for s in chart.series if isinstance(s, Line) and s.end_label]),
        *_legend(frame, [s for s in chart.series if s.label]),
        _text((x + right) / 2, y - 14, chart.title, size_px=title_px, anchor="middle", bold=True),
        _text((x + right) / 2, bottom + 40, chart.x_label, anchor="middle"),
        _text(origin_px[0] + 18, (y + bottom) / 2, chart.y_label, anchor="middle", upright=False),
    ]


def _ordinates(series: Series) -> tuple[Sequence[float], ...]:
    return (series.lower, series.upper) if isinstance(series, Band) else (series.y,)


def _span(values: Sequence[Sequence[float]], margin: float = 0.0) -> tuple[float, float]:
    """Return the least and greatest of all, with a margin as a share of what lies between; never of no width."""
    flat = [value for part in values for value in part]
    low, high = min(flat, default=0.0), max(flat, default=1.0)
    room = margin * (high - low) if high > low else 0.5 * abs(low) or 0.5
    return low - room, high + room


def _axes(frame: _Frame) -> list[str]:
    """Draw the grid, the axes and their figures."""
    right, bottom = frame.left_px + frame.width_px, frame.top_px + frame.height_px
    parts = []
    for x in ticks(*frame.x_range):
        at = frame.x_px(x)
        parts.append(_rule(at, frame.top_px, at, bottom, _FAINT))
        parts.append(_text(at, bottom + 18, f"{x:g}", anchor="middle"))
    for y in ticks(*frame.y_range):
        at = frame.y_px(y)
        parts.append(_rule(frame.left_px, at, right, at, _FAINT))
        parts.append(_text(frame.left_px - 7, at + 4.5, f"{y:g}", anchor="end"))
    parts.append(_rule(frame.left_px, bottom, right, bottom, _INK))
    parts.append(_rule(frame.left_px, frame.top_px, frame.left_px, bottom, _INK))
    return parts


def _shape(frame: _Frame, series: Series) -> str:
    """Draw one series."""
    colour = quoteattr(series.colour)
    if isinstance(series, Band):
        outline = f"{frame.path(series.x, series.lower)} {frame.path(series.x[::-1], series.upper[::-1])}"
        return f"<polygon points='{outline}' fill={colour} fill-opacity='0.15'/>"
    if isinstance(series, Line):
        return (
            f"<polyline points='{frame.path(series.x, series.y)}' fill='none' stroke={colour} "
            f"stroke-width='{series.width_px:g}' stroke-linejoin='round'{_dashes(series)}/>"
        )
    (x_low, x_high), (y_low, y_high) = frame.x_range, frame.y_range
    return "".join(
        f"<circle cx='{frame.x_px(x):.1f}' cy='{frame.y_px(y):.1f}' r='{_POINT_RADIUS_PX}' fill={colour} "
        f"stroke='{_PAPER}' stroke-width='1.5'/>"
        for x, y in zip(series.x, series.y, strict=True)
        if x_low <= x <= x_high and y_low <= y <= y_high
    )


def _dashes(line: Line) -> str:
    return " stroke-dasharray='6 4'" if line.dashed else ""


def _end_labels(frame: _Frame, lines: Sequence[Line]) -> list[str]:
    """Write the lines' names at their right ends, pushed apart upwards where they would touch."""
    parts = []
    lowest_free_px = math.inf
    for line in sorted(lines, key=lambda item: item.y[-1]):
        at_px = min(frame.y_px(line.y[-1]) + 4, lowest_free_px)
        lowest_free_px = at_px - _SMALL_PX
        x_px = frame.x_px(line.x[-1]) + 4
        parts.append(_text(x_px, at_px, line.end_label, size_px=_SMALL_PX, colour=line.colour))
    return parts


def _legend(frame: _Frame, series: Sequence[Series]) -> list[str]:
    """Write the legend into the upper corner that the series leave emptier."""
    if not series:
        return []
    width_px = _LEGEND_KEY_PX + 14 + _TEXT_PX * _LETTER_WIDTH * max(len(s.label) for s in series)
    height_px = _LEGEND_LINE_PX * len(series) + 8
    left_px, top_px = _emptiest_corner(frame, series, width_px, height_px)
    look = f" fill='{_PAPER}' fill-opacity='0.85' stroke='{_FAINT}'"
    parts = [_box(left_px, top_px, width_px, height_px, look)]
    for index, item in enumerate(series):
        y_px = top_px + _LEGEND_LINE_PX * index + 14
        parts.append(_legend_key(item, left_px + 6, y_px - 1))
        parts.append(_text(left_px + _LEGEND_KEY_PX + 8, y_px + 4, item.label))
    return parts


def _legend_key(series: Series, left_px: float, y_px: float) -> str:
    colour = quoteattr(series.colour)
    right_px = left_px + _LEGEND_KEY_PX - 4
    if isinstance(series, Points):
        middle_px = (left_px + right_px) / 2
        return f"<circle cx='{middle_px:.1f}' cy='{y_px:.1f}' r='{_POINT_RADIUS_PX}' fill={colour}/>"
    if isinstance(series, Band):
        return _box(left_px, y_px - 5, right_px - left_px, 10, f" fill={colour} fill-opacity='0.15'")
    return (
        f"<line x1='{left_px:.1f}' y1='{y_px:.1f}' x2='{right_px:.1f}' y2='{y_px:.1f}' stroke={colour} "
        f"stroke-width='{series.width_px:g}'{_dashes(series)}/>"
    )


def _emptiest_corner(frame: _Frame, series: Sequence[Series], width_px: float, height_px: float) -> tuple[float, float]:
    """Return the left and top of the corner in which the fewest points of the series would be covered."""
    gap_px = 8
    lefts = (frame.left_px + gap_px, frame.left_px + frame.width_px - width_px - gap_px)
    tops = (frame.top_px + gap_px, frame.top_px + frame.height_px - height_px - gap_px)
    spots = [
        (frame.x_px(x), frame.y_px(y)) for s in series for ys in _ordinates(s) for x, y in zip(s.x, ys, strict=True)
    ]

    def covered(corner: tuple[float, float]) -> int:
        left_px, top_px = corner
        return sum(
            left_px - gap_px <= x <= left_px + width_px + gap_px and top_px - gap_px <= y <= top_px + height_px + gap_px
            for x, y in spots
        )

    return min(((left_px, top_px) for top_px in tops for left_px in lefts), key=covered)


def _box(left_px: float, top_px: float, width_px: float, height_px: float, look: str = "") -> str:
    return f"<rect x='{left_px:.1f}' y='{top_px:.1f}' width='{width_px:.1f}' height='{height_px:.1f}'{look}/>"


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}'/>"


def _text(
    x_px: float,
    y_px: float,
    text: str,
    *,
    size_px: int = _TEXT_PX,
    anchor: str = "start",
    colour: str = _INK,
    bold: bool = False,
    upright: bool = True,
) -> str:
    """Write text at a point; one that is not upright reads from below."""
    turn = "" if upright else f" transform='rotate(-90 {x_px:.1f} {y_px:.1f})'"
    weight = " font-weight='bold'" if bold else ""
    return (
        f"<text x='{x_px:.1f}' y='{y_px:.1f}' font-size='{size_px}' text-anchor='{anchor}' fill={quoteattr(colour)}"
        f"{weight}{turn}>{escape(text)}</text>"
    )
