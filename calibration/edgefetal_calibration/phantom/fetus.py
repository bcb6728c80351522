"""A fetus in its own coordinates, of the size that the growth charts give for its age.

Coordinates are in mm. The origin is the middle of the abdomen where AC is measured; x runs to the fetus's left, y to
its head, z to its front. The head has coordinates of its own about the middle of its standard plane: x to its left, y
to the vertex, z to the forehead.

Three figures hold exactly: the skull's outer surface is an ellipsoid whose section at the standard plane has the given
BPD and OFD, the skin of the trunk at y = 0 is an ellipse with the perimeter AC (Ramanujan II), and the shaft of each
femur ends square at the ends of an axis of length FL. Everything else is proportion: enough for the planes of ISUOG's
guideline (2019) to be told from one another, and no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefetal_calibration.phantom.solids import Ellipsoid, Field, Labels, Solid, Strut, Tiles, Vector, paint, tube
from edgefetal_calibration.phantom.tissue import Tissue
from edgefetal_devices.errors import InputError
from edgefetal_runtime.biometry.ellipse import Ellipse
from edgefetal_runtime.growth.charts import find_chart
from edgefetal_runtime.growth.gestation import format_weeks
from edgefetal_runtime.growth.measures import Measure

MIN_WEEKS: Final = 14.0
MAX_WEEKS: Final = 40.0
MAX_SCORE: Final = 3.0
_CHART: Final = "INTERGROWTH-21st 2014"

# Shares of the abdomen's mean diameter AC / pi, unless said otherwise.
_FRONT_TO_SIDE: Final = 0.95
_CHEST_LENGTH: Final = 1.05
_PELVIS_LENGTH: Final = 1.15
_CHEST_TAPER: Final = 0.16
_PELVIS_TAPER: Final = 0.12
_CAVITY: Final = 0.86
_RIB_RHO: Final = (0.83, 0.91)
_RIB_PITCH: Final = 0.125
_RIB_SHARE: Final = 0.36
_RIB_REACH_RAD: Final = 1.95
_RIB_SLOPE: Final = 0.14
_LOWEST_RIB: Final = -0.16
_HIGHEST_RIB: Final = 0.95
_DIAPHRAGM: Final = 0.42
_DIAPHRAGM_DOME: Final = 0.30
_LIVER_FLOOR: Final = -0.34
_VERTEBRA_PITCH: Final = 0.095
_VERTEBRA_SHARE: Final = 0.68
# Ossification centres in a transverse section: the body, and one on each side behind it. x, z, radius.
_VERTEBRA: Final = ((0.0, -0.30, 0.052), (0.075, -0.385, 0.028), (-0.075, -0.385, 0.028))
_CANAL: Final = (0.0, -0.372, 0.035)
# Skull height over OFD, from the standard plane to the vertex.
_HEAD_HEIGHT: Final = 0.42
_SCALP_MM: Final = 1.2
_SKULL_MM: Final = (1.0, 0.017)
_SKIN_MM: Final = 1.6
# Where the skull bones join, as share of the half OFD; the wall is open there.
_SUTURES: Final = (0.60, -0.70)
_SUTURE_MM: Final = 0.9


@dataclass(frozen=True)
class FetalSize:
    """What a fetus measures.

    Args:
        weeks: gestational age in exact weeks.
        bpd_mm: biparietal diameter, outer to outer edge.
        ofd_mm: occipito-frontal diameter, outer to outer edge.
        ac_mm: abdominal circumference along the skin.
        fl_mm: length of the femur's ossified shaft.
    """

    weeks: float
    bpd_mm: float
    ofd_mm: float
    ac_mm: float
    fl_mm: float

    @property
    def hc_mm(self) -> float:
        """Head circumference: Ramanujan II of the ellipse with BPD and OFD as axes."""
        return Ellipse(0.0, 0.0, self.ofd_mm / 2, self.bpd_mm / 2, 0.0).circumference()


@dataclass(frozen=True)
class SizeScores:
    """How far each measure lies from the median for the age, in standard deviations."""

    bpd: float = 0.0
    ofd: float = 0.0
    ac: float = 0.0
    fl: float = 0.0


def size_for_age(weeks: float, scores: SizeScores | None = None) -> FetalSize:
    """Return the size that the INTERGROWTH-21st charts (2014) give.

    Args:
        weeks: exact weeks, 14 to 40.
        scores: -3 to 3 each; medians if None.

    Raises:
        InputError: the age or a score is out of range.
    """
    if not MIN_WEEKS <= weeks <= MAX_WEEKS:
        age = format_weeks(weeks) if math.isfinite(weeks) else str(weeks)
        raise InputError(
            f"No fetus of {age} can be drawn: the charts hold from {format_weeks(MIN_WEEKS)} to "
            f"{format_weeks(MAX_WEEKS)}; give an age between."
        )
    scores = SizeScores() if scores is None else scores
    values = []
    for measure, score in (
        (Measure.BPD, scores.bpd),
        (Measure.OFD, scores.ofd),
        (Measure.AC, scores.ac),
        (Measure.FL, scores.fl),
    ):
        if not abs(score) <= MAX_SCORE:
            raise InputError(
                f"A {measure.value} {score:g} standard deviations from the median is no fetus; give -3 to 3."
            )
        value = find_chart(_CHART, measure).value_at_z(weeks, score)
        # The charts hold at every age that was let through.
        values.append(float(value))  # type: ignore[arg-type]
    return FetalSize(weeks, *values)


@dataclass(frozen=True)
class Posture:
    """How the fetus holds itself, in radians.

    Args:
        nod: how far the chin is towards the chest.
        turn: how far the face is to the left.
        thighs: how far the thighs are raised from straight ahead towards the chest; left, right.
        spread: how far the thighs are apart from straight ahead; left, right.
        knees: how far the knees are bent; left, right.
        arms: how far the upper arms are raised from along the body; left, right.
    """

    nod: float = 0.25
    turn: float = 0.0
    thighs: tuple[float, float] = (0.8, 0.8)
    spread: tuple[float, float] = (0.45, 0.45)
    knees: tuple[float, float] = (1.9, 1.9)
    arms: tuple[float, float] = (0.8, 0.8)


def random_posture(rng: np.random.Generator) -> Posture:
    """Draw a flexed posture."""

    def pair(low: float, high: float) -> tuple[float, float]:
        return float(rng.uniform(low, high)), float(rng.uniform(low, high))

    return Posture(
        nod=float(rng.uniform(0.05, 0.45)),
        turn=float(rng.uniform(-0.35, 0.35)),
        thighs=pair(0.5, 1.2),
        spread=pair(0.25, 0.6),
        knees=pair(1.6, 2.4),
        arms=pair(0.4, 1.2),
    )


@dataclass(frozen=True, eq=False)
class Shaft:
    """The ossified shaft of a femur, or another rod.

    Args:
        start: its end at the hip, shape (3,).
        end: its end at the knee.
        radius: in its middle.
    """

    start: Vector
    end: Vector
    radius: float


@dataclass(frozen=True, eq=False)
class Fetus:
    """A fetus of a size in a posture."""

    size: FetalSize
    posture: Posture

    @cached_property
    def diameter_mm(self) -> float:
        """Mean diameter of the abdomen, AC / pi: the unit of the trunk's proportions."""
        return self.size.ac_mm / math.pi

    @cached_property
    def abdomen_semi_mm(self) -> tuple[float, float]:
        """Half the abdomen's width (x) and half its depth (z) where AC is measured."""
        unit = Ellipse(0.0, 0.0, 1.0, _FRONT_TO_SIDE, 0.0).circumference()
        half = self.size.ac_mm / unit
        return half, _FRONT_TO_SIDE * half

    @cached_property
    def head_axes(self) -> Vector:
        """The head's x, y and z as rows, in the fetus's coordinates."""
        cn, sn = math.cos(self.posture.nod), math.sin(self.posture.nod)
        ct, st = math.cos(self.posture.turn), math.sin(self.posture.turn)
        nod = np.array([[1, 0, 0], [0, cn, -sn], [0, sn, cn]])
        turn = np.array([[ct, 0, st], [0, 1, 0], [-st, 0, ct]])
        return np.asarray((nod.T @ turn).T)

    @cached_property
    def head_center(self) -> Vector:
        """Middle of the head's standard plane, in the fetus's coordinates."""
        above = 0.5 * self.size.ofd_mm
        neck = np.array([0.0, 0.97 * _CHEST_LENGTH * self.diameter_mm, 0.0])
        return np.asarray(neck + above * self.head_axes[1] + 0.12 * self.size.ofd_mm * self.head_axes[2])

    @cached_property
    def head_semi_mm(self) -> Vector:
        """Half axes of the skull's outer surface along the head's x, y and z."""
        return np.array([self.size.bpd_mm / 2, _HEAD_HEIGHT * self.size.ofd_mm, self.size.ofd_mm / 2])

    @cached_property
    def femurs(self) -> tuple[Shaft, Shaft]:
        """The shafts of the left and the right femur."""
        left, right = (self._femur(side) for side in (0, 1))
        return left, right

    @cached_property
    def solids(self) -> tuple[Solid, ...]:
        """All that the fetus is made of, from the first painted to the last."""
        return (*_cord(self), _Trunk(self), *_organs(self), *_arms(self), *_legs(self), *_neck(self), *_head(self))

    @cached_property
    def radius_mm(self) -> float:
        """Radius about the origin that holds the whole fetus but the cord's far end."""
        return max(float(np.linalg.norm(s.center)) + s.radius for s in self.solids)

    @cached_property
    def bulk(self) -> tuple[Shaft, ...]:
        """Trunk, head and thighs as rods with round ends: what a womb closes around."""
        d, size = self.diameter_mm, self.size
        up, along = np.array([0.0, 1.0, 0.0]), (size.ofd_mm - size.bpd_mm) / 2 * self.head_axes[2]
        return (
            Shaft((0.5 - _PELVIS_LENGTH) * d * up, (_CHEST_LENGTH - 0.4) * d * up, 0.5 * d),
            Shaft(self.head_center - along, self.head_center + along, size.bpd_mm / 2 + _SCALP_MM),
            *(Shaft(s.start, 1.1 * s.end - 0.1 * s.start, 0.24 * size.fl_mm) for s in self.femurs),
        )

    def labels(self, points: Tiles) -> Labels:
        """Return the tissue of points in the fetus's coordinates, shape (tiles, points); 0 where there is no fetus."""
        labels = np.zeros(points.x.shape, np.uint8)
        paint(self.solids, points, labels)
        return labels

    def trunk_rho(self, points: Vector) -> Vector:
        """Distance of points, shape (..., 3), from the trunk's axis over that of its skin: 1 is on the skin."""
        return _rho(self, points[..., 0], points[..., 1], points[..., 2])

    def surface(self) -> Vector:
        """Return points around head, trunk and thighs, shape (N, 3): what the womb must hold at the least."""
        grid = _sphere_points()
        clouds = [self.head_center + ((self.head_semi_mm + _SCALP_MM) * grid) @ self.head_axes]
        half, deep = self.abdomen_semi_mm
        for height in np.linspace(-_PELVIS_LENGTH, _CHEST_LENGTH, 9) * self.diameter_mm:
            scale = float(_trunk_scale(self, np.array(height)))
            angle = np.linspace(0, 2 * math.pi, 16, endpoint=False)
            clouds.append(
                np.stack((half * scale * np.cos(angle), np.full(16, height), deep * scale * np.sin(angle)), axis=1)
            )
        clouds.extend(shaft.end + 0.22 * self.size.fl_mm * grid[::4] for shaft in self.femurs)
        return np.concatenate(clouds)

    def _femur(self, side: int) -> Shaft:
        sign = 1.0 - 2.0 * side
        raised, apart = self.posture.thighs[side], self.posture.spread[side]
        d, length = self.diameter_mm, self.size.fl_mm
        towards = np.array(
            [sign * math.sin(apart), math.cos(apart) * math.sin(raised), math.cos(apart) * math.cos(raised)]
        )
        hip = np.array([sign * 0.30 * d, -0.86 * d, 0.18 * d])
        return Shaft(hip, hip + length * towards, 0.5 + 0.036 * length)


