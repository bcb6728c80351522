"""Which graph ships: INT8 that stays within the accuracy budget and is faster, mended if need be, or float.

The order: every way of taking ranges, the best by the budget; then the fewest blocks back in float; then tuning with
the quantisation in the loop; then float. What was tried stands in the evidence, step by step.

On a GPU what is not quantised computes in FP16, and float means FP16 first and FP32 where that breaks the budget. Which
of INT8 and FP16 is faster there only the device can tell, so both are kept, and `edgefetal finish` measures them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import onnx

from edgefetal_calibration.budget import Judgement, judge_frames
from edgefetal_calibration.frames import evaluate_frames
from edgefetal_devices.errors import InputError
from edgefetal_devices.profile import is_this_machine
from edgefetal_export.quantise.blocks import FLOAT16, FLOAT32, INT8, SUM_REASON, blocks_of, layer_groups
from edgefetal_export.quantise.half import FLOAT_OPERATORS, in_half
from edgefetal_export.quantise.histogram import Method
from edgefetal_export.quantise.qdq import prepared, quantised
from edgefetal_export.quantise.sensitivity import Trial, mend
from edgefetal_runtime.infer.backends import AS_WRITTEN, open_backend
from edgefetal_runtime.infer.bundle import LayerGroup
from edgefetal_runtime.infer.latency import speed_ratio, time_networks
from edgefetal_runtime.infer.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from edgefetal_calibration.budget import AccuracyBudget
    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_calibration.frames import FrameResult
    from edgefetal_devices.profile import Profile
    from edgefetal_export.quantise.blocks import Block
    from edgefetal_export.quantise.ranges import RangeTable
    from edgefetal_runtime.infer.bundle import Heads, Manifest

SHIPPED: Final = "shipped"
_TITLES: Final = {INT8: "INT8", FLOAT16: "FP16", FLOAT32: "float"}
# With more blocks than this share in float, INT8 is not mended but given up.
MOST_IN_FLOAT: Final = 0.5
# Frames of one exam are alike, so a few show how far a length is off; a call is yes or no, and takes more to show that
# it changed.
_FRAMES_TO_MEASURE, _FRAMES_TO_CALL = 4, 16
_ROUNDS, _WARM_UP = 40, 10


class Precision(str, Enum):
    """What the user wants to ship: the best, or one and nothing else."""

    AUTO = "auto"
    INT8 = "int8"
    FP16 = "fp16"
    FP32 = "fp32"


@dataclass(frozen=True)
class Step:
    """Something that was tried.

    Args:
        step: what.
        outcome: what came of it, in words.
        excess: how far the graph is over its budget, in units of the budget; None where that is not what was tried.
    """

    step: str
    outcome: str
    excess: float | None


@dataclass(frozen=True)
class Speed:
    """The shipped graph's time for a frame beside the float one's, on the target's back end.

    Args:
        before_ms: of the float graph, median.
        after_ms: of the INT8 graph, median.
        ratio: how many times as fast INT8 is, the median over pairs of neighbouring runs.
        interval: its 95 % interval.
        n: pairs.
    """

    before_ms: float
    after_ms: float
    ratio: float
    interval: tuple[float, float]
    n: int


@dataclass(frozen=True, eq=False)
class Shipped:
    """The graph that ships, and why.

    Args:
        model: the graph.
        precision: `int8`, `float16` or `float32`.
        layers: what each block of it computes in.
        method: how its ranges were taken, or None in float.
        judgement: what became of its budget.
        results: its results on the validation frames.
        steps: what was tried, in order.
        sensitivity: for each block, how far the graph is over its budget when that block alone is in float; empty where
            no search was needed.
        speed: None where this machine is not the target, or nothing was quantised.
        half: the same network in FP16, within the budget too, where only the device can tell whether INT8 is faster.
    """

    model: bytes
    precision: str
    layers: tuple[LayerGroup, ...]
    method: Method | None
    judgement: Judgement
    results: Sequence[FrameResult]
    steps: tuple[Step, ...] = ()
    sensitivity: tuple[Trial, ...] = ()
    speed: Speed | None = None
    half: bytes | None = None


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges graphs on the validation frames, each beside the float one, on the very back end that runs them.

    Args:
        manifest: says what the outputs mean, with the thresholds that the bundle will have.
        back_end: the target's.
        exams: the validation part.
        budget: what is allowed.
        reference: the float graph's results on the same frames.
    """

    manifest: Manifest
    back_end: str
    exams: Sequence[LabelledExam]
    budget: AccuracyBudget
    reference: Sequence[FrameResult]

    def judged(self, model: bytes) -> tuple[Judgement, Sequence[FrameResult]]:
        """Judge a graph; return what became of the budget, and the graph's results."""
        results = self.results(model)
        return self.of_results(results), results

    def of_results(self, results: Sequence[FrameResult]) -> Judgement:
        """Judge results."""
        return judge_frames(results, self.reference, self.budget, self.manifest.heads.mask)

    def results(self, model: bytes) -> Sequence[FrameResult]:
        """Run a graph on the validation frames."""
        network = Network(self.manifest, open_backend(self.back_end, model))
        return evaluate_frames({SHIPPED: network}, self.exams, frames_per_exam(self.manifest.heads))[SHIPPED]


