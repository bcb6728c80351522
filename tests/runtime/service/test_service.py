"""The parts put together: one loop in, /health, /metrics and systemd out."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgefetal_devices.errors import EnvironmentLacksError
from edgefetal_runtime.service.logs import structured_logs
from edgefetal_runtime.service.metrics import Metrics
from edgefetal_runtime.service.notify import Notifier
from edgefetal_runtime.service.pulse import Idle
from edgefetal_runtime.service.service import Service, ServiceSettings, service_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE_S = 20.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 500.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def _quick_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefetal_runtime.service.health._POLL_S", 0.01)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1.2.3", "ab" * 32, ("live", "lost"))


@pytest.fixture
def settings(tmp_path: Path) -> ServiceSettings:
    """With a board of one sensor, looked at when the test says so."""
    (tmp_path / "store").mkdir()
    board(tmp_path, 50.0)
    return ServiceSettings(store=tmp_path / "store", port=0, sample_s=1000.0, root=tmp_path)


def board(root: Path, temperature_c: float) -> None:
    zone = root / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text(f"{1000 * temperature_c:.0f}\n")


@pytest.fixture
def service(settings: ServiceSettings, metrics: Metrics, clock: Clock) -> Iterator[Service]:
    with Service(settings, metrics, Notifier(None), clock=clock) as service:
        yield service


def ask(service: Service, path: str) -> tuple[int, str]:
    assert service.port is not None
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=DEADLINE_S)
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer.status, content


def value(service: Service, name: str) -> float:
    found = re.search(rf"^edgefetal_{re.escape(name)} (\S+)$", ask(service, "/metrics")[1], re.MULTILINE)
    assert found, name
    return float(found[1])


def test_health_follows_the_frames_and_not_the_process(service: Service, clock: Clock) -> None:
    assert ask(service, "/health")[0] == 200
    service.pulse.busy()
    with service.analysing(clock.now_s):
        clock.now_s += 11.0
        status, content = ask(service, "/health")
        assert status == 503
        assert json.loads(content) == {
            "alive": False,
            "reason": "A frame has been in analysis for 11.0 s; the limit is 10 s.",
            "idle": None,
            "quiet_s": 11.0,
            "analysed_every_nth": 1,
            "uptime_s": 11.0,
        }
    assert ask(service, "/health")[0] == 200
    service.pulse.idle(Idle.NO_SOURCE)
    assert json.loads(ask(service, "/health")[1])["idle"] == "waiting for the source"


def test_a_frame_is_counted_timed_and_credited(service: Service, clock: Clock) -> None:
    service.pulse.busy()
    for number in range(4):
        arrived_s = clock.now_s
        with service.analysing(arrived_s) as analysis:
            clock.now_s += 0.25
            if number == 0:
                analysis.measured()
    assert value(service, "frames_analysed_total") == 4
    assert value(service, 'results_total{outcome="measured"}') == 1
    assert value(service, 'results_total{outcome="abstained"}') == 3
    assert value(service, "frame_latency_seconds_sum") == 1.0
    assert value(service, 'frame_latency_seconds_bucket{le="0.2"}') == 0
    assert value(service, 'frame_latency_seconds_bucket{le="0.3"}') == 4


def test_a_frame_that_fails_is_dropped_and_no_progress(service: Service, clock: Clock) -> None:
    service.pulse.busy()
    for _ in range(11):
        clock.now_s += 1.0
        with pytest.raises(ValueError, match="bad"), service.analysing(clock.now_s):
            raise ValueError("bad")
    assert value(service, 'frames_dropped_total{cause="failed"}') == 11
    assert value(service, "frames_analysed_total") == 0
    assert ask(service, "/health")[0] == 503


def test_a_hot_board_gets_fewer_frames_and_says_so(
    settings: ServiceSettings, metrics: Metrics, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    with structured_logs(), Service(settings, metrics, Notifier(None), clock=clock) as service:
        assert wait_for_first_sample(service)
        board(settings.root, 78.0)
        service.sample()
        assert [service.admit() for _ in range(4)] == [False, True] * 2
        assert value(service, "analysed_every_nth") == 2
        assert value(service, 'frames_dropped_total{cause="rate"}') == 2
        assert value(service, 'temperature_celsius{zone="0-cpu-thermal"}') == 78.0
        assert value(service, "store_free_bytes") > 0
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    events = [line["event"] for line in lines]
    assert events == ["started", "rate_changed", "stopping", "stopped"]
    assert (lines[1]["every_nth"], lines[1]["headroom_c"]) == (2, 2.0)


def wait_for_first_sample(service: Service) -> bool:
    pause = threading.Event()
    for _ in range(int(DEADLINE_S / 0.01)):
        if 'zone="0-cpu-thermal"' in ask(service, "/metrics")[1]:
            return True
        pause.wait(0.01)
    return False


def test_slow_results_lower_the_rate_too(service: Service, clock: Clock) -> None:
    assert wait_for_first_sample(service)
    for _ in range(20):
        arrived_s = clock.now_s
        with service.analysing(arrived_s):
            clock.now_s += 0.8
    service.sample()
    assert service.governor.every_nth == 2


def test_a_store_that_is_gone_has_no_space(service: Service, settings: ServiceSettings) -> None:
    settings.store.rmdir()
    service.sample()
    assert value(service, "store_free_bytes") == 0


def test_a_board_that_cannot_be_read_does_not_end_the_thread(
    settings: ServiceSettings, metrics: Metrics, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tries = threading.Semaphore(0)

    def broken(_: Path) -> None:
        tries.release()
        raise RuntimeError("driver")

    monkeypatch.setattr("edgefetal_runtime.service.service.read_telemetry", broken)
    with structured_logs(), Service(replace(settings, sample_s=0.001), metrics, Notifier(None)) as service:
        assert all(tries.acquire(timeout=DEADLINE_S) for _ in range(3))
        assert ask(service, "/health")[0] == 200
    assert '"event": "telemetry_failed"' in capfd.readouterr().err


def test_a_watchdog_that_died_is_no_health(service: Service) -> None:
    service._watchdog.stop()
    status, content = ask(service, "/health")
    assert status == 503
    assert json.loads(content)["reason"] == "The watchdog's thread has ended."


def test_systemd_hears_it_in_order(settings: ServiceSettings, metrics: Metrics, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(DEADLINE_S)
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getpid())}
        heard = []
        with service_of(settings, metrics, environment, why_idle=lambda: Idle.NO_SOURCE) as service:
            service.ready()
            while heard.count("WATCHDOG=1") < 3:
                heard.append(systemd.recv(4096).decode())
            service.stopping()
            while heard[-1] != "STOPPING=1":
                heard.append(systemd.recv(4096).decode())
            # Draining is fed too.
            heard.append(systemd.recv(4096).decode())
        assert service.pulse.alive(10.0).idle is Idle.STOPPING
    assert f"READY=1\nMAINPID={os.getpid()}\nSTATUS=Ready." in heard
    assert heard[-2:] == ["STOPPING=1", "WATCHDOG=1"]
    assert heard.count("STOPPING=1") == 1


def test_a_watchdog_for_another_process_is_not_fed_more_often(settings: ServiceSettings, metrics: Metrics) -> None:
    environment = {"WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getpid() + 1)}
    service = service_of(replace(settings, port=None), metrics, environment)
    assert service._watchdog._every_s == 1.0


def test_no_thread_outlives_it(settings: ServiceSettings, metrics: Metrics) -> None:
    before = set(threading.enumerate())
    with Service(settings, metrics, Notifier(None)):
        assert {thread.name for thread in set(threading.enumerate()) - before} >= {"watchdog", "telemetry", "health"}
    assert set(threading.enumerate()) <= before


def test_without_a_port_nothing_listens(settings: ServiceSettings, metrics: Metrics) -> None:
    with Service(replace(settings, port=None), metrics, Notifier(None)) as service:
        assert service.port is None
        assert service.health().alive


def test_a_taken_port_is_refused_at_once(service: Service, settings: ServiceSettings, metrics: Metrics) -> None:
    assert service.port is not None
    with pytest.raises(EnvironmentLacksError, match="name another port"):
        Service(replace(settings, port=service.port), metrics, Notifier(None))


def test_looks_are_shown(settings: ServiceSettings, metrics: Metrics, clock: Clock) -> None:
    with Service(settings, metrics, Notifier(None), clock=clock) as service:
        service._watchdog.look()
        assert value(service, "pipeline_alive") == 1
        service.pulse.busy()
        clock.now_s += 30.0
        service._watchdog.look()
        assert value(service, "pipeline_alive") == 0
        assert value(service, "watchdog_withheld_total") >= 1
        assert value(service, "uptime_seconds") == 30.0
