"""The two kinds of dataset that are pictures with a table: FETAL_PLANES_DB, and a folder of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_calibration.datasets.folder import read_folder
from edgefetal_calibration.datasets.planes_db import read_planes_db
from edgefetal_devices.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

# The last name has a blank behind it in the published table.
HEADER = "Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "
ROWS = (
    "Patient00001_Plane1_1_of_2;1;Other;Not A Brain;Other;Aloka;1",
    "Patient00001_Plane3_1_of_1;1;Fetal brain;Trans-thalamic;Op. 1;Voluson E6;1",
    "Patient00002_Plane3_1_of_1;2;Fetal brain;Trans-cerebellum;Op. 1;Voluson E6;0",
    "Patient00003_Plane3_1_of_1;3;Fetal brain;Trans-ventricular;Op. 1;Voluson E6;0",
    "Patient00004_Plane3_1_of_1;4;Fetal brain;Other;Op. 1;Voluson E6;0",
    "Patient00005_Plane2_1_of_1;5;Fetal abdomen;Not A Brain;Op. 2;Voluson S10;1",
    "Patient00006_Plane5_1_of_1;6;Fetal femur;Not A Brain;Op. 3;Aloka;1",
    "Patient00007_Plane6_1_of_1;7;Fetal thorax;Not A Brain;Op. 3;Aloka;1",
    "Patient00008_Plane4_1_of_1;8;Maternal cervix;Not A Brain;Op. 3;Aloka;1",
)


def draw(path: Path, seed: int = 0, size: tuple[int, int] = (20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8))


@pytest.fixture
def planes_root(tmp_path: Path) -> Path:
    root = tmp_path / "planes"
    for number, row in enumerate(ROWS):
        draw(root / "Images" / f"{row.split(';')[0]}.png", number)
    (root / "FETAL_PLANES_DB_data.csv").write_text("\n".join((HEADER, *ROWS)) + "\n")
    return root


def test_planes_and_patients_of_the_published_table(planes_root: Path) -> None:
    exams = read_planes_db(planes_root)
    assert [(exam.subject, exam.plane) for exam in exams] == [
        ("planes-db/1", "none"),
        ("planes-db/1", "head"),
        ("planes-db/2", "none"),
        ("planes-db/3", "head"),
        ("planes-db/4", "none"),
        ("planes-db/5", "abdomen"),
        ("planes-db/6", "femur"),
        ("planes-db/7", "none"),
        ("planes-db/8", "none"),
    ]
    (sweep,) = exams[1].sweeps()
    assert sweep.planes == ("head",)
    assert sweep.pixels.shape == (1, 20, 30)
    assert (sweep.scale, sweep.grades, dict(sweep.masks)) == (None, None, {})
    assert len({exam.digest() for exam in exams}) == len(exams)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("Patient_num", "Patient", "lacks the column 'Patient_num'"),
        ("Fetal femur", "Fetal arm", r"row 8: 'Fetal arm' with 'Not A Brain' is no plane"),
        ("Trans-thalamic", "Trans", r"row 3: 'Fetal brain' with 'Trans' is no plane"),
        ("_of_1;6;", "_of_1;;", r"row 8: Patient_num is ''"),
        ("Patient00006_Plane5_1_of_1", "../secret", r"row 8: Image_name is '../secret'"),
        ("Patient00006_Plane5_1_of_1", "Patient00009", r"row 8: .*Patient00009\.png is missing"),
        ("Patient00006_Plane5_1_of_1", "Patient00005_Plane2_1_of_1", r"row 8: .* stands twice"),
        (";", ",", "lacks the column"),
    ],
)
def test_malformed_tables_of_planes_are_refused_by_row(planes_root: Path, old: str, new: str, says: str) -> None:
    table = planes_root / "FETAL_PLANES_DB_data.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(DatasetError, match=says):
        read_planes_db(planes_root)


def test_another_folder_and_no_rows(planes_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a FETAL_PLANES_DB folder"):
        read_planes_db(tmp_path)
    (planes_root / "FETAL_PLANES_DB_data.csv").write_text(HEADER)
    with pytest.raises(DatasetError, match="has no rows"):
        read_planes_db(planes_root)


def test_a_picture_that_is_none_is_refused_by_name(planes_root: Path) -> None:
    (planes_root / "Images" / "Patient00005_Plane2_1_of_1.png").write_bytes(b"GIF89a")
    with pytest.raises(DatasetError, match=r"Patient00005_Plane2_1_of_1\.png"):
        read_planes_db(planes_root)[5].digest()


OWN = """file,subject,plane,grade,quality,abdomen_mask,x_mm_per_px,y_mm_per_px
b.png,P2,none,,0,none,,
a/1.png,P1,abdomen,2,,a/1_mask.png,0.2,0.25
c.png,P2,,,,,,
d.png,P3,,,1,,,
"""


@pytest.fixture
def own_root(tmp_path: Path) -> Path:
    root = tmp_path / "own"
    for number, name in enumerate(("a/1.png", "b.png", "c.png", "d.png")):
        draw(root / name, number)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:10, 5:10] = 255
    cv2.imwrite(str(root / "a/1_mask.png"), mask)
    (root / "labels.csv").write_text(OWN)
    return root


def test_labels_of_one_s_own_pictures(own_root: Path) -> None:
    exams = read_folder(own_root)
    assert [(exam.name, exam.subject) for exam in exams] == [
        ("a/1.png", "folder/P1"),
        ("b.png", "folder/P2"),
        ("c.png", "folder/P2"),
        ("d.png", "folder/P3"),
    ]
    shown, empty, unknown, good = (next(exam.sweeps()) for exam in exams)
    assert shown.planes == ("abdomen",)
    assert shown.grades is not None
    assert shown.grades.tolist() == [2]
    assert shown.masks["abdomen"].sum() == 25
    assert shown.scale is not None
    assert (shown.scale.x_mm_per_px, shown.scale.y_mm_per_px, shown.scale.relative_uncertainty) == (0.2, 0.25, 0.0)
    assert empty.planes == ("none",)
    assert empty.grades is not None
    assert empty.grades.tolist() == [0]
    # Looked for, and not there.
    assert empty.masks["abdomen"].shape == (1, 20, 30)
    assert not empty.masks["abdomen"].any()
    assert (unknown.planes, unknown.grades, unknown.scale, dict(unknown.masks)) == (None, None, None, {})
    assert good.grades is not None
    assert good.grades.tolist() == [1]


@pytest.mark.parametrize("levels", [(0, 1), (0, 1, 2), (0, 2), (0, 30, 255)])
def test_masks_by_number_and_in_white(own_root: Path, levels: tuple[int, ...]) -> None:
    mask = np.resize(np.array(levels, np.uint8), (20, 30))
    cv2.imwrite(str(own_root / "a/1_mask.png"), mask)
    (sweep,) = read_folder(own_root)[0].sweeps()
    expected = mask >= 128 if max(levels) == 255 else mask > 0
    assert np.array_equal(sweep.masks["abdomen"][0], expected)


def test_masks_that_fit_no_picture_are_refused_by_row(own_root: Path) -> None:
    draw(own_root / "a/1_mask.png", size=(20, 31))
    with pytest.raises(
        DatasetError, match=r"labels\.csv, row 3: the mask .*1_mask\.png is \(20, 31\) and the picture .*"
    ):
        list(read_folder(own_root)[0].sweeps())
    cv2.imwrite(str(own_root / "a/1_mask.png"), np.full((20, 30), 100, np.uint8))
    with pytest.raises(DatasetError, match=r"row 3: the mask .* has no grey level above 100"):
        list(read_folder(own_root)[0].sweeps())


def test_labels_digest_follows_every_label(own_root: Path) -> None:
    digests = {read_folder(own_root)[0].labels_digest()}
    table = own_root / "labels.csv"
    for old, new in (("abdomen,2", "abdomen,1"), ("0.25", "0.26"), ("P1,abdomen", "P1,none")):
        table.write_text(table.read_text().replace(old, new))
        digests.add(read_folder(own_root)[0].labels_digest())
    draw(own_root / "a/1_mask.png")
    digests.add(read_folder(own_root)[0].labels_digest())
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("file,", "name,", "lacks the column 'file'"),
        ("abdomen,2", "tummy,2", "row 3: plane is 'tummy', and must be one of head, abdomen, femur, none"),
        ("abdomen,2", "abdomen,3", "row 3: grade is '3'"),
        ("abdomen,2,", "abdomen,2,0", "row 3: grade 2 and quality 0 contradict"),
        ("none,,0", "none,,yes", "row 2: quality is 'yes'"),
        ("0.25", "", "row 3: x_mm_per_px and y_mm_per_px must both be given"),
        ("0.25", "wide", "row 3: y_mm_per_px is 'wide'"),
        ("0.25", "25", r"labels\.csv.*row 3.*outside"),
        ("c.png", "e.png", r"row 4: .*e\.png is missing"),
        ("c.png", "../c.png", r"row 4: file is '\.\./c\.png', which does not lie in"),
        ("c.png", "/etc/passwd", "row 4: file is '/etc/passwd', which does not lie in"),
        ("c.png", "", "row 4: file is ''"),
        ("c.png", "b.png", "row 4: b.png stands twice"),
        ("a/1_mask.png", "a/2_mask.png", r"row 3: .*2_mask\.png is missing"),
        ("P3", "", "row 5: subject is ''"),
        ("c.png,P2,,,,,,", "c.png,P2,,,,,,,", "row 4: there are more cells than columns"),
        ("subject,plane", "subject,subject", "names a column twice"),
    ],
)
def test_malformed_labels_are_refused_by_row(own_root: Path, old: str, new: str, says: str) -> None:
    table = own_root / "labels.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(DatasetError, match=says):
        read_folder(own_root)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"file,subject\n"])
def test_tables_that_are_none(own_root: Path, content: bytes) -> None:
    (own_root / "labels.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=r"labels\.csv"):
        read_folder(own_root)


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no labels\.csv"):
        read_folder(tmp_path)


@settings(deadline=None, max_examples=100)
@given(content=st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_whatever_a_table_holds_is_read_or_refused(content: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / "labels.csv").write_bytes(b"file,subject,plane,x_mm_per_px\n" + content.encode())
    with pytest.raises(DatasetError):
        read_folder(root)
