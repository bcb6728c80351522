from __future__ import annotations

import json
import shutil
from functools import partial
from typing import TYPE_CHECKING

import cv2
import pytest

from edgefetal_calibration.budget_file import read_budget
from edgefetal_calibration.datasets.hc18 import FOLDER, read_hc18
from edgefetal_calibration.datasets.split import Part, Split
from edgefetal_devices.errors import BundleError, DatasetError, OutputError
from edgefetal_devices.profile import read_profile
from edgefetal_export.build import BuildResult, build, source_of_run
from edgefetal_runtime.infer.bundle import SCHEMA_VERSION, load_bundle, require_fit_for_clinic
from edgefetal_runtime.infer.golden import check_network
from edgefetal_runtime.infer.network import load_network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_calibration.datasets.labelled import LabelledExam


class Recorder:
    """Counts the parts of every step."""

    def __init__(self) -> None:
        self.steps: dict[str, list[int]] = {}

    def step(self, title: str, total: int | None) -> Callable[[], None]:
        self.steps[title] = [0, total or 0]

        def advance() -> None:
            self.steps[title][0] += 1

        return advance


def built_of(run: Path, exams: Sequence[LabelledExam], out: Path, recorder: Recorder) -> BuildResult:
    """Build for this kind of processor from as few frames as a tiny set has."""
    return build(
        partial(source_of_run, run),
        read_profile("cpu-x86"),
        exams,
        out,
        name=out.name,
        budget=read_budget(),
        least_range_frames=8,
        progress=recorder,
    )


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, tiny_run: Path, tiny_cases: list[HeadCase]
) -> tuple[Path, BuildResult, Recorder]:
    out, recorder = tmp_path_factory.mktemp("bundles") / "tiny", Recorder()
    result = built_of(tiny_run, tiny_cases, out, recorder)
    return out, result, recorder


def test_bundle_is_whole_and_describes_itself(built: tuple[Path, BuildResult, Recorder]) -> None:
    folder, result, recorder = built
    bundle = load_bundle(folder)
    manifest = bundle.manifest
    assert manifest.name == "tiny"
    assert manifest.schema_version == SCHEMA_VERSION
    assert manifest.device == "cpu-x86"
    assert manifest.heads.mask == ("head",)
    assert manifest.heads.plane == ("head", "none")
    assert manifest.simulated == ()
    assert manifest.training.subjects == {"train": 21, "validation": 3, "held-out": 4}
    assert "CC BY 4.0" in manifest.training.licence
    assert {"torch", "onnxruntime", "numpy"} <= set(manifest.tools)
    assert all(done == total for title, (done, total) in recorder.steps.items() if "quantised" not in title)
    assert result.parity is not None
    assert result.parity < 1e-3
    # It measures nothing, so nothing was quantised, and the page says why.
    assert manifest.layers[0].precision == "float32"
    assert b"breaks the budget itself" in bundle.read("evidence.html")


def test_golden_frames_hold_where_they_were_made(built: tuple[Path, BuildResult, Recorder]) -> None:
    bundle = load_bundle(built[0])
    report = check_network(bundle, load_network(bundle))
    assert report.frames == 3
    assert report.mask_disagreement == 0


def test_ranges_were_taken_from_training_subjects(built: tuple[Path, BuildResult, Recorder]) -> None:
    bundle = load_bundle(built[0])
    split = Split.model_validate_json(bundle.read("split.json"))
    subjects = {name.partition("_")[0] for name in bundle.manifest.calibration.frames}
    assert subjects
    assert {split.parts[subject] for subject in subjects} == {Part.TRAIN}


def test_evidence_is_of_validation_subjects(built: tuple[Path, BuildResult, Recorder]) -> None:
    bundle = load_bundle(built[0])
    split = Split.model_validate_json(bundle.read("split.json"))
    evidence = json.loads(bundle.read("evidence.json"))
    assert evidence == built[1].evidence
    assert {split.parts[row["subject"]] for row in evidence["frames"]["shipped"]} == {Part.VALIDATION}


def test_two_held_out_subjects_are_too_few_for_intervals(built: tuple[Path, BuildResult, Recorder]) -> None:
    assert load_bundle(built[0]).manifest.intervals is None
    assert built[1].evidence["held_out"]["shipped"]["n_subjects"] == 4
    assert "coverage" not in built[1].evidence


def test_untrained_network_is_written_for_inspection_and_refused_in_the_clinic(
    built: tuple[Path, BuildResult, Recorder],
) -> None:
    """Three epochs measure nothing; the budget must not pass that."""
    bundle = load_bundle(built[0])
    assert built[1].evidence["passed"] is False
    assert bundle.manifest.budget_passed is False
    with pytest.raises(BundleError, match="accuracy budget"):
        require_fit_for_clinic(bundle)


def test_model_card_says_what_it_must(built: tuple[Path, BuildResult, Recorder]) -> None:
    card = load_bundle(built[0]).read("MODEL_CARD.md").decode()
    for phrase in (
        "Not a medical device",
        "CC BY 4.0",
        "van den Heuvel",
        "Split by subject",
        "Within the accuracy budget: NO",
        "None: too few held-out subjects to fit them on",
    ):
        assert phrase in card


def test_existing_folder_is_refused(
    built: tuple[Path, BuildResult, Recorder], tiny_run: Path, tiny_cases: list[HeadCase]
) -> None:
    with pytest.raises(OutputError, match="exists"):
        built_of(tiny_run, tiny_cases, built[0], Recorder())


def test_strangers_cannot_calibrate(tmp_path: Path, tiny_run: Path, tiny_hc18: Path) -> None:
    """The same pictures with one pixel changed each are other data, whatever their names."""
    other = shutil.copytree(tiny_hc18, tmp_path / "other")
    for picture in (other / FOLDER).glob("*HC.png"):
        pixels = cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE)
        pixels[0, 0] ^= 1
        cv2.imwrite(str(picture), pixels)
    with pytest.raises(DatasetError, match="validation subjects; give the run's"):
        built_of(tiny_run, read_hc18(other), tmp_path / "out", Recorder())
    assert not (tmp_path / "out").exists()
