"""What people outlined on patients is told from what a simulation drew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_calibration.datasets.acouslic import AcouslicExam
from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.datasets.labelled import LabelledSweep
from edgefetal_calibration.datasets.phantom import PhantomExam
from edgefetal_calibration.datasets.pictures import PictureExam
from edgefetal_calibration.datasets.real import simulated_alone

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = ("head", "abdomen", "femur")


def _picture(**masks: Path | None) -> PictureExam:
    return PictureExam("p", "folder/1", Path("p.png"), "row 1", masks=masks)


def test_simulations_teach_nothing_real() -> None:
    assert simulated_alone([PhantomExam("a", Path("truth.json"))], ALL) == ALL


def test_each_kind_of_patients_pictures_teaches_what_it_outlines(tiny_hc18: Path) -> None:
    phantom = PhantomExam("a", Path("truth.json"))
    assert simulated_alone([phantom, *read_hc18(tiny_hc18)], ALL) == ("abdomen", "femur")
    assert simulated_alone([_picture(femur=Path("m.png")), phantom], ALL) == ("head", "abdomen")


def test_blind_sweeps_of_patients_teach_the_abdomen() -> None:
    acouslic = AcouslicExam("a", "acouslic/1", Path("i.mha"), Path("l.mha"), (None,) * 6)
    assert simulated_alone([acouslic], ALL) == ("head", "femur")


@dataclass(frozen=True)
class OwnExam:
    """An exam of a reader of one's own."""

    name: str = "own"
    subject: str = "own/1"

    def digest(self) -> str:
        return ""

    def labels_digest(self) -> str:
        return ""

    def sweeps(self) -> Iterator[LabelledSweep]:
        pixels = np.zeros((1, 20, 20), np.uint8)
        yield LabelledSweep("s", pixels, {"femur": pixels})


def test_a_reader_of_ones_own_is_asked() -> None:
    assert simulated_alone([OwnExam()], ALL) == ("head", "abdomen")


def test_a_picture_without_the_structure_teaches_no_outline() -> None:
    assert simulated_alone([_picture(femur=None)], ("femur",)) == ("femur",)
