"""What the capture child asks of a camera. Nothing here runs in the parent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# A 4K screen; the memory that is shared is laid out for it.
MAX_LIVE_PIXELS = 4096 * 2304


@dataclass(frozen=True)
class PictureFormat:
    """What a source delivers.

    Args:
        width_px: columns.
        height_px: rows.
        pixels: code of the pixels as they come from the device, such as `YUYV`.
        fps: frames per second that it announces; None where it does not say.
    """

    width_px: int
    height_px: int
    pixels: str
    fps: float | None = None

    @property
    def size_px(self) -> tuple[int, int]:
        """Return width and height."""
        return self.width_px, self.height_px


@dataclass(frozen=True, eq=False)
class Captured:
    """A whole frame.

    Args:
        pixels: grey picture, shape (H, W), uint8; the receiver's to keep.
        sequence: the device's number of the frame; a gap is frames that never left the device.
        device_s: the device's time of the frame, on any clock that only goes forward, seconds.
    """

    pixels: npt.NDArray[np.uint8]
    sequence: int
    device_s: float


@dataclass(frozen=True)
class Torn:
    """A frame that the device flagged, or that came short: counted and never shown.

    Args:
        sequence: the device's number of the frame; None where there is none.
    """

    sequence: int | None


class Break(Enum):
    """Why no more frames come until the camera is closed and opened again; after `ENDED` none ever do."""

    NO_SIGNAL = "no signal"
    FORMAT_CHANGED = "format changed"
    ENDED = "ended"


class Camera(Protocol):
    """A source of frames as they happen; runs only in the capture child, which may be killed at any line of it."""

    def open(self) -> PictureFormat | Break:
        """Open it and begin to capture; `Break.NO_SIGNAL` where it is there and shows nothing.

        Raises:
            SourceError: it is not there, is in use, or gives nothing that can be read.
        """

    def read(self, timeout_s: float) -> Captured | Torn | Break | None:
        """Return the next frame, or None where none came in time.

        Raises:
            SourceError: it is gone.
        """

    def close(self) -> None:
        """Let go of it; called in every state, more than once too."""
