"""Where sweeps begin and end in a live picture: by contact and movement, by command, and by interruption."""

from __future__ import annotations

import numpy as np
import pytest

from edgefetal_runtime.sweep.finder import SweepFinder
from edgefetal_runtime.sweep.glance import Glance

FRAMES_PER_S = 20
BEGIN_S, END_S = 0.3, 1.0
RNG = np.random.default_rng(0)


class _Live:
    """A live picture that is played to a finder, with its clock."""

    def __init__(self, finder: SweepFinder, frames_per_s: float = FRAMES_PER_S) -> None:
        self.finder = finder
        self.frames_per_s = frames_per_s
        self.now_s = 100.0
        self.segment = 0
        self._frozen = self._picture(0.5)

    @staticmethod
    def _picture(lit: float) -> Glance:
        return Glance(RNG.uniform(0, 255, (32, 48)).astype(np.float32), lit)

    def _play(self, seconds: float, *, lit: float, moves: bool) -> list[int | None]:
        places = []
        for _ in range(round(seconds * self.frames_per_s)):
            self.now_s += 1 / self.frames_per_s
            seen = self._picture(lit) if moves else Glance(self._frozen.small, lit)
            places.append(self.finder.place(seen, self.now_s, self.segment))
        return places

    def touch(self, seconds: float, lit: float = 0.5) -> list[int | None]:
        """The probe touches and moves."""
        return self._play(seconds, lit=lit, moves=True)

    def air(self, seconds: float) -> list[int | None]:
        """It is in the air: a noisy bright rim."""
        return self._play(seconds, lit=0.05, moves=True)

    def freeze(self, seconds: float) -> list[int | None]:
        """The machine repeats a picture bit by bit."""
        return self._play(seconds, lit=0.5, moves=False)


@pytest.fixture
def live() -> _Live:
    return _Live(SweepFinder())


def _waited_s(places: list[int | None], number: int | None) -> float:
    """Seconds until the place became this number."""
    return places.index(number) / FRAMES_PER_S


def test_a_sweep_begins_soon_after_contact_and_ends_a_second_after_it_is_lost(live: _Live) -> None:
    assert set(live.air(3)) == {None}
    begun = live.touch(4)
    assert _waited_s(begun, 1) == pytest.approx(BEGIN_S, abs=2.1 / FRAMES_PER_S)
    assert set(begun[begun.index(1) :]) == {1}
    ended = live.air(3)
    assert _waited_s(ended, None) == pytest.approx(END_S, abs=2.1 / FRAMES_PER_S)
    assert set(ended[ended.index(None) :]) == {None}
    assert (live.finder.number, live.finder.interruption) == (1, None)


@pytest.mark.parametrize("frames_per_s", [10, 15, 30, 60])
def test_times_are_those_of_the_clock_at_any_frame_rate(frames_per_s: int) -> None:
    live = _Live(SweepFinder(), frames_per_s)
    begun = live.touch(2)
    assert begun.index(1) / frames_per_s == pytest.approx(BEGIN_S, abs=2.1 / frames_per_s)
    ended = live.air(2)
    assert ended.index(None) / frames_per_s == pytest.approx(END_S, abs=2.1 / frames_per_s)


def test_a_short_touch_begins_nothing_and_a_short_loss_ends_nothing(live: _Live) -> None:
    for _ in range(5):
        assert set(live.touch(0.2) + live.air(0.2)) == {None}
    live.touch(1)
    for _ in range(5):
        assert set(live.air(0.8) + live.touch(0.2)) == {1}
    assert live.finder.number == 1


def test_frames_that_a_grabber_doubles_are_a_moving_picture() -> None:
    live = _Live(SweepFinder(), 60)
    places = []
    for _ in range(90):
        places += live._play(1 / 60, lit=0.5, moves=True)
        doubled = live.finder._last
        assert doubled is not None
        live.now_s += 1 / 60
        places.append(live.finder.place(Glance(doubled.small.copy(), doubled.lit), live.now_s, 0))
    assert places[-1] == 1
    assert places.index(1) / 60 == pytest.approx(BEGIN_S, abs=0.1)


