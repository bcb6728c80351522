"""How much of an operator's skill the truth of a simulated head sweep shows: the most that any network could find.

Run by `pytest -m slow -s tests/export/skill/test_study.py`.
"""

from __future__ import annotations

import numpy as np
import pytest

from edgefetal_calibration.phantom.ages import Ages
from edgefetal_calibration.phantom.exam import Exam
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.series import SeriesPlan
from edgefetal_export.training.skill.judge import spearman_or_none

EXAMS, FRAMES, COARSE = 60, 40, 4


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