# What lies within the skull may cover nothing else.
_INTRACRANIAL: Final = (
    Tissue.BRAIN,
    Tissue.MIDLINE,
    Tissue.CEREBROSPINAL_FLUID,
    Tissue.THALAMUS,
    Tissue.CEREBELLUM,
    Tissue.CHOROID,
)


def _sphere_points() -> Vector:
    """Return points on the unit sphere, shape (96, 3)."""
    count = 96
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.arange(count) * math.pi * (3 - math.sqrt(5))
    ring = np.sqrt(1 - z * z)
    return np.stack((ring * np.cos(angle), ring * np.sin(angle), z), axis=1)


def _trunk_scale(fetus: Fetus, y: Vector) -> Vector:
    """Size of the trunk's section at a height over that at the abdomen; 0 beyond its ends."""
    d = fetus.diameter_mm
    up = y > 0
    share = np.abs(y) / np.where(up, _CHEST_LENGTH * d, _PELVIS_LENGTH * d)
    s2 = share * share
    closed = np.sqrt(np.sqrt(np.maximum(1 - s2 * s2 * s2, 0)))
    return np.asarray(closed * (1 - np.where(up, _CHEST_TAPER, _PELVIS_TAPER) * s2))


def _rho(fetus: Fetus, x: Vector, y: Vector, z: Vector) -> Vector:
    half, deep = fetus.abdomen_semi_mm
    scale = np.maximum(_trunk_scale(fetus, y), 1e-3)
    return np.asarray(np.sqrt((x / half) ** 2 + (z / deep) ** 2) / scale)


