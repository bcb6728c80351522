"""A fetus in a womb behind a belly's wall, and what a plane through them shows.

World coordinates are in mm about the middle of the womb: x to the mother's left, y to her head, z to her front.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from edgefetal_calibration.phantom.fetus import Fetus, SizeScores, long_bone, random_posture, size_for_age
from edgefetal_calibration.phantom.plane import Plane
from edgefetal_calibration.phantom.solids import Field, Labels, Strut, Tiles, Vector
from edgefetal_calibration.phantom.tissue import Tissue
from edgefetal_runtime.biometry.ellipse import Ellipse, ellipse_from_points

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefetal_calibration.phantom.fetus import Shaft

    Seen = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], npt.NDArray[np.bool_]]

# How far a plane may be from the standard one and still carry its name: the angle between them, and the distance of the
# middle of the structure from it, as share of OFD and of AC / pi. Within the narrower pair for the abdomen the stomach
# and the portal sinus are both cut; within the wider one it is still a section across the upper abdomen.
HEAD_LIMITS: Final = (math.radians(18.0), 0.10)
ABDOMEN_LIMITS: Final = (math.radians(36.0), 0.26)
ABDOMEN_OPTIMAL: Final = (math.radians(14.0), 0.065)
# Share of an outline that must be in the fan.
MIN_SEEN: Final = 0.7
# Beyond this angle to the trunk's axis a plane has no outline of an abdomen.
_MAX_OBLIQUE: Final = math.cos(math.radians(60.0))
# A shaft more upright than this in the picture is not measured (ISUOG 2019); at twice that its quality is zero.
_FEMUR_MAX_SLOPE_RAD: Final = math.radians(45.0)

_DIRECTIONS: Final = 180
_BISECTIONS: Final = 30
_SKIN_MM: Final = 2.0
_WOMB_WALL_MM: Final = 7.0
_BELLY_DEPTH_MM: Final = 55.0
_BELLY_ROOM: Final = (1.25, 1.15)
_FLANK_MM: Final = 22.0
# Half of a belly's width, and half of the way from the pubis to the ribs.
_HALF_WIDTH_MM: Final = (135.0, 170.0)
_HALF_LENGTH_MM: Final = (160.0, 200.0)
# The womb bridges gaps between parts of the fetus narrower than a few times this.
_WOMB_BEND_MM: Final = 16.0
_BELLY_BEND_MM: Final = 24.0
_BELLY_GIVES_MM: Final = 45.0
# How unevenly the fluid is spread: standard deviation of the logarithm of its thickness.
_FOLDS: Final = 0.9
_FOLD_MM: Final = (90.0, 180.0)
# About how round the corners of the womb's inside are.
_CORNER_MM: Final = 6.0
# Usual thickness of the fluid by age in weeks.
_FILM_WEEKS: Final = (14.0, 20.0, 26.0, 32.0, 40.0)
_FILM_MM: Final = (8.0, 7.0, 4.5, 3.0, 2.0)
_PLACENTA_SPREAD_RAD: Final = (0.9, 1.3)
_MARGIN_MM: Final = 2.0


class Presentation(str, Enum):
    """How the fetus lies."""

    CEPHALIC = "cephalic"
    BREECH = "breech"
    TRANSVERSE = "transverse"


class PlaneName(str, Enum):
    """What a plane shows."""

    HEAD = "head"
    ABDOMEN = "abdomen"
    FEMUR = "femur"
    NONE = "none"


@dataclass(frozen=True, eq=False)
class PlaneTruth:
    """What a plane shows, in the plane's own x and z in mm.

    Args:
        plane: the standard plane that it is near enough to, or none.
        quality: 1 at the standard plane, 0 at the limits that still carry its name and where there is none.
        optimal: whether it is an abdomen with both stomach and portal sinus.
        head: the skull's outer outline, None where the plane misses the skull.
        abdomen: the ellipse along the skin of the trunk, None where the plane does not cross the trunk.
        abdomen_outline: the skin's outline itself, shape (N, 2).
        femur: the middles of the two cut ends of a shaft that the plane cuts from end to end, shape (2, 2).
        shaft: which of the two femurs, or -1.
    """

    plane: PlaneName
    quality: float
    optimal: bool
    head: Ellipse | None
    abdomen: Ellipse | None
    abdomen_outline: Vector | None
    femur: Vector | None
    shaft: int

    def outline(self, name: PlaneName) -> Vector:
        """Return points around a structure, or the ends of a shaft, shape (N, 2); none where the plane misses it."""
        points = {
            PlaneName.HEAD: None if self.head is None else self.head.points(_DIRECTIONS),
            PlaneName.ABDOMEN: self.abdomen_outline,
            PlaneName.FEMUR: self.femur,
        }.get(name)
        return np.empty((0, 2)) if points is None else points

    @property
    def hc_mm(self) -> float | None:
        """Head circumference as this plane shows it."""
        return None if self.head is None else self.head.circumference()

    @property
    def ac_mm(self) -> float | None:
        """Abdominal circumference as this plane shows it."""
        return None if self.abdomen is None else self.abdomen.circumference()

    @property
    def fl_mm(self) -> float | None:
        """Femur length as this plane shows it."""
        return None if self.femur is None else float(np.linalg.norm(self.femur[1] - self.femur[0]))


@dataclass(frozen=True)
class Wall:
    """The belly's wall: thickness of its layers in mm."""

    fat_mm: float = 14.0
    muscle_mm: float = 9.0

    @property
    def total_mm(self) -> float:
        """Distance from the skin to the womb's inside."""
        return _SKIN_MM + self.fat_mm + self.muscle_mm + _WOMB_WALL_MM


