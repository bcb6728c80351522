"""Which graph ships: what is bad is mended or refused, and what was tried is told."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgefetal_calibration.budget_file import read_budget
from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.datasets.split import Part
from edgefetal_calibration.ranges import draw_range_frames
from edgefetal_devices.errors import InputError
from edgefetal_devices.profile import is_this_machine, read_profile
from edgefetal_export import ship
from edgefetal_export.build import golden_frames
from edgefetal_export.draft import judge_for
from edgefetal_export.quantise.blocks import blocks_of
from edgefetal_export.quantise.histogram import Method
from edgefetal_export.quantise.qdq import prepared
from edgefetal_export.quantise.ranges import read_or_collect
from edgefetal_export.quantise.sensitivity import mend
from edgefetal_export.ship import Floats, Judge, Precision, Shipped, Speed, choose, parse_precision, story

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefetal_export.draft import Draft

PROFILE = read_profile("cpu-x86")
TRIALS = 6
FAST, SLOW = (Speed(20.0, 20.0 / r, r, (r - 0.05, r + 0.05), 40) for r in (1.6, 0.9))


class Silent:
    """Wants to know nothing."""

    def step(self, title: str, total: int | None) -> Callable[[], None]:  # noqa: ARG002 - the protocol's arguments
        return lambda: None


@pytest.fixture(scope="module")
def judge(simulated_draft: Draft, simulated_hc18: Path, lenient_budget: Path) -> Judge:
    validation = simulated_draft.split.select(read_hc18(simulated_hc18), Part.VALIDATION)
    return judge_for(
        simulated_draft.manifest, simulated_draft.reference, validation, read_budget(lenient_budget), Silent()
    )


@pytest.fixture(scope="module")
def floats(simulated_draft: Draft, simulated_hc18: Path) -> Floats:
    frames = draw_range_frames(read_hc18(simulated_hc18), simulated_draft.split, 8, least=1)
    graph = prepared(simulated_draft.reference)
    spec = simulated_draft.manifest.preprocess
    return Floats(graph, read_or_collect(None, graph, PROFILE.int8, spec, frames.frames))


def chosen(
    draft: Draft, floats: Floats, judge: Judge, precision: Precision = Precision.AUTO, speed: Speed | None = FAST
) -> Shipped:
    """Choose with a speed that is given, because a busy machine has none that can be relied on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ship, "_speed", lambda *_: speed)
        # The whole search has tests of its own.
        patch.setattr(ship, "mend", partial(mend, max_trials=TRIALS))
        return choose(
            draft.reference,
            lambda: floats,
            PROFILE,
            judge,
            precision=precision,
            tune=None,
            frame=golden_frames()[-1],
        )


def stretched(floats: Floats, factor: float, only: str = "") -> Floats:
    """Multiply the ranges of all tensors, or of those whose name holds a word."""
    ranges = {
        method: {
            name: (factor * low, factor * high) if only in name else (low, high) for name, (low, high) in table.items()
        }
        for method, table in floats.table.ranges.items()
    }
    return Floats(floats.model, floats.table.model_copy(update={"ranges": ranges}))


def precisions(graph: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_from_string(graph).graph.node} & {"QuantizeLinear"}


def test_int8_within_its_budget_and_faster_ships(simulated_draft: Draft, floats: Floats, judge: Judge) -> None:
    shipped = chosen(simulated_draft, floats, judge)
    assert shipped.judgement.passed
    assert shipped.precision == "int8"
    assert precisions(shipped.model) == {"QuantizeLinear"}
    assert [s.step for s in shipped.steps[:4]] == [f"ranges by {method.value}" for method in Method]
    told = story(shipped)
    assert told["precision"] == "INT8"
    # Layers go by the names that they have in the float graph, which are those of the network's modules.
    blocks = {block.name for block in blocks_of(onnx.load_from_string(floats.model).graph)}
    assert blocks == {layer for group in shipped.layers for layer in group.layers} - {"Relu", "Resize", "Split"}
    assert told["latency"]["ratio"] == 1.6
    best = min((s for s in shipped.steps[:4] if s.excess is not None), key=lambda s: s.excess or 0.0)
    assert told["method"] in best.step
    assert judge.judged(shipped.model)[0].excess == pytest.approx(shipped.judgement.excess)


def test_int8_that_is_not_faster_does_not_ship(simulated_draft: Draft, floats: Floats, judge: Judge) -> None:
    shipped = chosen(simulated_draft, floats, judge, speed=SLOW)
    assert shipped.precision == "float32"
    assert shipped.model == simulated_draft.reference
    assert "not faster" in shipped.steps[-1].outcome
    assert shipped.speed == SLOW
    asked = chosen(simulated_draft, floats, judge, Precision.INT8, SLOW)
    assert asked.precision == "int8"


def test_a_target_that_is_not_here_is_not_timed(simulated_draft: Draft, floats: Floats, judge: Judge) -> None:
    shipped = chosen(simulated_draft, floats, judge, speed=None)
    assert shipped.precision == "int8"
    assert "not measured" in shipped.steps[-1].outcome


