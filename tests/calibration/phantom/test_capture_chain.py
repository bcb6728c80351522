"""What the simulated capture chain does to a sweep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgefetal_calibration.phantom.capture import burn_ruler, burn_text, crop, drop, freeze, rescale
from edgefetal_calibration.phantom.cine import Cine
from edgefetal_calibration.phantom.formation import Look, form_picture
from edgefetal_calibration.phantom.probe import acouslic_fan, acouslic_probe
from edgefetal_calibration.phantom.tissue import Tissue
from edgefetal_devices.errors import InputError
from edgefetal_runtime.sources.ruler import NoRuler, Ruler, read_ruler


@pytest.fixture(scope="module")
def sweep() -> Cine:
    """Twelve frames of speckle with their number in a corner."""
    probe, fan = acouslic_probe(), acouslic_fan()
    material = np.stack((probe.x_mm, np.zeros_like(probe.x_mm), probe.z_mm), axis=-1)
    labels = np.full(probe.x_mm.shape, Tissue.PLACENTA, np.uint8)
    picture = form_picture(labels, material, probe, fan, Look(), 1)
    frames = np.stack([picture] * 12)
    frames[:, 0, 0] = np.arange(12)
    return Cine(frames, 15.0, fan.x_mm_per_px, fan.y_mm_per_px)


@pytest.mark.parametrize("every_mm", [5.0, 10.0])
def test_the_ruler_is_read_with_its_period_and_its_long_marks(sweep: Cine, every_mm: float) -> None:
    assert isinstance(read_ruler(sweep.frames[0]), NoRuler)
    ruled = burn_ruler(sweep, first_y_px=27.65, every_mm=every_mm, long_every=5)
    ruler = read_ruler(ruled.frames[3])
    assert isinstance(ruler, Ruler)
    assert ruler.period_px == pytest.approx(every_mm / sweep.y_mm_per_px, rel=0.003)
    assert ruler.long_every == 5
    assert sweep.frames[0, 100, 6] == 0, "the sweep itself is left alone"


def test_the_ruler_is_still_read_after_a_capture_card_has_rescaled_it(sweep: Cine) -> None:
    captured = rescale(burn_ruler(sweep, first_y_px=27.65, every_mm=10.0), 1280, 720)
    assert captured.frames.shape == (12, 720, 1280)
    assert captured.x_mm_per_px == pytest.approx(0.28 * 744 / 1280)
    assert captured.y_mm_per_px == pytest.approx(0.28 * 562 / 720)
    ruler = read_ruler(captured.frames[0])
    assert isinstance(ruler, Ruler)
    assert ruler.period_px * captured.y_mm_per_px == pytest.approx(10.0, rel=0.005)


def test_text_is_burnt_into_every_frame_and_only_there(sweep: Cine) -> None:
    written = burn_text(sweep, ["GA 28w0d", "MI 0.9  TIS 0.2"], left_px=500, top_px=10)
    changed = written.frames != sweep.frames
    assert changed.any(axis=(1, 2)).all()
    rows, columns = np.nonzero(changed[0])
    assert rows.max() < 60
    assert columns.min() >= 499
    assert isinstance(read_ruler(written.frames[0]), NoRuler)


def test_crop_keeps_the_scale(sweep: Cine) -> None:
    part = crop(sweep, 100, 50, 400, 500)
    assert (part.frames == sweep.frames[:, 50:500, 100:400]).all()
    assert part.y_mm_per_px == sweep.y_mm_per_px


def test_a_freeze_repeats_one_frame(sweep: Cine) -> None:
    frozen, shown = freeze(sweep, 4, 3)
    assert shown.tolist() == [0, 1, 2, 3, 4, 4, 4, 4, 5, 6, 7, 8, 9, 10, 11]
    assert frozen.frames[:, 0, 0].tolist() == shown.tolist()


def test_lost_frames_are_named_and_the_same_by_seed(sweep: Cine) -> None:
    left, shown = drop(sweep, 0.4, seed=3)
    assert 2 <= len(shown) < 12
    assert left.frames[:, 0, 0].tolist() == shown.tolist()
    assert drop(sweep, 0.4, seed=3)[1].tolist() == shown.tolist()
    assert len(drop(sweep, 0.0, seed=3)[1]) == 12
    assert len(drop(sweep, 1.0, seed=3)[1]) == 1


def test_what_cannot_be_done_is_refused(sweep: Cine) -> None:
    with pytest.raises(InputError):
        crop(sweep, 0, 0, 745, 10)
    with pytest.raises(InputError):
        rescale(sweep, 0, 10)
    with pytest.raises(InputError):
        freeze(sweep, 12, 1)
    with pytest.raises(InputError):
        drop(sweep, 1.5, 0)
    with pytest.raises(InputError):
        burn_ruler(sweep, first_y_px=20.0, every_mm=1.0)


@pytest.mark.parametrize(
    ("frames", "rate", "mm"),
    [
        (np.zeros((0, 4, 4), np.uint8), 10.0, 0.1),
        (np.zeros((4, 4), np.uint8), 10.0, 0.1),
        (np.zeros((1, 4, 4), np.float32), 10.0, 0.1),
        (np.zeros((1, 4, 4), np.uint8), 0.0, 0.1),
        (np.zeros((1, 4, 4), np.uint8), 10.0, -0.1),
    ],
)
def test_what_is_no_recording_is_refused(frames: Any, rate: float, mm: float) -> None:
    with pytest.raises(InputError):
        Cine(frames, rate, mm, mm)