@dataclass(frozen=True, eq=False)
class _Trunk:
    """Skin, wall, ribs, spine, lungs and liver of the trunk: everything that follows its shape."""

    fetus: Fetus

    @property
    def center(self) -> Vector:
        d = self.fetus.diameter_mm
        return np.array([0.0, (_CHEST_LENGTH - _PELVIS_LENGTH) / 2 * d, 0.0])

    @property
    def radius(self) -> float:
        d = self.fetus.diameter_mm
        return math.hypot((_CHEST_LENGTH + _PELVIS_LENGTH) / 2 * d, 0.45 * d)

    def paint(self, points: Tiles, labels: Labels) -> None:
        d = np.float32(self.fetus.diameter_mm)
        x, y, z = points.x, points.y, points.z
        rho = _rho_32(self.fetus, points)
        inside = rho < 1
        if not inside.any():
            return
        # Only what is inside is looked at further.
        x, y, z, rho = x[inside] / d, y[inside] / d, z[inside] / d, rho[inside]
        own = np.full(rho.shape, Tissue.FETAL_SOFT, np.uint8)
        own[rho > 1 - _SKIN_MM / (d / 2)] = Tissue.FETAL_SKIN
        cavity = rho < _CAVITY
        lungs = y > _DIAPHRAGM - _DIAPHRAGM_DOME * rho * rho
        own[cavity & lungs] = Tissue.LUNG
        own[cavity & ~lungs & (y > _LIVER_FLOOR)] = Tissue.LIVER
        back = z < _VERTEBRA[0][1] + _VERTEBRA[0][2] + 0.02
        own[back & cavity & (np.abs(x) < 0.2)] = Tissue.FETAL_SOFT  # noqa: PLR2004 - the muscles beside the spine
        self._paint_ribs(x, y, z, rho, own)
        self._paint_spine(x, y, z, own)
        labels[inside] = own

    @staticmethod
    def _paint_ribs(x: Field, y: Field, z: Field, rho: Field, own: Labels) -> None:
        """Ribs run from the spine round the sides and down, and leave the front free."""
        wall = np.flatnonzero((rho > _RIB_RHO[0]) & (rho < _RIB_RHO[1]) & (y > _LOWEST_RIB) & (y < _HIGHEST_RIB))
        from_spine = np.abs(np.arctan2(x[wall], -z[wall]))
        place = (y[wall] + _RIB_SLOPE * from_spine) / _RIB_PITCH
        bone = (place - np.floor(place) < _RIB_SHARE) & (from_spine < _RIB_REACH_RAD)
        own[wall[bone]] = Tissue.BONE

    @staticmethod
    def _paint_spine(x: Field, y: Field, z: Field, own: Labels) -> None:
        """Three ossification centres a vertebra, around a canal."""
        near = np.flatnonzero((z < -0.2) & (np.abs(x) < 0.15))  # noqa: PLR2004 - a box round them
        x, z, place = x[near], z[near], y[near] / _VERTEBRA_PITCH + _VERTEBRA_SHARE / 2
        bone = place - np.floor(place) < _VERTEBRA_SHARE
        own[near[(x - _CANAL[0]) ** 2 + (z - _CANAL[1]) ** 2 < _CANAL[2] ** 2]] = Tissue.CEREBROSPINAL_FLUID
        for at_x, at_z, radius in _VERTEBRA:
            own[near[bone & ((x - at_x) ** 2 + (z - at_z) ** 2 < radius**2)]] = Tissue.BONE


