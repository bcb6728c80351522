"""ACOUSLIC-AI's challenge score: one frame chosen from an exam of blind sweeps, and the abdomen outlined in it.

The rules are those of the challenge's page and of its evaluator (DIAGNijmegen/ACOUSLIC-AI-evaluation-method, ebf14b3).
Of each case:

- WFSS: 1 for an optimal frame, or for a suboptimal one where the exam has no optimal one; 0.6 for a suboptimal one
  where it has; else 0.
- soft Dice: with the annotation of the chosen frame; where it has none, with that of the closest annotated frame of the
  same sweep within 15 frames, times 1 - distance / 15; else 0.
- NAE_AC: |reference - ours| over the larger; the reference is that of the chosen frame's sweep, ours the ellipse
  through that part of the outline that the edge of the field of view does not cut off; 1 where either is missing.
- Hausdorff distance in pixels, which ranks nobody: with a frame further off, times the distance in frames; the width of
  the picture times 15 where there is nothing to compare.

The total is 0.5 (1 - NAE_AC) + 0.25 WFSS + 0.25 soft Dice. The evaluator departs from its rules in some places; what
follows them is computed here, and what it computes with `as_official`:

- It takes the closest annotated frame before the chosen one whenever there is one, however close the next is.
- Its Hausdorff distance is negative where that frame comes before; and that frame's annotation is not cut to the field.
- Of an empty answer on a frame without annotation its Dice is infinite, and so is the mean. An answer of no frame (-1)
  is compared with the last frame of the exam, and so is nearly always such a one.
- Its standard deviation of the total is the total's formula applied to the standard deviations of the parts.
- A pixel is 0.28 mm whatever the file says, and a picture 744 pixels wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from edgefetal_calibration.datasets.labelled import NOT_THE_PLANE, OPTIMAL, SUBOPTIMAL
from edgefetal_calibration.phantom.probe import acouslic_fan, acouslic_probe
from edgefetal_devices.errors import DatasetError, InputError
from edgefetal_runtime.biometry.quantities import AC
from edgefetal_runtime.infer.bundle import ABDOMEN
from edgefetal_runtime.sources.metaimage import read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledExam, LabelledSweep

    Mask = npt.NDArray[np.bool_]

NO_FRAME: Final = -1
MAX_DISTANCE: Final = 15
PARTIAL_WFSS: Final = 0.6
OFFICIAL_MM_PER_PX: Final = 0.28
OFFICIAL_WIDTH_PX: Final = 744
# What the outline is drawn with room for, what is taken off along the edge of the field, and what an ellipse needs.
_PAD_PX: Final = 200
_EDGE_DILATIONS: Final = 3
_MIN_POINTS: Final = 6
_LEAST_MM: Final = 1e-6
_ELEMENTS: Final = {"MET_UCHAR": "u1", "MET_FLOAT": "<f4", "MET_DOUBLE": "<f8"}


@dataclass(frozen=True, eq=False)
class Answer:
    """What was chosen from an exam.

    Args:
        frame: number of the frame within the exam, from 0, or `NO_FRAME`.
        mask: the abdomen in that frame, shape (H, W); it is not looked at where there is no frame.
    """

    frame: int
    mask: Mask


@dataclass(frozen=True, eq=False)
class CaseTruth:
    """What is known of an exam; the masks are packed, a few kilobytes each.

    Args:
        name: of the exam.
        subject: whose it is.
        sweep_frames: frames of each sweep.
        grades: of every frame, shape (N,).
        shape: rows and columns of a frame.
        mm_per_px: size of a pixel, the same in both directions.
        sweep_ac_mm: reference of each sweep, or None where it has none.
        packed: mask of each annotated frame by its number, as `numpy.packbits` packs it.
    """

    name: str
    subject: str
    sweep_frames: tuple[int, ...]
    grades: npt.NDArray[np.uint8]
    shape: tuple[int, int]
    mm_per_px: float
    sweep_ac_mm: tuple[float | None, ...]
    packed: dict[int, npt.NDArray[np.uint8]]

    def mask(self, frame: int) -> Mask:
        """Return the annotation of a frame, shape (H, W), all False where it has none."""
        packed = self.packed.get(frame)
        if packed is None:
            return np.zeros(self.shape, np.bool_)
        return np.unpackbits(packed, count=self.shape[0] * self.shape[1]).astype(np.bool_).reshape(self.shape)

    def sweep_of(self, frame: int) -> tuple[int, int, int]:
        """Return the number of a frame's sweep, from 0, its first frame and that after its last."""
        ends = np.cumsum(self.sweep_frames)
        sweep = int(np.searchsorted(ends, frame, side="right"))
        return sweep, int(ends[sweep]) - self.sweep_frames[sweep], int(ends[sweep])


