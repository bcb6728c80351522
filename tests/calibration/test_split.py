from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_calibration.datasets.kinds import TABLE, read_exams, read_heads
from edgefetal_calibration.datasets.split import (
    Part,
    Split,
    parse_split,
    refuse_shared,
    select_part,
    split_by_subject,
    split_datasets,
)
from edgefetal_devices.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_runtime.infer.bundle import Bundle


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
        read_heads(text)


def parts_of(split: Split, cases: list[Labelled]) -> dict[str, Part]:
    return {case.name: part for part in Part for case in split.select(cases, part)}


def test_several_datasets_are_each_in_every_part() -> None:
    large, small = labelled([f"{n:03d}" for n in range(60)]), labelled([f"phantom/{n}" for n in range(4)])
    split = split_datasets([("hc18", large), ("phantom", small)], seed=1, validation=0.1, held_out=0.15)
    assert split.dataset == "hc18+phantom"
    for cases in (large, small):
        assert {split.parts[case.subject] for case in cases} == set(Part)
    # The parts of one do not depend on the other.
    assert {s: split.parts[s] for s in draw(large).parts} == draw(large).parts
    assert parts_of(split, [*large, *small]) == parts_of(split, large) | parts_of(split, small)


def test_two_folders_of_one_kind_share_their_subjects() -> None:
    first, second = labelled(["a", "b", "c", "d"]), labelled(["b", "c", "e"], salt="later ")
    split = split_datasets([("folder", first), ("folder", second)], seed=1, validation=0.2, held_out=0.2)
    assert split.dataset == "folder"
    assert set(split.parts) == set("abcde")


def test_too_small_a_dataset_among_several_is_refused() -> None:
    with pytest.raises(DatasetError, match="at least three"):
        split_datasets(
            [("hc18", labelled([f"{n}" for n in range(9)])), ("phantom", labelled(["x"]))],
            seed=1,
            validation=0.1,
            held_out=0.1,
        )


def test_one_picture_of_two_subjects_in_different_parts_is_refused_by_both_names() -> None:
    cases = labelled([f"{n:03d}" for n in range(20)])
    split = draw(cases)
    apart = [split.select(cases, part)[0] for part in (Part.TRAIN, Part.HELD_OUT)]
    twins = [Labelled(f"twin_{case.subject}", case.subject, "the same") for case in apart]
    with pytest.raises(DatasetError, match="are the same pictures") as refused:
        draw([*cases, *twins])
    assert all(f"{twin.name} of subject {twin.subject}" in str(refused.value) for twin in twins)
    # In one part they do no harm.
    together = [Labelled(f"twin_{c.subject}", c.subject, "the same") for c in split.select(cases, Part.TRAIN)[:3:2]]
    assert together[0].subject != together[1].subject
    assert draw([*cases, *together]).parts == split.parts


def test_a_subject_that_holds_pictures_of_two_parts_is_refused() -> None:
    cases = labelled([f"{n:03d}" for n in range(20)])
    split = draw(cases)
    mixed = [Labelled(f"m{p.value}", "mixed", split.select(cases, p)[0].content) for p in (Part.TRAIN, Part.VALIDATION)]
    with pytest.raises(DatasetError, match=r"Subject mixed is in two parts: mtrain .* train part and mvalidation"):
        split.select(mixed, Part.HELD_OUT)


def test_groups_that_share_a_subject_or_a_picture_are_refused() -> None:
    a, b = labelled(["1", "2"]), labelled(["3"])
    refuse_shared({"task": a, "skill": b})
    with pytest.raises(DatasetError, match="Subject 2 is in two groups: 2_0 in task and later in skill"):
        refuse_shared({"task": a, "skill": [*b, Labelled("later", "2", "new")]})
    with pytest.raises(DatasetError, match=r"1_0 of subject 1 \(task\) and copy of subject 9 \(skill\)"):
        refuse_shared({"task": a, "skill": [*b, Labelled("copy", "9", a[0].content)]})


def test_the_starter_s_split_reads_unchanged(starter: Bundle) -> None:
    content = starter.read("split.json")
    split = parse_split(content, "split.json")
    assert (split.dataset, len(split.parts), len(split.digests)) == ("hc18+phantom", 799, 935)
    assert split.model_dump_json() + "\n" == content.decode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"dataset":"x","seed":1,"parts":{"1":"train","1":"held-out"},"digests":{}}', "has '1' in it twice"),
        ('{"dataset":"x","seed":1,"parts":{"1":"train"},"digests":{"a":"1","a":"1"}}', "has 'a' in it twice"),
        ('{"dataset":"x","seed":1,"parts":{"1":"train"},"digests":{"a":"2"}}', "subject 2 is known"),
        ('{"dataset":"x","seed":1,"parts":{"1":"tests"},"digests":{}}', "is no split"),
        ('{"dataset":"x","seed":1,"parts":{}}', "is no split"),
        ("[" * 100_000, "is no split"),
        ("", "is no split"),
    ],
)
def test_split_files_that_are_none(content: str, says: str) -> None:
    with pytest.raises(DatasetError, match=f"old/split.json .*{says}|old/split.json.*{says}"):
        parse_split(content.encode(), "old/split.json")


@given(st.binary(max_size=40))
def test_any_bytes_are_a_split_or_refused(content: bytes) -> None:
    with pytest.raises(DatasetError, match=r"x\.json"):
        parse_split(content, "x.json")


def test_every_kind_of_the_table_refuses_another_folder(tmp_path: Path) -> None:
    for kind in TABLE:
        with pytest.raises(DatasetError, match=str(tmp_path)):
            read_exams(f"{kind.name}:{tmp_path}")


def test_heads_are_of_hc18_only(tiny_hc18: Path, tmp_path: Path) -> None:
    kind, heads = read_heads(f"hc18:{tiny_hc18}")
    assert kind.name == "hc18"
    assert len(heads) == 32
    (tmp_path / "labels.csv").write_text("file,subject\na.png,1\n")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20), np.uint8))
    assert len(read_exams(f"folder:{tmp_path}")[1]) == 1
    with pytest.raises(DatasetError, match=r"holds no pictures with annotated heads.*give hc18:PATH"):
        read_heads(f"folder:{tmp_path}")


def test_split_selects_exams(tiny_hc18: Path) -> None:
    _, exams = read_exams(f"hc18:{tiny_hc18}")
    split = split_by_subject(exams, dataset="hc18", seed=1, validation=0.1, held_out=0.15)
    assert sum(len(split.select(exams, part)) for part in Part) == len(exams)


def test_subjects_named_with_their_kind_are_known_in_other_pictures() -> None:
    """Rescaled or written anew, an exam that was trained on has other content; only bare numbers mean nothing."""
    cases = labelled([f"phantom/1-{n}" for n in range(10)])
    split = split_by_subject(cases, dataset="phantom", seed=1, validation=0.2, held_out=0.2)
    other_form = [replace(case, content=f"rescaled {case.content}") for case in cases]
    for part in Part:
        assert [c.subject for c in split.select(other_form, part)] == [c.subject for c in split.select(cases, part)]
    numbers = labelled([f"{n:03d}" for n in range(10)])
    split = split_by_subject(numbers, dataset="hc18", seed=1, validation=0.2, held_out=0.2)
    elsewhere = [replace(case, content=f"elsewhere {case.content}") for case in numbers]
    assert split.select(elsewhere, Part.HELD_OUT) == elsewhere
