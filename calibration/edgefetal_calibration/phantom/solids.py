"""Analytic solids that paint their tissue onto points, in the order of a list: the last one painted is seen.

Points are handled in tiles, and a solid looks only at the tiles that its bounding sphere meets, because a plane through
a fetus meets few of its hundred solids.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefetal_calibration.phantom.tissue import Tissue

Field = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
Vector = npt.NDArray[np.float64]

_TILE_ROWS: Final = 32
_TILE_COLUMNS: Final = 8


@dataclass(frozen=True, eq=False)
class Tiles:
    """Points cut into tiles: x, y, z each of shape (tiles, points), and what it takes to put values back in place.

    Args:
        x: first coordinate in mm.
        y: second one.
        z: third one.
        shape: shape of the points as they were given, without the last axis.
        grid: rows and columns of the points as a picture.
        padded: rows and columns after padding to whole tiles.
        tile: rows and columns of a tile.
    """

    x: Field
    y: Field
    z: Field
    shape: tuple[int, ...]
    grid: tuple[int, int]
    padded: tuple[int, int]
    tile: tuple[int, int]

    @classmethod
    def of(cls, points: npt.NDArray[np.floating[Any]]) -> Tiles:
        """Cut points of shape (..., 3), of which the two axes before the last are rows and columns."""
        shape = points.shape[:-1]
        columns = shape[-1] if len(shape) > 1 else 1
        rows = int(np.prod(shape)) // max(columns, 1)
        # Points without a second axis are a single column, in longer tiles.
        tile = (_TILE_ROWS, _TILE_COLUMNS) if len(shape) > 1 else (_TILE_ROWS * _TILE_COLUMNS, 1)
        padded = (-(-rows // tile[0]) * tile[0], -(-columns // tile[1]) * tile[1])
        picture = np.asarray(points, np.float32).reshape(rows, columns, 3)
        if padded != (rows, columns):
            picture = np.pad(picture, ((0, padded[0] - rows), (0, padded[1] - columns), (0, 0)), mode="edge")
        x, y, z = (_cut(picture[..., k], tile) for k in range(3))
        return cls(x, y, z, shape, (rows, columns), padded, tile)

    def join(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Put values of shape (tiles, points) where the points were."""
        rows, columns = self.padded[0] // self.tile[0], self.padded[1] // self.tile[1]
        picture = values.reshape(rows, columns, *self.tile).swapaxes(1, 2).reshape(self.padded)
        return np.asarray(picture[: self.grid[0], : self.grid[1]].reshape(self.shape))

    def spheres(self) -> tuple[Field, Field]:
        """Middle, shape (tiles, 3), and radius, shape (tiles,), of a sphere around each tile."""
        low = np.stack([v.min(axis=1) for v in (self.x, self.y, self.z)], axis=1)
        high = np.stack([v.max(axis=1) for v in (self.x, self.y, self.z)], axis=1)
        return (low + high) / 2, np.linalg.norm(high - low, axis=1) / 2

    def some(self, index: npt.NDArray[np.intp]) -> Tiles:
        """Return only the tiles of that index; they cannot be joined."""
        return Tiles(self.x[index], self.y[index], self.z[index], self.shape, self.grid, self.padded, self.tile)

    def moved(self, rotation: Vector, origin: Vector) -> Tiles:
        """Return the tiles in the coordinates `rotation @ (point - origin)`."""
        turn, start = rotation.astype(np.float32), origin.astype(np.float32)
        dx, dy, dz = self.x - start[0], self.y - start[1], self.z - start[2]
        x, y, z = (row[0] * dx + row[1] * dy + row[2] * dz for row in turn)
        return Tiles(x, y, z, self.shape, self.grid, self.padded, self.tile)


def _cut(values: Field, tile: tuple[int, int]) -> Field:
    """Cut a picture into tiles, shape (tiles, points)."""
    rows, columns = values.shape[0] // tile[0], values.shape[1] // tile[1]
    return np.ascontiguousarray(values.reshape(rows, tile[0], columns, tile[1]).swapaxes(1, 2)).reshape(
        rows * columns, -1
    )


class Solid(Protocol):
    """Something with a tissue, or several."""

    @property
    def center(self) -> Vector:
        """Middle of a sphere around it, shape (3,)."""
        ...

    @property
    def radius(self) -> float:
        """Radius of that sphere."""
        ...

    def paint(self, points: Tiles, labels: Labels) -> None:
        """Write its tissue where the points are inside, in place."""
        ...


