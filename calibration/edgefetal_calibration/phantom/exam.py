"""Whole simulated exams: pictures, masks and truth, frame by frame."""

from __future__ import annotations

import math
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgefetal_calibration.phantom.fetus import size_for_age
from edgefetal_calibration.phantom.formation import Look, form_picture
from edgefetal_calibration.phantom.gesture import check_skill, draw_gesture
from edgefetal_calibration.phantom.protocol import (
    Protocol,
    acouslic_paths,
    blind_view,
    level_turn,
    planes_across,
    planes_on_path,
    short_of_abdomen,
    targeted_view,
)
from edgefetal_calibration.phantom.scene import PlaneName, Presentation, random_scene
from edgefetal_calibration.phantom.tissue import Tissue
from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from edgefetal_calibration.phantom.gesture import Gesture
    from edgefetal_calibration.phantom.plane import Plane
    from edgefetal_calibration.phantom.probe import Fan, Probe
    from edgefetal_calibration.phantom.scene import PlaneTruth, Scene

    Mask = npt.NDArray[np.uint8]

MAX_FRAMES: Final = 10_000
OPTIMAL: Final = 1
SUBOPTIMAL: Final = 2
# Share of exams in which nobody gets as far as the abdomen.
NO_ABDOMEN: Final = 0.06
_GAS_MM: Final = 2.5
# A structure is in view where its tissue fills this share of the fan.
_IN_VIEW: Final = {
    "head": ((Tissue.BRAIN, Tissue.CEREBELLUM, Tissue.THALAMUS), 0.02),
    "abdomen": ((Tissue.LIVER, Tissue.STOMACH), 0.02),
    "heart": ((Tissue.HEART,), 0.004),
    "placenta": ((Tissue.PLACENTA,), 0.02),
}
# Fluid is in view where a pocket of it is this deep along this share of the beams: a film around the fetus is none, and
# 2 cm is the least that a clinician calls a pocket.
_POCKET_MM: Final = 20.0
_POCKET_BEAMS: Final = 0.1
# Samples and beams between those that are looked at for it.
_COARSE: Final = (8, 4)
_MAX_LOST: Final = 0.4
# Frames of a sweep, at the most, so that each frame of an exam has a number of its own.
_SWEEP_STRIDE: Final = 1_000_000
_LEVEL_RAD: Final = 0.45
_SPREAD_RAD: Final = 0.3
# Spines are found at more angles than midlines are.
_BELLY_SPREAD: Final = 1.4
# How far a fetus lies aslant for one who does not turn the probe to it.
_BLIND_TILT_RAD: Final = 0.35
# Share of targeted exams in which the head lies below.
_HEAD_DOWN: Final = 0.8
_SEED_LIMIT: Final = 2**31


@dataclass(frozen=True)
class FrameTruth:
    """What is known of a frame.

    Args:
        sweep: number of its sweep, from 0.
        index: its number within the sweep as it is written, from 0.
        shows: the number of what it shows within the sweep as it was drawn; another one after a freeze or lost frames.
        plane: the standard plane that it is near enough to, or none.
        quality: 1 at the standard plane, 0 at the limits of the name or without one.
        optimal: whether it is an abdomen with both stomach and portal sinus.
        hc_mm: circumference of the skull as this frame cuts it, where the plane is the head.
        ac_mm: circumference of the ellipse along the skin as this frame cuts it, where the plane is the abdomen.
        fl_mm: length of the shaft as this frame cuts it, where the plane is the femur.
        contact: share of the beams that touch the skin.
        in_view: what of head, abdomen, heart and placenta fills a noticeable part of the fan, and whether a pocket of
            fluid does.
    """

    sweep: int
    index: int
    shows: int
    plane: PlaneName
    quality: float
    optimal: bool
    hc_mm: float | None
    ac_mm: float | None
    fl_mm: float | None
    contact: float
    in_view: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "sweep": self.sweep + 1,
            "frame": self.index,
            "shows": self.shows,
            "plane": self.plane.value,
            "quality": round(self.quality, 4),
            "optimal": self.optimal,
            **{
                name: None if value is None else round(value, 3)
                for name, value in (("hc_mm", self.hc_mm), ("ac_mm", self.ac_mm), ("fl_mm", self.fl_mm))
            },
            "contact": round(self.contact, 3),
            "in_view": list(self.in_view),
        }


