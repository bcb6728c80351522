"""`exam.json`: what was measured, on which frames, with which bundle and scale, or why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, model_validator
from typing_extensions import Self  # noqa: TC002 - pydantic reads annotations at run time

from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.exam.points import Points

if TYPE_CHECKING:
    from edgefetal_runtime.biometry.measurement import Quantity

SCHEMA_VERSION = 3


# Stands for a sweep's name where a value rests on all sweeps of one subject.
ALL_SWEEPS = "all sweeps"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BundleRecord(_Part):
    """Which bundle measured.

    Args:
        name: its name.
        sha256: hash of its manifest, which covers all its files.
        backend: back end that ran it.
    """

    name: str
    sha256: str
    backend: str


class ScaleRecord(_Part):
    """Pixel size and where it came from.

    Args:
        x_mm_per_px: width of a pixel.
        y_mm_per_px: height of a pixel.
        origin: where the figures came from.
        relative_uncertainty: one standard deviation, relative.
    """

    x_mm_per_px: float
    y_mm_per_px: float
    origin: str
    relative_uncertainty: float


class FrameRecord(_Part):
    """A frame that a value rests on.

    Args:
        index: position in the sweep.
        timestamp_s: time in the source.
    """

    index: int
    timestamp_s: float


class MeasurementRecord(_Part):
    """One measure of one sweep: a value, or the reason why there is none.

    Args:
        sweep: name of the sweep, or `ALL_SWEEPS` for what all sweeps of one subject say together.
        name: such as `HC`, `BPD_outer_outer`, `GA`; `size_as_age` beside a known age, which stands.
        method: how it was measured or computed, with its author, year and parameters where it is a formula.
        value: the figure, or null.
        unit: `mm`, `weeks`, `g`, or `1` for a ratio.
        interval: lower and upper bound at the exam's `interval_level`, or null. Those of ages and weights carry the
            error of the measurement only; a formula's own error comes on top.
        no_interval: why there is no interval, or null where there is one or no value.
        frames: the frame that the value is of, then the others that it was chosen among.
        abstained: why there is no value, or null.
    """

    sweep: str
    name: str
    method: str
    value: float | None
    unit: str
    interval: tuple[float, float] | None
    no_interval: str | None
    frames: tuple[FrameRecord, ...]
    abstained: str | None

    @model_validator(mode="after")
    def _value_or_reason(self) -> Self:
        """Refuse a record that says neither or both."""
        if (self.value is None) == (self.abstained is None):
            message = "a measurement has a value or a reason for abstaining, and not both"
            raise ValueError(message)
        return self


class DatingRecord(_Part):
    """The gestational age that was known before anything was measured.

    Args:
        weeks: exact weeks at the examination.
        basis: where it came from.
    """

    weeks: float
    basis: str


class GrowthRecord(_Part):
    """The place of a measure on a chart at the known age.

    Args:
        sweep: name of the sweep that was measured.
        measure: `HC`, `BPD`, `OFD`, `AC`, `FL` or `EFW`.
        chart: author and year.
        value: the figure as the chart reads it, in mm or g; null where it cannot be read there.
        z: standard deviations from the median, or null.
        centile: 0 to 100, or null.
        centile_interval: centiles at the ends of the measurement's interval, or null.
        note: what was done to the figure, or why one is missing.
    """

    sweep: str
    measure: str
    chart: str
    value: float | None
    z: float | None
    centile: float | None
    centile_interval: tuple[float, float] | None
    note: str


def measurement_record(
    sweep: str, quantity: Quantity, result: Measured | Abstained, frames: tuple[FrameRecord, ...]
) -> MeasurementRecord:
    """Write down what was found of one quantity in one sweep."""
    return MeasurementRecord(
        sweep=sweep,
        name=quantity.name,
        method=quantity.method,
        value=result.value if isinstance(result, Measured) else None,
        unit=quantity.unit,
        interval=result.interval if isinstance(result, Measured) else None,
        no_interval=(result.no_interval or None) if isinstance(result, Measured) else None,
        frames=frames,
        abstained=result.reason if isinstance(result, Abstained) else None,
    )


class RunRecord(_Part):
    """Frames in a row in which a structure was outlined.

    Args:
        first: index of its first frame.
        last: of its last.
        best: highest size in px, or highest grade where grades decided, without flashes.
    """

    first: int
    last: int
    best: float


class StructureRecord(_Part):
    """What was seen of one structure in one sweep, and which frames were chosen for it.

    Args:
        structure: `head`, `abdomen` or `femur`.
        frames_outlined: frames that showed its plane with a plausible outline.
        runs: where these lasted.
        decided_by: `size` or `grade`: what made a frame better than another.
        chosen: the frame that is measured, then the others that it was chosen among; empty where there is none.
        why: why this frame, or why none.
        contour_px: points on the measured outline as x, y in pixels of the picture as stored, or null.
        overlay: file of the picture that shows the outline, or null.
    """

    structure: str
    frames_outlined: int
    runs: tuple[RunRecord, ...]
    decided_by: str
    chosen: tuple[FrameRecord, ...]
    why: str
    contour_px: Points | None
    overlay: str | None


class HandRecord(_Part):
    """How a sweep was done, and what to do next.

    Args:
        light: `green`, `amber` (usable, could be better) or `red` (repeat it).
        reason: what is wrong, or that nothing is.
        action: what to do.
        contact: share of the frames in which the probe touched well.
        too_fast: share of the frames between which the picture changed too much.
        turned_back: whether the sweep went back over what it had shown.
        duration_s: from its first frame to its last.
        skill: mean of what the network says of the hand, 0 to 1, or null where it says nothing.
    """

    light: str
    reason: str
    action: str
    contact: float
    too_fast: float
    turned_back: bool
    duration_s: float
    skill: float | None


class SweepRecord(_Part):
    """One sweep of the source.

    Args:
        name: its name.
        frames_seen: frames that were analysed.
        frames_missed: frames that the source counted and that never came, such as those dropped by a live source.
        size_px: width and height of its frames.
        scale: its pixel size, or null.
        hand: how it was done; null for a single picture.
        structures: what was seen of each structure.
    """

    name: str
    frames_seen: int
    frames_missed: int
    size_px: tuple[int, int]
    scale: ScaleRecord | None
    hand: HandRecord | None
    structures: tuple[StructureRecord, ...]


class Timings(_Part):
    """Where the time went; means over all frames. Stages overlap, so that their sum is more than the time a frame took.

    Args:
        total_s: from the first frame asked for to the last result.
        first_result_s: until the first frame was analysed.
        read_ms: decoding.
        prepare_ms: preprocessing.
        infer_ms: the network.
        find_ms: geometry.
        choose_ms: selection and measurement.
    """

    total_s: float
    first_result_s: float
    read_ms: float
    prepare_ms: float
    infer_ms: float
    find_ms: float
    choose_ms: float


class Exam(_Part):
    """The whole record.

    Args:
        schema_version: version of this layout.
        edgefetal: version of the program.
        created_utc: when, ISO 8601.
        bundle: what measured.
        source: path as it was given.
        source_kind: `still`, `folder`, `video`, `metaimage`, `dicom`, or that of a live source.
        one_subject: whether all sweeps are of one subject, so that they may be joined.
        frames_announced: frames that the source said it has, or null.
        dating: the age that was known beforehand, or null; with one, measures are read as size.
        interval_level: share of the truths that the intervals are to hold, or null where the bundle has none.
        measurements: one entry for every measure of every sweep.
        growth: place of every measure on every chart; empty where no age was known.
        sweeps: one entry a sweep.
        ended: why the examination ended before its source did, or null.
        cautions: what the reader must know before using any value.
        timings: where the time went.
        disclaimer: what this is not.
    """

    schema_version: int
    edgefetal: str
    created_utc: str
    bundle: BundleRecord
    source: str
    source_kind: str
    one_subject: bool
    frames_announced: int | None
    dating: DatingRecord | None
    interval_level: float | None
    measurements: tuple[MeasurementRecord, ...]
    growth: tuple[GrowthRecord, ...]
    sweeps: tuple[SweepRecord, ...]
    ended: str | None
    cautions: tuple[str, ...]
    timings: Timings
    disclaimer: str = "Research software; not a medical device. Not for diagnosis."