def _rho_32(fetus: Fetus, points: Tiles) -> Field:
    """Return `Fetus.trunk_rho` in single precision."""
    half, deep = (np.float32(v) for v in fetus.abdomen_semi_mm)
    d = np.float32(fetus.diameter_mm)
    up = points.y > 0
    share = points.y * np.where(up, np.float32(1 / (_CHEST_LENGTH * d)), np.float32(1 / (_PELVIS_LENGTH * d)))
    s2 = share * share
    closed = np.sqrt(np.sqrt(np.maximum(1 - s2 * s2 * s2, np.float32(1e-12))))
    closed *= 1 - np.where(up, np.float32(_CHEST_TAPER), np.float32(_PELVIS_TAPER)) * s2
    return np.asarray(np.sqrt((points.x / half) ** 2 + (points.z / deep) ** 2) / closed, np.float32)


_UPRIGHT: Final = np.eye(3)


def _organs(fetus: Fetus) -> list[Solid]:
    """Return the organs of the trunk that are not its filling, in shares of the abdomen's diameter."""
    d = fetus.diameter_mm

    def organ(tissue: Tissue, at: tuple[float, ...], semi: tuple[float, ...]) -> Ellipsoid:
        return Ellipsoid(tissue, d * np.array(at), _UPRIGHT, d * np.array(semi))

    def vessel(tissue: Tissue, line: tuple[tuple[float, ...], ...], radius: float) -> list[Strut]:
        return tube(tissue, [d * np.array(p) for p in line], d * radius)

    sides = (1.0, -1.0)
    umbilical = ((0.0, -0.45, 0.46), (0.0, -0.14, 0.33), (0.0, -0.02, 0.25), (0.0, 0.0, 0.13), (-0.05, 0.0, 0.06))
    portal = ((-0.05, 0.0, 0.06), (-0.12, 0.01, 0.03), (-0.19, 0.02, 0.05))
    return [
        *(organ(Tissue.KIDNEY, (s * 0.17, -0.50, -0.20), (0.10, 0.20, 0.09)) for s in sides),
        *(organ(Tissue.CEREBROSPINAL_FLUID, (s * 0.15, -0.50, -0.19), (0.02, 0.06, 0.02)) for s in sides),
        organ(Tissue.HEART, (0.07, 0.60, 0.10), (0.22, 0.18, 0.22)),
        organ(Tissue.BLOOD, (0.04, 0.60, 0.20), (0.055, 0.11, 0.085)),
        organ(Tissue.BLOOD, (0.15, 0.60, 0.12), (0.055, 0.11, 0.085)),
        organ(Tissue.BLOOD, (-0.04, 0.63, 0.06), (0.06, 0.08, 0.06)),
        organ(Tissue.BLOOD, (0.06, 0.63, -0.02), (0.06, 0.08, 0.06)),
        organ(Tissue.STOMACH, (0.21, 0.0, -0.03), (0.10, 0.13, 0.125)),
        organ(Tissue.STOMACH, (0.0, -0.86, 0.26), (0.10, 0.12, 0.09)),
        *vessel(Tissue.BLOOD, ((0.045, 0.6, -0.20), (0.045, -0.7, -0.20)), 0.028),
        *vessel(Tissue.BLOOD, ((-0.08, 0.45, -0.13), (-0.06, -0.7, -0.19)), 0.028),
        *vessel(Tissue.VEIN, umbilical, 0.042),
        *vessel(Tissue.VEIN, portal, 0.05),
        *vessel(Tissue.VEIN, ((0.0, 0.0, 0.13), (0.0, 0.12, 0.04), (-0.03, 0.28, -0.06)), 0.025),
        *(
            Strut(
                Tissue.BONE,
                d * np.array((s * 0.12, -0.75, -0.28)),
                d * np.array((s * 0.30, -0.66, 0.0)),
                0.03 * d,
                0.03 * d,
            )
            for s in sides
        ),
    ]


