"""The answer to an exam as ACOUSLIC-AI's evaluator reads it: a frame's number and a stack that is empty but for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import cv2
import numpy as np

from edgefetal_calibration.challenge import NO_FRAME, Answer
from edgefetal_calibration.phantom.writers import write_stack
from edgefetal_runtime.atomic import as_output_error, json_bytes, new_folder
from edgefetal_runtime.biometry.measurement import Measured
from edgefetal_runtime.biometry.quantities import AC
from edgefetal_runtime.infer.bundle import ABDOMEN

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_runtime.exam.measure import StructureResult

FRAME_NUMBER = "fetal-abdomen-frame-number.json"
MASKS = "images/fetal-abdomen-segmentation/output.mha"


@dataclass(frozen=True, eq=False)
class _OneMask(Sequence["npt.NDArray[np.uint8]"]):
    """A stack that is zero but for one frame, with the memory of two."""

    length: int
    answer: Answer

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[npt.NDArray[np.uint8]]: ...
    def __getitem__(self, index: int | slice) -> npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(self.length))]
        if not 0 <= index < self.length:
            raise IndexError(index)
        shown = self.answer.mask if index == self.answer.frame else np.zeros_like(self.answer.mask)
        return shown.astype(np.uint8)


def abdomen_answer(sweeps: Sequence[StructureResult], frames_per_sweep: int, shape: tuple[int, int]) -> Answer:
    """Choose the exam's one frame: that of the sweep whose best frames rank highest among those that were measured.

    Args:
        sweeps: what each sweep of the exam gives of the abdomen, in order.
        frames_per_sweep: frames of each.
        shape: rows and columns of a frame.
    """
    best: tuple[float, int, StructureResult] | None = None
    for number, result in enumerate(sweeps):
        run = result.choice.chosen
        measured = result.structure == ABDOMEN and isinstance(result.measured[AC], Measured)
        if measured and run is not None and (best is None or run.best > best[0]):
            best = run.best, number, result
    mask = np.zeros(shape, np.uint8)
    if best is None or best[2].outline is None:
        return Answer(NO_FRAME, mask.astype(np.bool_))
    _, number, result = best
    assert result.outline is not None  # noqa: S101 - what is measured has an outline
    cv2.fillPoly(mask, [np.round(result.outline.contour_px).astype(np.int32)], (1,))
    return Answer(number * frames_per_sweep + result.frames[0].index, mask.astype(np.bool_))


def write_answer(answer: Answer, frame_count: int, mm_per_px: float, folder: Path) -> None:
    """Write an answer in the layout of the challenge's output.

    Args:
        answer: the frame and its mask.
        frame_count: frames of the exam.
        mm_per_px: size of a pixel, which the stack states in all three directions, as the challenge's do.
        folder: where; must not exist.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    with new_folder(folder) as partial:
        write_stack(_OneMask(frame_count, answer), partial / MASKS, (mm_per_px,) * 3, compressed=True)
        with as_output_error(folder):
            (partial / FRAME_NUMBER).write_bytes(json_bytes(answer.frame))
