from __future__ import annotations

import csv
import gzip
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_calibration.datasets.acouslic import read_acouslic
from edgefetal_calibration.phantom.writers import (
    ACOUSLIC_IMAGES,
    ACOUSLIC_MASKS,
    ACOUSLIC_TABLE,
    write_acouslic_exam,
)
from edgefetal_devices.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (18, 24)


def stack(path: Path, frames: np.ndarray, *, how: str, spacing: str = "0.28 0.28 0.28") -> None:
    """Write a stack as ITK does, compressed as said."""
    content = {"plain": bytes, "zlib": zlib.compress, "gzip": gzip.compress}[how](frames.tobytes())
    n, h, w = frames.shape
    header = (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = {how != 'plain'}\n"
        + (f"CompressedDataSize = {len(content)}\n" if how != "plain" else "")
        + f"ElementSpacing = {spacing}\nDimSize = {w} {h} {n}\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + content)


def test_lists_the_rows_of_the_table_by_uuid(acouslic_root: Path) -> None:
    exams = read_acouslic(acouslic_root)
    assert [(exam.name, exam.subject) for exam in exams] == [
        ("aaa", "acouslic/S-1"),
        ("bbb", "acouslic/S-1"),
        ("ccc", "acouslic/S-2"),
    ]


def test_six_sweeps_with_masks_grades_and_the_sweep_s_circumference(acouslic_root: Path) -> None:
    exam = read_acouslic(acouslic_root)[0]
    sweeps = list(exam.sweeps())
    assert [sweep.name for sweep in sweeps] == [f"sweep_{k}" for k in range(1, 7)]
    assert {sweep.pixels.shape for sweep in sweeps} == {(140, *SHAPE)}
    first, fourth = sweeps[0], sweeps[3]
    assert first.grades is not None
    assert fourth.grades is not None
    assert {k: int(first.grades[k]) for k in np.flatnonzero(first.grades)} == {60: 2, 61: 1, 62: 2}
    assert np.flatnonzero(fourth.grades).tolist() == [10]
    assert set(np.unique(first.masks["abdomen"])) == {0, 1}
    assert first.masks["abdomen"].sum() == 3 * 8 * 10
    assert np.flatnonzero(~np.isnan(first.lengths_mm["AC"])).tolist() == [60, 61, 62]
    assert first.lengths_mm["AC"][61] == 201.5
    assert fourth.lengths_mm["AC"][10] == 202.25
    assert all(np.isnan(sweep.lengths_mm["AC"]).all() for sweep in (sweeps[1], sweeps[5]))
    assert first.planes is None
    assert first.scale is not None
    assert first.scale.x_mm_per_px == pytest.approx(0.28, abs=1e-8)
    # The reference is in the same millimetres.
    assert first.scale.relative_uncertainty == 0


def test_pixels_are_those_of_the_file_in_order(acouslic_root: Path) -> None:
    written = np.random.default_rng(1).integers(0, 256, (840, *SHAPE), dtype=np.uint8)
    read = np.concatenate([sweep.pixels for sweep in read_acouslic(acouslic_root)[0].sweeps()])
    assert np.array_equal(read, written)


@pytest.mark.parametrize("how", ["plain", "zlib", "gzip"])
def test_any_compression_reads_alike_and_has_one_digest(acouslic_root: Path, tmp_path: Path, how: str) -> None:
    exam = read_acouslic(acouslic_root)[0]
    frames = np.concatenate([sweep.pixels for sweep in exam.sweeps()])
    other = tmp_path / f"{how}.mha"
    stack(other, frames, how=how)
    again = type(exam)("x", "acouslic/x", other, exam.labels, exam.sweep_ac_mm)
    assert again.digest() == exam.digest()
    assert np.array_equal(np.concatenate([sweep.pixels for sweep in again.sweeps()]), frames)


def test_digests_differ_by_pixels_and_labels_digests_by_labels(acouslic_root: Path) -> None:
    exams = read_acouslic(acouslic_root)
    assert len({exam.digest() for exam in exams}) == 3
    before = [exam.labels_digest() for exam in exams]
    table = acouslic_root / ACOUSLIC_TABLE
    table.write_text(table.read_text().replace("201.5", "202.5"))
    after = [exam.labels_digest() for exam in read_acouslic(acouslic_root)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, True]


def test_frames_of_one_grey_do_not_make_two_exams_one(tmp_path: Path) -> None:
    """Sweeps begin in the air; what tells exams apart comes later."""
    frames = np.zeros((840, *SHAPE), np.uint8)
    digests = []
    for k in range(2):
        frames[700] = np.random.default_rng(k).integers(0, 256, SHAPE, dtype=np.uint8)
        write_acouslic_exam(tmp_path / f"{k}", "x", frames, np.zeros_like(frames))
        (tmp_path / f"{k}" / "circumferences").mkdir()
        (tmp_path / f"{k}" / ACOUSLIC_TABLE).write_text(
            "uuid,subject_id," + ",".join(f"sweep_{n}_ac_mm" for n in range(1, 7)) + "\nx,s,,,,,,\n"
        )
        digests.append(read_acouslic(tmp_path / f"{k}")[0].digest())
    assert digests[0] != digests[1]


@pytest.mark.parametrize(("folder", "count"), [(ACOUSLIC_IMAGES, 839), (ACOUSLIC_MASKS, 839), (ACOUSLIC_IMAGES, 841)])
def test_an_exam_of_another_number_of_frames_is_refused_by_name(acouslic_root: Path, folder: str, count: int) -> None:
    path = acouslic_root / folder / "bbb.mha"
    stack(path, np.zeros((count, *SHAPE), np.uint8), how="zlib")
    with pytest.raises(DatasetError, match=rf"bbb\.mha has {count} frames, and an exam of ACOUSLIC-AI has 840"):
        next(read_acouslic(acouslic_root)[1].sweeps())


def test_masks_of_another_size_are_refused_by_name(acouslic_root: Path) -> None:
    stack(acouslic_root / ACOUSLIC_MASKS / "aaa.mha", np.zeros((840, 18, 23), np.uint8), how="zlib")
    with pytest.raises(
        DatasetError, match=r"masks.*aaa\.mha is \(840, 18, 23\) and .*images.*aaa\.mha is \(840, 18, 24\)"
    ):
        next(read_acouslic(acouslic_root)[0].sweeps())


def test_another_label_is_refused(acouslic_root: Path) -> None:
    masks = np.zeros((840, *SHAPE), np.uint8)
    masks[300, 2, 2] = 3
    stack(acouslic_root / ACOUSLIC_MASKS / "aaa.mha", masks, how="zlib")
    with pytest.raises(DatasetError, match=r"aaa\.mha: a mask holds 3"):
        list(read_acouslic(acouslic_root)[0].sweeps())


def test_a_stack_that_was_cut_short_is_refused(acouslic_root: Path) -> None:
    path = acouslic_root / ACOUSLIC_IMAGES / "aaa.mha"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DatasetError, match=r"aaa\.mha"):
        list(read_acouslic(acouslic_root)[0].sweeps())


