from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.datasets.split import Part, split_by_subject
from edgefetal_calibration.ranges import choose_range_frames
from edgefetal_devices.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path


def test_frames_are_of_training_subjects_only(tiny_hc18: Path) -> None:
    cases = read_hc18(tiny_hc18)
    split = split_by_subject(cases, dataset="hc18", seed=3, validation=0.2, held_out=0.2)
    chosen = choose_range_frames(cases, split, 16)
    assert len(chosen.cases) == 16
    assert {split.parts[case.subject] for case in chosen.cases} == {Part.TRAIN}


def test_choice_depends_on_content_and_not_on_order(tiny_hc18: Path) -> None:
    cases = read_hc18(tiny_hc18)
    split = split_by_subject(cases, dataset="hc18", seed=3, validation=0.1, held_out=0.1)
    assert choose_range_frames(cases, split, 16) == choose_range_frames(cases[::-1], split, 16)
    assert choose_range_frames(cases, split, 16).sha256 != choose_range_frames(cases, split, 17).sha256


def test_other_data_are_refused(tiny_hc18: Path) -> None:
    cases = read_hc18(tiny_hc18)
    split = split_by_subject(cases, dataset="hc18", seed=3, validation=0.1, held_out=0.1)
    stranger = split.model_copy(update={"digests": {"0" * 64: "000"}})
    with pytest.raises(DatasetError, match="0 pictures of the subjects that the network was trained on"):
        choose_range_frames(cases, stranger, 16)
