"""What records of different runs can tell: whether a change is real, or why that cannot be said.

Two runs were not interleaved. Between them the machine may have warmed up, and each run loaded its graph into a place
of its own; nothing inside one record knows how much that matters. So one record on each side cannot tell, whatever its
figures say: it takes repeats, each in a process of its own, and best in turns. `edgefetal bench A --against B` tells in
one run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from edgefetal_devices.errors import InputError
from edgefetal_runtime.bench.record import BenchRecord, read_record
from edgefetal_runtime.bench.statistics import LEVEL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# With five on each side the extremes of all differences enclose the true one in 99.2 % of cases.
LEAST_REPEATS: Final = 5


@dataclass(frozen=True)
class Compared:
    """One figure of two sides.

    Args:
        figure: its name.
        first: median of the first side.
        second: median of the second.
        ratio: how many times as fast the second side is: the median over all pairs of a record of each.
        low: lower bound of its interval; None where there are too few records.
        high: upper bound, likewise.
        verdict: what that shows, in a sentence.
    """

    figure: str
    first: float
    second: float
    ratio: float
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Two sides beside each other.

    Args:
        figures: of each that both sides have, what it shows.
        changed: what else differs between the sides, which may be the change that is asked for.
        doubts: why nothing can be said for sure; empty where it can.
        real: whether the first figure changed; None where that cannot be said.
    """

    figures: tuple[Compared, ...]
    changed: tuple[str, ...]
    doubts: tuple[str, ...]
    real: bool | None