@dataclass(frozen=True)
class Floats:
    """A float graph that can be quantised.

    Args:
        model: the graph as `qdq.prepared` returns it.
        table: ranges of its activations.
    """

    model: bytes
    table: RangeTable


def judging_back_end(profile: Profile) -> str:
    """Return the back end that judges a target's graphs here: its own, or what computes a GPU's graphs as written."""
    return profile.back_end if profile.gpu is None else AS_WRITTEN


def frames_per_exam(heads: Heads) -> int:
    """Return how many frames of each exam a network is judged on."""
    return _FRAMES_TO_MEASURE if heads.mask else _FRAMES_TO_CALL


def choose(
    reference: bytes,
    floats: Callable[[], Floats],
    profile: Profile,
    judge: Judge,
    *,
    precision: Precision,
    tune: Callable[[], Floats] | None,
    frame: npt.NDArray[np.uint8],
    on_trial: Callable[[], None] = lambda: None,
) -> Shipped:
    """Choose the graph that ships.

    Args:
        reference: the float graph, which ships where INT8 does not hold.
        floats: makes what is quantised.
        profile: the target.
        judge: the accuracy budget on validation frames.
        precision: what the user wants; INT8 that does not hold is returned as it is, with its broken budget.
        tune: trains the network with quantisation in the loop; None where there is no network to train.
        frame: a picture to time the graphs on, shape (H, W).
        on_trial: called after every graph that was judged.

    Returns:
        The graph; where its judgement did not pass, nothing may be activated.
    """
    as_float = _in_float(reference, judge)
    if precision is Precision.FP32:
        return as_float
    if not as_float.judgement.passed:
        # Nothing that is done to INT8 mends a float network that is not good enough.
        return _with(
            as_float, Step("judge the float graph", "it breaks the budget itself", _finite(as_float.judgement.excess))
        )
    if profile.gpu is None:
        return _int8_or(
            as_float, floats, profile, judge, precision=precision, tune=tune, frame=frame, on_trial=on_trial
        )
    half = _in_half(reference, judge)
    if precision is Precision.FP16:
        return half
    best = half if half.judgement.passed else _with(as_float, *half.steps)
    return _int8_or(best, floats, profile, judge, precision=precision, tune=tune, frame=frame, on_trial=on_trial)


