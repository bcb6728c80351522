"""What a capture chain does to a sweep before a computer sees it: each step takes a `Cine` and returns another.

Steps that leave out or repeat frames also say which frame of the sweep each new one shows, so that truth can follow.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgefetal_calibration.phantom.cine import Cine

_MARK_GREY: Final = 235
_TEXT_GREY: Final = 225
_MARK_ROWS: Final = 2
_SHORT_PX, _LONG_PX = 5, 9
# What must stay dark around a mark for it to be seen as one.
_QUIET_PX: Final = 8
_FONT_PX: Final = 22.0


def burn_ruler(cine: Cine, *, first_y_px: float, left_px: int = 6, every_mm: float = 5.0, long_every: int = 2) -> Cine:
    """Draw a depth ruler: short marks one below the other, as scanners burn them in.

    The strip is darkened first, as the margin is in which scanners draw it.

    Args:
        cine: the sweep.
        first_y_px: row of depth 0.
        left_px: column where the marks begin.
        every_mm: depth between marks.
        long_every: every so many marks one is longer.

    Raises:
        InputError: the marks would touch, or do not fit.
    """
    frames = cine.frames.copy()
    height, width = frames.shape[1:]
    step_px = every_mm / cine.y_mm_per_px
    count = math.floor((height - _MARK_ROWS - first_y_px) / step_px) + 1 if step_px > 0 else 0
    if not (step_px >= 2 * _QUIET_PX and count > 1 and 0 <= left_px <= width - _LONG_PX and first_y_px >= 0):
        raise InputError(
            f"Marks every {every_mm:g} mm from row {first_y_px:g} at column {left_px} do not fit a picture of "
            f"{width} x {height}; set them further apart or begin nearer the top left."
        )
    frames[:, :, max(left_px - _QUIET_PX, 0) : left_px + _LONG_PX + _QUIET_PX] = 0
    for mark in range(count):
        row = round(first_y_px + mark * step_px)
        length = _LONG_PX if mark % long_every == 0 else _SHORT_PX
        frames[:, row : row + _MARK_ROWS, left_px : left_px + length] = _MARK_GREY
    return replace(cine, frames=frames)


def burn_text(cine: Cine, lines: Sequence[str], *, left_px: int = 40, top_px: int = 8, height_px: int = 12) -> Cine:
    """Write lines of text over every frame, one below the other.

    Args:
        cine: the sweep.
        lines: what to write, in ASCII, which is all that the font has.
        left_px: column where the lines begin.
        top_px: row of the first line's top.
        height_px: height of a capital letter.
    """
    stencil = np.zeros(cine.frames.shape[1:], np.uint8)
    for number, line in enumerate(lines):
        foot = (left_px, top_px + height_px + round(1.6 * number * height_px))
        cv2.putText(stencil, line, foot, cv2.FONT_HERSHEY_SIMPLEX, height_px / _FONT_PX, (_TEXT_GREY,), 1, cv2.LINE_AA)
    return replace(cine, frames=np.maximum(cine.frames, stencil))


def rescale(cine: Cine, width_px: int, height_px: int, *, smooth: bool = True) -> Cine:
    """Bring every frame to another size, as a capture card does; pixels need not stay square.

    Args:
        cine: the sweep.
        width_px: columns afterwards.
        height_px: rows afterwards.
        smooth: whether neighbours are mixed; labels are not, each takes that of the nearest pixel.

    Raises:
        InputError: the size is not one.
    """
    if min(width_px, height_px) < 1:
        raise InputError(f"A picture cannot be {width_px} x {height_px} pixels; give sizes above zero.")
    height, width = cine.frames.shape[1:]
    shrinks = width_px <= width and height_px <= height
    mixed = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    how = mixed if smooth else cv2.INTER_NEAREST_EXACT
    frames = np.stack([cv2.resize(frame, (width_px, height_px), interpolation=how) for frame in cine.frames])
    return replace(
        cine,
        frames=np.asarray(frames, np.uint8),
        x_mm_per_px=cine.x_mm_per_px * width / width_px,
        y_mm_per_px=cine.y_mm_per_px * height / height_px,
    )


def crop(cine: Cine, left_px: int, top_px: int, right_px: int, bottom_px: int) -> Cine:
    """Cut a part out of every frame; right and bottom are the column and the row after the last.

    Raises:
        InputError: the part is empty or reaches beyond the picture.
    """
    height, width = cine.frames.shape[1:]
    if not (0 <= left_px < right_px <= width and 0 <= top_px < bottom_px <= height):
        raise InputError(
            f"Columns {left_px} to {right_px} and rows {top_px} to {bottom_px} are no part of a picture of "
            f"{width} x {height}; keep within it."
        )
    return replace(cine, frames=np.ascontiguousarray(cine.frames[:, top_px:bottom_px, left_px:right_px]))


def freeze(cine: Cine, at: int, repeats: int) -> tuple[Cine, npt.NDArray[np.intp]]:
    """Show one frame `repeats` times more before the sweep goes on.

    Returns:
        The sweep, and for each of its frames the index of the one that it shows.

    Raises:
        InputError: there is no such frame, or fewer repeats than none.
    """
    count = len(cine.frames)
    if not 0 <= at < count or repeats < 0:
        raise InputError(f"Frame {at} of {count} cannot be shown {repeats} times more; give a frame and 0 or more.")
    shown = np.insert(np.arange(count), at, [at] * repeats)
    return replace(cine, frames=cine.frames[shown]), shown


def lost_count(count: int, share: float) -> int:
    """Return how many of so many frames are lost; at least one is kept.

    Raises:
        InputError: the share is no share.
    """
    if not 0 <= share <= 1:
        raise InputError(f"A share of {share:g} lost frames is none; give 0 to 1.")
    return min(round(share * count), count - 1)


def drop(cine: Cine, share: float, seed: int) -> tuple[Cine, npt.NDArray[np.intp]]:
    """Lose a share of the frames; at least one is kept.

    Args:
        cine: the sweep.
        share: of the frames, 0 to 1.
        seed: which ones.

    Returns:
        The sweep, and for each of its frames the index of the one that it shows.

    Raises:
        InputError: the share is no share.
    """
    count = len(cine.frames)
    chance = np.random.default_rng(seed).random(count)
    kept = np.sort(np.argsort(chance)[lost_count(count, share) :])
    return replace(cine, frames=cine.frames[kept]), kept
