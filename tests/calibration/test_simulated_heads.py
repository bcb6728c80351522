"""Where a simulated picture shows the skull, beside where its truth says that it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal_calibration.phantom.exam import Exam, ExamPlan
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_runtime.biometry.ellipse import Ellipse

if TYPE_CHECKING:
    import numpy.typing as npt


def mean_profile(
    picture: npt.NDArray[np.uint8], outline: Ellipse, offsets_px: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Mean grey along the outline's normals, outwards, shape (len(offsets_px),)."""
    points = outline.points(360)
    tangent = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    normal = np.stack((tangent[:, 1], -tangent[:, 0]), axis=1) / np.linalg.norm(tangent, axis=1, keepdims=True)
    places = (points[:, None] + offsets_px[None, :, None] * normal[:, None]).astype(np.float32)
    grey = cv2.remap(picture.astype(np.float32), places[..., 0], places[..., 1], cv2.INTER_LINEAR)
    return np.asarray(grey.mean(axis=0), dtype=np.float64)


@pytest.mark.parametrize(("weeks", "seed"), [(20.0, 2), (26.0, 3), (32.0, 4)])
def test_skull_is_drawn_where_the_truth_says(weeks: float, seed: int) -> None:
    exam = Exam(ExamPlan(Protocol.HEAD, weeks, seed, skill=1.0, frame_count=3))
    frame, section, (_, fan) = exam.frame(0, 1), exam.scene.head_section(exam.planes[0][1]), exam.probe_and_fan
    assert section is not None
    assert section.circumference() == pytest.approx(frame.truth.hc_mm)
    step = fan.x_mm_per_px
    middle = fan.to_px(section.center_x, section.center_y)
    outline = Ellipse(*middle, section.semi_major / step, section.semi_minor / step, section.angle_rad)
    offsets_mm = np.arange(-6.0, 6.1, 0.1)
    grey = mean_profile(frame.picture, outline, offsets_mm / step)
    # The echo of a wall of bone is brightest at its outer edge, and brighter than what is beside it.
    assert abs(offsets_mm[grey.argmax()]) < 1.0
    assert grey.max() > 1.5 * max(grey[0], grey[-1])
