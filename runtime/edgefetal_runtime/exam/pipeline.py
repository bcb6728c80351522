"""The order of the stages: frame, network, outline, selection, measurement, record. Nothing else knows it."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import time
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING

from edgefetal_devices.errors import DeviceLostError, EdgeFetalError, EnvironmentLacksError
from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.biometry.principal import PRINCIPAL
from edgefetal_runtime.exam.find import find_all
from edgefetal_runtime.exam.interpretation import interpret
from edgefetal_runtime.exam.measure import StructureSelector, join_sweeps, without_pixels
from edgefetal_runtime.exam.overlay import draw_overlay, png
from edgefetal_runtime.exam.points import Points
from edgefetal_runtime.exam.record import (
    ALL_SWEEPS,
    SCHEMA_VERSION,
    BundleRecord,
    DatingRecord,
    Exam,
    FrameRecord,
    GrowthRecord,
    HandRecord,
    MeasurementRecord,
    RunRecord,
    ScaleRecord,
    StructureRecord,
    SweepRecord,
    Timings,
    measurement_record,
)
from edgefetal_runtime.exam.stages import in_lanes, overlapped
from edgefetal_runtime.infer.bundle import HEAD, NO_PLANE
from edgefetal_runtime.scale import NoScale
from edgefetal_runtime.sweep.glance import glance
from edgefetal_runtime.sweep.hand import HandWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from edgefetal_runtime.biometry.measurement import Quantity
    from edgefetal_runtime.exam.find import Finding
    from edgefetal_runtime.exam.measure import StructureResult
    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.growth.gestation import GestationalAge
    from edgefetal_runtime.infer.bundle import Bundle, Intervals, Manifest
    from edgefetal_runtime.infer.network import Network, NetworkOutput
    from edgefetal_runtime.infer.preprocess import Letterbox
    from edgefetal_runtime.scale import Scale
    from edgefetal_runtime.sources.source import Source
    from edgefetal_runtime.sweep.finder import SweepFinder
    from edgefetal_runtime.sweep.glance import Glance
    from edgefetal_runtime.sweep.hand import Hand

FOLDER = "folder"
_UNFINISHED = "the examination was still running when this was written"
STAGES = ("read", "prepare", "infer", "find", "choose")


@dataclass(frozen=True, eq=False)
class ExamResult:
    """The record and its pictures.

    Args:
        exam: the record.
        overlays: PNG pictures by file name; empty where the listener took them.
        sweeps: what every sweep gave, without pictures.
        device_lost: the GPU was lost, which ended it, and the process must be started again before another.
    """

    exam: Exam
    overlays: dict[str, bytes]
    sweeps: tuple[SweepResult, ...] = ()
    device_lost: bool = False


@dataclass(frozen=True, eq=False)
class Seen:
    """A frame that went through every stage.

    Args:
        finding: what was found in it.
        glance: the frame from afar.
        done_s: when the last stage was done with it, by the monotonic clock.
    """

    finding: Finding
    glance: Glance
    done_s: float


@dataclass(frozen=True)
class Listener:
    """Who is told while an examination runs.

    Args:
        on_frame: after every frame, with the sweep that it belongs to, or None between sweeps.
        on_sweep: after every sweep, with what gives the record as it then is.
        take_picture: takes each PNG picture, by file name, as soon as its sweep is over; None to have all in the
            result, which for a long examination is a lot.
    """

    on_frame: Callable[[Seen, RunningSweep | None], None] = lambda *_: None
    on_sweep: Callable[[SweepResult, Callable[[], Exam]], None] = lambda *_: None
    take_picture: Callable[[str, bytes], None] | None = None


@dataclass
class Stopwatch:
    """Seconds spent in each stage."""

    started_s: float = field(default_factory=time.perf_counter)
    first_result_s: float | None = None
    frames: int = 0
    stages_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def add(self, spent_s: Mapping[str, float]) -> None:
        """Add what one frame took."""
        for stage, seconds in spent_s.items():
            self.stages_s[stage] += seconds

    def timings(self) -> Timings:
        """Return the totals and the means a frame."""
        total_s = time.perf_counter() - self.started_s
        means_ms = {f"{stage}_ms": 1e3 * spent_s / max(1, self.frames) for stage, spent_s in self.stages_s.items()}
        return Timings(total_s=total_s, first_result_s=self.first_result_s or total_s, **means_ms)


@dataclass(eq=False)
class _Work:
    """A frame on its way through the stages; each fills in its part."""

    frame: Frame
    spent_s: dict[str, float]
    glance: Glance | None = None
    prepared: tuple[npt.NDArray[np.float32], Letterbox] | None = None
    output: NetworkOutput | None = None
    finding: Finding | None = None


def _timed(stage: str, step: Callable[[_Work], None]) -> Callable[[_Work], _Work]:
    """Make a stage of a step: it passes its work on, with the time that it took."""

    def run(work: _Work) -> _Work:
        since_s = time.perf_counter()
        step(work)
        work.spent_s[stage] = time.perf_counter() - since_s
        return work

    return run


def _stages(network: Network) -> tuple[Callable[[_Work], _Work], ...]:
    """Return what is done with every frame, in order."""

    def prepare(work: _Work) -> None:
        work.glance = glance(work.frame.pixels)
        work.prepared = network.prepare(work.frame.pixels)

    def infer(work: _Work) -> None:
        assert work.prepared is not None  # noqa: S101 - the stage before
        work.output = network.infer(work.prepared[0])

    def find(work: _Work) -> None:
        assert work.prepared is not None  # noqa: S101 - stages before
        assert work.output is not None  # noqa: S101 - likewise
        image, box = work.prepared
        work.finding = find_all(network.manifest, work.frame, image, work.output, box)
        # Not needed any more, and large.
        work.prepared = work.output = None

    return _timed("prepare", prepare), _timed("infer", infer), _timed("find", find)


def _through(steps: Sequence[Callable[[_Work], _Work]], work: _Work) -> _Work:
    """Take a frame through all stages, one after another."""
    for step in steps:
        step(work)
    return work


def _read(frames: Iterable[Frame]) -> Iterator[_Work]:
    """Read frames, with the time that each took."""
    since_s = time.perf_counter()
    for frame in frames:
        yield _Work(frame, {"read": time.perf_counter() - since_s})
        since_s = time.perf_counter()


def analyse(network: Network, frames: Iterable[Frame], watch: Stopwatch, ahead: int = 2) -> Generator[Seen, None, None]:
    """Pass frames through the stages and yield them in order.

    The stages overlap; where the network runs several frames side by side, whole frames do.

    Args:
        network: the network.
        frames: to analyse.
        watch: counts the time of each stage.
        ahead: frames that may wait between two stages; of a live source the fewer the younger.

    Raises:
        SourceError: a frame cannot be read.
    """
    steps, lanes = _stages(network), network.backend.lanes
    works = (
        overlapped(_read(frames), *steps, ahead=ahead)
        if lanes == 1
        else in_lanes(_read(frames), lambda work: _through(steps, work), lanes, ahead)
    )
    for work in works:
        assert work.finding is not None  # noqa: S101 - every stage was passed
        assert work.glance is not None  # noqa: S101 - likewise
        watch.add(work.spent_s)
        watch.frames += 1
        if watch.first_result_s is None:
            watch.first_result_s = time.perf_counter() - watch.started_s
        yield Seen(work.finding, work.glance, time.monotonic())


def in_turn(network: Network, frames: Iterable[Frame]) -> Iterator[tuple[Seen, Mapping[str, float]]]:
    """Pass frames through the same stages one after another, with nothing beside them, which is how each is timed.

    Args:
        network: the network.
        frames: to analyse.

    Yields:
        Each frame, and the seconds that it spent in `read`, `prepare`, `infer` and `find`.

    Raises:
        SourceError: a frame cannot be read.
    """
    steps = _stages(network)
    for work in _read(frames):
        _through(steps, work)
        assert work.finding is not None  # noqa: S101 - every stage was passed
        assert work.glance is not None  # noqa: S101 - likewise
        yield Seen(work.finding, work.glance, time.monotonic()), work.spent_s


class _Broken:
    """Remembers the error that ended a live source's frames."""

    reason: str | None = None
    device_lost = False

    def guard(self, seen: Iterator[Seen]) -> Iterator[Seen]:
        """Yield until an error comes, and take that for the end: what a live source showed does not come again.

        Raises:
            EnvironmentLacksError: nothing was ever seen, because this machine lacks something.
        """
        any_seen = False
        try:
            for frame in seen:
                any_seen = True
                yield frame
        except EdgeFetalError as error:
            if isinstance(error, EnvironmentLacksError) and not any_seen:
                raise
            self.reason = str(error)
            self.device_lost = isinstance(error, DeviceLostError)
        except Exception as error:  # noqa: BLE001 - whatever broke, what was measured is to be saved
            self.reason = f"the analysis broke off ({type(error).__name__}: {error}); start it again"


