"""How an exam is swept: which paths over the belly, in which order, with which probe and picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from edgefetal_calibration.phantom.plane import Plane
from edgefetal_calibration.phantom.probe import acouslic_fan, acouslic_probe, clinical_probe, fitted_fan
from edgefetal_calibration.phantom.scene import PlaneName, Presentation

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgefetal_calibration.phantom.gesture import Gesture
    from edgefetal_calibration.phantom.probe import Fan, Probe
    from edgefetal_calibration.phantom.scene import Scene

    Vector = npt.NDArray[np.float64]

ACOUSLIC_SWEEPS: Final = 6
ACOUSLIC_FRAMES: Final = 140
# Paths of ACOUSLIC-AI, as shares of the belly's half axes: three with the probe across, from the pubis to the ribs, and
# three with the probe along, from the mother's left to her right. The first of each three is taken for the middle one:
# in the published table it has the most annotated abdomens.
_BESIDE: Final = (0.0, 0.38, -0.38)
_ALONG: Final = (0.05, -0.35, 0.4)
_LOWEST: Final = -0.82
_HIGHEST: Final = 0.9
_FLANK: Final = 0.7
_UPRIGHT: Final = 1.0
# A targeted sweep crosses the standard plane from this far on one side to the other: share of OFD, of AC / pi, of FL.
_REACH: Final = {PlaneName.HEAD: 0.45, PlaneName.ABDOMEN: 0.62, PlaneName.FEMUR: 0.16}
_FRAMES: Final = 60
_CLINICAL_PX: Final = (800, 600)
# How far a probe on a belly can be turned to see a bone level.
_MOST_TURN_RAD: Final = 0.5
# How far short of the abdomen a sweep stops that is to miss it, in AC / pi.
_SHORT_OF_ABDOMEN: Final = 0.75


class Protocol(str, Enum):
    """What is swept.

    A new one is added at the end: the names of an exam's files follow from its protocol's place.
    """

    ACOUSLIC = "acouslic"
    HEAD = "head"
    FEMUR = "femur"
    ABDOMEN = "abdomen"

    @property
    def targeted(self) -> bool:
        """Whether somebody aims at a plane, with a clinical probe, instead of sweeping blindly."""
        return self is not Protocol.ACOUSLIC

    @property
    def sweep_count(self) -> int:
        """Sweeps of an exam."""
        return 1 if self.targeted else ACOUSLIC_SWEEPS

    @property
    def frame_count(self) -> int:
        """Frames of a sweep, unless others are asked for."""
        return _FRAMES if self.targeted else ACOUSLIC_FRAMES

    @property
    def target(self) -> PlaneName:
        """The plane that the exam is for."""
        return {
            Protocol.ACOUSLIC: PlaneName.ABDOMEN,
            Protocol.HEAD: PlaneName.HEAD,
            Protocol.FEMUR: PlaneName.FEMUR,
            Protocol.ABDOMEN: PlaneName.ABDOMEN,
        }[self]


# What is left below the far edge of the target, and the steps and the ends of a scanner's depth.
_BELOW_MM: Final = {PlaneName.HEAD: 18.0, PlaneName.ABDOMEN: 18.0, PlaneName.FEMUR: 40.0}
_DEPTH_STEP_MM: Final = 10.0
_DEPTHS_MM: Final = (80.0, 300.0)


def picture_px(protocol: Protocol) -> tuple[int, int]:
    """Return width and height of a protocol's pictures, whatever the depth."""
    if protocol.targeted:
        return _CLINICAL_PX
    _, fan = blind_view()
    return fan.width_px, fan.height_px


def blind_view() -> tuple[Probe, Fan]:
    """Return the probe of a blind sweep and the fan of its pictures, which are the same for every exam."""
    return _acouslic()


def targeted_view(target: PlaneName, scene: Scene, standard: Plane) -> tuple[Probe, Fan]:
    """Return the clinical probe of one who aims at a plane, and the fan of its pictures.

    The depth is set as that hand sets it: the far edge of the target is in the picture with some room below it.

    Args:
        target: head, abdomen or femur.
        scene: what is swept.
        standard: its standard plane, from the place of the probe.
    """
    apart = clinical_probe().face_radius_mm
    x, z = scene.truth(standard).outline(target).T
    far_mm = float(np.hypot(x, z + apart).max(initial=apart)) - apart
    steps = math.ceil((far_mm + _BELOW_MM[target]) / _DEPTH_STEP_MM)
    return _clinical(min(max(_DEPTH_STEP_MM * steps, _DEPTHS_MM[0]), _DEPTHS_MM[1]))


@lru_cache
def _acouslic() -> tuple[Probe, Fan]:
    return acouslic_probe(), acouslic_fan()


@lru_cache
def _clinical(depth_mm: float) -> tuple[Probe, Fan]:
    probe = replace(clinical_probe(), depth_mm=depth_mm)
    return probe, fitted_fan(probe, *_CLINICAL_PX)


