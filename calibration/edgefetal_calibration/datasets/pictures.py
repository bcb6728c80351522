"""Pictures on their own: exams of one sweep of one frame, with whatever labels their dataset has."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_calibration.datasets.files import as_dataset_error, bytes_digest, picture_digest
from edgefetal_calibration.datasets.labelled import SUBOPTIMAL, LabelledSweep
from edgefetal_devices.errors import DatasetError
from edgefetal_runtime.sources.picture import read_grey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_runtime.scale import Scale

_WHITE = 128


@dataclass(frozen=True)
class PictureExam:
    """One labelled picture, still on disk.

    Args:
        name: file name.
        subject: whose picture it is.
        picture: path of the picture.
        row: where its labels stand, for messages.
        plane: the plane that it shows, or None where nobody said.
        grade: its grade, or None where nobody graded.
        scale: pixel size, or None where it is unknown.
        masks: picture of each structure's mask, or None where the structure is known not to be there.
    """

    name: str
    subject: str
    picture: Path
    row: str
    plane: str | None = None
    grade: int | None = None
    scale: Scale | None = None
    masks: Mapping[str, Path | None] = field(default_factory=dict)

    def digest(self) -> str:
        """SHA-256 of the picture's size and pixels.

        Raises:
            DatasetError: it cannot be read.
        """
        with as_dataset_error():
            return picture_digest(self.picture)

    def labels_digest(self) -> str:
        """SHA-256 of its labels and of the bytes of its masks."""
        said = f"{self.plane} {self.grade} {self.scale} {sorted(self.masks)}"
        masks = [mask for _, mask in sorted(self.masks.items()) if mask is not None]
        return bytes_digest(*masks, extra=said) if masks else hashlib.sha256(said.encode()).hexdigest()

    def sweeps(self) -> Iterator[LabelledSweep]:
        """Read it as a sweep of one frame.

        Raises:
            DatasetError: a picture cannot be read, or a mask is not of the picture's size.
        """
        with as_dataset_error():
            pixels = read_grey(self.picture)
            masks = {
                structure: np.zeros(pixels.shape, np.uint8) if path is None else self._mask(path, pixels)
                for structure, path in self.masks.items()
            }
        yield LabelledSweep(
            name=self.name,
            pixels=pixels[None],
            masks={structure: mask[None] for structure, mask in masks.items()},
            planes=None if self.plane is None else (self.plane,),
            grades=None if self.grade is None else np.array([self.grade], np.uint8),
            scale=self.scale,
        )

    def _mask(self, path: Path, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        levels = read_grey(path)
        if levels.shape != pixels.shape:
            raise DatasetError(
                f"{self.row}: the mask {path} is {levels.shape} and the picture {self.picture} is {pixels.shape} "
                "(rows, columns); give the mask of this picture."
            )
        highest = int(levels.max())
        if SUBOPTIMAL < highest < _WHITE:
            raise DatasetError(
                f"{self.row}: the mask {path} has no grey level above {highest}; draw the inside in white, or as 1."
            )
        # Drawn masks are white inside, perhaps with soft edges; others hold the numbers of ACOUSLIC-AI's.
        return np.asarray(levels >= (_WHITE if highest >= _WHITE else 1), np.uint8)