def _by_sweep(seen: Iterator[Seen], finder: SweepFinder | None) -> Iterator[tuple[str | None, Seen]]:
    """Name the sweep of every frame: as its source does, or as it is found; None between sweeps."""
    for frame in seen:
        if finder is None:
            yield frame.finding.frame.sweep, frame
        else:
            of = frame.finding.frame
            number = finder.place(frame.glance, of.timestamp_s, of.segment)
            yield None if number is None else f"sweep {number}", frame


def examine(
    source: Source,
    source_name: str,
    bundle: Bundle,
    network: Network,
    listener: Listener | None = None,
    age: GestationalAge | None = None,
    *,
    finder: SweepFinder | None = None,
    simulated: bool = False,
) -> ExamResult:
    """Run a whole source through the network and measure every sweep.

    Args:
        source: the frames.
        source_name: how the user named it.
        bundle: the bundle that the network is of.
        network: the network, loaded.
        listener: who is told of frames and sweeps.
        age: the gestational age, where it is known beforehand; every sweep is then of that fetus.
        finder: finds the sweeps of a live source, which cannot be read again: an error then ends the examination, what
            was seen until then is measured, and the record says so. None for files, whose errors are raised.
        simulated: the source is a simulation, so that structures which the bundle knows from simulations alone are
            measured too.

    Raises:
        SourceError: a frame of a file cannot be read.
    """
    listener = listener or Listener()
    created = dt.datetime.now(dt.timezone.utc)
    watch, broken = Stopwatch(), _Broken()
    hidden = frozenset() if simulated else frozenset(bundle.manifest.simulated)
    seen = analyse(network, source.frames(), watch, ahead=2 if finder is None else 1)
    named = _by_sweep(seen if finder is None else broken.guard(seen), finder)
    sweeps: list[SweepResult] = []
    overlays: dict[str, bytes] = {}
    take_picture = listener.take_picture or overlays.__setitem__

    def record(ended: str | None) -> Exam:
        """Write down what is known now."""
        intervals = bundle.manifest.intervals
        one_subject = source.kind != FOLDER
        values = _values(sweeps, intervals, age, one_subject=one_subject)
        return Exam(
            schema_version=SCHEMA_VERSION,
            edgefetal=metadata.version("edgefetal"),
            created_utc=created.isoformat(timespec="seconds"),
            bundle=BundleRecord(name=bundle.manifest.name, sha256=bundle.sha256, backend=network.backend.name),
            source=_printable(source_name),
            source_kind=source.kind,
            one_subject=one_subject,
            frames_announced=source.frame_count,
            dating=None if age is None else DatingRecord(weeks=age.weeks, basis=age.origin),
            interval_level=intervals.level if intervals else None,
            measurements=tuple(value for of_sweep, _ in values for value in of_sweep),
            growth=tuple(row for _, charted in values for row in charted),
            sweeps=tuple(sweep.record for sweep in sweeps),
            ended=ended,
            cautions=_cautions(bundle.manifest, sweeps, simulated=simulated),
            timings=watch.timings(),
        )

    # Whatever ends the loop, the threads end with it.
    with contextlib.closing(seen):
        for name, of_sweep in itertools.groupby(named, key=lambda pair: pair[0]):
            frames = (frame for _, frame in of_sweep)
            if name is None:
                for frame in frames:
                    listener.on_frame(frame, None)
                continue
            sweep = RunningSweep(_printable(name), len(sweeps) + 1, bundle.manifest, hidden, watch)
            for frame in frames:
                sweep.push(frame)
                listener.on_frame(frame, sweep)
            interrupted = broken.reason or (finder.interruption if finder else None)
            result, pictures = sweep.finish(interrupted)
            for file, content in pictures.items():
                take_picture(file, content)
            sweeps.append(result)
            listener.on_sweep(result, lambda: record(ended=_UNFINISHED))
    return ExamResult(record(ended=broken.reason), overlays, tuple(sweeps), broken.device_lost)


