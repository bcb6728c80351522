"""One light, one reason, one action: what a sweep's pictures say of the hand."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_calibration.phantom.exam import Exam, ExamPlan
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_runtime.sweep.glance import Glance, glance
from edgefetal_runtime.sweep.hand import Hand, HandWatch, Light

if TYPE_CHECKING:
    from collections.abc import Sequence

FRAMES_PER_S = 20.0
DARK = Glance(np.zeros((32, 48), np.float32), 0.0)
RNG = np.random.default_rng(0)
FRONT, BACK, NOISE = (RNG.uniform(20, 250, (32, 48)) for _ in range(3))


def _watched(frames: Sequence[Glance], missed: str | None = None, missing: str | None = None) -> Hand:
    watch = HandWatch()
    for number, frame in enumerate(frames):
        watch.push(frame, number / FRAMES_PER_S)
    return watch.verdict(missed, missing)


def _at(place: float, lit: float = 0.6) -> Glance:
    """A picture that turns from one into another, place from 0 to 1."""
    return Glance((np.cos(place * np.pi / 2) * FRONT + np.sin(place * np.pi / 2) * BACK).astype(np.float32), lit)


def _across(count: int = 60) -> list[Glance]:
    return [_at(place) for place in np.linspace(0, 1, count)]


def _jumps(count: int, every: int) -> list[Glance]:
    """A sweep in which every so many-th frame shows something else altogether."""
    frames = _across(count)
    other = Glance(NOISE.astype(np.float32), 0.6)
    return [other if number % every == every - 1 else frame for number, frame in enumerate(frames)]


@pytest.fixture(scope="module")
def simulated() -> list[Glance]:
    """A sweep by a practised hand across a head, 60 frames."""
    exam = Exam(ExamPlan(Protocol.HEAD, weeks=26.0, seed=3, skill=1.0, frame_count=60))
    return [glance(frame.picture) for frame in exam.frames()]


def test_a_simulated_sweep_by_a_practised_hand_is_green(simulated: list[Glance]) -> None:
    hand = _watched(simulated)
    assert (hand.light, hand.reason, hand.action) == (Light.GREEN, "nothing to correct", "go on")
    assert not hand.turned_back
    assert hand.contact == 1.0
    assert hand.too_fast < 0.1
    assert hand.duration_s == pytest.approx(59 / FRAMES_PER_S)


def test_the_same_sweep_backwards_is_as_good(simulated: list[Glance]) -> None:
    """Pictures do not say which way the probe went."""
    forwards, backwards = _watched(simulated), _watched(simulated[::-1])
    assert (backwards.light, backwards.contact) == (forwards.light, forwards.contact)
    assert backwards.too_fast == pytest.approx(forwards.too_fast)


def test_the_sweep_there_and_back_is_seen_to_turn(simulated: list[Glance]) -> None:
    hand = _watched([*simulated, *simulated[::-1]])
    assert hand.turned_back
    assert (hand.light, hand.action) == (Light.AMBER, "sweep in one direction")
    assert hand.reason == "the probe went back over what it had shown"


def test_one_frame_in_four_of_it_is_faster(simulated: list[Glance]) -> None:
    slow, fast = _watched(simulated), _watched(simulated[::4])
    assert fast.too_fast > slow.too_fast
    assert fast.light is Light.RED
    assert fast.reason == "too fast"
    assert fast.action == "repeat it more slowly"


def test_a_probe_that_stands_still_does_not_turn_back(simulated: list[Glance]) -> None:
    assert not _watched([simulated[30]] * 80).turned_back
    assert not _watched([*simulated[:31], *[simulated[30]] * 60, *simulated[31:]]).turned_back


@pytest.mark.parametrize(
    ("dark", "light", "action"),
    [
        (3, Light.GREEN, "go on"),
        (9, Light.AMBER, "press evenly in the next one"),
        (20, Light.RED, "use more gel, press evenly, and repeat"),
    ],
)
def test_frames_without_contact_are_counted_and_are_no_fault_of_the_speed(
    simulated: list[Glance], dark: int, light: Light, action: str
) -> None:
    """Every change from light to dark is one of the picture too."""
    places = {round(place) for place in np.linspace(2, 57, dark)}
    frames = [DARK if number in places else frame for number, frame in enumerate(simulated)]
    hand = _watched(frames)
    assert hand.contact == pytest.approx(1 - dark / 60)
    assert hand.too_fast <= 0.05
    assert (hand.light, hand.action) == (light, action)
    assert light is Light.GREEN or hand.reason == f"poor contact in {dark / 60:.0%} of the sweep"


@pytest.mark.parametrize(("lit", "contact"), [(0.6, 1.0), (0.5, 1.0), (0.45, 0.5), (0.0, 0.5)])
def test_contact_is_judged_by_the_best_frame_of_the_sweep(lit: float, contact: float) -> None:
    frames = [_at(number / 40, 0.6 if number % 2 else lit) for number in range(40)]
    assert _watched(frames).contact == contact


def test_a_sweep_in_the_dark_has_no_contact_and_no_speed() -> None:
    hand = _watched([DARK] * 30)
    assert (hand.contact, hand.too_fast, hand.turned_back) == (0.0, 0.0, False)
    assert (hand.light, hand.reason) == (Light.RED, "poor contact in 100% of the sweep")


def test_a_sweep_of_nothing_is_too_short() -> None:
    hand = HandWatch().verdict()
    assert hand.light is Light.RED
    assert (hand.duration_s, hand.contact, hand.too_fast, hand.skill) == (0.0, 0.0, 0.0, None)


FASTER, SOME_FAST = _jumps(60, 4), _jumps(60, 14)
LOST = [_at(n / 60, 0.1 if n % 3 == 0 else 0.6) for n in range(60)]
SOME_LOST = [_at(n / 60, 0.1 if n % 6 == 0 else 0.6) for n in range(60)]
THERE_AND_BACK = [*_across(40), *_across(40)[::-1]]


@pytest.mark.parametrize(
    ("frames", "missed", "missing", "light", "reason"),
    [
        (_across(), None, None, Light.GREEN, "nothing to correct"),
        (SOME_FAST, None, None, Light.AMBER, "fast in places"),
        (SOME_LOST, None, None, Light.AMBER, "poor contact in 17% of the sweep"),
        (THERE_AND_BACK, None, None, Light.AMBER, "the probe went back over what it had shown"),
        (THERE_AND_BACK, None, "the sweep ends on the head; sweep across", Light.AMBER, "the sweep ends on the head"),
        (_across(14), None, None, Light.RED, "only 14 frames"),
        (_across(14), None, "the sweep ends on the head; sweep across", Light.RED, "only 14 frames"),
        (FASTER, None, "the sweep ends on the head; sweep across", Light.RED, "too fast"),
        (_jumps(12, 2), None, None, Light.RED, "too fast"),
        (LOST, None, None, Light.RED, "poor contact in 33% of the sweep"),
        (LOST[::4], None, None, Light.RED, "poor contact in 33% of the sweep"),
        (LOST, "the picture was interrupted", "no head", Light.RED, "the picture was interrupted"),
        ([], "the picture was interrupted", None, Light.RED, "the picture was interrupted"),
    ],
)
def test_of_several_faults_the_worst_one_is_said_alone(
    frames: list[Glance], missed: str | None, missing: str | None, light: Light, reason: str
) -> None:
    hand = _watched(frames, missed, missing)
    assert (hand.light, hand.reason) == (light, reason)
    assert hand.action
    assert ";" not in hand.reason + hand.action


@pytest.mark.parametrize(
    ("missing", "reason", "action"),
    [
        ("the sweep ends on the head; sweep across all of it", "the sweep ends on the head", "sweep across all of it"),
        ("nothing was found", "nothing was found", "repeat this sweep"),
    ],
)
def test_a_doubt_gives_its_own_reason_and_action(missing: str, reason: str, action: str) -> None:
    hand = _watched(_across(), missing=missing)
    assert (hand.light, hand.reason, hand.action) == (Light.AMBER, reason, action)


def test_skill_is_the_mean_of_what_the_network_says() -> None:
    watch = HandWatch()
    for number, skill in enumerate((0.2, 0.4, None, math.nan, 0.9)):
        watch.push(_at(number / 4), number / FRAMES_PER_S, skill)
    assert watch.verdict().skill == pytest.approx(0.5)
    assert _watched(_across()).skill is None


def test_asking_for_the_verdict_changes_nothing(simulated: list[Glance]) -> None:
    watch = HandWatch()
    for number, frame in enumerate(simulated):
        watch.push(frame, number / FRAMES_PER_S)
        watch.verdict()
    assert watch.verdict() == _watched(simulated)


def test_memory_does_not_grow_with_the_sweep_and_a_long_way_back_is_still_seen() -> None:
    alive: weakref.WeakSet[Glance] = weakref.WeakSet()
    watch = HandWatch()
    most = 0
    places = np.concatenate((np.linspace(0, 1, 900), np.linspace(1, 0, 900)))
    for number, place in enumerate(places):
        frame = _at(float(place))
        alive.add(frame)
        watch.push(frame, number / FRAMES_PER_S)
        del frame
        most = max(most, len(alive))
    assert most <= 203
    assert watch.verdict().turned_back
