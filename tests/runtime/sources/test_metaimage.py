"""MetaImage files are read as SimpleITK reads them, frame by frame; from files that are none come user errors only."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - what everybody calls it
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_devices.errors import EdgeFetalError, ScaleError, SourceError
from edgefetal_runtime.scale import NoScale, Scale
from edgefetal_runtime.sources.metaimage import open_metaimage

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

RNG = np.random.default_rng(0)
PLANE = RNG.integers(0, 256, (24, 31), dtype=np.uint8)
STACK = RNG.integers(0, 256, (5, 24, 31), dtype=np.uint8)
FIELDS = {
    "ObjectType": "Image",
    "NDims": "3",
    "ElementSpacing": "0.2 0.3 1",
    "DimSize": "31 24 5",
    "ElementType": "MET_UCHAR",
    "ElementDataFile": "LOCAL",
}


def _mha(pixels: bytes = STACK.tobytes(), **changes: str | None) -> bytes:
    """A header by the letter, with fields changed or (None) left out, and its pixels."""
    fields = {key: value for key, value in (FIELDS | changes).items() if value is not None}
    last = fields.pop("ElementDataFile", None)
    lines = [f"{key} = {value}\n" for key, value in fields.items()]
    return "".join([*lines, *([] if last is None else [f"ElementDataFile = {last}\n"])]).encode("latin-1") + pixels


def _write(folder: Path, content: bytes, name: str = "sweep.mha") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _pixels(path: Path) -> npt.NDArray[np.uint8]:
    return np.stack([frame.pixels for frame in open_metaimage(path).frames()])


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["sweep.mha", "sweep.mhd"])
@pytest.mark.parametrize("pixels", [PLANE, STACK], ids=["2-D", "3-D"])
def test_files_of_simpleitk_are_read_bit_for_bit(
    tmp_path: Path,
    pixels: npt.NDArray[np.uint8],
    name: str,
    compressed: bool,  # noqa: FBT001 - parametrised
) -> None:
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing((0.2, 0.3, 1.0)[: pixels.ndim])
    sitk.WriteImage(image, str(tmp_path / name), useCompression=compressed)
    source = open_metaimage(tmp_path / name)
    frames = list(source.frames())
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name))).reshape(-1, 24, 31)
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]), expected)
    assert (source.kind, source.frame_count) == ("metaimage", len(expected))
    assert [(f.sweep, f.index, f.origin_px) for f in frames] == [(name, i, (0, 0)) for i in range(len(expected))]
    assert frames[0].scale == Scale(0.2, 0.3, origin=f"MetaImage ElementSpacing of {name}")


def test_colour_becomes_the_luma_of_bt_601(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.full((4, 6, 3), (50, 200, 10), np.uint8), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    assert np.abs(_pixels(tmp_path / "a.mha") - (0.299 * 50 + 0.587 * 200 + 0.114 * 10)).max() <= 1


@pytest.mark.parametrize("spacing", [None, "1 1 1", "1 1", "1.0 1.0 0.5"])
def test_spacing_that_nobody_set_is_no_scale(tmp_path: Path, spacing: str | None) -> None:
    scale = open_metaimage(_write(tmp_path, _mha(ElementSpacing=spacing))).scale
    assert isinstance(scale, NoScale)
    assert "sweep.mha states no pixel size" in scale.reason
    assert "--mm-per-px" in scale.reason


@pytest.mark.parametrize("spacing", ["0 0.2 1", "nan 0.2 1", "-0.2 0.2 1", "0.2 inf 1", "200 200 1", "1e-9 0.1 1"])
def test_spacing_that_is_no_pixel_size_is_refused(tmp_path: Path, spacing: str) -> None:
    with pytest.raises(ScaleError, match=r"MetaImage ElementSpacing of sweep\.mha"):
        open_metaimage(_write(tmp_path, _mha(ElementSpacing=spacing)))


def test_times_are_those_of_the_acquisition_or_of_30_frames_a_second(tmp_path: Path) -> None:
    for rate, step_s in (("25", 0.04), (None, 1 / 30), ("none", 1 / 30), ("0", 1 / 30), ("nan", 1 / 30)):
        frames = list(open_metaimage(_write(tmp_path, _mha(AcquisitionFrameRate=rate))).frames())
        assert [f.timestamp_s for f in frames] == pytest.approx([step_s * i for i in range(5)])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ElementType": "MET_USHORT"}, "MET_USHORT, and only 8 bits"),
        ({"ElementType": "MET_FLOAT"}, "MET_FLOAT, and only 8 bits"),
        ({"ElementType": None}, "unknown, and only 8 bits"),
        ({"ObjectType": "Tube"}, "no image"),
        ({"NDims": "4", "DimSize": "31 24 5 2"}, "4 dimensions"),
        ({"NDims": "2"}, "2 dimensions of sizes"),
        ({"NDims": "three"}, "no whole number"),
        ({"DimSize": "31 24 0"}, "no machine makes"),
        ({"DimSize": "31 -24 5"}, "no machine makes"),
        ({"DimSize": "99999 99999 9999"}, "no machine makes"),
        ({"DimSize": "31 24 999999999"}, "no machine makes"),
        ({"DimSize": None}, "no whole number"),
        ({"ElementNumberOfChannels": "4"}, "4 channels"),
        ({"BinaryData": "False"}, "as text"),
        ({"ElementSpacing": "wide"}, "not numbers"),
        ({"ElementSpacing": "0.2 wide"}, "not numbers"),
        ({"ElementSpacing": "0.29119"}, "'0.29119', and at least two numbers are needed; write width and height"),
        ({"ElementSpacing": ""}, "'', and at least two numbers are needed"),
        ({"ElementDataFile": "LIST"}, "several files"),
        ({"ElementDataFile": "frame%03d.raw 1 5 1"}, "several files"),
        ({"ElementDataFile": "/etc/passwd"}, "same folder"),
        ({"ElementDataFile": "../other.raw"}, "same folder"),
        ({"ElementDataFile": ".."}, "same folder"),
        ({"ElementDataFile": "C:other.raw"}, "same folder"),
        ({"ElementDataFile": ""}, "same folder"),
        ({"ElementDataFile": "none.raw"}, "is not there"),
        ({"ElementDataFile": "link.raw"}, "same folder"),
        ({"ElementDataFile": None}, "no MetaImage header"),
        ({"DimSize": "31 24 6"}, "cut short"),
        ({"ElementDataFile": "short.raw", "HeaderSize": "-2"}, "HeaderSize"),
        ({"ElementDataFile": "short.raw", "HeaderSize": "-1", "CompressedData": "True"}, "where its compressed"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_what_to_do(
    tmp_path: Path, changes: dict[str, str | None], says: str
) -> None:
    (tmp_path / "short.raw").write_bytes(bytes(10))
    (tmp_path / "link.raw").symlink_to("/etc/passwd")
    with pytest.raises(SourceError, match=says) as refusal:
        open_metaimage(_write(tmp_path, _mha(**changes)))
    assert "; " in str(refusal.value)


def test_a_field_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="'DimSize' twice"):
        open_metaimage(_write(tmp_path, b"DimSize = 1 1 1\n" + _mha()))


def test_pixels_beside_the_header_may_begin_later_or_be_the_last_bytes(tmp_path: Path) -> None:
    for skip, before in (("7", bytes(7)), ("-1", bytes(13)), (None, b"")):
        (tmp_path / "pixels.raw").write_bytes(before + STACK.tobytes())
        np.testing.assert_array_equal(
            _pixels(_write(tmp_path, _mha(b"", ElementDataFile="pixels.raw", HeaderSize=skip), "a.mhd")), STACK
        )


def test_a_compressed_file_needs_the_memory_of_one_frame_and_stops_at_its_size(tmp_path: Path) -> None:
    bomb = zlib.compress(STACK.tobytes() + bytes(300_000_000))
    assert len(bomb) < 400_000
    np.testing.assert_array_equal(_pixels(_write(tmp_path, _mha(bomb, CompressedData="True"))), STACK)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("size_stated", [False, True])
def test_a_cut_compressed_file_is_refused_and_says_where(
    tmp_path: Path,
    share: float,
    size_stated: bool,  # noqa: FBT001 - parametrised
) -> None:
    packed = zlib.compress(STACK.tobytes())
    changes = {"CompressedData": "True"} | ({"CompressedDataSize": str(len(packed))} if size_stated else {})
    source = open_metaimage(_write(tmp_path, _mha(packed[: int(share * len(packed))], **changes)))
    with pytest.raises(SourceError, match=r"breaks off after \d of 5 frames; copy it again"):
        list(source.frames())


def test_a_file_that_shrinks_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, _mha())
    source = open_metaimage(path)
    path.write_bytes(_mha()[:-40])
    with pytest.raises(SourceError, match="breaks off after 4 of 5"):
        list(source.frames())


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" * 9, b"a" * 200_000, b"NDims = 2\n", b"\n" * 99])
def test_a_file_that_is_no_metaimage_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SourceError, match="no MetaImage header"):
        open_metaimage(_write(tmp_path, content))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        open_metaimage(tmp_path / "none.mha")


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_anywhere_is_a_user_error_or_frames(tmp_path: Path, compressed: bool) -> None:  # noqa: FBT001
    whole = _mha(zlib.compress(STACK.tobytes()), CompressedData="True") if compressed else _mha()
    rng = np.random.default_rng(1)
    for _ in range(500):
        damaged = bytearray(whole[: rng.integers(1, len(whole)) if rng.random() < 0.3 else len(whole)])
        for place in rng.integers(0, min(len(damaged), 400), rng.integers(1, 8)):
            damaged[place] = rng.integers(256)
        try:
            frames = list(open_metaimage(_write(tmp_path, bytes(damaged))).frames())
        except EdgeFetalError:
            continue
        assert all((f.pixels.ndim, f.pixels.dtype) == (2, np.uint8) for f in frames)


@pytest.fixture(scope="module")
def random_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metaimage") / "random.mha"


_VALUES = st.text(max_size=6) | st.sampled_from(["1", "2 2", "3 1 1", "LOCAL", "True", "-1", "1e9", "MET_UCHAR", "nan"])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(changes=st.dictionaries(st.sampled_from([*sorted(FIELDS), "CompressedData", "HeaderSize"]), _VALUES))
def test_any_header_is_a_user_error_or_frames(random_path: Path, changes: dict[str, str]) -> None:
    safe = {key: value.encode("latin-1", "replace").decode("latin-1") for key, value in changes.items()}
    random_path.write_bytes(_mha(**safe))
    try:
        source = open_metaimage(random_path)
        frames = list(source.frames())
    except EdgeFetalError:
        return
    assert len(frames) == source.frame_count


def test_real_files_are_read_as_simpleitk_reads_them(shared_data: Path) -> None:
    paths = [*sorted((shared_data / "pretus").glob("*.mhd")), shared_data / "fetal_head_volume" / "fetal_head_3DUS.mha"]
    assert len(paths) == 5
    for path in paths:
        image = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(_pixels(path), sitk.GetArrayFromImage(image))
        scale = open_metaimage(path).scale
        assert isinstance(scale, Scale)
        assert (scale.x_mm_per_px, scale.y_mm_per_px) == pytest.approx(image.GetSpacing()[:2])


def test_a_mask_in_floating_point_is_refused(shared_data: Path) -> None:
    with pytest.raises(SourceError, match="MET_FLOAT, and only 8 bits"):
        open_metaimage(shared_data / "acouslic" / "fov_mask.mha")


def test_frames_are_read_when_their_turn_comes(tmp_path: Path) -> None:
    source = open_metaimage(_write(tmp_path, _mha(zlib.compress(STACK.tobytes())[:-500], CompressedData="True")))
    assert cv2.norm(next(source.frames()).pixels, STACK[0]) == 0
