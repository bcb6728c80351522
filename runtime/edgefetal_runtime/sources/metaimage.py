"""MetaImage files (.mha, and .mhd with its pixels beside it), read frame by frame.

The header's layout is that of ITK's MetaIO (https://itk.org/Wiki/MetaIO/Documentation). Only what an ultrasound cine
needs is read: 8-bit grey or RGB pixels in two or three dimensions. Fields that name a patient are never looked at.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import cv2
import numpy as np

from edgefetal_devices.errors import SourceError
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.scale import NoScale, Scale
from edgefetal_runtime.sources.limits import DEFAULT_FRAMES_PER_S, MAX_FRAME_PIXELS, MAX_FRAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

METAIMAGE_SUFFIXES = (".mha", ".mhd")
# No header is longer, and a file that is none must not be read to its end in search of one.
_MAX_HEADER_BYTES = 65_536
_MAX_FRAMES_PER_S = 1000.0
_CHUNK_BYTES = 65_536
_GREY, _RGB = 1, 3
_PLANE, _STACK = 2, 3
_LAST_KEY = "ElementDataFile"


@dataclass(frozen=True)
class _Layout:
    """Where the pixels lie and how many there are.

    Args:
        data_path: the file that holds them.
        start_byte: where they begin in it; None where they are its last bytes.
        width_px: columns of a frame.
        height_px: rows of a frame.
        frame_count: number of frames.
        channels: 1 for grey, 3 for RGB.
        compressed_bytes: length of the compressed pixels, 0 where the header does not say; None where not compressed.
    """

    data_path: Path
    start_byte: int | None
    width_px: int
    height_px: int
    frame_count: int
    channels: int
    compressed_bytes: int | None

    @property
    def frame_bytes(self) -> int:
        """Return the bytes of one frame."""
        return self.width_px * self.height_px * self.channels


def _refuse(path: Path, what: str, remedy: str) -> SourceError:
    return SourceError(f"{path} {what}; {remedy}.")


def read_header(path: Path) -> tuple[dict[str, str], int]:
    """Read the header's `Key = Value` lines; the second figure is where it ends.

    Raises:
        SourceError: the file cannot be read or does not begin with such a header.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(_MAX_HEADER_BYTES)
    except OSError as error:
        raise _refuse(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from error
    fields: dict[str, str] = {}
    place = 0
    while _LAST_KEY not in fields:
        end = start.find(b"\n", place)
        key, equals, value = start[place : None if end < 0 else end].decode("latin-1").partition("=")
        if not equals or (end < 0 and key.strip() != _LAST_KEY):
            raise _refuse(path, f"has no MetaImage header that ends with {_LAST_KEY}", "export the picture again")
        if key.strip() in fields:
            raise _refuse(path, f"states {key.strip()[:40]!r} twice", "export the picture again")
        fields[key.strip()] = value.strip()
        place = len(start) if end < 0 else end + 1
    return fields, place


def _integers(fields: Mapping[str, str], key: str, default: str, path: Path) -> list[int]:
    text = fields.get(key, default)
    # `int` takes signs, underscores and the digits of every script; a header has none of them, but for HeaderSize = -1.
    if not re.fullmatch(r"-?[0-9]{1,15}( +-?[0-9]{1,15})*", text):
        raise _refuse(path, f"states {key} = {text[:40]!r}, which is no whole number", "export the picture again")
    return [int(part) for part in text.split()]


def _flag(fields: Mapping[str, str], key: str, *, default: bool) -> bool:
    return fields.get(key, str(default)).lower() in {"true", "t", "1"}


def _data_place(fields: Mapping[str, str], header_end: int, path: Path) -> tuple[Path, int | None]:
    """Say which file holds the pixels and where they begin in it."""
    name = fields[_LAST_KEY]
    if name.upper() == "LOCAL":
        return path, header_end
    if name.upper().startswith("LIST") or "%" in name:
        raise _refuse(path, "keeps its frames in several files", "write them into one .mha file")
    # A header must not reach for files elsewhere: neither by path nor through a link.
    data_path = path.parent / name
    plain = name not in {"", ".", ".."} and not re.search(r"[/\\\0:]", name)
    if not plain or data_path.is_symlink():
        raise _refuse(path, f"names {name[:80]!r} as its pixels", "put them in the same folder under a plain name")
    (skip,) = _integers(fields, "HeaderSize", "0", path)[:1]
    if skip < -1:
        raise _refuse(path, f"states HeaderSize = {skip}", "export the picture again")
    return data_path, None if skip == -1 else skip


def _layout(fields: Mapping[str, str], header_end: int, path: Path) -> _Layout:
    """Check what the header says of the pixels."""
    if fields.get("ObjectType", "Image").lower() != "image":
        raise _refuse(path, f"is a MetaIO {fields['ObjectType'][:40]!r} and no image", "give the image")
    (dimensions,) = _integers(fields, "NDims", "", path)[:1]
    size = _integers(fields, "DimSize", "", path)
    if dimensions not in {_PLANE, _STACK} or len(size) != dimensions:
        raise _refuse(path, f"has {dimensions} dimensions of sizes {size[:4]}", "give a picture or one stack of them")
    width_px, height_px, frame_count = (*size, 1)[:_STACK]
    if min(size) < 1 or width_px * height_px > MAX_FRAME_PIXELS or frame_count > MAX_FRAMES:
        raise _refuse(path, f"states frames of {size}, which no machine makes", "export the picture again")
    kind = fields.get("ElementType", "")
    if kind != "MET_UCHAR":
        what = f"has pixels of type {kind[:40] or 'unknown'}, and only 8 bits without a sign (MET_UCHAR) are read"
        raise _refuse(path, what, "convert it with the grey levels that the machine shows, 0 to 255, not cut to 8 bits")
    (channels,) = _integers(fields, "ElementNumberOfChannels", "1", path)[:1]
    if channels not in {_GREY, _RGB}:
        raise _refuse(path, f"has {channels} channels a pixel", "export it as grey or RGB")
    if not _flag(fields, "BinaryData", default=True):
        raise _refuse(path, "holds its pixels as text", "write it with BinaryData = True")
    data_path, start_byte = _data_place(fields, header_end, path)
    compressed = None
    if _flag(fields, "CompressedData", default=False):
        (compressed,) = _integers(fields, "CompressedDataSize", "0", path)[:1]
        if compressed < 0 or start_byte is None:
            raise _refuse(path, "does not say where its compressed pixels lie", "export the picture again")
    return _Layout(data_path, start_byte, width_px, height_px, frame_count, channels, compressed)


def _scale(fields: Mapping[str, str], path: Path) -> Scale | NoScale:
    """Return the in-plane spacing as a scale; 1 by 1 is what MetaIO writes where nobody set any.

    Raises:
        SourceError: the spacing is not numbers, or fewer than two.
        ScaleError: it cannot be a pixel size in mm.
    """
    text = fields.get("ElementSpacing", "1 1")
    what = f"states ElementSpacing = {text[:40]!r}"
    try:
        numbers = [float(part) for part in text.split()[:2]]
    except ValueError:
        raise _refuse(path, f"{what}, which is not numbers", "write the pixel size in mm") from None
    if len(numbers) < 2:  # noqa: PLR2004 - width and height
        few = f"{what}, and at least two numbers are needed"
        raise _refuse(path, few, "write width and height of a pixel in mm, as in '0.12 0.12'")
    x_mm, y_mm = numbers
    if x_mm == y_mm == 1:
        return NoScale(
            f"{path.name} states no pixel size (its ElementSpacing is missing or 1, which is what unset looks like); "
            "give --mm-per-px to have millimetres"
        )
    return Scale(x_mm, y_mm, origin=f"MetaImage ElementSpacing of {path.name}")


def _frames_per_s(fields: Mapping[str, str]) -> float:
    try:
        rate = float(fields.get("AcquisitionFrameRate", ""))
    except ValueError:
        return DEFAULT_FRAMES_PER_S
    return rate if math.isfinite(rate) and 0 < rate <= _MAX_FRAMES_PER_S else DEFAULT_FRAMES_PER_S


@dataclass(frozen=True)
class MetaImageSource:
    """A MetaImage file: one sweep, its frames along the third dimension.

    A volume is read the same way, as slices along its third dimension. Nothing in the format tells a volume from a
    cine (the spacings of a volume may be equal, and those of a cine too), and the spacing within a slice is right for
    both; only the times mean nothing for a volume.

    Args:
        path: the file with the header.
        scale: pixel size that the header states, or why there is none.
        frames_per_s: `AcquisitionFrameRate` of the header, else 30.
        layout: where the pixels lie.
    """

    path: Path
    scale: Scale | NoScale
    frames_per_s: float
    layout: _Layout
    kind: str = "metaimage"

    @property
    def frame_count(self) -> int:
        """Return the number of frames."""
        return self.layout.frame_count

    def frames(self) -> Iterator[Frame]:
        """Read the frames one by one, with the memory of one.

        Raises:
            SourceError: the pixels are cut short or damaged.
        """
        layout = self.layout
        try:
            with layout.data_path.open("rb") as stream:
                whole = layout.frame_bytes * layout.frame_count
                start = stream.seek(0, 2) - whole if layout.start_byte is None else layout.start_byte
                stream.seek(max(start, 0))
                contents = _plain(stream, layout) if layout.compressed_bytes is None else _inflated(stream, layout)
                index = 0
                for index, content in enumerate(contents, start=1):
                    yield self._frame(content, index - 1)
                if index < layout.frame_count:
                    what = f"breaks off after {index} of {layout.frame_count} frames"
                    raise _refuse(layout.data_path, what, "copy it again")
        except OSError as error:
            what = f"cannot be read ({error.strerror})"
            raise _refuse(layout.data_path, what, "keep it beside its header") from error
        except zlib.error as error:
            raise _refuse(layout.data_path, f"is damaged ({error})", "copy it again") from error

    def _frame(self, content: bytes, index: int) -> Frame:
        layout = self.layout
        pixels: npt.NDArray[np.uint8] = np.frombuffer(content, np.uint8).reshape(layout.height_px, layout.width_px, -1)
        grey = pixels[:, :, 0] if layout.channels == _GREY else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        return Frame(np.asarray(grey, np.uint8), self.path.name, index, index / self.frames_per_s, self.scale)


def _plain(stream: BinaryIO, layout: _Layout) -> Iterator[bytes]:
    """Yield the whole frames of an uncompressed file."""
    for _ in range(layout.frame_count):
        content = stream.read(layout.frame_bytes)
        if len(content) < layout.frame_bytes:
            return
        yield content


def _inflated(stream: BinaryIO, layout: _Layout) -> Iterator[bytes]:
    """Yield the whole frames of a compressed file, inflating one at a time, so that a bomb has no room to go off."""
    inflate = zlib.decompressobj(wbits=47)  # zlib or gzip, by its first bytes
    left = layout.compressed_bytes or None
    waiting = b""
    for _ in range(layout.frame_count):
        content = bytearray()
        while len(content) < layout.frame_bytes and not inflate.eof:
            if not waiting:
                waiting = stream.read(_CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES))
                left = None if left is None else left - len(waiting)
            part = inflate.decompress(waiting, layout.frame_bytes - len(content))
            if not waiting and not part:
                return
            content += part
            waiting = inflate.unconsumed_tail
        if len(content) < layout.frame_bytes:
            return
        yield bytes(content)


def open_metaimage(path: Path) -> MetaImageSource:
    """Read a MetaImage's header.

    Raises:
        SourceError: the file is no MetaImage, is of a kind that is not read, or is shorter than it says.
        ScaleError: its spacing cannot be a pixel size in mm.
    """
    fields, header_end = read_header(path)
    layout = _layout(fields, header_end, path)
    if layout.compressed_bytes is None:
        try:
            held = layout.data_path.stat().st_size - (layout.start_byte or 0)
        except (OSError, ValueError):
            raise _refuse(path, f"names {layout.data_path.name!r}, which is not there", "copy both files") from None
        announced = layout.frame_bytes * layout.frame_count
        if held < announced:
            raise _refuse(layout.data_path, f"is cut short ({held} of {announced} bytes)", "copy it again")
    return MetaImageSource(path, _scale(fields, path), _frames_per_s(fields), layout)
