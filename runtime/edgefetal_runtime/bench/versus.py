"""Two networks on the same frames in turns: how many times as fast the one is as the other."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from edgefetal_runtime.bench.record import RatioRecord, VersusRecord
from edgefetal_runtime.bench.statistics import block_ratio, least_values, median_interval
from edgefetal_runtime.exam.find import find_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgefetal_runtime.bench.record import SubjectRecord
    from edgefetal_runtime.bench.statistics import Interval
    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.infer.network import Network

# Back ends whose graph runs in the thread that asks for it, where it was given one thread.
_IN_THREAD: Final = ("onnxruntime", "onnxruntime-as-written")
_SUBJECT, _AGAINST = "subject", "against"
# Rounds that begin each block, because a graph's first runs are slower.
_WARM_UP_ROUNDS: Final = 4


@dataclass(frozen=True)
class Timed:
    """What one turn took: a frame's preprocessing, network and geometry, and the network alone.

    Args:
        frame_s: by the wall clock.
        network_s: of it, the network.
        frame_cpu_s: by the processor's clock of this thread.
        network_cpu_s: of it, the network.
    """

    frame_s: float
    network_s: float
    frame_cpu_s: float
    network_cpu_s: float


@dataclass(frozen=True)
class Versus:
    """How many times as fast the subject is, by block.

    Args:
        frame: `Timed.frame_s`.
        network: `Timed.network_s`.
        frame_cpu: `Timed.frame_cpu_s`.
        network_cpu: `Timed.network_cpu_s`.
    """

    frame: Interval
    network: Interval
    frame_cpu: Interval
    network_cpu: Interval


@dataclass
class _Turns:
    """The turns of both sides in one block."""

    of: dict[str, list[Timed]] = field(default_factory=lambda: {_SUBJECT: [], _AGAINST: []})

    def ratio(self, figure: str) -> float:
        """Return how many times as fast the subject was by one of the figures of `Timed`."""
        seconds = {side: [getattr(turn, figure) for turn in turns] for side, turns in self.of.items()}
        return block_ratio(seconds[_AGAINST], seconds[_SUBJECT])


def clock_of(networks: Sequence[Network], threads: int | None) -> Literal["cpu", "wall"]:
    """Say which clock tells how fast networks are on a machine that does other things too.

    Args:
        networks: loaded.
        threads: that they were given.
    """
    in_thread = threads == 1 and all(network.backend.name in _IN_THREAD for network in networks)
    return "cpu" if in_thread else "wall"


def time_turn(network: Network, frame: Frame) -> Timed:
    """Take one frame through a network: prepare, infer, find."""
    began_s, began_cpu_s = time.perf_counter(), time.thread_time()
    image, box = network.prepare(frame.pixels)
    prepared_s, prepared_cpu_s = time.perf_counter(), time.thread_time()
    output = network.infer(image)
    inferred_s, inferred_cpu_s = time.perf_counter(), time.thread_time()
    find_all(network.manifest, frame, image, output, box)
    done_s, done_cpu_s = time.perf_counter(), time.thread_time()
    return Timed(
        frame_s=done_s - began_s,
        network_s=inferred_s - prepared_s,
        frame_cpu_s=done_cpu_s - began_cpu_s,
        network_cpu_s=inferred_cpu_s - prepared_cpu_s,
    )


def time_versus(
    load: Callable[[], Network],
    load_other: Callable[[], Network],
    frames: Sequence[Frame],
    *,
    blocks: int,
    rounds: int,
    on_block: Callable[[], None] = lambda: None,
    turn: Callable[[Network, Frame], Timed] = time_turn,
) -> Versus:
    """Time two networks in turns, in blocks for each of which both are loaded anew.

    Both take the same frame in a round, and the frames change from pair of rounds to pair of rounds.

    Args:
        load: loads the one that is benched.
        load_other: loads the other.
        frames: at least one.
        blocks: how many; an interval needs `statistics.least_values()`.
        rounds: timed rounds of each block, at least two.
        on_block: called after each block.
        turn: takes one frame through a network.
    """
    turns = []
    for number in range(blocks):
        sides = {_SUBJECT: load, _AGAINST: load_other}
        order = list(sides) if number % 2 else list(sides)[::-1]
        networks = {side: sides[side]() for side in order}
        turns.append(_block(networks, frames, rounds, number, turn))
        on_block()
    figures = {
        name: median_interval([block.ratio(f"{name}_s") for block in turns])
        for name in ("frame", "network", "frame_cpu", "network_cpu")
    }
    return Versus(**figures)


def _block(
    networks: Mapping[str, Network],
    frames: Sequence[Frame],
    rounds: int,
    number: int,
    turn: Callable[[Network, Frame], Timed],
) -> _Turns:
    """Time the rounds of one block."""
    taken = _Turns()
    for at in range(-_WARM_UP_ROUNDS, rounds):
        frame = frames[(at // 2 + number * rounds) % len(frames)]
        for side in (_SUBJECT, _AGAINST) if at % 2 else (_AGAINST, _SUBJECT):
            timed = turn(networks[side], frame)
            if at >= 0:
                taken.of[side].append(timed)
    return taken


def versus_record(
    versus: Versus, subject: SubjectRecord, against: SubjectRecord, clock: Literal["cpu", "wall"]
) -> VersusRecord:
    """Write down what was found, with a verdict in words."""
    chosen = versus.frame_cpu if clock == "cpu" else versus.frame
    network = versus.network_cpu if clock == "cpu" else versus.network
    return VersusRecord(
        against=against,
        frame=ratio_record(chosen),
        network=ratio_record(network),
        clock=clock,
        frame_wall=ratio_record(versus.frame),
        network_wall=ratio_record(versus.network),
        verdict=verdict(chosen, described(subject), described(against)),
    )


def ratio_record(interval: Interval) -> RatioRecord:
    """Write an interval down."""
    return RatioRecord(**asdict(interval))


def described(subject: SubjectRecord) -> str:
    """Name a network in a sentence."""
    graph = "" if subject.graph == "shipped" else "'s float graph"
    return f"{subject.name}{graph} on {subject.backend}"


def verdict(ratio: Interval, subject: str, against: str) -> str:
    """Say in a sentence what a ratio shows.

    Args:
        ratio: how many times as fast the subject is.
        subject: its name.
        against: the other's.
    """
    if ratio.low is None or ratio.high is None:
        return f"{ratio.n} blocks are too few to tell; take at least {least_values(ratio.level)}."
    bounds = f"{ratio.median:.3f} times as fast, {ratio.level:.0%} interval {ratio.low:.3f} to {ratio.high:.3f}"
    if ratio.side() == 0:
        return f"No difference is shown between {subject} and {against} ({bounds})."
    return f"{subject} is {'faster' if ratio.side() > 0 else 'slower'} than {against} ({bounds})."
