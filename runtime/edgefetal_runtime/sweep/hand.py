"""How a sweep is done: contact, speed, direction; and one light with one reason and one action.

Nothing here stops the operator: novices deviate in a quarter of their exams and spoil few of them. Speed is read from
how much the picture changes, because no probe tells where it is: in five simulated blind exams frames 2 to 3 mm apart
correlated by 0.95 in the median, those 6 to 10 mm apart by 0.80. Whether a sweep began at the wrong end cannot be seen
in pictures; that it went back over itself can.
"""

from __future__ import annotations

import enum
import math
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_runtime.sweep.glance import likenesses

if TYPE_CHECKING:
    from edgefetal_runtime.sweep.glance import Glance

# Successive frames less alike than this lie some 5 mm apart: too far for a plane to last three frames.
TOO_FAST_LIKENESS = 0.85
# With less of the lit area than this, relative to the best frame, a fifth of the beams have no contact.
MIN_CONTACT = 0.8
_MAX_TOO_FAST, _MAX_LOST = 0.25, 0.25
_SOME_TOO_FAST, _SOME_LOST = 0.10, 0.10
_MIN_FRAMES = 15
# A frame was seen before if one at least so many frames back is as alike as a neighbour, and the picture in between
# was not.
_AGAIN, _OTHER, _APART = 0.97, 0.90, 10
_MAX_AGAIN = 0.15
# Enough glances to notice a way back; of longer sweeps every second, third ... is held.
_HELD = 200


class Light(str, enum.Enum):
    """What the operator is shown."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"


@dataclass(frozen=True)
class Hand:
    """How a sweep was done.

    Args:
        light: the verdict.
        reason: what is wrong, or that nothing is.
        action: what to do next.
        contact: share of the frames in which the probe touched well.
        too_fast: share of the frames between which the picture changed too much.
        turned_back: whether it went back over what it had shown.
        duration_s: from the first frame to the last.
        skill: mean of what the network says of the hand, 0 to 1, or None.
    """

    light: Light
    reason: str
    action: str
    contact: float
    too_fast: float
    turned_back: bool
    duration_s: float
    skill: float | None


class HandWatch:
    """Watches the hand through one sweep, with a few numbers of every frame and a bounded number of pictures."""

    def __init__(self) -> None:
        """Start a sweep."""
        self._frames = 0
        self._likenesses = array("f")
        self._lits = array("f")
        self._held: list[Glance] = []
        self._every = 1
        self._last: Glance | None = None
        self._started_s = self._ended_s = 0.0
        self._skills = array("f")

    def push(self, seen: Glance, timestamp_s: float, skill: float | None = None) -> None:
        """Take the next frame.

        Args:
            seen: the frame from afar.
            timestamp_s: its time in the source.
            skill: what the network says of the hand, or None.
        """
        if self._last is None:
            self._started_s = timestamp_s
        else:
            self._likenesses.append(self._last.likeness(seen))
        self._ended_s = timestamp_s
        self._last = seen
        self._lits.append(seen.lit)
        if skill is not None and not math.isnan(skill):
            self._skills.append(skill)
        if self._frames % self._every == 0:
            self._held.append(seen)
            if len(self._held) > _HELD:
                self._held, self._every = self._held[::2], 2 * self._every
        self._frames += 1

    def verdict(self, missed: str | None = None, missing: str | None = None) -> Hand:
        """Say how the sweep was done so far.

        Args:
            missed: what broke the sweep, such as a source that was lost; None where nothing did.
            missing: why nothing could be measured, or None; a sweep may be well done and still not reach the plane.
        """
        lits = np.array(self._lits or [0.0], np.float64)
        touches = (lits >= MIN_CONTACT * lits.max()) & (lits > 0)
        contact = float(touches.mean())
        # Where contact is lost or comes back the picture changes too, at any speed.
        too_fast = float(
            ((np.array(self._likenesses, np.float64) < TOO_FAST_LIKENESS) & touches[1:] & touches[:-1]).sum()
        )
        too_fast /= max(self._frames - 1, 1)
        turned = _turned_back(self._held)
        light, reason, action = _light(self._frames, contact, too_fast, missed, missing, turned=turned)
        skill = float(np.mean(self._skills)) if self._skills else None
        return Hand(light, reason, action, contact, too_fast, turned, self._ended_s - self._started_s, skill)


def _light(
    frames: int, contact: float, too_fast: float, missed: str | None, missing: str | None, *, turned: bool
) -> tuple[Light, str, str]:
    """Choose the one thing that matters most."""
    doubt, _, advice = (missing or "").partition("; ")
    gaps = f"poor contact in {1 - contact:.0%} of the sweep"
    checks = (
        (missed is not None, Light.RED, missed or "", "repeat this sweep"),
        (contact < 1 - _MAX_LOST, Light.RED, gaps, "use more gel, press evenly, and repeat"),
        (too_fast > _MAX_TOO_FAST, Light.RED, "too fast", "repeat it more slowly"),
        (frames < _MIN_FRAMES, Light.RED, f"only {frames} frames", "repeat it over the whole length"),
        (missing is not None, Light.AMBER, doubt, advice or "repeat this sweep"),
        (turned, Light.AMBER, "the probe went back over what it had shown", "sweep in one direction"),
        (contact < 1 - _SOME_LOST, Light.AMBER, gaps, "press evenly in the next one"),
        (too_fast > _SOME_TOO_FAST, Light.AMBER, "fast in places", "go a little more slowly"),
        (True, Light.GREEN, "nothing to correct", "go on"),
    )
    return next((light, reason, action) for wrong, light, reason, action in checks if wrong)


def _turned_back(held: list[Glance]) -> bool:
    """Tell whether frames were shown again after others had been in between."""
    again = 0
    alike = likenesses(held[::2])
    for late in range(_APART, len(alike)):
        earlier = alike[late, : late - _APART // 2]
        best = int(earlier.argmax())
        again += bool(earlier[best] >= _AGAIN and earlier[best:].min() < _OTHER)
    return again > _MAX_AGAIN * max(len(held) / 2, 1)
