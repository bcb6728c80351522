"""How a path becomes a source, and which pixel size each picture gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal_devices.errors import ScaleError, SourceError
from edgefetal_runtime.scale import Scale
from edgefetal_runtime.sources.scale_wish import ScaleWish
from edgefetal_runtime.sources.source import open_source

if TYPE_CHECKING:
    from pathlib import Path

SCALE = Scale(0.2, 0.3, origin="command line")
COLUMNS = "filename,pixel size(mm),head circumference (mm)"


def _picture(path: Path, level: int = 7) -> Path:
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), np.full((20, 30), level, np.uint8))
    return path


def _table(path: Path, **sizes: float) -> Path:
    path.write_text("\n".join([COLUMNS, *(f"{name}.png,{size},175" for name, size in sizes.items())]) + "\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures b and a, in a folder whose parent belongs to the test too."""
    _picture(tmp_path / "scans" / "b.png")
    return _picture(tmp_path / "scans" / "a.png").parent


def _scales(path: Path, scale: Scale | None = None, scale_csv: Path | None = None) -> dict[str, float | None]:
    source = open_source(path, ScaleWish(stated=scale, table=scale_csv))
    return {f.sweep: f.scale.x_mm_per_px if f.scale else None for f in source.frames()}


def test_a_picture_is_a_still_with_the_scale_that_was_given(folder: Path) -> None:
    source = open_source(folder / "a.png", ScaleWish(stated=SCALE))
    (frame,) = source.frames()
    assert (source.kind, source.frame_count) == ("still", 1)
    assert frame.scale == SCALE


def test_a_picture_takes_its_row_of_the_table_that_was_given(folder: Path) -> None:
    table = _table(folder.parent / "sizes.csv", a=0.11, b=0.12)
    assert _scales(folder / "b.png", scale_csv=table) == {"b.png": 0.12}


def test_without_any_figure_there_is_no_scale(folder: Path) -> None:
    assert _scales(folder / "a.png") == {"a.png": None}
    assert _scales(folder) == {"a.png": None, "b.png": None}


@pytest.mark.parametrize("suffix", [".PNG", ".jpg", ".JPEG"])
def test_pictures_are_known_by_suffix_in_any_case(tmp_path: Path, suffix: str) -> None:
    path = _picture(tmp_path / "plain.png").rename(tmp_path / f"a{suffix}")
    assert open_source(path).kind == "still"


def test_a_folder_is_read_in_the_order_of_names_without_annotations_and_other_files(folder: Path) -> None:
    _picture(folder / "a_Annotation.png")
    (folder / "notes.txt").write_text("none")
    source = open_source(folder, ScaleWish(stated=SCALE))
    assert (source.kind, source.frame_count) == ("folder", 2)
    assert [(f.sweep, f.scale) for f in source.frames()] == [("a.png", SCALE), ("b.png", SCALE)]


@pytest.mark.parametrize("place", ["scans/anything.csv", "scans_pixel_size_and_HC.csv"])
def test_a_table_in_or_beside_the_folder_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    _table(folder.parent / place, a=0.11, b=0.12)
    assert _scales(folder) == {"a.png": 0.11, "b.png": 0.12}
    monkeypatch.chdir(folder)
    assert _scales(folder.relative_to(folder)) == {"a.png": 0.11, "b.png": 0.12}


def test_a_table_that_was_given_goes_before_the_one_in_the_folder(folder: Path) -> None:
    _table(folder / "sizes.csv", a=0.11, b=0.12)
    assert _scales(folder, scale_csv=_table(folder.parent / "right.csv", a=0.21, b=0.22)) == {
        "a.png": 0.21,
        "b.png": 0.22,
    }


def test_a_scale_that_was_given_goes_before_the_table_in_the_folder(folder: Path) -> None:
    _table(folder / "sizes.csv", a=0.11, b=0.12)
    assert _scales(folder, scale=SCALE) == {"a.png": 0.2, "b.png": 0.2}


def test_two_tables_are_not_chosen_between(folder: Path) -> None:
    _table(folder / "sizes.csv", a=0.11, b=0.12)
    _table(folder.parent / "scans_pixel_size.csv", a=0.11, b=0.12)
    with pytest.raises(ScaleError, match=r"Several tables .*sizes\.csv.*scans_pixel_size\.csv.*; name one with"):
        open_source(folder)


def test_other_tables_are_left_alone(folder: Path) -> None:
    (folder / "patients.csv").write_text("name,age\na,30\n")
    _table(folder.parent / "other_pixel_size.csv", a=0.3, b=0.3)
    _table(folder.parent / "sizes.csv", a=0.3, b=0.3)
    assert _scales(folder) == {"a.png": None, "b.png": None}


def test_a_folder_never_takes_the_table_of_another_whose_name_its_own_matches_as_a_pattern(tmp_path: Path) -> None:
    scans = _picture(tmp_path / "day[12]" / "a.png").parent
    _table(tmp_path / "day1_pixel_size.csv", a=0.3)
    assert _scales(scans) == {"a.png": None}
    _table(tmp_path / "day[12]_pixel_size.csv", a=0.1)
    assert _scales(scans) == {"a.png": 0.1}


def test_a_picture_without_a_row_is_named(folder: Path) -> None:
    table = _table(folder / "sizes.csv", a=0.1)
    with pytest.raises(ScaleError, match=r"sizes\.csv has no row for b\.png; add the row, or give .*--mm-per-px"):
        open_source(folder)
    _picture(folder / "c.png")
    with pytest.raises(ScaleError, match=r"no row for b\.png and 1 more; add"):
        open_source(folder, ScaleWish(table=table))


