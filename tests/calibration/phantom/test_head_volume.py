"""Reslicing of a volume: places, scale and what is outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_calibration.phantom.cine import Cine
from edgefetal_calibration.phantom.plane import Plane
from edgefetal_calibration.phantom.probe import Fan, clinical_probe, fitted_fan
from edgefetal_calibration.phantom.volume import Volume, read_volume, reslice, reslice_sweep, row_plane, row_sweep
from edgefetal_calibration.phantom.writers import write_mha
from edgefetal_devices.errors import InputError, SourceError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def ball() -> Volume:
    """A bright ball of 12 mm radius about (20, 25, 30) mm, in voxels of three sizes."""
    spacing = (0.5, 0.8, 1.25)
    z, y, x = np.indices((60, 70, 90))
    away = np.sqrt((x * spacing[0] - 20) ** 2 + (y * spacing[1] - 25) ** 2 + (z * spacing[2] - 30) ** 2)
    return Volume(np.where(away < 12, 200, 20).astype(np.uint8), spacing)


def test_grey_at_voxels_is_theirs_and_between_them_a_mixture(ball: Volume) -> None:
    rng = np.random.default_rng(1)
    index = rng.integers(0, np.array(ball.voxels.shape) - 1, (200, 3))
    points = index[:, ::-1] * ball.spacing_mm
    # Rounded to float32 a point may lie a hair outside of the first voxel.
    assert (ball.grey(points) == ball.voxels[tuple(index.T)]).all()
    ramp = Volume(np.arange(0, 250, 10, dtype=np.uint8)[None, None, :].repeat(3, 0).repeat(3, 1), (1.0, 1.0, 1.0))
    assert ramp.grey(np.array([[2.5, 1.0, 1.0], [7.2, 0.4, 0.9]])).tolist() == [25, 72]


def test_outside_of_the_volume_it_is_black(ball: Volume) -> None:
    points = np.array([[-1.0, 5.0, 5.0], [5.0, 500.0, 5.0], [5.0, 5.0, 73.9], [5.0, 5.0, 73.7]])
    assert ball.grey(points).tolist() == [0, 0, 0, 20]


def test_row_plane_shows_the_row_of_the_volume(ball: Volume) -> None:
    fan = Fan(90, 60, 0.5, 1.25, face_x_px=44.5, face_y_px=0.0)
    assert (reslice(ball, row_plane(ball, 31), fan) == ball.voxels[:, 31]).mean() > 0.999


def test_a_slanting_plane_cuts_the_ball_in_a_circle_of_its_size(ball: Volume) -> None:
    lateral, axial = np.array([1.0, 1.0, 0.0]) / 2**0.5, np.array([0.0, 0.0, 1.0])
    # 6 mm beside the middle, along the normal.
    normal = np.cross(lateral, axial)
    plane = Plane(np.array([20.0, 25.0, 30.0]) + 6 * normal - 20 * axial, lateral, axial)
    fan = Fan(200, 200, 0.2, 0.2, face_x_px=99.5, face_y_px=0.0)
    picture = reslice(ball, plane, fan)
    assert (picture > 110).sum() * 0.04 == pytest.approx(np.pi * (12**2 - 6**2), rel=0.03)


def test_a_sweep_has_a_frame_for_every_plane_and_the_pixels_of_its_fan(ball: Volume) -> None:
    probe = clinical_probe()
    fan = fitted_fan(probe, 160, 120)
    cine = reslice_sweep(ball, row_sweep(ball, 10, 50, 5), fan, probe)
    assert cine.frames.shape == (5, 120, 160)
    assert cine.x_mm_per_px == fan.x_mm_per_px
    assert cine.frames[:, ~fan.mask(probe)].max() == 0
    areas = (cine.frames > 110).sum(axis=(1, 2))
    assert areas.argmax() == 2
    assert areas[0] == 0


def test_a_volume_is_read_back_from_its_file(ball: Volume, tmp_path: Path) -> None:
    path = tmp_path / "ball.mha"
    write_mha(Cine(ball.voxels, 10.0, 0.5, 0.8), path)
    path.write_bytes(
        path.read_bytes().replace(b"ElementSpacing = 0.5 0.80000000000000004 1\n", b"ElementSpacing = 0.5 0.8 1.25\n")
    )
    volume = read_volume(path)
    assert volume.spacing_mm == ball.spacing_mm
    assert (volume.voxels == ball.voxels).all()


def test_a_picture_is_no_volume(tmp_path: Path) -> None:
    path = tmp_path / "flat.mha"
    path.write_bytes(
        b"ObjectType = Image\nNDims = 2\nDimSize = 2 2\nElementSpacing = 0.5 0.5\nElementType = MET_UCHAR\n"
        b"ElementDataFile = LOCAL\n1234"
    )
    with pytest.raises(SourceError, match="three voxel sizes"):
        read_volume(path)


def test_a_sweep_of_nothing_is_refused(ball: Volume) -> None:
    with pytest.raises(InputError):
        reslice_sweep(ball, [], Fan(10, 10, 1.0, 1.0, 5.0, 0.0))
    with pytest.raises(InputError):
        row_sweep(ball, 0, 5, 0)


def test_the_real_head_is_read_with_its_three_distances(shared_data: Path) -> None:
    path = shared_data / "fetal_head_volume" / "fetal_head_3DUS.mha"
    if not path.is_file():
        pytest.skip(f"no volume at {path}")
    volume = read_volume(path)
    assert volume.voxels.shape == (153, 232, 211)
    assert volume.spacing_mm == pytest.approx((0.50124, 0.50116, 0.50132), abs=1e-5)
    # The README's mid-skull slice, at half a pixel of the volume's own size.
    fan = Fan(420, 304, 0.25, 0.25, face_x_px=209.5, face_y_px=0.0)
    picture = reslice(volume, row_plane(volume, 112), fan)
    assert picture.mean() == pytest.approx(volume.voxels[:, 112].mean(), rel=0.05)
