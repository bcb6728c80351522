"""HC18: 2-D fetal head pictures with the annotated head circumference.

van den Heuvel et al. 2018, doi 10.5281/zenodo.1327317, CC BY 4.0. Layout: `training_set/NNN_HC.png` with
`NNN_HC_Annotation.png`, and `training_set_pixel_size_and_HC.csv` beside it. Pictures whose names share the leading
number are of one examination, so that number is the subject.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_calibration.datasets.files import as_dataset_error, bytes_digest, picture_digest
from edgefetal_calibration.datasets.labelled import LabelledSweep
from edgefetal_calibration.datasets.masks import ellipse_mask
from edgefetal_devices.errors import DatasetError
from edgefetal_runtime.biometry.ellipse import Ellipse, ellipse_from_points
from edgefetal_runtime.biometry.quantities import BPD, CEPHALIC_INDEX, HC, OFD
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.infer.bundle import HEAD
from edgefetal_runtime.sources.picture import read_grey
from edgefetal_runtime.sources.scale_table import read_scale_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_runtime.scale import Scale

KIND = "hc18"
LICENCE = "CC BY 4.0"
ATTRIBUTION = "HC18, van den Heuvel et al. 2018, doi 10.5281/zenodo.1327317"

FOLDER = "training_set"
TABLE = "training_set_pixel_size_and_HC.csv"
ANNOTATION_SUFFIX = "_Annotation.png"

# An ellipse through the contour pixels of the filled masks lies this far outside the annotated ring: over the 834 masks
# at hand its circumference exceeds the table's by a constant 5.89 +- 0.37 px, which is 0.94 px of radius.
MASK_EDGE_OFFSET_PX = 0.94

# The 834 masks at hand agree with the table within 0.3 mm; more than this share is a mask of another picture or size.
MAX_LABEL_ERROR = 0.03

# Place of the parent's number in a row of OpenCV's hierarchy of contours.
_PARENT = 3
_NAME = re.compile(r"^(\d+)_\d*HC\.png$")


@dataclass(frozen=True)
class HeadCase:
    """One labelled picture, still on disk.

    Args:
        name: file name.
        subject: the examination that it belongs to.
        picture: path of the picture.
        annotation: path of its mask.
        scale: pixel size.
        hc_mm: reference head circumference.
    """

    name: str
    subject: str
    picture: Path
    annotation: Path
    scale: Scale
    hc_mm: float

    def frame(self) -> Frame:
        """Read the picture."""
        return Frame(read_grey(self.picture), sweep=self.name, index=0, timestamp_s=0.0, scale=self.scale)

    def head_px(self) -> Ellipse:
        """Read the annotated skull outline, in pixels of the picture.

        Filled masks have their edge offset taken off; of a drawn ring the centre line is taken.

        Raises:
            DatasetError: the mask holds no outline, or its circumference is not that of the table.
        """
        ellipse = _annotated_ellipse((read_grey(self.annotation) > 127).astype(np.uint8))  # noqa: PLR2004 - black and white
        if ellipse is None:
            message = f"{self.annotation} holds no outline of a head; restore it from the dataset."
            raise DatasetError(message)
        hc_mm = ellipse.circumference() * self.scale.x_mm_per_px
        if abs(hc_mm - self.hc_mm) > MAX_LABEL_ERROR * self.hc_mm:
            message = (
                f"{self.annotation} outlines {hc_mm:.1f} mm and the table says {self.hc_mm:.1f} mm for {self.name}; "
                "restore both from the dataset."
            )
            raise DatasetError(message)
        return ellipse

    def truth(self, head_px: Ellipse) -> dict[str, float]:
        """Return the reference of every measure of a head by its name; lengths in mm.

        HC is the table's; the others are of the annotated ellipse.

        Args:
            head_px: as `head_px` returns it.
        """
        mm = self.scale.x_mm_per_px
        return {
            HC.name: self.hc_mm,
            BPD.name: 2 * head_px.semi_minor * mm,
            OFD.name: 2 * head_px.semi_major * mm,
            CEPHALIC_INDEX.name: head_px.semi_minor / head_px.semi_major,
        }

    def digest(self) -> str:
        """SHA-256 of the picture's size and pixels, by which a split recognises it under any name or compression."""
        return picture_digest(self.picture)

    def labels_digest(self) -> str:
        """SHA-256 of the annotation's bytes and of the reference."""
        return bytes_digest(self.annotation, extra=f"{self.hc_mm} {self.scale.x_mm_per_px}")

    def sweeps(self) -> Iterator[LabelledSweep]:
        """Read it as a sweep of one frame, in which the head fills the annotated ellipse.

        Raises:
            DatasetError: a picture cannot be read, the mask holds no outline, or its circumference is not that of the
                table.
        """
        with as_dataset_error():
            pixels, outline = self.frame().pixels, self.head_px()
        head = ellipse_mask(outline, (pixels.shape[0], pixels.shape[1]))
        yield LabelledSweep(
            name=self.name,
            pixels=pixels[None],
            masks={HEAD: head.astype(np.uint8)[None]},
            planes=(HEAD,),
            scale=self.scale,
            lengths_mm={HC.name: np.array([self.hc_mm])},
        )