def _cord(fetus: Fetus) -> list[Strut]:
    """Return the cord, coiled in front of the belly."""
    d = fetus.diameter_mm
    turn = np.linspace(0, 5.5 * math.pi, 28)
    line = [
        d * np.array((0.16 * math.sin(t) + 0.04 * t / 3, -0.45 + 0.13 * math.cos(t) - 0.13, 0.50 + 0.018 * t))
        for t in turn
    ]
    return tube(Tissue.CORD, line, 0.045 * d)


# A limb has skin where it is not within the trunk or another limb; no tissue is labelled 0 yet.
_BARE: Final = (Tissue.OUTSIDE, Tissue.CORD, Tissue.FETAL_SKIN)


def _limb(start: Vector, end: Vector, widths: tuple[float, float], bones: list[Strut]) -> list[Strut]:
    """Return a limb: skin, flesh, bones."""
    first, last = (max(width - _SKIN_MM, 0.6 * width) for width in widths)
    return [
        Strut(Tissue.FETAL_SKIN, start, end, *widths, only=_BARE),
        Strut(Tissue.FETAL_SOFT, start, end, first, last),
        *bones,
    ]


def long_bone(start: Vector, end: Vector, radius: float) -> Strut:
    """Return the ossified shaft of a long bone: square at both ends, a little wider there."""
    return Strut(Tissue.SHAFT, start, end, radius, radius, flat=True, flare=0.35)


