"""Written exams after a capture chain: pictures, masks and truth stay together."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_calibration.datasets.phantom import read_phantom
from edgefetal_calibration.phantom.ages import Ages
from edgefetal_calibration.phantom.capture import burn_ruler
from edgefetal_calibration.phantom.capture_plan import CapturePlan
from edgefetal_calibration.phantom.cine import Cine
from edgefetal_calibration.phantom.exam import Exam
from edgefetal_calibration.phantom.exam_files import FileFormat
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.series import SeriesPlan, write_series
from edgefetal_devices.errors import InputError, OutputError
from edgefetal_runtime.sources.ruler import Ruler, read_ruler

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_calibration.datasets.labelled import LabelledSweep

TARGETED = (Protocol.HEAD, Protocol.ABDOMEN, Protocol.FEMUR)
# Twice as wide as high pixels, an eccentric part, two frozen frames, and two lost ones.
CARD = CapturePlan(size_px=(400, 600), part_px=(30, 20, 380, 600), frozen=(2, 2), lost_share=0.34)


def _plan(protocol: Protocol, **change: Any) -> SeriesPlan:
    return replace(SeriesPlan(protocol, Ages.of(24.0), exams=1, seed=2, skill=1.0, frame_count=4), **change)


def _written(plan: SeriesPlan, folder: Path) -> tuple[LabelledSweep, dict[str, Any]]:
    (truth,) = write_series(plan, folder)
    (exam,) = read_phantom(folder)
    (sweep,) = exam.sweeps()
    return sweep, json.loads(truth.read_text())


@pytest.mark.parametrize("protocol", TARGETED)
@pytest.mark.parametrize("file_format", list(FileFormat))
def test_pictures_masks_and_truth_follow_the_chain(tmp_path: Path, protocol: Protocol, file_format: FileFormat) -> None:
    plan = _plan(protocol, file_format=file_format, capture=CARD)
    sweep, record = _written(plan, tmp_path / "set")
    exam = Exam(plan.exam(0))
    _, fan = exam.probe_and_fan
    shows = [frame["shows"] for frame in record["frames"]]
    assert [frame["frame"] for frame in record["frames"]] == list(range(4))
    assert shows == sorted(shows)
    assert len(shows) == 4
    assert set(shows) <= set(range(4))
    assert record["mm_per_px"] == pytest.approx([2 * fan.x_mm_per_px, fan.y_mm_per_px])
    assert sweep.pixels.shape == (4, 580, 350)
    for index, source in enumerate(shows):
        drawn = exam.frame(0, source)
        # Of two pixels side by side, a rescaled picture has their mean and a mask one of them.
        pairs = drawn.picture[20:].reshape(580, 400, 2)[:, 30:380].astype(float)
        loss = 20.0 if file_format is FileFormat.MP4 else 0.51
        assert np.abs(sweep.pixels[index] - pairs.mean(axis=-1)).mean() < loss
        mask = np.minimum(drawn.mask_of(protocol.target), 1)[20:].reshape(580, 400, 2)[:, 30:380]
        assert (sweep.masks[protocol.target.value][index][..., None] == mask).any(axis=-1).all()
        stated = {key: record["frames"][index][key] for key in ("plane", "hc_mm", "ac_mm", "fl_mm", "quality")}
        assert stated == {key: exam.truth(0, source).to_json()[key] for key in stated}
    assert max(mask.sum() for mask in sweep.masks[protocol.target.value]) > 0


def test_a_written_ruler_is_read_in_mm(tmp_path: Path) -> None:
    plan = _plan(Protocol.ABDOMEN, frame_count=1, capture=CapturePlan(ruler=True, size_px=(1280, 720)))
    sweep, record = _written(plan, tmp_path / "set")
    ruler = read_ruler(sweep.pixels[0])
    assert isinstance(ruler, Ruler)
    assert ruler.period_px * record["mm_per_px"][1] == pytest.approx(10.0, rel=0.01)


def test_text_is_declared_in_dicom(tmp_path: Path) -> None:
    import pydicom

    for text, declared in ((None, "NO"), ("GA 24w0d", "YES")):
        plan = _plan(Protocol.HEAD, frame_count=1, file_format=FileFormat.DICOM, capture=CapturePlan(text=text))
        (truth,) = write_series(plan, tmp_path / declared)
        assert pydicom.dcmread(truth.parent / "sweep_1.dcm").BurnedInAnnotation == declared


def test_hc18s_layout_is_left_out_of_what_was_captured(tmp_path: Path) -> None:
    for capture, there in ((CapturePlan(), True), (CapturePlan(lost_share=0.25), False)):
        (truth,) = write_series(
            _plan(Protocol.HEAD, file_format=FileFormat.PNG, capture=capture), tmp_path / str(there)
        )
        assert (truth.parent / "hc18").exists() is there


def test_blind_sweeps_are_captured_in_files_of_their_own(tmp_path: Path) -> None:
    capture = CapturePlan(size_px=(372, 281), lost_share=0.5)
    plan = _plan(Protocol.ACOUSLIC, frame_count=2, file_format=FileFormat.DICOM, capture=capture)
    write_series(plan, tmp_path / "set")
    (exam,) = read_phantom(tmp_path / "set")
    assert [sweep.pixels.shape for sweep in exam.sweeps()] == [(1, 281, 372)] * 6
    with pytest.raises(InputError, match="--format"):
        replace(plan, file_format=FileFormat.MHA)


def test_the_same_seed_loses_the_same_frames_and_another_chain_is_another_series(tmp_path: Path) -> None:
    plan = _plan(Protocol.FEMUR, capture=CapturePlan(lost_share=0.5))
    shows = [
        [frame["shows"] for frame in _written(replace(plan, seed=seed), tmp_path / name)[1]["frames"]]
        for name, seed in (("a", 2), ("b", 2), ("c", 3), ("d", 4))
    ]
    assert shows[0] == shows[1]
    assert len({tuple(s) for s in shows}) > 1
    assert write_series(plan, tmp_path / "a", resume=True) == [plan.truth_path(tmp_path / "a", 0)]
    with pytest.raises(OutputError, match="another series"):
        write_series(replace(plan, capture=CapturePlan(lost_share=0.5, text="x")), tmp_path / "a", resume=True)
    with pytest.raises(OutputError, match="another series"):
        write_series(
            replace(plan, file_format=FileFormat.PNG if plan.file_format is FileFormat.MHA else FileFormat.MHA),
            tmp_path / "a",
            resume=True,
        )


def test_a_ruler_fits_every_depth_of_the_clinical_probe() -> None:
    for mm_per_px in (80 / 592, 300 / 592):
        blank = Cine(np.zeros((1, 600, 800), np.uint8), 1.0, mm_per_px, mm_per_px)
        assert burn_ruler(blank, first_y_px=20.0, every_mm=10.0).frames.any()
