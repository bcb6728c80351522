"""Augmentation of pictures on the source frame, before the one preprocessing.

Where the label is an ellipse, an affine map of it is an ellipse too, and the target of an augmented picture is drawn
from its exact outline; a mask is moved with its picture. Pictures without a head are made from the same material, since
HC18 has none: windows beside the head, heads painted over with the surrounding texture, and blank or noisy screens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_runtime.biometry.ellipse import Ellipse, ellipse_from_points

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgefetal_runtime.infer.preprocess import Letterbox, PreprocessSpec

_OUTLINE_POINTS = 96
_WINDOW_TRIES = 30
# Farther out than this, in pixels of an HC18 picture, the skull's bright wall no longer shows.
_WALL_PX = 18


def soft_mask(outline: Ellipse, spec: PreprocessSpec) -> npt.NDArray[np.float32]:
    """Coverage of each network pixel by an ellipse in network pixels, shape (H, W), 0 to 1, 0.5 on the outline."""
    rows, columns = np.mgrid[: spec.height_px, : spec.width_px].astype(np.float64)
    distance = outline.signed_distance(np.stack((columns, rows), axis=-1))
    return np.clip(0.5 - distance, 0.0, 1.0).astype(np.float32)


def outline_in_network(outline_px: Ellipse, box: Letterbox) -> Ellipse | None:
    """Move an outline from frame pixels to network pixels."""
    return ellipse_from_points(box.to_network(outline_px.points(_OUTLINE_POINTS)))


def _affine(
    rng: np.random.Generator, shape: tuple[int, int], zoom: float, angle_rad: float, shift: tuple[float, float]
) -> tuple[npt.NDArray[np.float64], tuple[int, int]]:
    """Rotation, stretch, mirror and shift about the middle, onto a canvas of random size.

    Returns the 2 x 3 matrix from frame to canvas pixels and the canvas size as (width, height).
    """
    height_px, width_px = shape
    canvas = rng.uniform(0.7, 1.25)  # pictures reach the network in many sizes
    size = (round(width_px * canvas), round(height_px * canvas))
    stretch = math.exp(rng.uniform(-0.08, 0.08))
    mirror = -1.0 if rng.random() < 0.5 else 1.0  # noqa: PLR2004 - a coin
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag((mirror * zoom * stretch, zoom / stretch)) * canvas
    middle_from = np.array([(width_px - 1) / 2, (height_px - 1) / 2])
    middle_to = np.array([(size[0] - 1) / 2, (size[1] - 1) / 2]) + np.array(shift) * size
    return np.hstack((linear, (middle_to - linear @ middle_from)[:, None])), size


def _warp(
    pixels: npt.NDArray[np.uint8], matrix: npt.NDArray[np.float64], size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_LINEAR), np.uint8)


def _moved(outline_px: Ellipse, matrix: npt.NDArray[np.float64]) -> Ellipse | None:
    return ellipse_from_points(outline_px.points(_OUTLINE_POINTS) @ matrix[:, :2].T + matrix[:, 2])


def _photometric(pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Gain, gamma, speckle-like grain, blur and a shadow, as machines and contact make them."""
    levels = (np.arange(256) / 255.0) ** math.exp(rng.uniform(-0.5, 0.5)) * rng.uniform(0.6, 1.4) + rng.uniform(
        -0.05, 0.05
    )
    image = np.clip(levels, 0, 1).astype(np.float32)[pixels]
    if rng.random() < 0.5:  # noqa: PLR2004 - a coin
        grain = rng.normal(0, 1, (image.shape[0] // 2 + 1, image.shape[1] // 2 + 1)).astype(np.float32)
        fine = cv2.resize(grain, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
        image *= 1 + rng.uniform(0.05, 0.35) * fine
    if rng.random() < 0.3:  # noqa: PLR2004 - three in ten
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.0)), np.float32)
    if rng.random() < 0.3:  # noqa: PLR2004 - three in ten
        columns = np.arange(image.shape[1]) / image.shape[1]
        depth = rng.uniform(0.3, 0.85) * np.exp(-(((columns - rng.random()) / rng.uniform(0.02, 0.1)) ** 2))
        image *= (1 - depth).astype(np.float32)[None]
    return np.clip(image * 255, 0, 255).astype(np.uint8)


def augmented_head(
    pixels: npt.NDArray[np.uint8], outline_px: Ellipse, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], Ellipse, npt.NDArray[np.float64]]:
    """Vary a head picture; a large head may come to lie partly outside.

    Args:
        pixels: shape (H, W), uint8.
        outline_px: the head's outline in pixels of the picture.
        rng: source of the variation.

    Returns:
        A new picture, the outline in it, and the matrix from old to new pixels, shape (2, 3).
    """
    matrix, size = _affine(
        rng,
        (pixels.shape[0], pixels.shape[1]),
        zoom=math.exp(rng.uniform(-0.35, 0.25)),
        angle_rad=rng.normal(0, math.radians(15)),
        shift=(rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1)),
    )
    moved = _moved(outline_px, matrix)
    if moved is None:
        return pixels, outline_px, np.eye(2, 3)
    return _photometric(_warp(pixels, matrix, size), rng), moved, matrix


