from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal_calibration.datasets.hc18 import FOLDER, TABLE, read_hc18
from edgefetal_devices.errors import DatasetError, ScaleError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def copied(tiny_hc18: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_hc18, tmp_path / "hc18")


def test_lists_every_picture_once_with_its_row(tiny_hc18: Path) -> None:
    cases = read_hc18(tiny_hc18)
    assert len(cases) == 32
    assert [case.name for case in cases] == sorted(case.name for case in cases)
    assert len({case.subject for case in cases}) == 28
    first = cases[0]
    assert (first.name, first.subject) == ("000_2HC.png", "000")
    (row,) = (line for line in (tiny_hc18 / TABLE).read_text().splitlines() if line.startswith(f"{first.name},"))
    assert f"{first.hc_mm:.2f}" == row.split(",")[2]
    assert first.scale.x_mm_per_px == 0.62


def test_drawn_outlines_agree_with_their_circumference(tiny_hc18: Path) -> None:
    errors_mm = [case.head_px().circumference() * case.scale.x_mm_per_px - case.hc_mm for case in read_hc18(tiny_hc18)]
    # A mask drawn on whole pixels of 0.62 mm is worth about a third of a pixel of radius.
    assert np.abs(errors_mm).max() < 1.2


def test_truth_is_the_table_s_hc_and_the_axes_of_the_annotation(tiny_hc18: Path) -> None:
    case = read_hc18(tiny_hc18)[5]
    outline = case.head_px()
    truth = case.truth(outline)
    assert truth["HC"] == case.hc_mm
    assert truth["OFD"] == pytest.approx(2 * 0.62 * outline.semi_major)
    assert truth["BPD_outer_outer"] == pytest.approx(2 * 0.62 * outline.semi_minor)
    assert truth["cephalic_index"] == pytest.approx(outline.semi_minor / outline.semi_major)
    # Ramanujan II of the two axes is the circumference again.
    a, b = truth["OFD"] / 2, truth["BPD_outer_outer"] / 2
    h = ((a - b) / (a + b)) ** 2
    assert np.pi * (a + b) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h))) == pytest.approx(case.hc_mm, abs=1.2)


def test_the_pixel_size_is_exact_because_the_reference_shares_its_error(tiny_hc18: Path) -> None:
    assert {case.scale.relative_uncertainty for case in read_hc18(tiny_hc18)} == {0.0}
    assert read_hc18(tiny_hc18)[0].frame().scale == read_hc18(tiny_hc18)[0].scale


def test_real_outlines_agree_with_the_table(hc18_root: Path) -> None:
    cases = read_hc18(hc18_root)[::8]
    errors_mm = np.array([c.head_px().circumference() * c.scale.x_mm_per_px - c.hc_mm for c in cases])
    assert np.abs(errors_mm).mean() <= 0.15
    assert np.abs(errors_mm).max() <= 0.5


@pytest.mark.slow
def test_all_real_outlines_agree_with_the_table(hc18_root: Path) -> None:
    cases = read_hc18(hc18_root)
    errors_mm = np.array([c.head_px().circumference() * c.scale.x_mm_per_px - c.hc_mm for c in cases])
    assert len(cases) == 834
    assert np.abs(errors_mm).mean() <= 0.15
    assert np.abs(errors_mm).max() <= 0.5


def test_a_picture_is_an_exam_of_one_frame(tiny_hc18: Path) -> None:
    case = read_hc18(tiny_hc18)[7]
    (sweep,) = case.sweeps()
    assert sweep.pixels.shape == (1, 180, 260)
    assert np.array_equal(sweep.pixels[0], case.frame().pixels)
    assert sweep.planes == ("head",)
    assert sweep.grades is None
    assert sweep.lengths_mm["HC"].tolist() == [case.hc_mm]
    assert sweep.scale == case.scale
    outline = case.head_px()
    # Every pixel of the annotated ellipse, and none besides.
    assert sweep.masks["head"].sum() == pytest.approx(np.pi * outline.semi_major * outline.semi_minor, rel=0.005)
    x, y = round(outline.center_x), round(outline.center_y)
    assert sweep.masks["head"][0, y, x] == 1