@dataclass(frozen=True)
class Path:
    """A straight path over the belly, as shares of its half axes: x to the mother's left, y to her head.

    Args:
        start: where it begins.
        end: where it ends.
        along: whether the probe's face lies along the mother instead of across her.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    along: bool


def acouslic_paths() -> tuple[Path, ...]:
    """Return the six paths in their order."""
    across = (Path((x, _LOWEST), (x, _HIGHEST), along=False) for x in _BESIDE)
    along = (Path((_FLANK, y), (-_FLANK, y), along=True) for y in _ALONG)
    return (*across, *along)


def short_of_abdomen(paths: tuple[Path, ...], scene: Scene, presentation: Presentation) -> tuple[Path, ...]:
    """Return paths that stay clear of the fetus's abdomen, as those of an operator who stops too early.

    Paths across the mother end before a fetus that lies along her shows its belly, and those along her are moved to the
    side of its head.
    """
    center, semi = scene.belly
    gap = _SHORT_OF_ABDOMEN * scene.fetus.diameter_mm / semi[1]
    middle = float((scene.origin[1] - center[1]) / semi[1])
    down = presentation is not Presentation.BREECH
    limit = min(middle - gap, _HIGHEST) if down else max(middle + gap, _LOWEST)
    stay = (min if down else max)(limit, -0.6 if down else 0.6)
    clear = []
    for path in paths:
        if path.along:
            clear.append(Path((path.start[0], stay), (path.end[0], stay), along=False))
        else:
            ends = (min(_LOWEST, limit - 0.05), limit) if down else (limit, max(_HIGHEST, limit + 0.05))
            clear.append(Path((path.start[0], ends[0]), (path.end[0], ends[1]), along=False))
    return tuple(clear)


def planes_on_path(path: Path, scene: Scene, gesture: Gesture) -> list[Plane]:
    """Return where the probe images in every frame of a sweep along a path."""
    middle, semi = scene.belly
    step = np.array(path.end) - np.array(path.start)
    length = np.linalg.norm(step * semi[:2])
    beside = np.array([-step[1] * semi[1], step[0] * semi[0]]) / length
    planes = []
    for k, share in enumerate(gesture.progress):
        place = middle[:2] + (np.array(path.start) + share * step) * semi[:2] + gesture.drift_mm[k] * beside
        skin, out = scene.skin_at(float(place[0]), float(place[1]))
        axial = -out
        if path.along:
            # A hand that moves sideways leans the probe less than the skin does.
            axial = axial + _UPRIGHT * np.array([0.0, 0.0, -1.0])
            axial /= np.linalg.norm(axial)
        # The picture's right is the mother's left, or her feet.
        towards = np.array([0.0, -1.0, 0.0]) if path.along else np.array([1.0, 0.0, 0.0])
        lateral = towards - (towards @ axial) * axial
        lateral /= np.linalg.norm(lateral)
        planes.append(_leaned(Plane(skin, lateral, axial), gesture, k))
    return planes


def level_turn(scene: Scene, shaft: int) -> float:
    """Return how far a hand turns the probe within the plane of a femur to see its shaft level, as far as it can."""
    plane = scene.plane_of(PlaneName.FEMUR, 0.0, shaft)
    bone = scene.fetus.femurs[shaft]
    along = (bone.end - bone.start) @ scene.rotation
    slope = math.atan(float(along @ plane.axial) / float(along @ plane.lateral))
    level = max(-_MOST_TURN_RAD, min(_MOST_TURN_RAD, slope))
    return min((level, -level), key=lambda turn: abs(float(along @ scene.plane_of(PlaneName.FEMUR, turn, shaft).axial)))


def planes_across(target: PlaneName, scene: Scene, standard: Plane, gesture: Gesture) -> list[Plane]:
    """Return where the probe images in every frame of a sweep across a standard plane.

    Args:
        target: head, abdomen or femur.
        scene: what is swept.
        standard: its standard plane, from the place of the probe.
        gesture: what the hand does; half-way the probe is at the standard plane, if the hand is where it should be.
    """
    size = scene.fetus.size
    length = {PlaneName.HEAD: size.ofd_mm, PlaneName.ABDOMEN: scene.fetus.diameter_mm, PlaneName.FEMUR: size.fl_mm}
    reach = _REACH[target] * length[target]
    # A hand slows down where it sees what it wants.
    eased = 2 * gesture.progress - 1
    eased = np.sign(eased) * np.abs(eased) ** 1.6
    planes = []
    for k, share in enumerate(eased):
        shifted = standard.origin + 60 * standard.axial + reach * share * standard.normal
        leaned = _leaned(Plane(shifted, standard.lateral, standard.axial), gesture, k, _CARE)
        skin = scene.skin_along(shifted, -leaned.axial)
        planes.append(Plane(skin, leaned.lateral, leaned.axial))
    return planes


# One who looks for a plane leans the probe less by accident than one who follows a path.
_CARE: Final = 0.4


def _leaned(plane: Plane, gesture: Gesture, frame: int, share: float = 1.0) -> Plane:
    """Tilt, turn and rock a probe as the hand does in a frame."""
    tilt, turn, rock = (
        share * float(angles[frame]) for angles in (gesture.tilt_rad, gesture.turn_rad, gesture.rock_rad)
    )
    lateral, axial = plane.lateral, plane.axial
    normal = np.cross(lateral, axial)
    lateral, normal = _turned(lateral, normal, turn)
    axial, normal = _turned(axial, normal, tilt)
    lateral, axial = _turned(lateral, axial, rock)
    return Plane(plane.origin, lateral, axial)


def _turned(a: Vector, b: Vector, angle: float) -> tuple[Vector, Vector]:
    """Turn a pair of unit vectors within the plane that they span, a towards b."""
    return math.cos(angle) * a + math.sin(angle) * b, math.cos(angle) * b - math.sin(angle) * a
