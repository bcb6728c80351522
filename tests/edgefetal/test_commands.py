"""The commands other than `run`, each through the front door."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import cv2
import pytest

from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.datasets.split import Part, Split
from edgefetal_export.build import build
from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.infer.bundle import load_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_runtime.infer.bundle import Bundle
    from tests.edgefetal.conftest import CommandLine


def test_demo(edgefetal: CommandLine, tmp_path: Path) -> None:
    outcome = edgefetal("demo", "--out", "demo", "--json", "demo.json")
    assert outcome.exit_code == 0, outcome.err
    record = json.loads((tmp_path / "demo.json").read_text())
    truth = json.loads((tmp_path / "demo" / "truth.json").read_text())
    assert record["simulated"] is True
    true_mm, measured_mm, (low_mm, high_mm) = record["hc_true_mm"], record["hc_measured_mm"], record["interval_mm"]
    assert true_mm == truth["hc_mm"]
    assert abs(record["error_mm"]) < 0.05 * true_mm
    assert record["error_mm"] == pytest.approx(measured_mm - true_mm)
    assert low_mm < true_mm < high_mm
    assert abs(record["measured_frame"] - record["standard_plane_frame"]) <= 8
    # Nobody takes it for a patient's, and the truth stands beside what was measured.
    assert outcome.out.startswith("SIMULATED: a fetus of 28w0d (seed 1)")
    found = f"true HC {true_mm:.1f} mm, measured {measured_mm:.1f} mm ({low_mm:.0f} to {high_mm:.0f})"
    assert f"SIMULATED head: {found}" in outcome.out
    assert sorted(file.name for file in (tmp_path / "demo").iterdir()) == [
        "exam.json", "overlay-001-head.png", "sweep.avi", "truth.json",
    ]  # fmt: skip
    assert cv2.imread(str(tmp_path / "demo" / "overlay-001-head.png")) is not None
    assert cv2.VideoCapture(str(tmp_path / "demo" / "sweep.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == len(truth["frames"])


def test_demo_that_measures_nothing_keeps_the_exam_and_says_what_to_do(
    edgefetal: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgefetal.cli.demo._FRAMES", 6)
    monkeypatch.setattr("edgefetal_runtime.exam.find.find_structure", lambda *_: Abstained("the head hides"))
    outcome = edgefetal("demo", "--out", "demo", "--json", "demo.json")
    assert outcome.exit_code == 1
    assert "try another --seed" in outcome.err
    record = json.loads((tmp_path / "demo.json").read_text())
    assert (record["hc_measured_mm"], record["error_mm"], record["measured_frame"]) == (None, None, None)
    assert (tmp_path / "demo" / "exam.json").is_file()


def test_interrupted_demo_leaves_nothing(
    edgefetal: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgefetal.cli.demo._FRAMES", 6)
    monkeypatch.setattr("edgefetal_runtime.exam.find.find_structure", interrupt)
    assert edgefetal("demo", "--out", "demo").exit_code != 0
    assert list(tmp_path.iterdir()) == []


def test_demo_measures_what_it_is_given(edgefetal: CommandLine) -> None:
    """Another head gives another number: nothing in the demo is fixed."""
    record = edgefetal.json("demo", "--out", "demo", "--ga", "32w0d", "--seed", "3")
    assert record["hc_measured_mm"] == pytest.approx(record["hc_true_mm"], rel=0.05)
    assert record["hc_true_mm"] > 270


def test_verify(edgefetal: CommandLine) -> None:
    report = edgefetal.json("verify", "starter", "--run")
    assert report["name"] == "starter"
    assert report["golden_frames"] == report["network"]["frames"] == 3
    assert report["budget_passed"] is True


def test_train_and_build_from_labelled_pictures_to_a_bundle(
    edgefetal: CommandLine, tiny_hc18: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One epoch learns nothing, so the build ends with exit code 1 and a bundle that the clinic refuses."""
    trained = edgefetal("train", "multitask-unet", "--data", f"hc18:{tiny_hc18}", "--out", "run", "--epochs", "1")
    assert trained.exit_code == 0, trained.err
    again = edgefetal("train", "multitask-unet", "--data", f"hc18:{tiny_hc18}", "--out", "run", "--epochs", "1")
    assert again.exit_code == 2
    assert "--resume" in again.err
    few = edgefetal("build", "run", "--device", "cpu", "--calibration", f"hc18:{tiny_hc18}", "--out", "bundle")
    assert few.exit_code == 2, few.err
    assert "24 frames" in few.err
    assert "32 are needed" in few.err
    # A set of this size is for tests alone.
    monkeypatch.setitem(build.__kwdefaults__, "least_range_frames", 8)
    key_id = edgefetal.json("keys", "new", "team")["id"]
    built = edgefetal(
        "build", "run", "--device", "cpu", "--calibration", f"hc18:{tiny_hc18}", "--out", "bundle", "--json", "b.json",
        "--key", "team.key",
    )  # fmt: skip
    assert built.exit_code == 1, built.err
    assert f"Signed by key {key_id}." in built.out
    assert json.loads((tmp_path / "b.json").read_text())["signer"] == load_bundle(tmp_path / "bundle").signer == key_id
    assert "over its budget" in built.err
    assert "breaks the budget itself" in built.out
    assert json.loads((tmp_path / "b.json").read_text())["evidence"]["passed"] is False
    assert edgefetal("verify", "bundle", "--run").exit_code == 0
    refused = edgefetal("run", "bundle", tiny_hc18 / "training_set" / "000_HC.png", "--out", "exam")
    assert refused.exit_code == 2
    evaluated = edgefetal.json("evaluate", "bundle", "--dataset", f"hc18:{tiny_hc18}", "--reference")
    assert evaluated["n"] == len(evaluated["cases"]) == len(evaluated["reference"]["cases"]) == 4
    assert (evaluated["coverage"], evaluated["risk_coverage"]) == ({}, [])
    # Fitting again learns nothing either, and says so in the same way.
    again = edgefetal("calibrate", "bundle", "--dataset", f"hc18:{tiny_hc18}", "--out", "again", "--json", "c.json")
    assert again.exit_code == 1, again.err
    assert "over its budget" in again.err
    # What is made of a signed bundle is another one, which nobody signed.
    assert "It is not signed" in again.out
    about = json.loads((tmp_path / "c.json").read_text())
    assert about["evidence"]["passed"] is False
    assert about["signer"] is load_bundle(tmp_path / "again").signer is None
    assert edgefetal("verify", "again", "--run").exit_code == 0