@pytest.mark.parametrize("factor", [4.0, 300.0])
def test_ranges_that_were_multiplied_are_mended_or_refused(
    simulated_draft: Draft, floats: Floats, judge: Judge, factor: float
) -> None:
    shipped = chosen(simulated_draft, stretched(floats, factor), judge)
    assert shipped.judgement.passed
    assert judge.judged(shipped.model)[0].passed
    if factor > 100:
        # Next to nothing is left of eight bits, whatever blocks are spared.
        assert all(s.excess is None or s.excess > 0 for s in shipped.steps[:4])
        assert shipped.precision == "float32"
        assert shipped.steps[-1].outcome == "cannot be mended"
        forced = chosen(simulated_draft, stretched(floats, factor), judge, Precision.INT8)
        assert forced.precision == "int8"
        assert not forced.judgement.passed


def test_a_float_graph_that_is_no_good_is_not_quantised(simulated_draft: Draft, floats: Floats, judge: Judge) -> None:
    blind = replace(judge, reference=[replace(result, measured_mm=None) for result in judge.reference])
    shipped = chosen(simulated_draft, floats, blind)
    assert shipped.precision == "float32"
    assert not shipped.judgement.passed
    assert shipped.steps[0].outcome == "it breaks the budget itself"
    assert len(shipped.steps) == 1


def test_float_ships_where_it_is_asked_for(simulated_draft: Draft, floats: Floats, judge: Judge) -> None:
    shipped = chosen(simulated_draft, floats, judge, Precision.FP32)
    assert (shipped.model, shipped.steps, shipped.method) == (simulated_draft.reference, (), None)
    assert shipped.judgement.passed


def test_tuning_is_tried_before_int8_is_given_up(simulated_draft: Draft, floats: Floats, judge: Judge) -> None:
    """A tuned network whose ranges are right is taken where the first one's are beyond mending."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ship, "_speed", lambda *_: FAST)
        patch.setattr(ship, "mend", partial(mend, max_trials=TRIALS))
        # Blocks in float mend everything if there may be enough of them.
        patch.setattr(ship, "MOST_IN_FLOAT", 0.0)
        shipped = choose(
            simulated_draft.reference,
            lambda: stretched(floats, 300.0),
            PROFILE,
            judge,
            precision=Precision.AUTO,
            tune=lambda: floats,
            frame=golden_frames()[-1],
        )
    assert shipped.precision == "int8"
    assert shipped.judgement.passed
    steps = [s.step for s in shipped.steps]
    assert any("blocks back into float" in step for step in steps)
    assert any(step.startswith("after tuning") for step in steps)
    assert steps.index("ranges by min-max") < next(k for k, step in enumerate(steps) if step.startswith("after tuning"))


def test_a_graph_that_strays_breaks_its_budget(simulated_draft: Draft, judge: Judge) -> None:
    """Four taken off every logit of the mask makes every head smaller."""
    model = onnx.load_from_string(simulated_draft.reference)
    for node in model.graph.node:
        node.output[:] = ["mask_before" if name == "mask" else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array(4.0, np.float32), "taken_off"))
    model.graph.node.append(helper.make_node("Sub", ["mask_before", "taken_off"], ["mask"]))
    judgement, _ = judge.judged(model.SerializeToString())
    assert not judgement.passed
    assert judgement.excess > 0


@pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed; pip install 'edgefetal[openvino]'"
)
def test_openvino_is_judged_and_timed_on_openvino(
    simulated_draft: Draft, simulated_hc18: Path, lenient_budget: Path
) -> None:
    profile = read_profile("cpu-x86-openvino")
    exams = read_hc18(simulated_hc18)
    validation = simulated_draft.split.select(exams, Part.VALIDATION)
    manifest = simulated_draft.manifest.model_copy(update={"device": profile.name})
    judge = judge_for(manifest, simulated_draft.reference, validation, read_budget(lenient_budget), Silent())
    assert judge.back_end == "openvino"
    frames = draw_range_frames(exams, simulated_draft.split, 8, least=1).frames
    graph = prepared(simulated_draft.reference)
    table = read_or_collect(None, graph, profile.int8, manifest.preprocess, frames)
    shipped = choose(
        simulated_draft.reference,
        lambda: Floats(graph, table),
        profile,
        judge,
        precision=Precision.INT8,
        tune=None,
        frame=golden_frames()[-1],
    )
    assert shipped.judgement.passed
    (quantised_by,) = (group.reason for group in shipped.layers if group.precision == "int8")
    assert quantised_by == profile.int8.reason
    if is_this_machine(profile):
        assert shipped.speed is not None
        assert shipped.speed.n == 40
        print(f"openvino: INT8 {story(shipped)['latency']}")  # noqa: T201 - the CI shows it
    # Where torch is installed OpenVINO is never in this process.
    assert "openvino" not in sys.modules


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="auto, int8, fp16, fp32"):
        parse_precision("int4")