@dataclass(frozen=True, eq=False)
class SimulatedFrame:
    """A frame with its truth.

    Args:
        picture: shape (H, W), uint8.
        head: 1 inside the skull where the plane is the head, shape (H, W), uint8.
        abdomen: 1 (optimal) or 2 (suboptimal) inside the skin where the plane is the abdomen, likewise.
        femur: 1 inside the shaft where the plane is the femur, likewise.
        truth: what is known of it.
    """

    picture: npt.NDArray[np.uint8]
    head: Mask
    abdomen: Mask
    femur: Mask
    truth: FrameTruth

    def mask_of(self, target: PlaneName) -> Mask:
        """Return the mask of one structure, head, abdomen or femur."""
        masks = {PlaneName.HEAD: self.head, PlaneName.ABDOMEN: self.abdomen, PlaneName.FEMUR: self.femur}
        return masks[target]


@dataclass(frozen=True)
class ExamPlan:
    """An exam before it is drawn; the same plan draws the same bytes.

    Args:
        protocol: what is swept.
        weeks: gestational age in exact weeks, 14 to 40.
        seed: of the series.
        number: of the exam within the series.
        skill: of the operator, 0 to 1.
        frame_count: frames of a sweep; the protocol's if None.
        presentation: how the fetus lies; drawn if None.

    Raises:
        InputError: a value is out of range.
    """

    protocol: Protocol
    weeks: float
    seed: int
    number: int = 0
    skill: float = 0.8
    frame_count: int | None = None
    presentation: Presentation | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        size_for_age(self.weeks)
        check_skill(self.skill)
        if not 0 <= self.seed < _SEED_LIMIT or self.number < 0:
            raise InputError(f"The seed {self.seed} cannot be used; give a whole number from 0 to {_SEED_LIMIT - 1}.")
        if self.frame_count is not None and not 1 <= self.frame_count <= MAX_FRAMES:
            raise InputError(
                f"A sweep of {self.frame_count} frames shows nothing or fills the disk; give 1 to {MAX_FRAMES}."
            )

    @property
    def name(self) -> str:
        """A UUID that follows from the plan."""
        digest = np.random.default_rng((self.seed, self.number, list(Protocol).index(self.protocol), 7)).bytes(16)
        return str(uuid.UUID(bytes=digest, version=4))


@dataclass(frozen=True, eq=False)
class _Drawn:
    """What chance made of a plan; the fields are those of `Exam`."""

    scene: Scene
    planes: tuple[tuple[Plane, ...], ...]
    gestures: tuple[Gesture, ...]
    probe_and_fan: tuple[Probe, Fan]
    stopped_short: bool = False


