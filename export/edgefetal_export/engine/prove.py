"""Proving a graph on this device: that it answers as it should, stays within its budget, and how fast it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import ValidationError

from edgefetal_calibration.budget import BROKEN, NOT_JUDGED, AccuracyBudget, judge_frames
from edgefetal_calibration.datasets.drawn import DrawnExam
from edgefetal_calibration.frames import evaluate_frames
from edgefetal_calibration.phantom.exam import ExamPlan
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_devices.errors import BundleError, CheckFailedError
from edgefetal_runtime.biometry.principal import PRINCIPAL
from edgefetal_runtime.infer.backends import AS_WRITTEN, open_backend
from edgefetal_runtime.infer.bundle import ABDOMEN, EVIDENCE, FEMUR, HEAD
from edgefetal_runtime.infer.finished import Check, Timing
from edgefetal_runtime.infer.golden import check_answers, golden_pixels, make_golden
from edgefetal_runtime.infer.latency import speed_ratio, time_networks
from edgefetal_runtime.infer.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_calibration.frames import FrameResult
    from edgefetal_export.progress import Progress
    from edgefetal_runtime.infer.backends import Backend
    from edgefetal_runtime.infer.bundle import Bundle

# One plane in each. The budget's lines want 10 cases, and of a few exams neither graph measures the plane.
EXAMS: Final = 16
_FRAMES: Final = 3
_SEED: Final = 4711
_WEEKS: Final = (16.0, 38.0)
_PROTOCOLS: Final = {HEAD: Protocol.HEAD, ABDOMEN: Protocol.ABDOMEN, FEMUR: Protocol.FEMUR}
_ROUNDS: Final = 200
_WARM_UP: Final = 20
_WRITTEN: Final = ", as written"
_ELSE: Final = "build the bundle for this device again, with --precision fp16 if it was int8"


@dataclass(frozen=True, eq=False)
class Candidate:
    """A graph that could run here, loaded.

    Args:
        graph: file of the bundle.
        backend: what runs it.
        build_s: what building its engine took, or None without one.
    """

    graph: str
    backend: Backend
    build_s: float | None = None


def drawn_exams(structures: Sequence[str], count: int = EXAMS) -> list[DrawnExam]:
    """Plan simulated exams of structures over the ages; they are the same whenever it is asked for."""
    weeks = np.linspace(*_WEEKS, count).tolist()
    return [
        DrawnExam(ExamPlan(_PROTOCOLS[structure], age, _SEED, number, skill=1.0, frame_count=_FRAMES))
        for structure in structures
        for number, age in enumerate(weeks)
    ]


def prove(
    bundle: Bundle, candidates: Sequence[Candidate], exams: Sequence[LabelledExam], progress: Progress
) -> list[tuple[Check, ...]]:
    """Compare candidates with the processor's answers, on golden frames and on simulated exams.

    The processor computes the very same graph as it is written, so that what is judged is what this device makes of it.
    How far the graph itself strays from the float one was judged on patients' pictures where the bundle was built;
    simulated frames beside a plane, which are neither one nor the other, would say little of that.

    Args:
        bundle: verified.
        candidates: of it.
        exams: simulated, of the structures that it outlines.
        progress: who wants to know how far it is.

    Returns:
        What was found of each.

    Raises:
        CheckFailedError: one answers otherwise, or breaks the budget; or too little can be measured to tell.
        BundleError: the bundle does not say what its budget is.
    """
    advance = progress.step("compare with the processor", len(candidates))
    agreements = [_agreement(bundle, candidate, advance) for candidate in candidates]
    # All on the same frames, because drawing these takes longer than running them.
    networks = {
        name: Network(bundle.manifest, backend)
        for candidate in candidates
        for name, backend in (
            (candidate.graph, candidate.backend),
            (candidate.graph + _WRITTEN, open_backend(AS_WRITTEN, bundle.read(candidate.graph))),
        )
    }
    advance = progress.step("judge on simulated exams", len(exams))
    results = evaluate_frames(networks, exams, _FRAMES, on_exam=advance)
    return [
        (agreement, *_judged(bundle, candidate.graph, results[candidate.graph], results[candidate.graph + _WRITTEN]))
        for candidate, agreement in zip(candidates, agreements, strict=True)
    ]


def _agreement(bundle: Bundle, candidate: Candidate, advance: Callable[[], None]) -> Check:
    """Run the golden frames beside the processor.

    Raises:
        CheckFailedError: the answers differ.
    """
    written = open_backend(AS_WRITTEN, bundle.read(candidate.graph))
    golden = make_golden(golden_pixels(bundle), bundle.manifest.preprocess, written)
    report = check_answers(golden, bundle.manifest, Network(bundle.manifest, candidate.backend), _ELSE)
    advance()
    return Check(
        what=f"{report.frames} golden frames beside the processor",
        outcome=f"{report.mask_disagreement:.4%} of the mask differs, a plane logit by {report.plane_difference:.3f}",
    )


def _judged(
    bundle: Bundle, graph: str, shipped: Sequence[FrameResult], reference: Sequence[FrameResult]
) -> tuple[Check, ...]:
    """Judge the budget's paired lines on simulated exams.

    Raises:
        CheckFailedError: one is broken, or the length of a structure could not be judged.
    """
    judgement = judge_frames(shipped, reference, budget_of(bundle), bundle.manifest.heads.mask)
    lines = [line for line in judgement.lines if not line.of_float]
    broken = [line.reason for line in lines if line.verdict == BROKEN]
    if broken:
        message = (
            f"On this device {graph} breaks the accuracy budget on simulated exams: {' '.join(broken)} Nothing was "
            f"activated; {_ELSE}."
        )
        raise CheckFailedError(message)
    if judgement.lacking:
        lengths = {PRINCIPAL[structure].name for structure in bundle.manifest.heads.mask}
        few = ", ".join(
            f"{line.key.upper()} in {line.n} frames"
            for line in lines
            if line.key.upper() in lengths and line.group == "all" and line.verdict == NOT_JUDGED
        )
        message = (
            f"Too few simulated exams are measured by {graph} on this device and on its processor to be compared "
            f"({few}); nothing was activated. Look at the bundle's evidence, and build a better one."
        )
        raise CheckFailedError(message)
    return tuple(
        Check(
            what=f"simulated: {line.name}, {line.group}",
            outcome=f"{line.estimate:.4g} {line.unit}, bound {line.upper:.4g} of {line.limit:.4g}, {line.n} frames",
        )
        for line in lines
        if line.estimate is not None
    )


def budget_of(bundle: Bundle) -> AccuracyBudget:
    """Return the budget that a bundle was judged by.

    Raises:
        BundleError: its evidence does not hold it.
    """
    try:
        budget: AccuracyBudget = AccuracyBudget.model_validate(json.loads(bundle.read(EVIDENCE))["judgement"]["budget"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        message = f"{bundle.path} does not say which budget it was judged by; build it anew."
        raise BundleError(message) from error
    return budget


def fastest(bundle: Bundle, candidates: Sequence[Candidate], progress: Progress) -> tuple[int, tuple[Timing, ...]]:
    """Time candidates in turns, copies included; return the place of the one to take, and the times of all.

    Args:
        bundle: that they are of.
        candidates: proven; the first is taken unless another is known to be faster.
        progress: who wants to know how far it is.
    """
    networks = {f"{c.graph} {c.backend.name}": Network(bundle.manifest, c.backend) for c in candidates}
    advance = progress.step("time", _ROUNDS + _WARM_UP)
    _, timed = time_networks(networks, golden_pixels(bundle)[-1], rounds=_ROUNDS, warm_up=_WARM_UP, on_round=advance)
    seconds = list(timed.values())
    best = 0
    for place in range(1, len(candidates)):
        # Only where even the lower end of the interval is above 1 is it known to be faster.
        if speed_ratio(seconds[best], seconds[place]).low > 1:
            best = place
    timings = tuple(_timing(candidate, of) for candidate, of in zip(candidates, seconds, strict=True))
    return best, timings


def _timing(candidate: Candidate, seconds: npt.NDArray[np.float64]) -> Timing:
    p50, p95, p99 = (1e3 * float(value) for value in np.percentile(seconds, (50, 95, 99)))
    return Timing(
        graph=candidate.graph,
        back_end=candidate.backend.name,
        build_s=candidate.build_s,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        n=len(seconds),
    )
