"""Masks as labels: ellipses drawn on a grid, and masks brought to the network's size as soft values."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_runtime.infer.preprocess import letterbox

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgefetal_runtime.biometry.ellipse import Ellipse
    from edgefetal_runtime.infer.preprocess import AxisMap, PreprocessSpec


def ellipse_mask(ellipse: Ellipse, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Mark the pixels of a grid of shape (H, W) whose centres lie inside an ellipse."""
    u, v = ellipse.normalised(np.arange(shape[1], dtype=float)[None, :], np.arange(shape[0], dtype=float)[:, None])
    inside: npt.NDArray[np.bool_] = u**2 + v**2 < 1
    return inside


def place_mask(mask: npt.NDArray[np.uint8], spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    """Bring a frame's mask to where `place` puts the frame's picture.

    Args:
        mask: shape (H, W), 0 or 1.
        spec: the network's preprocessing.

    Returns:
        The share of each network pixel that the mask covers, shape (spec.height_px, spec.width_px), 0 to 255. It is the
        exact average over the pixel's area by the affine maps of `letterbox`, so it lies where the picture does to a
        fraction of a pixel.

    Raises:
        SourceError: the mask is too small for a picture.
    """
    if not mask.any():
        return np.zeros((spec.height_px, spec.width_px), np.uint8)
    down, across = _averages(mask.shape[0], mask.shape[1], spec)
    covered = down @ mask.astype(np.float32) @ across.T
    return np.asarray(np.rint(covered * 255), np.uint8)


@lru_cache(maxsize=16)
def _averages(
    height_px: int, width_px: int, spec: PreprocessSpec
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weights of the frame's rows in each network row, shape (h, H), and of its columns, shape (w, W)."""
    box = letterbox(height_px, width_px, spec)
    return (
        _weights(box.y, height_px, spec.height_px, box.top_px, box.content_height_px),
        _weights(box.x, width_px, spec.width_px, box.left_px, box.content_width_px),
    )


def _weights(axis: AxisMap, frame_px: int, network_px: int, start_px: int, content_px: int) -> npt.NDArray[np.float32]:
    """Share of each network pixel that lies in each frame pixel, along one axis."""
    middles = axis.step * np.arange(network_px)[:, None] + axis.offset
    pixels = np.arange(frame_px)[None, :]
    low = np.maximum(middles - axis.step / 2, pixels - 0.5)
    high = np.minimum(middles + axis.step / 2, pixels + 0.5)
    weights = np.clip(high - low, 0.0, None)
    # What `place` leaves black holds no mask either.
    weights[:start_px] = weights[start_px + content_px :] = 0.0
    # An outermost pixel may reach beyond the frame, of which nothing is known: the rest of it decides.
    known = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, known, out=weights, where=known > 0)
    return np.asarray(weights, np.float32)
