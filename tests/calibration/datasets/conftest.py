"""A tiny dataset in ACOUSLIC-AI's layout: whole exams of 840 frames, of a few pixels each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_calibration.phantom.writers import SweepCircumferences, write_acouslic_exam, write_acouslic_table

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

SHAPE = (18, 24)
# Of each sweep: its graded frames with their grade.
GRADED = {1: {60: 2, 61: 1, 62: 2}, 4: {10: 2}}


def labels(graded: dict[int, dict[int, int]]) -> npt.NDArray[np.uint8]:
    stack = np.zeros((840, *SHAPE), np.uint8)
    for sweep, frames in graded.items():
        for index, grade in frames.items():
            stack[140 * (sweep - 1) + index, 4:12, 6:16] = grade
    return stack


def pictures(seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (840, *SHAPE), dtype=np.uint8)


@pytest.fixture
def acouslic_root(tmp_path: Path) -> Path:
    """Three exams of two subjects: one with optimal frames, one with suboptimal ones only, one with none."""
    root = tmp_path / "acouslic"
    write_acouslic_exam(root, "aaa", pictures(1), labels(GRADED))
    write_acouslic_exam(root, "bbb", pictures(2), labels({2: {0: 2, 139: 2}}))
    write_acouslic_exam(root, "ccc", pictures(3), labels({}))
    none = (None,) * 6
    write_acouslic_table(
        root,
        [
            SweepCircumferences("ccc", "S-2", none),
            SweepCircumferences("aaa", "S-1", (201.5, None, None, 202.25, None, None)),
            SweepCircumferences("bbb", "S-1", (None, 180.0, None, None, None, None)),
        ],
    )
    return root