def paint(solids: Sequence[Solid], points: Tiles, labels: Labels) -> None:
    """Paint solids one after another, each only onto the tiles that it may meet.

    Args:
        solids: from the first to the last painted.
        points: in the solids' coordinates.
        labels: shape (tiles, points); changed in place.
    """
    if not solids or not len(labels):
        return
    middles, radii = points.spheres()
    centers = np.array([solid.center for solid in solids], np.float32)
    reach = np.array([solid.radius for solid in solids], np.float32)
    distance = np.linalg.norm(centers[:, None] - middles[None], axis=2)
    meets = distance <= reach[:, None] + radii[None]
    for solid, met in zip(solids, meets, strict=True):
        index = np.flatnonzero(met)
        if len(index):
            painted = labels[index]
            solid.paint(points.some(index), painted)
            labels[index] = painted


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """An ellipsoid, or the box with the same axes.

    Args:
        tissue: inside it.
        center: middle, shape (3,).
        axes: rows are the unit vectors of the axes, shape (3, 3).
        semi: half lengths along them, shape (3,).
        box: whether it is the box.
        only: tissues that it may cover, or None for all.
    """

    tissue: Tissue
    center: Vector
    axes: Vector
    semi: Vector
    box: bool = False
    only: tuple[Tissue, ...] | None = None

    @property
    def radius(self) -> float:
        """Radius of a sphere around it."""
        return float(np.linalg.norm(self.semi)) if self.box else float(self.semi.max())

    def paint(self, points: Tiles, labels: Labels) -> None:
        """Write its tissue where the points are inside, in place."""
        own = points.moved(self.axes / self.semi[:, None], self.center)
        if self.box:
            inside = (np.abs(own.x) < 1) & (np.abs(own.y) < 1) & (np.abs(own.z) < 1)
        else:
            inside = own.x * own.x + own.y * own.y + own.z * own.z < 1
        labels[inside & _may_cover(labels, self.only)] = self.tissue


def _may_cover(labels: Labels, only: tuple[Tissue, ...] | None) -> npt.NDArray[np.bool_] | np.bool_:
    """Say which labels are among some; all of them if None."""
    if only is None:
        return np.True_
    allowed = np.zeros(256, np.bool_)
    allowed[list(only)] = True
    return allowed[labels]


@dataclass(frozen=True, eq=False)
class Strut:
    """A straight limb or bone of round section between two points.

    Args:
        tissue: inside it.
        start: one end of its axis, shape (3,).
        end: the other end.
        start_radius: radius at the start.
        end_radius: radius at the end.
        flat: whether it ends square at the ends of its axis instead of in half balls beyond them.
        flare: share by which it is wider near both ends than in the middle.
        only: tissues that it may cover, or None for all.
    """

    tissue: Tissue
    start: Vector
    end: Vector
    start_radius: float
    end_radius: float
    flat: bool = False
    flare: float = 0.0
    only: tuple[Tissue, ...] | None = None

    @property
    def center(self) -> Vector:
        """Middle of a sphere around it."""
        return (self.start + self.end) / 2

    @property
    def radius(self) -> float:
        """Radius of that sphere."""
        widest = max(self.start_radius, self.end_radius) * (1 + self.flare)
        return float(np.linalg.norm(self.end - self.start)) / 2 + widest

    def paint(self, points: Tiles, labels: Labels) -> None:
        """Write its tissue where the points are inside, in place."""
        labels[self.inside(points) & _may_cover(labels, self.only)] = self.tissue

    def inside(self, points: Tiles) -> npt.NDArray[np.bool_]:
        """Say which points are inside, shape (tiles, points)."""
        along = (self.end - self.start).astype(np.float32)
        start = self.start.astype(np.float32)
        dx, dy, dz = points.x - start[0], points.y - start[1], points.z - start[2]
        share = (dx * along[0] + dy * along[1] + dz * along[2]) / np.float32(along @ along)
        on_axis = np.clip(share, 0, 1)
        dx -= on_axis * along[0]
        dy -= on_axis * along[1]
        dz -= on_axis * along[2]
        widths = np.float32(self.start_radius) + on_axis * np.float32(self.end_radius - self.start_radius)
        if self.flare:
            widths *= 1 + np.float32(self.flare) * (2 * on_axis - 1) ** 4
        within = dx * dx + dy * dy + dz * dz < widths * widths
        return np.asarray(within & (share >= 0) & (share <= 1) if self.flat else within)


def tube(tissue: Tissue, line: Sequence[Vector], radius: float) -> list[Strut]:
    """Return a tube along a line of points."""
    return [Strut(tissue, a, b, radius, radius) for a, b in itertools.pairwise(line)]
