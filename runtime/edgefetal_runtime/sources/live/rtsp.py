"""Network cameras and encoders, by OpenCV's FFmpeg.

OpenCV brings every frame to the size of the first one and says nothing, so a change of format within a connection is
not seen; an encoder that changes its format ends the connection as a rule. OpenCV asks for TCP by itself, which
matters: lost datagrams are smeared over the picture and still count as decoded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_devices.errors import SourceError
from edgefetal_runtime.sources.live.camera import Break, Captured, PictureFormat

if TYPE_CHECKING:
    from edgefetal_runtime.sources.live.address import RtspAddress

_OPEN_MS = 5000
_READ_MS = 2000


class RtspCamera:
    """A stream, decoded frame by frame.

    Args:
        address: where it is.
    """

    def __init__(self, address: RtspAddress) -> None:
        """Connect to nothing yet."""
        self._address = address
        self._capture: cv2.VideoCapture | None = None
        self._sequence = 0

    def open(self) -> PictureFormat | Break:
        """Connect; see `Camera.open`.

        Raises:
            SourceError: nothing answers, or with no video.
        """
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_MS]
        self._capture = cv2.VideoCapture(self._address.text, cv2.CAP_FFMPEG, timeouts)
        if not self._capture.isOpened():
            message = f"{self._address.name} does not answer with a video; check its power, network and address."
            raise SourceError(message)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        width_px, height_px = (
            int(self._capture.get(size)) for size in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        return PictureFormat(width_px, height_px, "FFMPEG", fps if fps > 0 else None)

    def read(self, timeout_s: float) -> Captured | None:
        """Return the next frame; see `Camera.read`. FFmpeg keeps to its own timeout.

        Raises:
            SourceError: the stream broke off.
        """
        del timeout_s
        read, picture = self._capture.read() if self._capture else (False, None)
        if not read or picture is None:
            message = f"{self._address.name} broke off; check its power and network."
            raise SourceError(message)
        self._sequence += 1
        grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
        # The times of a network stream are those of its sender's clock, which may be set; ours is not.
        return Captured(grey, self._sequence, time.monotonic())

    def close(self) -> None:
        """Disconnect."""
        if self._capture:
            self._capture.release()
            self._capture = None
