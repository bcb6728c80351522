"""Augmentation of frames that are already of the network's size: grey levels and masks, uint8 both.

Two ways. `vary` is ours: a little zoom, rotation, shift, mirror and gain, another one whenever a frame is shown.
`published_copy` is FetalCLIP-IQA's: albumentations' `ColorJitter`, `CLAHE` and `Affine` (shift up to 20 % of the side,
rotation up to 20 degrees), which there were written to disk as two more copies of every training frame. Here the copies
are computed when they are shown, with OpenCV, and are the same in every epoch because nothing but the seed, the frame
and the copy's number decides them. The order of the three, their defaults and chances are albumentations'; its random
numbers and its hue and saturation, which do nothing to grey, are not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Pictures = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]

# Extra copies of each training frame in the published code.
PUBLISHED_COPIES: Final = 2

_OURS_ROTATION_DEG: Final = 15.0
_OURS_SHIFT: Final = 0.08
_OURS_ZOOM: Final = 0.15
_OURS_GAMMA: Final = 0.25
_OURS_GAIN: Final = 0.25

_PUBLISHED_ROTATION_DEG: Final = 20.0
_PUBLISHED_SHIFT: Final = 0.2
# Defaults of albumentations: jitter of brightness and contrast, and the clip limit and grid of CLAHE.
_JITTER: Final = (0.8, 1.2)
_CLIP_LIMIT: Final = (1.0, 4.0)
_GRID: Final = (8, 8)
_EVEN: Final = 0.5


def vary(picture: npt.NDArray[np.uint8], masks: npt.NDArray[np.uint8], rng: np.random.Generator) -> Pictures:
    """Vary a frame and its masks alike, as another hold of the probe and another gain would.

    Args:
        picture: shape (h, w).
        masks: shape (S, h, w), 0 to 255.
        rng: source of the variation.

    Returns:
        Both, of the same shapes.
    """
    matrix = _about_the_middle(
        picture.shape,
        zoom=math.exp(rng.uniform(-_OURS_ZOOM, _OURS_ZOOM)),
        angle_deg=rng.uniform(-_OURS_ROTATION_DEG, _OURS_ROTATION_DEG),
        shift=(rng.uniform(-_OURS_SHIFT, _OURS_SHIFT), rng.uniform(-_OURS_SHIFT, _OURS_SHIFT)),
        mirror=bool(rng.random() < _EVEN),
    )
    gamma = math.exp(rng.uniform(-_OURS_GAMMA, _OURS_GAMMA))
    gain = math.exp(rng.uniform(-_OURS_GAIN, _OURS_GAIN))
    levels = np.clip(255 * gain * (np.arange(256) / 255) ** gamma, 0, 255).astype(np.uint8)
    return np.asarray(levels[_warped(picture, matrix)]), _all_warped(masks, matrix)


def published_copy(picture: npt.NDArray[np.uint8], masks: npt.NDArray[np.uint8], rng: np.random.Generator) -> Pictures:
    """Make a copy of a frame and its masks as the published preparation does.

    Args:
        picture: shape (h, w).
        masks: shape (S, h, w), 0 to 255.
        rng: source of the variation.

    Returns:
        Both, of the same shapes.
    """
    if rng.random() < _EVEN:
        picture = _jittered(picture, rng)
    if rng.random() < _EVEN:
        equaliser = cv2.createCLAHE(clipLimit=rng.uniform(*_CLIP_LIMIT), tileGridSize=_GRID)
        picture = np.asarray(equaliser.apply(picture), np.uint8)
    matrix = _about_the_middle(
        picture.shape,
        zoom=1.0,
        angle_deg=rng.uniform(-_PUBLISHED_ROTATION_DEG, _PUBLISHED_ROTATION_DEG),
        shift=(rng.uniform(-_PUBLISHED_SHIFT, _PUBLISHED_SHIFT), rng.uniform(-_PUBLISHED_SHIFT, _PUBLISHED_SHIFT)),
        mirror=False,
    )
    return _warped(picture, matrix), _all_warped(masks, matrix)


def _jittered(picture: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Brighten and stretch about the mean, in either order."""
    brightness, contrast = rng.uniform(*_JITTER), rng.uniform(*_JITTER)
    levels = picture.astype(np.float32)
    if rng.random() < _EVEN:
        levels = np.clip(levels * brightness, 0, 255)
        mean = float(levels.mean())
        levels = mean + contrast * (levels - mean)
    else:
        mean = float(levels.mean())
        levels = brightness * np.clip(mean + contrast * (levels - mean), 0, 255)
    return np.asarray(np.clip(levels, 0, 255), np.uint8)


def _about_the_middle(
    shape: tuple[int, ...], *, zoom: float, angle_deg: float, shift: tuple[float, float], mirror: bool
) -> npt.NDArray[np.float64]:
    """Return the 2 x 3 matrix of a zoom, rotation and mirror about the middle and a shift in shares of the sides."""
    height, width = shape[-2:]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    angle = math.radians(angle_deg)
    linear = zoom * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    if mirror:
        linear[:, 0] *= -1
    offset = middle + np.array(shift) * (width, height) - linear @ middle
    return np.hstack((linear, offset[:, None]))


def _warped(picture: npt.NDArray[np.uint8], matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    height, width = picture.shape
    return np.asarray(cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR), np.uint8)


def _all_warped(masks: npt.NDArray[np.uint8], matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.stack([_warped(mask, matrix) if mask.any() else mask for mask in masks]) if len(masks) else masks
