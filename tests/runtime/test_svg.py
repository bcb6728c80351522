from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_runtime.svg import Band, Chart, Line, Points, draw, draw_panels, ticks

NS = "{http://www.w3.org/2000/svg}"
X = (0.0, 0.5, 1.0)
FULL = Chart(
    "Risk & coverage <HC>",
    'share of "frames"',
    "error (mm)",
    (
        Band(X, (0.0, 1.0, 2.0), (1.0, 2.0, 3.0), label="95 % interval"),
        Line(X, (0.5, 1.5, 2.5), label="by agreement", end_label="A"),
        Line(X, (2.5, 2.6, 2.6), label="at random", end_label="R", dashed=True),
        Points((0.5,), (1.5,), label="threshold"),
    ),
)


def parse(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own text


def texts(svg: str) -> list[str]:
    return [str(element.text) for element in parse(svg).iter(f"{NS}text")]


def test_everything_named_is_written_and_escaped() -> None:
    written = texts(draw(FULL))
    for text in (FULL.title, FULL.x_label, FULL.y_label, "95 % interval", "by agreement", "at random", "threshold"):
        assert written.count(text) == 1


def test_a_picture_needs_nothing_from_elsewhere() -> None:
    svg = draw(FULL)
    assert "href" not in svg
    assert "<script" not in svg
    assert "<style" not in svg
    assert svg.count("http") == 1, "the name of SVG itself"


def test_a_line_starts_and_ends_where_its_axes_do() -> None:
    root = parse(draw(Chart("", "", "", (Line((0, 10), (5, 7)),), y_range=(5, 7)), size_px=(400, 300)))
    polyline = next(root.iter(f"{NS}polyline"))
    clip = next(root.iter(f"{NS}clipPath"))[0]
    left, top = float(clip.attrib["x"]), float(clip.attrib["y"])
    right, bottom = left + float(clip.attrib["width"]), top + float(clip.attrib["height"])
    corners = [tuple(map(float, pair.split(","))) for pair in polyline.attrib["points"].split()]
    assert corners == [pytest.approx((left, bottom)), pytest.approx((right, top))]
    assert 0 < left < right < 400
    assert 0 < top < bottom < 300


def test_a_dashed_line_and_its_legend_are_dashed() -> None:
    assert draw(FULL).count("stroke-dasharray") == 2


def test_a_point_beyond_the_axes_is_not_drawn() -> None:
    chart = Chart("", "", "", (Points((0.5, 2.0), (1.0, 1.0)),), x_range=(0, 1), y_range=(0, 2))
    assert len(list(parse(draw(chart)).iter(f"{NS}circle"))) == 1


def test_end_labels_are_pushed_apart() -> None:
    chart = Chart("", "", "", tuple(Line((0, 1), (0, 1 + 1e-6 * i), end_label=f"L{i}") for i in range(4)))
    at = {str(e.text): float(e.attrib["y"]) for e in parse(draw(chart)).iter(f"{NS}text")}
    heights = [at[f"L{i}"] for i in range(4)]
    assert all(below - above >= 10.9 for below, above in pairwise(heights))


def test_the_legend_takes_a_corner_that_the_lines_leave_free() -> None:
    rising = Chart("", "", "", (Line(X, (0.0, 1.0, 2.0), label="rising"),))
    falling = Chart("", "", "", (Line(X, (2.0, 1.0, 0.0), label="falling"),))
    where = {}
    for chart in (rising, falling):
        for element in parse(draw(chart)).iter(f"{NS}text"):
            where[str(element.text)] = float(element.attrib["x"])
    assert where["rising"] < 200
    assert where["falling"] > 400


def test_panels_stand_in_rows() -> None:
    svg = draw_panels([FULL, FULL, FULL], title="Three", footer=("one", "two"), columns=2, panel_px=(400, 300))
    root = parse(svg)
    assert (root.attrib["width"], root.attrib["height"]) == ("800", "678")
    assert texts(svg)[0] == "Three"
    assert texts(svg)[-2:] == ["one", "two"]
    clips = [clip[0].attrib for clip in root.iter(f"{NS}clipPath")]
    assert [(float(c["x"]) > 400, float(c["y"]) > 300) for c in clips] == [(False, False), (True, False), (False, True)]
    assert len({clip.attrib["id"] for clip in root.iter(f"{NS}clipPath")}) == 3


def test_a_long_title_stays_within_its_panel() -> None:
    def title_px(title: str) -> int:
        root = parse(draw(Chart(title, "", "", (Line(X, X),)), size_px=(400, 300)))
        return next(int(e.attrib["font-size"]) for e in root.iter(f"{NS}text") if e.text == title)

    assert title_px("short") > title_px("a title that goes on and on beyond what a panel can hold")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (14, 40, [15, 20, 25, 30, 35, 40]),
        (0, 3600, [0, 500, 1000, 1500, 2000, 2500, 3000, 3500]),
        (-0.3, 0.3, [-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_within_and_are_neither_few_nor_many(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert 3 <= len(found) <= 12
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in found)


@pytest.mark.parametrize("y", [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0)])
def test_a_flat_line_still_has_axes(y: tuple[float, ...]) -> None:
    assert len(texts(draw(Chart("flat", "x", "y", (Line(X, y),))))) > 8
