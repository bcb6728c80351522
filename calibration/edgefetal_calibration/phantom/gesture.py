"""The hand on the probe, from novice to expert.

Skill runs from 0, who was shown the probe an hour ago, to 1, who holds it for a living. What a lack of it does: the
speed varies, the hand jerks, leans and turns the probe, lifts it off the skin, stops early, starts late, and now and
then sweeps the wrong way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edgefetal_devices.errors import InputError

# What a complete novice does; an expert keeps `_STEADY` of it.
_SPEED_SPREAD: Final = 0.9
_TREMOR: Final = 0.012
_TILT_RAD: Final = 0.20
_TURN_RAD: Final = 0.22
_ROCK_RAD: Final = 0.12
_DRIFT_MM: Final = 14.0
_STEADY: Final = 0.12
_LATE: Final = 0.22
_EARLY: Final = 0.35
_LOSSES: Final = 4.0
_LOSS_FRAMES: Final = (3, 14)
_WRONG_WAY: Final = 0.18
_SLOW_WAVES: Final = (0.4, 3.0)
_FAST_WAVES: Final = (6.0, 22.0)


@dataclass(frozen=True, eq=False)
class Gesture:
    """What the hand does over the frames of one sweep; every array has a row for each frame.

    Args:
        progress: place on the sweep's path, from 0 at its start to 1 at its end, shape (T,).
        tilt_rad: how far the probe leans out of its plane, shape (T,).
        turn_rad: how far it is turned about its own axis, shape (T,).
        rock_rad: how far it leans within its plane, shape (T,).
        drift_mm: how far it is beside the path, shape (T,).
        lost: share of the beams without contact from the left and from the right, shape (T, 2).
        wrong_way: whether the sweep runs backwards.
    """

    progress: npt.NDArray[np.float64]
    tilt_rad: npt.NDArray[np.float64]
    turn_rad: npt.NDArray[np.float64]
    rock_rad: npt.NDArray[np.float64]
    drift_mm: npt.NDArray[np.float64]
    lost: npt.NDArray[np.float64]
    wrong_way: bool


def check_skill(skill: float) -> None:
    """Refuse a skill that is none.

    Raises:
        InputError: it is not within 0 to 1.
    """
    if not 0 <= skill <= 1:
        raise InputError(f"A skill of {skill:g} is none; give 0 for a novice to 1 for an expert.")


def draw_gesture(skill: float, frame_count: int, rng: np.random.Generator) -> Gesture:
    """Draw what a hand does in one sweep.

    Args:
        skill: 0 for a novice to 1 for an expert.
        frame_count: frames of the sweep.
        rng: source of all chances; the same state draws the same gesture.

    Raises:
        InputError: the skill is out of range, or there are no frames.
    """
    check_skill(skill)
    if frame_count < 1:
        raise InputError(f"A sweep of {frame_count} frames shows nothing; give at least 1.")
    clumsy = 1.0 - skill
    unsteady = _STEADY + (1 - _STEADY) * clumsy
    speed = np.exp(_SPEED_SPREAD * clumsy * _waves(rng, frame_count, _SLOW_WAVES))
    path = np.concatenate(([0.0], np.cumsum(speed[:-1])))
    path /= max(float(path[-1]), 1e-9)
    start, end = _LATE * clumsy * rng.uniform(), 1 - _EARLY * clumsy * rng.uniform() ** 2
    progress = start + (end - start) * path
    progress = np.clip(progress + _TREMOR * clumsy * _waves(rng, frame_count, _FAST_WAVES), 0.0, 1.0)
    wrong_way = bool(rng.uniform() < _WRONG_WAY * clumsy)
    wobbles = [
        unsteady * spread * (_waves(rng, frame_count, _SLOW_WAVES) + 0.12 * _waves(rng, frame_count, _FAST_WAVES))
        for spread in (_TILT_RAD, _TURN_RAD, _ROCK_RAD, _DRIFT_MM)
    ]
    return Gesture(
        progress=1 - progress if wrong_way else progress,
        tilt_rad=wobbles[0],
        turn_rad=wobbles[1],
        rock_rad=wobbles[2],
        drift_mm=wobbles[3],
        lost=_losses(rng, frame_count, clumsy),
        wrong_way=wrong_way,
    )


def _waves(rng: np.random.Generator, count: int, waves: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Smooth noise of about unit variance with so many waves over the sweep, shape (count,)."""
    parts = 6
    frequency = rng.uniform(*waves, parts)
    phase = rng.uniform(0, 2 * math.pi, parts)
    size = rng.normal(size=parts) / math.sqrt(parts / 2)
    share = np.arange(count) / max(count - 1, 1)
    return np.asarray(np.sin(2 * math.pi * frequency * share[:, None] + phase) @ size)


def _losses(rng: np.random.Generator, count: int, clumsy: float) -> npt.NDArray[np.float64]:
    """Share of the beams without contact, shape (count, 2)."""
    lost = np.zeros((count, 2))
    for _ in range(int(rng.poisson(_LOSSES * clumsy))):
        first = int(rng.integers(count))
        last = min(count, first + int(rng.integers(*_LOSS_FRAMES)))
        share = 1.0 if rng.uniform() < 0.2 else rng.uniform(0.15, 0.6)  # noqa: PLR2004 - one in five is complete
        # The edge lifts and comes back.
        swell = np.sin(math.pi * (np.arange(last - first) + 0.5) / (last - first))
        side = int(rng.integers(2))
        lost[first:last, side] = np.maximum(lost[first:last, side], share * swell)
    return lost
