"""Every file that is written is read back by the project's readers, and is whole or not there."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.phantom import writers
from edgefetal_calibration.phantom.cine import Cine
from edgefetal_calibration.phantom.writers import (
    ACOUSLIC_IMAGES,
    ACOUSLIC_MASKS,
    ACOUSLIC_TABLE,
    HeadPicture,
    SweepCircumferences,
    write_acouslic_exam,
    write_acouslic_table,
    write_dicom,
    write_hc18,
    write_mha,
    write_video,
)
from edgefetal_devices.errors import InputError, OutputError
from edgefetal_runtime.atomic import new_folder
from edgefetal_runtime.biometry.ellipse import Ellipse
from edgefetal_runtime.scale import Scale
from edgefetal_runtime.sources.dicom import open_dicom
from edgefetal_runtime.sources.metaimage import open_metaimage
from edgefetal_runtime.sources.source import open_source
from edgefetal_runtime.sources.video import VideoSource

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edgefetal_runtime.frame import Frame


@pytest.fixture(scope="module")
def sweep() -> Cine:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (12, 30, 40), dtype=np.uint8)
    smooth = np.stack([cv2.resize(frame, (86, 62), interpolation=cv2.INTER_CUBIC) for frame in noise])
    return Cine(smooth, 12.5, 0.31, 0.29)


def pixels(frames: Iterable[Frame]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.stack([frame.pixels for frame in frames])


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if "partial" in path.name]


@pytest.mark.parametrize("compressed", [True, False])
def test_mha_comes_back_with_scale_and_rate(sweep: Cine, tmp_path: Path, *, compressed: bool) -> None:
    path = tmp_path / "new" / "sweep.mha"
    write_mha(sweep, path, compressed=compressed)
    source = open_metaimage(path)
    assert (pixels(source.frames()) == sweep.frames).all()
    assert isinstance(source.scale, Scale)
    assert (source.scale.x_mm_per_px, source.scale.y_mm_per_px) == (0.31, 0.29)
    assert source.frames_per_s == 12.5
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("compressed", [True, False])
def test_mha_is_read_by_simpleitk_too(sweep: Cine, tmp_path: Path, *, compressed: bool) -> None:
    sitk = pytest.importorskip("SimpleITK")
    write_mha(sweep, tmp_path / "sweep.mha", compressed=compressed)
    image = sitk.ReadImage(str(tmp_path / "sweep.mha"))
    assert (sitk.GetArrayFromImage(image) == sweep.frames).all()
    assert image.GetSpacing() == (0.31, 0.29, 1.0)


def test_avi_comes_back_bit_for_bit(sweep: Cine, tmp_path: Path) -> None:
    write_video(sweep, tmp_path / "sweep.avi")
    assert (pixels(VideoSource(tmp_path / "sweep.avi").frames()) == sweep.frames).all()
    assert left_behind(tmp_path) == []


def test_mp4_comes_back_nearly(sweep: Cine, tmp_path: Path) -> None:
    even = Cine(np.ascontiguousarray(sweep.frames[:, :60]), 12.5, 0.3, 0.3)
    write_video(even, tmp_path / "sweep.mp4")
    frames = list(VideoSource(tmp_path / "sweep.mp4").frames())
    assert len(frames) == 12
    assert frames[5].timestamp_s == pytest.approx(0.4)
    assert np.abs(pixels(frames).astype(float) - even.frames).mean() < 15


def test_dicom_comes_back_with_its_region(sweep: Cine, tmp_path: Path) -> None:
    path = tmp_path / "sweep.dcm"
    write_dicom(sweep, path, name="phantom-1", region_px=(10, 5, 80, 60))
    source = open_dicom(path)
    frames = list(source.frames())
    assert (pixels(frames) == sweep.frames[:, 5:60, 10:80]).all()
    assert frames[0].origin_px == (10, 5)
    assert frames[5].timestamp_s == pytest.approx(0.4)
    scale = source.regions[0].scale
    assert isinstance(scale, Scale)
    assert (scale.x_mm_per_px, scale.y_mm_per_px) == pytest.approx((0.31, 0.29))


def test_dicom_is_read_by_pydicom_and_has_the_same_bytes_again(sweep: Cine, tmp_path: Path) -> None:
    import pydicom

    odd = Cine(np.ascontiguousarray(sweep.frames[:3, :61, :81]), 12.5, 0.3, 0.3)
    write_dicom(odd, tmp_path / "a.dcm", name="phantom-1")
    write_dicom(odd, tmp_path / "b.dcm", name="phantom-1")
    write_dicom(odd, tmp_path / "c.dcm", name="phantom-2")
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    data, other = (pydicom.dcmread(tmp_path / name) for name in ("a.dcm", "c.dcm"))
    assert (data.pixel_array == odd.frames).all()
    assert data.SOPClassUID.name == "Ultrasound Multi-frame Image Storage"
    assert data.SOPInstanceUID != other.SOPInstanceUID
    assert data.SequenceOfUltrasoundRegions[0].PhysicalDeltaX == 0.03


def test_acouslic_layout(sweep: Cine, tmp_path: Path) -> None:
    masks = np.zeros_like(sweep.frames)
    masks[3, 10:30, 10:40], masks[4, 10:30, 10:40] = 2, 1
    write_acouslic_exam(tmp_path, "0001-uuid", sweep.frames, masks)
    rows = [SweepCircumferences("0001-uuid", "s-1", (None, 231.45678, None, None, 228.0, None))]
    write_acouslic_table(tmp_path, rows)
    for folder, stack in ((ACOUSLIC_IMAGES, sweep.frames), (ACOUSLIC_MASKS, masks)):
        source = open_metaimage(tmp_path / folder / "0001-uuid.mha")
        assert (pixels(source.frames()) == stack).all()
        assert isinstance(source.scale, Scale)
        assert source.scale.x_mm_per_px == 0.2800000011920929
    with (tmp_path / ACOUSLIC_TABLE).open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert list(table[0]) == ["uuid", "subject_id", *(f"sweep_{k}_ac_mm" for k in range(1, 7))]
    assert table[0]["sweep_1_ac_mm"] == ""
    assert table[0]["sweep_2_ac_mm"] == "231.4568"
    assert left_behind(tmp_path) == []


def test_acouslic_spacing_is_that_of_the_real_stacks(sweep: Cine, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    write_acouslic_exam(tmp_path, "u", sweep.frames, np.zeros_like(sweep.frames))
    image = sitk.ReadImage(str(tmp_path / ACOUSLIC_IMAGES / "u.mha"))
    assert image.GetSpacing() == (0.2800000011920929,) * 3
    assert image.GetPixelIDTypeAsString() == "8-bit unsigned integer"


def test_an_exam_that_is_not_six_sweeps_is_refused(sweep: Cine, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sweeps"):
        write_acouslic_exam(tmp_path, "u", sweep.frames[:5], sweep.frames[:5])
    with pytest.raises(InputError, match="sweeps"):
        write_acouslic_exam(tmp_path, "u", sweep.frames, sweep.frames[:6])
    with pytest.raises(InputError, match="fit"):
        write_acouslic_exam(tmp_path, "u", sweep.frames, sweep.frames[:, :-1])
    with pytest.raises(InputError, match="6 sweeps"):
        SweepCircumferences("u", "s", (1.0,))
    assert list(tmp_path.iterdir()) == []


def test_hc18_layout_has_hc18s_masks(tmp_path: Path) -> None:
    outline = Ellipse(130.0, 95.0, 80.0, 62.0, 0.4)
    picture = np.full((190, 260), 70, np.uint8)
    heads = [HeadPicture(f"{number:03d}_HC.png", picture + number, outline, 0.25) for number in range(3)]
    write_hc18(tmp_path / "set", heads)
    cases = read_hc18(tmp_path / "set")
    assert [case.name for case in cases] == ["000_HC.png", "001_HC.png", "002_HC.png"]
    assert cases[1].hc_mm == pytest.approx(outline.circumference() * 0.25, abs=0.01)
    found = cases[1].head_px()
    assert found.circumference() == pytest.approx(outline.circumference(), abs=0.5)
    assert (cases[2].frame().pixels == picture + 2).all()
    folder = open_source(tmp_path / "set" / "training_set")
    assert [frame.scale for frame in folder.frames()] != []


def test_what_exists_is_not_written_over(sweep: Cine, tmp_path: Path) -> None:
    for name, write in (("a.mha", write_mha), ("a.avi", write_video)):
        (tmp_path / name).write_bytes(b"mine")
        with pytest.raises(OutputError, match="exists"):
            write(sweep, tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"mine"
    with pytest.raises(OutputError, match="exists"):
        write_dicom(sweep, tmp_path / "a.mha", name="x")
    with pytest.raises(OutputError, match="ends in"):
        write_video(sweep, tmp_path / "a.wmv")
    with pytest.raises(InputError, match="even"):
        write_video(Cine(np.ascontiguousarray(sweep.frames[:, 1:]), 12.5, 0.3, 0.3), tmp_path / "b.avi")


def test_a_break_half_way_leaves_nothing(sweep: Cine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(list[Any]):
        def __iter__(self) -> Any:
            yield sweep.frames[0]
            raise KeyboardInterrupt

    frames = Broken(sweep.frames)
    with pytest.raises(KeyboardInterrupt):
        write_acouslic_exam(tmp_path, "u", frames, sweep.frames)
    assert not (tmp_path / ACOUSLIC_IMAGES / "u.mha").exists()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writers, "write_file", full)
    with pytest.raises(OSError, match="space"):
        write_hc18(tmp_path / "set", [HeadPicture("000_HC.png", sweep.frames[0], Ellipse(40, 30, 20, 15, 0), 0.3)])
    assert not (tmp_path / "set").exists()
    assert left_behind(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_a_users_error(sweep: Cine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        write_mha(sweep, tmp_path / "file" / "a.mha")
    with pytest.raises(OutputError):
        write_dicom(sweep, tmp_path / "file" / "a.dcm", name="x")
    with pytest.raises(OutputError), new_folder(tmp_path / "file" / "set"):
        pass
    with pytest.raises(OutputError, match="exists"), new_folder(tmp_path / "file"):
        pass
