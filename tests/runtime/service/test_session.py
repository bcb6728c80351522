"""A live examination put together: what is counted, kept and shown."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_runtime.frame import Frame
from edgefetal_runtime.scale import Scale
from edgefetal_runtime.service.metrics import Metrics
from edgefetal_runtime.service.pulse import Idle
from edgefetal_runtime.service.service import Service, ServiceSettings, service_of
from edgefetal_runtime.service.session import Keeper, Latencies, LiveSession
from edgefetal_runtime.sources.live.status import Dropped, LiveState, LiveStatus
from edgefetal_runtime.sweep.finder import SweepFinder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_runtime.exam.record import Exam
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.network import Network

SHAPE = (270, 400)
SCALE = Scale(0.3, 0.3, origin="test")
HEAD, NONE = (4.0, -4.0), (-4.0, 4.0)


@dataclass
class FakeLive:
    """Frames of a moving picture at 30 a second by their own clock, without waiting for it."""

    count: int
    state: LiveState = LiveState.LIVE
    fails_after: int | None = None
    kind: str = "simulated"
    name: str = "simulated:test"
    frame_count: None = None
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def status(self) -> LiveStatus:
        return LiveStatus(self.state, "", received=self.count + 7, delivered=self.count, dropped=Dropped(2, 1, 4))

    def stop(self) -> None:
        self.stopped.set()

    def frames(self) -> Iterator[Frame]:
        rng = np.random.default_rng(0)
        for index in range(self.count):
            if self.stopped.is_set():
                return
            if index == self.fails_after:
                raise ValueError("the driver sent nonsense")
            pixels = rng.integers(60, 200, SHAPE).astype(np.uint8)
            yield Frame(pixels, "live", index, index / 30, SCALE, arrived_s=time.monotonic())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    metrics = Metrics("1", "0" * 64, [state.value for state in LiveState])
    with service_of(ServiceSettings(store=tmp_path, port=None), metrics, {}) as running:
        yield running


@pytest.fixture
def crossing(
    intact_bundle: Bundle, scripted_network: Callable[..., Network], head_logits: Callable[..., npt.NDArray[np.float32]]
) -> Network:
    """A network that sees a head come, grow to 60 px, shrink and go within 60 frames."""
    answers = []
    for index in range(60):
        share = 1 - ((index - 30) / 22) ** 2
        semi = 60 * np.sqrt(max(share, 1e-6))
        logits = head_logits((200.0, 135.0, semi, 0.8 * semi, 0.3), SHAPE, intact_bundle.manifest.preprocess)
        answers.append((logits, HEAD if share > 0.2 else NONE))
    return scripted_network(answers)


def _session(source: FakeLive, bundle: Bundle, network: Network, service: Service, **keeper: Any) -> LiveSession:
    return LiveSession(source, bundle, network, SweepFinder(), service, Keeper(**keeper))  # type: ignore[arg-type]


def test_a_live_head_is_measured_counted_and_kept(intact_bundle: Bundle, crossing: Network, service: Service) -> None:
    pictures: dict[str, bytes] = {}
    checkpoints: list[Exam] = []
    recorded: list[int] = []
    session = _session(
        FakeLive(60),
        intact_bundle,
        crossing,
        service,
        take_picture=pictures.__setitem__,
        checkpoint=checkpoints.append,
        record_frame=lambda frame: recorded.append(frame.index),
    )
    result = session.run("simulated:test", simulated=True)
    (sweep,) = result.exam.sweeps
    hc = next(m for m in result.exam.measurements if m.name == "HC")
    assert hc.value == pytest.approx(340.6 * 0.3, rel=0.005)
    assert list(pictures) == [sweep.structures[0].overlay]
    assert result.overlays == {}
    assert recorded == list(range(60))
    assert [exam.ended for exam in checkpoints] == ["the examination was still running when this was written"]
    assert result.exam.ended is None
    view = session.view()
    assert view.analysed == 60
    assert view.best["HC"][0] == hc.value
    assert view.latency_ms is not None
    assert 0 < view.latency_ms[0] <= view.latency_ms[1]
    report = session.report()
    assert report["dropped"] == {"missed": 2, "torn": 1, "unread": 4, "thinned": 0}
    assert b"edgefetal_frames_analysed_total 60.0" in service.metrics.exposition()
    assert b'edgefetal_frames_dropped_total{cause="unread"} 4.0' in service.metrics.exposition()


def test_freed_memory_is_given_back_after_every_sweep(
    intact_bundle: Bundle, crossing: Network, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[bool] = []
    monkeypatch.setattr("edgefetal_runtime.service.session.give_back_freed", lambda: given_back.append(True))
    result = _session(FakeLive(60), intact_bundle, crossing, service).run("simulated:test", simulated=True)
    assert len(given_back) == len(result.sweeps) > 0


def test_an_error_ends_the_examination_with_what_was_seen(
    intact_bundle: Bundle, crossing: Network, service: Service
) -> None:
    session = _session(FakeLive(60, fails_after=55), intact_bundle, crossing, service)
    result = session.run("simulated:test")
    assert result.exam.ended is not None
    assert "the driver sent nonsense" in result.exam.ended
    (sweep,) = result.exam.sweeps
    assert 40 <= sweep.frames_seen <= 55
    assert sweep.hand is not None
    assert sweep.hand.light == "red"
    # It had left the head's plane behind, so the value stands; that the sweep was cut short is said.
    assert next(m for m in result.exam.measurements if m.name == "HC").value is not None


def test_stop_ends_the_frames_and_the_rest_is_measured(
    intact_bundle: Bundle, crossing: Network, service: Service
) -> None:
    source = FakeLive(10_000)
    session = _session(source, intact_bundle, crossing, service)
    seen = []
    original = source.frames

    def frames() -> Iterator[Frame]:
        for frame in original():
            seen.append(frame.index)
            if len(seen) == 60:
                session.stop()
            yield frame

    source.frames = frames  # type: ignore[method-assign]
    result = session.run("simulated:test")
    assert len(seen) == 60
    assert result.exam.ended is None
    assert sum(sweep.frames_seen for sweep in result.exam.sweeps) > 40


def test_frames_that_are_left_out_to_keep_up_are_counted(
    intact_bundle: Bundle, crossing: Network, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter(range(10_000))
    monkeypatch.setattr(service.governor, "admit", lambda: next(turns) % 3 == 0)
    session = _session(FakeLive(60), intact_bundle, crossing, service)
    session.run("simulated:test")
    assert session.view().analysed == 20
    assert session.report()["dropped"]["thinned"] == 40


@pytest.mark.parametrize(
    ("state", "idle"),
    [
        (LiveState.LIVE, None),
        (LiveState.FROZEN_BY_MACHINE, None),
        (LiveState.OPENING, Idle.NO_SOURCE),
        (LiveState.LOST, Idle.NO_SOURCE),
        (LiveState.NO_SIGNAL, Idle.NO_SIGNAL),
        (LiveState.ENDED, Idle.STOPPING),
    ],
)
def test_the_watchdog_is_told_what_the_source_waits_for(
    intact_bundle: Bundle, crossing: Network, service: Service, state: LiveState, idle: Idle | None
) -> None:
    assert _session(FakeLive(0, state=state), intact_bundle, crossing, service).why_idle() is idle


def test_quantiles_are_those_of_the_numbers() -> None:
    latencies = Latencies()
    assert latencies.to_json() == {"p50": None, "p90": None, "p95": None, "p99": None, "max": None}
    values = np.random.default_rng(0).gamma(4, 0.01, 5000)
    for value in values:
        latencies.add(float(value))
    for share in (0.5, 0.9, 0.99):
        assert latencies.quantile_ms(share) == pytest.approx(1e3 * np.quantile(values, share), abs=0.3)
    assert latencies.to_json()["max"] == pytest.approx(1e3 * values.max())
    latencies.add(1e9)
    assert latencies.quantile_ms(0.5) < 100


def test_a_view_is_a_copy(intact_bundle: Bundle, crossing: Network, service: Service) -> None:
    session = _session(FakeLive(60), intact_bundle, crossing, service)
    before = session.view()
    session.run("simulated:test")
    assert before.best == {}
    assert replace(before, analysed=1).analysed == 1