def _legs(fetus: Fetus) -> list[Strut]:
    length = fetus.size.fl_mm
    solids: list[Strut] = []
    for side, shaft in enumerate(fetus.femurs):
        sign = 1.0 - 2.0 * side
        thigh = (shaft.end - shaft.start) / length
        # The shank turns about the fetus's own x, back from where the thigh points.
        bend = fetus.posture.knees[side]
        down = np.cross(thigh, np.array([1.0, 0.0, 0.0]))
        down *= -np.sign(down[1]) / np.linalg.norm(down)
        shank = math.cos(bend) * thigh + math.sin(bend) * down - np.array([sign * 0.35, 0.0, 0.0])
        shank /= np.linalg.norm(shank)
        knee = shaft.end + 0.10 * length * thigh
        ankle = knee + length * shank
        apart = 0.07 * length * np.cross(shank, thigh) / np.linalg.norm(np.cross(shank, thigh))
        solids += _limb(
            knee + 0.05 * length * shank,
            ankle,
            (0.19 * length, 0.12 * length),
            [
                long_bone(
                    knee + 0.1 * length * shank + apart, ankle - 0.04 * length * shank + apart, 0.9 * shaft.radius
                ),
                long_bone(
                    knee + 0.13 * length * shank - apart, ankle - 0.06 * length * shank - apart, 0.5 * shaft.radius
                ),
            ],
        )
        toe = ankle + 0.45 * length * (thigh if bend > 1 else down)
        solids += _limb(ankle, toe, (0.11 * length, 0.08 * length), [])
        # The thigh last: nothing of the fetus may cover a femur.
        solids += _limb(
            shaft.start, knee, (0.34 * length, 0.21 * length), [long_bone(shaft.start, shaft.end, shaft.radius)]
        )
    return solids