def test_sweeps_are_numbered_as_they_come(live: _Live) -> None:
    seen: list[int | None] = []
    for _ in range(4):
        seen += live.touch(2) + live.air(2)
    assert list(dict.fromkeys(seen)) == [None, 1, 2, 3, 4]
    assert [number for number, before in zip(seen[1:], seen, strict=False) if number != before] == [
        1, None, 2, None, 3, None, 4, None,
    ]  # fmt: skip
    assert live.finder.number == 4


def test_a_frozen_picture_begins_no_sweep_and_ends_one(live: _Live) -> None:
    assert set(live.freeze(3)) == {None}
    live.touch(2)
    frozen = live.freeze(3)
    assert _waited_s(frozen, None) == pytest.approx(END_S, abs=2.1 / FRAMES_PER_S)
    assert frozen[-1] is None
    assert live.touch(2)[-1] == 2


def test_a_still_hand_does_not_end_a_sweep(live: _Live) -> None:
    """Its picture is never the same bit by bit."""
    live.touch(1)
    assert set(live.touch(20)) == {1}


@pytest.mark.parametrize(("lit", "kept"), [(0.55, True), (0.45, False)])
def test_contact_is_judged_by_the_best_that_was_seen(live: _Live, lit: float, kept: bool) -> None:  # noqa: FBT001 - a parameter
    live.touch(2, lit=0.8)
    assert (live.touch(3, lit)[-1] == 1) == kept


def test_a_picture_as_dark_as_a_probe_in_the_air_never_begins(live: _Live) -> None:
    assert set(live.touch(5, lit=0.09)) == {None}


def test_an_interruption_ends_the_sweep_at_once_and_says_so(live: _Live) -> None:
    live.touch(2)
    live.segment += 1
    after = live.touch(2)
    assert after[0] is None
    assert live.finder.number == 2, "the picture came back with the probe on the skin"
    assert live.finder.interruption is None, "that was of the sweep before"
    assert _waited_s(after, 2) == pytest.approx(BEGIN_S, abs=2.1 / FRAMES_PER_S)


def test_the_interruption_is_told_until_the_next_sweep_begins(live: _Live) -> None:
    live.touch(2)
    live.segment += 1
    live.air(1)
    assert live.finder.interruption == "the picture was interrupted"
    live.touch(1)
    assert live.finder.interruption is None


def test_an_interruption_between_sweeps_is_of_no_sweep(live: _Live) -> None:
    live.touch(2)
    live.air(2)
    live.segment += 1
    live.air(1)
    assert live.finder.interruption is None


# Commands


def test_a_command_begins_and_ends_a_sweep_with_the_very_next_frame() -> None:
    live = _Live(SweepFinder(commanded=True))
    assert set(live.touch(3)) == {None}, "nothing is found"
    live.finder.command()
    assert set(live.touch(1) + live.air(5) + live.freeze(5)) == {1}, "nothing ends it"
    live.finder.command()
    assert set(live.touch(5)) == {None}
    live.finder.command()
    assert set(live.touch(1)) == {2}
    assert live.finder.interruption is None


def test_two_commands_before_the_next_frame_are_one() -> None:
    """Somebody pressed twice because nothing had happened yet."""
    live = _Live(SweepFinder(commanded=True))
    live.finder.command()
    live.finder.command()
    assert set(live.touch(1)) == {1}


def test_an_interruption_ends_a_commanded_sweep_too() -> None:
    live = _Live(SweepFinder(commanded=True))
    live.finder.command()
    live.touch(1)
    live.segment += 1
    assert set(live.touch(3)) == {None}
    assert live.finder.interruption == "the picture was interrupted"
    live.finder.command()
    assert set(live.touch(1)) == {2}


def test_a_sweep_that_was_ended_by_command_does_not_begin_again_while_the_probe_stays(live: _Live) -> None:
    live.touch(2)
    live.finder.command()
    assert set(live.touch(10)) == {None}
    live.air(0.2)
    assert live.touch(1)[-1] == 2


def test_a_sweep_that_was_begun_by_command_waits_for_the_probe(live: _Live) -> None:
    live.finder.command()
    assert set(live.air(10) + live.touch(2)) == {1}
    ended = live.air(2)
    assert _waited_s(ended, None) == pytest.approx(END_S, abs=2.1 / FRAMES_PER_S)
    assert live.finder.number == 1


def test_an_interruption_revokes_a_command(live: _Live) -> None:
    live.touch(2)
    live.finder.command()
    live.touch(1)
    live.segment += 1
    assert live.touch(1)[-1] == 2
