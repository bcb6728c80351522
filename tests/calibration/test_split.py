from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_calibration.datasets.kinds import read_dataset
from edgefetal_calibration.datasets.split import Part, Split, select_part, split_by_subject
from edgefetal_devices.errors import DatasetError


@dataclass(frozen=True)
class Labelled:
    name: str
    subject: str
    content: str

    def digest(self) -> str:
        return hashlib.sha256(self.content.encode()).hexdigest()


def labelled(subjects: list[str], per_subject: int = 2, salt: str = "") -> list[Labelled]:
    return [Labelled(f"{s}_{k}", s, f"{salt}{s}_{k}") for s in subjects for k in range(per_subject)]


def draw(cases: list[Labelled], seed: int = 1) -> Split:
    return split_by_subject(cases, dataset="hc18", seed=seed, validation=0.1, held_out=0.15)


@given(st.sets(st.integers(0, 999), min_size=3, max_size=80), st.integers(0, 5))
def test_every_subject_is_in_one_part_and_no_part_is_empty(numbers: set[int], seed: int) -> None:
    cases = labelled([f"{n:03d}" for n in sorted(numbers)])
    split = draw(cases, seed)
    chosen = {part: {case.subject for case in split.select(cases, part)} for part in Part}
    assert all(chosen.values())
    assert sum(map(len, chosen.values())) == len(numbers)
    assert set.union(*chosen.values()) == {case.subject for case in cases}


def test_split_depends_on_seed_and_not_on_order() -> None:
    cases = labelled([f"{n:03d}" for n in range(60)])
    assert draw(cases) == draw(cases[::-1])
    assert draw(cases).parts != draw(cases, seed=2).parts


def test_collection_is_recognised_by_content_under_other_names() -> None:
    cases = labelled([f"{n:03d}" for n in range(20)])
    split = draw(cases)
    renamed = [Labelled("9" + case.name, "9" + case.subject, case.content) for case in cases]
    for part in (Part.TRAIN, Part.VALIDATION):
        assert [c.content for c in split.select(renamed, part)] == [c.content for c in split.select(cases, part)] != []


def test_other_collection_with_the_same_numbers_is_held_out_whole() -> None:
    subjects = [f"{n:03d}" for n in range(20)]
    split = draw(labelled(subjects))
    other = labelled(subjects, salt="another hospital ")
    assert split.select(other, Part.HELD_OUT) == other
    assert split.select(other, Part.TRAIN) == []


def test_new_picture_of_a_training_subject_is_not_held_out() -> None:
    cases = labelled([f"{n:03d}" for n in range(20)])
    split = draw(cases)
    subject = split.select(cases, Part.TRAIN)[0].subject
    later = Labelled("later", subject, "taken later")
    assert later not in split.select([*cases, later], Part.HELD_OUT)


def test_survives_json() -> None:
    split = draw(labelled([f"{n:03d}" for n in range(20)]))
    assert Split.model_validate_json(split.model_dump_json()) == split


def test_two_subjects_cannot_be_split() -> None:
    with pytest.raises(DatasetError, match="at least three"):
        draw(labelled(["000", "001"]))


def test_unknown_and_empty_parts_are_refused() -> None:
    cases = labelled([f"{n:03d}" for n in range(20)])
    split = draw(cases)
    with pytest.raises(DatasetError, match="no part 'test'"):
        select_part(split, cases, "test")
    with pytest.raises(DatasetError, match="holds no pictures of the train part"):
        select_part(split, labelled(["900"], salt="other "), "train")
    assert select_part(split, cases, "all") == cases


@pytest.mark.parametrize(
    ("text", "says"),
    [("hc18", "KIND:PATH"), ("hc18:", "KIND:PATH"), ("hc19:/tmp", "choose one of hc18"), ("hc18:/none", "not an HC18")],
)
def test_bad_dataset_names(text: str, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        read_dataset(text)