@dataclass(frozen=True)
class Build:
    """How the mother is built around the womb.

    Args:
        half_width_mm: half of the belly's width.
        half_length_mm: half of the way from the pubis to the ribs.
        aside: where the womb lies within the width that it leaves free, from -1, at her left, to 1, at her right.
    """

    half_width_mm: float
    half_length_mm: float
    aside: float


@dataclass(frozen=True, eq=False)
class Placenta:
    """A patch on the womb's wall.

    Args:
        towards: unit vector from the womb's middle to that of the patch, shape (3,).
        thickness_mm: in its middle.
        half_angle_rad: how far it spreads, seen from the womb's middle.
    """

    towards: Vector
    thickness_mm: float
    half_angle_rad: float


@dataclass(frozen=True, eq=False)
class Fluid:
    """The fluid between the fetus and the womb's wall, which closes around the fetus.

    Args:
        film_mm: its usual thickness.
        waves: wave vectors of the wall's folds in 1/mm, shape (K, 3).
        phases: of the folds, shape (K,).
    """

    film_mm: float
    waves: Vector
    phases: Vector

    def beyond(
        self, fetus: Fetus, own: tuple[Field, Field, Field], place: tuple[Field, Field, Field]
    ) -> tuple[Field, Field]:
        """Return how far points lie beyond the womb's inside and beyond what the belly's wall closes around, in mm.

        The first is less than 0 in the fluid; the second is the same, but smoother.

        Args:
            fetus: in the womb.
            own: coordinates of the points in the fetus.
            place: their coordinates in the world.
        """
        away = [_distance(rod, own) for rod in fetus.bulk]
        folds = np.zeros(own[0].shape, np.float32)
        for wave, phase in zip(self.waves.astype(np.float32), self.phases.astype(np.float32), strict=True):
            folds += np.sin(wave[0] * place[0] + wave[1] * place[1] + wave[2] * place[2] + phase)
        film = np.exp(folds * np.float32(_FOLDS / math.sqrt(len(self.phases) / 2))) * np.float32(self.film_mm)
        return _soft_least(away, _WOMB_BEND_MM) - film, _soft_least(away, _BELLY_BEND_MM) - film


def _soft_least(values: list[Field], bend: float) -> Field:
    """Return about the least of values, rounded off where several are within `bend` of one another."""
    least = np.minimum.reduce(values)
    total = np.zeros(least.shape, np.float32)
    for value in values:
        total += np.exp((least - value) * np.float32(1 / bend))
    return np.asarray(least - np.log(total) * np.float32(bend), np.float32)


def _distance(rod: Shaft, points: tuple[Field, Field, Field]) -> Field:
    """Distance of points from the surface of a rod with round ends."""
    start, along = rod.start.astype(np.float32), (rod.end - rod.start).astype(np.float32)
    x, y, z = (points[k] - start[k] for k in range(3))
    share = np.clip((x * along[0] + y * along[1] + z * along[2]) / np.float32(along @ along), 0, 1)
    x, y, z = x - share * along[0], y - share * along[1], z - share * along[2]
    return np.asarray(np.sqrt(x * x + y * y + z * z) - np.float32(rod.radius), np.float32)