def _int8_or(
    otherwise: Shipped,
    floats: Callable[[], Floats],
    profile: Profile,
    judge: Judge,
    *,
    precision: Precision,
    tune: Callable[[], Floats] | None,
    frame: npt.NDArray[np.uint8],
    on_trial: Callable[[], None],
) -> Shipped:
    """Return INT8 where it holds and is faster or is all that is wanted, or else what is in float, with its story."""
    found = _search(floats(), profile, judge, on_trial, "")
    if not found.judgement.passed and tune is not None:
        tuned = _search(tune(), profile, judge, on_trial, "after tuning with quantisation in the loop: ")
        better = tuned if tuned.judgement.excess < found.judgement.excess else found
        found = replace(better, steps=(*found.steps, *tuned.steps))
    found = replace(found, steps=(*otherwise.steps, *found.steps))
    if not found.judgement.passed:
        step = Step("INT8", "cannot be mended", _finite(found.judgement.excess))
        return _with(found if precision is Precision.INT8 else _as_tried(otherwise, found), step)
    if profile.gpu is not None:
        kept = otherwise.model if otherwise.precision == FLOAT16 and precision is Precision.AUTO else None
        beside = "" if kept is None else " beside FP16, and takes the faster"
        step = Step("speed of INT8", f"not measured here: `edgefetal finish` measures it on the device{beside}", None)
        return _with(replace(found, half=kept), step)
    speed = _speed(otherwise.model, found.model, profile, judge.manifest, frame)
    if speed is None:
        outcome = f"not measured, because this machine is no {profile.title}"
        return _with(found, Step("speed of INT8", outcome, None))
    timed = _with(replace(found, speed=speed), Step("speed of INT8", _said(speed), None))
    # Only where even the lower end of the interval is above 1 is it known to be faster.
    if speed.interval[0] > 1 or precision is Precision.INT8:
        return timed
    return _with(_as_tried(otherwise, timed), Step("float", "ships, because INT8 is not faster here", None))


def _in_float(reference: bytes, judge: Judge) -> Shipped:
    results = judge.reference
    names = tuple(block.name for block in blocks_of(onnx.load_from_string(reference).graph))
    group = LayerGroup(layers=names, precision=FLOAT32, reason="the whole graph ships in float")
    return Shipped(reference, FLOAT32, (group,), None, judge.of_results(results), results)


def _in_half(reference: bytes, judge: Judge) -> Shipped:
    """Write FP16 into the float graph, and judge that."""
    model = in_half(prepared(reference))
    judgement, results = judge.judged(model)
    graph = onnx.load_from_string(reference).graph
    names = tuple(block.name for block in blocks_of(graph))
    summing = tuple(sorted({node.op_type for node in graph.node} & FLOAT_OPERATORS))
    groups = [LayerGroup(layers=names, precision=FLOAT16, reason="the whole graph ships in FP16")]
    if summing:
        groups.append(LayerGroup(layers=summing, precision=FLOAT32, reason=SUM_REASON))
    outcome = "within the budget" if judgement.passed else judgement.reasons[0].rstrip(".")
    steps = (Step("FP16", outcome, _finite(judgement.excess)),)
    return Shipped(model, FLOAT16, tuple(groups), None, judgement, results, steps)


def _as_tried(shipped: Shipped, tried: Shipped) -> Shipped:
    """Return a graph with the story of another one that was tried before it."""
    return replace(shipped, steps=tried.steps, sensitivity=tried.sensitivity, speed=tried.speed)


def _with(shipped: Shipped, *steps: Step) -> Shipped:
    return replace(shipped, steps=(*shipped.steps, *steps))


