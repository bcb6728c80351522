"""What Prometheus reads: its own parser and its own rules for names are the judges."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from edgefetal_devices.telemetry import Clock, Telemetry, Zone
from edgefetal_runtime.service.metrics import Drop, Metrics, Outcome

STATES = ("live", "lost")
SHA = "ab" * 32
BOARD = Telemetry(
    zones=(Zone("cpu-thermal", 51.0, 99.0), Zone("cpu-thermal", None, None)),
    coolings=(),
    clocks=(Clock("policy0", 1e9, 2e9, 2e9),),
    memory_total_bytes=8_000_000_000,
    memory_available_bytes=5_000_000_000,
)
DOCUMENT = Path(__file__).parents[3] / "docs" / "service.md"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1.2.3", SHA, STATES)


def read(metrics: Metrics) -> dict[str, float]:
    """Read the exposition as Prometheus does: values by name and labels."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_everything_is_there_from_the_beginning(metrics: Metrics) -> None:
    values = read(metrics)
    assert values[f"edgefetal_build_info[{SHA}][1.2.3]"] == 1
    for cause in Drop:
        assert values[f"edgefetal_frames_dropped_total[{cause.value}]"] == 0
    for outcome in Outcome:
        assert values[f"edgefetal_results_total[{outcome.value}]"] == 0
    assert values["edgefetal_analysed_every_nth"] == 1


def test_each_count_and_figure_is_shown(metrics: Metrics) -> None:
    metrics.analysed(0.04, Outcome.MEASURED)
    metrics.analysed(0.4, Outcome.ABSTAINED)
    metrics.dropped(Drop.RATE)
    metrics.sweep(3)
    metrics.exam(saved=True)
    metrics.exam(saved=False)
    metrics.store(123)
    metrics.board(BOARD, throttled=True)
    metrics.rate(4)
    metrics.looked(alive=False, uptime_s=60.0)
    values = read(metrics)
    expected = {
        "frames_analysed_total": 2,
        "results_total[measured]": 1,
        "results_total[abstained]": 1,
        "frame_latency_seconds_bucket[0.05]": 1,
        "frame_latency_seconds_bucket[+Inf]": 2,
        "frame_latency_seconds_sum": 0.44,
        "frames_dropped_total[rate]": 1,
        "sweep_number": 3,
        "exams_saved_total": 1,
        "exams_not_saved_total": 1,
        "store_free_bytes": 123,
        "temperature_celsius[0-cpu-thermal]": 51,
        "clock_hertz[policy0]": 1e9,
        "clock_limit_hertz[policy0]": 2e9,
        "memory_available_bytes": 5e9,
        "throttled": 1,
        "analysed_every_nth": 4,
        "pipeline_alive": 0,
        "watchdog_withheld_total": 1,
        "uptime_seconds": 60,
    }
    assert {name: values[f"edgefetal_{name}"] for name in expected} == pytest.approx(expected)


def test_a_sensor_that_went_quiet_is_no_longer_shown(metrics: Metrics) -> None:
    metrics.board(BOARD, throttled=False)
    metrics.board(replace(BOARD, zones=(Zone("cpu-thermal", None, 99.0),), clocks=()), throttled=False)
    assert not [name for name in read(metrics) if "temperature" in name or "clock" in name]


def test_the_source_is_in_one_state(metrics: Metrics) -> None:
    metrics.source_state("live")
    metrics.source_state("lost")
    values = read(metrics)
    assert (values["edgefetal_source_state[live]"], values["edgefetal_source_state[lost]"]) == (0, 1)


def test_the_counts_of_a_source_are_taken_over_once(metrics: Metrics) -> None:
    metrics.source_totals(100, {Drop.TORN: 3, Drop.UNREAD: 10})
    metrics.source_totals(100, {Drop.TORN: 3, Drop.UNREAD: 10})
    metrics.source_totals(150, {Drop.TORN: 4, Drop.UNREAD: 10})
    values = read(metrics)
    assert values["edgefetal_frames_received_total"] == 150
    assert values["edgefetal_frames_dropped_total[torn]"] == 4
    assert values["edgefetal_frames_dropped_total[unread]"] == 10


def test_a_source_that_begins_anew_adds_to_what_was(metrics: Metrics) -> None:
    metrics.source_totals(100, {Drop.MISSED: 5})
    metrics.source_totals(7, {Drop.MISSED: 1})
    values = read(metrics)
    assert values["edgefetal_frames_received_total"] == 107
    assert values["edgefetal_frames_dropped_total[missed]"] == 6


def test_two_services_share_nothing_and_leave_the_global_registry_alone() -> None:
    one, other = Metrics("1", SHA, STATES), Metrics("1", SHA, STATES)
    one.exam(saved=True)
    assert read(other)["edgefetal_exams_saved_total"] == 0
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("edgefetal")]


def test_threads_count_every_frame(metrics: Metrics) -> None:
    def work() -> None:
        for _ in range(500):
            metrics.analysed(0.1, Outcome.MEASURED)
            metrics.dropped(Drop.RATE)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = read(metrics)
    assert values["edgefetal_frames_analysed_total"] == values["edgefetal_frames_dropped_total[rate]"] == 2000


@dataclass(frozen=True)
class Row:
    """What the documentation says of a metric."""

    name: str
    kind: str
    labels: frozenset[str]
    meaning: str


def rows(metrics: Metrics) -> list[Row]:
    metrics.board(BOARD, throttled=False)
    return [
        Row(
            f"{family.name}_total" if family.type == "counter" else family.name,
            family.type,
            frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
            family.documentation,
        )
        for family in metrics._registry.collect()
    ]


def test_names_and_labels_follow_the_conventions(metrics: Metrics) -> None:
    found = rows(metrics)
    assert len(found) == len({row.name for row in found}) == 20
    for row in found:
        assert re.fullmatch(r"edgefetal_[a-z]+(_[a-z]+)*", row.name), row.name
        assert row.name.endswith("_total") is (row.kind == "counter")
        assert row.meaning
    labels = {label for row in found for label in row.labels}
    assert labels == {"cause", "outcome", "state", "zone", "cores", "version", "bundle_sha256"}


def test_the_documentation_lists_every_metric_as_it_is(metrics: Metrics) -> None:
    table = [
        f"| `{row.name}` | {row.kind} | {' '.join(sorted(row.labels)) or '-'} | {row.meaning} |"
        for row in rows(metrics)
    ]
    written = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `edgefetal_")]
    assert written == table
