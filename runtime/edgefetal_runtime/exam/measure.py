"""Measuring a sweep: each structure on the frames chosen for it, and what several sweeps say together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_runtime.biometry.abdomen import measure_abdomen
from edgefetal_runtime.biometry.femur import Shaft, measure_femur
from edgefetal_runtime.biometry.fusion import fuse
from edgefetal_runtime.biometry.head import measure_head
from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.biometry.outline import Outline
from edgefetal_runtime.biometry.principal import PRINCIPAL
from edgefetal_runtime.biometry.quantities import AC, APAD, BPD, CEPHALIC_INDEX, FL, HC, OFD, TAD
from edgefetal_runtime.infer.bundle import ABDOMEN, FEMUR, HEAD
from edgefetal_runtime.sweep.selection import Run, Sized, SweepSelector

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgefetal_runtime.biometry.measurement import Quantity
    from edgefetal_runtime.exam.find import Finding
    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.infer.bundle import Intervals
    from edgefetal_runtime.sweep.selection import Choice

QUANTITIES: dict[str, tuple[Quantity, ...]] = {
    HEAD: (HC, BPD, OFD, CEPHALIC_INDEX),
    ABDOMEN: (AC, APAD, TAD),
    FEMUR: (FL,),
}
# Two operators differ by 5 to 11 % between biometric measures (Sarris et al. 2012); sweeps of one fetus that differ by
# more did not show one plane.
MAX_SPREAD = 0.10
_WHEN_SIMULATED = (
    "the bundle learnt the {} from simulated pictures alone; use one trained on real ones, or --simulated on a "
    "simulated exam"
)


@dataclass(frozen=True, eq=False)
class StructureResult:
    """What one sweep gives of one structure.

    Args:
        structure: its name.
        choice: the frames that were chosen and why.
        measured: every quantity of it.
        frame: the frame that was measured, or None.
        outline: what was outlined there, or None.
        frames: that frame, then the others that it was chosen among.
        why: why this frame, or why none.
    """

    structure: str
    choice: Choice[Finding]
    measured: Mapping[Quantity, Measured | Abstained]
    frame: Frame | None
    outline: Outline | Shaft | None
    frames: tuple[Frame, ...]
    why: str


_NO_PIXELS = np.empty((0, 0), np.uint8)


def without_pixels(result: StructureResult) -> StructureResult:
    """Return the same without its pictures, which are large and were drawn already."""
    frames = tuple(replace(frame, pixels=_NO_PIXELS) for frame in result.frames)
    choice = replace(result.choice, frames=(), measured=None)
    return replace(result, choice=choice, frame=frames[0] if frames else None, frames=frames)


def size_px(found: Outline | Shaft | Abstained) -> float:
    """Size of what was found in px for the selection, whatever the scale; 0 where nothing was."""
    if isinstance(found, Outline):
        return float(cv2.arcLength(found.contour_px.astype(np.float32), closed=True))
    if isinstance(found, Shaft):
        return float(np.linalg.norm(found.ends_px[1] - found.ends_px[0]))
    return 0.0


class StructureSelector:
    """Follows one structure through a sweep."""

    def __init__(self, structure: str) -> None:
        """Start a sweep."""
        self.structure = structure
        self._selector: SweepSelector[Finding] = SweepSelector(structure)
        self._indices: list[int] = []
        self._last: Finding | None = None

    def push(self, finding: Finding) -> None:
        """Take the next frame."""
        # Only abdomens were ever graded by people; of other planes the network's quality says nothing.
        grade = finding.quality if self.structure == ABDOMEN else None
        if grade is not None and math.isnan(grade):
            grade = 0.0
        size = size_px(finding.found[self.structure])
        self._selector.push(Sized(len(self._indices), size, finding, grade))
        self._indices.append(finding.frame.index)
        self._last = finding

    def finish(self, intervals: Intervals | None, *, only_simulated: bool) -> StructureResult:
        """End the sweep and measure.

        Args:
            intervals: the bundle's tables, or None where it has none.
            only_simulated: the bundle knows the structure from simulated pictures alone, and the source is not known to
                be one.
        """
        choice = self._by_source(self._selector.finish())
        best = choice.measured
        reason = self._why_nothing(choice)
        if best is None or reason is not None:
            return self._nothing(choice, reason or "nothing was chosen")
        finding = best.item
        outline = finding.found[self.structure]
        assert isinstance(outline, Outline | Shaft)  # noqa: S101 - what has a size was outlined
        agreed = fuse([[kept.size for kept in sorted(choice.frames, key=lambda kept: kept.index)]])
        if isinstance(agreed, Abstained):
            return self._nothing(choice, agreed.reason)
        frames = (finding.frame, *(kept.item.frame for kept in choice.frames if kept is not best))
        if only_simulated:
            hidden = Abstained(_WHEN_SIMULATED.format(self.structure))
            measured: Mapping[Quantity, Measured | Abstained] = dict.fromkeys(QUANTITIES[self.structure], hidden)
        else:
            measured = measure(self.structure, outline, intervals, agreed.effective_frames)
        return StructureResult(
            self.structure, choice, measured, finding.frame, outline, frames, _why(choice, finding.frame.index)
        )

    def _by_source(self, choice: Choice[Finding]) -> Choice[Finding]:
        """Name runs by the source's own numbers of frames, which count those that never came too."""

        def named(run: Run) -> Run:
            return Run(self._indices[run.first], self._indices[run.last], run.best)

        chosen = None if choice.chosen is None else named(choice.chosen)
        return replace(choice, runs=tuple(named(run) for run in choice.runs), chosen=chosen)

    def _nothing(self, choice: Choice[Finding], reason: str) -> StructureResult:
        nothing = dict.fromkeys(QUANTITIES[self.structure], Abstained(reason))
        return StructureResult(self.structure, choice, nothing, None, None, (), reason)

    def _why_nothing(self, choice: Choice[Finding]) -> str | None:
        """Say why no frame is measured, or None where one is."""
        if choice.doubt is not None:
            return choice.doubt
        if choice.frames:
            return None
        found = self._last.found[self.structure] if self._last else None
        if len(self._indices) == 1 and isinstance(found, Abstained):
            return found.reason
        if choice.seen:
            return (
                f"the {self.structure} was outlined in {choice.seen} of {len(self._indices)} frames, never for long "
                "enough; hold the probe still on it"
            )
        return f"no plane of the {self.structure} in {len(self._indices)} frames; sweep across the {self.structure}"