def _search(floats: Floats, profile: Profile, judge: Judge, on_trial: Callable[[], None], when: str) -> Shipped:
    """Try every way of taking ranges, and where none passes put the fewest blocks back into float."""
    recipe, steps = profile.int8, []
    blocks = blocks_of(onnx.load_from_string(floats.model).graph)
    tried: dict[Method, Shipped] = {}
    for method in Method:
        tried[method] = _quantised(
            quantised(floats.model, recipe, floats.table.ranges[method]), profile, blocks, method, judge
        )
        on_trial()
        judgement = tried[method].judgement
        outcome = "within the budget" if judgement.passed else judgement.reasons[0].rstrip(".")
        steps.append(Step(f"{when}ranges by {method.value}", outcome, _finite(judgement.excess)))
    best = min(tried, key=lambda method: tried[method].judgement.excess)
    if tried[best].judgement.passed:
        return replace(tried[best], steps=tuple(steps))
    ranges = floats.table.ranges[best]

    def remade(float_blocks: Collection[str]) -> bytes:
        return quantised(floats.model, recipe, ranges, float_blocks)

    free = [block.name for block in blocks if not (block.last and recipe.float_outputs)]
    mended = mend(free, remade, lambda model: judge.judged(_lowered(model, profile))[0].excess, on_trial=on_trial)
    few = len(mended.float_blocks) <= MOST_IN_FLOAT * len(free)
    names = ", ".join(mended.float_blocks) or "none"
    outcome = "within the budget" if mended.passed else "still beyond the budget"
    if mended.passed and not few:
        outcome = f"within the budget, but {len(mended.float_blocks)} of {len(free)} blocks would be in float: given up"
    steps.append(Step(f"{when}blocks back into float: {names}", outcome, _finite(mended.excess)))
    alone = tuple(trial for trial in mended.trials if len(trial.float_blocks) == 1)
    kept = _quantised(mended.model, profile, blocks, best, judge) if few else tried[best]
    return replace(kept, steps=tuple(steps), sensitivity=alone)


def _quantised(model: bytes, profile: Profile, blocks: Sequence[Block], method: Method, judge: Judge) -> Shipped:
    """Judge a quantised graph, of whose float one the blocks are, as it ships."""
    lowered = _lowered(model, profile)
    judgement, results = judge.judged(lowered)
    groups = layer_groups(model, profile.int8, blocks, half=profile.gpu is not None)
    return Shipped(lowered, INT8, groups, method, judgement, results)


def _lowered(model: bytes, profile: Profile) -> bytes:
    """Let what is not quantised compute in what the target's float layers compute in."""
    return model if profile.gpu is None else in_half(model)


def _finite(excess: float) -> float | None:
    return excess if math.isfinite(excess) else None


def _speed(
    reference: bytes, model: bytes, profile: Profile, manifest: Manifest, frame: npt.NDArray[np.uint8]
) -> Speed | None:
    """Time both graphs in turns where this machine is the target."""
    if not is_this_machine(profile):
        return None
    graphs = {"reference": reference, SHIPPED: model}
    networks = {name: Network(manifest, open_backend(profile.back_end, graph)) for name, graph in graphs.items()}
    latencies, seconds = time_networks(networks, frame, rounds=_ROUNDS, warm_up=_WARM_UP)
    ratio = speed_ratio(seconds["reference"], seconds[SHIPPED])
    return Speed(
        before_ms=latencies["reference"].infer_p50_ms,
        after_ms=latencies[SHIPPED].infer_p50_ms,
        ratio=ratio.median,
        interval=(ratio.low, ratio.high),
        n=_ROUNDS,
    )


def _said(speed: Speed) -> str:
    low, high = speed.interval
    return f"{speed.ratio:.2f} times as fast as float (95 % interval {low:.2f} to {high:.2f}, {speed.n} pairs)"


def parse_precision(text: str) -> Precision:
    """Read what the user wants to ship.

    Raises:
        InputError: there is no such precision.
    """
    try:
        return Precision(text)
    except ValueError as error:
        message = f"There is no precision {text!r}; choose one of {', '.join(p.value for p in Precision)}."
        raise InputError(message) from error


def story(shipped: Shipped) -> Mapping[str, Any]:
    """Return what the evidence says of how the graph was chosen, as JSON values."""
    speed = shipped.speed
    return {
        "precision": _TITLES[shipped.precision],
        "method": None if shipped.method is None else shipped.method.value,
        "mending": [{"step": s.step, "outcome": s.outcome, "excess": s.excess} for s in shipped.steps],
        "sensitivity": [
            {"block": trial.float_blocks[0], "excess": _finite(trial.excess)} for trial in shipped.sensitivity
        ],
        "latency": None
        if speed is None
        else {
            "before_ms": speed.before_ms,
            "after_ms": speed.after_ms,
            "ratio": speed.ratio,
            "interval": list(speed.interval),
            "n": speed.n,
        },
    }
