"""Which frames of a sweep are kept: the streamed choice against the rule written down plainly."""

from __future__ import annotations

import itertools
import weakref

import numpy as np
import pytest

from edgefetal_runtime.sweep.selection import KEPT, WINDOW, Sized, SweepSelector, middle


def _plain(sizes: list[float], window: int = WINDOW, kept: int = KEPT) -> list[int]:
    """The rule with the whole sweep at hand: indices of the kept frames from the smallest outline to the largest."""
    half = window // 2
    smoothed = []
    for index in range(len(sizes)):
        # At the ends of the sweep the window holds the frames that there are.
        around = sizes[max(0, index - half) : index + half + 1]
        around = sorted(around + [0.0] * (window - len(around) if len(sizes) > half else 0))
        smoothed.append(around[(len(around) - 1) // 2])
    shown = [index for index in range(len(sizes)) if sizes[index] > 0 and smoothed[index] > 0]
    best = sorted(shown, key=lambda index: (-smoothed[index], index))[:kept]
    return sorted(best, key=lambda index: (sizes[index], index))


def _streamed(sizes: list[float], window: int = WINDOW, kept: int = KEPT) -> list[int]:
    selector: SweepSelector[str] = SweepSelector(window, kept)
    for index, size in enumerate(sizes):
        selector.push(Sized(index, size, f"frame {index}"))
    chosen = selector.finish()
    assert all((frame.size, frame.item) == (sizes[frame.index], f"frame {frame.index}") for frame in chosen)
    return [frame.index for frame in chosen]


@pytest.mark.parametrize("length", range(13))
def test_streaming_chooses_what_the_plain_rule_chooses(length: int) -> None:
    rng = np.random.default_rng(length)
    for _ in range(150):
        # Few levels make ties; zeros are frames without a head.
        sizes = [float(size) for size in rng.choice([0, 0, 100, 110, 110, 120, 175.5], length)]
        assert _streamed(sizes) == _plain(sizes)


@pytest.mark.parametrize(("window", "kept"), [(1, 1), (1, 5), (3, 1), (3, 4), (7, 2), (9, 20), (11, 3)])
def test_other_windows_and_counts_follow_the_same_rule(window: int, kept: int) -> None:
    rng = np.random.default_rng(window + 100 * kept)
    for _ in range(150):
        sizes = [float(size) for size in rng.integers(0, 5, rng.integers(0, 40))]
        assert _streamed(sizes, window, kept) == _plain(sizes, window, kept)


def test_the_smallest_sweeps_are_chosen_from_exhaustively_by_the_rule() -> None:
    for length in range(6):
        for sizes in itertools.product([0.0, 1.0, 2.0], repeat=length):
            assert _streamed(list(sizes)) == _plain(list(sizes))


def test_a_sweep_worked_out_by_hand() -> None:
    sizes = [0.0, 0.0, 100.0, 120.0, 140.0, 160.0, 150.0, 130.0, 0.0]
    # Medians of five: 100, 120, 140, 140, 140 and 130 at frames 2 to 7; frame 2 is the sixth best.
    assert _streamed(sizes) == [3, 7, 4, 6, 5]


def test_a_still_is_kept() -> None:
    assert _streamed([175.0]) == [0]
    assert _streamed([0.0]) == []
    assert _streamed([]) == []


def test_the_peak_of_a_sweep_is_found_and_the_largest_alone_is_not_reported() -> None:
    sizes = [100.0 - abs(index - 30) for index in range(60)]
    sizes[31] = 140.0
    selector: SweepSelector[None] = SweepSelector()
    for index, size in enumerate(sizes):
        selector.push(Sized(index, size, None))
    best = middle(selector.finish())
    assert best is not None
    assert 98 <= best.size <= 100


def test_of_frames_alike_the_earlier_ones_are_kept() -> None:
    assert _streamed([50.0] * 20) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("length", [6, 9, 30])
@pytest.mark.parametrize("flash", [(0,), (0, 1), (0, 2)])
def test_a_flash_of_one_or_two_frames_is_never_chosen(length: int, flash: tuple[int, ...]) -> None:
    for start in range(length - max(flash)):
        sizes = [0.0] * length
        for offset in flash:
            sizes[start + offset] = 300.0
        assert _streamed(sizes) == [], start


@pytest.mark.parametrize("length", [12, 30])
def test_a_flash_during_a_head_does_not_get_among_the_larger_ones(length: int) -> None:
    for start in range(2, length - 3):
        sizes = [100.0 + (index % 3) for index in range(length)]
        sizes[start] = 0.0
        sizes[start + 1] = 400.0
        chosen = [sizes[index] for index in _streamed(sizes)]
        assert len(chosen) == KEPT
        # It may be kept, as one of five, but is never the middle one.
        assert chosen[(KEPT - 1) // 2] <= 102.0


def test_three_frames_in_a_row_are_enough() -> None:
    for start in range(28):
        sizes = [0.0] * 30
        sizes[start : start + 3] = [100.0, 110.0, 105.0]
        chosen = _streamed(sizes)
        assert chosen
        assert set(chosen) <= {start, start + 1, start + 2}


class _Item:
    """Something large that a frame carries."""


@pytest.mark.parametrize(("window", "kept"), [(WINDOW, KEPT), (9, 2)])
@pytest.mark.parametrize("course", ["rising", "falling", "random"])
def test_memory_does_not_grow_with_the_sweep(window: int, kept: int, course: str) -> None:
    rng = np.random.default_rng(0)
    alive: weakref.WeakSet[_Item] = weakref.WeakSet()
    selector: SweepSelector[_Item] = SweepSelector(window, kept)
    most = 0
    for index in range(500):
        item = _Item()
        alive.add(item)
        size = {"rising": index + 1.0, "falling": 1000.0 - index, "random": float(rng.uniform(1, 2))}[course]
        selector.push(Sized(index, size, item))
        del item
        most = max(most, len(alive))
    assert kept <= most <= kept + window
    assert len(selector.finish()) == kept


@pytest.mark.parametrize(("count", "place"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)])
def test_the_middle_one_is_the_lower_of_two(count: int, place: int) -> None:
    frames = [Sized(index, 100.0 + index, None) for index in range(count)]
    assert middle(frames) is frames[place]


def test_of_none_there_is_no_middle() -> None:
    assert middle([]) is None
