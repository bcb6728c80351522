"""What the masks of written exams measure, read back by the project's reader, is what their truth says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_calibration.datasets.phantom import read_phantom
from edgefetal_calibration.phantom.ages import Ages
from edgefetal_calibration.phantom.capture_plan import CapturePlan
from edgefetal_calibration.phantom.cine import Cine
from edgefetal_calibration.phantom.exam import Exam
from edgefetal_calibration.phantom.exam_files import FileFormat
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.series import SeriesPlan, write_series
from edgefetal_runtime.biometry.ellipse import contour_points, ellipse_from_points
from edgefetal_runtime.biometry.femur import Shaft, find_shaft
from edgefetal_runtime.infer.preprocess import PreprocessSpec, letterbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledSweep
    from edgefetal_runtime.scale import Scale

    Mask = npt.NDArray[np.uint8]

AGES = Ages(14.0, 40.0)
MEASURES = {"head": "HC", "abdomen": "AC", "femur": "FL"}
CARD = CapturePlan(
    ruler=True, text="simulated", size_px=(1280, 720), part_px=(140, 0, 1140, 720), frozen=(1, 2), lost_share=0.2
)


def _plans() -> list[SeriesPlan]:
    """200 exams: every protocol and format, with and without a capture card."""
    targeted = [
        SeriesPlan(protocol, AGES, exams=15, seed=seed, frame_count=3, file_format=file_format, capture=capture)
        for protocol in (Protocol.HEAD, Protocol.ABDOMEN, Protocol.FEMUR)
        for seed, (file_format, capture) in enumerate(
            [
                (FileFormat.MHA, CapturePlan()),
                (FileFormat.PNG, CapturePlan()),
                (FileFormat.DICOM, CARD),
                (FileFormat.MP4, CARD),
            ]
        )
    ]
    blind = [
        SeriesPlan(Protocol.ACOUSLIC, AGES, exams=10, seed=seed, frame_count=4, file_format=file_format)
        for seed, file_format in enumerate((FileFormat.MHA, FileFormat.DICOM))
    ]
    return targeted + blind


def _circumference_mm(mask: Mask, scale: Scale) -> float:
    logits = mask.astype(np.float32) * 8 - 4
    points = contour_points(logits, mask)
    ellipse = ellipse_from_points(points * (scale.x_mm_per_px, scale.y_mm_per_px))
    assert ellipse is not None
    return ellipse.circumference()


def _length_mm(mask: Mask, scale: Scale) -> float:
    # By itself, because a mask of less than a thousandth of a picture is taken for a speck.
    (top, left), (bottom, right) = (end(np.nonzero(mask), axis=1) for end in (np.min, np.max))
    mask = np.pad(mask[top : bottom + 1, left : right + 1], 20)
    spec = PreprocessSpec(height_px=mask.shape[0], width_px=mask.shape[1], mean=0, std=1)
    shaft = find_shaft(mask.astype(np.float32) * 8 - 4, letterbox(*mask.shape, spec), scale)
    assert isinstance(shaft, Shaft), shaft
    return shaft.length


def _field(plan: SeriesPlan, number: int) -> npt.NDArray[np.bool_]:
    """Inside of the fan in the written pictures, less its edge: a structure that reaches it may be cut."""
    probe, fan = Exam(plan.exam(number)).probe_and_fan
    whole = Cine(fan.mask(probe)[None].astype(np.uint8), 1.0, 1.0, 1.0)
    frames = CapturePlan(size_px=plan.capture.size_px, part_px=plan.capture.part_px).capture(
        whole, whole, face_y_px=0.0, seed=0
    )
    field = np.pad(frames.masks.frames[0], 1) > 0
    for axis in (0, 1):
        for step in (-1, 1):
            field &= np.roll(field, step, axis)
    return field[1:-1, 1:-1]


def _errors_mm(plan: SeriesPlan, folder: Path) -> Iterator[float]:
    """Measured on the written masks less stated, of every frame that shows the target whole."""
    write_series(plan, folder, workers=2)
    structure = plan.protocol.target.value
    numbers = {plan.exam(number).name: number for number in range(plan.exams)}
    for exam in read_phantom(folder):
        field = _field(plan, numbers[exam.name])
        for sweep in exam.sweeps():
            yield from _sweep_errors_mm(sweep, structure, field)


def _sweep_errors_mm(sweep: LabelledSweep, structure: str, field: npt.NDArray[np.bool_]) -> Iterator[float]:
    assert sweep.scale is not None
    for mask, stated in zip(sweep.masks[structure], sweep.lengths_mm[MEASURES[structure]], strict=True):
        if mask.any() and not mask[~field].any():
            measured = (_length_mm if structure == "femur" else _circumference_mm)(mask, sweep.scale)
            yield measured - float(stated)


@pytest.mark.slow
def test_200_written_exams_measure_what_their_truth_says(tmp_path: Path) -> None:
    errors: dict[str, list[float]] = {measure: [] for measure in MEASURES.values()}
    plans = _plans()
    assert sum(plan.exams for plan in plans) == 200
    for number, plan in enumerate(plans):
        found = list(_errors_mm(plan, tmp_path / str(number)))
        errors[MEASURES[plan.protocol.target.value]] += found
    for measure, values in errors.items():
        size = np.abs(values)
        print(f"{measure}: {len(size)} masks, mean {size.mean():.3f} mm, largest {size.max():.3f} mm")  # noqa: T201
        assert len(size) >= 40
        assert size.max() < 0.5
