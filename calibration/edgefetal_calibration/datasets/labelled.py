"""What every labelled dataset hands out: exams, and their sweeps one at a time.

A picture on its own is an exam of one sweep of one frame, so training, calibration and evaluation read them all alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgefetal_devices.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    from edgefetal_runtime.scale import Scale

# Grades of a frame, as ACOUSLIC-AI numbers them.
NOT_THE_PLANE, OPTIMAL, SUBOPTIMAL = 0, 1, 2


@dataclass(frozen=True, eq=False)
class LabelledSweep:
    """One sweep in memory, with what is known of it.

    Args:
        name: of the sweep within its exam.
        pixels: shape (N, H, W), uint8.
        masks: by structure (`head`, `abdomen`, `femur`): shape (N, H, W), uint8, 0 or 1. A structure that is not named
            was not labelled; one that is all 0 was looked for and is not there.
        planes: the plane that each frame shows, or None where nobody said so.
        grades: shape (N,), uint8: `NOT_THE_PLANE`, `OPTIMAL` or `SUBOPTIMAL` view of the abdomen, or None where nobody
            graded.
        scale: pixel size, or None where it is unknown.
        lengths_mm: by measure (`HC`, `AC`, `FL`): the reference of each frame in mm, shape (N,), NaN where it has none.
        skill: of the operator, 0 to 1, where it is known, which is in simulated sweeps only; for judging, never for
            training.

    Raises:
        DatasetError: the parts are not of one length and size.
    """

    name: str
    pixels: npt.NDArray[np.uint8]
    masks: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    planes: tuple[str, ...] | None = None
    grades: npt.NDArray[np.uint8] | None = None
    scale: Scale | None = None
    lengths_mm: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    skill: float | None = None

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 3:  # noqa: PLR2004 - frames, rows, columns
            raise DatasetError(
                f"{self.name}: pictures must be (N, H, W) uint8, not {shape} {self.pixels.dtype}; restore the dataset."
            )
        for structure, mask in self.masks.items():
            if mask.shape != shape:
                raise DatasetError(
                    f"{self.name}: the mask of the {structure} is {mask.shape} and the pictures are {shape}; "
                    "restore both from the dataset."
                )
        for what, count in (
            ("planes", None if self.planes is None else len(self.planes)),
            ("grades", None if self.grades is None else len(self.grades)),
            *((measure, len(values)) for measure, values in self.lengths_mm.items()),
        ):
            if count is not None and count != len(self.pixels):
                raise DatasetError(
                    f"{self.name}: {count} {what} for {len(self.pixels)} frames; restore both from the dataset."
                )


class LabelledExam(Protocol):
    """One examination, still on disk."""

    @property
    def name(self) -> str:
        """Of the examination, or the file name of a picture on its own."""

    @property
    def subject(self) -> str:
        """Whose it is; nobody is in two parts of a split.

        HC18's numbers stand alone, as in every split written so far; other kinds put their name before the subject's,
        as in `acouslic/S-017`, so that the subjects of two kinds are never taken for one another.
        """

    def digest(self) -> str:
        """SHA-256 of its size and of enough pixels to recognise it under any name or compression."""

    def labels_digest(self) -> str:
        """SHA-256 of what its labels are read from, so that whoever keeps a copy of them knows when they changed."""

    def sweeps(self) -> Iterator[LabelledSweep]:
        """Read its sweeps one at a time, so that a whole exam never needs to be in memory.

        Raises:
            DatasetError: a file is missing or malformed; the message names it.
        """
