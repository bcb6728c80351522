from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from edgefetal_devices.errors import InputError
from edgefetal_runtime.growth.assess import assess
from edgefetal_runtime.growth.charts import find_chart
from edgefetal_runtime.growth.gestation import GestationalAge, parse_age
from edgefetal_runtime.growth.measures import Biometry, Calipers, Measure
from edgefetal_runtime.growth.picture import draw_growth

NS = "{http://www.w3.org/2000/svg}"
THREE = Biometry(hc_mm=265, ac_mm=240, fl_mm=53)


def texts(svg: str) -> list[str]:
    return [str(element.text) for element in ET.fromstring(svg).iter(f"{NS}text")]  # noqa: S314 - our own text


def test_each_measure_has_its_panel_with_five_curves_and_the_fetus() -> None:
    svg = draw_growth(assess(THREE, parse_age("28w3d"), None))
    titles = ("Head circumference", "Abdominal circumference", "Femur length", "Estimated fetal weight")
    written = texts(svg)
    assert [t for t in written if t in titles] == list(titles)
    assert svg.count("<polyline") == 5 * 4
    assert written.count("97") == 4
    assert "265 mm, centile 52.7" in written
    assert "Growth at 28w3d: centiles 3, 10, 50, 90, 97" in written
    assert "Research software; not a medical device." in written


def test_the_dot_lies_on_the_median_where_the_fetus_does() -> None:
    """The mean HC at 28 weeks: the dot's height is that of the median curve there."""
    hc_mm = find_chart("INTERGROWTH-21st 2014", Measure.HC).value_at(28, 50)
    assert isinstance(hc_mm, float)
    root = ET.fromstring(draw_growth(assess(Biometry(hc_mm=hc_mm), GestationalAge(28.0, "test"), None)))  # noqa: S314
    dot = next(root.iter(f"{NS}circle"))
    curves = [e.attrib["points"].split() for e in root.iter(f"{NS}polyline")]
    assert f"{dot.attrib['cx']},{dot.attrib['cy']}" in curves[2]
    assert f"{dot.attrib['cx']},{dot.attrib['cy']}" not in curves[1]


def test_a_fetus_far_off_its_chart_is_shown_all_the_same() -> None:
    svg = draw_growth(assess(Biometry(hc_mm=60), GestationalAge(39.0, "test"), None))
    assert svg.count("<circle") == 2, "the dot and its entry in the legend"
    assert "60 mm, centile <0.1" in texts(svg)


def test_a_measure_whose_chart_does_not_hold_is_named_below() -> None:
    written = texts(draw_growth(assess(Biometry(hc_mm=175, ac_mm=150), GestationalAge(20.0, "test"), None)))
    assert "EFW: N/A: 20w0d is outside the chart's 22w0d to 40w0d" in written
    assert "Estimated fetal weight" not in written


def test_a_converted_diameter_is_said_to_be_one() -> None:
    biometry = Biometry(bpd_mm=70, bpd_calipers=Calipers.OUTER_INNER)
    written = texts(draw_growth(assess(biometry, parse_age("28w3d"), None)))
    assert "BPD outer-outer (mm)" in written
    assert "BPD: BPD 70.0 mm outer-inner read as 72.5 mm outer-outer (Wong 2018)" in written


def test_other_charts_can_be_drawn() -> None:
    chart = find_chart("WHO 2017", Measure.HC)
    written = texts(draw_growth(assess(THREE, parse_age("28w3d"), None), (chart,)))
    assert "Head circumference" in written
    assert "Femur length" not in written
    assert any(text.startswith("WHO 2017: Kiserud") for text in written)


def test_without_a_known_age_there_is_no_picture() -> None:
    with pytest.raises(InputError, match="known beforehand"):
        draw_growth(assess(THREE, None, None))


def test_where_no_chart_holds_there_is_no_picture() -> None:
    with pytest.raises(InputError, match="holds at 43w0d"):
        draw_growth(assess(THREE, GestationalAge(43.0, "test"), None))