def read_case(exam: LabelledExam) -> CaseTruth:
    """Read what is known of an exam, a sweep at a time.

    Raises:
        DatasetError: it cannot be read, its abdomen is not outlined and graded, or its pixels are not known to be
            square.
    """
    grades: list[npt.NDArray[np.uint8]] = []
    references: list[float | None] = []
    packed: dict[int, npt.NDArray[np.uint8]] = {}
    first = 0
    shape, mm_per_px = (0, 0), math.nan
    for sweep in exam.sweeps():
        graded, masks, mm_per_px = _labels(exam, sweep)
        shape = (masks.shape[1], masks.shape[2])
        for index in np.flatnonzero(masks.any(axis=(1, 2))).tolist():
            packed[first + index] = np.packbits(masks[index].astype(np.bool_))
        grades.append(graded)
        references.append(sweep_reference(sweep))
        first += len(graded)
    return CaseTruth(
        name=exam.name,
        subject=exam.subject,
        sweep_frames=tuple(map(len, grades)),
        grades=np.concatenate(grades),
        shape=shape,
        mm_per_px=mm_per_px,
        sweep_ac_mm=tuple(references),
        packed=packed,
    )


def _labels(exam: LabelledExam, sweep: LabelledSweep) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], float]:
    if sweep.grades is None or ABDOMEN not in sweep.masks or sweep.scale is None:
        raise DatasetError(
            f"{exam.name}: the abdomen of {sweep.name} is not outlined and graded with a pixel size, so there is no "
            "challenge score; give acouslic:PATH, or phantom:PATH of that protocol."
        )
    if not math.isclose(sweep.scale.x_mm_per_px, sweep.scale.y_mm_per_px, rel_tol=1e-6):
        raise DatasetError(f"{exam.name}: the pixels of {sweep.name} are not square, as the challenge's are.")
    return sweep.grades, sweep.masks[ABDOMEN], sweep.scale.x_mm_per_px


def sweep_reference(sweep: LabelledSweep) -> float | None:
    """Return the reference circumference of a sweep in mm, or None where it has none.

    ACOUSLIC-AI's is one for the whole sweep. Of a simulated sweep, whose frames each have their own, it is the median
    over the optimal frames, or over the graded ones where none is optimal.
    """
    lengths = sweep.lengths_mm.get(AC.name)
    if lengths is None or sweep.grades is None:
        return None
    for grade in (OPTIMAL, SUBOPTIMAL):
        known = lengths[(sweep.grades == grade) & ~np.isnan(lengths)]
        if len(known):
            return float(np.median(known))
    return None


def acouslic_field() -> Mask:
    """Return the field of view of ACOUSLIC-AI's probe, shape (562, 744): the fan that simulated blind sweeps have."""
    return acouslic_fan().mask(acouslic_probe())


