"""Sweeps resliced from a real volume, with exact pose and scale.

Coordinates are in mm from the middle of the volume's first voxel: x along its columns, y along its rows, z along its
slices. How the volume lay in the patient is not looked at: poses are relative to the volume.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edgefetal_calibration.phantom.cine import Cine
from edgefetal_calibration.phantom.plane import Plane
from edgefetal_devices.errors import InputError, SourceError
from edgefetal_runtime.sources.metaimage import open_metaimage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_calibration.phantom.probe import Fan, Probe

_SPACING: Final = re.compile(rb"^ElementSpacing *= *(\S+) +(\S+) +(\S+) *\r?$", re.MULTILINE)
_HEADER_BYTES: Final = 65_536


@dataclass(frozen=True, eq=False)
class Volume:
    """Grey levels in space.

    Args:
        voxels: shape (slices, rows, columns), uint8.
        spacing_mm: distance of voxels along columns (x), rows (y) and slices (z).
    """

    voxels: npt.NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]

    @property
    def size_mm(self) -> npt.NDArray[np.float64]:
        """Return the coordinates of the last voxel, shape (3,)."""
        return (np.array(self.voxels.shape[::-1]) - 1.0) * self.spacing_mm

    def grey(self, points_mm: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
        """Return grey levels at points, shape (..., 3), interpolated linearly; 0 outside the volume."""
        at = np.moveaxis(points_mm, -1, 0) / np.reshape(
            np.array(self.spacing_mm, np.float32), (3, *[1] * (points_mm.ndim - 1))
        )
        last = np.array(self.voxels.shape[::-1])
        inside = np.ones(at.shape[1:], np.bool_)
        low, share = [], []
        for axis in range(3):
            inside &= (at[axis] >= 0) & (at[axis] <= last[axis] - 1)
            whole = np.clip(np.floor(at[axis]), 0, max(last[axis] - 2, 0)).astype(np.intp)
            low.append(whole)
            share.append((at[axis] - whole).astype(np.float32))
        total = np.zeros(at.shape[1:], np.float32)
        for corner in np.ndindex(2, 2, 2):
            # A volume of one slice has no voxel after it.
            x, y, z = (np.minimum(low[axis] + corner[axis], last[axis] - 1) for axis in range(3))
            weight = np.prod([share[axis] if corner[axis] else 1 - share[axis] for axis in range(3)], axis=0)
            total += weight * self.voxels[z, y, x]
        return np.where(inside, np.rint(total), 0).astype(np.uint8)


def read_volume(path: Path) -> Volume:
    """Read a MetaImage volume of 8 bits.

    Raises:
        SourceError: the file cannot be read, or does not state the three distances of its voxels.
        ScaleError: they cannot be pixel sizes.
    """
    source = open_metaimage(path)
    with path.open("rb") as stream:
        match = _SPACING.search(stream.read(_HEADER_BYTES).partition(b"ElementDataFile")[0])
    try:
        x_mm, y_mm, z_mm = (float(text) for text in match.groups()) if match else (0.0, 0.0, 0.0)
    except ValueError:
        x_mm = y_mm = z_mm = 0.0
    if not min(x_mm, y_mm, z_mm) > 0:
        raise SourceError(f"{path} does not state three voxel sizes in mm (ElementSpacing); export it again.")
    return Volume(np.stack([frame.pixels for frame in source.frames()]), (x_mm, y_mm, z_mm))


def row_plane(volume: Volume, row: float) -> Plane:
    """Return the plane of `voxels[:, row]`, its picture's columns along x and its depth along z.

    The probe's face touches the middle of the first slice.
    """
    middle_mm = volume.size_mm[0] / 2
    origin = np.array([middle_mm, row * volume.spacing_mm[1], 0.0])
    return Plane(origin, np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0]))


def reslice(volume: Volume, plane: Plane, fan: Fan, probe: Probe | None = None) -> npt.NDArray[np.uint8]:
    """Cut the volume with a plane: a picture of the fan's pixels, shape (H, W).

    Args:
        volume: what to cut.
        plane: where, in the volume's coordinates.
        fan: pixels of the picture; the middle of its face is the plane's origin.
        probe: the beams outside of which the picture is black; None for the whole picture.
    """
    picture = volume.grey(plane.points(fan.x_mm, fan.z_mm))
    return picture if probe is None else np.where(fan.mask(probe), picture, 0).astype(np.uint8)


def reslice_sweep(
    volume: Volume, planes: Iterable[Plane], fan: Fan, probe: Probe | None = None, frames_per_s: float = 20.0
) -> Cine:
    """Cut the volume along a path of planes: one frame for each.

    Raises:
        InputError: the path is empty.
    """
    frames = [reslice(volume, plane, fan, probe) for plane in planes]
    if not frames:
        raise InputError("A sweep of no planes has no frames; give at least one.")
    return Cine(np.stack(frames), frames_per_s, fan.x_mm_per_px, fan.y_mm_per_px)


def row_sweep(volume: Volume, first_row: float, last_row: float, count: int) -> list[Plane]:
    """Return planes from one row of the volume to another at equal steps.

    Raises:
        InputError: there are fewer planes than one.
    """
    if count < 1:
        raise InputError(f"A sweep of {count} frames shows nothing; give at least 1.")
    return [row_plane(volume, float(row)) for row in np.linspace(first_row, last_row, count)]
