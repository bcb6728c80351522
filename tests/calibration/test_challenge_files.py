"""The answer to a blind exam, as ACOUSLIC-AI's evaluator reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_calibration.challenge import NO_FRAME, Answer
from edgefetal_calibration.challenge_files import FRAME_NUMBER, MASKS, abdomen_answer, write_answer
from edgefetal_devices.errors import OutputError
from edgefetal_runtime.biometry.ellipse import Ellipse
from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.biometry.outline import Outline
from edgefetal_runtime.biometry.quantities import AC
from edgefetal_runtime.exam.measure import StructureResult
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.scale import Scale
from edgefetal_runtime.sources.metaimage import open_metaimage
from edgefetal_runtime.sweep.selection import Choice, Run

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (60, 80)
SCALE = Scale(0.28, 0.28, "test")


def _result(rank: float, index: int = 3, *, measured: bool = True) -> StructureResult:
    """One sweep's abdomen: a disc of 20 px round (40, 30)."""
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    contour = np.stack((40 + 20 * np.cos(angle), 30 + 20 * np.sin(angle)), axis=1)
    outline = Outline(Ellipse(40.0, 30.0, 20.0, 20.0, 0.0), SCALE, contour, 1.0, 0.0, 1.0, 0.0)
    frame = Frame(np.zeros(SHAPE, np.uint8), "s", index, 0.0, SCALE)
    value = Measured(35.0, "mm") if measured else Abstained("not seen")
    choice = Choice((), None, (Run(0, 5, rank),), Run(0, 5, rank), graded=True, seen=6, doubt=None)
    return StructureResult("abdomen", choice, {AC: value}, frame, outline, (frame,), "")


def test_the_sweep_with_the_best_frames_answers_for_the_exam() -> None:
    answer = abdomen_answer([_result(0.6), _result(0.9, 7), _result(0.8)], 140, SHAPE)
    assert answer.frame == 140 + 7
    assert answer.mask.sum() == pytest.approx(np.pi * 20.5**2, rel=0.03)
    assert answer.mask[30, 40]
    assert not answer.mask[5, 5]


def test_a_sweep_that_was_not_measured_does_not_answer() -> None:
    assert abdomen_answer([_result(0.6), _result(0.9, measured=False)], 140, SHAPE).frame == 3
    nothing = abdomen_answer([_result(0.9, measured=False)], 140, SHAPE)
    assert nothing.frame == NO_FRAME
    assert not nothing.mask.any()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.bool_)
    mask[10:20, 30:50] = True
    write_answer(Answer(4, mask), 12, 0.28, tmp_path / "answer")
    assert json.loads((tmp_path / "answer" / FRAME_NUMBER).read_bytes()) == 4
    stack = open_metaimage(tmp_path / "answer" / MASKS)
    frames = [frame.pixels for frame in stack.frames()]
    assert len(frames) == 12
    assert np.array_equal(frames[4], mask)
    assert not np.any(frames[:4] + frames[5:])
    assert stack.scale.x_mm_per_px == pytest.approx(0.28)
    with pytest.raises(OutputError, match="exists"):
        write_answer(Answer(4, mask), 12, 0.28, tmp_path / "answer")


def test_no_frame_is_minus_one_and_an_empty_stack(tmp_path: Path) -> None:
    write_answer(Answer(NO_FRAME, np.zeros(SHAPE, np.bool_)), 3, 0.28, tmp_path / "answer")
    assert (tmp_path / "answer" / FRAME_NUMBER).read_text().strip() == "-1"
    assert not any(frame.pixels.any() for frame in open_metaimage(tmp_path / "answer" / MASKS).frames())
