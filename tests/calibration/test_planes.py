from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_calibration.datasets.labelled import LabelledSweep
from edgefetal_calibration.planes import count_planes, summarise_planes
from edgefetal_devices.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Exam:
    name = subject = "a"

    def __init__(self, *sweeps: tuple[str, ...] | None) -> None:
        self._planes = sweeps

    def digest(self) -> str:
        return "0"

    def labels_digest(self) -> str:
        return "0"

    def sweeps(self) -> Iterator[LabelledSweep]:
        for number, planes in enumerate(self._planes):
            count = 2 if planes is None else len(planes)
            yield LabelledSweep(str(number), np.zeros((count, 20, 20), np.uint8), planes=planes)


def test_frames_of_all_sweeps_are_counted() -> None:
    told: list[None] = []
    counts = count_planes(
        [Exam(("head", "none"), ("femur",)), Exam(("head",))],
        lambda sweep: ["head"] * len(sweep.pixels),
        lambda: told.append(None),
    )
    assert counts == {("head", "head"): 2, ("none", "head"): 1, ("femur", "head"): 1}
    assert len(told) == 2


def test_figures_are_those_of_the_table() -> None:
    summary = summarise_planes(
        Counter({("head", "head"): 6, ("head", "none"): 2, ("none", "head"): 3, ("none", "abdomen"): 1})
    )
    assert summary["n"] == 12
    assert summary["accuracy"] == pytest.approx(0.5)
    assert summary["planes"]["head"] == {"n": 8, "n_named": 9, "recall": 0.75, "precision": pytest.approx(6 / 9)}
    assert summary["planes"]["abdomen"] == {"n": 0, "n_named": 1, "recall": None, "precision": 0.0}


def test_sweep_without_planes_is_refused() -> None:
    with pytest.raises(DatasetError, match="which planes"):
        count_planes([Exam(None)], lambda sweep: [""] * len(sweep.pixels))


def test_wrong_number_of_names_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        count_planes([Exam(("head", "none"))], lambda _: ["head"])
