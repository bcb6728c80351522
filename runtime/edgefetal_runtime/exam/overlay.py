"""The picture that shows what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_OUTLINE_BGR = (80, 220, 255)
_TEXT_BGR = (255, 255, 255)
_BAND_PX = 26
_SUBPIXEL_BITS = 4
_FONT_SCALE = 0.5


def draw_overlay(
    pixels: npt.NDArray[np.uint8], contour_px: npt.NDArray[np.float64], lines: tuple[str, ...]
) -> npt.NDArray[np.uint8]:
    """Draw an outline on a frame, and lines of text in a band below it.

    Args:
        pixels: the frame, shape (H, W), uint8.
        contour_px: closed outline in frame pixels, shape (N, 2) as x, y.
        lines: text, one line each; ASCII.

    Returns:
        A colour picture, shape (H + band, W, 3), uint8, BGR.
    """
    picture = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    points = np.round(contour_px * 2**_SUBPIXEL_BITS).astype(np.int32).reshape(-1, 1, 2)
    thickness = max(1, round(max(pixels.shape) / 600))
    cv2.polylines(picture, [points], True, _OUTLINE_BGR, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)  # noqa: FBT003
    band = np.zeros((_BAND_PX * len(lines) + _BAND_PX // 3, picture.shape[1], 3), np.uint8)
    for number, line in enumerate(lines, start=1):
        (width, _), _ = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, _FONT_SCALE, 1)
        shrink = min(1.0, (picture.shape[1] - 16) / max(width, 1))
        cv2.putText(
            band,
            line,
            (8, _BAND_PX * number - 6),
            cv2.FONT_HERSHEY_SIMPLEX,
            _FONT_SCALE * shrink,
            _TEXT_BGR,
            1,
            cv2.LINE_AA,
        )
    return np.vstack((picture, band))


def png(picture: npt.NDArray[np.uint8]) -> bytes:
    """Encode a picture, which takes a quarter of its memory."""
    content: bytes = cv2.imencode(".png", picture)[1].tobytes()
    return content
