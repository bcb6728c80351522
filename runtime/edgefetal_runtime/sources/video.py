"""Video files: one sweep, every frame in order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_devices.errors import SourceError
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.scale import NOT_GIVEN
from edgefetal_runtime.sources.limits import DEFAULT_FRAMES_PER_S
from edgefetal_runtime.sources.picture_size import SizeWatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


VIDEO_SUFFIXES = (".avi", ".mp4", ".m4v", ".mkv", ".mov", ".webm")
# Some containers estimate their number of frames; a file that yields less than this share of it was cut short, and the
# plane that mattered may be in the part that is lost.
_WHOLE_SHARE = 0.9
# First bytes of AVI, Matroska and WebM, and MP4 and QuickTime, with their place.
_CONTAINER_MARKS = (
    (8, b"AVI "),
    (0, b"\x1aE\xdf\xa3"),
    *((4, box) for box in (b"ftyp", b"moov", b"mdat", b"wide", b"free")),
)


def _announced(capture: cv2.VideoCapture) -> int | None:
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return count if count > 0 else None


def _stated_s(capture: cv2.VideoCapture) -> float:
    """Return the time that the file gives the frame that was just read; 0 where it gives none."""
    stated_s = float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
    return stated_s if math.isfinite(stated_s) else 0.0


@dataclass(frozen=True)
class VideoSource:
    """A video file; it never knows its pixel size.

    A recording whose picture size changes midway is refused where its codec is one of those that `picture_size` reads
    (JPEG, H.264, H.265, MPEG-4); with others the change is caught only where a ruler is read.

    Args:
        path: the file.
    """

    path: Path
    kind: str = "video"

    def _open(self) -> cv2.VideoCapture:
        if self.path.stat().st_size == 0:
            message = f"{self.path} is empty (0 bytes); copy the video again."
            raise SourceError(message)
        with self.path.open("rb") as stream:
            start = stream.read(12)
        # FFmpeg also reads play lists and scripts, which name other files.
        if not any(start[place : place + len(mark)] == mark for place, mark in _CONTAINER_MARKS):
            message = f"{self.path} is not a video that can be read; export it as AVI or MP4."
            raise SourceError(message)
        # The absolute path keeps OpenCV from reading a name with a % as a pattern of picture files or as an address.
        capture = cv2.VideoCapture(str(self.path.absolute()), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            message = f"{self.path} is not a video that can be read; export it as AVI or MP4."
            raise SourceError(message)
        return capture

    @property
    def frame_count(self) -> int | None:
        """Return how many frames the file announces, or None where it does not say."""
        capture = self._open()
        count = _announced(capture)
        capture.release()
        return count

    def frames(self) -> Iterator[Frame]:
        """Decode the frames one by one.

        Raises:
            SourceError: the file cannot be opened, holds no frame, changes its picture size, or breaks off long before
                the end that it announces.
        """
        capture = self._open()
        announced = _announced(capture)
        watch = SizeWatch(self.path.absolute())
        try:
            period_s = 1 / (capture.get(cv2.CAP_PROP_FPS) or DEFAULT_FRAMES_PER_S)
            index, time_s, start_s = 0, 0.0, 0.0
            while True:
                read, picture = capture.read()
                if not read:
                    break
                if watch.changed():
                    message = (
                        f"{self.path} changes its picture size or settings at frame {index}, and so its pixel size; "
                        "cut it there and run each part by itself."
                    )
                    raise SourceError(message)
                if index == 0:
                    start_s = _stated_s(capture)
                else:
                    stated_s = _stated_s(capture) - start_s
                    # Files without times, and such whose times go back, go on by the rate.
                    time_s = stated_s if stated_s > time_s else time_s + period_s
                grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
                yield Frame(grey, sweep=self.path.name, index=index, timestamp_s=time_s, scale=NOT_GIVEN)
                index += 1
            if announced is not None and 0 < index < _WHOLE_SHARE * announced - 1:
                message = f"{self.path} breaks off after {index} of {announced} frames; copy the video again."
                raise SourceError(message)
            if index == 0:
                message = f"{self.path} holds no frame; record or copy the video again."
                raise SourceError(message)
        finally:
            watch.close()
            capture.release()
