"""What a device is judged on: golden frames beside the processor, simulated exams, and time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up_board import HEADS, Bars, bundle_files

from edgefetal_calibration.budget_file import read_budget
from edgefetal_devices.errors import BundleError, CheckFailedError
from edgefetal_export.engine import prove as prove_module
from edgefetal_export.engine.prove import EXAMS, Candidate, budget_of, drawn_exams, fastest, prove
from edgefetal_runtime.infer.backends import AS_WRITTEN, open_backend
from edgefetal_runtime.infer.bundle import EVIDENCE, HALF, MODEL, Heads, load_bundle
from edgefetal_runtime.infer.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefetal_runtime.infer.bundle import Bundle
    from tests.made_up_board import Maker


class Recorder(Bars):
    """Somebody who keeps how far the work came."""

    def __init__(self) -> None:
        self.steps: dict[str, list[int | None]] = {}

    def step(self, title: str, total: int | None) -> Callable[[], None]:
        self.steps[title] = [0, total]

        def advance() -> None:
            done = self.steps[title][0]
            assert done is not None
            self.steps[title][0] = done + 1

        return advance


@pytest.fixture
def bundle(nano_bundle: Path) -> Bundle:
    return load_bundle(nano_bundle, Trust())


def _candidate(graph: str) -> Candidate:
    return Candidate(graph, open_backend(AS_WRITTEN, bundle_files()[graph], 1))


def test_each_candidate_is_found_as_it_is(bundle: Bundle) -> None:
    recorder = Recorder()
    shipped, half = prove(bundle, [_candidate(MODEL), _candidate(HALF)], HEADS, recorder)
    assert shipped[0].what == half[0].what == "3 golden frames beside the processor"
    assert recorder.steps == {
        "compare with the processor": [2, 2], "judge on simulated exams": [len(HEADS), len(HEADS)],
    }  # fmt: skip
    lines = {check.what: check.outcome for check in shipped[1:]}
    assert lines["simulated: HC no longer measured, all"] == f"0 percentage points, bound 0 of 2, {len(HEADS)} frames"
    # What the float graph is worth was judged where the bundle was built.
    assert not any("float" in what for what in lines)
    assert [check.what for check in shipped] == [check.what for check in half]


def test_the_candidate_over_its_budget_is_named(bundle: Bundle) -> None:
    class Blind:
        name = "tensorrt"

        def __init__(self) -> None:
            self._runs, self._backend = 0, _candidate(HALF).backend

        def run(self, image: Any) -> dict[str, Any]:
            self._runs += 1
            answers = dict(self._backend.run(image))
            if self._runs > 3:
                answers["mask"] = np.full_like(answers["mask"], -1.0)
            return answers

    with pytest.raises(CheckFailedError, match=r"half\.onnx breaks .*HC no longer measured.* Nothing was activated"):
        prove(bundle, [_candidate(MODEL), Candidate(HALF, Blind())], HEADS, Bars())


def test_every_structure_has_to_be_judged(bundle_maker: Maker, tmp_path: Path) -> None:
    """One that is outlined and of which no exam says anything is not passed over."""
    folder = bundle_maker.make(tmp_path / "bundle", heads=Heads(mask=("head",), plane=("none", "head")))
    bundle = load_bundle(folder, Trust())
    with pytest.raises(CheckFailedError, match=r"Too few simulated exams .* \(HC in 0 frames\)"):
        prove(bundle, [_candidate(MODEL)], HEADS, Bars())


def test_the_budget_is_that_of_the_evidence(bundle: Bundle) -> None:
    assert budget_of(bundle) == read_budget()


@pytest.mark.parametrize("judgement", [None, 3, [], {}, {"budget": None}, {"budget": {"hc": 1}}])
def test_evidence_without_a_budget_is_refused(bundle_maker: Maker, tmp_path: Path, judgement: object) -> None:
    evidence = json.loads(bundle_files()[EVIDENCE]) | {"judgement": judgement}
    folder = bundle_maker.make(tmp_path / "bundle", files={EVIDENCE: json.dumps(evidence).encode()})
    with pytest.raises(BundleError, match="does not say which budget it was judged by; build it anew"):
        budget_of(load_bundle(folder, Trust()))


@pytest.mark.parametrize(("ratio", "spread", "best"), [(1.5, 0.1, 1), (1.001, 0.5, 0), (1.0, 0.0, 0), (0.7, 0.1, 0)])
def test_another_is_taken_only_where_it_is_known_to_be_faster(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, ratio: float, spread: float, best: int
) -> None:
    rng = np.random.default_rng(0)

    def timed(networks: dict[str, object], _: object, *, rounds: int, **__: object) -> tuple[None, dict[str, Any]]:
        seconds = [ratio * (1 + spread * rng.random(rounds)), 1 + spread * rng.random(rounds)]
        return None, dict(zip(networks, seconds, strict=True))

    monkeypatch.setattr(prove_module, "time_networks", timed)
    place, timings = fastest(bundle, [_candidate(MODEL), _candidate(HALF)], Bars())
    assert place == best
    assert [timing.graph for timing in timings] == [MODEL, HALF]
    for timing in timings:
        assert 1e3 * min(1, ratio) <= timing.p50_ms <= timing.p95_ms <= timing.p99_ms
        assert timing.n == 200


def test_time_is_really_measured(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prove_module, "_ROUNDS", 10)
    monkeypatch.setattr(prove_module, "_WARM_UP", 2)
    recorder = Recorder()
    _, (timing,) = fastest(bundle, [_candidate(MODEL)], recorder)
    assert (timing.n, timing.back_end, timing.build_s) == (10, AS_WRITTEN, None)
    assert 0 < timing.p50_ms < 1000
    assert recorder.steps == {"time": [12, 12]}


def test_the_usual_exams_are_the_same_each_time_and_cover_the_ages() -> None:
    exams = drawn_exams(("head", "femur"))
    assert exams == drawn_exams(("head", "femur"))
    assert len(exams) == 2 * EXAMS
    assert len({exam.name for exam in exams}) == len({exam.digest() for exam in exams}) == len(exams)
    # So that few of them may fail to be measured and the budget's lines are judged still.
    assert read_budget().hc.min_cases + 4 <= EXAMS
    assert {(exam.plan.protocol.value, min(w), max(w)) for exam in exams for w in [[e.plan.weeks for e in exams]]} == {
        ("head", 16.0, 38.0), ("femur", 16.0, 38.0),
    }  # fmt: skip
