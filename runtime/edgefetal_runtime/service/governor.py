"""How many of the frames are analysed, so that a hot or slow board gives fewer results instead of worse ones.

The rate alone is turned down: every frame, every 2nd, every 3rd. What a frame goes through is always the same.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgefetal_devices.telemetry import Telemetry

# Latencies that a quantile is taken of, and the fewest that make one.
_WINDOW, _FEWEST = 60, 20
_QUANTILE = 0.95
_ORDINALS = {2: "2nd", 3: "3rd"}
# A board without a passive trip point is kept below this, where none that we know throttles yet.
_ASSUMED_PASSIVE_C = 80.0
# On several Jetsons this zone is a placeholder that says 50 or 100 degrees for ever.
_PLACEHOLDERS = frozenset({"PMIC-Die"})
# A limit on a clock this far below the highest one seen is throttling.
_LOWERED_CLOCK = 0.95
# A latency that a step did not bring below this share of what it was is not a matter of the rate.
_SHORTER = 0.9


@dataclass(frozen=True)
class Limits:
    """When to slow down, and when to speed up again.

    Args:
        latency_s: the rate goes down above this, at the 95th percentile from a frame's arrival to its result.
        easy_latency_s: it goes up below this only.
        tight_c: the rate goes down where the hottest sensor is nearer than this to where the kernel throttles.
        roomy_c: it goes up where all are further away than this only.
        hold_s: between two changes.
        calm_s: without strain, until the rate goes up.
        longest_calm_s: what `calm_s` doubles to, when the strain comes back after each rise.
        slowest: analyse at least one frame of this many.
    """

    latency_s: float = 0.5
    easy_latency_s: float = 0.35
    tight_c: float = 5.0
    roomy_c: float = 12.0
    hold_s: float = 10.0
    calm_s: float = 60.0
    longest_calm_s: float = 960.0
    slowest: int = 6


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Strain:
    """What the governor looks at; None is unknown, and neither slows down nor keeps from speeding up.

    Args:
        latency_s: 95th percentile from a frame's arrival to its result.
        headroom_c: degrees to where the kernel throttles, of the nearest sensor.
        throttled: whether processors are being slowed down.
    """

    latency_s: float | None = None
    headroom_c: float | None = None
    throttled: bool = False


@dataclass(frozen=True)
class RateState:
    """The rate and what it was decided by.

    Args:
        every_nth: one frame of this many is analysed.
        changed_s: when it was last changed; None for never.
        easy_since_s: since when there has been no strain; None where there is.
        calm_s: for how long there must be none before the rate goes up.
        raised_s: when it last went up; None where it went down since.
        latency_before_s: latency when the rate went down for it; None where it did not.
        deaf_until_s: until when latency does not count, because fewer frames did not help; None where it counts.
    """

    every_nth: int
    changed_s: float | None
    easy_since_s: float | None
    calm_s: float
    raised_s: float | None
    latency_before_s: float | None
    deaf_until_s: float | None


@dataclass(frozen=True)
class RateChange:
    """A change of the rate.

    Args:
        every_nth: one frame of this many is analysed from now on.
        reason: one sentence.
    """

    every_nth: int
    reason: str


def first_state(limits: Limits) -> RateState:
    """Return the state to begin with: every frame."""
    return RateState(1, None, None, limits.calm_s, None, None, None)


def decide(state: RateState, strain: Strain, now_s: float, limits: Limits) -> tuple[RateState, RateChange | None]:
    """Decide on the rate.

    Args:
        state: what was decided before.
        strain: what the board and the pipeline are under.
        now_s: monotonic seconds.
        limits: when to do what.

    Returns:
        The state from now on, and the change, if there is one.
    """
    state = _not_ahead_of(state, now_s)
    hearing = state.deaf_until_s is None or now_s >= state.deaf_until_s
    latency_s = strain.latency_s if hearing else None
    why = _why_slower(strain, latency_s, limits)
    held = state.changed_s is not None and now_s - state.changed_s < limits.hold_s
    if why is None:
        return _eased(state, strain, latency_s, now_s, limits, held=held)
    state = replace(state, easy_since_s=None)
    if held:
        return state, None
    if not why.of_board and _in_vain(state.latency_before_s, latency_s):
        return _given_up(state, now_s, limits)
    if state.every_nth >= limits.slowest:
        return state, None
    # A case warms slowly, so a strain counts as the rise's doing for as long as the longest calm.
    again = state.raised_s is not None and now_s - state.raised_s < limits.longest_calm_s
    slower = replace(
        state,
        every_nth=state.every_nth + 1,
        changed_s=now_s,
        calm_s=min(2 * state.calm_s, limits.longest_calm_s) if again else state.calm_s,
        # Each rise is blamed once, however many steps down follow it.
        raised_s=None,
        latency_before_s=None if why.of_board else latency_s,
    )
    return slower, RateChange(slower.every_nth, f"{_said(slower.every_nth)}, because {why.text}.")


@dataclass(frozen=True)
class _Why:
    text: str
    of_board: bool


def _why_slower(strain: Strain, latency_s: float | None, limits: Limits) -> _Why | None:
    if strain.headroom_c is not None and strain.headroom_c < limits.tight_c:
        where = f"{strain.headroom_c:.0f} degrees below" if strain.headroom_c >= 0 else "above"
        return _Why(f"the board is {where} the temperature at which it slows down; cool it", of_board=True)
    if strain.throttled:
        return _Why("the board has slowed its processors down; check cooling and power", of_board=True)
    if latency_s is not None and latency_s > limits.latency_s:
        return _Why(f"results take {latency_s:.2f} s, more than {limits.latency_s:g} s", of_board=False)
    return None


def _in_vain(before_s: float | None, latency_s: float | None) -> bool:
    """Say whether a step that was taken for the latency left it about as it was."""
    return before_s is not None and latency_s is not None and latency_s > _SHORTER * before_s


def _eased(
    state: RateState, strain: Strain, latency_s: float | None, now_s: float, limits: Limits, *, held: bool
) -> tuple[RateState, RateChange | None]:
    """Go on where nothing strains: speed up after a calm time."""
    easy = (strain.headroom_c is None or strain.headroom_c >= limits.roomy_c) and (
        latency_s is None or latency_s <= limits.easy_latency_s
    )
    if latency_s is not None:
        # The step that was taken for it did help.
        state = replace(state, latency_before_s=None)
    if not easy:
        return replace(state, easy_since_s=None), None
    since_s = now_s if state.easy_since_s is None else state.easy_since_s
    state = replace(state, easy_since_s=since_s)
    calm_s = now_s - since_s
    if state.every_nth == 1:
        # Such a long calm at full rate forgets the strain that came back.
        return replace(state, calm_s=limits.calm_s) if calm_s >= limits.longest_calm_s else state, None
    if held or calm_s < state.calm_s:
        return state, None
    faster = replace(
        state,
        every_nth=state.every_nth - 1,
        changed_s=now_s,
        easy_since_s=now_s,
        raised_s=now_s,
        latency_before_s=None,
    )
    return faster, RateChange(faster.every_nth, f"{_said(faster.every_nth)}, after {calm_s:.0f} s without strain.")


def _given_up(state: RateState, now_s: float, limits: Limits) -> tuple[RateState, RateChange | None]:
    """Take back a step that did not shorten the latency, and not try it again for a while."""
    back = replace(
        state,
        every_nth=max(state.every_nth - 1, 1),
        changed_s=now_s,
        latency_before_s=None,
        deaf_until_s=now_s + limits.longest_calm_s,
    )
    return back, RateChange(
        back.every_nth, f"{_said(back.every_nth)} again, because leaving out frames did not shorten the latency."
    )


def _said(every_nth: int) -> str:
    which = "Every frame" if every_nth == 1 else f"Every {_ORDINALS.get(every_nth, f'{every_nth}th')} frame"
    return f"{which} is analysed"


def _not_ahead_of(state: RateState, now_s: float) -> RateState:
    """Bring back what lies ahead of a clock that jumped back."""

    def past(time_s: float | None) -> float | None:
        return None if time_s is None else min(time_s, now_s)

    return replace(
        state,
        changed_s=past(state.changed_s),
        easy_since_s=past(state.easy_since_s),
        raised_s=past(state.raised_s),
    )


def headroom_c(telemetry: Telemetry) -> float | None:
    """Return the degrees from the nearest sensor to where the kernel slows processors down for it.

    A sensor without such a point is taken to have it at 80 degrees. None where no sensor says anything.
    """
    rooms_c = [
        (_ASSUMED_PASSIVE_C if zone.passive_c is None else zone.passive_c) - zone.temperature_c
        for zone in telemetry.zones
        if zone.temperature_c is not None and zone.name not in _PLACEHOLDERS
    ]
    return min(rooms_c, default=None)


class Throttling:
    """Tells throttling from a power mode that was set before: both lower the limit on a clock."""

    def __init__(self) -> None:
        """Know no clock yet."""
        self._highest_hz: dict[str, float] = {}

    def seen(self, telemetry: Telemetry) -> bool:
        """Say whether processors are being slowed down, given what earlier calls saw."""
        lowered = False
        for clock in telemetry.clocks:
            if clock.limit_hz is not None:
                highest_hz = max(self._highest_hz.get(clock.name, 0.0), clock.limit_hz)
                self._highest_hz[clock.name] = highest_hz
                lowered = lowered or clock.limit_hz < _LOWERED_CLOCK * highest_hz
        return lowered or any(cooling.step is not None and cooling.step > 0 for cooling in telemetry.coolings)


class Governor:
    """Holds the rate for the pipeline's thread, and decides on it in another.

    Args:
        limits: when to do what.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        """Begin with every frame."""
        self._limits = limits
        self._lock = threading.Lock()
        self._state = first_state(limits)
        self._count = 0
        self._latencies_s: deque[float] = deque(maxlen=_WINDOW)

    @property
    def every_nth(self) -> int:
        """One frame of this many is analysed."""
        with self._lock:
            return self._state.every_nth

    def admit(self) -> bool:
        """Say whether the next frame is to be analysed; to be asked once for each."""
        with self._lock:
            self._count += 1
            if self._count < self._state.every_nth:
                return False
            self._count = 0
            return True

    def observe(self, latency_s: float) -> None:
        """Take in how long a frame took, from its arrival to its result."""
        if math.isfinite(latency_s):
            with self._lock:
                self._latencies_s.append(latency_s)

    def consider(self, now_s: float, headroom_c: float | None, *, throttled: bool) -> RateChange | None:
        """Decide anew.

        Args:
            now_s: monotonic seconds.
            headroom_c: degrees to where the kernel throttles; None if unknown.
            throttled: whether processors are being slowed down.
        """
        known_c = headroom_c if headroom_c is not None and math.isfinite(headroom_c) else None
        with self._lock:
            strain = Strain(_quantile(self._latencies_s), known_c, throttled)
            self._state, change = decide(self._state, strain, now_s, self._limits)
            if change is not None:
                # What was measured at the old rate says nothing of the new one.
                self._latencies_s.clear()
            return change


def _quantile(values: deque[float]) -> float | None:
    """Return the 95th percentile by nearest rank; None of too few."""
    if len(values) < _FEWEST:
        return None
    return sorted(values)[math.ceil(_QUANTILE * len(values)) - 1]