def _why(choice: Choice[Finding], index: int) -> str:
    """Explain a choice in a sentence."""
    run = choice.chosen
    if run is None or run.first == run.last:
        return "the only frame"
    others = f", of {len(choice.runs)} runs the best," if len(choice.runs) > 1 else ""
    count = len(choice.frames)
    which = f"the best of {count} graded best" if choice.graded else f"the middle one by size of the {count} largest"
    return f"frames {run.first} to {run.last}{others} show the structure; frame {index} is {which}"


def measure(
    structure: str, found: Outline | Shaft, intervals: Intervals | None, effective_frames: float
) -> Mapping[Quantity, Measured | Abstained]:
    """Measure what was outlined.

    Args:
        structure: its name.
        found: the outline, or the shaft of a femur.
        intervals: the bundle's tables, or None where it has none.
        effective_frames: number of independent frames that the values are worth.
    """
    if isinstance(found, Shaft):
        return measure_femur(found, intervals, effective_frames)
    by_structure = measure_head if structure == HEAD else measure_abdomen
    return by_structure(found, intervals, effective_frames)


def join_sweeps(results: Sequence[StructureResult], intervals: Intervals | None) -> StructureResult:
    """Join what several sweeps of one subject say of one structure.

    The sweep in the middle by the structure's principal length speaks for all, with its picture; the others narrow its
    interval, or contradict it.

    Args:
        results: of the same structure, at least one.
        intervals: the bundle's tables, or None where it has none.
    """
    structure = results[0].structure
    principal = PRINCIPAL[structure]
    valued = [(result.measured[principal], result) for result in results]
    known = sorted(((m.value, r) for m, r in valued if isinstance(m, Measured)), key=lambda pair: pair[0])
    if not known:
        # The reason of the sweep that came nearest to a value.
        return max(results, key=lambda result: result.choice.seen)
    agreed = fuse([[length] for length, _ in known])
    kept = known
    if not isinstance(agreed, Abstained):
        kept = [pair for pair, (agrees,) in zip(known, agreed.kept, strict=True) if agrees]
    middle_length, best = kept[(len(kept) - 1) // 2]
    # Of few sweeps that lie evenly far apart none is an outlier.
    if isinstance(agreed, Abstained) or kept[-1][0] - kept[0][0] > MAX_SPREAD * middle_length:
        said = ", ".join(f"{length:.0f}" for length, _ in known)
        reason = f"the sweeps do not agree ({principal.name} {said} {principal.unit}); sweep again"
        nothing = dict.fromkeys(QUANTITIES[structure], Abstained(reason))
        return StructureResult(structure, best.choice, nothing, None, None, (), reason)
    if best.outline is None:
        return best
    measured = measure(structure, best.outline, intervals, agreed.effective_frames)
    why = f"of {len(known)} sweeps that measured it, the one in the middle"
    return StructureResult(structure, best.choice, measured, best.frame, best.outline, best.frames, why)