@dataclass(frozen=True, eq=False)
class Exam:
    """An exam that is about to be drawn."""

    plan: ExamPlan

    @cached_property
    def _drawn(self) -> _Drawn:
        plan = self.plan
        rng = np.random.default_rng((plan.seed, plan.number, round(plan.weeks * 1000)))
        return _draw_targeted(plan, rng) if plan.protocol.targeted else _draw_blind(plan, rng)

    @property
    def probe_and_fan(self) -> tuple[Probe, Fan]:
        """What it is swept with."""
        return self._drawn.probe_and_fan

    @property
    def scene(self) -> Scene:
        """What is swept."""
        return self._drawn.scene

    @property
    def planes(self) -> tuple[tuple[Plane, ...], ...]:
        """Where the probe images, by sweep and frame."""
        return self._drawn.planes

    @property
    def gestures(self) -> tuple[Gesture, ...]:
        """What the hand does, by sweep."""
        return self._drawn.gestures

    @property
    def stopped_short(self) -> bool:
        """Whether the operator was made to stop before the abdomen."""
        return self._drawn.stopped_short

    @cached_property
    def look(self) -> Look:
        """Knobs of the scanner, a little different in every exam."""
        rng = np.random.default_rng((self.plan.seed, self.plan.number, 3))
        return Look(gain_db=float(rng.uniform(-3, 4)), dynamic_range_db=float(rng.uniform(56, 68)))

    @property
    def frame_count(self) -> int:
        """Frames of the whole exam."""
        return sum(len(planes) for planes in self.planes)

    def frames(self, threads: int = 1) -> Iterator[SimulatedFrame]:
        """Draw the exam, frame by frame in order.

        Args:
            threads: how many frames are drawn at once; the bytes do not depend on it.
        """
        jobs = ((sweep, index) for sweep, planes in enumerate(self.planes) for index in range(len(planes)))
        if threads <= 1:
            yield from (self.frame(*job) for job in jobs)
            return
        with ThreadPoolExecutor(threads) as pool:
            # Only a few frames are ahead of whoever takes them.
            ahead: deque[Any] = deque()
            for job in jobs:
                ahead.append(pool.submit(self.frame, *job))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def frame(self, sweep: int, index: int) -> SimulatedFrame:
        """Draw one frame."""
        probe, fan = self.probe_and_fan
        scene, plane = self.scene, self.planes[sweep][index]
        labels, material = scene.tissue_and_material(plane.points(probe.x_mm, probe.z_mm))
        lost = self.gestures[sweep].lost[index]
        in_view = _in_view(labels[:: _COARSE[0], :: _COARSE[1]], probe)
        _lift(labels, lost, probe)
        seed = int(np.random.default_rng((self.plan.seed, self.plan.number, 5)).integers(_SEED_LIMIT))
        picture = form_picture(labels, material, probe, fan, self.look, seed, sweep * _SWEEP_STRIDE + index)
        truth, shown = self._truth(sweep, index)
        mask = self._mask(plane, truth, shown)
        blank = np.zeros(picture.shape, np.uint8)
        return SimulatedFrame(
            picture=picture,
            head=mask if truth.plane is PlaneName.HEAD else blank,
            abdomen=mask if truth.plane is PlaneName.ABDOMEN else blank,
            femur=mask if truth.plane is PlaneName.FEMUR else blank,
            truth=replace(truth, in_view=in_view),
        )

    def in_view(self, sweep: int, index: int) -> tuple[str, ...]:
        """Say what fills a noticeable part of the fan in a frame without drawing it, on a coarse grid."""
        probe, _ = self.probe_and_fan
        rows, columns = _COARSE
        points = self.planes[sweep][index].points(probe.x_mm[::rows, ::columns], probe.z_mm[::rows, ::columns])
        return _in_view(self.scene.labels(points), probe)

    def mask(self, sweep: int, index: int) -> Mask:
        """Return the mask of the protocol's target in a frame without drawing it, shape (H, W)."""
        truth, shown = self._truth(sweep, index)
        if truth.plane is self.plan.protocol.target:
            return self._mask(self.planes[sweep][index], truth, shown)
        _, fan = self.probe_and_fan
        return np.zeros((fan.height_px, fan.width_px), np.uint8)

    def _mask(self, plane: Plane, truth: FrameTruth, shown: PlaneTruth) -> Mask:
        """Mask of the structure that a frame is named after, within the fan."""
        probe, fan = self.probe_and_fan
        x_mm, z_mm = fan.x_mm[0].astype(np.float64), fan.z_mm[:, 0].astype(np.float64)
        if truth.plane is PlaneName.HEAD:
            mask = self.scene.head_mask(shown, x_mm, z_mm)
        elif truth.plane is PlaneName.ABDOMEN:
            mask = self.scene.abdomen_mask(plane, shown, x_mm, z_mm) * np.uint8(
                OPTIMAL if truth.optimal else SUBOPTIMAL
            )
        elif truth.plane is PlaneName.FEMUR:
            mask = self.scene.femur_mask(plane, shown, x_mm, z_mm)
        else:
            return np.zeros((fan.height_px, fan.width_px), np.uint8)
        return np.asarray(mask * fan.mask(probe), np.uint8)

    def truth(self, sweep: int, index: int) -> FrameTruth:
        """Say what is known of a frame without drawing it; `in_view` is left empty."""
        return self._truth(sweep, index)[0]

    def _truth(self, sweep: int, index: int) -> tuple[FrameTruth, PlaneTruth]:
        probe, _ = self.probe_and_fan

        def seen(x: npt.NDArray[np.float64], z: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
            from_apex = z + probe.face_radius_mm
            deep = np.hypot(x, from_apex) - probe.face_radius_mm
            return (np.abs(np.arctan2(x, from_apex)) < probe.sector_rad / 2) & (deep > 0) & (deep < probe.depth_mm)

        shown = self.scene.truth(self.planes[sweep][index], seen)
        contact = 1.0 - min(1.0, float(self.gestures[sweep].lost[index].sum()))
        named = shown.plane if contact >= 1 - _MAX_LOST else PlaneName.NONE
        return (
            FrameTruth(
                sweep=sweep,
                index=index,
                shows=index,
                plane=named,
                quality=shown.quality if named is shown.plane else 0.0,
                optimal=shown.optimal and named is PlaneName.ABDOMEN,
                hc_mm=shown.hc_mm if named is PlaneName.HEAD else None,
                ac_mm=shown.ac_mm if named is PlaneName.ABDOMEN else None,
                fl_mm=shown.fl_mm if named is PlaneName.FEMUR else None,
                contact=contact,
                in_view=(),
            ),
            shown,
        )

    def record(self, frames: list[FrameTruth], mm_per_px: tuple[float, float]) -> dict[str, Any]:
        """Return the exam's truth as JSON.

        Args:
            frames: truth of every written frame, in order.
            mm_per_px: width and height of a written pixel.
        """
        size, plan = self.scene.fetus.size, self.plan
        return {
            "simulated": True,
            "uuid": plan.name,
            "protocol": plan.protocol.value,
            "weeks": plan.weeks,
            "seed": plan.seed,
            "number": plan.number,
            "skill": plan.skill,
            "stopped_short_of_abdomen": self.stopped_short,
            "presentation": _lie(self.scene).value,
            "hc_mm": round(size.hc_mm, 3),
            "bpd_mm": round(size.bpd_mm, 3),
            "ofd_mm": round(size.ofd_mm, 3),
            "ac_mm": round(size.ac_mm, 3),
            "fl_mm": round(size.fl_mm, 3),
            "mm_per_px": list(mm_per_px),
            "sweeps": [
                {"sweep": k + 1, "frames": sum(f.sweep == k for f in frames), "wrong_way": gesture.wrong_way}
                for k, gesture in enumerate(self.gestures)
            ],
            "frames": [frame.to_json() for frame in frames],
            "sweep_ac_mm": sweep_acs(frames, len(self.planes)),
        }


def simulate_exam(plan: ExamPlan, threads: int = 1) -> Iterator[SimulatedFrame]:
    """Draw an exam, frame by frame.

    Args:
        plan: which one; the same plan draws the same bytes.
        threads: how many frames are drawn at once.
    """
    return Exam(plan).frames(threads)


def sweep_acs(frames: list[FrameTruth], sweep_count: int) -> list[float | None]:
    """Return the AC of each sweep's best abdomen frame, optimal ones first, or None where a sweep has none."""
    acs: list[float | None] = []
    for sweep in range(sweep_count):
        shown = [f for f in frames if f.sweep == sweep and f.plane is PlaneName.ABDOMEN]
        best = max(shown, key=lambda f: (f.optimal, f.quality), default=None)
        acs.append(None if best is None else best.ac_mm)
    return acs


def _draw_targeted(plan: ExamPlan, rng: np.random.Generator) -> _Drawn:
    """Draw an exam of one who aims at a plane."""
    presentation = plan.presentation
    if presentation is None:
        presentation = Presentation.CEPHALIC if rng.uniform() < _HEAD_DOWN else Presentation.BREECH
    target = plan.protocol.target
    facing = _facing(target, rng)
    scene = random_scene(rng, plan.weeks, presentation=presentation, facing_rad=facing)
    gestures = _gestures(plan, rng)
    shaft = max((0, 1), key=lambda k: float(scene.to_world(scene.fetus.femurs[k].end)[2]))
    turn = float(rng.uniform(-0.2, 0.2))
    if target is PlaneName.FEMUR:
        turn += level_turn(scene, shaft)
    standard = scene.plane_of(target, turn, shaft)
    across = planes_across(target, scene, standard, gestures[0])
    return _Drawn(scene, (tuple(across),), gestures, targeted_view(target, scene, standard))


def _draw_blind(plan: ExamPlan, rng: np.random.Generator) -> _Drawn:
    """Draw an exam of one who follows the paths of the protocol without looking at the picture."""
    scene = random_scene(rng, plan.weeks, presentation=plan.presentation, tilt_rad=_BLIND_TILT_RAD)
    gestures = _gestures(plan, rng)
    paths = acouslic_paths()
    missed = bool(rng.uniform() < NO_ABDOMEN)
    if missed:
        lies = Presentation.BREECH if scene.rotation[1][1] > 0 else Presentation.CEPHALIC
        paths = short_of_abdomen(paths, scene, lies)
    planes = tuple(tuple(planes_on_path(path, scene, gesture)) for path, gesture in zip(paths, gestures, strict=True))
    return _Drawn(scene, planes, gestures, blind_view(), missed)


def _gestures(plan: ExamPlan, rng: np.random.Generator) -> tuple[Gesture, ...]:
    """Draw what the hand does in every sweep."""
    count = plan.frame_count or plan.protocol.frame_count
    return tuple(draw_gesture(plan.skill, count, rng) for _ in range(plan.protocol.sweep_count))


def _facing(target: PlaneName, rng: np.random.Generator) -> float:
    """Where the fetus's front points in an exam of one who aims, from the mother's front to her left, in radians."""
    side, off = float(rng.choice((-1.0, 1.0))), float(rng.uniform(-_LEVEL_RAD, _LEVEL_RAD))
    if target is PlaneName.FEMUR:
        # Thighs are spread: the upper one lies level where the front points a little to the mother's back.
        return side * (math.pi / 2 + _SPREAD_RAD + 0.5 * off)
    if target is PlaneName.ABDOMEN:
        # The picture is taken with the spine at the side or below, where it shadows nothing.
        return side * (math.pi / 2 - _SPREAD_RAD + _BELLY_SPREAD * off)
    # Sideways, so that the midline lies about level.
    return side * math.pi / 2 + off


def _lie(scene: Scene) -> Presentation:
    """How the fetus of a scene lies."""
    up = scene.rotation[1]
    if abs(up[0]) > abs(up[1]):
        return Presentation.TRANSVERSE
    return Presentation.BREECH if up[1] > 0 else Presentation.CEPHALIC


def _in_view(labels: npt.NDArray[np.uint8], probe: Probe) -> tuple[str, ...]:
    """Name what fills a noticeable part of the fan, from every so many samples and beams."""
    share = np.bincount(labels.ravel(), minlength=len(Tissue)) / labels.size
    names = [name for name, (tissues, least) in _IN_VIEW.items() if share[list(tissues)].sum() >= least]
    rows = math.ceil(_POCKET_MM / (_COARSE[0] * probe.sample_mm))
    runs = np.lib.stride_tricks.sliding_window_view(labels == Tissue.FLUID, min(rows, len(labels)), axis=0)
    if runs.all(axis=-1).any(axis=0).mean() >= _POCKET_BEAMS:
        names.append("fluid")
    return tuple(names)


def _lift(labels: npt.NDArray[np.uint8], lost: npt.NDArray[np.float64], probe: Probe) -> None:
    """Put air before the beams that have no contact."""
    rows = max(2, round(_GAS_MM / probe.sample_mm))
    beams = labels.shape[1]
    left, right = (round(float(share) * beams) for share in lost)
    if left:
        labels[:rows, :left] = Tissue.GAS
    if right:
        labels[:rows, beams - right :] = Tissue.GAS