def _arms(fetus: Fetus) -> list[Strut]:
    d, length = fetus.diameter_mm, 0.9 * fetus.size.fl_mm
    radius = 0.85 * fetus.femurs[0].radius
    solids: list[Strut] = []
    for side, raised in enumerate(fetus.posture.arms):
        sign = 1.0 - 2.0 * side
        upper = np.array([sign * 0.30, -math.cos(raised), math.sin(raised)])
        upper /= np.linalg.norm(upper)
        fore = np.array([-sign * 0.45, 0.60, 0.75])
        fore /= np.linalg.norm(fore)
        shoulder = d * np.array([sign * 0.42, 0.78, 0.0])
        elbow = shoulder + 1.1 * length * upper
        wrist = elbow + 0.88 * length * fore
        apart = 0.06 * length * np.cross(upper, fore) / np.linalg.norm(np.cross(upper, fore))
        solids += _limb(
            shoulder,
            elbow,
            (0.20 * length, 0.15 * length),
            [long_bone(shoulder + 0.05 * length * upper, shoulder + 1.05 * length * upper, radius)],
        )
        solids += _limb(
            elbow,
            wrist,
            (0.14 * length, 0.10 * length),
            [
                long_bone(elbow + 0.05 * length * fore + apart, wrist - 0.03 * length * fore + apart, 0.6 * radius),
                long_bone(elbow + 0.05 * length * fore - apart, wrist - 0.03 * length * fore - apart, 0.6 * radius),
            ],
        )
        solids += _limb(wrist, wrist + 0.3 * length * fore, (0.12 * length, 0.14 * length), [])
    return solids


def _neck(fetus: Fetus) -> list[Solid]:
    d, ofd = fetus.diameter_mm, fetus.size.ofd_mm
    low = np.array([0.0, 0.8 * d, -0.08 * d])
    high = fetus.head_center - 0.30 * ofd * fetus.head_axes[1] - 0.12 * ofd * fetus.head_axes[2]
    spine = [low + np.array([0.0, 0.05 * d, -0.18 * d]), high - 0.06 * ofd * fetus.head_axes[2]]
    return [Strut(Tissue.FETAL_SOFT, low, high, 0.30 * d, 0.24 * ofd), *tube(Tissue.BONE, spine, 0.05 * d)]


