"""Which frames of a sweep are kept: the streamed choice against the rule written down plainly."""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass

import numpy as np
import pytest

from edgefetal_runtime.sweep.selection import KEPT, WINDOW, Choice, Run, Sized, SweepSelector

HELD = 16


@dataclass(frozen=True)
class _Plain:
    """What the rule gives with the whole sweep at hand: indices of the kept frames by size, and the runs."""

    kept: list[int]
    runs: list[Run]
    chosen: Run | None


def _medians(values: list[float], window: int) -> list[float]:
    """Lower medians over a window around each value; beyond the ends of a sweep longer than half of it lie zeros."""
    half = window // 2
    around = [0.0] * half + values + [0.0] * half
    if len(values) <= half:
        return [sorted(values)[(len(values) - 1) // 2] for _ in values]
    return [sorted(around[index : index + window])[half] for index in range(len(values))]


def _rule(sizes: list[float], grades: list[float] | None = None, window: int = WINDOW, kept: int = KEPT) -> _Plain:
    """The rule written down plainly."""
    smoothed = _medians(sizes, window)
    ranks = smoothed
    if grades is not None and window > 1:
        ranks = [float(np.mean(grades[max(0, k - 1) : k + 2])) for k in range(len(grades))]
    elif grades is not None:
        ranks = grades
    runs, members = [], []
    for goes_on, group in itertools.groupby(range(len(sizes)), key=lambda index: smoothed[index] > 0):
        shown = [index for index in group if sizes[index] > 0]
        if goes_on and shown:
            runs.append(Run(shown[0], shown[-1], max(ranks[index] for index in shown)))
            members.append(shown)
    if not runs:
        return _Plain([], [], None)
    number = max(range(len(runs)), key=lambda n: (runs[n].best, -n))
    pool = sorted(members[number], key=lambda index: (-ranks[index], index))[:HELD]
    near = sorted(index for index in pool if ranks[index] >= 0.98 * ranks[pool[0]])
    best = pool[:kept]
    if len(near) > kept:
        best = [near[round((len(near) - 1) * place / (kept - 1))] if kept > 1 else near[0] for place in range(kept)]
    return _Plain(sorted(best, key=lambda index: (sizes[index], index)), runs, runs[number])


def _plain(sizes: list[float], window: int = WINDOW, kept: int = KEPT) -> list[int]:
    return _rule(sizes, None, window, kept).kept


def _choose(
    sizes: list[float], grades: list[float] | None = None, window: int = WINDOW, kept: int = KEPT
) -> Choice[str]:
    selector: SweepSelector[str] = SweepSelector("head", window, kept)
    for index, size in enumerate(sizes):
        selector.push(Sized(index, size, f"frame {index}", None if grades is None else grades[index]))
    choice = selector.finish()
    assert all((frame.size, frame.item) == (sizes[frame.index], f"frame {frame.index}") for frame in choice.frames)
    assert choice.seen == sum(size > 0 for size in sizes)
    return choice


def _streamed(sizes: list[float], window: int = WINDOW, kept: int = KEPT) -> list[int]:
    return [frame.index for frame in _choose(sizes, None, window, kept).frames]


def _agrees(sizes: list[float], grades: list[float] | None = None, window: int = WINDOW, kept: int = KEPT) -> bool:
    choice, plain = _choose(sizes, grades, window, kept), _rule(sizes, grades, window, kept)
    return ([frame.index for frame in choice.frames], list(choice.runs), choice.chosen) == (
        plain.kept,
        plain.runs,
        plain.chosen,
    )


@pytest.mark.parametrize("length", range(13))
def test_streaming_chooses_what_the_plain_rule_chooses(length: int) -> None:
    rng = np.random.default_rng(length)
    for _ in range(150):
        # Few levels make ties; zeros are frames without a head.
        sizes = [float(size) for size in rng.choice([0, 0, 100, 110, 110, 120, 175.5], length)]
        assert _agrees(sizes)


@pytest.mark.parametrize(("window", "kept"), [(1, 1), (1, 5), (3, 1), (3, 4), (7, 2), (9, 16), (11, 3)])
def test_other_windows_and_counts_follow_the_same_rule(window: int, kept: int) -> None:
    rng = np.random.default_rng(window + 100 * kept)
    for _ in range(150):
        sizes = [float(size) for size in rng.integers(0, 5, rng.integers(0, 40))]
        assert _agrees(sizes, None, window, kept)


@pytest.mark.parametrize("graded", [False, True])
def test_long_sweeps_of_several_runs_follow_the_same_rule(graded: bool) -> None:  # noqa: FBT001 - a parameter
    """Runs up to many times as long as the parts that are held, apart or close, with frames left out, and ties."""
    rng = np.random.default_rng(7 + graded)
    longest = several = 0
    for _ in range(300):
        runs = [rng.integers(1, 4, int(rng.integers(1, 200))).tolist() for _ in range(int(rng.integers(1, 4)))]
        sizes = [0.0] * int(rng.integers(0, 5))
        for run in runs:
            sizes += [float(size) if rng.random() < 0.95 else 0.0 for size in run] + [0.0] * int(rng.integers(1, 8))
        grades = [float(grade) for grade in rng.integers(0, 5, len(sizes)) / 4] if graded else None
        assert _agrees(sizes, grades)
        plain = _rule(sizes, grades)
        longest = max(longest, *(run.last - run.first for run in plain.runs), 0)
        several += len(plain.runs) > 1
    # The sweeps were such that something could go wrong.
    assert longest > 8 * HELD
    assert several > 100


def test_an_ungraded_rise_is_ranked_by_size_and_a_graded_one_by_grade() -> None:
    sizes = [0.0, 0.0, *(100.0 + index for index in range(12)), 0.0, 0.0]
    grades = [0.0, 0.0, *(1.0 - index / 20 for index in range(12)), 0.0, 0.0]
    by_size, by_grade = _choose(sizes), _choose(sizes, grades)
    assert {frame.index for frame in by_size.frames} <= set(range(7, 14))
    assert {frame.index for frame in by_grade.frames} <= set(range(2, 9))
    assert (by_size.graded, by_grade.graded) == (False, True)


def test_a_flash_of_a_high_grade_is_not_chosen_over_a_lasting_one() -> None:
    sizes = [0.0] * 3 + [100.0] * 12 + [0.0] * 3
    grades = [0.5 if 3 <= index < 6 else 0.1 for index in range(18)]
    grades[8] = 1.0
    choice = _choose(sizes, grades)
    assert choice.chosen is not None
    assert choice.chosen.best == pytest.approx(0.5)
    assert choice.measured is not None
    assert choice.measured.index == 4


def test_grades_decide_without_asking_whether_the_plane_was_crossed() -> None:
    sizes = [100.0 + index for index in range(20)]
    assert _choose(sizes).doubt is not None
    assert _choose(sizes, [0.5] * 20).doubt is None


def test_of_a_still_nobody_asks_whether_the_plane_was_crossed_and_of_nothing_neither() -> None:
    assert _choose([175.0]).doubt is None
    assert _choose([]).doubt is None
    assert _choose([0.0] * 9).doubt is None


def test_the_frames_of_a_long_run_are_its_best_and_lie_apart() -> None:
    """Neighbours share their error, and frames far from the plane are too small."""
    sizes = [1000.0 - abs(index - 320) for index in range(640)]
    indices = sorted(_streamed(sizes))
    assert len(indices) == KEPT
    assert min(np.diff(indices)) >= 3
    assert min(sizes[index] for index in indices) >= 990


def test_the_run_with_the_best_frame_is_chosen_however_long_the_others_last() -> None:
    sizes = [0.0, *[100.0] * 60, 0.0, 0.0, 0.0, *[101.0] * 5, 0.0, 0.0, 0.0, *[99.0] * 60, 0.0]
    choice = _choose(sizes)
    assert len(choice.runs) == 3
    assert choice.chosen == Run(64, 68, 101.0)
    assert {frame.index for frame in choice.frames} == set(range(64, 69))


def test_of_two_runs_alike_the_earlier_one_is_chosen() -> None:
    sizes = [0.0, *[100.0] * 5, 0.0, 0.0, 0.0, *[100.0] * 9, 0.0]
    choice = _choose(sizes)
    assert choice.chosen == Run(1, 5, 100.0)
    assert {frame.index for frame in choice.frames} == set(range(1, 6))


def test_the_smallest_sweeps_are_chosen_from_exhaustively_by_the_rule() -> None:
    for length in range(6):
        for sizes in itertools.product([0.0, 1.0, 2.0], repeat=length):
            assert _agrees(list(sizes))


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
    best = _choose(sizes).measured
    assert best is not None
    assert 97 <= best.size <= 100


def test_of_frames_alike_the_earlier_ones_are_held_and_those_far_apart_kept() -> None:
    assert _streamed([50.0] * 5) == [0, 1, 2, 3, 4]
    assert _streamed([50.0] * HELD) == [0, 4, 8, 11, 15]
    assert _streamed([50.0] * 100) == [0, 4, 8, 11, 15]


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
@pytest.mark.parametrize("course", ["rising", "falling", "random", "many runs"])
@pytest.mark.parametrize("graded", [False, True])
def test_memory_does_not_grow_with_the_sweep(window: int, kept: int, course: str, graded: bool) -> None:  # noqa: FBT001 - a parameter
    rng = np.random.default_rng(0)
    alive: weakref.WeakSet[_Item] = weakref.WeakSet()
    selector: SweepSelector[_Item] = SweepSelector("head", window, kept)
    most = 0
    for index in range(1500):
        item = _Item()
        alive.add(item)
        size = {
            "rising": index + 1.0,
            "falling": 3000.0 - index,
            "random": float(rng.uniform(1, 2)),
            "many runs": index + 1.0 if index % 50 < 40 else 0.0,
        }[course]
        selector.push(Sized(index, size, item, float(rng.random()) if graded else None))
        del item
        most = max(most, len(alive))
    # The frames of the window, and the best ones of the best run and of the one that goes on.
    assert kept <= most <= window + 2 * HELD + 1
    assert len(selector.finish().frames) == kept


@pytest.mark.parametrize(("count", "place"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)])
def test_of_sizes_the_middle_one_is_measured_the_lower_of_two(count: int, place: int) -> None:
    choice = _choose([0.0] * 3 + [100.0 + index for index in range(count)] + [0.0] * 3)
    if count < 3:
        assert choice.measured is None, "a flash"
    else:
        assert choice.measured is choice.frames[place]


def test_of_grades_the_best_is_measured_unless_its_size_strays() -> None:
    sizes = [0.0] * 3 + [100.0] * 7 + [0.0] * 3
    grades = [0.0] * 3 + [0.5, 0.6, 0.7, 0.8, 0.9, 0.8, 0.6] + [0.0] * 3
    measured = _choose(sizes, grades).measured
    assert measured is not None
    assert measured.index == 7
    sizes[7] = 130.0
    measured = _choose(sizes, grades).measured
    assert measured is not None
    assert measured.index == 6


def test_of_none_there_is_no_middle() -> None:
    choice = _choose([0.0] * 9)
    assert (choice.frames, choice.runs, choice.chosen, choice.measured) == ((), (), None, None)