@dataclass(frozen=True, eq=False)
class SweepResult:
    """A sweep that is over.

    Args:
        record: what is written of it.
        structures: what it gives of each structure.
        hand: how it was done; None for a single picture.
        records: its measures, without what is read from them.
    """

    record: SweepRecord
    structures: tuple[StructureResult, ...]
    hand: Hand | None
    records: tuple[MeasurementRecord, ...]


class RunningSweep:
    """A sweep that runs."""

    def __init__(self, name: str, number: int, manifest: Manifest, hidden: frozenset[str], watch: Stopwatch) -> None:
        """Start it.

        Args:
            name: its name.
            number: from 1, for the names of its pictures.
            manifest: the bundle's.
            hidden: structures that are not measured, because the bundle knows them from simulations alone.
            watch: counts the time that choosing takes.
        """
        self._name, self._number, self._manifest = name, number, manifest
        self._hidden, self._watch = hidden, watch
        self._selectors = [StructureSelector(structure) for structure in manifest.heads.mask]
        self._hand = HandWatch()
        self._first: Frame | None = None
        self._last: Frame | None = None
        self._seen = 0

    def push(self, seen: Seen) -> None:
        """Take the next frame."""
        since_s = time.perf_counter()
        frame = seen.finding.frame
        for selector in self._selectors:
            selector.push(seen.finding)
        self._hand.push(seen.glance, frame.timestamp_s, seen.finding.skill)
        self._first, self._last = self._first or frame, frame
        self._seen += 1
        self._watch.add({"choose": time.perf_counter() - since_s})

    @property
    def name(self) -> str:
        """Return its name."""
        return self._name

    def hand(self) -> Hand:
        """Say how it is being done so far."""
        return self._hand.verdict()

    def finish(self, interrupted: str | None) -> tuple[SweepResult, dict[str, bytes]]:
        """End it and measure.

        Args:
            interrupted: what ended it before its time, or None.

        Returns:
            What it gives, and its PNG pictures by file name.
        """
        since_s = time.perf_counter()
        assert self._first is not None  # noqa: S101 - a sweep has a frame
        assert self._last is not None  # noqa: S101 - likewise
        intervals = self._manifest.intervals
        results = tuple(s.finish(intervals, only_simulated=s.structure in self._hidden) for s in self._selectors)
        overlays: dict[str, bytes] = {}
        structures: list[StructureRecord] = []
        values: list[MeasurementRecord] = []
        for result in results:
            # One for all that rests on them, because a long examination keeps those of every sweep.
            frames = _frame_records(result.frames)
            picture = _overlay(result)
            name = None if picture is None else f"overlay-{self._number:03d}-{result.structure}.png"
            if picture is not None and name is not None:
                overlays[name] = picture
            structures.append(_structure_record(result, frames, name))
            values.extend(_measurement_records(self._name, result, frames))
        measured = next((result for result in results if result.frame is not None), None)
        shown = self._last if measured is None or measured.frame is None else measured.frame
        hand = self._judged(results, interrupted)
        record = SweepRecord(
            name=self._name,
            frames_seen=self._seen,
            frames_missed=max(0, self._last.index - self._first.index + 1 - self._seen),
            size_px=(shown.pixels.shape[1], shown.pixels.shape[0]),
            scale=_scale_record(shown.scale),
            hand=None if hand is None else _hand_record(hand),
            structures=tuple(structures),
        )
        self._watch.add({"choose": time.perf_counter() - since_s})
        kept = tuple(without_pixels(result) for result in results)
        return SweepResult(record, kept, hand, tuple(values)), overlays

    def _judged(self, results: Sequence[StructureResult], interrupted: str | None) -> Hand | None:
        """Judge the hand; a sweep that shows none of the structures is no fault of the hand's, one that doubts is."""
        if self._seen == 1:
            return None
        doubt = next((result.choice.doubt for result in results if result.choice.doubt), None)
        return self._hand.verdict(interrupted, doubt)


