"""Liveness: frames that come out, or idleness that is declared; nothing else."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_runtime.service.pulse import Idle, Pulse

LIMIT_S = 10.0
IDLE_LIMIT_S = 30.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pulse(clock: Clock) -> Pulse:
    return Pulse(clock, IDLE_LIMIT_S)


def alive(pulse: Pulse) -> bool:
    return pulse.alive(LIMIT_S).alive


def test_it_begins_idle_and_dies_of_a_start_that_never_ends(pulse: Pulse, clock: Clock) -> None:
    assert pulse.alive(LIMIT_S).idle is Idle.STARTING
    clock.now_s += IDLE_LIMIT_S
    assert alive(pulse)
    clock.now_s += 0.1
    assert not alive(pulse)


def test_frames_that_come_out_keep_it_alive(pulse: Pulse, clock: Clock) -> None:
    pulse.busy()
    for _ in range(100):
        with pulse.frame():
            clock.now_s += LIMIT_S
        assert pulse.alive(LIMIT_S).reason == "Frames flow."


def test_a_hung_stage_is_dead_after_the_limit_and_not_before(pulse: Pulse, clock: Clock) -> None:
    pulse.busy()
    pulse.frame_begun()
    clock.now_s += LIMIT_S
    assert alive(pulse)
    clock.now_s += 0.1
    verdict = pulse.alive(LIMIT_S)
    assert not verdict.alive
    assert "in analysis for 10.1 s" in verdict.reason


def test_a_hung_stage_is_not_hidden_by_a_thread_that_declares_idle(pulse: Pulse, clock: Clock) -> None:
    pulse.busy()
    pulse.frame_begun()
    for _ in range(11):
        clock.now_s += 1.0
        pulse.idle(Idle.NO_SOURCE)
        pulse.busy()
        pulse.idle(Idle.NO_SIGNAL)
    assert not alive(pulse)


def test_frames_that_never_reach_the_analysis_are_no_life(pulse: Pulse, clock: Clock) -> None:
    pulse.busy()
    for _ in range(11):
        clock.now_s += 1.0
        pulse.busy()
    verdict = pulse.alive(LIMIT_S)
    assert not verdict.alive
    assert "No frame came out for 11.0 s" in verdict.reason


def test_a_stage_that_fails_on_every_frame_is_dead(pulse: Pulse, clock: Clock) -> None:
    pulse.busy()
    for _ in range(11):
        clock.now_s += 1.0
        with pytest.raises(ValueError, match="bad"), pulse.frame():
            raise ValueError("bad")
    assert not alive(pulse)


def test_one_failure_among_frames_that_come_out_is_no_death(pulse: Pulse, clock: Clock) -> None:
    pulse.busy()
    for number in range(50):
        clock.now_s += 1.0
        pulse.frame_begun()
        if number % 2:
            pulse.frame_failed()
        else:
            pulse.frame_done()
        assert alive(pulse)


def test_idle_must_be_declared_again(pulse: Pulse, clock: Clock) -> None:
    for _ in range(20):
        pulse.idle(Idle.NO_EXAM)
        clock.now_s += IDLE_LIMIT_S
        assert pulse.alive(LIMIT_S).idle is Idle.NO_EXAM
    clock.now_s += 0.1
    verdict = pulse.alive(LIMIT_S)
    assert not verdict.alive
    assert "no examination is open" in verdict.reason


def test_frames_have_the_whole_limit_after_an_idle_time(pulse: Pulse, clock: Clock) -> None:
    pulse.busy()
    pulse.frame_done()
    pulse.idle(Idle.NO_SIGNAL)
    clock.now_s += 29.0
    pulse.busy()
    clock.now_s += LIMIT_S
    assert alive(pulse)
    clock.now_s += 0.1
    assert not alive(pulse)


def test_the_last_frame_of_an_exam_does_not_end_the_idleness(pulse: Pulse, clock: Clock) -> None:
    pulse.busy()
    pulse.frame_begun()
    pulse.idle(Idle.NO_EXAM)
    pulse.frame_done()
    clock.now_s += 2 * LIMIT_S
    assert alive(pulse)


def test_it_lives_again_with_the_next_frame(pulse: Pulse, clock: Clock) -> None:
    pulse.busy()
    pulse.frame_begun()
    clock.now_s += 60.0
    assert not alive(pulse)
    pulse.frame_done()
    assert alive(pulse)


def test_a_clock_that_jumps_ahead_costs_one_look(pulse: Pulse, clock: Clock) -> None:
    """As after a suspend: the next frame, which comes at once, puts it right."""
    pulse.busy()
    clock.now_s += 86_400.0
    assert not alive(pulse)
    pulse.frame_done()
    assert alive(pulse)


@pytest.mark.parametrize("hang", ["stage", "source", "idle"])
def test_a_clock_that_jumps_back_hides_no_hang(pulse: Pulse, clock: Clock, hang: str) -> None:
    pulse.busy()
    if hang == "stage":
        pulse.frame_begun()
    if hang == "idle":
        pulse.idle(Idle.NO_SOURCE)
    clock.now_s -= 86_400.0
    assert alive(pulse)
    clock.now_s += IDLE_LIMIT_S + 0.1
    assert not alive(pulse)


def test_more_results_than_frames_owe_nothing(pulse: Pulse, clock: Clock) -> None:
    pulse.busy()
    pulse.frame_done()
    pulse.frame_done()
    pulse.frame_begun()
    clock.now_s += LIMIT_S + 0.1
    assert not alive(pulse)


ACTIONS = ("busy", "idle", "begun", "done", "failed")


@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.floats(0.0, 40.0)), max_size=40))
def test_any_history_is_judged_as_a_plain_account_of_it_is(history: list[tuple[str, float]]) -> None:
    """The plain account keeps every event and looks for what should have happened within the limits."""
    clock = Clock()
    pulse = Pulse(clock, IDLE_LIMIT_S)
    events: list[tuple[float, str]] = [(clock.now_s, "idle")]
    for action, wait_s in history:
        act = {
            "busy": pulse.busy,
            "idle": lambda: pulse.idle(Idle.NO_SOURCE),
            "begun": pulse.frame_begun,
            "done": pulse.frame_done,
            "failed": pulse.frame_failed,
        }[action]
        act()
        events.append((clock.now_s, action))
        clock.now_s += wait_s
        assert alive(pulse) is plainly_alive(events, clock.now_s), events


def plainly_alive(events: list[tuple[float, str]], now_s: float) -> bool:
    idle, owed, since_owed_s, expected_s, declared_s = True, 0, 0.0, 0.0, 0.0
    for time_s, action in events:
        if action == "idle":
            idle, declared_s = True, time_s
        elif action == "busy" and idle:
            idle, expected_s = False, time_s
        elif action == "begun":
            since_owed_s = since_owed_s if owed else time_s
            owed += 1
        elif action in {"done", "failed"}:
            owed = max(owed - 1, 0)
            if action == "done":
                expected_s = since_owed_s = time_s
    if owed and now_s - since_owed_s > LIMIT_S:
        return False
    return now_s - declared_s <= IDLE_LIMIT_S if idle else now_s - expected_s <= LIMIT_S


def test_many_threads_leave_nothing_owed(clock: Clock) -> None:
    pulse = Pulse(clock)

    def work() -> None:
        for _ in range(500):
            with pulse.frame():
                pulse.busy()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pulse.idle(Idle.NO_EXAM)
    clock.now_s += LIMIT_S + 1
    assert alive(pulse)
