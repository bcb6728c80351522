"""The simulated head sweep: its truth, its repeatability, its video and its refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edgefetal_calibration.phantom.head_clip import (
    HeadClip,
    simulate_head_clip,
    standard_plane_outline_px,
    write_clip,
)
from edgefetal_devices.errors import InputError, OutputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_runtime.biometry.ellipse import Ellipse

# A quarter of the default's pixels over the same centimetres.
SMALL: dict[str, Any] = {"height_px": 270, "width_px": 400, "mm_per_px": 0.36}


@pytest.fixture(scope="module")
def sweep() -> HeadClip:
    return simulate_head_clip(hc_mm=175.0, seed=7, frame_count=15, **SMALL)


def radial_profiles(
    frame: npt.NDArray[np.uint8], outline: Ellipse, offsets_px: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Grey along the outline's normals, shape (360, len(offsets_px)), outwards."""
    points = outline.points(360)
    tangent = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    normal = np.stack((tangent[:, 1], -tangent[:, 0]), axis=1) / np.linalg.norm(tangent, axis=1, keepdims=True)
    places = (points[:, None] + offsets_px[None, :, None] * normal[:, None]).astype(np.float32)
    grey = cv2.remap(frame.astype(np.float32), places[..., 0], places[..., 1], cv2.INTER_LINEAR)
    return np.asarray(grey, dtype=np.float64)


def ring_contrast(frame: npt.NDArray[np.uint8], outline: Ellipse, mm_per_px: float) -> float:
    """How much brighter the wall is than what lies 5 mm inside and outside of it."""
    grey = radial_profiles(frame, outline, np.array([-5.0, -1.0, 5.0]) / mm_per_px).mean(axis=0)
    return float(grey[1] - (grey[0] + grey[2]) / 2.0)


@pytest.mark.parametrize("hc_mm", [60.0, 175.0, 300.0])
@pytest.mark.parametrize("cephalic_index", [0.7, 0.79, 0.9])
def test_outline_has_the_asked_circumference_and_shape(hc_mm: float, cephalic_index: float) -> None:
    outline = standard_plane_outline_px(hc_mm=hc_mm, mm_per_px=0.25, cephalic_index=cephalic_index)
    assert outline.circumference() * 0.25 == pytest.approx(hc_mm)
    assert outline.semi_minor / outline.semi_major == pytest.approx(cephalic_index)


@pytest.mark.parametrize(
    ("hc_mm", "mm_per_px", "tilt_rad"),
    [(100.0, 0.18, 0.0), (175.0, 0.18, 0.3), (175.0, 0.13, -0.2), (290.0, 0.18, 0.1)],
)
def test_skull_is_drawn_where_the_truth_says(hc_mm: float, mm_per_px: float, tilt_rad: float) -> None:
    clip = simulate_head_clip(hc_mm=hc_mm, seed=3, frame_count=3, mm_per_px=mm_per_px, tilt_rad=tilt_rad)
    outline = standard_plane_outline_px(hc_mm=hc_mm, mm_per_px=mm_per_px, tilt_rad=tilt_rad)
    frame = cv2.GaussianBlur(clip.frames[clip.standard_plane_index], (0, 0), 1.0)
    offsets_px = np.arange(-3.0 / mm_per_px, 3.0 / mm_per_px, 0.25)
    # The outer edge of a bright wall is where the grey falls fastest on the way out.
    steepest = np.gradient(radial_profiles(frame, outline, offsets_px), axis=1).argmin(axis=1)
    assert abs(np.median(offsets_px[steepest])) < 1.5


def test_sweep_shows_no_head_then_the_largest_section_then_none(sweep: HeadClip) -> None:
    outline = standard_plane_outline_px(hc_mm=175.0, **SMALL)
    first, plane, last = (
        ring_contrast(sweep.frames[index], outline, sweep.mm_per_px) for index in (0, sweep.standard_plane_index, -1)
    )
    assert plane > 50.0
    assert abs(first) < 8.0
    assert abs(last) < 8.0
    assert 0 < sweep.standard_plane_index < len(sweep.frames) - 1