def _hand_record(hand: Hand) -> HandRecord:
    return HandRecord(
        light=hand.light.value,
        reason=hand.reason,
        action=hand.action,
        contact=hand.contact,
        too_fast=hand.too_fast,
        turned_back=hand.turned_back,
        duration_s=hand.duration_s,
        skill=hand.skill,
    )


def _measurement_records(
    sweep: str, result: StructureResult, frames: tuple[FrameRecord, ...]
) -> Iterator[MeasurementRecord]:
    for quantity, value in result.measured.items():
        yield measurement_record(sweep, quantity, value, frames)


def _values(
    sweeps: Sequence[SweepResult], intervals: Intervals | None, age: GestationalAge | None, *, one_subject: bool
) -> list[tuple[tuple[MeasurementRecord, ...], tuple[GrowthRecord, ...]]]:
    """Write down every measure, and what is read from it: from all sweeps of one subject together, else from each."""
    if not one_subject or len(sweeps) == 1:
        return [_interpreted(s.record.name, s.structures, s.records, age) for s in sweeps]
    if not sweeps:
        return []
    joined = [join_sweeps(results, intervals) for results in zip(*(s.structures for s in sweeps), strict=True)]
    records = (_measurement_records(ALL_SWEEPS, result, _frame_records(result.frames)) for result in joined)
    together = _interpreted(ALL_SWEEPS, joined, tuple(itertools.chain.from_iterable(records)), age)
    return [together, *((sweep.records, ()) for sweep in sweeps)]


