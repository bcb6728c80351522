"""The order of the stages: frame, network, outline, selection, measurement, record. Nothing else knows it."""

from __future__ import annotations

import datetime as dt
import itertools
import time
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_runtime.biometry.field import fan_field
from edgefetal_runtime.biometry.fusion import fuse
from edgefetal_runtime.biometry.head import HEAD_QUANTITIES, HEAD_SHAPE, measure_head
from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.biometry.outline import Outline, outline_round
from edgefetal_runtime.biometry.quantities import HC
from edgefetal_runtime.exam.interpretation import interpret
from edgefetal_runtime.exam.overlay import draw_overlay, png
from edgefetal_runtime.exam.record import (
    SCHEMA_VERSION,
    BundleRecord,
    DatingRecord,
    Exam,
    FrameRecord,
    GrowthRecord,
    MeasurementRecord,
    ScaleRecord,
    SweepRecord,
    Timings,
    measurement_record,
)
from edgefetal_runtime.infer.bundle import HEAD, NO_PLANE
from edgefetal_runtime.scale import NoScale
from edgefetal_runtime.sweep.selection import Sized, SweepSelector, middle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgefetal_runtime.biometry.measurement import Quantity
    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.growth.gestation import GestationalAge
    from edgefetal_runtime.infer.bundle import Bundle, Manifest
    from edgefetal_runtime.infer.network import Network, NetworkOutput
    from edgefetal_runtime.infer.preprocess import Letterbox
    from edgefetal_runtime.scale import Scale
    from edgefetal_runtime.sources.source import Source


@dataclass(frozen=True, eq=False)
class Finding:
    """What was found in one frame.

    Args:
        frame: the frame.
        outline: the head's outline, or why there is none.
    """

    frame: Frame
    outline: Outline | Abstained

    def size(self) -> float:
        """Perimeter of the outline in px for the selection, whatever the scale; 0 where there is none."""
        if not isinstance(self.outline, Outline):
            return 0.0
        return float(cv2.arcLength(self.outline.contour_px.astype(np.float32), closed=True))


@dataclass(frozen=True, eq=False)
class ExamResult:
    """The record and its pictures.

    Args:
        exam: the record.
        overlays: PNG pictures by file name.
    """

    exam: Exam
    overlays: dict[str, bytes]


@dataclass
class Stopwatch:
    """Seconds spent in each stage."""

    started_s: float = field(default_factory=time.perf_counter)
    first_result_s: float | None = None
    frames: int = 0
    stages_s: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("read", "prepare", "infer", "measure"), 0.0)
    )

    def add(self, stage: str, since_s: float) -> float:
        """Add the time since `since_s` to a stage; return the time now."""
        now_s = time.perf_counter()
        self.stages_s[stage] += now_s - since_s
        return now_s

    def timings(self) -> Timings:
        """Return the totals and the means a frame."""
        total_s = time.perf_counter() - self.started_s
        means_ms = {f"{stage}_ms": 1e3 * spent_s / max(1, self.frames) for stage, spent_s in self.stages_s.items()}
        return Timings(total_s=total_s, first_result_s=self.first_result_s or total_s, **means_ms)


def head_probability(output: NetworkOutput) -> float:
    """Return the probability of a head plane: 1 where there is no plane head, 0 where it knows no head."""
    return output.plane_probability.get(HEAD, 0.0) if output.plane_probability else 1.0


def find_head(
    manifest: Manifest,
    image: npt.NDArray[np.float32],
    output: NetworkOutput,
    box: Letterbox,
    scale: Scale | NoScale,
) -> Outline | Abstained:
    """Find the head in the network's answer, if the network takes the frame for a head plane.

    Args:
        manifest: the bundle's manifest.
        image: the prepared frame, shape (1, 1, h, w).
        output: the network's answer for it.
        box: placement of the frame in the network input.
        scale: pixel size of the frame, or why it is unknown.
    """
    if HEAD not in manifest.heads.mask:
        return Abstained("the bundle outlines no head; use one that does")
    probability = head_probability(output)
    # Written so that a probability that is no number is refused too.
    if not probability >= manifest.thresholds.plane_probability:
        return Abstained(f"not taken for a head plane (probability {probability:.2f}); find the head")
    field = fan_field(image[0, 0], manifest.preprocess, box)
    outline = outline_round(output.mask_logits[manifest.heads.mask.index(HEAD)], box, scale, HEAD_SHAPE, field)
    if isinstance(outline, Outline) and outline.coverage < manifest.thresholds.coverage:
        return Abstained(
            f"the outline is open: only {outline.coverage:.0%} of it is in the picture, and the bundle needs "
            f"{manifest.thresholds.coverage:.0%}; show the whole head"
        )
    if isinstance(outline, Outline) and outline.agreement < manifest.thresholds.agreement:
        return Abstained(
            f"the outline is not sure enough (agreement {outline.agreement:.2f}, "
            f"{manifest.thresholds.agreement:.2f} is needed); find a clearer plane"
        )
    return outline