def test_evaluate_on_held_out_subjects(edgefetal: CommandLine, hc18_root: Path, starter: Bundle) -> None:
    """The promise of the README, on every held-out picture."""
    report = edgefetal.json("evaluate", "starter", "--dataset", f"hc18:{hc18_root}", "--reference")
    split = Split.model_validate_json(starter.read("split.json"))
    held_out = split.select(read_hc18(hc18_root), Part.HELD_OUT)
    assert report["n"] == len(held_out) == len(report["cases"])
    assert {split.parts[case["subject"]] for case in report["cases"]} == {Part.HELD_OUT}
    assert report["n_measured"] >= 0.85 * report["n"]
    assert report["reference"]["hc_mae_mm"] <= 2.5
    assert report["paired"]["hc_mean_abs_difference_mm"] <= 0.2
    assert abs(report["hc_mae_mm"] - report["reference"]["hc_mae_mm"]) <= 0.2
    assert report["dice_mean"] >= 0.96
    assert {"hc_bias_mm", "hc_p95_mm", "seconds_per_frame"} <= report.keys()
    # Intervals were fitted on half of these subjects and are judged on the others.
    intervals = starter.manifest.intervals
    assert intervals is not None
    hc = report["coverage"]["HC"]
    fresh = [case for case in report["cases"] if case["subject"] not in intervals.subjects]
    assert hc["n"] == sum(case["hc_mm"] is not None for case in fresh)
    assert hc["n_subjects"] == len({case["subject"] for case in fresh if case["hc_mm"] is not None})
    assert hc["expected"][0] <= hc["covered"] <= hc["expected"][1]
    assert len(report["risk_coverage"]) == report["n_measured"]
    assert report["risk_coverage"][0]["hc_mae_mm"] == pytest.approx(report["hc_mae_mm"])