def _interpreted(
    name: str,
    results: Sequence[StructureResult],
    records: tuple[MeasurementRecord, ...],
    age: GestationalAge | None,
) -> tuple[tuple[MeasurementRecord, ...], tuple[GrowthRecord, ...]]:
    measured: dict[Quantity, Measured | Abstained] = {q: v for result in results for q, v in result.measured.items()}
    frames = tuple(dict.fromkeys(frame for result in results for frame in _frame_records(result.frames)))
    interpreted, charted = interpret(name, measured, frames, age)
    return (*records, *interpreted), charted


def _cautions(manifest: Manifest, sweeps: Sequence[SweepResult], *, simulated: bool) -> tuple[str, ...]:
    """Say what a reader must know of this bundle and source before using any value."""
    cautions = []
    if simulated:
        cautions.append("The exam was said to be simulated: no value is of a patient")
    if set(manifest.heads.plane) <= {HEAD, NO_PLANE}:
        cautions.append(
            "The network learnt from labelled heads alone and may outline something else as one: look at the picture "
            "and confirm that it shows the head"
        )
    if manifest.intervals is not None and any(sweep.record.frames_seen > 1 for sweep in sweeps):
        cautions.append("The intervals were fitted on single chosen pictures, not on frames chosen from a sweep")
    return tuple(cautions)


def _printable(name: str) -> str:
    """Replace what is not UTF-8 in a file's name, which JSON cannot hold."""
    return name.encode(errors="replace").decode()


def _frame_records(frames: Sequence[Frame]) -> tuple[FrameRecord, ...]:
    return tuple(FrameRecord(index=frame.index, timestamp_s=frame.timestamp_s) for frame in frames)


def _structure_record(result: StructureResult, frames: tuple[FrameRecord, ...], overlay: str | None) -> StructureRecord:
    contour = None
    if result.outline is not None and result.frame is not None:
        points = result.outline.contour_px + result.frame.origin_px
        contour = Points.of((round(float(x), 2), round(float(y), 2)) for x, y in points)
    choice = result.choice
    return StructureRecord(
        structure=result.structure,
        frames_outlined=choice.seen,
        runs=tuple(RunRecord(first=run.first, last=run.last, best=round(run.best, 3)) for run in choice.runs),
        decided_by="grade" if choice.graded else "size",
        chosen=frames,
        why=result.why,
        contour_px=contour,
        overlay=overlay,
    )


def _scale_record(scale: Scale | NoScale) -> ScaleRecord | None:
    if isinstance(scale, NoScale):
        return None
    return ScaleRecord(
        x_mm_per_px=scale.x_mm_per_px,
        y_mm_per_px=scale.y_mm_per_px,
        origin=scale.origin,
        relative_uncertainty=scale.relative_uncertainty,
    )


def _overlay(result: StructureResult) -> bytes | None:
    """Draw what was measured, with its value and where it comes from."""
    frame, outline = result.frame, result.outline
    if frame is None or outline is None:
        return None
    principal = PRINCIPAL[result.structure]
    length = result.measured[principal]
    value = (
        f"{principal.name} not given: {length.reason}"
        if isinstance(length, Abstained)
        else f"{principal.name} {length.value:.1f} mm"
    )
    if isinstance(length, Measured) and length.interval:
        value += f" ({length.interval[0]:.0f} to {length.interval[1]:.0f})"
    scale = (
        f"{frame.scale.x_mm_per_px:.4f} x {frame.scale.y_mm_per_px:.4f} mm/px" if frame.scale else "pixel size unknown"
    )
    lines = (value, f"frame {frame.index} at {frame.timestamp_s:.2f} s, {scale}. Not a medical device.")
    return png(draw_overlay(frame.pixels, outline.contour_px, lines))
