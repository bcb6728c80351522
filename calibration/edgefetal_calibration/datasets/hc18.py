"""HC18: 2-D fetal head pictures with the annotated head circumference.

van den Heuvel et al. 2018, doi 10.5281/zenodo.1327317, CC BY 4.0. Layout: `training_set/NNN_HC.png` with
`NNN_HC_Annotation.png`, and `training_set_pixel_size_and_HC.csv` beside it. Pictures whose names share the leading
number are of one examination, so that number is the subject.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_devices.errors import DatasetError
from edgefetal_runtime.biometry.ellipse import Ellipse, ellipse_from_points
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.sources.picture import read_grey
from edgefetal_runtime.sources.scale_table import read_scale_table

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_runtime.scale import Scale

LICENCE = "CC BY 4.0"
ATTRIBUTION = "HC18, van den Heuvel et al. 2018, doi 10.5281/zenodo.1327317"

FOLDER = "training_set"
TABLE = "training_set_pixel_size_and_HC.csv"
ANNOTATION_SUFFIX = "_Annotation.png"

# An ellipse through the contour pixels of the filled masks lies this far outside the annotated ring: over the 834 masks
# at hand its circumference exceeds the table's by a constant 5.89 +- 0.37 px, which is 0.94 px of radius.
MASK_EDGE_OFFSET_PX = 0.94

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
        """Read the annotated skull outline, in pixels of the picture, with the mask's edge offset taken off.

        Raises:
            DatasetError: the mask holds no outline.
        """
        mask = (read_grey(self.annotation) > 127).astype(np.uint8)  # noqa: PLR2004 - masks are black and white
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outline = max(contours, key=len).reshape(-1, 2).astype(np.float64) if contours else np.empty((0, 2))
        ellipse = ellipse_from_points(outline)
        if ellipse is None:
            message = f"{self.annotation} holds no outline of a head; restore it from the dataset."
            raise DatasetError(message)
        return ellipse.grown(-MASK_EDGE_OFFSET_PX)

    def digest(self) -> str:
        """SHA-256 of the picture's file, by which a split recognises it under any name."""
        return hashlib.sha256(self.picture.read_bytes()).hexdigest()


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
        cases.append(HeadCase(picture.name, match[1], picture, annotation, row.scale, row.hc_mm))
    if not cases:
        message = f"{folder} holds no pictures; unpack the dataset there."
        raise DatasetError(message)
    return cases
