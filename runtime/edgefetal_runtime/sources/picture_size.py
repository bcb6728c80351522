"""Whether the picture size changes within a video file, which OpenCV hides.

OpenCV's FFmpeg reader brings every frame to the size of the first, and none of its properties shows it. What it does
hand out is the compressed packets, and in these most codecs state the size: JPEG in its frame header (ISO/IEC 10918-1,
B.2.2), H.264 and H.265 in their sequence parameter sets, MPEG-4 in its video object layer. Only JPEG is measured; for
the others it is enough that what they state changes, because a recording is made with one setting.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import cv2

if TYPE_CHECKING:
    from pathlib import Path

_JPEG_START = b"\xff\xd8"
_NEXT = rb"(?=\0\0\x01|\0\0\0|\Z)"
_H264 = re.compile(rb"\0\0\x01([\x07\x27\x47\x67].*?)" + _NEXT, re.DOTALL)
_H265 = re.compile(rb"\0\0\x01([\x42\x43].*?)" + _NEXT, re.DOTALL)
_MPEG4 = re.compile(rb"\0\0\x01([\x20-\x2f].*?)" + _NEXT, re.DOTALL)
_STATEMENTS = {
    **dict.fromkeys(("h264", "avc1", "avc3", "x264"), _H264),
    **dict.fromkeys(("hevc", "hvc1", "hev1", "h265"), _H265),
    **dict.fromkeys(("mp4v", "fmp4", "xvid", "divx", "dx50"), _MPEG4),
}
# Start of frame of every kind of JPEG; 0xC4, 0xC8 and 0xCC among them are tables.
_FRAME_MARKS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))


def jpeg_size(content: bytes) -> bytes | None:
    """Return the four bytes with height and width that a JPEG picture states; None where it states none."""
    place = len(_JPEG_START)
    while place + 9 <= len(content) and content[place] == 0xFF:  # noqa: PLR2004 - every marker begins with it
        mark = content[place + 1]
        if mark in _FRAME_MARKS:
            return content[place + 5 : place + 9]
        if mark == 0xFF or mark in _WITHOUT_LENGTH:  # noqa: PLR2004 - a fill byte
            place += 1 if mark == 0xFF else 2  # noqa: PLR2004 - likewise
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None


def stated_sizes(packet: bytes, codec: str) -> set[bytes]:
    """Return what a packet states of the picture size, as bytes that are equal where the sizes are.

    Args:
        packet: one compressed packet; H.264 and H.265 with start codes, as OpenCV hands them out.
        codec: four letters, as OpenCV gives them.
    """
    if packet.startswith(_JPEG_START):
        size = jpeg_size(packet)
        return {size} if size else set()
    statement = _STATEMENTS.get(codec.lower())
    return set(statement.findall(packet)) if statement else set()


class SizeWatch:
    """Reads a video's packets beside its frames.

    Args:
        path: the file, absolute.
    """

    def __init__(self, path: Path) -> None:
        """Open the file once more; decoding nothing, it costs little."""
        self._packets = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
        self._codec = (
            int(self._packets.get(cv2.CAP_PROP_FOURCC)).to_bytes(8, "little", signed=True)[:4].decode("latin-1")
        )
        self._stated: set[bytes] = set()

    def changed(self) -> bool:
        """Take the next packet, one for each frame, and tell whether the size changed up to it."""
        read, packet = self._packets.read()
        if read:
            self._stated |= stated_sizes(packet.tobytes(), self._codec)
        return len(self._stated) > 1

    def close(self) -> None:
        """Let go of the file."""
        self._packets.release()