def read_field(path: Path) -> Mask:
    """Read the field of view of a probe from a MetaImage of one plane: what is above zero is seen.

    The challenge's own `fov_mask.mha` holds 32-bit numbers, which no picture of a screen does.

    Returns:
        Shape (H, W).

    Raises:
        SourceError: the file is no MetaImage or cannot be read.
        InputError: it is not one plane of plain numbers.
    """
    fields, start = read_header(path)
    kind = _ELEMENTS.get(fields.get("ElementType", ""))
    size = fields.get("DimSize", "").split()
    plain = fields["ElementDataFile"].upper() == "LOCAL" and fields.get("CompressedData", "False").lower() == "false"
    content = path.read_bytes()[start:]
    if kind is None or not plain or len(size) != 2 or not all(part.isdecimal() for part in size):  # noqa: PLR2004 - a plane
        raise InputError(f"{path} is not one plane of plain numbers in one file; give the evaluator's fov_mask.mha.")
    width, height = map(int, size)
    if len(content) != width * height * np.dtype(kind).itemsize:
        raise InputError(f"{path} does not hold {width} x {height} numbers; copy it again.")
    seen: Mask = np.frombuffer(content, kind).reshape(height, width) > 0
    return seen


@dataclass(frozen=True)
class CaseScore:
    """The scores of one exam.

    Args:
        name: of the exam.
        subject: whose it is.
        frame: the chosen frame, or -1.
        compared_frame: the frame whose annotation the mask was compared with, or None where there was none.
        wfss: weighted frame selection score.
        dice: Dice with the chosen frame's annotation; 0 where it has none.
        soft_dice: Dice with the compared frame's, less the more it is off.
        hausdorff_px: Hausdorff distance to it in pixels, times its distance where it is another frame.
        ac_mm: circumference of the ellipse through the outline, or None where none fits.
        reference_ac_mm: reference of the chosen frame's sweep, or None.
        nae_ac: normalised absolute error of the circumference.
    """

    name: str
    subject: str
    frame: int
    compared_frame: int | None
    wfss: float
    dice: float
    soft_dice: float
    hausdorff_px: float
    ac_mm: float | None
    reference_ac_mm: float | None
    nae_ac: float

    @property
    def total(self) -> float:
        """The weighted sum by which the challenge ranks."""
        return _total(1 - self.nae_ac, self.wfss, self.soft_dice)


def _total(accuracy: float, wfss: float, soft_dice: float) -> float:
    return 0.5 * accuracy + 0.25 * wfss + 0.25 * soft_dice


