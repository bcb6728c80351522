"""The picture of an evaluation: well formed and complete, however little there is to show."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from edgefetal_calibration.charts import draw_evaluation
from edgefetal_calibration.evaluate import CaseResult
from edgefetal_calibration.intervals import risk_coverage
from edgefetal_runtime.infer.bundle import IntervalBand, Intervals

if TYPE_CHECKING:
    from collections.abc import Sequence

SVG = "{http://www.w3.org/2000/svg}"
INTERVALS = Intervals(
    level=0.9,
    dataset="hc18",
    n_subjects=20,
    subjects=(),
    digests=(),
    shared=1.0,
    bands={
        "HC": (IntervalBand(below=200.0, half_width=4.0, n=20), IntervalBand(below=None, half_width=8.0, n=20)),
    },
)


def result(name: str, true_mm: float, error_mm: float | None) -> CaseResult:
    return CaseResult(
        name=name,
        subject=name,
        truth={"HC": true_mm},
        measured={} if error_mm is None else {"HC": true_mm + error_mm},
        intervals={},
        abstained="no head is outlined" if error_mm is None else None,
        plane_probability=1.0,
        agreement=0.9,
        roughness=0.01,
        coverage=1.0,
        dice=0.9,
        seconds=0.02,
    )


SEVERAL = [result(f"{k}.png", 150.0 + 20 * k, (-1) ** k * k / 2) for k in range(8)]


def drawn(
    results: Sequence[CaseResult],
    unseen: Sequence[CaseResult] | None = None,
    intervals: Intervals | None = INTERVALS,
    title: str = "starter on hc18",
) -> tuple[ET.Element, str]:
    """Draw and parse; return the picture and all that is written in it."""
    picture = draw_evaluation(
        results, results if unseen is None else unseen, risk_coverage(results), intervals, title=title
    )
    root = ET.fromstring(picture)  # noqa: S314 - our own text
    return root, " | ".join(element.text or "" for element in root.iter(f"{SVG}text"))


def test_what_an_evaluation_shows() -> None:
    root, text = drawn(SEVERAL, SEVERAL[3:])
    assert root.tag == f"{SVG}svg"
    for phrase in (
        "starter on hc18",
        "Error of HC",
        "measured HC (mm)",
        "90% interval",
        "interval fitted on it",
        "not fitted on it",
        "Error of HC that is left",
        "cases refused, least sure first (%)",
        "mean absolute error (mm)",
        "Refused cases have none",
    ):
        assert phrase in text
    # One dot a measured case, and perhaps one in the legend for each kind of dot.
    assert len(SEVERAL) <= len(list(root.iter(f"{SVG}circle"))) <= len(SEVERAL) + 2


def test_refused_cases_have_no_dot() -> None:
    count = len(list(drawn(SEVERAL)[0].iter(f"{SVG}circle")))
    with_refused, _ = drawn([*SEVERAL, result("refused.png", 180.0, None)])
    assert len(list(with_refused.iter(f"{SVG}circle"))) == count


def test_without_intervals_nothing_is_said_of_them() -> None:
    _, text = drawn(SEVERAL, intervals=None)
    assert "interval" not in text
    assert "fitted" not in text
    assert "measured" in text


@pytest.mark.parametrize("intervals", [INTERVALS, None])
@pytest.mark.parametrize(
    "results",
    [
        [result("a.png", 180.0, None)] * 3,
        [result("a.png", 180.0, 1.5)],
        [result("a.png", 180.0, 0.0)],
        [result("a.png", 180.0, 0.0), result("b.png", 220.0, 0.0)],
        [result("a.png", 180.0, 1.5), result("b.png", 180.0, None)],
        [result("a.png", 180.0, 1.0), result("b.png", 180.0, 1.0)],
    ],
    ids=["nothing measured", "one case", "one exact case", "all exact", "one of two", "two alike"],
)
def test_little_to_show_is_still_a_picture(results: list[CaseResult], intervals: Intervals | None) -> None:
    root, text = drawn(results, intervals=intervals)
    assert "Error of HC" in text
    numbers = " ".join(value for element in root.iter() for value in element.attrib.values())
    assert "nan" not in numbers.lower().replace("sans", "")
    assert "inf" not in numbers.lower()


def test_an_evaluation_of_nothing_is_still_a_picture() -> None:
    assert "Error of HC" in drawn([])[1]


def test_a_title_may_hold_any_letters() -> None:
    title = 'a <b> & "c" é, n = 3'
    assert title in drawn(SEVERAL, title=title)[1]


def test_it_needs_nothing_from_elsewhere() -> None:
    root, _ = drawn(SEVERAL)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert not tags & {"script", "style", "image", "use", "foreignObject"}
    assert not any(value.startswith(("http", "url(h")) for e in root.iter() for k, value in e.attrib.items())
