"""Raw frames of an exam in one file. They may be dropped at any time, so they are synced only when the exam is saved.

Each frame is a header (magic, index, time, height, width, CRC-32 of what follows) and its pixels. A file cut short by a
kill or a power cut reads up to its last whole frame.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

SUFFIX = ".frames"
_MAGIC = b"efFr"
_HEADER = struct.Struct("<4sqdIII")
# No ultrasound machine's picture is larger; a damaged header must not ask for all memory.
_MAX_SIDE_PX = 16384


@dataclass(frozen=True, eq=False)
class RecordedFrame:
    """A frame as it was recorded.

    Args:
        pixels: shape (H, W), uint8.
        index: position in the source.
        timestamp_s: time in the source.
    """

    pixels: npt.NDArray[np.uint8]
    index: int
    timestamp_s: float


def frame_bytes(frame: RecordedFrame) -> bytes:
    """Write a frame as it stands in the file.

    Raises:
        ValueError: the pixels are not a grey picture.
    """
    if frame.pixels.ndim != 2 or frame.pixels.dtype != np.uint8:  # noqa: PLR2004 - rows and columns
        raise ValueError("a recorded frame is grey: shape (H, W), uint8")
    pixels = np.ascontiguousarray(frame.pixels).tobytes()
    return _HEADER.pack(_MAGIC, frame.index, frame.timestamp_s, *frame.pixels.shape, zlib.crc32(pixels)) + pixels


def read_frames(path: Path) -> Iterator[RecordedFrame]:
    """Yield the frames of a file up to the first that is not whole.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        while len(header := stream.read(_HEADER.size)) == _HEADER.size:
            magic, index, timestamp_s, height, width, crc = _HEADER.unpack(header)
            if magic != _MAGIC or max(height, width) > _MAX_SIDE_PX:
                return
            pixels = stream.read(height * width)
            if len(pixels) != height * width or zlib.crc32(pixels) != crc:
                return
            image = np.frombuffer(pixels, np.uint8).reshape(height, width)
            yield RecordedFrame(image, index, timestamp_s)
