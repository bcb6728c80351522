"""Which structures people outlined on pictures of patients, and which were only ever drawn by a simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefetal_calibration.datasets.acouslic import AcouslicExam
from edgefetal_calibration.datasets.hc18 import HeadCase
from edgefetal_calibration.datasets.phantom import PhantomExam
from edgefetal_calibration.datasets.pictures import PictureExam
from edgefetal_runtime.infer.bundle import ABDOMEN, HEAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgefetal_calibration.datasets.labelled import LabelledExam


def _outlined(exam: LabelledExam) -> tuple[str, ...]:
    """Return the structures that an exam of patients outlines; a reader of one's own is asked its first sweep."""
    if isinstance(exam, PhantomExam):
        return ()
    if isinstance(exam, HeadCase):
        return (HEAD,)
    if isinstance(exam, AcouslicExam):
        return (ABDOMEN,)
    if isinstance(exam, PictureExam):
        return tuple(structure for structure, mask in exam.masks.items() if mask is not None)
    return tuple(next(exam.sweeps()).masks)


def simulated_alone(exams: Iterable[LabelledExam], structures: Sequence[str]) -> tuple[str, ...]:
    """Return the structures that no exam of a patient outlines.

    Args:
        exams: what a network was trained on.
        structures: what it outlines.

    Raises:
        DatasetError: an exam cannot be read.
    """
    real = {structure for exam in exams for structure in _outlined(exam)}
    return tuple(structure for structure in structures if structure not in real)