def test_evaluate_on_another_collection_uses_all_of_it(edgefetal: CommandLine, tiny_hc18: Path) -> None:
    report = edgefetal.json("evaluate", "starter", "--dataset", f"hc18:{tiny_hc18}")
    assert report["n"] == 32
    assert report["n_left_out"] == 0


def test_evaluate_refuses_an_empty_part(edgefetal: CommandLine, tiny_hc18: Path) -> None:
    outcome = edgefetal("evaluate", "starter", "--dataset", f"hc18:{tiny_hc18}", "--part", "train")
    assert outcome.exit_code == 2
    assert "holds no pictures of the train part" in outcome.err


def test_evaluate_judges_intervals_on_subjects_that_they_were_not_fitted_on(
    edgefetal: CommandLine, simulated_bundle: tuple[Path, object], simulated_hc18: Path, tmp_path: Path
) -> None:
    bundle, dataset = simulated_bundle[0], f"hc18:{simulated_hc18}"
    report = edgefetal.json("evaluate", bundle, "--dataset", dataset, "--chart", "chart.svg")
    intervals = load_bundle(bundle).manifest.intervals
    assert intervals is not None
    assert report["n"] == 28
    fresh = [case for case in report["cases"] if case["subject"] not in intervals.subjects]
    hc = report["coverage"]["HC"]
    assert hc["n"] == sum(case["hc_mm"] is not None for case in fresh) > 0
    assert hc["covered"] == sum(
        case["intervals"]["HC"][0] <= case["hc_true_mm"] <= case["intervals"]["HC"][1]
        for case in fresh
        if case["hc_mm"] is not None
    )
    assert set(report["coverage"]) == {"HC", "BPD_outer_outer", "OFD", "cephalic_index"}
    risk = report["risk_coverage"]
    assert [point["kept"] for point in risk] == list(range(report["n_measured"], 0, -1))
    assert risk[0]["hc_mae_mm"] == pytest.approx(report["hc_mae_mm"])
    picture = (tmp_path / "chart.svg").read_text()
    assert ET.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own file
    assert "starter on hc18, held-out part, n = 28" in picture
    assert "90% interval" in picture


def test_evaluate_prints_how_well_the_intervals_hold(
    edgefetal: CommandLine, simulated_bundle: tuple[Path, object], simulated_hc18: Path
) -> None:
    outcome = edgefetal("evaluate", simulated_bundle[0], "--dataset", f"hc18:{simulated_hc18}")
    assert outcome.exit_code == 0, outcome.err
    assert "Intervals, on subjects that they were not fitted on" in outcome.out
    assert re.search(r"HC\s*[│|]\s*\d+ of \d+ \(\d+\.\d%\)", outcome.out)
    assert "a true 90% would hold" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--chart", "none/chart.svg"), "none/chart.svg cannot be written"),
        (("--chart", "."), "cannot be written"),
        (("--chart", "same.svg", "--json", "same.svg"), "would overwrite or alter same.svg"),
    ],
)
def test_evaluate_refuses_a_chart_that_cannot_be_written_before_the_work(
    edgefetal: CommandLine, simulated_hc18: Path, arguments: tuple[str, ...], says: str
) -> None:
    outcome = edgefetal("evaluate", "starter", "--dataset", f"hc18:{simulated_hc18}", *arguments)
    assert outcome.exit_code == 2
    assert says in outcome.err
    assert outcome.out == ""


def test_evaluate_keeps_its_chart_out_of_the_bundle(
    edgefetal: CommandLine, simulated_bundle: tuple[Path, object], simulated_hc18: Path
) -> None:
    bundle = simulated_bundle[0]
    for target in (bundle / "chart.svg", bundle / "model.onnx"):
        outcome = edgefetal("evaluate", bundle, "--dataset", f"hc18:{simulated_hc18}", "--chart", target)
        assert outcome.exit_code == 2
        assert f"{target} would overwrite or alter {bundle}" in outcome.err
        # It was --chart that was typed.
        assert "--json" not in outcome.err
    assert load_bundle(bundle)