def _annotated_ellipse(mask: npt.NDArray[np.uint8]) -> Ellipse | None:
    """Fit the annotated ellipse of a mask, 0 or 1, filled or drawn as a ring."""
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    outer = max(range(len(contours)), key=lambda k: len(contours[k]))
    ellipse = ellipse_from_points(contours[outer].reshape(-1, 2).astype(np.float64))
    holes = [contours[k] for k in range(len(contours)) if hierarchy[0][k][_PARENT] == outer]
    hole = max(holes, key=len, default=None)
    if ellipse is None or hole is None or len(hole) < len(contours[outer]) / 2:
        return ellipse and ellipse.grown(-MASK_EDGE_OFFSET_PX)
    inner = ellipse_from_points(hole.reshape(-1, 2).astype(np.float64))
    return inner and ellipse.grown((inner.semi_minor - ellipse.semi_minor) / 2)


def read_hc18(root: Path) -> list[HeadCase]:
    """List the labelled pictures of an HC18 folder in the official layout, by file name.

    Raises:
        DatasetError: the folder, the table, a mask or a row is missing, or a name is not HC18's.
        ScaleError: the table is malformed.
    """
    folder, table_path = root / FOLDER, root / TABLE
    if not folder.is_dir() or not table_path.is_file():
        message = f"{root} is not an HC18 folder; it must hold {FOLDER}/ and {TABLE}."
        raise DatasetError(message)
    table = read_scale_table(table_path)
    cases = []
    for picture in sorted(folder.glob("*.png")):
        if picture.name.endswith(ANNOTATION_SUFFIX):
            continue
        match = _NAME.match(picture.name)
        if match is None:
            message = f"{picture} is not named as HC18 names pictures (NNN_HC.png); remove or rename it."
            raise DatasetError(message)
        annotation = picture.with_name(picture.stem + ANNOTATION_SUFFIX)
        row = table.get(picture.name)
        if not annotation.is_file():
            message = f"{picture} has no {annotation.name} beside it; restore it from the dataset."
            raise DatasetError(message)
        if row is None or row.hc_mm is None:
            message = (
                f"{table_path} has no row with a head circumference for {picture.name}; add it or remove the picture."
            )
            raise DatasetError(message)
        # The reference is in the same millimetres, so an error of the pixel size is in both and shows in no difference.
        scale = replace(row.scale, relative_uncertainty=0.0)
        cases.append(HeadCase(picture.name, match[1], picture, annotation, scale, row.hc_mm))
    if not cases:
        message = f"{folder} holds no pictures; unpack the dataset there."
        raise DatasetError(message)
    return cases
