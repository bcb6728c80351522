from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.evaluate import (
    CaseResult,
    compare,
    dice,
    ellipse_mask,
    evaluate_heads,
    mask_in_frame,
    rows,
    summarise,
)
from edgefetal_runtime.biometry.ellipse import Ellipse, ellipse_from_points
from edgefetal_runtime.infer.bundle import Bundle, IntervalBand, Intervals
from edgefetal_runtime.infer.network import Network, load_network
from edgefetal_runtime.infer.preprocess import PreprocessSpec, letterbox

if TYPE_CHECKING:
    from pathlib import Path


def result(hc_mm: float | None, *, true_mm: float = 200.0, seconds: float = 0.02, subject: str = "a") -> CaseResult:
    return CaseResult(
        name="x.png",
        subject=subject,
        truth={"HC": true_mm},
        measured={} if hc_mm is None else {"HC": hc_mm},
        intervals={},
        abstained=None if hc_mm is not None else "no head is outlined",
        plane_probability=1.0,
        agreement=0.9,
        roughness=0.01,
        coverage=1.0,
        dice=0.9,
        seconds=seconds,
    )


def test_summary_by_hand() -> None:
    summary = summarise([result(201.0), result(197.0, subject="b"), result(None, subject="b")])
    assert summary["n"] == 3
    assert summary["n_subjects"] == 2
    assert summary["n_measured"] == 2
    assert summary["hc_mae_mm"] == pytest.approx(2.0)
    assert summary["hc_bias_mm"] == pytest.approx(-1.0)
    assert summary["hc_max_mm"] == pytest.approx(3.0)
    assert summary["hc_sd_mm"] == pytest.approx(np.sqrt(8.0))
    assert summary["dice_mean"] == pytest.approx(0.9)


def test_summary_by_size_of_the_head() -> None:
    summary = summarise([result(91.0, true_mm=90.0), result(None, true_mm=80.0), result(203.0)])
    small, large = summary["by_size"]
    assert (small["from_mm"], small["to_mm"], small["n"], small["n_measured"]) == (0, 100, 2, 1)
    assert small["hc_mae_mm"] == pytest.approx(1.0)
    assert (large["from_mm"], large["n"]) == (200, 1)


def test_summary_without_a_measurement_says_null() -> None:
    summary = summarise([result(None)])
    assert summary["n_measured"] == 0
    assert summary["hc_mae_mm"] is None
    assert summary["hc_p95_mm"] is None


def test_comparison_is_paired() -> None:
    shipped = [result(201.0, seconds=0.01), result(None), result(199.0, seconds=0.01)]
    reference = [result(200.5), result(200.0), result(199.2)]
    paired = compare(shipped, reference)
    assert paired["n_both_measured"] == 2
    assert paired["n_only_one_measured"] == 1
    assert paired["hc_mean_abs_difference_mm"] == pytest.approx(0.35)
    assert paired["hc_mean_difference_mm"] == pytest.approx(0.15)
    assert paired["hc_max_abs_difference_mm"] == pytest.approx(0.5)
    assert paired["hc_difference_upper_mm"] >= paired["hc_mean_abs_difference_mm"]
    # |1| - |0.5| and |-1| - |-0.8|
    assert paired["hc_mae_change_mm"] == pytest.approx(0.35)
    assert paired["time_ratio"] == pytest.approx(2.0)


def test_comparison_needs_the_same_cases() -> None:
    with pytest.raises(ValueError, match="zip"):
        compare([result(200.0)], [result(200.0), result(200.0)])


def test_dice_by_hand() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert dice(a, b) == 1.0
    a[0, :2] = True
    assert dice(a, b) == 0.0
    b[0, 1:4] = True
    assert dice(a, b) == pytest.approx(2 / 5)


@given(st.floats(20, 60), st.floats(0.65, 1.0), st.floats(0, np.pi), st.floats(70, 90), st.floats(70, 90))
def test_filled_ellipse_has_its_area(semi: float, ratio: float, angle: float, x: float, y: float) -> None:
    ellipse = Ellipse(x, y, semi, semi * ratio, angle)
    area = np.pi * semi * semi * ratio
    assert ellipse_mask(ellipse, (160, 160)).sum() == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize("shape", [(540, 800), (300, 260), (1080, 1920), (97, 131)])