def augmented_frame(
    pixels: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8] | None, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None, npt.NDArray[np.float64]]:
    """Vary a picture with its mask; clinics zoom in, so it is enlarged further than a picture of a head is.

    Args:
        pixels: shape (H, W), uint8.
        mask: 0 or 255, shape (H, W), uint8, or None where the picture has none.
        rng: source of the variation.

    Returns:
        A new picture, the mask in it with grey edges, and the matrix from old to new pixels, shape (2, 3).
    """
    matrix, size = _affine(
        rng,
        (pixels.shape[0], pixels.shape[1]),
        zoom=math.exp(rng.uniform(-0.35, 0.6)),
        angle_rad=rng.normal(0, math.radians(20)),
        shift=(rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1)),
    )
    moved = None if mask is None else _warp(mask, matrix, size)
    return _photometric(_warp(pixels, matrix, size), rng), moved, matrix


def chained(first: npt.NDArray[np.float64], then: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the one map of two affine ones, each of shape (2, 3)."""
    return np.hstack((then[:, :2] @ first[:, :2], then[:, :2] @ first[:, 2:] + then[:, 2:]))


def _window_beside_head(
    pixels: npt.NDArray[np.uint8], outline_px: Ellipse, rng: np.random.Generator
) -> npt.NDArray[np.uint8] | None:
    """Zoom into a window that the head does not touch, or None where none was found."""
    for _ in range(_WINDOW_TRIES):
        zoom = math.exp(rng.uniform(0.0, 1.0))
        matrix, size = _affine(
            rng,
            (pixels.shape[0], pixels.shape[1]),
            zoom=zoom,
            angle_rad=rng.normal(0, math.radians(15)),
            shift=(rng.uniform(-0.5, 0.5) * zoom, rng.uniform(-0.5, 0.5) * zoom),
        )
        moved = _moved(outline_px, matrix)
        if moved is None:
            continue
        columns, rows = np.meshgrid(np.linspace(0, size[0] - 1, 24), np.linspace(0, size[1] - 1, 16))
        window = _warp(pixels, matrix, size)
        if (moved.signed_distance(np.stack((columns, rows), axis=-1)) > 0).all() and window.mean() > 8:  # noqa: PLR2004 - not black
            return window
    return None


def _painted_over(
    pixels: npt.NDArray[np.uint8], outline_px: Ellipse, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Replace the head, its bright wall and a ragged rim around it by grain of the surrounding grey level."""
    height_px, width_px = pixels.shape
    grain, coarse = (
        cv2.resize(
            rng.normal(0, 1, (height_px // step + 1, width_px // step + 1)).astype(np.float32),
            (width_px, height_px),
            interpolation=cv2.INTER_LINEAR,
        )
        for step in (3, 60)
    )
    rows, columns = np.mgrid[:height_px, :width_px].astype(np.float32)
    distance = outline_px.signed_distance(np.stack((columns, rows), axis=-1)).astype(np.float32)
    outside = distance > _WALL_PX
    level, spread = (float(pixels[outside].mean()), float(pixels[outside].std())) if outside.any() else (20.0, 20.0)
    seam = np.clip((distance - _WALL_PX - 15 * np.abs(coarse)) / 30, 0, 1)
    painted = seam * pixels + (1 - seam) * (level + 0.6 * spread * (grain + coarse))
    return np.asarray(np.clip(painted, 0, 255), np.uint8)


def _empty_screen(shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw what a machine shows with no patient: black, or noise of some grain."""
    if rng.random() < 0.3:  # noqa: PLR2004 - three in ten
        return np.zeros(shape, np.uint8)
    divisor = int(rng.integers(1, 12))
    grain = rng.rayleigh(rng.uniform(5, 60), (shape[0] // divisor + 1, shape[1] // divisor + 1)).astype(np.float32)
    noise: npt.NDArray[np.uint8] = np.clip(cv2.resize(grain, shape[::-1]), 0, 255).astype(np.uint8)
    return noise


def without_head(pixels: npt.NDArray[np.uint8], outline_px: Ellipse, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Make a picture that shows no head out of one that does.

    Args:
        pixels: shape (H, W), uint8.
        outline_px: the head's outline in pixels of the picture.
        rng: source of the variation.
    """
    kind = rng.random()
    made = _window_beside_head(pixels, outline_px, rng) if kind < 0.6 else None  # noqa: PLR2004 - six in ten
    if made is None:
        made = (
            _painted_over(pixels, outline_px, rng)
            if kind < 0.85  # noqa: PLR2004 - the rest but fifteen in a hundred
            else _empty_screen((pixels.shape[0], pixels.shape[1]), rng)
        )
    return _photometric(made, rng)
