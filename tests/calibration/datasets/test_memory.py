"""A whole exam of ACOUSLIC-AI's size is never in memory: 840 frames of 562 x 744 are 351 MB, and as much of masks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefetal_calibration.datasets.masks import ellipse_mask
from edgefetal_calibration.phantom.writers import SweepCircumferences, write_acouslic_exam, write_acouslic_table
from edgefetal_runtime.biometry.ellipse import Ellipse

SHAPE = (562, 744)
MOST_MB = 700

SCRIPT = """
import sys
from pathlib import Path

import numpy as np

from edgefetal_calibration.challenge import Answer, acouslic_field, score_exams
from edgefetal_calibration.datasets.kinds import read_exams
from edgefetal_calibration.quality import evaluate_quality, summarise_quality

_, exams = read_exams(f"acouslic:{sys.argv[1]}")
scored = evaluate_quality(exams, lambda sweep: sweep.pixels[:, 300, 300] / 255)
summary = summarise_quality(scored, 0.5)
assert summary["n_frames"] == 840, summary


def answer(exam):
    for number, sweep in enumerate(exam.sweeps()):
        if sweep.grades.any():
            index = int(np.flatnonzero(sweep.grades)[0])
            return Answer(140 * number + index, sweep.masks["abdomen"][index])


(score,) = score_exams(exams, answer, acouslic_field())
assert score.total > 0.99, score
peak = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(int(peak[0].split()[1]) / 1024)
"""


class Frames(Sequence[Any]):
    """Frames that are made when they are asked for, so that this process needs no 351 MB either."""

    def __init__(self, made: dict[int, Any], rest: Any) -> None:
        self.made, self.rest = made, rest

    def __len__(self) -> int:
        return 840

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self):
            raise IndexError
        return self.made.get(index, self.rest)


def test_an_exam_is_read_and_scored_with_the_memory_of_a_sweep(tmp_path: Path) -> None:
    if not Path("/proc/self/status").is_file():
        pytest.skip("how much memory a process used is read from /proc")
    drawn = Ellipse(370.0, 300.0, 130.0, 120.0, 0.3)
    rng = np.random.default_rng(0)
    frames = Frames(
        {k: rng.integers(0, 256, SHAPE, dtype=np.uint8) for k in range(3)}, np.zeros(SHAPE, np.uint8) + np.uint8(9)
    )
    mask = ellipse_mask(drawn, SHAPE).astype(np.uint8)
    write_acouslic_exam(tmp_path, "exam", frames, Frames({200: mask}, np.zeros(SHAPE, np.uint8)))
    acs = (None, drawn.circumference() * 0.28, None, None, None, None)
    write_acouslic_table(tmp_path, [SweepCircumferences("exam", "S", acs)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < MOST_MB
