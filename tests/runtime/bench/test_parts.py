"""The parts that run a network: stages, whole examinations, live, and a fresh process."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_devices.errors import CheckFailedError, InputError
from edgefetal_runtime.bench import cold, whole
from edgefetal_runtime.bench.bench import Input, Plan, Side, run_bench
from edgefetal_runtime.bench.cold import Process, first_result_s, run_process, time_cold_start
from edgefetal_runtime.bench.machine import read_machine
from edgefetal_runtime.bench.stages import _split, stage_records, time_frames
from edgefetal_runtime.bench.stream import _Arrivals
from edgefetal_runtime.bench.whole import time_whole
from edgefetal_runtime.exam import pipeline
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.infer.child import ChildGraph
from edgefetal_runtime.scale import NOT_GIVEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.network import Network


@dataclass(frozen=True)
class Drawn:
    """A source of flat frames, in sweeps."""

    count: int
    sweeps: int = 1
    kind: str = "video"

    @property
    def frame_count(self) -> int:
        return self.count

    def frames(self) -> Iterator[Frame]:
        for number in range(self.count):
            sweep, index = divmod(number, self.count // self.sweeps)
            yield Frame(np.full((24, 36), number, np.uint8), f"sweep {sweep}", index, index / 30, NOT_GIVEN)


@pytest.fixture
def network(scripted_network: Callable[..., Network], intact_bundle: Bundle) -> Network:
    spec, heads = intact_bundle.manifest.preprocess, intact_bundle.manifest.heads
    mask = np.full((spec.height_px, spec.width_px), -100.0, np.float32)
    return scripted_network([(mask, [0.0] * len(heads.plane))])


def test_stages_sum_to_glass_to_result(network: Network) -> None:
    times = time_frames(Drawn(12, sweeps=2), network, 40, cap=5)
    assert times.glass_s.shape == (40,)
    assert times.sum_over_glass == pytest.approx(1.0, abs=0.03)
    assert times.warm_up.frames == 5
    assert not times.warm_up.stable
    # Passes of 11 frames that count, and two sweeps in each.
    assert len(times.sweep_ends_s) >= 4
    records = {record.name: record for record in stage_records(times, network.backend)}
    assert list(records) == ["decode", "preprocess", "copy in", "infer", "copy out", "post-process", "select"]
    assert records["copy in"].mean_ms is None
    assert "none" in records["copy in"].note
    shown = sum(record.mean_ms for record in records.values() if record.mean_ms is not None)
    assert shown == pytest.approx(1e3 * times.glass_s.mean() * times.sum_over_glass)


def test_each_stage_is_charged_with_its_own_time(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now_s=0.0)

    def spend(seconds: float) -> None:
        clock.now_s += seconds

    wound = SimpleNamespace(perf_counter=lambda: clock.now_s, monotonic=lambda: clock.now_s)
    monkeypatch.setattr(pipeline, "time", wound)
    monkeypatch.setattr("edgefetal_runtime.bench.stages.time", wound)
    monkeypatch.setattr(pipeline, "glance", lambda pixels, of=pipeline.glance: (spend(0.001), of(pixels))[1])
    monkeypatch.setattr(pipeline, "find_all", lambda *args, of=pipeline.find_all: (spend(0.004), of(*args))[1])
    push, finish = pipeline.RunningSweep.push, pipeline.RunningSweep.finish
    monkeypatch.setattr(pipeline.RunningSweep, "push", lambda sweep, seen: (spend(0.002), push(sweep, seen))[1])
    monkeypatch.setattr(pipeline.RunningSweep, "finish", lambda sweep, why: (spend(0.5), finish(sweep, why))[1])
    run = network.backend.run
    monkeypatch.setattr(network.backend, "run", lambda image: (spend(0.008), run(image))[1])

    class Read(Drawn):
        def frames(self) -> Iterator[Frame]:
            for frame in super().frames():
                # The first frame of a pass opens the file.
                spend(0.003 if frame.index else 1.0)
                yield frame

    times = time_frames(Read(5), network, 20, cap=50)
    for stage, seconds in {"read": 0.003, "prepare": 0.001, "infer": 0.008, "find": 0.004, "select": 0.002}.items():
        np.testing.assert_allclose(times.stages_s[stage], seconds)
    np.testing.assert_allclose(times.glass_s, 0.018)
    assert times.warm_up.frames == 20
    assert times.warm_up.stable
    assert set(np.round(times.sweep_ends_s, 6)) == {0.5}


def test_the_way_to_another_process_is_told_from_the_graph() -> None:
    child = ChildGraph.__new__(ChildGraph)
    child.name, child.last_s = "openvino", 0.010
    assert _split(child, {"read": 0.001, "infer": 0.012}) == pytest.approx(
        {"read": 0.001, "infer": 0.010, "hand over": 0.002}
    )


def test_whole_and_bare_passes_take_turns(
    network: Network, intact_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([1.0, 0.9, 0.9, 1.0] * 4)
    clock = SimpleNamespace(now_s=0.0)
    order: list[str] = []

    def tick(name: str) -> None:
        order.append(name)

    def perf_counter() -> float:
        # Asked before and after each pass.
        clock.asked = not getattr(clock, "asked", False)
        clock.now_s += 0.0 if clock.asked else next(seconds)
        return float(clock.now_s)

    monkeypatch.setattr(whole, "time", SimpleNamespace(perf_counter=perf_counter))
    found = time_whole(Drawn(6), intact_bundle, network, 8, simulated=True, on_pass=tick)
    assert order[:4] == ["whole", "bare", "bare", "whole"]
    assert found.whole_fps == pytest.approx(6.0)
    assert found.bare_fps == pytest.approx(6 / 0.9)
    assert found.ratio.median == pytest.approx(0.9)
    assert found.ratio.n == 8


def test_a_live_run_counts_from_the_driver_and_ends_in_time() -> None:
    stopped = []
    arrivals = _Arrivals(2.0, lambda: stopped.append(True))

    def seen(arrived_s: float, done_s: float) -> Any:
        frame = SimpleNamespace(arrived_s=arrived_s)
        return SimpleNamespace(done_s=done_s, finding=SimpleNamespace(frame=frame))

    for number in range(7):
        assert not stopped
        arrivals.take(seen(10 + 0.5 * number, 10 + 0.5 * number + 0.02))
    assert stopped
    # What arrived in the first second is not counted.
    np.testing.assert_allclose(arrivals.latencies_s, [0.02] * 5)
    assert (arrivals.analysed, arrivals.first_s, arrivals.last_s) == (7, 10.0, 13.02)


def test_the_first_result_leaves_out_what_came_after_it() -> None:
    exam = b'{"timings": {"total_s": 5.0, "first_result_s": 0.25}}'
    assert first_result_s(Process(6.0, 1.0, 100.0), exam) == pytest.approx(1.25)


def test_a_process_is_measured_by_itself(tmp_path: Path) -> None:
    # The memory is kept until it was surely looked at, which a look at the clock would not make sure of.
    hold = "x = bytearray(60_000_000); x[::4096] = b'1' * len(x[::4096]); sum(range(3_000_000))"
    big = run_process([sys.executable, "-c", hold], tmp_path)
    small = run_process([sys.executable, "-c", "pass"], tmp_path)
    assert big.peak_rss_mb > 60
    # This process is larger than that, and a child begins as its copy.
    assert small.peak_rss_mb < 40
    assert small.cpu_s > 0
    assert small.wall_s > 0


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match="ended with 3: it is broken"):
        run_process([sys.executable, "-c", "import sys; sys.stderr.write('it is broken'); sys.exit(3)"], tmp_path)


def test_the_first_start_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = iter(Process(float(number), number / 2, 100.0 + number) for number in range(10, 20))

    def run(command: list[str], _folder: Path) -> Process:
        process = next(ended)
        if "--json" in command:
            with open(command[command.index("--json") + 1], "w", encoding="ascii") as stream:  # noqa: PTH123
                stream.write('{"timings": {"total_s": 1.0, "first_result_s": 0.5}}')
        return process

    monkeypatch.setattr(cold, "run_process", run)
    record, peak_rss_mb = time_cold_start(["run"], ["help"], 2)
    assert record.first_result_s == pytest.approx((11.5, 13.5))
    assert record.cpu_s == pytest.approx((6.0, 7.0))
    assert record.help_s == pytest.approx((13.0, 15.0))
    assert peak_rss_mb == 114.0


def test_the_machine_of_files(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nmodel name : A Core\nprocessor : 1\nmodel name : B Core\n")
    policy = tmp_path / "sys/devices/system/cpu/cpufreq/policy0"
    policy.mkdir(parents=True)
    for name, kilohertz in (
        ("scaling_max_freq", 1500000),
        ("scaling_min_freq", 1500000),
        ("cpuinfo_max_freq", 2000000),
    ):
        (policy / name).write_text(str(kilohertz))
    of = read_machine(tmp_path)
    assert of.processor == "A Core"
    assert of.clocks[0].model_dump() == {"name": "policy0", "limit_mhz": 1500.0, "max_mhz": 2000.0, "locked": True}
    assert {"python", "edgefetal", "numpy"} <= set(of.versions)
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nCPU part : 0xd42\n")
    assert read_machine(tmp_path).processor == "Arm core 0xd42"


def test_a_whole_run(network: Network, intact_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []
    monkeypatch.setattr("edgefetal_runtime.bench.conditions.time", SimpleNamespace(
        sleep=slept.append, monotonic=time.monotonic))  # fmt: skip
    side = Side(intact_bundle, "shipped", 1, lambda _: network)
    plan = Plan(frames=12, warm_up_cap=4, pairs=2, blocks=2, rounds=2, cold_starts=0)
    parts: list[str] = []
    record = run_bench(side, side, Input(Drawn(6), None, 30.0, simulated=True), plan, None, parts.append)
    assert record.source.frames == 6
    assert record.source.size_px == (36, 24)
    assert record.subject.precision == "float32+int8"
    assert record.latency_ms.n == 12
    assert len(record.latency_cdf_ms) == 101
    assert record.latency_cdf_ms[-1] == pytest.approx(record.latency_ms.max, abs=1e-3)
    assert (record.stream, record.cold_start, record.first_result_s) == (None, None, None)
    assert record.versus is not None
    assert record.versus.verdict.startswith("2 blocks are too few")
    assert record.conditions.disturbed
    assert "the warm-up reached its cap" in " ".join(record.conditions.reasons)
    assert parts[0] == "stages"
    assert len(slept) == 2


def test_one_frame_is_too_few(network: Network, intact_bundle: Bundle) -> None:
    side = Side(intact_bundle, "shipped", 1, lambda _: network)
    with pytest.raises(InputError, match="too few"):
        run_bench(side, None, Input(Drawn(1), None, 30.0, simulated=True), Plan(), None)