def test_labels_digest_follows_the_annotation_and_the_table(copied: Path) -> None:
    case = read_hc18(copied)[3]
    before = case.labels_digest()
    assert dataclasses.replace(case, hc_mm=case.hc_mm + 1).labels_digest() != before
    cv2.imwrite(str(case.annotation), np.zeros((180, 260), np.uint8))
    assert case.labels_digest() != before


def test_missing_table(copied: Path) -> None:
    (copied / TABLE).unlink()
    with pytest.raises(DatasetError, match="is not an HC18 folder"):
        read_hc18(copied)


def test_missing_annotation(copied: Path) -> None:
    (copied / FOLDER / "003_HC_Annotation.png").unlink()
    with pytest.raises(DatasetError, match="003_HC_Annotation"):
        read_hc18(copied)


def test_missing_row(copied: Path) -> None:
    lines = (copied / TABLE).read_text().splitlines()
    (copied / TABLE).write_text("\n".join(line for line in lines if not line.startswith("004_HC")))
    with pytest.raises(DatasetError, match=r"no row .* 004_HC\.png"):
        read_hc18(copied)


def test_pixel_size_of_zero(copied: Path) -> None:
    (copied / TABLE).write_text((copied / TABLE).read_text().replace("004_HC.png,0.62", "004_HC.png,0"))
    with pytest.raises(ScaleError, match="positive"):
        read_hc18(copied)


def test_foreign_name(copied: Path) -> None:
    (copied / FOLDER / "picture.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"picture\.png"):
        read_hc18(copied)


def test_no_pictures(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / TABLE).write_text("filename,pixel size(mm),head circumference (mm)\n")
    with pytest.raises(DatasetError, match="holds no pictures"):
        read_hc18(tmp_path)


@pytest.mark.parametrize("thickness", [1, 2, 3])
def test_ring_is_read_along_its_middle(copied: Path, thickness: int) -> None:
    """Upstream draws the outline as a ring; its middle is what was annotated."""
    case = next(case for case in read_hc18(copied) if case.name == "012_HC.png")
    truth = case.head_px()
    ring = np.zeros((180 * 8, 260 * 8), np.uint8)
    points = np.round(((truth.points(720) + 0.5) * 8 - 0.5) * 16).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(ring, [points], isClosed=True, color=(255,), thickness=8 * thickness, lineType=cv2.LINE_8, shift=4)
    small = cv2.resize(ring, (260, 180), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(case.annotation), ((small > 110) * 255).astype(np.uint8))
    assert case.head_px().circumference() == pytest.approx(truth.circumference(), rel=0.006)


def test_mask_of_another_picture_is_refused(copied: Path) -> None:
    cases = {case.name: case for case in read_hc18(copied)}
    shutil.copy(cases["020_HC.png"].annotation, cases["005_HC.png"].annotation)
    case = cases["005_HC.png"]
    with pytest.raises(DatasetError, match=rf"005_HC_Annotation\.png outlines .* the table says {case.hc_mm:.1f} mm"):
        case.head_px()


def test_digest_is_of_pixels_and_not_of_bytes(copied: Path) -> None:
    case = read_hc18(copied)[3]
    again = copied / "again.png"
    cv2.imwrite(str(again), cv2.imread(str(case.picture), cv2.IMREAD_GRAYSCALE), [cv2.IMWRITE_PNG_COMPRESSION, 0])
    assert again.read_bytes() != case.picture.read_bytes()
    assert dataclasses.replace(case, picture=again).digest() == case.digest()


def test_black_annotation(copied: Path) -> None:
    cv2.imwrite(str(copied / FOLDER / "003_HC_Annotation.png"), np.zeros((180, 260), np.uint8))
    case = next(case for case in read_hc18(copied) if case.name == "003_HC.png")
    with pytest.raises(DatasetError, match="holds no outline"):
        case.head_px()
