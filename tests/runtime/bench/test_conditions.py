"""What counts as disturbed, on made-up samples and files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from edgefetal_devices.power import PowerMode
from edgefetal_devices.telemetry import Clock, Cooling, Rail, Telemetry, Zone
from edgefetal_runtime.bench.conditions import (
    PIPELINE,
    Sample,
    Watch,
    judge,
    read_busy,
    read_load,
    read_own,
    throttles,
)

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_runtime.bench.record import ConditionsRecord

QUIET = Telemetry((), (), (), None, None)
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def telemetry(**changes: Any) -> Telemetry:
    parts: dict[str, Any] = {"zones": (), "coolings": (), "clocks": ()}
    return Telemetry(**{**parts, "memory_total_bytes": None, "memory_available_bytes": None, **changes})


def run(
    others: list[float], *, before: float = 0.0, after: float = 0.0, steal: float = 0.0, **changes: Any
) -> ConditionsRecord:
    """Judge a run on two cores, in each second of which this process used one core and others as many as told."""
    phases = [("before", before, 0.0), *(("during", cores, 1.0) for cores in others), ("after", after, 0.0)]
    at_s, busy_s, own_s = 100.0, 5000.0, 700.0
    samples = [Sample(at_s, "before", busy_s, 3.0, own_s, QUIET)]
    for number, (phase, cores, own) in enumerate(phases):
        at_s, busy_s, own_s = at_s + 1, busy_s + cores + own, own_s + own
        samples.append(Sample(at_s, phase, busy_s, 3.0 + steal * (number + 1), own_s, QUIET))
    facts: dict[str, Any] = {"load_before": 0.1, "preempted": 30, "nice": 0, "warm_up_stable": True}
    return judge(samples, 2, **(facts | changes))


def test_a_quiet_machine() -> None:
    of = run([0.05] * 30)
    assert (of.disturbed, of.reasons) == (False, ())
    assert of.seconds == pytest.approx(30)
    assert of.others_during_cores == pytest.approx(0.05)
    assert of.preempted_per_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("conditions", "says"),
    [
        (run([0.0] * 30, before=0.5), "before the run other processes used 0.50 of 2 cores"),
        (run([0.0] * 30, after=0.5), "after the run other processes used 0.50 of 2 cores"),
        (run([0.0] * 28 + [1.0] * 2), "during 7% of the run"),
        (run([0.0] * 30, steal=0.05), "a hypervisor gave 2.5% of the cores' time to others"),
        (run([0.0] * 30, warm_up_stable=False), "the warm-up reached its cap"),
    ],
    ids=["before", "after", "during", "steal", "warm-up"],
)
def test_each_disturbance_is_named_alone(conditions: ConditionsRecord, says: str) -> None:
    assert conditions.disturbed
    assert len(conditions.reasons) == 1
    assert says in conditions.reasons[0]


def test_one_busy_second_of_thirty_is_none() -> None:
    of = run([0.0] * 29 + [2.0])
    assert not of.disturbed
    assert of.busy_seconds_share == pytest.approx(1 / 30)


def test_our_own_work_is_none() -> None:
    assert run([0.0] * 10).others_during_cores == 0.0


def test_coarse_ticks_never_make_others_negative() -> None:
    assert run([-0.3] * 10).others_during_cores == 0.0


def test_power_is_that_of_the_module_while_the_pipeline_runs() -> None:
    def sample(at_s: float, phase: str, watts: float, name: str = "VDD_IN") -> Sample:
        rails = (Rail(name, None, None, watts), Rail("VDD_CPU", None, None, 99.0))
        return Sample(at_s, phase, 0.0, 0.0, 0.0, telemetry(rails=rails))

    facts: dict[str, Any] = {"load_before": None, "preempted": 0, "nice": 0, "warm_up_stable": True}
    samples = [sample(0, "before", 1.0), sample(1, "before", 1.0), sample(2, PIPELINE, 6.0), sample(3, PIPELINE, 8.0),
               sample(4, "during", 20.0), sample(5, "after", 1.0)]  # fmt: skip
    assert judge(samples, 2, **facts).power_w == pytest.approx(7.0)
    unknown = [sample(at, phase, 5.0, "VDD_GPU") for at, phase in enumerate(["before", "before", PIPELINE, "after"])]
    assert judge(unknown, 2, **facts).power_w is None


def test_temperatures() -> None:
    zones = [(Zone("a", 40.0, None),), (Zone("a", 70.0, None), Zone("b", None, None)), (Zone("a", 60.0, None),)]
    samples = [
        Sample(at, phase, 0.0, 0.0, 0.0, telemetry(zones=zone))
        for at, (phase, zone) in enumerate(zip(["before", "during", "after"], zones, strict=True))
    ]
    of = judge(samples, 2, load_before=None, preempted=0, nice=0, warm_up_stable=True)
    assert (of.temperature_max_c, of.temperature_rise_c) == (70.0, 20.0)


MODE = PowerMode(0, "15W", None, gpu_unlimited=False, is_default=True)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ({}, {"coolings": (Cooling("cpu-throttle-alert", 1),)}, "slowed processors down to cool them"),
        ({}, {"zones": (Zone("cpu-thermal", 99.0, 99.0),)}, "cpu-thermal reached the temperature"),
        ({"over_currents": 3}, {"over_currents": 4}, "too much current"),
        (
            {"clocks": (Clock("policy0", 1e9, 2e9, 2e9),)},
            {"clocks": (Clock("policy0", 1e9, 1.5e9, 2e9),)},
            "the highest clock that is allowed changed on the way (policy0)",
        ),
        (
            {"gpus": (Clock("17000000.gpu", 1e9, 2e9, 2e9),)},
            {"gpus": (Clock("17000000.gpu", 1e9, 1.5e9, 2e9),)},
            "(17000000.gpu)",
        ),
        ({"power_mode": MODE}, {"power_mode": None}, "the power mode was changed"),
    ],
)
def test_throttling(before: dict[str, Any], after: dict[str, Any], says: str) -> None:
    seen = [telemetry(**before), telemetry(**after), telemetry(**after)]
    assert len(throttles(seen)) == 1
    assert says in throttles(seen)[0]
    assert throttles(seen[:1]) == []


def test_a_core_that_idles_at_a_low_clock_is_not_throttled() -> None:
    clocks = [(Clock("policy0", hz, 2e9, 2e9),) for hz in (2e9, 4e8)]
    assert throttles([telemetry(clocks=clock) for clock in clocks]) == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("proc/self/task/1", "proc/self/task/2", "proc/77", "proc/78"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/stat").write_text("cpu  100 20 30 4000 500 6 7 80 90 9\ncpu0 1 2 3 4 5 6 7 8 9 0\n")
    (tmp_path / "proc/loadavg").write_text("1.25 0.5 0.1 2/300 4000\n")
    (tmp_path / "proc/self/task/1/children").write_text("77 ")
    (tmp_path / "proc/self/task/2/children").write_text("78")
    for child, ticks in ((77, "200 100"), (78, "50 50")):
        (tmp_path / f"proc/{child}/stat").write_text(f"{child} (a ) b) S 1 1 1 0 -1 4 5 6 7 8 {ticks} 0 0 30 10")
    return tmp_path


def test_reads_what_the_kernel_says(root: Path) -> None:
    """User, nice, system and interrupts are busy; idle, waiting and stolen are not, and guests are in user."""
    busy_s, steal_s = read_busy(root)
    assert busy_s * TICKS_PER_S == pytest.approx(100 + 20 + 30 + 6 + 7)
    assert steal_s * TICKS_PER_S == pytest.approx(80)
    assert read_load(root) == 1.25


def test_children_that_still_run_are_ours(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    ours = read_own(root) - read_own(tmp_path_factory.mktemp("empty"))
    assert ours * TICKS_PER_S == pytest.approx(400, abs=20)


@pytest.mark.parametrize("text", ["", "cpu", "cpu 1 2", "intr 1 2 3 4 5 6 7 8 9", "cpu x y z 1 2 3 4"])
def test_a_kernel_that_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(text)
    (tmp_path / "proc/loadavg").write_text(text)
    assert read_busy(tmp_path)[1] == 0.0
    assert read_load(tmp_path) is None


def test_a_watch_looks_before_during_and_after() -> None:
    with Watch(every_s=0.005, quiet_s=0.01) as watch:
        sum(range(200_000))
    of = watch.conditions(warm_up_stable=True)
    assert of.seconds > 0
    assert of.others_during_cores >= 0
    assert not watch._thread.is_alive()