def read_side(path: Path) -> tuple[BenchRecord, ...]:
    """Read a record, or all those of a folder, which are repeats of one another.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds no record; write some with `edgefetal bench --json {path}/1.json`.")
    return tuple(read_record(file) for file in files)


def compare(first: Sequence[BenchRecord], second: Sequence[BenchRecord]) -> Comparison:
    """Compare two sides.

    Args:
        first: repeats of one thing, at least one.
        second: repeats of the other.

    Raises:
        InputError: they were measured on different machines, power modes, clocks or frames, or one side holds different
            things.
    """
    _require_comparable(first, second)
    doubts = [
        f"{len(side)} on the {which} side is too few for a change to be told from the scatter between runs; take at "
        f"least {LEAST_REPEATS} runs of each, in turns, or `--against` in one run"
        for which, side in (("first", first), ("second", second))
        if len(side) < LEAST_REPEATS
    ]
    doubts += [
        f"{sum(record.conditions.disturbed for record in side)} of the {which} side's records were disturbed "
        f"({'; '.join(dict.fromkeys(reason for record in side for reason in record.conditions.reasons))})"
        for which, side in (("first", first), ("second", second))
        if any(record.conditions.disturbed for record in side)
    ]
    compared = (_compared(name, read, first, second, doubts) for name, read in _FIGURES)
    figures = tuple(figure for figure in compared if figure is not None)
    # Each further figure that is asked would be one more chance to find a change where none is.
    real = None if doubts else _away(figures[0])
    return Comparison(figures, _changed(first[0], second[0]), tuple(doubts), real)


# Each as seconds, so that less is better.
_FIGURES: Final[tuple[tuple[str, Callable[[BenchRecord], float | None]], ...]] = (
    ("glass to result, p50 (ms)", lambda record: record.latency_ms.p50),
    ("glass to result, p95 (ms)", lambda record: record.latency_ms.p95),
    ("whole examination (ms a frame)", lambda record: 1e3 / record.throughput_fps),
    ("bare inference (ms a frame)", lambda record: 1e3 / record.bare_inference_fps),
    ("first result (s)", lambda record: record.first_result_s),
)


def _require_comparable(first: Sequence[BenchRecord], second: Sequence[BenchRecord]) -> None:
    """Refuse what cannot be compared.

    Raises:
        InputError: it cannot.
    """
    records = [*first, *second]
    must: dict[str, list[object]] = {
        "machines": [_machine(record) for record in records],
        "power modes": [record.machine.power_mode for record in records],
        "limits of clocks": [record.machine.clocks for record in records],
        "frames": [record.source.sha256 for record in records],
    }
    for what, values in must.items():
        other = next((value for value in values if value != values[0]), values[0])
        if other != values[0]:
            raise InputError(
                f"The records are of different {what} ({values[0]} and {other}), so their figures say nothing of one "
                "another; repeat one of them under the other's conditions."
            )
    for side in (first, second):
        if any(record.subject != side[0].subject or _versions(record) != _versions(side[0]) for record in side):
            raise InputError(
                "The records of one side are of different bundles, back ends, threads or versions; put those of one "
                "thing alone into a folder."
            )


def _machine(record: BenchRecord) -> tuple[object, ...]:
    machine = record.machine
    return machine.board, machine.processor, machine.architecture, machine.cores, machine.gpus


def _versions(record: BenchRecord) -> dict[str, str]:
    machine = record.machine
    others = {"kernel": machine.kernel, "JetPack": machine.jetpack, "driver": machine.driver}
    return machine.versions | {name: version for name, version in others.items() if version is not None}


def _changed(first: BenchRecord, second: BenchRecord) -> tuple[str, ...]:
    """Name what differs between two records that may be compared."""
    subjects = [record.subject.model_dump() for record in (first, second)]
    versions = [_versions(record) for record in (first, second)]
    named = [
        f"{what} {before} became {after}"
        for what in subjects[0]
        if (before := subjects[0][what]) != (after := subjects[1][what])
    ]
    named += [
        f"{name} {versions[0].get(name, 'none')} became {versions[1].get(name, 'none')}"
        for name in sorted({*versions[0], *versions[1]})
        if versions[0].get(name) != versions[1].get(name)
    ]
    return tuple(named)


def _compared(
    name: str,
    read: Callable[[BenchRecord], float | None],
    first: Sequence[BenchRecord],
    second: Sequence[BenchRecord],
    doubts: Sequence[str],
) -> Compared | None:
    """Compare one figure; None where a record lacks it."""
    sides = [[read(record) for record in side] for side in (first, second)]
    if any(value is None for side in sides for value in side):
        return None
    before, after = (np.array(side, np.float64) for side in sides)
    ratios = np.sort((before[:, None] / after[None, :]).ravel())
    low, high = None, None
    if min(len(before), len(after)) >= LEAST_REPEATS:
        cut = _cut(len(before), len(after), LEVEL)
        low, high = float(ratios[cut]), float(ratios[-1 - cut])
    found = Compared(
        name, float(np.median(before)), float(np.median(after)), float(np.median(ratios)), low, high, verdict=""
    )
    return replace(found, verdict=_said(found, doubts))


def _away(figure: Compared) -> bool:
    return figure.low is not None and figure.high is not None and (figure.low > 1 or figure.high < 1)


def _said(figure: Compared, doubts: Sequence[str]) -> str:
    if doubts:
        return "cannot be told"
    if not _away(figure):
        return "no difference is shown"
    return "faster" if figure.ratio > 1 else "slower"


def _cut(first: int, second: int, level: float) -> int:
    """Return how many of the sorted ratios of all pairs lie outside the interval at either end.

    The interval of a shift that belongs to the rank-sum test (Hodges and Lehmann 1963): under no shift the number of
    pairs in which one side is less has the distribution that is counted here.

    Args:
        first: records of the one side.
        second: of the other.
        level: share of such intervals that are to hold the true ratio, at least.
    """
    # counts[i][u]: ways to choose i of the ranks looked at so far so that they make u such pairs.
    total = first * second
    counts = [[0] * (total + 1) for _ in range(first + 1)]
    counts[0][0] = 1
    for rank in range(first + second):
        for chosen in range(min(first, rank + 1), 0, -1):
            below = rank - (chosen - 1)
            if not 0 <= below <= second:
                continue
            for pairs in range(total, below - 1, -1):
                counts[chosen][pairs] += counts[chosen - 1][pairs - below]
    ways = counts[first]
    all_ways, below_cut = sum(ways), 0
    for cut, count in enumerate(ways):
        below_cut += count
        if 2 * below_cut / all_ways > 1 - level:
            # With none outside, the interval runs between the extremes.
            return max(cut - 1, 0)
    return 0
