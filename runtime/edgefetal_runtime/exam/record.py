"""`exam.json`: what was measured, on which frames, with which bundle and scale, or why not."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator
from typing_extensions import Self  # noqa: TC002 - pydantic reads annotations at run time

SCHEMA_VERSION = 1


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
        relative_uncertainty: one standard deviation, relative; null where nobody stated one.
    """

    x_mm_per_px: float
    y_mm_per_px: float
    origin: str
    relative_uncertainty: float | None


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
        sweep: name of the sweep.
        name: `HC` (head circumference) or `cephalic_index` (short over long axis of the head).
        value: the figure, or null.
        unit: `mm`, or `1` for a ratio.
        interval: lower and upper bound, or null while the bundle has no interval tables.
        frames: the frame that the value is of, then the others that it was chosen among.
        abstained: why there is no value, or null.
    """

    sweep: str
    name: str
    value: float | None
    unit: str
    interval: tuple[float, float] | None
    frames: tuple[FrameRecord, ...]
    abstained: str | None

    @model_validator(mode="after")
    def _value_or_reason(self) -> Self:
        """Refuse a record that says neither or both."""
        if (self.value is None) == (self.abstained is None):
            message = "a measurement has a value or a reason for abstaining, and not both"
            raise ValueError(message)
        return self


class SweepRecord(_Part):
    """One sweep of the source.

    Args:
        name: its name.
        frames_seen: frames that were read.
        frames_with_head: frames that showed a head plane with a plausible outline.
        scale: its pixel size, or null.
        contour_px: points on the measured outline in frame pixels as x, y, or null.
        overlay: file of the picture that shows the outline, or null.
    """

    name: str
    frames_seen: int
    frames_with_head: int
    scale: ScaleRecord | None
    contour_px: tuple[tuple[float, float], ...] | None
    overlay: str | None


class Timings(_Part):
    """Where the time went; means over all frames.

    Args:
        total_s: from the first frame asked for to the last result.
        first_result_s: until the first frame was analysed.
        read_ms: decoding.
        prepare_ms: preprocessing.
        infer_ms: the network.
        measure_ms: geometry and selection.
    """

    total_s: float
    first_result_s: float
    read_ms: float
    prepare_ms: float
    infer_ms: float
    measure_ms: float


class Exam(_Part):
    """The whole record.

    Args:
        schema_version: version of this layout.
        edgefetal: version of the program.
        created_utc: when, ISO 8601.
        bundle: what measured.
        source: path as it was given.
        source_kind: `still`, `folder` or `video`.
        frames_announced: frames that the source said it has, or null.
        measurements: one entry for every measure of every sweep.
        sweeps: one entry a sweep.
        timings: where the time went.
        disclaimer: what this is not.
    """

    schema_version: int
    edgefetal: str
    created_utc: str
    bundle: BundleRecord
    source: str
    source_kind: str
    frames_announced: int | None
    measurements: tuple[MeasurementRecord, ...]
    sweeps: tuple[SweepRecord, ...]
    timings: Timings
    disclaimer: str = "Research software; not a medical device. Not for diagnosis."
