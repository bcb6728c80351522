"""Latency figures, on a clock that the test winds itself."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_runtime.infer import latency
from edgefetal_runtime.infer.latency import Ratio, speed_ratio, time_networks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

PIXELS = np.zeros((20, 30), np.uint8)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def perf_counter(self) -> float:
        return self.now_s


class TimedNetwork:
    """Takes 2 ms to prepare a frame, then as long as it is told for each run."""

    def __init__(self, name: str, clock: Clock, runs_s: Iterable[float], log: list[str]) -> None:
        self.name, self.clock, self.log = name, clock, log
        self.backend = None
        self.runs_s = iter(runs_s)

    def prepare(self, pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], None]:
        self.clock.now_s += 0.002
        return pixels, None

    def infer(self, image: npt.NDArray[np.uint8]) -> None:
        assert image is PIXELS
        self.log.append(self.name)
        self.clock.now_s += next(self.runs_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    wound = Clock()
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=wound.perf_counter))
    return wound


@pytest.fixture
def make(clock: Clock) -> Callable[..., TimedNetwork]:
    def made(name: str, runs_s: Iterable[float], log: list[str] | None = None) -> TimedNetwork:
        return TimedNetwork(name, clock, runs_s, [] if log is None else log)

    return made


def test_figures_are_those_of_the_timed_rounds_only(make: Callable[..., TimedNetwork]) -> None:
    timed_s = [0.010, 0.020, 0.030, 0.040, 0.100]
    networks = {"one": make("one", [9.0, 9.0, *timed_s])}
    latencies, seconds = time_networks(networks, PIXELS, rounds=5, warm_up=2)  # type: ignore[arg-type]
    np.testing.assert_allclose(seconds["one"], timed_s)
    one = latencies["one"]
    assert one.prepare_ms == pytest.approx(2.0)
    assert one.infer_p50_ms == pytest.approx(30.0)
    assert one.infer_p95_ms == pytest.approx(88.0)
    assert one.infer_max_ms == pytest.approx(100.0)


@pytest.mark.parametrize("warm_up", [0, 1, 2])
def test_networks_take_turns_in_an_order_that_alternates(make: Callable[..., TimedNetwork], warm_up: int) -> None:
    log: list[str] = []
    networks = {name: make(name, [0.01] * 9, log) for name in "ab"}
    rounds = []
    time_networks(networks, PIXELS, rounds=4, warm_up=warm_up, on_round=lambda: rounds.append(len(log)))  # type: ignore[arg-type]
    orders = ["".join(log[start : start + 2]) for start in range(0, len(log), 2)]
    assert len(orders) == 4 + warm_up
    assert all({first, second} == {"ab", "ba"} for first, second in itertools.pairwise(orders))
    assert rounds == [2 * (number + 1) for number in range(4 + warm_up)]


def test_a_round_pairs_the_runs_of_both_networks(make: Callable[..., TimedNetwork]) -> None:
    slow_s, fast_s = [0.04, 0.08, 0.02], [0.01, 0.02, 0.005]
    networks = {"slow": make("slow", slow_s), "fast": make("fast", fast_s)}
    _, seconds = time_networks(networks, PIXELS, rounds=3, warm_up=0)  # type: ignore[arg-type]
    ratio = speed_ratio(seconds["slow"], seconds["fast"])
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((4.0, 4.0, 4.0))


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(100):
        slow_s, fast_s = 3.0 * rng.uniform(0.9, 1.1, 40), rng.uniform(0.9, 1.1, 40)
        ratio = speed_ratio(slow_s, fast_s)
        assert ratio.low <= ratio.median <= ratio.high
        held.append(ratio.low <= 3.0 <= ratio.high)
    assert 0.88 <= np.mean(held) <= 0.995


def test_the_interval_narrows_with_more_rounds() -> None:
    rng = np.random.default_rng(0)
    slow_s, fast_s = 3.0 * rng.uniform(0.9, 1.1, 400), rng.uniform(0.9, 1.1, 400)
    few, many = speed_ratio(slow_s[:12], fast_s[:12]), speed_ratio(slow_s, fast_s)
    assert 0 < many.high - many.low < 0.5 * (few.high - few.low)


def test_the_interval_does_not_change_when_asked_again() -> None:
    slow_s, fast_s = [3.0, 3.2, 2.9, 3.4, 3.1], [1.0, 1.1, 0.9, 1.2, 1.0]
    assert speed_ratio(slow_s, fast_s) == speed_ratio(slow_s, fast_s)
    assert isinstance(speed_ratio(slow_s, fast_s), Ratio)