def _head(fetus: Fetus) -> list[Solid]:
    """Return the head; places and sizes in shares of the skull's half axes."""
    semi, axes, middle = fetus.head_semi_mm, fetus.head_axes, fetus.head_center

    def at(place: tuple[float, ...]) -> Vector:
        return np.asarray(middle + (semi * np.array(place)) @ axes)

    def ball(tissue: Tissue, place: tuple[float, ...], size: tuple[float, ...]) -> Ellipsoid:
        return Ellipsoid(tissue, at(place), axes, semi * np.array(size), only=_INTRACRANIAL)

    def sheet(place: tuple[float, ...], size: tuple[float, ...]) -> Ellipsoid:
        """Return a thin echoing sheet; no thinner than the grid of an ultrasound beam sees."""
        half = np.maximum(semi * np.array(size), 0.35)
        return Ellipsoid(Tissue.MIDLINE, at(place), axes, half, box=True, only=_INTRACRANIAL)

    sides = (1.0, -1.0)
    brain: list[Solid] = []
    for s in sides:
        # Fluid over the insula, and the ventricles with their walls and choroid plexus.
        brain += [
            ball(Tissue.MIDLINE, (s * 0.672, 0.0, 0.06), (0.05, 0.30, 0.30)),
            ball(Tissue.CEREBROSPINAL_FLUID, (s * 0.69, 0.0, 0.06), (0.05, 0.30, 0.30)),
            ball(Tissue.MIDLINE, (s * 0.38, 0.16, -0.36), (0.150, 0.345, 0.325)),
            ball(Tissue.CEREBROSPINAL_FLUID, (s * 0.38, 0.16, -0.36), (0.135, 0.33, 0.31)),
            ball(Tissue.CHOROID, (s * 0.38, 0.20, -0.29), (0.10, 0.26, 0.21)),
            ball(Tissue.MIDLINE, (s * 0.21, 0.14, 0.43), (0.076, 0.186, 0.186)),
            ball(Tissue.CEREBROSPINAL_FLUID, (s * 0.21, 0.14, 0.43), (0.06, 0.17, 0.17)),
            ball(Tissue.THALAMUS, (s * 0.165, -0.02, -0.02), (0.16, 0.26, 0.24)),
            ball(Tissue.CEREBELLUM, (s * 0.19, -0.46, -0.50), (0.24, 0.18, 0.20)),
            ball(Tissue.CEREBROSPINAL_FLUID, (s * 0.35, -0.62, 0.72), (0.20, 0.16, 0.15)),
        ]
    brain += [
        ball(Tissue.CEREBROSPINAL_FLUID, (0.0, -0.48, -0.78), (0.28, 0.12, 0.10)),
        ball(Tissue.CEREBELLUM, (0.0, -0.46, -0.52), (0.08, 0.14, 0.14)),
        # Falx and the clefts in line with it: whole above, broken by cavum and thalami at the standard plane.
        sheet((0.0, 0.05, 0.76), (0.012, 0.75, 0.19)),
        sheet((0.0, 0.05, -0.66), (0.012, 0.75, 0.28)),
        sheet((0.0, 0.62, 0.0), (0.012, 0.32, 0.62)),
        sheet((0.0, -0.02, -0.02), (0.012, 0.18, 0.14)),
        # The cavum: fluid between two walls.
        sheet((0.085, 0.0, 0.42), (0.012, 0.16, 0.13)),
        sheet((-0.085, 0.0, 0.42), (0.012, 0.16, 0.13)),
        Ellipsoid(
            Tissue.CEREBROSPINAL_FLUID, at((0.0, 0.0, 0.42)), axes, semi * np.array((0.072, 0.17, 0.125)), box=True
        ),
    ]
    jaw = [at(p) for p in ((0.55, -0.95, 0.25), (0.35, -1.15, 0.75), (-0.35, -1.15, 0.75), (-0.55, -0.95, 0.25))]
    return [
        Ellipsoid(Tissue.FETAL_SKIN, at((0.0, -0.80, 0.48)), axes, semi * np.array((0.66, 0.62, 0.52))),
        Ellipsoid(Tissue.FETAL_SOFT, at((0.0, -0.80, 0.48)), axes, semi * np.array((0.66, 0.62, 0.52)) - _SKIN_MM),
        *tube(Tissue.BONE, jaw, 0.05 * float(semi[0])),
        Ellipsoid(Tissue.FETAL_SOFT, middle, axes, semi + _SCALP_MM),
        _Skull(fetus),
        *brain,
    ]


@dataclass(frozen=True, eq=False)
class _Skull:
    """The skull's wall with its sutures, the fluid under it, and the brain."""

    fetus: Fetus

    @property
    def center(self) -> Vector:
        return self.fetus.head_center

    @property
    def radius(self) -> float:
        return float(self.fetus.head_semi_mm.max())

    def paint(self, points: Tiles, labels: Labels) -> None:
        semi = self.fetus.head_semi_mm
        wall = _SKULL_MM[0] + _SKULL_MM[1] * self.fetus.size.bpd_mm
        own = points.moved(self.fetus.head_axes, self.fetus.head_center)
        x2, y2, z2 = own.x**2, own.y**2, own.z**2

        def within(inset: float) -> npt.NDArray[np.bool_]:
            a, b, c = (np.float32(1 / (v - inset) ** 2) for v in semi)
            return np.asarray(x2 * a + y2 * b + z2 * c < 1)

        inside = within(0.0)
        labels[inside] = Tissue.BONE
        half = np.float32(semi[2])
        for suture in _SUTURES:
            labels[inside & (np.abs(own.z - np.float32(suture) * half) < _SUTURE_MM)] = Tissue.FETAL_SOFT
        labels[within(wall)] = Tissue.CEREBROSPINAL_FLUID
        labels[within(wall + 0.045 * float(semi[0]))] = Tissue.BRAIN