@pytest.mark.parametrize("size", [-0.1, 0, float("nan"), float("inf"), 0.0012, 120])
def test_a_table_with_an_impossible_size_is_refused(folder: Path, size: float) -> None:
    table = _table(folder.parent / "sizes.csv", a=0.1, b=size)
    for path in (folder, folder / "a.png"):
        with pytest.raises(ScaleError, match=r"sizes\.csv, row 3.*(give a positive number|check that it is in mm)"):
            open_source(path, ScaleWish(table=table))


@pytest.mark.parametrize("suffix", [".avi", ".MP4", ".mkv"])
def test_a_video_takes_the_scale_that_was_given_and_no_table(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"sweep{suffix}"
    path.write_bytes(b"opened only when read")
    assert open_source(path, ScaleWish(stated=SCALE)).kind == "video"
    with pytest.raises(ScaleError, match=r"pixel size of sweep\..* with --mm-per-px"):
        open_source(path, ScaleWish(table=tmp_path / "sizes.csv"))


def test_an_unknown_kind_is_refused_and_the_known_ones_listed(tmp_path: Path) -> None:
    path = tmp_path / "scan.gif"
    path.write_bytes(b"GIF89a")
    with pytest.raises(SourceError, match=r"scan\.gif is of no kind .* \(\.png .*\.avi .*\.mha .*\.dcm .*\); convert"):
        open_source(path)


@pytest.mark.parametrize("name", ["missing.png", "n" * 300 + ".png"])
def test_a_missing_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="give a picture, a folder of pictures, a video, MetaImage or DICOM file"):
        open_source(tmp_path / name)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    _picture(tmp_path / "scans" / "a_Annotation.png")
    with pytest.raises(SourceError, match=r"scans holds no PNG or JPEG pictures; give the folder that holds them"):
        open_source(tmp_path / "scans")


def test_the_hidden_twins_that_macs_leave_on_usb_sticks_are_no_pictures(folder: Path) -> None:
    (folder / "._a.png").write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    assert _scales(folder) == {"a.png": None, "b.png": None}


def test_pictures_of_another_format_than_the_first_have_no_scale_by_a_figure_and_keep_their_rows(folder: Path) -> None:
    assert cv2.imwrite(str(folder / "b.png"), np.full((20, 31), 7, np.uint8))
    assert _scales(folder, scale=SCALE) == {"a.png": 0.2, "b.png": None}
    assert _scales(folder, scale_csv=_table(folder.parent / "t.csv", a=0.1, b=0.2)) == {"a.png": 0.1, "b.png": 0.2}


@pytest.mark.parametrize("spacing", ["0.2 0.3", "0.2 0.2985"])
def test_a_metaimage_keeps_its_spacing_where_the_figure_agrees(tmp_path: Path, spacing: str) -> None:
    path = _metaimage(tmp_path, spacing)
    assert {f.scale.origin for f in open_source(path, ScaleWish(stated=SCALE)).frames() if f.scale} == {
        "MetaImage ElementSpacing of sweep.mha"
    }


def test_a_metaimage_refuses_a_figure_that_contradicts_its_spacing(tmp_path: Path) -> None:
    path = _metaimage(tmp_path, "0.2 0.304")
    with pytest.raises(ScaleError, match=r"by MetaImage ElementSpacing of sweep\.mha and .* by command line"):
        open_source(path, ScaleWish(stated=SCALE))
    with pytest.raises(ScaleError, match="leave --depth-mm out"):
        open_source(path, ScaleWish(depth_mm=100))
    with pytest.raises(ScaleError, match="--scale-csv names pictures"):
        open_source(path, ScaleWish(table=path))


@pytest.mark.parametrize(("period_px", "agrees"), [(25, True), (29, False)])
def test_a_ruler_on_a_metaimage_must_not_contradict_its_spacing(tmp_path: Path, period_px: int, agrees: bool) -> None:  # noqa: FBT001 - parametrised
    picture = np.zeros((300, 200), np.uint8)
    for row in range(10, 290, period_px):
        picture[row : row + 2, 180:186] = 220
    fields = "NDims = 2\nElementSpacing = 0.2 0.2\nDimSize = 200 300\nElementType = MET_UCHAR\n"
    (tmp_path / "screen.mha").write_bytes(f"{fields}ElementDataFile = LOCAL\n".encode() + picture.tobytes())
    (frame,) = open_source(tmp_path / "screen.mha").frames()
    told = frame.scale.origin if isinstance(frame.scale, Scale) else frame.scale.reason
    assert bool(frame.scale) == agrees
    assert ("ruler down the picture" in told) == (not agrees)
    assert "MetaImage ElementSpacing of screen.mha" in told


def test_a_metaimage_without_spacing_takes_the_figure(tmp_path: Path) -> None:
    assert _scales(_metaimage(tmp_path, "1 1"), scale=SCALE) == {"sweep.mha": 0.2}
    assert _scales(_metaimage(tmp_path, "1 1")) == {"sweep.mha": None}


def _metaimage(folder: Path, spacing: str) -> Path:
    path = folder / "sweep.mha"
    header = f"NDims = 2\nElementSpacing = {spacing}\nDimSize = 8 6\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    path.write_bytes(header.encode() + bytes(48))
    return path
