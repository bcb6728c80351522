from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_devices.errors import CheckFailedError
from edgefetal_export.training.student.answers import ask, frame_digest
from edgefetal_export.training.student.recipe import TeacherRecord
from edgefetal_export.training.student.teachers import SweepAnswer, Teacher

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_calibration.datasets.labelled import LabelledSweep


@dataclass
class Counted:
    """A teacher that counts how often it is asked."""

    sha256: str = "a" * 64
    planes: float = 0.25
    asked: list[str] = field(default_factory=list)

    def teacher(self) -> Teacher:
        return Teacher(TeacherRecord(recipe="counted", sha256=self.sha256, planes=("head", "none")), self.answer)

    def answer(self, sweep: LabelledSweep) -> SweepAnswer:
        self.asked.append(sweep.name)
        count = len(sweep.pixels)
        return SweepAnswer(planes=np.tile(np.float32([self.planes, 1 - self.planes]), (count, 1)))


def test_a_teacher_is_asked_once(tmp_path: Path, tiny_cases: list[HeadCase]) -> None:
    counted, cases = Counted(), tiny_cases[:3]
    first = ask([counted.teacher()], cases, tmp_path)
    again = ask([counted.teacher()], [replace(case, name=f"renamed-{case.name}") for case in cases], tmp_path)
    assert len(counted.asked) == 3
    assert first.keys() == again.keys() == {frame_digest(case.frame().pixels) for case in cases}
    assert all(np.array_equal(first[key][0].planes, again[key][0].planes) for key in first)  # type: ignore[arg-type]


def test_another_teacher_is_asked_again(tmp_path: Path, tiny_cases: list[HeadCase]) -> None:
    ask([Counted().teacher()], tiny_cases[:2], tmp_path)
    other = Counted(sha256="b" * 64, planes=0.75)
    answers = ask([Counted().teacher(), other.teacher()], tiny_cases[:2], tmp_path)
    assert len(other.asked) == 2
    for of_first, of_other in answers.values():
        assert (of_first.planes[0], of_other.planes[0]) == (0.25, 0.75)  # type: ignore[index]


def test_a_damaged_answer_is_asked_for_again(tmp_path: Path, tiny_cases: list[HeadCase]) -> None:
    ask([Counted().teacher()], tiny_cases[:1], tmp_path)
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:-40])
    counted = Counted()
    ask([counted.teacher()], tiny_cases[:1], tmp_path)
    assert len(counted.asked) == 1


def test_a_broken_teacher_is_refused(tmp_path: Path, tiny_cases: list[HeadCase]) -> None:
    with pytest.raises(CheckFailedError, match=r"counted answers on .*no number"):
        ask([Counted(planes=float("nan")).teacher()], tiny_cases[:1], tmp_path)
    assert not list(tmp_path.rglob("*.npz"))


def test_the_tiny_run_teaches_masks_planes_and_features(
    tmp_path: Path, tiny_teacher: Teacher, tiny_cases: list[HeadCase]
) -> None:
    ((answer,),) = ask([tiny_teacher], tiny_cases[:1], tmp_path).values()
    assert tiny_teacher.record.structures == ("head",)
    assert answer.masks is not None
    assert answer.masks.shape == (1, 32, 48)
    assert answer.features is not None
    assert answer.features.shape == (tiny_teacher.record.features,)
    assert answer.planes is not None
    assert answer.planes.sum() == pytest.approx(1, abs=1e-5)
    assert answer.quality is None
    assert answer.skill is None