def score_exams(
    exams: Iterable[LabelledExam],
    answer: Callable[[LabelledExam], Answer],
    field: Mask,
    *,
    as_official: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> list[CaseScore]:
    """Score the answers to exams, one after another.

    Args:
        exams: annotated exams.
        answer: chooses a frame of an exam and outlines the abdomen in it.
        field: where the probe sees, shape (H, W).
        as_official: as the challenge's evaluator computes it.
        advance: called after each exam.

    Raises:
        DatasetError: an exam cannot be read or is not annotated.
        InputError: a frame is not of its exam, or a mask or the field is of another size.
    """
    scores = []
    for exam in exams:
        scores.append(score_case(read_case(exam), answer(exam), field, as_official=as_official))
        advance()
    return scores


def score_case(truth: CaseTruth, answer: Answer, field: Mask, *, as_official: bool = False) -> CaseScore:
    """Score the answer to one exam.

    Args:
        truth: what is known of it.
        answer: what was chosen.
        field: where the probe sees, shape (H, W).
        as_official: as the challenge's evaluator computes it.

    Raises:
        InputError: the frame is not of the exam, or the mask or the field is of another size.
    """
    _check(truth, answer, field)
    chosen = answer.frame != NO_FRAME
    mask = answer.mask.astype(np.bool_) & field if chosen else np.zeros(truth.shape, np.bool_)
    mm_per_px = OFFICIAL_MM_PER_PX if as_official else truth.mm_per_px
    perimeter_px = ellipse_perimeter_px(mask, field)
    ac_mm = None if perimeter_px is None else perimeter_px * mm_per_px
    reference = truth.sweep_ac_mm[truth.sweep_of(answer.frame)[0]] if chosen else None
    overlap = (_official_overlap if as_official else _overlap)(truth, answer.frame, mask, field)
    return CaseScore(
        name=truth.name,
        subject=truth.subject,
        frame=answer.frame,
        compared_frame=overlap.compared_frame,
        wfss=selection_score(truth.grades, answer.frame),
        dice=overlap.dice,
        soft_dice=overlap.soft_dice,
        hausdorff_px=overlap.hausdorff_px,
        ac_mm=ac_mm,
        reference_ac_mm=reference,
        nae_ac=normalised_error(ac_mm, reference),
    )


def _check(truth: CaseTruth, answer: Answer, field: Mask) -> None:
    if not NO_FRAME <= answer.frame < len(truth.grades):
        raise InputError(
            f"{truth.name}: frame {answer.frame} was chosen, and the exam has {len(truth.grades)} from 0; give one of "
            f"them, or {NO_FRAME} for none."
        )
    if field.shape != truth.shape:
        raise InputError(
            f"{truth.name}: the field of view is {field.shape} and the frames are {truth.shape}; give theirs."
        )
    if answer.frame != NO_FRAME and answer.mask.shape != truth.shape:
        raise InputError(f"{truth.name}: the mask is {answer.mask.shape} and the frames are {truth.shape}; resize it.")


def selection_score(grades: npt.NDArray[np.uint8], frame: int) -> float:
    """Return the weighted frame selection score.

    Args:
        grades: of all frames of the exam, shape (N,).
        frame: the chosen one, or `NO_FRAME`.
    """
    if frame == NO_FRAME or grades[frame] == NOT_THE_PLANE:
        return 0.0
    if grades[frame] == OPTIMAL or not (grades == OPTIMAL).any():
        return 1.0
    return PARTIAL_WFSS


def normalised_error(ac_mm: float | None, reference_mm: float | None) -> float:
    """Return the normalised absolute error of a circumference; 1 where either is missing."""
    if ac_mm is None or reference_mm is None:
        return 1.0
    return abs(reference_mm - ac_mm) / max(reference_mm, ac_mm, _LEAST_MM)


def closest_annotated(truth: CaseTruth, frame: int, *, as_official: bool = False) -> int | None:
    """Return the closest annotated frame of a frame's sweep within 15 frames, or None; the earlier of two as close.

    Args:
        truth: what is known of the exam.
        frame: number of a frame.
        as_official: prefer any before it to all after it.
    """
    _, start, end = truth.sweep_of(frame)
    near = [
        other
        for distance in range(1, MAX_DISTANCE + 1)
        for other in (frame - distance, frame + distance)
        if start <= other < end and other in truth.packed
    ]
    if as_official:
        near.sort(key=lambda other: other > frame)
    return near[0] if near else None


@dataclass(frozen=True)
class _Overlap:
    compared_frame: int | None
    dice: float
    soft_dice: float
    hausdorff_px: float


def _overlap(truth: CaseTruth, frame: int, mask: Mask, field: Mask) -> _Overlap:
    """Compare a mask with the annotation of its frame, or of the closest that has one."""
    nothing = _Overlap(None, 0.0, 0.0, float(truth.shape[1] * MAX_DISTANCE))
    if frame == NO_FRAME or not mask.any():
        return nothing
    other = frame if frame in truth.packed else closest_annotated(truth, frame)
    annotated = None if other is None else truth.mask(other) & field
    if other is None or annotated is None or not annotated.any():
        return nothing
    distance = abs(other - frame)
    found, far_px = dice(annotated, mask), hausdorff_px(annotated, mask)
    return _Overlap(
        compared_frame=other,
        dice=found if distance == 0 else 0.0,
        soft_dice=found * (1 - distance / MAX_DISTANCE),
        hausdorff_px=far_px * max(distance, 1),
    )


def _official_overlap(truth: CaseTruth, frame: int, mask: Mask, field: Mask) -> _Overlap:
    """Compare as the evaluator does; the module's docstring says where it departs from its rules."""
    # No frame is number -1, which is the last one of an array.
    own = truth.mask(frame if frame != NO_FRAME else len(truth.grades) - 1) & field
    worst_px = float(OFFICIAL_WIDTH_PX * MAX_DISTANCE)
    if own.any() and mask.any():
        found = dice(own, mask)
        return _Overlap(frame, found, found, hausdorff_px(own, mask))
    if not mask.any():
        undefined = 0.0 if own.any() else math.inf
        return _Overlap(None, undefined, undefined, worst_px)
    other = closest_annotated(truth, frame, as_official=True)
    if other is None:
        return _Overlap(None, 0.0, 0.0, worst_px)
    annotated = truth.mask(other)
    soft = dice(annotated, mask) * (1 - abs(other - frame) / MAX_DISTANCE)
    return _Overlap(other, 0.0, soft, hausdorff_px(annotated, mask) * (other - frame))


def dice(a: Mask, b: Mask) -> float:
    """Dice coefficient of two masks of which at least one is not empty."""
    return 2.0 * int((a & b).sum()) / (int(a.sum()) + int(b.sum()))


def hausdorff_px(a: Mask, b: Mask) -> float:
    """Hausdorff distance between the pixels of two masks that are not empty, in pixels."""
    return max(float(_distance_to(b)[a].max()), float(_distance_to(a)[b].max()))


def _distance_to(mask: Mask) -> npt.NDArray[np.float32]:
    """Distance of every pixel's middle to that of the nearest pixel of a mask, shape (H, W)."""
    outside = np.asarray(~mask, np.uint8)
    return np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def ellipse_perimeter_px(mask: Mask, field: Mask) -> float | None:
    """Return the perimeter of the ellipse through an outline, by the challenge's rules; None where none fits.

    The outline's pixels within three pixels of the edge of the field are left out, because there the field ends and not
    the abdomen. Of what remains the largest piece is fitted (`cv2.fitEllipse`); the perimeter is Ramanujan's first.

    Args:
        mask: shape (H, W).
        field: where the probe sees, shape (H, W).
    """
    outline = _outline(np.pad(mask & field, _PAD_PX))
    edge = cv2.dilate(_outline(np.pad(field, _PAD_PX)), np.ones((3, 3), np.uint8), iterations=_EDGE_DILATIONS)
    outline[edge > 0] = 0
    pieces, _ = cv2.findContours(outline, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    if not pieces:
        return None
    piece = max(pieces, key=cv2.contourArea)
    if len(piece) < _MIN_POINTS:
        return None
    axes = cv2.fitEllipse(piece)[1]
    a, b = axes[0] / 2, axes[1] / 2
    if not (math.isfinite(a) and math.isfinite(b)):
        return None
    return math.pi * (3 * (a + b) - math.sqrt((3 * a + b) * (a + 3 * b)))


def _outline(mask: Mask) -> npt.NDArray[np.uint8]:
    """Draw the outlines of a mask, outer and inner, one pixel wide: shape (H, W), 0 or 255."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    drawn = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(drawn, contours, -1, (255,), 1)
    return drawn


def summarise_challenge(scores: Sequence[CaseScore], *, as_official: bool = False) -> dict[str, Any]:
    """Return mean and standard deviation (over all cases, as of a population) of every score, as JSON values.

    A figure that is infinite, which only the evaluator's Dice can be, is None here, and `n_infinite_dice` says of how
    many cases it comes.

    Args:
        scores: at least one case.
        as_official: the standard deviation of the total is the evaluator's, which is none.
    """
    parts = {
        name: np.array([getattr(score, name) for score in scores], np.float64)
        for name in ("wfss", "dice", "soft_dice", "hausdorff_px", "nae_ac", "total")
    }
    infinite = int(np.isinf(parts["dice"]).sum())
    table = {name: _mean_and_sd(values) for name, values in parts.items()}
    sds = [table[name]["sd"] for name in ("nae_ac", "wfss", "soft_dice")]
    if as_official:
        table["total"]["sd"] = None if None in sds else _total(1 - sds[0], sds[1], sds[2])
    return {
        "n": len(scores),
        "n_subjects": len({score.subject for score in scores}),
        "as_official": as_official,
        "n_infinite_dice": infinite,
        **table,
    }


def _mean_and_sd(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    if not np.isfinite(values).all():
        return {"mean": None, "sd": None}
    return {"mean": float(values.mean()), "sd": float(values.std())}
