"""The one definition of how a frame becomes a network input.

Training, calibration, evaluation and the runtime all call `preprocess` with the spec that the bundle stores. Every step
is integer arithmetic or a table look-up, so the tensor is the same bit for bit on every processor:

1. halve with a Gaussian (`cv2.pyrDown`, 1-4-6-4-1 in integers) while the frame is at least twice too large, so that
   nothing aliases;
2. resize to fit, keeping the aspect of the pixels, with `cv2.INTER_LINEAR_EXACT`;
3. centre on black (a network that was trained on pictures stretched to its input gets them so, without black);
4. normalise through a table of 256 float32 values.

The reverse way, from network pixels to frame pixels, is an axis-wise affine map that the caller gets with the tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from edgefetal_devices.errors import SourceError

if TYPE_CHECKING:
    import numpy.typing as npt

MIN_FRAME_SIDE_PX = 16


class PreprocessSpec(BaseModel):
    """How frames are prepared; stored in the bundle's manifest.

    Args:
        height_px: height of the network input.
        width_px: width of the network input.
        mean: grey level, on the 0 to 1 scale, that becomes 0.
        std: grey-level difference, on the 0 to 1 scale, that becomes 1.
        stretch: whether the frame fills the network input whatever its aspect, in place of black beside it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    height_px: PositiveInt
    width_px: PositiveInt
    mean: float
    std: PositiveFloat
    stretch: bool = False


@dataclass(frozen=True)
class AxisMap:
    """Affine map of one axis: frame coordinate = `step * network coordinate + offset`, both at pixel centres."""

    step: float
    offset: float


@dataclass(frozen=True)
class Letterbox:
    """Where a frame of one size lies in the network input.

    Args:
        halvings: number of Gaussian halvings before the resize.
        content_width_px: width of the resized frame inside the network input.
        content_height_px: its height.
        left_px: column of the network input at which it begins.
        top_px: row at which it begins.
        x: map from network columns to frame columns.
        y: map from network rows to frame rows.
    """

    halvings: int
    content_width_px: int
    content_height_px: int
    left_px: int
    top_px: int
    x: AxisMap
    y: AxisMap

    def to_frame(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Move points, shape (N, 2) as x, y in network pixels, to frame pixels."""
        return points * (self.x.step, self.y.step) + (self.x.offset, self.y.offset)

    def to_network(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Move points, shape (N, 2) as x, y in frame pixels, to network pixels."""
        return (points - (self.x.offset, self.y.offset)) / (self.x.step, self.y.step)

    def matrix_to_network(self) -> npt.NDArray[np.float64]:
        """Return what `to_network` does as an affine matrix, shape (2, 3), for OpenCV."""
        return np.array(
            [[1 / self.x.step, 0.0, -self.x.offset / self.x.step], [0.0, 1 / self.y.step, -self.y.offset / self.y.step]]
        )


def _halved(size_px: int, halvings: int) -> int:
    """Length of an axis after `cv2.pyrDown` was applied `halvings` times."""
    for _ in range(halvings):
        size_px = (size_px + 1) // 2
    return size_px


def _axis_map(reduced_px: int, content_px: int, start_px: int, halvings: int) -> AxisMap:
    """Compose padding, resize (pixel areas aligned) and pyrDown (first pixel centres aligned) of one axis."""
    resize_step = reduced_px / content_px
    return AxisMap(
        step=resize_step * 2**halvings,
        offset=((0.5 - start_px) * resize_step - 0.5) * 2**halvings,
    )


@lru_cache(maxsize=64)
def letterbox(frame_height_px: int, frame_width_px: int, spec: PreprocessSpec) -> Letterbox:
    """Place a frame of the given size in the network input of `spec`.

    Raises:
        SourceError: the frame is too small to hold a picture.
    """
    if min(frame_height_px, frame_width_px) < MIN_FRAME_SIDE_PX:
        message = (
            f"The frame is {frame_width_px} x {frame_height_px} pixels and needs at least {MIN_FRAME_SIDE_PX} a side. "
            "Give the picture as the machine shows it, not a thumbnail."
        )
        raise SourceError(message)
    ratios = frame_height_px / spec.height_px, frame_width_px / spec.width_px
    # Of a stretched frame, the axis that shrinks less says how often it can be halved.
    ratio = min(ratios) if spec.stretch else max(ratios)
    halvings = 0
    while ratio >= 2 ** (halvings + 1):
        halvings += 1
    content_width_px = spec.width_px if spec.stretch else min(spec.width_px, max(1, round(frame_width_px / ratio)))
    content_height_px = spec.height_px if spec.stretch else min(spec.height_px, max(1, round(frame_height_px / ratio)))
    left_px = (spec.width_px - content_width_px) // 2
    top_px = (spec.height_px - content_height_px) // 2
    return Letterbox(
        halvings=halvings,
        content_width_px=content_width_px,
        content_height_px=content_height_px,
        left_px=left_px,
        top_px=top_px,
        x=_axis_map(_halved(frame_width_px, halvings), content_width_px, left_px, halvings),
        y=_axis_map(_halved(frame_height_px, halvings), content_height_px, top_px, halvings),
    )


@lru_cache(maxsize=8)
def _normalisation_table(spec: PreprocessSpec) -> npt.NDArray[np.float32]:
    return ((np.arange(256) / 255.0 - spec.mean) / spec.std).astype(np.float32)


def place(pixels: npt.NDArray[np.uint8], spec: PreprocessSpec) -> tuple[npt.NDArray[np.uint8], Letterbox]:
    """Bring a grey frame to the network's size, before its grey levels are normalised.

    Args:
        pixels: shape (H, W), uint8.
        spec: the bundle's preprocessing.

    Returns:
        The picture, shape (spec.height_px, spec.width_px), uint8, and the placement of the frame in it.

    Raises:
        SourceError: the array is not a grey 8-bit picture, or is too small.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8:  # noqa: PLR2004 - a picture has two axes
        message = f"A frame must be grey and 8 bit, (H, W) uint8; this one is {pixels.shape} {pixels.dtype}."
        raise SourceError(message)
    box = letterbox(pixels.shape[0], pixels.shape[1], spec)
    reduced = pixels
    for _ in range(box.halvings):
        reduced = np.asarray(cv2.pyrDown(reduced), np.uint8)
    canvas = np.zeros((spec.height_px, spec.width_px), np.uint8)
    canvas[box.top_px : box.top_px + box.content_height_px, box.left_px : box.left_px + box.content_width_px] = (
        cv2.resize(reduced, (box.content_width_px, box.content_height_px), interpolation=cv2.INTER_LINEAR_EXACT)
    )
    return canvas, box


def normalise(placed: npt.NDArray[np.uint8], spec: PreprocessSpec) -> npt.NDArray[np.float32]:
    """Turn grey levels that `place` returned, of any shape, into what the network expects."""
    return _normalisation_table(spec)[placed]


def preprocess(pixels: npt.NDArray[np.uint8], spec: PreprocessSpec) -> tuple[npt.NDArray[np.float32], Letterbox]:
    """Turn a grey frame into a network input.

    Args:
        pixels: shape (H, W), uint8.
        spec: the bundle's preprocessing.

    Returns:
        The tensor, shape (1, 1, spec.height_px, spec.width_px), float32, and the placement of the frame in it.

    Raises:
        SourceError: the array is not a grey 8-bit picture, or is too small.
    """
    placed, box = place(pixels, spec)
    return normalise(placed, spec)[None, None], box
