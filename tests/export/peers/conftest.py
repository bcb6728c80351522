"""A recording, and the job that all peers are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_calibration.datasets.hc18 import HeadCase, read_hc18
from edgefetal_calibration.phantom.cine import Cine
from edgefetal_calibration.phantom.exam import Exam, ExamPlan
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.writers import write_mha, write_video
from edgefetal_export.peers.peer import Job, Recording
from edgefetal_runtime.scale import Scale

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_runtime.infer.bundle import Bundle


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A sweep across a simulated head, as a video and as a stack."""
    exam = Exam(ExamPlan(Protocol.HEAD, 28.0, seed=1, skill=1.0, frame_count=24))
    pictures = np.stack([frame.picture for frame in exam.frames(1)])
    _, fan = exam.probe_and_fan
    cine = Cine(pictures, 30.0, fan.x_mm_per_px, fan.y_mm_per_px)
    folder = tmp_path_factory.mktemp("recording")
    write_video(cine, folder / "sweep.avi")
    write_mha(cine, folder / "sweep.mha", compressed=False)
    return Recording(
        path=folder / "sweep.avi",
        stack=folder / "sweep.mha",
        scale=Scale(fan.x_mm_per_px, fan.y_mm_per_px, origin="drawn"),
        states_scale=False,
        truth_mm=exam.scene.fetus.size.hc_mm,
        simulated=True,
    )


@pytest.fixture(scope="session")
def pictures(simulated_hc18: Path) -> list[HeadCase]:
    """Simulated heads with their truth."""
    return read_hc18(simulated_hc18)


@pytest.fixture(scope="session")
def job(starter: Bundle, pictures: list[HeadCase]) -> Job:
    """The starter's work, on one thread."""
    return Job(starter.path, "onnxruntime", 1, training=tuple(pictures[:8]), validation=tuple(pictures[8:12]))