def _findings(network: Network, frames: Iterable[Frame], watch: Stopwatch) -> Iterator[Finding]:
    """Analyse frames one by one, timing each stage."""
    since_s = time.perf_counter()
    for frame in frames:
        since_s = watch.add("read", since_s)
        image, box = network.prepare(frame.pixels)
        since_s = watch.add("prepare", since_s)
        output = network.infer(image)
        since_s = watch.add("infer", since_s)
        finding = Finding(frame, find_head(network.manifest, image, output, box, frame.scale))
        watch.frames += 1
        if watch.first_result_s is None:
            watch.first_result_s = time.perf_counter() - watch.started_s
        yield finding
        since_s = watch.add("measure", since_s)


def examine(
    source: Source,
    source_name: str,
    bundle: Bundle,
    network: Network,
    on_frame: Callable[[], None] = lambda: None,
    age: GestationalAge | None = None,
) -> ExamResult:
    """Run a whole source through the network and measure every sweep.

    Args:
        source: the frames.
        source_name: how the user named it.
        bundle: the bundle that the network is of.
        network: the network, loaded.
        on_frame: called after every frame.
        age: the gestational age, where it is known beforehand; every sweep is then of that fetus.

    Raises:
        SourceError: a frame cannot be read.
    """
    watch = Stopwatch()
    measurements: list[MeasurementRecord] = []
    growth: list[GrowthRecord] = []
    sweeps: list[SweepRecord] = []
    overlays: dict[str, bytes] = {}
    findings = _findings(network, source.frames(), watch)
    for number, (name, of_sweep) in enumerate(itertools.groupby(findings, key=lambda f: f.frame.sweep), start=1):
        result = _measure_sweep(_printable(name), of_sweep, bundle.manifest, on_frame)
        interpreted, charted = interpret(result.sweep.name, result.measured, result.frames, age)
        measurements += (*_records(result), *interpreted)
        growth += charted
        overlay_name = None
        if result.overlay is not None:
            overlay_name = f"overlay-{number:03d}.png"
            overlays[overlay_name] = result.overlay
        sweeps.append(result.sweep.model_copy(update={"overlay": overlay_name}))
    exam = Exam(
        schema_version=SCHEMA_VERSION,
        edgefetal=metadata.version("edgefetal"),
        created_utc=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        bundle=BundleRecord(name=bundle.manifest.name, sha256=bundle.sha256, backend=network.backend.name),
        source=_printable(source_name),
        source_kind=source.kind,
        frames_announced=source.frame_count,
        dating=None if age is None else DatingRecord(weeks=age.weeks, basis=age.origin),
        interval_level=bundle.manifest.intervals.level if bundle.manifest.intervals else None,
        measurements=tuple(measurements),
        growth=tuple(growth),
        sweeps=tuple(sweeps),
        cautions=_cautions(bundle.manifest, sweeps),
        timings=watch.timings(),
    )
    return ExamResult(exam, overlays)


@dataclass(frozen=True, eq=False)
class _SweepResult:
    sweep: SweepRecord
    measured: Mapping[Quantity, Measured | Abstained]
    frames: tuple[FrameRecord, ...]
    overlay: bytes | None