def test_frames_are_pictures_with_their_scale(sweep: HeadClip) -> None:
    assert sweep.frames.shape == (15, 270, 400)
    assert sweep.frames.dtype == np.uint8
    assert (sweep.hc_mm, sweep.mm_per_px) == (175.0, 0.36)
    assert sweep.frames_per_s > 0
    # Beside the fan the picture is black.
    assert not sweep.frames[:, :20, :20].any()


def test_speckle_lives_on_from_frame_to_frame_near_the_plane() -> None:
    clip = simulate_head_clip(hc_mm=175.0, seed=5, frame_count=31, **SMALL)
    # Tissue below the head, less its coarse shading.
    patch = clip.frames[:, 225:255, 140:260].astype(np.float32)
    fine = np.stack([p - cv2.GaussianBlur(p, (0, 0), 6.0) for p in patch])
    plane = clip.standard_plane_index
    next_to = np.corrcoef(fine[plane].ravel(), fine[plane + 1].ravel())[0, 1]
    far_off = np.corrcoef(fine[plane].ravel(), fine[0].ravel())[0, 1]
    assert next_to > 0.5
    assert abs(far_off) < 0.3


def test_the_seed_decides_every_byte() -> None:
    def draw(seed: int) -> HeadClip:
        return simulate_head_clip(hc_mm=150.0, seed=seed, frame_count=3, **SMALL)

    assert draw(1).frames.tobytes() == draw(1).frames.tobytes()
    assert draw(1).frames.tobytes() != draw(2).frames.tobytes()


def test_video_reads_back_bit_for_bit(sweep: HeadClip, tmp_path: Path) -> None:
    # Every grey level, so that a writer that squeezes to the video range would be seen.
    frames = sweep.frames.copy()
    frames[0, 100, :256] = np.arange(256)
    path = tmp_path / "sweep.avi"
    write_clip(replace(sweep, frames=frames), path)

    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(sweep.frames_per_s)
    read = []
    while True:
        more, picture = capture.read()
        if not more:
            break
        read.append(picture[:, :, 0])
    capture.release()
    np.testing.assert_array_equal(np.stack(read), frames)


@pytest.mark.parametrize(("name", "part"), [("sweep.mp4", r"\.avi"), ("missing/sweep.avi", "create it first")])
def test_unusable_video_path_is_refused(sweep: HeadClip, tmp_path: Path, name: str, part: str) -> None:
    with pytest.raises(OutputError, match=part):
        write_clip(sweep, tmp_path / name)


def test_video_writer_that_does_not_open_is_an_error(sweep: HeadClip, tmp_path: Path) -> None:
    folder = tmp_path / "sweep.avi"
    folder.mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write_clip(sweep, folder)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"hc_mm": 59.9}, "60 to 380"),
        ({"hc_mm": 381.0}, "60 to 380"),
        ({"hc_mm": float("nan")}, "60 to 380"),
        ({"hc_mm": 340.0}, "larger mm_per_px"),
        ({"hc_mm": 300.0, "tilt_rad": 1.5}, "larger mm_per_px"),
        ({"frame_count": 2}, "at least 3"),
        ({"mm_per_px": 0.0}, "0.02 to 2"),
        ({"mm_per_px": -0.1}, "0.02 to 2"),
        ({"mm_per_px": float("inf")}, "0.02 to 2"),
        ({"height_px": 10}, "at least 64"),
        ({"cephalic_index": 1.2}, "0.6 to 1"),
        ({"tilt_rad": float("nan")}, "radians"),
        ({"seed": -1}, "positive"),
    ],
)
def test_bad_input_is_refused_with_a_way_out(change: dict[str, Any], part: str) -> None:
    good: dict[str, Any] = {"hc_mm": 175.0, "seed": 0}
    with pytest.raises(InputError, match=part):
        simulate_head_clip(**(good | change))