def test_calibrate(
    edgefetal: CommandLine,
    simulated_bundle: tuple[Path, object],
    simulated_hc18: Path,
    lenient_budget: Path,
    tmp_path: Path,
) -> None:
    """The graphs stay as they were, to the byte; what is fitted on data is fitted again."""
    old = load_bundle(simulated_bundle[0])
    key_id = edgefetal.json("keys", "new", "team", "--out", "keys")["id"]
    outcome = edgefetal(
        "calibrate", simulated_bundle[0], "--dataset", f"hc18:{simulated_hc18}", "--out", "new", "--json", "new.json",
        "--budget", lenient_budget, "--key", "keys/team.key",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.err
    for phrase in ("Validation subjects", "Intervals, on subjects", "Bundle: new", "Within its accuracy budget."):
        assert phrase in outcome.out
    report = json.loads((tmp_path / "new.json").read_text())
    new = load_bundle(tmp_path / "new")
    assert report["out"] == "new"
    assert (old.signer, new.signer, report["signer"]) == (None, key_id, key_id)
    assert report["evidence"] == json.loads(new.read("evidence.json"))
    assert report["evidence"]["passed"] is True
    assert set(report["sizes_bytes"]) == set(new.manifest.files)
    for name in ("model.onnx", "reference.onnx", "golden.npz", "split.json", "recipe.json"):
        assert new.read(name) == old.read(name)
    assert new.manifest.intervals == old.manifest.intervals is not None
    assert new.manifest.name == old.manifest.name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["BUNDLE", "--dataset", "hc18:DATA", "--out", "here"], "here exists; name another"),
        (["BUNDLE", "--dataset", "hc18:DATA", "--out", "BUNDLE"], "exists; name another"),
        (["here", "--dataset", "hc18:DATA", "--out", "new"], "here is not a bundle"),
        (["none", "--dataset", "hc18:DATA", "--out", "new"], "none is not a bundle"),
        (["BUNDLE", "--dataset", "hc18:here", "--out", "new"], "is not an HC18 folder"),
        (["BUNDLE", "--dataset", "DATA", "--out", "new"], "write KIND:PATH"),
        (["BUNDLE", "--dataset", "hc18:DATA", "--out", "new", "--json", "BUNDLE/x"], "would overwrite or alter"),
        (["BUNDLE", "--dataset", "hc18:DATA", "--out", "new", "--json", "new"], "would overwrite or alter new"),
        (["BUNDLE", "--dataset", "hc18:DATA", "--out", "new", "--json", "no/x.json"], "cannot be written"),
        (["BUNDLE", "--dataset", "hc18:DATA", "--out", "BUNDLE/new"], "BUNDLE"),
    ],
    ids=[
        "out exists", "out is the bundle", "not a bundle", "no such bundle", "not HC18", "no kind",
        "json in the bundle", "json is the out", "json nowhere", "out in the bundle",
    ],
)  # fmt: skip
def test_calibrate_refuses(
    edgefetal: CommandLine,
    bundle_to_harm: Path,
    simulated_hc18: Path,
    tmp_path: Path,
    arguments: list[str],
    says: str,
) -> None:
    (tmp_path / "here").mkdir()
    for word, path in (("BUNDLE", bundle_to_harm), ("DATA", simulated_hc18)):
        arguments = [argument.replace(word, str(path)) for argument in arguments]
        says = says.replace(word, str(path))
    before = load_bundle(bundle_to_harm).sha256
    outcome = edgefetal("calibrate", *arguments)
    assert outcome.exit_code == 2
    assert says in outcome.err
    assert [file.name for file in tmp_path.iterdir()] == ["here"]
    # The old bundle is still one: a folder in it would have made it none.
    assert load_bundle(bundle_to_harm).sha256 == before


@pytest.fixture
def bundle_to_harm(simulated_bundle: tuple[Path, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(simulated_bundle[0], tmp_path_factory.mktemp("to harm") / "bundle")