def _cautions(manifest: Manifest, sweeps: Sequence[SweepRecord]) -> tuple[str, ...]:
    """Say what a reader must know of this bundle and source before using any value."""
    cautions = []
    if set(manifest.heads.plane) <= {HEAD, NO_PLANE}:
        cautions.append(
            "The network learnt from labelled heads alone and may outline something else as one: look at the picture "
            "and confirm that it shows the head"
        )
    if manifest.intervals is not None and any(sweep.frames_seen > 1 for sweep in sweeps):
        cautions.append("The intervals were fitted on single chosen pictures, not on frames chosen from a sweep")
    return tuple(cautions)


def _printable(name: str) -> str:
    """Replace what is not UTF-8 in a file's name, which JSON cannot hold."""
    return name.encode(errors="replace").decode()


def _measure_sweep(
    name: str, findings: Iterator[Finding], manifest: Manifest, on_frame: Callable[[], None]
) -> _SweepResult:
    """Choose the frames of one sweep and measure the middle one."""
    selector: SweepSelector[Finding] = SweepSelector()
    seen = with_head = 0
    last: Finding | None = None
    for last in findings:
        size = last.size()
        selector.push(Sized(seen, size, last))
        seen += 1
        with_head += size > 0
        on_frame()
    chosen = selector.finish()
    best = middle(chosen)
    shown = best.item if best else last
    record = SweepRecord(
        name=name,
        frames_seen=seen,
        frames_with_head=with_head,
        scale=_scale_record(shown.frame.scale) if shown else None,
        contour_px=None,
        overlay=None,
    )
    if best is None or not isinstance(best.item.outline, Outline):
        nothing = Abstained(_why_nothing(last, seen, with_head))
        return _SweepResult(record, dict.fromkeys(HEAD_QUANTITIES, nothing), (), None)
    agreed = fuse([[kept.size for kept in sorted(chosen, key=lambda kept: kept.index)]])
    if isinstance(agreed, Abstained):
        return _SweepResult(record, dict.fromkeys(HEAD_QUANTITIES, agreed), (), None)
    frame, outline = best.item.frame, best.item.outline
    frames = [frame, *(kept.item.frame for kept in chosen if kept is not best)]
    used = tuple(FrameRecord(index=f.index, timestamp_s=f.timestamp_s) for f in frames)
    measured = measure_head(outline, manifest.intervals, agreed.effective_frames)
    overlay = png(draw_overlay(frame.pixels, outline.contour_px, _caption(frame, measured)))
    contour = tuple((round(float(x), 2), round(float(y), 2)) for x, y in outline.contour_px + frame.origin_px)
    return _SweepResult(record.model_copy(update={"contour_px": contour}), measured, used, overlay)


def _scale_record(scale: Scale | NoScale) -> ScaleRecord | None:
    if isinstance(scale, NoScale):
        return None
    return ScaleRecord(
        x_mm_per_px=scale.x_mm_per_px,
        y_mm_per_px=scale.y_mm_per_px,
        origin=scale.origin,
        relative_uncertainty=scale.relative_uncertainty,
    )


def _why_nothing(last: Finding | None, seen: int, with_head: int) -> str:
    """Say why no frame of a sweep was measured."""
    if seen == 1 and last is not None and isinstance(last.outline, Abstained):
        return last.outline.reason
    if with_head:
        return f"a head was outlined in {with_head} of {seen} frames, never for long enough; hold the probe still on it"
    return f"no head plane in {seen} frames; sweep across the head"


def _records(result: _SweepResult) -> tuple[MeasurementRecord, ...]:
    return tuple(
        measurement_record(result.sweep.name, quantity, value, result.frames)
        for quantity, value in result.measured.items()
    )


def _caption(frame: Frame, measured: Mapping[Quantity, Measured | Abstained]) -> tuple[str, ...]:
    """Text for the overlay: the values, then where they come from."""
    hc = measured[HC]
    value = f"HC not given: {hc.reason}" if isinstance(hc, Abstained) else f"HC {hc.value:.1f} mm"
    if isinstance(hc, Measured) and hc.interval:
        value += f" ({hc.interval[0]:.0f} to {hc.interval[1]:.0f})"
    scale = (
        f"{frame.scale.x_mm_per_px:.4f} x {frame.scale.y_mm_per_px:.4f} mm/px" if frame.scale else "pixel size unknown"
    )
    return (value, f"frame {frame.index} at {frame.timestamp_s:.2f} s, {scale}. Not a medical device.")
