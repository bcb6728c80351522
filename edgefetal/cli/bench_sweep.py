"""Simulated sweeps that `edgefetal bench` measures on where it is given no recording."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FRAMES = 40


@dataclass(frozen=True)
class SimulatedSweep:
    """A sweep across a head, on disk.

    Args:
        path: a video.
        stack: the same as a MetaImage stack, or None.
        mm_per_px: side of its pixels.
        hc_mm: head circumference of the fetus.
    """

    path: Path
    stack: Path | None
    mm_per_px: float
    hc_mm: float


def simulate_sweep(folder: Path, name: str, weeks: float, seed: int, *, stack: bool = False) -> SimulatedSweep:
    """Draw a sweep across the head of a fetus.

    Args:
        folder: where its files go.
        name: of its files, without what follows the dot.
        weeks: gestational age.
        seed: of everything by chance.
        stack: whether to write it as a stack too, not compressed.
    """
    import os

    import numpy as np

    from edgefetal.cli import terminal
    from edgefetal_calibration.phantom.cine import Cine
    from edgefetal_calibration.phantom.exam import Exam, ExamPlan
    from edgefetal_calibration.phantom.exam_files import FRAMES_PER_S
    from edgefetal_calibration.phantom.protocol import Protocol
    from edgefetal_calibration.phantom.writers import write_mha, write_video

    exam = Exam(ExamPlan(Protocol.HEAD, weeks, seed=seed, skill=1.0, frame_count=FRAMES))
    pictures = []
    with terminal.steps() as progress:
        advance = progress.step(f"simulate a sweep at {weeks:.0f} weeks", FRAMES)
        for frame in exam.frames(os.cpu_count() or 1):
            pictures.append(frame.picture)
            advance()
    _, fan = exam.probe_and_fan
    cine = Cine(np.stack(pictures), FRAMES_PER_S, fan.x_mm_per_px, fan.y_mm_per_px)
    path, as_stack = folder / f"{name}.avi", folder / f"{name}.mha" if stack else None
    write_video(cine, path)
    if as_stack is not None:
        write_mha(cine, as_stack, compressed=False)
    return SimulatedSweep(path, as_stack, fan.x_mm_per_px, exam.scene.fetus.size.hc_mm)
