from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgefetal_calibration.evaluate import CaseResult
from edgefetal_calibration.frames import FrameResult
from edgefetal_calibration.thresholds import LOST_SHARE, fit_thresholds
from edgefetal_runtime.biometry.quantities import HC

HEAD = CaseResult(
    name="x.png",
    subject="a",
    truth={"HC": 200.0},
    measured={"HC": 201.0},
    intervals={},
    abstained=None,
    plane_probability=1.0,
    agreement=0.95,
    roughness=0.01,
    coverage=1.0,
    dice=0.9,
    seconds=0.02,
)


def test_each_threshold_costs_its_share_of_heads() -> None:
    rng = np.random.default_rng(0)
    heads = [
        dataclasses.replace(HEAD, plane_probability=p, agreement=a)
        for p, a in zip(rng.uniform(0.8, 1, 500), rng.uniform(0.7, 1, 500), strict=True)
    ]
    fitted = fit_thresholds(heads, [])
    assert np.mean([h.plane_probability < fitted.plane_probability for h in heads]) == pytest.approx(
        LOST_SHARE, abs=0.002
    )
    assert np.mean([h.agreement < fitted.agreement for h in heads if h.agreement]) == pytest.approx(
        LOST_SHARE, abs=0.002
    )


def test_unsure_network_gets_no_lower_bar() -> None:
    fitted = fit_thresholds([dataclasses.replace(HEAD, plane_probability=0.1, agreement=0.2)] * 20, [])
    assert fitted.plane_probability == 0.5
    assert fitted.agreement == 0.5


def test_network_that_outlines_nothing_passes_nothing() -> None:
    assert fit_thresholds([dataclasses.replace(HEAD, agreement=None)] * 20, []).agreement == 1.0


def _cut(coverage: float, error: float) -> CaseResult:
    return dataclasses.replace(HEAD, coverage=coverage, measured={HC.name: (1 + error) * HEAD.hc_true_mm})


def test_coverage_is_asked_for_until_nine_of_ten_cut_heads_come_out_right() -> None:
    good, bad = [_cut(0.8, 0.01)] * 20, [_cut(0.7, 0.08)] * 20
    assert 0.7 < fit_thresholds([HEAD] * 20, [*bad, *good]).coverage < 0.8
    assert fit_thresholds([HEAD] * 20, good).coverage == 0.0
    assert 0.8 < fit_thresholds([HEAD] * 20, [_cut(0.8, -0.2), *[_cut(0.75, 0.0)] * 3]).coverage < 0.81


def test_one_in_ten_bad_cut_heads_is_let_pass_and_no_more() -> None:
    good = [_cut(0.7 + 0.001 * k, 0.01) for k in range(30)]
    assert fit_thresholds([HEAD] * 20, [_cut(0.7, 0.2), *good]).coverage == 0.0
    assert fit_thresholds([HEAD] * 20, [*[_cut(0.7, 0.2)] * 4, *good]).coverage > 0.7


def test_cut_heads_that_were_refused_anyway_ask_for_nothing() -> None:
    refused = dataclasses.replace(HEAD, coverage=None, measured={}, abstained="open")
    assert fit_thresholds([HEAD] * 20, [refused] * 50).coverage == 0.0


def _shown(plane: str, named: str, probability: float) -> FrameResult:
    return FrameResult(
        name="f",
        subject="s",
        source="phantom",
        plane=plane,
        named=named,
        probability=probability,
        measure=None,
        reference_mm=None,
        measured_mm=None,
        abstained=None,
        dice=None,
        good=None,
        quality=None,
        called=None,
        seconds=0.01,
    )


def test_each_other_plane_has_a_bar_of_its_own() -> None:
    abdomens = [_shown("abdomen", "abdomen", 0.6 + k / 1000) for k in range(200)]
    femurs = [_shown("femur", "femur", 0.99)] * 20 + [_shown("none", "none", 0.9)] * 50
    fitted = fit_thresholds([HEAD] * 20, [], [*abdomens, *femurs])
    assert set(fitted.planes) == {"abdomen", "femur"}
    assert fitted.planes["abdomen"] == pytest.approx(0.604, abs=0.001)
    assert fitted.planes["femur"] == pytest.approx(0.99)
    assert fitted.least_probability("head") == fitted.plane_probability
    assert fitted.least_probability("abdomen") == fitted.planes["abdomen"]


def test_planes_that_are_often_taken_for_others_get_no_lower_bar() -> None:
    frames = [_shown("femur", "head", 0.9)] * 5 + [_shown("femur", "femur", 0.95)] * 20
    assert fit_thresholds([HEAD] * 20, [], frames).planes == {"femur": 0.5}
