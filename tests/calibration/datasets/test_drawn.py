"""Exams that are drawn when they are asked for say the same as those that were written and read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_calibration.datasets.drawn import DrawnExam
from edgefetal_calibration.datasets.split import kind_in_name
from edgefetal_calibration.phantom.exam import Exam, ExamPlan
from edgefetal_calibration.phantom.protocol import Protocol

if TYPE_CHECKING:
    from edgefetal_calibration.datasets.labelled import LabelledSweep


@pytest.fixture(scope="module", params=[Protocol.HEAD, Protocol.FEMUR])
def drawn(request: pytest.FixtureRequest) -> tuple[DrawnExam, LabelledSweep]:
    exam = DrawnExam(ExamPlan(request.param, 26.0, seed=5, number=3, skill=1.0, frame_count=3))
    (sweep,) = exam.sweeps()
    return exam, sweep


def test_a_sweep_is_what_the_plan_draws(drawn: tuple[DrawnExam, LabelledSweep]) -> None:
    exam, sweep = drawn
    target = exam.plan.protocol.target
    whole = Exam(exam.plan)
    frames = list(whole.frames())
    assert np.array_equal(sweep.pixels, [frame.picture for frame in frames])
    assert [*sweep.masks] == [target.value]
    assert np.array_equal(sweep.masks[target.value], [frame.mask_of(target) > 0 for frame in frames])
    assert sweep.planes == tuple(frame.truth.plane.value for frame in frames)
    assert sweep.planes[1] == target.value
    measure, other = ("HC", "FL") if target.value == "head" else ("FL", "HC")
    expected = [getattr(frame.truth, f"{measure.lower()}_mm") for frame in frames]
    assert np.array_equal(sweep.lengths_mm[measure], np.array(expected, np.float64), equal_nan=True)
    assert sweep.lengths_mm[measure][1] > 20
    assert np.isnan(sweep.lengths_mm[other]).all()
    fan = whole.probe_and_fan[1]
    assert sweep.scale is not None
    assert (sweep.scale.x_mm_per_px, sweep.scale.y_mm_per_px) == (fan.x_mm_per_px, fan.y_mm_per_px)
    assert sweep.skill == 1.0


def test_it_is_nobodys(drawn: tuple[DrawnExam, LabelledSweep]) -> None:
    exam, _ = drawn
    assert exam.subject == "phantom/5-3"
    assert kind_in_name(exam.subject) == "phantom"
    assert exam.name == exam.plan.name


def test_digests_follow_from_the_plan(drawn: tuple[DrawnExam, LabelledSweep]) -> None:
    exam, _ = drawn
    older = DrawnExam(ExamPlan(exam.plan.protocol, 27.0, seed=5, number=3, skill=1.0, frame_count=3))
    assert exam.digest() == DrawnExam(exam.plan).digest() == exam.labels_digest() != older.digest()
