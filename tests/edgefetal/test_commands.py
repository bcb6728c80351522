"""The commands other than `run`, each through the front door."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import cv2
import pytest

from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.datasets.split import Part, Split

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_runtime.infer.bundle import Bundle
    from tests.edgefetal.conftest import CommandLine


def test_demo(edgefetal: CommandLine, tmp_path: Path) -> None:
    record = edgefetal.json("demo", "--out", "demo")
    assert record["simulated"] is True
    assert record["hc_true_mm"] == 180.0
    assert abs(record["error_mm"]) < 0.05 * 180
    assert record["error_mm"] == pytest.approx(record["hc_measured_mm"] - 180.0)
    assert cv2.imread(str(tmp_path / "demo" / "overlay-001.png")) is not None
    assert (tmp_path / "demo" / "sweep.avi").stat().st_size > 0


def test_interrupted_demo_leaves_nothing(
    edgefetal: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgefetal_runtime.exam.pipeline.outline_head", interrupt)
    assert edgefetal("demo", "--out", "demo").exit_code != 0
    assert list(tmp_path.iterdir()) == []


def test_demo_measures_what_it_is_given(edgefetal: CommandLine) -> None:
    """Another head gives another number: nothing in the demo is fixed."""
    record = edgefetal.json("demo", "--out", "demo", "--hc-mm", "240", "--seed", "9")
    assert record["hc_measured_mm"] == pytest.approx(240, rel=0.05)


def test_verify(edgefetal: CommandLine) -> None:
    report = edgefetal.json("verify", "starter", "--run")
    assert report["name"] == "starter"
    assert report["golden_frames"] == report["network"]["frames"] == 3
    assert report["budget_passed"] is True


def test_bench(edgefetal: CommandLine) -> None:
    report = edgefetal.json("bench", "starter", "--rounds", "10", "--threads", "1")
    assert report["machine"]["threads"] == 1
    for latency in report["latency"].values():
        assert 0 < latency["infer_p50_ms"] <= latency["infer_p95_ms"] <= latency["infer_max_ms"]
    ratio = report["reference_over_shipped"]
    assert ratio["low"] <= ratio["median"] <= ratio["high"]


def test_train_and_build_from_labelled_pictures_to_a_bundle(
    edgefetal: CommandLine, tiny_hc18: Path, tmp_path: Path
) -> None:
    """One epoch learns nothing, so the build ends with exit code 1 and a bundle that the clinic refuses."""
    trained = edgefetal("train", "multitask-unet", "--data", f"hc18:{tiny_hc18}", "--out", "run", "--epochs", "1")
    assert trained.exit_code == 0, trained.err
    again = edgefetal("train", "multitask-unet", "--data", f"hc18:{tiny_hc18}", "--out", "run", "--epochs", "1")
    assert again.exit_code == 2
    assert "--resume" in again.err
    built = edgefetal(
        "build", "run", "--device", "cpu", "--calibration", f"hc18:{tiny_hc18}", "--out", "bundle", "--json", "b.json"
    )
    assert built.exit_code == 1, built.err
    assert "over its budget" in built.err
    assert json.loads((tmp_path / "b.json").read_text())["evidence"]["passed"] is False
    assert edgefetal("verify", "bundle", "--run").exit_code == 0
    refused = edgefetal("run", "bundle", tiny_hc18 / "training_set" / "000_HC.png", "--out", "exam")
    assert refused.exit_code == 2
    evaluated = edgefetal.json("evaluate", "bundle", "--dataset", f"hc18:{tiny_hc18}", "--reference")
    assert evaluated["n"] == len(evaluated["cases"]) == len(evaluated["reference"]["cases"]) == 4


def test_evaluate_on_held_out_subjects(edgefetal: CommandLine, hc18_root: Path, starter: Bundle) -> None:
    """The promise of the README, on every held-out picture."""
    report = edgefetal.json("evaluate", "starter", "--dataset", f"hc18:{hc18_root}", "--reference")
    split = Split.model_validate_json(starter.read("split.json"))
    held_out = split.select(read_hc18(hc18_root), Part.HELD_OUT)
    assert report["n"] == len(held_out) == len(report["cases"])
    assert {split.parts[case["subject"]] for case in report["cases"]} == {Part.HELD_OUT}
    assert report["n_measured"] >= 0.9 * report["n"]
    assert report["reference"]["hc_mae_mm"] <= 2.5
    assert report["paired"]["hc_mean_abs_difference_mm"] <= 0.2
    assert abs(report["hc_mae_mm"] - report["reference"]["hc_mae_mm"]) <= 0.2
    assert report["dice_mean"] >= 0.96
    assert {"hc_bias_mm", "hc_p95_mm", "seconds_per_frame"} <= report.keys()


def test_evaluate_on_another_collection_uses_all_of_it(edgefetal: CommandLine, tiny_hc18: Path) -> None:
    report = edgefetal.json("evaluate", "starter", "--dataset", f"hc18:{tiny_hc18}")
    assert report["n"] == 32
    assert report["n_left_out"] == 0


def test_evaluate_refuses_an_empty_part(edgefetal: CommandLine, tiny_hc18: Path) -> None:
    outcome = edgefetal("evaluate", "starter", "--dataset", f"hc18:{tiny_hc18}", "--part", "train")
    assert outcome.exit_code == 2
    assert "holds no pictures of the train part" in outcome.err
