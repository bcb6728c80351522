"""The rate of analysis: lower under strain, up again after a calm time, never flapping, and always with a reason."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_devices.telemetry import Clock, Cooling, Telemetry, Zone
from edgefetal_runtime.service.governor import (
    DEFAULT_LIMITS,
    Governor,
    RateChange,
    Strain,
    Throttling,
    decide,
    first_state,
    headroom_c,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

EASY = Strain(latency_s=0.1, headroom_c=30.0)
HOT = Strain(latency_s=0.1, headroom_c=2.0)
SLOW = Strain(latency_s=0.9, headroom_c=30.0)
NOTHING = Telemetry((), (), (), None, None)


def played(series: Iterable[Strain], step_s: float = 2.0) -> list[tuple[float, RateChange]]:
    """Play a series of strains, one every `step_s`, and list the changes with their times."""
    state, changes = first_state(DEFAULT_LIMITS), []
    for number, strain in enumerate(series):
        state, change = decide(state, strain, number * step_s, DEFAULT_LIMITS)
        if change is not None:
            changes.append((number * step_s, change))
    return changes


def test_without_strain_nothing_changes() -> None:
    assert played([EASY] * 5000) == []


def test_what_is_unknown_is_no_strain() -> None:
    assert played([Strain()] * 100) == []


def test_a_hot_board_goes_down_step_by_step_and_no_further_than_the_slowest() -> None:
    changes = played([HOT] * 100)
    assert [change.every_nth for _, change in changes] == [2, 3, 4, 5, 6]
    assert [time_s for time_s, _ in changes] == [0.0, 10.0, 20.0, 30.0, 40.0]


def test_each_change_says_why_in_one_sentence() -> None:
    (_, change), *_ = played([HOT])
    assert change.reason == (
        "Every 2nd frame is analysed, because the board is 2 degrees below the temperature at which it slows down; "
        "cool it."
    )
    (_, change), *_ = played([replace(EASY, headroom_c=-3.0)])
    assert "the board is above the temperature" in change.reason
    (_, change), *_ = played([replace(EASY, throttled=True)])
    assert "has slowed its processors down; check cooling and power" in change.reason
    (_, change), *_ = played([SLOW])
    assert change.reason == "Every 2nd frame is analysed, because results take 0.90 s, more than 0.5 s."
    *_, (_, change) = played([HOT] * 6 + [EASY] * 100)
    assert change.reason == "Every frame is analysed, after 60 s without strain."


def test_it_comes_back_one_step_after_each_calm_minute() -> None:
    changes = played([HOT] * 10 + [EASY] * 200)
    assert [(time_s, change.every_nth) for time_s, change in changes] == [
        (0.0, 2),
        (10.0, 3),
        (80.0, 2),
        (140.0, 1),
    ]


def test_between_strain_and_ease_the_rate_stays() -> None:
    lukewarm = replace(EASY, headroom_c=8.0)
    assert [change.every_nth for _, change in played([HOT] + [lukewarm] * 5000)] == [2]
    sluggish = replace(EASY, latency_s=0.45)
    assert [change.every_nth for _, change in played([SLOW] + [sluggish] * 5000)] == [2]


def test_a_strain_that_flaps_faster_than_the_hold_gives_few_changes() -> None:
    changes = played([HOT, EASY] * 1000)
    assert [change.every_nth for _, change in changes] == [2, 3, 4, 5, 6]


def test_a_strain_that_comes_back_after_each_rise_makes_it_wait_twice_as_long_each_time() -> None:
    """A board that is cool at every 2nd frame and hot at every frame: a day gives no more changes than it must."""
    state, rises, now_s = first_state(DEFAULT_LIMITS), [], 0.0
    while now_s < 86_400.0:
        state, change = decide(state, HOT if state.every_nth == 1 else EASY, now_s, DEFAULT_LIMITS)
        if change is not None and change.every_nth == 1:
            rises.append(now_s)
        now_s += 2.0
    waits_s = [later - earlier for earlier, later in itertools.pairwise(rises)]
    assert waits_s[:4] == [pytest.approx(wait_s, abs=15.0) for wait_s in (120.0, 240.0, 480.0, 960.0)]
    assert min(waits_s[4:]) >= 960.0
    print(f"{len(rises)} rises in a simulated day of flapping")  # noqa: T201 - the CI shows it
    assert len(rises) < 100


def test_a_rise_is_blamed_once_however_many_steps_down_follow_it() -> None:
    state, now_s = first_state(DEFAULT_LIMITS), 0.0
    for strain, until_s in ((HOT, 20.0), (EASY, 90.0), (HOT, 120.0)):
        while now_s < until_s:
            state, _ = decide(state, strain, now_s, DEFAULT_LIMITS)
            now_s += 2.0
    assert state.every_nth == 5
    assert state.calm_s == 2 * DEFAULT_LIMITS.calm_s


def test_a_long_calm_forgets_the_flapping() -> None:
    limits = DEFAULT_LIMITS
    state = replace(first_state(limits), calm_s=limits.longest_calm_s)
    for number in range(490):
        state, _ = decide(state, EASY, 2.0 * number, limits)
    assert state.calm_s == limits.calm_s


def test_a_latency_that_fewer_frames_shorten_keeps_the_step() -> None:
    state, change = decide(first_state(DEFAULT_LIMITS), SLOW, 0.0, DEFAULT_LIMITS)
    assert change is not None
    state, change = decide(state, replace(SLOW, latency_s=0.6), 20.0, DEFAULT_LIMITS)
    assert change is not None
    assert change.every_nth == 3


def test_a_latency_that_fewer_frames_do_not_shorten_gives_the_frames_back() -> None:
    """A network that takes 0.9 s takes 0.9 s; leaving frames out would only lose them."""
    changes = played([SLOW] * 450)
    assert [(time_s, change.every_nth) for time_s, change in changes] == [(0.0, 2), (10.0, 1)]
    assert changes[1][1].reason == (
        "Every frame is analysed again, because leaving out frames did not shorten the latency."
    )
    later = played([SLOW] * 500)
    assert [time_s for time_s, _ in later][2] >= 970.0


def test_a_hot_board_counts_while_latency_does_not() -> None:
    changes = played([SLOW] * 10 + [replace(HOT, latency_s=0.9)] * 20)
    assert [change.every_nth for _, change in changes] == [2, 1, 2, 3, 4, 5]


def test_a_step_that_helped_long_ago_is_not_held_against_the_next() -> None:
    changes = played([SLOW] + [replace(EASY, latency_s=0.45)] * 1000 + [SLOW])
    assert [change.every_nth for _, change in changes] == [2, 3]


def test_a_clock_that_jumps_back_does_not_freeze_the_rate() -> None:
    state, change = decide(first_state(DEFAULT_LIMITS), HOT, 100_000.0, DEFAULT_LIMITS)
    state, change = decide(state, HOT, 0.0, DEFAULT_LIMITS)
    state, change = decide(state, HOT, 10.0, DEFAULT_LIMITS)
    assert change is not None
    assert change.every_nth == 3


strains = st.builds(
    Strain,
    latency_s=st.none() | st.floats(0.0, 20.0),
    headroom_c=st.none() | st.floats(-30.0, 100.0),
    throttled=st.booleans(),
)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.floats(0.0, 100.0), strains), max_size=60))
def test_any_series_keeps_the_rules(series: list[tuple[float, Strain]]) -> None:
    state, now_s, changed_s = first_state(DEFAULT_LIMITS), 0.0, -math.inf
    for wait_s, strain in series:
        now_s += wait_s
        before = state.every_nth
        state, change = decide(state, strain, now_s, DEFAULT_LIMITS)
        assert 1 <= state.every_nth <= DEFAULT_LIMITS.slowest
        assert abs(state.every_nth - before) == (0 if change is None else 1)
        if change is not None:
            assert change.every_nth == state.every_nth
            assert now_s - changed_s >= DEFAULT_LIMITS.hold_s
            assert change.reason.endswith(".")
            changed_s = now_s
        if state.every_nth > before:
            assert strain != EASY


def simulated_board(ambient_c: float, watts_full: float, *, seed: int) -> list[tuple[float, int, float]]:
    """Simulate an hour of a board that warms with what it analyses: time, rate, temperature at every look.

    One thermal mass of 60 J/K, 1.6 K/W to the air, 3 W at rest, and a sensor that is half a degree uncertain.
    """
    rng = random.Random(seed)  # noqa: S311 - noise of a sensor
    state, temperature_c, seen = first_state(DEFAULT_LIMITS), ambient_c, []
    for second in range(0, 3600, 2):
        watts = 3.0 + watts_full / state.every_nth
        temperature_c += 2.0 / 60.0 * (watts - (temperature_c - ambient_c) / 1.6)
        room_c = 80.0 - temperature_c + rng.gauss(0.0, 0.5)
        state, _ = decide(state, Strain(0.1, room_c), float(second), DEFAULT_LIMITS)
        seen.append((float(second), state.every_nth, temperature_c))
    return seen


@pytest.mark.parametrize("ambient_c", [20.0, 30.0, 38.0, 45.0])
@pytest.mark.parametrize("watts_full", [10.0, 20.0, 28.0])
def test_a_simulated_board_stays_below_its_limit_without_flapping(ambient_c: float, watts_full: float) -> None:
    seen = simulated_board(ambient_c, watts_full, seed=1)
    rates = [rate for _, rate, _ in seen]
    changes = sum(a != b for a, b in itertools.pairwise(rates))
    assert max(temperature_c for _, _, temperature_c in seen) < 80.0
    print(f"{changes} changes of rate in a simulated hour at {ambient_c} degrees and {watts_full} W")  # noqa: T201 - the CI shows it
    assert changes <= 20
    needs_no_help = ambient_c + 1.6 * (3.0 + watts_full) < 80.0 - 5.0 - 2.0
    assert (changes == 0) is needs_no_help


def test_every_nth_frame_is_admitted() -> None:
    governor = Governor()
    assert [governor.admit() for _ in range(5)] == [True] * 5
    change = governor.consider(0.0, 1.0, throttled=False)
    assert change is not None
    assert [governor.admit() for _ in range(6)] == [False, True] * 3
    governor.consider(10.0, 1.0, throttled=False)
    assert governor.every_nth == 3
    assert [governor.admit() for _ in range(6)] == [False, False, True] * 2


def test_the_governor_looks_at_the_slow_end_of_the_latencies() -> None:
    governor = Governor()
    for _ in range(18):
        governor.observe(0.1)
    for _ in range(2):
        governor.observe(0.7)
    change = governor.consider(0.0, None, throttled=False)
    assert change is not None
    assert "results take 0.70 s" in change.reason


def test_one_slow_frame_in_sixty_is_no_strain() -> None:
    governor = Governor()
    for number in range(60):
        governor.observe(5.0 if number == 30 else 0.1)
    assert governor.consider(0.0, None, throttled=False) is None


def test_too_few_latencies_and_broken_ones_say_nothing() -> None:
    governor = Governor()
    for _ in range(19):
        governor.observe(5.0)
    for broken in (math.nan, math.inf, -math.inf):
        governor.observe(broken)
    assert governor.consider(0.0, math.nan, throttled=False) is None


def test_latencies_from_before_a_change_do_not_count_after_it() -> None:
    governor = Governor()
    for _ in range(60):
        governor.observe(0.9)
    assert governor.consider(0.0, None, throttled=False) is not None
    assert governor.consider(20.0, None, throttled=False) is None


def test_headroom_is_of_the_nearest_sensor_to_its_own_limit() -> None:
    zones = (Zone("cpu", 70.0, 95.0), Zone("gpu", 60.0, 80.0), Zone("off", None, 10.0), Zone("nvme", 50.0, None))
    assert headroom_c(replace(NOTHING, zones=zones)) == 20.0
    assert headroom_c(replace(NOTHING, zones=(Zone("soc", 78.0, None),))) == 2.0
    assert headroom_c(NOTHING) is None


def test_a_placeholder_is_no_sensor() -> None:
    zones = (Zone("PMIC-Die", 100.0, None), Zone("CPU-therm", 50.0, None))
    assert headroom_c(replace(NOTHING, zones=zones)) == 30.0


def clocks(limit_hz: float) -> Telemetry:
    return replace(NOTHING, clocks=(Clock("policy0", 0.6e9, limit_hz, 2.0e9),))


def test_a_power_mode_that_was_set_before_is_no_throttling() -> None:
    throttling = Throttling()
    assert [throttling.seen(clocks(1.5e9)) for _ in range(3)] == [False] * 3


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (clocks(1.2e9), True),
        (clocks(1.49e9), False),
        (replace(NOTHING, coolings=(Cooling("cpufreq-cpu0", 2),)), True),
        (replace(NOTHING, coolings=(Cooling("cpufreq-cpu0", 0), Cooling("gpu-balanced", None))), False),
    ],
)
def test_a_limit_that_is_lowered_or_cooling_in_force_is_throttling(later: Telemetry, *, expected: bool) -> None:
    throttling = Throttling()
    throttling.seen(clocks(1.5e9))
    assert throttling.seen(later) is expected
    assert not throttling.seen(clocks(1.5e9))


# Temperature and clock limit in a Raspberry-Pi-like run, one pair every 10 s, as a fanless case warms and is opened.
RECORDED = [
    (55.0, 1800), (61.0, 1800), (66.0, 1800), (70.0, 1800), (73.0, 1800), (75.5, 1800), (77.0, 1800), (78.0, 1800),
    (79.0, 1800), (80.5, 1500), (79.5, 1500), (78.0, 1500), (76.0, 1800), (72.0, 1800), (66.0, 1800), (60.0, 1800),
]  # fmt: skip


def series_of(pairs: Iterable[tuple[float, int]], seen: Callable[[Telemetry], bool]) -> list[Strain]:
    strains = []
    for temperature_c, limit_mhz in pairs:
        telemetry = replace(clocks(1e6 * limit_mhz), zones=(Zone("cpu-thermal", temperature_c, None),))
        strains.append(Strain(0.1, headroom_c(telemetry), seen(telemetry)))
    return strains


def test_a_warming_case_slows_down_before_it_throttles_and_recovers_when_opened() -> None:
    pairs = [*RECORDED, *[(58.0, 1800)] * 60]
    changes = played(series_of(pairs, Throttling().seen), step_s=10.0)
    first_throttled_s = 10.0 * next(number for number, (_, mhz) in enumerate(pairs) if mhz < 1800)
    assert changes[0][0] < first_throttled_s
    assert changes[-1][1].every_nth == 1