def test_no_spacing_is_no_scale(acouslic_root: Path) -> None:
    stack(acouslic_root / ACOUSLIC_IMAGES / "aaa.mha", np.zeros((840, *SHAPE), np.uint8), how="zlib", spacing="1 1 1")
    assert next(read_acouslic(acouslic_root)[0].sweeps()).scale is None


def test_a_row_without_its_file_and_a_file_without_its_row(acouslic_root: Path) -> None:
    (acouslic_root / ACOUSLIC_IMAGES / "ddd.mha").write_bytes(b"left by a run that was killed")
    assert len(read_acouslic(acouslic_root)) == 3
    (acouslic_root / ACOUSLIC_MASKS / "ccc.mha").unlink()
    with pytest.raises(DatasetError, match=r"ccc\.mha is missing, and row 2 of .*\.csv names it"):
        read_acouslic(acouslic_root)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("uuid,", "name,", "lacks the column 'uuid'"),
        ("sweep_6_ac_mm", "sweep_5_ac_mm", "lacks the column 'sweep_6_ac_mm'"),
        ("201.5000", "twenty", r"row 3: sweep_1_ac_mm is 'twenty', which is no length"),
        ("201.5000", "-1", "is no length"),
        ("201.5000", "nan", "is no length"),
        ("201.5000", "1e400", "is no length"),
        ("aaa,S-1", "bbb,S-1", "row 4: bbb stands twice"),
        ("aaa,S-1", "aaa,", "subject_id is ''"),
        ("aaa,S-1", "../aaa,S-1", "must be a name"),
        ("201.5000", "201,5000", "more cells than columns"),
    ],
)
def test_malformed_tables_are_refused_by_row(acouslic_root: Path, old: str, new: str, says: str) -> None:
    table = acouslic_root / ACOUSLIC_TABLE
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(DatasetError, match=says):
        read_acouslic(acouslic_root)


def test_other_folders_and_empty_tables_are_refused(tmp_path: Path, acouslic_root: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder of ACOUSLIC-AI"):
        read_acouslic(tmp_path / "none")
    table = acouslic_root / ACOUSLIC_TABLE
    table.write_text(table.read_text().splitlines()[0] + "\n")
    with pytest.raises(DatasetError, match="has no rows"):
        read_acouslic(acouslic_root)


@settings(deadline=None, max_examples=100)
@given(cells=st.lists(st.text(max_size=8), min_size=1, max_size=10))
def test_whatever_a_row_holds_is_read_or_refused(cells: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / "circumferences").mkdir()
    with (root / ACOUSLIC_TABLE).open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        table = csv.writer(stream)
        table.writerow(["uuid", "subject_id", *(f"sweep_{k}_ac_mm" for k in range(1, 7))])
        try:
            table.writerow(cells)
        except UnicodeEncodeError:
            return
    # No such row names files that are there.
    with pytest.raises(DatasetError):
        read_acouslic(root)
