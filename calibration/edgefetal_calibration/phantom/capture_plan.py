"""Which parts of a capture chain a series goes through, and what that makes of pictures, masks and truth alike."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgefetal_calibration.phantom.capture import burn_ruler, burn_text, crop, drop, freeze, lost_count, rescale
from edgefetal_calibration.phantom.cine import Cine
from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

# Marks of a ruler: far enough apart for every depth of the clinical probe.
_RULER_MM: Final = 10.0
_RULER_LONG: Final = 5
MAX_SIDE_PX: Final = 4096
_SIZE: Final = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_PART: Final = re.compile(r"([0-9]{1,5}),([0-9]{1,5}),([0-9]{1,5}),([0-9]{1,5})")
_FREEZE: Final = re.compile(r"([0-9]{1,5}):([0-9]{1,5})")


@dataclass(frozen=True, eq=False)
class Captured:
    """A sweep after the capture chain.

    Args:
        cine: its pictures.
        masks: their masks, of the same size and pixels.
        shown: for each picture the number of the drawn frame that it shows, shape (N,).
    """

    cine: Cine
    masks: Cine
    shown: npt.NDArray[np.intp]


@dataclass(frozen=True)
class CapturePlan:
    """What a capture chain does to every sweep, in this order: the scanner's marks, the card's picture, its frames.

    Args:
        ruler: whether a depth ruler is burnt in.
        text: what is burnt in at the top left, in ASCII, or None.
        size_px: width and height that pictures are brought to, or None.
        part_px: left, top and, after the last, right and bottom of what is cut out of them then, or None.
        frozen: a frame and how many times more it is shown, or None.
        lost_share: share of the frames that are lost after that, 0 to 1.

    Raises:
        InputError: the text cannot be written, the share is none, or the pictures would be larger than any card's.
    """

    ruler: bool = False
    text: str | None = None
    size_px: tuple[int, int] | None = None
    part_px: tuple[int, int, int, int] | None = None
    frozen: tuple[int, int] | None = None
    lost_share: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no picture and no sweep could go through."""
        if self.text is not None and not (self.text.isascii() and self.text.isprintable() and self.text.strip()):
            raise InputError(f"The text {self.text!r} cannot be burnt in; give printable ASCII characters in one line.")
        if self.size_px is not None and max(self.size_px) > MAX_SIDE_PX:
            width, height = self.size_px
            raise InputError(f"No capture card gives {width} x {height} pixels; give sides of {MAX_SIDE_PX} at most.")
        lost_count(1, self.lost_share)

    @property
    def changes(self) -> bool:
        """Whether anything is done at all."""
        return self != NO_CAPTURE

    def picture_px(self, width_px: int, height_px: int, frame_count: int) -> tuple[int, int]:
        """Return width and height of the captured pictures of a sweep.

        Args:
            width_px: width of the drawn pictures.
            height_px: their height.
            frame_count: frames of the drawn sweep.

        Raises:
            InputError: a step does not fit such a sweep.
        """
        # One whole picture and all frames of a single pixel tell whether every step fits.
        one = Cine(np.zeros((1, height_px, width_px), np.uint8), 1.0, 1.0, 1.0)
        height, width = self._framed(one, smooth=True).frames.shape[1:]
        self._timed(Cine(np.zeros((frame_count, 1, 1), np.uint8), 1.0, 1.0, 1.0), 0)
        return width, height

    def frame_count(self, drawn: int) -> int:
        """Return how many frames are left of a sweep of so many."""
        shown = drawn + (0 if self.frozen is None else self.frozen[1])
        return shown - lost_count(shown, self.lost_share)

    def capture(self, cine: Cine, masks: Cine, *, face_y_px: float, seed: int) -> Captured:
        """Put a sweep and its masks through the chain.

        Args:
            cine: the sweep as it was drawn.
            masks: its labels, on the same pixels.
            face_y_px: row of depth 0, where the ruler begins.
            seed: of the frames that are lost.

        Raises:
            InputError: a step does not fit the sweep.
        """
        marked = (
            burn_ruler(cine, first_y_px=face_y_px, every_mm=_RULER_MM, long_every=_RULER_LONG) if self.ruler else cine
        )
        if self.text is not None:
            marked = burn_text(marked, [self.text])
        pictures, shown = self._timed(self._framed(marked, smooth=True), seed)
        labels, _ = self._timed(self._framed(masks, smooth=False), seed)
        return Captured(pictures, labels, shown)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def _framed(self, cine: Cine, *, smooth: bool) -> Cine:
        """Rescale and crop."""
        if self.size_px is not None:
            cine = rescale(cine, *self.size_px, smooth=smooth)
        return cine if self.part_px is None else crop(cine, *self.part_px)

    def _timed(self, cine: Cine, seed: int) -> tuple[Cine, npt.NDArray[np.intp]]:
        """Freeze and drop, and say which frame each one shows."""
        shown = np.arange(len(cine.frames))
        if self.frozen is not None:
            cine, shown = freeze(cine, *self.frozen)
        if self.lost_share > 0:
            cine, kept = drop(cine, self.lost_share, seed)
            shown = shown[kept]
        return cine, shown


NO_CAPTURE: Final = CapturePlan()


def parse_size(text: str) -> tuple[int, int]:
    """Read a size in pixels such as `1280x720`.

    Raises:
        InputError: the text has another form.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text!r} is no size of a picture; write width and height in pixels as 1280x720.")
    return int(match[1]), int(match[2])


def parse_part(text: str) -> tuple[int, int, int, int]:
    """Read a part of a picture such as `100,50,700,550`: left, top and, after the last, right and bottom.

    Raises:
        InputError: the text has another form.
    """
    match = _PART.fullmatch(text.replace(" ", ""))
    if match is None:
        raise InputError(
            f"{text!r} is no part of a picture; write its left, top, right and bottom in pixels as 100,50,700,550."
        )
    left, top, right, bottom = (int(number) for number in match.groups())
    return left, top, right, bottom


def parse_freeze(text: str) -> tuple[int, int]:
    """Read a frozen frame such as `30:12`: its number, from 0, and how many times more it is shown.

    Raises:
        InputError: the text has another form.
    """
    match = _FREEZE.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text!r} is no frozen frame; write its number and how many times more it is shown as 30:12.")
    return int(match[1]), int(match[2])
