from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edgefetal_calibration.datasets.acouslic import read_acouslic
from edgefetal_calibration.datasets.phantom import read_phantom
from edgefetal_calibration.phantom.ages import Ages
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.series import FileFormat, SeriesPlan, write_series
from edgefetal_devices.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_calibration.datasets.labelled import LabelledSweep

FRAMES = 5


def draw(out: Path, protocol: Protocol, file_format: FileFormat) -> Path:
    write_series(
        SeriesPlan(protocol, Ages(24.0, 24.0), 1, seed=3, skill=0.9, frame_count=FRAMES, file_format=file_format),
        out,
    )
    return out


@pytest.fixture(scope="session")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("blind") / "out", Protocol.ACOUSLIC, FileFormat.MHA)


@pytest.fixture(scope="session")
def targeted(tmp_path_factory: pytest.TempPathFactory) -> dict[FileFormat, Path]:
    root = tmp_path_factory.mktemp("targeted")
    return {which: draw(root / which.value, Protocol.ABDOMEN, which) for which in FileFormat}


def truth_of(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    return value


@pytest.fixture
def copied(targeted: dict[FileFormat, Path], tmp_path: Path) -> Path:
    return shutil.copytree(targeted[FileFormat.PNG], tmp_path / "copied")


def agrees_with_truth(sweep: LabelledSweep, frames: list[dict[str, Any]]) -> None:
    assert sweep.planes == tuple(frame["plane"] for frame in frames)
    assert sweep.grades is not None
    for k, frame in enumerate(frames):
        shown = frame["plane"] == "abdomen"
        assert sweep.grades[k] == (0 if not shown else 1 if frame["optimal"] else 2)
        assert bool(sweep.masks["abdomen"][k].any()) == shown
        for measure, key in (("HC", "hc_mm"), ("AC", "ac_mm"), ("FL", "fl_mm")):
            read = sweep.lengths_mm[measure][k]
            assert frame[key] == (None if np.isnan(read) else read)


def test_a_blind_exam_has_six_sweeps_of_its_own_length(blind: Path) -> None:
    (exam,) = read_phantom(blind)
    truth = truth_of(exam.truth)
    assert exam.subject == f"phantom/{truth['seed']}-{truth['number']}"
    sweeps = list(exam.sweeps())
    assert [sweep.name for sweep in sweeps] == [f"sweep_{k}" for k in range(1, 7)]
    for number, sweep in enumerate(sweeps, 1):
        assert sweep.pixels.shape == (FRAMES, 562, 744)
        assert set(sweep.masks) == {"abdomen"}
        assert sweep.skill == truth["skill"] == 0.9
        agrees_with_truth(sweep, [frame for frame in truth["frames"] if frame["sweep"] == number])


def test_an_abdomen_is_graded_and_outlined(targeted: dict[FileFormat, Path]) -> None:
    (exam,) = read_phantom(targeted[FileFormat.MHA])
    (sweep,) = exam.sweeps()
    agrees_with_truth(sweep, truth_of(exam.truth)["frames"])
    assert sweep.grades is not None
    assert sweep.grades.any()


def test_a_blind_exam_has_the_digest_that_it_has_as_acouslic(blind: Path) -> None:
    as_acouslic = {exam.name: exam for exam in read_acouslic(blind)}
    for exam in read_phantom(blind):
        assert as_acouslic[exam.name].digest() == exam.digest()
    with pytest.raises(DatasetError, match=r"has 30 frames.*phantom:PATH"):
        next(read_acouslic(blind)[0].sweeps())


def test_every_format_holds_the_same_exam(targeted: dict[FileFormat, Path]) -> None:
    exams = {which: read_phantom(root)[0] for which, root in targeted.items()}
    sweeps = {which: list(exam.sweeps()) for which, exam in exams.items()}
    expected = sweeps[FileFormat.MHA][0]
    for which, (sweep,) in sweeps.items():
        assert sweep.pixels.shape == (FRAMES, 600, 800)
        assert np.array_equal(sweep.masks["abdomen"], expected.masks["abdomen"])
        assert sweep.planes == expected.planes
        assert np.array_equal(sweep.lengths_mm["AC"], expected.lengths_mm["AC"], equal_nan=True)
        # Video is lossy.
        near = np.abs(sweep.pixels.astype(int) - expected.pixels).mean()
        assert near < 4 if which is FileFormat.MP4 else near == 0
    digests = {which: exam.digest() for which, exam in exams.items()}
    assert digests[FileFormat.MHA] == digests[FileFormat.PNG] == digests[FileFormat.DICOM]


@pytest.mark.parametrize(("protocol", "measure"), [(Protocol.HEAD, "HC"), (Protocol.FEMUR, "FL")])
def test_masks_are_of_the_protocol_s_own_structure_and_ungraded(
    tmp_path: Path, protocol: Protocol, measure: str
) -> None:
    (sweep,) = read_phantom(draw(tmp_path / "out", protocol, FileFormat.MHA))[0].sweeps()
    assert set(sweep.masks) == {protocol.value}
    assert sweep.grades is None
    assert sweep.planes is not None
    assert [not np.isnan(mm) for mm in sweep.lengths_mm[measure]] == [p == protocol.value for p in sweep.planes]
    assert protocol.value in sweep.planes
    assert sweep.scale is not None


def test_an_exam_without_truth_is_none(copied: Path) -> None:
    exam = next(copied.iterdir())
    shutil.copytree(exam, copied / ".9.partial")
    shutil.copytree(exam, copied / "unfinished", ignore=shutil.ignore_patterns("truth.json"))
    assert [found.name for found in read_phantom(copied)] == [exam.name]
    (exam / "truth.json").unlink()
    with pytest.raises(DatasetError, match="holds no finished exam"):
        read_phantom(copied)


def test_missing_and_surplus_frames_are_refused(copied: Path) -> None:
    sweep = next(copied.iterdir()) / "sweep_1"
    cv2.imwrite(str(sweep / "0005.png"), np.zeros((600, 800), np.uint8))
    with pytest.raises(DatasetError, match="sweep_1 has more frames than the 5"):
        list(read_phantom(copied)[0].sweeps())
    (sweep / "0005.png").unlink()
    (sweep / "0004.png").unlink()
    with pytest.raises(DatasetError, match="sweep_1 ends after 4 of 5 frames"):
        list(read_phantom(copied)[0].sweeps())
    shutil.rmtree(sweep)
    with pytest.raises(DatasetError, match=r"sweep_1 is there neither as a folder nor"):
        list(read_phantom(copied)[0].sweeps())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"simulated": False}, "is not the truth of a simulated exam"),
        ({"protocol": "heart"}, "protocol"),
        ({"frames": []}, "frames"),
        ({"mm_per_px": [0.0, 0.2]}, "Pixel size"),
        ({"frames": "many"}, "frames"),
    ],
)
def test_malformed_truths_are_refused_by_file(copied: Path, change: dict[str, Any], says: str) -> None:
    path = next(copied.iterdir()) / "truth.json"
    path.write_text(json.dumps(truth_of(path) | change))
    with pytest.raises(DatasetError, match=says):
        list(read_phantom(copied)[0].sweeps())


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000, '{"simulated": true}'])
def test_a_truth_that_is_none_is_refused(copied: Path, content: str) -> None:
    (next(copied.iterdir()) / "truth.json").write_text(content)
    with pytest.raises(DatasetError, match=r"truth\.json is not the truth"):
        list(read_phantom(copied)[0].sweeps())


