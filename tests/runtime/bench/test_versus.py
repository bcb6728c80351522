"""Two networks in turns, on times that the test makes up."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_runtime.bench.statistics import Interval, median_interval
from edgefetal_runtime.bench.versus import Timed, Versus, clock_of, time_turn, time_versus, verdict, versus_record
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.infer.network import load_network
from edgefetal_runtime.scale import NOT_GIVEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefetal_runtime.bench.record import BenchRecord
    from edgefetal_runtime.infer.bundle import Bundle

FRAMES = [Frame(np.zeros((4, 4), np.uint8), "s", index, 0.0, NOT_GIVEN) for index in range(3)]


class Bench:
    """Counts what is loaded, and in which order turns are taken."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.turns: list[tuple[str, int]] = []

    def load(self, name: str) -> Any:
        def load() -> Any:
            self.loaded.append(name)
            return SimpleNamespace(name=name)

        return load

    def turn(self, network: Any, frame: Frame) -> Timed:
        self.turns.append((network.name, frame.index))
        seconds = {"a": 0.010, "b": 0.020}[network.name]
        return Timed(seconds * 3, seconds, seconds * 2, seconds / 2 if network.name == "a" else seconds)

    def run(self, blocks: int, rounds: int) -> Versus:
        return time_versus(self.load("a"), self.load("b"), FRAMES, blocks=blocks, rounds=rounds, turn=self.turn)


def test_both_are_loaded_anew_for_each_block_in_an_order_that_alternates() -> None:
    bench = Bench()
    bench.run(4, 2)
    orders = [first + second for first, second in zip(bench.loaded[::2], bench.loaded[1::2], strict=True)]
    assert sorted(orders[:2]) == ["ab", "ba"]
    assert orders[:2] == orders[2:]


def test_turns_alternate_and_both_sides_take_the_same_frames() -> None:
    bench = Bench()
    bench.run(1, 8)
    rounds = list(zip(bench.turns[::2], bench.turns[1::2], strict=True))
    assert len(rounds) == 4 + 8
    assert all(first[1] == second[1] for first, second in rounds)
    orders = [first[0] + second[0] for first, second in rounds]
    assert all({a, b} == {"ab", "ba"} for a, b in itertools.pairwise(orders))
    # A pair of rounds, one of each order, is on one frame; the pairs are on different ones.
    counted = [first[1] for first, _ in rounds[4:]]
    assert counted[::2] == counted[1::2]
    assert len(set(counted)) == len(FRAMES)


def test_ratios_are_of_what_they_say() -> None:
    versus = Bench().run(8, 4)
    assert [of.median for of in (versus.frame, versus.network, versus.frame_cpu)] == pytest.approx([2.0] * 3)
    assert versus.network_cpu.median == pytest.approx(4.0)
    assert versus.frame.n == 8
    assert versus.frame.low == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("names", "threads", "clock"),
    [
        (["onnxruntime", "onnxruntime-as-written"], 1, "cpu"),
        (["onnxruntime"], 2, "wall"),
        (["onnxruntime"], None, "wall"),
        (["onnxruntime", "openvino"], 1, "wall"),
        (["tensorrt"], 1, "wall"),
    ],
)
def test_the_processors_clock_tells_only_of_what_runs_in_this_thread(
    names: list[str], threads: int | None, clock: str
) -> None:
    networks: list[Any] = [SimpleNamespace(backend=SimpleNamespace(name=name)) for name in names]
    assert clock_of(networks, threads) == clock


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0.99, 1.01] * 6, "No difference is shown between A and B"),
        ([1.04, 1.06] * 6, "A is faster than B (1.050 times as fast, 99% interval 1.040 to 1.060)"),
        ([0.94, 0.96] * 6, "A is slower than B"),
        ([2.0] * 7, "7 blocks are too few to tell; take at least 8"),
    ],
)
def test_verdict(values: list[float], says: str) -> None:
    assert verdict(median_interval(values), "A", "B").startswith(says)


@pytest.mark.parametrize(("clock", "chosen"), [("cpu", 3.0), ("wall", 1.0)])
def test_the_verdict_is_read_from_the_clock(make_record: Callable[..., BenchRecord], clock: Any, chosen: float) -> None:
    made = [Interval(value, value, value, 0.99, 12) for value in (1.0, 2.0, 3.0, 4.0)]
    record = make_record()
    assert record.versus is not None
    found = versus_record(Versus(*made), record.subject, record.versus.against, clock)
    assert (found.frame.median, found.frame_wall.median, found.network_wall.median) == (chosen, 1.0, 2.0)
    assert f"({chosen:.3f} times" in found.verdict
    assert "starter's float graph" in found.verdict


def test_a_turn_takes_a_frame_all_the_way(intact_bundle: Bundle) -> None:
    network = load_network(intact_bundle, threads=1)
    frame = Frame(np.zeros((60, 80), np.uint8), "s", 0, 0.0, NOT_GIVEN)
    of = time_turn(network, frame)
    assert 0 < of.network_s < of.frame_s
    assert 0 < of.network_cpu_s < of.frame_cpu_s
