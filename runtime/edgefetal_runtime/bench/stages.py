"""One frame at a time through the stages of the pipeline, so that each is timed alone and they sum to the whole."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from edgefetal_runtime.bench.record import StageRecord, WarmUpRecord
from edgefetal_runtime.bench.statistics import STABLE_WITHIN, WINDOW, is_warm
from edgefetal_runtime.exam.pipeline import RunningSweep, Stopwatch, in_turn
from edgefetal_runtime.infer.child import ChildGraph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

    from edgefetal_runtime.infer.backends import Backend
    from edgefetal_runtime.infer.network import Network
    from edgefetal_runtime.sources.protocol import Source

# What the record calls the pipeline's stages, in order; None for those that the back end does or does not have.
_STAGES: Final = (
    ("decode", "read"),
    ("preprocess", "prepare"),
    ("copy in", None),
    ("infer", "infer"),
    ("copy out", None),
    ("post-process", "find"),
    ("select", "select"),
)
_HAND_OVER: Final = "hand over"
_RULE: Final = (
    f"until the medians of two successive windows of {WINDOW} frames differ by less than {STABLE_WITHIN:.0%}, at most "
    "{cap} frames"
)


@dataclass(frozen=True, eq=False)
class FrameTimes:
    """What frames took, in order.

    Args:
        glass_s: from asking for a frame to its result, shape (N,).
        stages_s: of it, what each stage took, by the pipeline's names, each of shape (N,).
        sweep_ends_s: what each end of a sweep took: choosing among its best frames, and measuring.
        warm_up: the frames before.
    """

    glass_s: npt.NDArray[np.float64]
    stages_s: Mapping[str, npt.NDArray[np.float64]]
    sweep_ends_s: tuple[float, ...]
    warm_up: WarmUpRecord

    @property
    def sum_over_glass(self) -> float:
        """Return the sum of the stages over the whole."""
        return float(sum(values.sum() for values in self.stages_s.values()) / self.glass_s.sum())


@dataclass
class _Taken:
    """What was timed so far."""

    glass_s: list[float] = field(default_factory=list)
    spent_s: list[Mapping[str, float]] = field(default_factory=list)
    sweep_ends_s: list[float] = field(default_factory=list)


def time_frames(
    source: Source,
    network: Network,
    frames: int,
    *,
    cap: int,
    on_frame: Callable[[], None] = lambda: None,
) -> FrameTimes:
    """Take the source's frames through the stages one at a time, over and over, until so many were timed.

    The first frame of each pass is not counted, because the file is opened with it.

    Args:
        source: the frames; at least two, and it can be read again.
        network: the network.
        frames: how many to time.
        cap: at most so many frames of warm-up.
        on_frame: called after each of them.

    Raises:
        SourceError: a frame cannot be read.
    """
    warm_up, timed = _Taken(), _Taken()
    steps = _over_and_over(source, network)
    while len(warm_up.glass_s) < cap and not is_warm(warm_up.glass_s):
        _take(next(steps), warm_up)
    stable = is_warm(warm_up.glass_s)
    while len(timed.glass_s) < frames:
        _take(next(steps), timed)
        on_frame()
    names = timed.spent_s[0]
    return FrameTimes(
        glass_s=np.array(timed.glass_s),
        stages_s={name: np.array([spent[name] for spent in timed.spent_s]) for name in names},
        sweep_ends_s=tuple(timed.sweep_ends_s),
        warm_up=WarmUpRecord(frames=len(warm_up.glass_s), stable=stable, rule=_RULE.format(cap=cap)),
    )


@dataclass(frozen=True)
class _Step:
    """A frame that was taken through, and the end of the sweep before it."""

    glass_s: float
    spent_s: Mapping[str, float]
    sweep_end_s: float | None


def _take(step: _Step, into: _Taken) -> None:
    into.glass_s.append(step.glass_s)
    into.spent_s.append(step.spent_s)
    if step.sweep_end_s is not None:
        into.sweep_ends_s.append(step.sweep_end_s)


def _over_and_over(source: Source, network: Network) -> Iterator[_Step]:
    """Take frames through for ever."""
    watch = Stopwatch()
    sweep: RunningSweep | None = None
    end_s: float | None = None
    while True:
        ways = in_turn(network, source.frames())
        for number in itertools.count():
            since_s = time.perf_counter()
            step = next(ways, None)
            if step is None:
                break
            seen, spent_s = step
            if sweep is None or not number or sweep.name != seen.finding.frame.sweep:
                if sweep is not None:
                    end_s = _ended(sweep)
                sweep = RunningSweep(seen.finding.frame.sweep, 1, network.manifest, frozenset(), watch)
                # The end of a sweep is not the next one's first frame's.
                since_s += end_s or 0.0
            result_s = time.perf_counter()
            sweep.push(seen)
            done_s = time.perf_counter()
            if number:
                stages_s = {**_split(network.backend, spent_s), "select": done_s - result_s}
                yield _Step(done_s - since_s, stages_s, end_s)
                end_s = None


def _ended(sweep: RunningSweep) -> float:
    """End a sweep; return what that took."""
    since_s = time.perf_counter()
    sweep.finish(None)
    return time.perf_counter() - since_s


def _split(backend: Backend, spent_s: Mapping[str, float]) -> dict[str, float]:
    """Tell what handing frames to another process took from what the graph took there."""
    if not isinstance(backend, ChildGraph):
        return dict(spent_s)
    return {**spent_s, "infer": backend.last_s, _HAND_OVER: max(spent_s["infer"] - backend.last_s, 0.0)}


def stage_records(times: FrameTimes, backend: Backend) -> tuple[StageRecord, ...]:
    """Write the stages down; those that the back end does not tell apart say so.

    Args:
        times: what frames took.
        backend: that ran the graph.
    """
    if _HAND_OVER in times.stages_s:
        note = {"copy in": "to the process that runs the graph, and back", "copy out": "in copy in"}
    elif backend.name == "tensorrt":
        # One queue holds both copies and the engine, as it does in the clinic; to time them apart would change it.
        note = {"copy in": "in infer", "copy out": "in infer", "infer": "with both copies"}
    else:
        note = {"copy in": "none: the graph reads the frame where it lies", "copy out": "none"}
    note["preprocess"] = "with the look that finds sweeps"
    records = []
    for name, key in _STAGES:
        values = times.stages_s.get(_HAND_OVER if name == "copy in" else key or "")
        if values is None:
            records.append(StageRecord(name=name, mean_ms=None, p50_ms=None, p95_ms=None, note=note.get(name, "")))
            continue
        p50, p95 = (1e3 * float(value) for value in np.percentile(values, (50, 95)))
        mean = 1e3 * float(values.mean())
        records.append(StageRecord(name=name, mean_ms=mean, p50_ms=p50, p95_ms=p95, note=note.get(name, "")))
    return tuple(records)
