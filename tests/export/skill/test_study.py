"""How much of an operator's skill the truth of a simulated head sweep shows: the most that any network could find.

Run by `pytest -m slow -s tests/export/skill/test_study.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal_calibration.phantom.ages import Ages
from edgefetal_calibration.phantom.exam import Exam
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.series import SeriesPlan
from edgefetal_export.training.skill.judge import spearman_or_none

if TYPE_CHECKING:
    import numpy.typing as npt

EXAMS, FRAMES, COARSE, HIDDEN = 60, 40, 4, 3


def depth(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """How far every pixel is inside, below 0 outside."""
    inside = mask.astype(np.uint8)
    return np.asarray(
        cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5), np.float32
    )


def foretold(masks: dict[int, npt.NDArray[np.bool_]]) -> float:
    """Dice of hidden masks with what lies evenly between the two that are seen on either side."""
    dices = []
    for first, seen in masks.items():
        last = first + HIDDEN + 1
        if last in masks:
            ends = depth(seen), depth(masks[last])
            for hidden in range(1, HIDDEN + 1):
                if first + hidden in masks:
                    share, true = hidden / (HIDDEN + 1), masks[first + hidden]
                    guess = (1 - share) * ends[0] + share * ends[1] > 0
                    dices.append(2 * (guess & true).sum() / (guess.sum() + true.sum()))
    return float(np.mean(dices)) if dices else 0.0


def shown(exam: Exam) -> dict[str, float]:
    """Properties of a sweep that should rise with skill."""
    truths = [exam.truth(0, k) for k in range(FRAMES)]
    named = np.array([truth.plane is exam.plan.protocol.target for truth in truths])
    quality = np.array([truth.quality for truth in truths])
    normals = np.array([np.cross(plane.lateral, plane.axial) for plane in exam.planes[0]])
    masks = {k: exam.mask(0, k)[::COARSE, ::COARSE] > 0 for k in np.flatnonzero(named)}
    pairs = [(masks[k], masks[k + 1]) for k in masks if k + 1 in masks]
    return {
        "share of frames with the plane": float(named.mean()),
        "mean quality of these": float(quality[named].mean()) if named.any() else 0.0,
        "quality of the best": float(quality.max()),
        "contact": float(np.mean([truth.contact for truth in truths])),
        "Dice of a mask with the next": float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])),
        "Dice of hidden masks foretold": foretold(masks),
        "steadiness of the probe's tilt": -float(np.linalg.norm(np.diff(normals, axis=0), axis=1).mean()),
    }


@pytest.mark.slow
def test_skill_shows_in_the_hand_and_hardly_in_what_is_drawn() -> None:
    plan = SeriesPlan(Protocol.HEAD, Ages(18, 34), exams=EXAMS, seed=5, frame_count=FRAMES)
    exams = [Exam(plan.exam(number)) for number in range(EXAMS)]
    rows = [shown(exam) for exam in exams]
    skills = [exam.plan.skill for exam in exams]
    rho = {
        name: spearman_or_none([(row[name], skill) for row, skill in zip(rows, skills, strict=True)]) or 0.0
        for name in rows[0]
    }
    for name, value in rho.items():
        print(f"{name:32s} {value:5.2f}")  # noqa: T201 - its output is what it is for
    assert rho["steadiness of the probe's tilt"] > 0.8
    assert abs(rho["share of frames with the plane"]) < 0.4
    assert rho["Dice of a mask with the next"] < 0.8
    assert rho["Dice of hidden masks foretold"] < 0.8