def test_frames_out_of_order_are_refused(copied: Path) -> None:
    path = next(copied.iterdir()) / "truth.json"
    truth = truth_of(path)
    truth["frames"][1]["frame"] = 3
    path.write_text(json.dumps(truth))
    with pytest.raises(DatasetError, match="frame 3 of sweep 1 is out of order"):
        list(read_phantom(copied)[0].sweeps())


def test_a_sweep_without_frames_is_refused(blind: Path, tmp_path: Path) -> None:
    exam = read_phantom(shutil.copytree(blind, tmp_path / "blind"))[0]
    truth = truth_of(exam.truth)
    truth["frames"] = [frame for frame in truth["frames"] if frame["sweep"] != 4]
    exam.truth.write_text(json.dumps(truth))
    with pytest.raises(DatasetError, match="knows of no frames of sweep 4"):
        next(exam.sweeps())


def test_stacks_of_another_length_than_the_truth_are_refused(blind: Path, tmp_path: Path) -> None:
    root = shutil.copytree(blind, tmp_path / "blind")
    exam = read_phantom(root)[0]
    truth = truth_of(exam.truth)
    truth["frames"] = [frame for frame in truth["frames"] if frame["frame"] < FRAMES - 1]
    exam.truth.write_text(json.dumps(truth))
    with pytest.raises(DatasetError, match=r"has 30 frames and .* knows of 24"):
        next(read_phantom(root)[0].sweeps())
    assert exam.stack is not None
    exam.stack.unlink()
    with pytest.raises(DatasetError, match="is missing"):
        read_phantom(root)