@dataclass(frozen=True, eq=False)
class Scene:
    """All that a probe on the belly can meet.

    Args:
        fetus: in its own coordinates.
        rotation: rows are the fetus's axes in the world, shape (3, 3).
        origin: the fetus's origin in the world.
        womb_semi_mm: half axes of the womb's inside along the world's axes.
        wall: in front of it.
        build: of the mother.
        placenta: in it.
        fluid: around the fetus.
    """

    fetus: Fetus
    rotation: Vector
    origin: Vector
    womb_semi_mm: Vector
    wall: Wall
    build: Build
    placenta: Placenta
    fluid: Fluid

    @cached_property
    def belly(self) -> tuple[Vector, Vector]:
        """Middle and half axes of the ellipsoid whose front is the belly's skin.

        It reaches from the pubis, on which the womb stands, to the ribs, or to the top of a womb that is longer.
        """
        wall = self.wall.total_mm
        across, along, deep = self.womb_semi_mm
        # What the womb itself needs.
        least_across = _BELLY_ROOM[0] * across + wall + _FLANK_MM
        least_along = _BELLY_ROOM[1] * along + wall + _FLANK_MM
        half_width = max(least_across, self.build.half_width_mm)
        half_length = max(least_along, self.build.half_length_mm)
        aside = (1 - least_across / half_width) * self.build.aside
        above = 1 - least_along / half_length
        # As high over the middle of the womb as if the belly's middle were there.
        deep = (deep + wall + _BELLY_DEPTH_MM) / math.sqrt(1 - aside**2 - above**2)
        semi = np.array([half_width, half_length, deep])
        return np.array([aside * half_width, above * half_length, -_BELLY_DEPTH_MM]), semi

    def skin_at(self, x_mm: float, y_mm: float) -> tuple[Vector, Vector]:
        """Return the point of the belly's skin in front of x, y, and the unit vector out of it there.

        Beyond the belly's edge it is the edge.
        """
        middle, semi = self.belly
        x, y = (x_mm - middle[0]) / semi[0], (y_mm - middle[1]) / semi[1]
        share = math.hypot(x, y)
        shrink = min(1.0, 0.97 / share) if share > 0 else 1.0
        x, y = shrink * x, shrink * y
        unit = np.array([x, y, math.sqrt(1 - x * x - y * y)])
        normal = unit / semi
        normal /= np.linalg.norm(normal)
        return self._skin_below(middle + semi * unit, -normal), normal

    def skin_along(self, start: Vector, towards: Vector) -> Vector:
        """Return where a ray from within the body leaves the belly."""
        middle, semi = self.belly
        p, d = (start - middle) / semi, towards / semi
        a, b, c = float(d @ d), float(p @ d), float(p @ p) - 1
        return self._skin_below(start + (-b + math.sqrt(max(b * b - a * c, 0.0))) / a * towards, -towards)

    def _skin_below(self, start: Vector, inwards: Vector) -> Vector:
        """Return where a ray from the belly's greatest extent inwards first meets the skin."""
        steps = np.linspace(0.0, 2.5 * _BELLY_GIVES_MM, 100)
        tiles = Tiles.of((start + steps[:, None] * inwards)[:, None])
        depth = tiles.join(self._depths(tiles, tiles.moved(self.rotation, self.origin))[2])[:, 0]
        first = int(np.argmax(depth > 0))
        if first == 0:
            return np.asarray(start)
        share = float(depth[first - 1] / (depth[first - 1] - depth[first]))
        return np.asarray(start + (steps[first - 1] + share * (steps[first] - steps[first - 1])) * inwards)

    def to_fetus(self, points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Move world points, shape (..., 3), to the fetus's coordinates."""
        return np.asarray((points - self.origin.astype(points.dtype)) @ self.rotation.T.astype(points.dtype))

    def to_world(self, points: Vector) -> Vector:
        """Move points, shape (..., 3), from the fetus's coordinates to the world's."""
        return np.asarray(points @ self.rotation + self.origin)

    def labels(self, points: npt.NDArray[np.floating[Any]]) -> Labels:
        """Return the tissue of world points, shape (..., 3), as uint8 of shape (...)."""
        return self.tissue_and_material(points)[0]

    def material(self, points: npt.NDArray[np.floating[Any]]) -> Field:
        """Return coordinates at rest of world points, shape (..., 3), float32.

        The fetus's own inside it and the world's elsewhere, so that scatterers keep to their tissue when it moves.
        """
        return self.tissue_and_material(points)[1]

    def tissue_and_material(self, points: npt.NDArray[np.floating[Any]]) -> tuple[Labels, Field]:
        """Return `labels` and `material` in one go."""
        tiles = Tiles.of(points)
        own = tiles.moved(self.rotation, self.origin)
        labels, within = self._mother(tiles, own)
        of_fetus = self.fetus.labels(own)
        # A hand, a foot or a loop of cord that would reach out of the womb is pressed flat against its outside.
        inside = (of_fetus > 0) & within
        labels[inside] = of_fetus[inside]
        material = np.empty((*points.shape[:-1], 3), np.float32)
        for k, (fetal, worldly) in enumerate(((own.x, tiles.x), (own.y, tiles.y), (own.z, tiles.z))):
            material[..., k] = tiles.join(np.where(inside, fetal, worldly))
        return np.asarray(tiles.join(labels), np.uint8), material

    def _mother(self, points: Tiles, own: Tiles) -> tuple[Labels, npt.NDArray[np.bool_]]:
        """Return the tissue of points if there were no fetus, and which may be the fetus, both (tiles, points).

        Args:
            points: in the world.
            own: the same in the fetus's coordinates.
        """
        inner, thick, skin, within = self._depths(points, own)
        labels = np.full(inner.shape, Tissue.MUSCLE, np.uint8)
        labels[inner < thick + _WOMB_WALL_MM] = Tissue.UTERUS
        labels[inner < thick] = Tissue.PLACENTA
        labels[inner < 0] = Tissue.FLUID
        front = (points.z > self.belly[0][2]) & (inner > thick)
        fat = _SKIN_MM + self.wall.fat_mm
        labels[front & (skin < fat + self.wall.muscle_mm)] = Tissue.MUSCLE
        labels[front & (skin < fat)] = Tissue.FAT
        # The probe sinks into the skin a little, so what lies before it is skin too.
        labels[front & (skin < _SKIN_MM)] = Tissue.SKIN
        return labels, within

    def _depths(self, points: Tiles, own: Tiles) -> tuple[Field, Field, Field, npt.NDArray[np.bool_]]:
        """Return where points lie, each (tiles, points).

        How far beyond the womb's inside, how thick the placenta is there, how deep below the skin, all in mm, and
        whether the womb may reach there.
        """
        a, b, c = (np.float32(v) for v in self.womb_semi_mm)
        x, y, z = points.x, points.y, points.z
        u, v, w = x / a, y / b, z / c
        radius = np.sqrt(_roundness(u * u, v * v, w * w))
        inner, smooth = self.fluid.beyond(self.fetus, (own.x, own.y, own.z), (x, y, z))
        # A shell's thickness is exact on the axes and a little off between them.
        # Both are met smoothly, or pockets would have corners.
        inner = -_soft_least([-inner, (1 - radius) * np.float32(self.womb_semi_mm.mean())], _CORNER_MM)
        tx, ty, tz = (np.float32(t) for t in self.placenta.towards)
        far = np.sqrt(x * x + y * y + z * z) + np.float32(1e-6)
        share = np.arccos(np.clip((x * tx + y * ty + z * tz) / far, -1, 1)) / np.float32(self.placenta.half_angle_rad)
        thick = np.float32(self.placenta.thickness_mm) * np.sqrt(np.maximum(0, 1 - share * share))
        middle, semi = (v.astype(np.float32) for v in self.belly)
        p, q, r = (x - middle[0]) / semi[0], (y - middle[1]) / semi[1], (z - middle[2]) / semi[2]
        out = np.sqrt(p * p + q * q + r * r)
        gradient = np.sqrt((p / semi[0]) ** 2 + (q / semi[1]) ** 2 + (r / semi[2]) ** 2)
        skin = (1 - out) * out / np.maximum(gradient, np.float32(1e-9))
        # The wall lies on the womb, but no deeper below the belly's greatest extent than it can give.
        lies = np.float32(self.wall.total_mm) + thick - smooth
        skin = np.minimum(skin, np.maximum(lies, skin - np.float32(_BELLY_GIVES_MM)))
        return inner, thick, skin, radius < 1

    def head_section(self, plane: Plane) -> Ellipse | None:
        """Return the skull's outer outline in a plane's x and z, or None where the plane misses it."""
        axes = self.fetus.head_axes @ self.rotation
        middle = self.to_world(self.fetus.head_center)
        return _section(plane, middle, axes, self.fetus.head_semi_mm)

    def abdomen_section(self, plane: Plane) -> Vector | None:
        """Return the outline of the trunk's skin in a plane's x and z, shape (N, 2), or None where there is none."""
        normal = self.rotation @ plane.normal
        if abs(normal[1]) < _MAX_OBLIQUE:
            return None
        # Where the trunk's axis, x = z = 0, meets the plane.
        origin = self.to_fetus(plane.origin)
        height = float(normal @ origin) / float(normal[1])
        if float(self.fetus.trunk_rho(np.array([1.0, height, 0.0]))) >= 1:
            return None
        hit = self.to_world(np.array([0.0, height, 0.0])) - plane.origin
        middle = np.array([hit @ plane.lateral, hit @ plane.axial])
        angle = np.linspace(0.0, 2 * math.pi, _DIRECTIONS, endpoint=False)
        towards = np.stack((np.cos(angle), np.sin(angle)), axis=1)
        low, high = np.zeros(_DIRECTIONS), np.full(_DIRECTIONS, 4.0 * self.fetus.diameter_mm)
        for _ in range(_BISECTIONS):
            radius = (low + high) / 2
            place = middle + radius[:, None] * towards
            world = plane.origin + place[:, :1] * plane.lateral + place[:, 1:] * plane.axial
            outside = self.fetus.trunk_rho(self.to_fetus(world)) >= 1
            high = np.where(outside, radius, high)
            low = np.where(outside, low, radius)
        return np.asarray(middle + ((low + high) / 2)[:, None] * towards)

    def femur_section(self, plane: Plane) -> tuple[Vector, int] | None:
        """Return the middles of the ends of a shaft cut along its whole length, shape (2, 2), and which shaft it is."""
        for index, shaft in enumerate(self.fetus.femurs):
            ends = self.to_world(np.stack((shaft.start, shaft.end)))
            off = (ends - plane.origin) @ plane.normal
            if np.abs(off).max() < 0.95 * shaft.radius:
                return _cut_ends(plane, ends), index
        return None

    def truth(self, plane: Plane, seen: Seen | None = None) -> PlaneTruth:
        """Say what a plane shows.

        Args:
            plane: where the probe images.
            seen: says which points, x and z in mm of the plane, are in the fan; all of them if None.
        """
        seen = (lambda x, _: np.ones(x.shape, np.bool_)) if seen is None else seen
        head, outline, femur = self.head_section(plane), self.abdomen_section(plane), self.femur_section(plane)
        abdomen = None if outline is None else ellipse_from_points(outline)
        qualities = {PlaneName.NONE: 0.0}
        optimal = False
        if head is not None and _share_seen(head.points(_DIRECTIONS), seen) >= MIN_SEEN:
            angle, away = self.to_head_plane(plane)
            qualities[PlaneName.HEAD] = _quality(angle, away / self.fetus.size.ofd_mm, HEAD_LIMITS)
        if outline is not None and abdomen is not None and _share_seen(outline, seen) >= MIN_SEEN:
            angle, away = self.to_abdomen_plane(plane)
            share = away / self.fetus.diameter_mm
            qualities[PlaneName.ABDOMEN] = _quality(angle, share, ABDOMEN_LIMITS)
            optimal = _quality(angle, share, ABDOMEN_OPTIMAL) > 0
        if femur is not None and _share_seen(femur[0], seen) >= 1:
            qualities[PlaneName.FEMUR] = self._femur_quality(plane, *femur)
        best = max(qualities, key=lambda name: qualities[name])
        return PlaneTruth(
            plane=best,
            quality=qualities[best],
            optimal=optimal and best is PlaneName.ABDOMEN,
            head=head,
            abdomen=abdomen,
            abdomen_outline=outline,
            femur=None if femur is None else femur[0],
            shaft=-1 if femur is None else femur[1],
        )

    def to_head_plane(self, plane: Plane) -> tuple[float, float]:
        """Angle to the head's standard plane in radians, and distance of its middle in mm."""
        return self._to_standard(plane, self.fetus.head_center, self.fetus.head_axes[1])

    def to_abdomen_plane(self, plane: Plane) -> tuple[float, float]:
        """Angle to the abdomen's standard plane in radians, and distance of its middle in mm."""
        return self._to_standard(plane, np.zeros(3), np.array([0.0, 1.0, 0.0]))

    def _to_standard(self, plane: Plane, middle: Vector, normal: Vector) -> tuple[float, float]:
        cosine = abs(float((self.rotation @ plane.normal) @ normal))
        away = abs(float((self.to_world(middle) - plane.origin) @ plane.normal))
        return math.acos(min(1.0, cosine)), away

    def _femur_quality(self, plane: Plane, ends: Vector, index: int) -> float:
        """1 for a level shaft cut through its middle."""
        shaft = self.fetus.femurs[index]
        off = (self.to_world(np.stack((shaft.start, shaft.end))) - plane.origin) @ plane.normal
        along = ends[1] - ends[0]
        slope = math.atan2(abs(along[1]), abs(along[0]))
        return max(0.0, 1 - float(np.abs(off).max()) / shaft.radius) * max(
            0.0, 1 - max(0.0, slope - _FEMUR_MAX_SLOPE_RAD) / _FEMUR_MAX_SLOPE_RAD
        )

    def plane_of(self, name: PlaneName, turn_rad: float = 0.0, shaft: int = 0) -> Plane:
        """Return the standard plane of a structure as a probe on the belly's front would image it.

        Args:
            name: head, abdomen or femur.
            turn_rad: how far the probe is turned within the plane, away from straight towards the mother's back.
            shaft: which femur.
        """
        backwards = np.array([0.0, 0.0, -1.0])
        if name is PlaneName.FEMUR:
            bone = self.fetus.femurs[shaft]
            middle = self.to_world((bone.start + bone.end) / 2)
            along = (bone.end - bone.start) @ self.rotation
            normal = np.cross(along, backwards)
        elif name is PlaneName.HEAD:
            middle = self.to_world(self.fetus.head_center)
            normal = self.fetus.head_axes[1] @ self.rotation
        else:
            middle = self.origin
            normal = self.rotation[1]
        normal = normal / np.linalg.norm(normal)
        axial = backwards - (backwards @ normal) * normal
        axial /= np.linalg.norm(axial)
        side = np.cross(axial, normal)
        axial = math.cos(turn_rad) * axial + math.sin(turn_rad) * side
        lateral = np.cross(axial, normal)
        # The picture's right is the mother's left, or else her feet.
        if lateral @ np.array([1.0, -0.5, 0.0]) < 0:
            lateral = -lateral
        return Plane(self.skin_along(middle, -axial), lateral, axial)

    def head_mask(self, truth: PlaneTruth, x_mm: Vector, z_mm: Vector) -> Labels:
        """Return 1 inside the skull's outer outline, for columns at x and rows at z, shape (rows, columns)."""
        mask = np.zeros((len(z_mm), len(x_mm)), np.uint8)
        if truth.head is not None:
            rows, columns = _box(truth.head.points(_DIRECTIONS), x_mm, z_mm)
            u, v = truth.head.normalised(x_mm[columns][None, :], z_mm[rows][:, None])
            mask[rows, columns] = u * u + v * v < 1
        return mask

    def abdomen_mask(self, plane: Plane, truth: PlaneTruth, x_mm: Vector, z_mm: Vector) -> Labels:
        """Return 1 inside the skin of the trunk, likewise."""
        mask = np.zeros((len(z_mm), len(x_mm)), np.uint8)
        if truth.abdomen_outline is not None:
            rows, columns = _box(truth.abdomen_outline, x_mm, z_mm)
            x, z = np.meshgrid(x_mm[columns], z_mm[rows])
            mask[rows, columns] = self.fetus.trunk_rho(self.to_fetus(plane.points(x, z).astype(np.float64))) < 1
        return mask

    def femur_mask(self, plane: Plane, truth: PlaneTruth, x_mm: Vector, z_mm: Vector) -> Labels:
        """Return 1 inside the shaft, likewise."""
        mask = np.zeros((len(z_mm), len(x_mm)), np.uint8)
        if truth.femur is not None:
            shaft = self.fetus.femurs[truth.shaft]
            room = 2 * shaft.radius
            rows, columns = _box(np.concatenate((truth.femur - room, truth.femur + room)), x_mm, z_mm)
            x, z = np.meshgrid(x_mm[columns], z_mm[rows])
            tiles = Tiles.of(plane.points(x, z).astype(np.float64) if x.size else np.zeros((1, 1, 3)))
            if x.size:
                inside = _bone(shaft).inside(tiles.moved(self.rotation, self.origin))
                mask[rows, columns] = tiles.join(inside)
        return mask


def _roundness(u2: npt.NDArray[Any], v2: npt.NDArray[Any], w2: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Square of a norm between that of an ellipsoid and that of a box, from the squares of shares of the half axes.

    A womb is fuller than an ellipsoid.
    """
    return np.asarray(0.5 * (u2 + v2 + w2) + 0.5 * np.sqrt(u2 * u2 + v2 * v2 + w2 * w2))


def _bone(shaft: Shaft) -> Strut:
    return long_bone(shaft.start, shaft.end, shaft.radius)


def _box(points: Vector, x_mm: Vector, z_mm: Vector) -> tuple[slice, slice]:
    """Rows and columns of the grid that hold points, shape (N, 2)."""
    low, high = points.min(axis=0) - _MARGIN_MM, points.max(axis=0) + _MARGIN_MM
    columns = slice(int(np.searchsorted(x_mm, low[0])), int(np.searchsorted(x_mm, high[0])))
    rows = slice(int(np.searchsorted(z_mm, low[1])), int(np.searchsorted(z_mm, high[1])))
    return rows, columns


def _quality(angle_rad: float, away: float, limits: tuple[float, float]) -> float:
    """1 at the standard plane and 0 at the limits of angle and distance, and beyond."""
    return max(0.0, 1 - angle_rad / limits[0]) * max(0.0, 1 - away / limits[1])


def _share_seen(points: Vector, seen: Seen) -> float:
    """Share of points, shape (N, 2), that are in the fan."""
    return float(np.mean(seen(points[:, 0], points[:, 1])))


def _section(plane: Plane, middle: Vector, axes: Vector, semi: Vector) -> Ellipse | None:
    """Cut an ellipsoid with a plane; None where they do not meet.

    In units of the half axes the ellipsoid is the unit ball, so that the section is where
    `|o + x e + z f| = 1`: a conic in x and z whose centre and axes follow from its 2 x 2 matrix.
    """
    scaled = axes / semi[:, None]
    o = scaled @ (plane.origin - middle)
    basis = np.stack((scaled @ plane.lateral, scaled @ plane.axial))
    matrix = basis @ basis.T
    center = -np.linalg.solve(matrix, basis @ o)
    nearest = o + center @ basis
    room = 1 - float(nearest @ nearest)
    if room <= 0:
        return None
    values, vectors = np.linalg.eigh(matrix)
    major, minor = math.sqrt(room / values[0]), math.sqrt(room / values[1])
    angle = math.atan2(vectors[1, 0], vectors[0, 0]) % math.pi
    return Ellipse(float(center[0]), float(center[1]), major, minor, angle)


def _cut_ends(plane: Plane, ends: Vector) -> Vector:
    """Return where the middle line of a cut shaft meets its square ends, shape (2, 2) in the plane's x and z.

    The middle line of the cut is the axis seen along the plane's normal.
    """
    along = ends[1] - ends[0]
    along /= np.linalg.norm(along)
    flat = along - (along @ plane.normal) * plane.normal
    cut = []
    for end in ends:
        foot = end - ((end - plane.origin) @ plane.normal) * plane.normal
        # Slide along the middle line into the end's square face.
        place = foot + ((end - foot) @ along) / (flat @ along) * flat - plane.origin
        cut.append((place @ plane.lateral, place @ plane.axial))
    return np.array(cut)


def random_scene(
    rng: np.random.Generator,
    weeks: float,
    *,
    presentation: Presentation | None = None,
    scores: SizeScores | None = None,
    facing_rad: float | None = None,
    tilt_rad: float = 0.3,
) -> Scene:
    """Draw a fetus, its posture and place, the womb, the placenta and the wall.

    Args:
        rng: source of all chances.
        weeks: gestational age, 14 to 40.
        presentation: how the fetus lies; drawn if None, transverse mostly in early pregnancy.
        scores: size for age; drawn if None.
        facing_rad: where the fetus's front points, from the mother's front to her left; drawn if None.
        tilt_rad: how far the fetus may lie aslant.

    Raises:
        InputError: the age is out of range.
    """
    if scores is None:
        head, belly, bone = np.clip(rng.normal(0.0, 0.8, 3), -1.8, 1.8)
        apart = np.clip(rng.normal(0.0, 0.4, 2), -0.8, 0.8)
        scores = SizeScores(float(head + apart[0]), float(head + apart[1]), float(belly), float(bone))
    fetus = Fetus(size_for_age(weeks, scores), random_posture(rng))
    drawn = _draw_presentation(rng, weeks)
    presentation = drawn if presentation is None else presentation
    facing = float(rng.uniform(-math.pi, math.pi)) if facing_rad is None else facing_rad
    rotation = _rotation(presentation, facing, rng.uniform(-tilt_rad, tilt_rad, 2), float(rng.choice((-1.0, 1.0))))
    return _around(fetus, rotation, rng)


def _draw_presentation(rng: np.random.Generator, weeks: float) -> Presentation:
    """Draw how the fetus lies: at random in early pregnancy, mostly head down at the end."""
    down = min(0.95, max(0.4, 0.4 + 0.55 * (weeks - 20) / 16))
    chance = rng.uniform()
    if chance < down:
        return Presentation.CEPHALIC
    return Presentation.BREECH if chance < down + 0.6 * (1 - down) else Presentation.TRANSVERSE


def _rotation(presentation: Presentation, facing: float, tilt: Vector, side: float) -> Vector:
    """Rows are the fetus's axes in the world."""
    up = {
        Presentation.CEPHALIC: np.array([tilt[0], -1.0, tilt[1]]),
        Presentation.BREECH: np.array([tilt[0], 1.0, tilt[1]]),
        Presentation.TRANSVERSE: np.array([side, tilt[0], tilt[1]]),
    }[presentation]
    up /= np.linalg.norm(up)
    front = np.array([0.0, 0.0, 1.0]) - up[2] * up
    front /= np.linalg.norm(front)
    # About the long axis, so that the front turns to the mother's left for a fetus that lies along her.
    left = np.cross(up, front) * (-1.0 if presentation is Presentation.CEPHALIC else 1.0)
    front = math.cos(facing) * front + math.sin(facing) * left
    return np.stack((np.cross(up, front), up, front))


def _around(fetus: Fetus, rotation: Vector, rng: np.random.Generator) -> Scene:
    """Put a womb, a placenta and a wall around a fetus."""
    surface = fetus.surface() @ rotation
    low, high = surface.min(axis=0), surface.max(axis=0)
    towards = rng.normal(size=3) * np.array([0.8, 0.4, 1.0]) + np.array([0.0, 0.15, 0.0])
    towards /= np.linalg.norm(towards)
    thickness = float(rng.uniform(0.85, 1.15)) * min(38.0, 4.0 + fetus.size.weeks)
    # The fetus keeps away from the placenta, as far as there is room.
    origin = -(low + high) / 2 - 0.35 * thickness * towards
    half = (high - low) / 2
    # A womb is longer than wide, unless the fetus lies across it.
    half = np.maximum(half, [0.4 * half.max(), 0.7 * half.max(), 0.3 * half.max()])
    placed = surface + origin
    semi = half * _norm(placed / half)
    # Axis by axis, the womb closes around the fetus as far as it can.
    for axis in (2, 0, 1):
        semi[axis] *= _least_share(placed, semi, axis)
    semi = semi * rng.uniform(1.02, 1.12) + 1.5
    origin[2] += float(rng.uniform(0.5, 1.0)) * _room_in_front(surface + origin, semi)
    return Scene(
        fetus=fetus,
        rotation=rotation,
        origin=origin,
        womb_semi_mm=semi,
        wall=Wall(fat_mm=float(rng.uniform(7.0, 26.0)), muscle_mm=float(rng.uniform(6.0, 11.0))),
        placenta=Placenta(towards, thickness, float(rng.uniform(*_PLACENTA_SPREAD_RAD))),
        fluid=_draw_fluid(fetus.size.weeks, rng),
        build=Build(
            float(rng.uniform(*_HALF_WIDTH_MM)), float(rng.uniform(*_HALF_LENGTH_MM)), float(rng.uniform(-1.0, 1.0))
        ),
    )


def _draw_fluid(weeks: float, rng: np.random.Generator) -> Fluid:
    """Draw how much fluid there is and where."""
    folds = 4
    towards = rng.normal(size=(folds, 3))
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    return Fluid(
        film_mm=float(np.interp(weeks, _FILM_WEEKS, _FILM_MM) * rng.uniform(0.7, 1.4)),
        waves=2 * math.pi * towards / rng.uniform(*_FOLD_MM, (folds, 1)),
        phases=rng.uniform(0, 2 * math.pi, folds),
    )


def _norm(shares: Vector) -> float:
    """Return how far out of a unit womb the farthest of points, shape (N, 3), lies; 1 is on its wall."""
    squares = shares**2
    return math.sqrt(float(_roundness(squares[:, 0], squares[:, 1], squares[:, 2]).max()))


def _least_share(points: Vector, semi: Vector, axis: int) -> float:
    """Return the least factor of a half axis, down to a half, with which the womb still holds all points."""
    shares = np.linspace(1.0, 0.5, 26)
    change = np.ones(3)
    for kept, share in itertools.pairwise(shares):
        change[axis] = share
        if _norm(points / (semi * change)) > 1.02:  # noqa: PLR2004 - the wall gives a little
            return float(kept)
    return float(shares[-1])


def _room_in_front(surface: Vector, semi: Vector) -> float:
    """Return how far points, shape (N, 3), can move to the mother's front before one of them leaves the womb, in mm."""
    low, high = 0.0, float(semi[2])
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        fits = _norm((surface + np.array([0.0, 0.0, middle])) / semi) < 1
        low, high = (middle, high) if fits else (low, middle)
    return low
