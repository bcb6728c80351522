"""Pictures are read whole, or refused with what to do."""

from __future__ import annotations

import struct
import zlib
from types import SimpleNamespace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal_devices.errors import EdgeFetalError, SourceError
from edgefetal_runtime.sources import picture
from edgefetal_runtime.sources.picture import read_grey

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

PNG_START = b"\x89PNG\r\n\x1a\n"
HEIGHT, WIDTH = 60, 80


def _speckle() -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 2.0), np.uint8)


def _encoded(suffix: str, pixels: npt.NDArray[np.generic]) -> bytes:
    done, content = cv2.imencode(suffix, pixels)
    assert done
    return content.tobytes()


GREY = _speckle()
PNG, JPEG = _encoded(".png", GREY), _encoded(".jpg", GREY)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG by the letter of ISO/IEC 15948, for the kinds that OpenCV does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return PNG_START + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _read(folder: Path, name: str, content: bytes) -> npt.NDArray[np.uint8]:
    path = folder / name
    path.write_bytes(content)
    return read_grey(path)


def test_a_grey_png_is_read_bit_for_bit(tmp_path: Path) -> None:
    pixels = _read(tmp_path, "a.png", PNG)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, GREY)


def test_a_grey_jpeg_is_read_with_its_size_and_grey_levels(tmp_path: Path) -> None:
    pixels = _read(tmp_path, "a.jpg", JPEG)
    assert pixels.shape == GREY.shape
    assert np.abs(pixels.astype(int) - GREY).max() <= 12


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    np.testing.assert_array_equal(_read(tmp_path, "a.jpg", PNG), GREY)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_colour_picture_of_grey_stays_as_it_was(tmp_path: Path, suffix: str) -> None:
    pixels = _read(tmp_path, f"a{suffix}", _encoded(suffix, cv2.cvtColor(GREY, cv2.COLOR_GRAY2BGR)))
    assert pixels.shape == GREY.shape
    assert np.abs(pixels.astype(int) - GREY).max() <= (0 if suffix == ".png" else 12)


