"""ACOUSLIC-AI: blind sweeps over the abdomen, with the frames that show its standard plane outlined and graded.

Sappia et al., doi 10.5281/zenodo.12697994, CC BY-NC-SA 4.0. Layout: `images/stacked_fetal_ultrasound/<uuid>.mha` and
`masks/stacked_fetal_abdomen/<uuid>.mha`, each 840 frames that are six sweeps of 140, and
`circumferences/fetal_abdominal_circumferences_per_sweep.csv`. The masks are 0, 1 (optimal) or 2 (suboptimal). Of 300
exams, 19 subjects have two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_calibration.datasets.files import (
    bytes_digest,
    exact,
    length,
    open_stack,
    plain_name,
    read_table,
    refuse_other_size,
    stack_digest,
    take,
    take_labels,
)
from edgefetal_calibration.datasets.labelled import NOT_THE_PLANE, LabelledSweep
from edgefetal_calibration.phantom.writers import ACOUSLIC_IMAGES, ACOUSLIC_MASKS, ACOUSLIC_SWEEPS, ACOUSLIC_TABLE
from edgefetal_devices.errors import DatasetError
from edgefetal_runtime.biometry.quantities import AC
from edgefetal_runtime.infer.bundle import ABDOMEN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LICENCE = "CC BY-NC-SA 4.0"
ATTRIBUTION = "ACOUSLIC-AI, Sappia et al. 2024, doi 10.5281/zenodo.12697994"

KIND = "acouslic"
SWEEP_FRAMES = 140
EXAM_FRAMES = ACOUSLIC_SWEEPS * SWEEP_FRAMES
_COLUMNS = tuple(f"sweep_{k}_ac_mm" for k in range(1, ACOUSLIC_SWEEPS + 1))


@dataclass(frozen=True)
class AcouslicExam:
    """One examination of six sweeps, still on disk.

    Args:
        name: the uuid that its files are named by.
        subject: whose it is.
        images: the stack of its frames.
        labels: the stack of their masks.
        sweep_ac_mm: reference abdominal circumference of every sweep, None where it has none.
    """

    name: str
    subject: str
    images: Path
    labels: Path
    sweep_ac_mm: tuple[float | None, ...]

    def digest(self) -> str:
        """SHA-256 of its size and first frames.

        Raises:
            DatasetError: the stack is missing or damaged.
        """
        return stack_digest(self.images)

    def labels_digest(self) -> str:
        """SHA-256 of the bytes of its masks and of its circumferences."""
        return bytes_digest(self.labels, extra=f"{self.sweep_ac_mm}")

    def sweeps(self) -> Iterator[LabelledSweep]:
        """Read its six sweeps, one at a time.

        Raises:
            DatasetError: a stack is missing or damaged, has another number of frames than 840, is not of the size of
                the other, or a mask holds another value than 0, 1 and 2.
        """
        images, labels = open_stack(self.images), open_stack(self.labels)
        for path, stack in ((self.images, images), (self.labels, labels)):
            if stack.frame_count != EXAM_FRAMES:
                raise DatasetError(
                    f"{path} has {stack.frame_count} frames, and an exam of ACOUSLIC-AI has {EXAM_FRAMES}; restore it "
                    "from the dataset. A simulated exam of other length is read as phantom:PATH."
                )
        refuse_other_size(images, labels)
        pictures, masks = images.frames(), labels.frames()
        scale = exact(images.scale) if images.scale else None
        for number, ac_mm in enumerate(self.sweep_ac_mm, 1):
            pixels = take(pictures, SWEEP_FRAMES, self.images)
            mask, grades = take_labels(masks, SWEEP_FRAMES, self.labels)
            reference = np.where(grades == NOT_THE_PLANE, np.nan, np.nan if ac_mm is None else ac_mm)
            yield LabelledSweep(
                name=f"sweep_{number}",
                pixels=pixels,
                masks={ABDOMEN: mask},
                grades=grades,
                scale=scale,
                lengths_mm={AC.name: reference},
            )


def read_acouslic(root: Path) -> list[AcouslicExam]:
    """List the exams of a folder in ACOUSLIC-AI's layout, by uuid: those that its table has a row for.

    Raises:
        DatasetError: the folder has not that layout, a row is malformed or stands twice, or an exam lacks a file.
    """
    table = root / ACOUSLIC_TABLE
    if not table.is_file():
        raise DatasetError(
            f"{root} is not a folder of ACOUSLIC-AI; it must hold {ACOUSLIC_IMAGES}/, {ACOUSLIC_MASKS}/ and "
            f"{ACOUSLIC_TABLE}."
        )
    exams: dict[str, AcouslicExam] = {}
    for number, row in read_table(table, ("uuid", "subject_id", *_COLUMNS)):
        uuid = plain_name(row, "uuid", number, table)
        exam = AcouslicExam(
            name=uuid,
            subject=f"{KIND}/{plain_name(row, 'subject_id', number, table)}",
            images=root / ACOUSLIC_IMAGES / f"{uuid}.mha",
            labels=root / ACOUSLIC_MASKS / f"{uuid}.mha",
            sweep_ac_mm=tuple(length(row, column, number, table) for column in _COLUMNS),
        )
        if uuid in exams:
            raise DatasetError(f"{table}, row {number}: {uuid} stands twice; keep one row.")
        for path in (exam.images, exam.labels):
            if not path.is_file():
                raise DatasetError(
                    f"{path} is missing, and row {number} of {table} names it; restore the file or remove the row."
                )
        exams[uuid] = exam
    if not exams:
        raise DatasetError(f"{table} has no rows; unpack the dataset there.")
    return [exams[uuid] for uuid in sorted(exams)]
