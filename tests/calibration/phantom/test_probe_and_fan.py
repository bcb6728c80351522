"""The probe's beams and the fan that they fill."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_calibration.phantom.probe import (
    Fan,
    acouslic_fan,
    acouslic_probe,
    clinical_probe,
    fitted_fan,
    scan_maps,
)
from edgefetal_devices.errors import InputError
from edgefetal_runtime.sources.metaimage import open_metaimage

if TYPE_CHECKING:
    from pathlib import Path


def test_acouslic_fan_is_the_real_field_of_view(shared_data: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    real = sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data / "acouslic" / "fov_mask.mha"))) > 0
    ours = acouslic_fan().mask(acouslic_probe())
    assert ours.shape == real.shape
    assert 2 * (ours & real).sum() / (ours.sum() + real.sum()) >= 0.999


def test_our_reader_refuses_the_field_of_view_for_its_pixel_type(shared_data: Path) -> None:
    # Why the fan is kept as constants and not read.
    with pytest.raises(InputError, match="MET_UCHAR"):
        open_metaimage(shared_data / "acouslic" / "fov_mask.mha")


def test_grid_begins_at_the_face_and_reaches_the_depth() -> None:
    probe = clinical_probe()
    radius = np.hypot(probe.x_mm, probe.z_mm + probe.face_radius_mm)
    assert radius[0] == pytest.approx(probe.face_radius_mm, abs=1e-3)
    assert radius[-1] == pytest.approx(probe.face_radius_mm + probe.depth_mm, abs=1e-3)
    assert probe.x_mm[0, -1] == pytest.approx(probe.face_radius_mm * math.sin(probe.sector_rad / 2), rel=1e-5)
    steps = np.hypot(np.diff(probe.x_mm[-1]), np.diff(probe.z_mm[-1]))
    assert steps == pytest.approx(probe.beam_mm[-1], rel=1e-3)


def test_scan_maps_lead_back_to_the_place_of_each_pixel() -> None:
    probe, fan = acouslic_probe(), acouslic_fan()
    beam, sample = scan_maps(probe, fan)
    inside = fan.mask(probe)
    angle = beam[inside] * probe.beam_rad - probe.sector_rad / 2
    radius = probe.face_radius_mm + sample[inside] * probe.sample_mm
    assert radius * np.sin(angle) == pytest.approx(fan.x_mm[inside], abs=2e-3)
    assert radius * np.cos(angle) - probe.face_radius_mm == pytest.approx(fan.z_mm[inside], abs=2e-3)


@pytest.mark.parametrize("size", [(800, 540), (400, 600)])
def test_fitted_fan_holds_the_whole_sector_and_fills_the_picture(size: tuple[int, int]) -> None:
    probe = clinical_probe()
    fan = fitted_fan(probe, *size)
    rows, columns = np.nonzero(fan.mask(probe))
    room = min(columns.min() + size[0] - 1 - columns.max(), rows.min() + size[1] - 1 - rows.max())
    assert min(rows.min(), columns.min(), size[1] - 1 - rows.max(), size[0] - 1 - columns.max()) >= 2
    assert room <= 12
    area_mm2 = fan.mask(probe).sum() * fan.x_mm_per_px * fan.y_mm_per_px
    reach = probe.face_radius_mm + probe.depth_mm
    assert area_mm2 == pytest.approx(probe.sector_rad / 2 * (reach**2 - probe.face_radius_mm**2), rel=5e-3)


def test_fan_knows_where_a_place_is_in_the_picture() -> None:
    fan = Fan(100, 80, 0.5, 0.25, 50.0, 10.0)
    assert fan.to_px(5.0, 5.0) == (60.0, 30.0)
    assert (fan.x_mm[30, 60], fan.z_mm[30, 60]) == (5.0, 5.0)


def test_beam_is_narrowest_near_the_focus_and_widens_with_depth() -> None:
    probe = acouslic_probe()
    width = probe.lateral_fwhm_mm
    near, focus, deep = (int(np.argmin(abs(probe.depths_mm - depth))) for depth in (20.0, 60.0, 145.0))
    assert width[focus] < 1.1 * width[near]
    assert width[deep] > 1.8 * width[focus]
    assert np.diff(width[focus + 60 :]).min() > 0


@pytest.mark.parametrize(
    "change",
    [{"depth_mm": 0.0}, {"depth_mm": math.nan}, {"sector_rad": 4.0}, {"beams": 3}, {"frequency_mhz": -1.0}],
)
def test_a_probe_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        replace(acouslic_probe(), **change)


@pytest.mark.parametrize("change", [{"width_px": 0}, {"x_mm_per_px": 0.0}, {"y_mm_per_px": math.inf}])
def test_a_picture_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        replace(acouslic_fan(), **change)