@pytest.mark.parametrize("alpha", [None, 0, 255])
def test_colour_becomes_the_luma_of_bt_601_whatever_the_opacity(tmp_path: Path, alpha: int | None) -> None:
    blue, green, red = 10, 200, 50
    coloured = np.full(
        (20, 30, 3 if alpha is None else 4), (blue, green, red, alpha)[: 3 if alpha is None else 4], np.uint8
    )
    pixels = _read(tmp_path, "a.png", _encoded(".png", coloured))
    assert pixels.shape == (20, 30)
    assert np.abs(pixels - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 1


def test_grey_with_an_opacity_is_grey(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + bytes((level, 255)) * 20 for level in range(20))
    np.testing.assert_array_equal(
        _read(tmp_path, "a.png", _png(20, 20, 8, 4, rows)),
        np.repeat(np.arange(20, dtype=np.uint8)[:, None], 20, axis=1),
    )


def test_black_and_white_of_one_bit_is_0_and_255(tmp_path: Path) -> None:
    pixels = _read(tmp_path, "a.png", _png(16, 16, 1, 0, b"\0\xf0\x0f" * 16))
    assert pixels[0].tolist() == [255] * 4 + [0] * 8 + [255] * 4


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    content = _encoded(".png", GREY.astype(np.uint16) * 257)
    with pytest.raises(SourceError, match=r"a\.png has 16 bits a pixel; export it with 8 bits"):
        _read(tmp_path, "a.png", content)


@pytest.mark.parametrize(("name", "whole", "start"), [("a.png", PNG, 8), ("a.jpg", JPEG, 3)], ids=["png", "jpeg"])
def test_a_cut_picture_is_refused_at_every_length(tmp_path: Path, name: str, whole: bytes, start: int) -> None:
    for length in range(start, len(whole)):
        with pytest.raises(SourceError, match=rf"{name} is cut short or damaged; copy the picture again"):
            _read(tmp_path, name, whole[:length])
    for length in range(1, start):
        with pytest.raises(SourceError, match="neither a PNG nor a JPEG"):
            _read(tmp_path, name, whole[:length])


@pytest.mark.parametrize(("name", "whole"), [("a.png", PNG), ("a.jpg", JPEG)], ids=["png", "jpeg"])
def test_a_cut_picture_is_refused_even_where_opencv_fills_in_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, whole: bytes
) -> None:
    # Some of its versions decode as much as there is.
    monkeypatch.setattr(picture, "cv2", SimpleNamespace(imdecode=lambda *_: GREY, IMREAD_UNCHANGED=-1))
    assert _read(tmp_path, name, whole) is GREY
    for length in (len(whole) // 2, len(whole) - 1):
        with pytest.raises(SourceError, match="cut short or damaged"):
            _read(tmp_path, name, whole[:length])


@pytest.mark.parametrize("scan_bytes", [1, 50, 300])
def test_the_end_of_a_thumbnail_does_not_pass_for_the_end_of_the_picture(tmp_path: Path, scan_bytes: int) -> None:
    thumbnail = b"Exif\0\0" + _encoded(".jpg", GREY[:16, :16])
    whole = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + JPEG[2:]
    assert _read(tmp_path, "whole.jpg", whole).shape == GREY.shape
    scan = whole.rfind(b"\xff\xda") + 10
    with pytest.raises(SourceError, match="cut short or damaged"):
        _read(tmp_path, "a.jpg", whole[: scan + scan_bytes])


def test_a_jpeg_with_padding_after_its_end_is_whole(tmp_path: Path) -> None:
    np.testing.assert_array_equal(_read(tmp_path, "a.jpg", JPEG + bytes(16)), _read(tmp_path, "b.jpg", JPEG))


@pytest.mark.parametrize("place", [41, len(PNG) // 3, len(PNG) // 2, len(PNG) - 18])
def test_a_png_with_a_wrong_byte_in_the_middle_is_refused(tmp_path: Path, place: int) -> None:
    damaged = bytearray(PNG)
    damaged[place] ^= 0x55
    with pytest.raises(SourceError, match="cut short or damaged; copy the picture again"):
        _read(tmp_path, "a.png", bytes(damaged))


@pytest.mark.parametrize("whole", [PNG, JPEG], ids=["png", "jpeg"])
def test_damage_anywhere_is_a_user_error_or_a_picture(tmp_path: Path, whole: bytes) -> None:
    rng = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        try:
            pixels = _read(tmp_path, "a", bytes(damaged))
        except EdgeFetalError:
            continue
        assert (pixels.ndim, pixels.dtype) == (2, np.uint8)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_header_that_claims_a_gigantic_picture_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == "png":
        content = _png(60_000, 60_000, 8, 0, bytes(100))
    else:
        start = JPEG.index(b"\xff\xc0") + 5
        content = JPEG[:start] + struct.pack(">HH", 65_500, 65_500) + JPEG[start + 4 :]
    with pytest.raises(SourceError):
        _read(tmp_path, "a.png", content)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a\.png is empty \(0 bytes\); copy the picture again"):
        _read(tmp_path, "a.png", b"")


@pytest.mark.parametrize("content", [b"HC is 175 mm\n", b"GIF89a" + bytes(50), b"BM" + bytes(60), PNG[1:], b"\xff\xd8"])
def test_a_file_that_is_no_picture_is_refused_whatever_its_name(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SourceError, match=r"a\.png is neither a PNG nor a JPEG picture; convert it"):
        _read(tmp_path, "a.png", content)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a\.png does not exist; give the path"):
        read_grey(tmp_path / "a.png")


def test_a_folder_named_like_a_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(SourceError, match=r"a\.png cannot be read \(Is a directory\); check the path"):
        read_grey(tmp_path / "a.png")