def test_mask_returns_to_the_frame(shape: tuple[int, int]) -> None:
    spec = PreprocessSpec(height_px=192, width_px=288, mean=0.0, std=1.0)
    box = letterbox(*shape, spec)
    size = min(shape)
    truth = Ellipse(shape[1] * 0.5, shape[0] * 0.48, size * 0.35, size * 0.28, 0.4)
    in_network = ellipse_from_points(box.to_network(truth.points(96)))
    assert in_network is not None
    rows, columns = np.mgrid[:192, :288].astype(float)
    logits = -in_network.signed_distance(np.stack((columns, rows), axis=-1)).astype(np.float32)
    assert dice(mask_in_frame(logits, box, shape), ellipse_mask(truth, shape)) > 0.985


def test_every_measure_is_compared_with_the_annotation(starter: Bundle, simulated_hc18: Path) -> None:
    cases = read_hc18(simulated_hc18)[30:33]
    told = []
    results = evaluate_heads({"net": load_network(starter)}, cases, lambda: told.append(1))["net"]
    assert len(told) == 3
    names = {"HC", "BPD_outer_outer", "OFD", "cephalic_index"}
    for case, found in zip(cases, results, strict=True):
        assert (found.name, found.subject) == (case.name, case.subject)
        assert set(found.truth) == set(found.measured) == names
        assert found.hc_true_mm == found.truth["HC"] == case.hc_mm
        assert found.hc_mm == found.measured["HC"]
        assert found.truth["cephalic_index"] == pytest.approx(found.truth["BPD_outer_outer"] / found.truth["OFD"])
        for name in names:
            assert found.measured[name] == pytest.approx(found.truth[name], rel=0.06)
        assert found.abstained is None
        assert found.dice > 0.95
        assert 0 < (found.roughness or 0) < 0.05
        assert found.seconds > 0


def test_intervals_of_the_bundle_are_those_of_the_results(starter: Bundle, simulated_hc18: Path) -> None:
    """HC18's pixel size is in the reference too, so its uncertainty widens nothing here."""
    band = IntervalBand(below=None, half_width=5.0, n=10)
    intervals = Intervals(
        level=0.9, dataset="hc18", n_subjects=10, subjects=(), digests=(), shared=1.0, bands={"HC": (band,)}
    )
    backend = load_network(starter).backend
    cases = read_hc18(simulated_hc18)[30:31]
    networks = {
        name: Network(starter.manifest.model_copy(update={"intervals": tables}), backend)
        for name, tables in (("with", intervals), ("without", None))
    }
    results = evaluate_heads(networks, cases)
    (found,) = results["with"]
    assert found.hc_mm is not None
    assert set(found.intervals) == {"HC"}
    assert found.intervals["HC"] == pytest.approx((found.hc_mm - 5, found.hc_mm + 5))
    assert results["without"][0].intervals == {}


def test_a_refused_case_has_its_reason_and_no_measure(starter: Bundle, simulated_hc18: Path) -> None:
    refusing = starter.manifest.model_copy(
        update={"thresholds": starter.manifest.thresholds.model_copy(update={"agreement": 1.0})}
    )
    network = Network(refusing, load_network(starter).backend)
    (found,) = evaluate_heads({"net": network}, read_hc18(simulated_hc18)[30:31])["net"]
    assert (found.measured, found.intervals, found.hc_mm) == ({}, {}, None)
    assert "not sure enough" in (found.abstained or "")
    assert set(found.truth) == {"HC", "BPD_outer_outer", "OFD", "cephalic_index"}


def test_rows_are_json(starter: Bundle, simulated_hc18: Path) -> None:
    (case,) = read_hc18(simulated_hc18)[30:31]
    results = evaluate_heads({"net": load_network(starter)}, [case])["net"]
    (row,) = json.loads(json.dumps(rows(results)))
    assert row["hc_mm"] == row["measured"]["HC"]
    assert row["hc_true_mm"] == row["truth"]["HC"] == case.hc_mm
