"""Simulated exams that are drawn when they are asked for, and never lie on a disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_calibration.datasets.labelled import LabelledSweep
from edgefetal_calibration.datasets.phantom import KIND
from edgefetal_calibration.phantom.exam import Exam, ExamPlan
from edgefetal_runtime.biometry.quantities import AC, FL, HC
from edgefetal_runtime.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class DrawnExam:
    """One simulated examination of a plane that somebody aims at.

    Args:
        plan: what is drawn; the same plan draws the same bytes.
    """

    plan: ExamPlan

    @property
    def name(self) -> str:
        """Of the exam."""
        return self.plan.name

    @property
    def subject(self) -> str:
        """The fetus."""
        return f"{KIND}/{self.plan.seed}-{self.plan.number}"

    def digest(self) -> str:
        """SHA-256 of the plan, from which every byte follows."""
        return hashlib.sha256(repr(self.plan).encode()).hexdigest()

    def labels_digest(self) -> str:
        """SHA-256 of the plan, likewise."""
        return self.digest()

    def sweeps(self) -> Iterator[LabelledSweep]:
        """Draw its sweeps, one at a time."""
        exam, target = Exam(self.plan), self.plan.protocol.target
        fan = exam.probe_and_fan[1]
        scale = Scale(fan.x_mm_per_px, fan.y_mm_per_px, origin="simulated", relative_uncertainty=0.0)
        by_sweep: dict[int, list[int]] = {}
        frames = list(exam.frames())
        for place, frame in enumerate(frames):
            by_sweep.setdefault(frame.truth.sweep, []).append(place)
        for number, places in by_sweep.items():
            shown = [frames[place] for place in places]
            yield LabelledSweep(
                name=f"sweep_{number + 1}",
                pixels=np.stack([frame.picture for frame in shown]),
                masks={target.value: np.stack([np.minimum(frame.mask_of(target), 1) for frame in shown])},
                planes=tuple(frame.truth.plane.value for frame in shown),
                scale=scale,
                lengths_mm={
                    HC.name: np.array([frame.truth.hc_mm for frame in shown], np.float64),
                    AC.name: np.array([frame.truth.ac_mm for frame in shown], np.float64),
                    FL.name: np.array([frame.truth.fl_mm for frame in shown], np.float64),
                },
                skill=self.plan.skill,
            )
