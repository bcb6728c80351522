"""What a bundle's graphs do on subjects that nobody trained or chose anything on, and the intervals fitted on half."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgefetal_calibration.datasets.hc18 import HeadCase
from edgefetal_calibration.evaluate import evaluate_heads, summarise
from edgefetal_calibration.frames import evaluate_frames, summarise_frames
from edgefetal_calibration.intervals import coverage, fit_intervals, halves
from edgefetal_devices.errors import DatasetError
from edgefetal_export.ship import SHIPPED, frames_per_exam
from edgefetal_runtime.infer.network import Network

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_export.progress import Progress
    from edgefetal_runtime.infer.bundle import Intervals

# What the functions below write into the evidence: on annotated heads, on frames of other exams, and of intervals.
HEADS, FRAMES, COVERAGE = "held_out", "held_out_frames", "coverage"
PARTS: Final = (HEADS, FRAMES, COVERAGE)


@dataclass(frozen=True)
class HeldOut:
    """What was found.

    Args:
        evidence: those of `PARTS` that there is something to say of, as JSON values.
        intervals: of single frames, or None where there are too few subjects, or no lengths.
    """

    evidence: dict[str, Any]
    intervals: Intervals | None


def heads_among(exams: Sequence[LabelledExam]) -> list[HeadCase]:
    """Return the single pictures with annotated heads, which thresholds and intervals are fitted on."""
    return [exam for exam in exams if isinstance(exam, HeadCase)]


def report_lengths(
    networks: Mapping[str, Network],
    held_out: Sequence[LabelledExam],
    progress: Progress,
    *,
    dataset: str,
    intervals_only: bool,
) -> HeldOut:
    """Measure held-out subjects, fit intervals on one half of them, and judge these on the other.

    Args:
        networks: the shipped graph and the float one, by name, without intervals.
        held_out: exams of the held-out subjects.
        progress: who wants to know how far it is.
        dataset: kinds of the data, joined by `+`.
        intervals_only: whether intervals are all that is wanted, so that without them there is nothing.

    Raises:
        DatasetError: there are no heads, or too few where intervals are all that is wanted.
    """
    heads = heads_among(held_out)
    if not heads:
        message = (
            "The data hold no held-out subjects to report on and to fit intervals on; give the run's whole dataset."
        )
        raise DatasetError(message)
    # Reported beside the evidence; nothing but the intervals, and those on one half, is fitted on it.
    advance = progress.step("report on held-out subjects", len(heads))
    unseen = evaluate_heads(networks, heads, advance)
    evidence: dict[str, Any] = {HEADS: {name: summarise(of_graph) for name, of_graph in unseen.items()}}
    others = [exam for exam in held_out if not isinstance(exam, HeadCase)]
    if others:
        evidence[FRAMES] = _summarised(networks, others, progress)
    fitting, judging = halves(heads)
    names = {case.name for case in fitting}
    intervals = fit_intervals(
        [result for result in unseen[SHIPPED] if result.name in names],
        [case.digest() for case in fitting],
        dataset=dataset,
    )
    if intervals is None and intervals_only:
        message = f"{len(fitting)} pictures are too few to fit intervals on; give more labelled ones."
        raise DatasetError(message)
    if intervals is not None:
        advance = progress.step("judge the intervals", len(judging))
        shipped = networks[SHIPPED]
        network = Network(shipped.manifest.model_copy(update={"intervals": intervals}), shipped.backend)
        judged = evaluate_heads({SHIPPED: network}, judging, advance)
        evidence[COVERAGE] = coverage(judged[SHIPPED], intervals.level)
    return HeldOut(evidence, intervals)


def report_calls(networks: Mapping[str, Network], held_out: Sequence[LabelledExam], progress: Progress) -> HeldOut:
    """Say how well graphs that measure nothing tell good frames of held-out subjects from others.

    Args:
        networks: the shipped graph and the float one, by name.
        held_out: exams of the held-out subjects.
        progress: who wants to know how far it is.

    Raises:
        DatasetError: there are no such exams.
    """
    if not held_out:
        raise DatasetError("The data hold no held-out subjects to report on; give the run's whole dataset.")
    return HeldOut({FRAMES: _summarised(networks, held_out, progress)}, None)


def _summarised(
    networks: Mapping[str, Network], exams: Sequence[LabelledExam], progress: Progress
) -> dict[str, dict[str, Any]]:
    """Summarise what each graph says of some frames of every exam."""
    advance = progress.step("report on held-out exams", len(exams))
    heads = networks[SHIPPED].manifest.heads
    frames = evaluate_frames(networks, exams, frames_per_exam(heads), on_exam=advance)
    return {name: summarise_frames(of_graph) for name, of_graph in frames.items()}
