"""Frames that the INT8 ranges are taken from, and proof of where they came from."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import partial
from itertools import islice, zip_longest
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_calibration.datasets import hc18
from edgefetal_calibration.datasets.labelled import LabelledSweep
from edgefetal_calibration.datasets.split import Part, Split, kind_in_name, refuse_shared
from edgefetal_devices.errors import DatasetError
from edgefetal_runtime.infer.bundle import HEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledExam

# Fewer pictures than this leave a tensor's rare values unseen.
LEAST_FRAMES = 32
# Of one plane of one sweep, whose frames are much alike.
_FRAMES_PER_PLANE = 4
UNLABELLED = "unlabelled"
# Below this standard deviation, in grey levels, a picture shows nothing.
_LEAST_CONTRAST = 2.0
# Neighbouring pixels of HC18's pictures correlate by 0.97 or more; those of noise by about 0.
_LEAST_CORRELATION = 0.2
RULE = (
    f"training subjects only; of each plane of each sweep the {_FRAMES_PER_PLANE} frames of the smallest SHA-256, "
    "blank ones left out; then one frame in turn of every stratum of plane, dataset kind, picture size (octave of the "
    "mean side) and gain (tercile of the mean grey), by SHA-256; no content twice"
)


@dataclass(frozen=True, eq=False)
class RangeFrame:
    """A frame that ranges are taken from, still on disk.

    Args:
        name: of its exam, with sweep and place where the exam has several frames.
        subject: whose it is.
        sha256: of its size and pixels.
        plane: the plane that it shows, or `UNLABELLED`.
        kind: kind of its dataset.
        width_px: its width.
        height_px: its height.
        mean_grey: mean of its pixels, 0 to 255.
        correlation: of neighbouring pixels.
        contrast: standard deviation of its pixels, in grey levels.
        read: reads its pixels, shape (height_px, width_px), uint8.
    """

    name: str
    subject: str
    sha256: str
    plane: str
    kind: str
    width_px: int
    height_px: int
    mean_grey: float
    correlation: float
    contrast: float
    read: Callable[[], npt.NDArray[np.uint8]]

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Read its pixels, shape (height_px, width_px), uint8.

        Raises:
            DatasetError: they are no longer what they were when the frame was chosen.
        """
        pixels = self.read()
        if frame_sha256(pixels) != self.sha256:
            raise DatasetError(f"{self.name} has changed since it was chosen; start again.")
        return pixels

    def record(self) -> dict[str, str | int | float]:
        """Return what evidence says of it: everything but its pixels."""
        return {
            "name": self.name,
            "subject": self.subject,
            "sha256": self.sha256,
            "plane": self.plane,
            "kind": self.kind,
            "width_px": self.width_px,
            "height_px": self.height_px,
            "mean_grey": round(self.mean_grey, 2),
        }


@dataclass(frozen=True, eq=False)
class RangeSet:
    """The chosen frames, and how they were chosen.

    Args:
        frames: in the order in which they are used.
        rule: the sampling rule, in words.
    """

    frames: tuple[RangeFrame, ...]
    rule: str = RULE

    @property
    def sha256(self) -> str:
        """Hash over the content hashes of the frames, in order."""
        return hashlib.sha256("".join(frame.sha256 for frame in self.frames).encode()).hexdigest()


def frame_sha256(pixels: npt.NDArray[np.uint8]) -> str:
    """SHA-256 of a frame's size and pixels; of a picture on its own, its exam's digest."""
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def draw_range_frames(
    exams: Sequence[LabelledExam], split: Split, count: int, *, least: int = LEAST_FRAMES
) -> RangeSet:
    """Draw calibration frames of training subjects, balanced over what pictures differ in.

    The draw depends on the contents of the frames alone, not on names or order.

    Args:
        exams: the labelled datasets, whole, so that a leak between parts is found.
        split: the split of the training run.
        count: how many frames are wanted; fewer are used where there are fewer.
        least: fewer distinct frames than this are refused.

    Raises:
        DatasetError: there are too few frames, or too few different ones; a drawn frame is blank or noise; or a subject
            or a picture of another part is among the frames.
    """
    parts = {part: split.select(exams, part) for part in Part}
    refuse_shared({part.value: cases for part, cases in parts.items()})
    candidates = [frame for exam in parts[Part.TRAIN] for frame in _candidates(exam)]
    distinct = list({frame.sha256: frame for frame in sorted(candidates, key=lambda f: (f.sha256, f.name))}.values())
    _refuse_few(len(candidates), len(distinct), least)
    drawn = _in_turn(distinct, count)
    _refuse_unfit(drawn)
    _refuse_leaks(drawn, split, [exam for part in (Part.VALIDATION, Part.HELD_OUT) for exam in parts[part]])
    return RangeSet(tuple(drawn))


def _candidates(exam: LabelledExam) -> list[RangeFrame]:
    """Read an exam, and return some frames of every plane of every sweep."""
    kind = kind_in_name(exam.subject) or hc18.KIND
    found: list[RangeFrame] = []
    for number, sweep in enumerate(_pictures(exam)):
        by_plane: dict[str, list[tuple[str, int]]] = {}
        showing = [index for index, pixels in enumerate(sweep.pixels) if pixels.std() >= _LEAST_CONTRAST]
        # A sweep may begin before the probe touches the skin; one that shows nothing at all is refused later.
        for index in showing or range(len(sweep.pixels)):
            plane = UNLABELLED if sweep.planes is None else sweep.planes[index]
            by_plane.setdefault(plane, []).append((frame_sha256(sweep.pixels[index]), index))
        for plane, frames in by_plane.items():
            for sha256, index in sorted(frames)[:_FRAMES_PER_PLANE]:
                alone = len(sweep.pixels) == 1 and sweep.name == exam.name
                found.append(
                    _described(
                        sweep.pixels[index],
                        name=exam.name if alone else f"{exam.name}/{sweep.name}/{index}",
                        subject=exam.subject,
                        sha256=sha256,
                        plane=plane,
                        kind=kind,
                        read=partial(_read, exam, number, index),
                    )
                )
    return found


def _pictures(exam: LabelledExam) -> Iterator[LabelledSweep]:
    """Read an exam's sweeps; of a picture on its own without its mask, which nobody here needs and which takes time."""
    if isinstance(exam, hc18.HeadCase):
        yield LabelledSweep(name=exam.name, pixels=exam.frame().pixels[None], planes=(HEAD,))
    else:
        yield from exam.sweeps()


def _contents(exam: LabelledExam) -> list[str]:
    """Hash every frame of an exam; of a picture on its own that is the exam's own hash."""
    if isinstance(exam, hc18.HeadCase):
        return [exam.digest()]
    return [frame_sha256(pixels) for sweep in exam.sweeps() for pixels in sweep.pixels]


def _described(
    pixels: npt.NDArray[np.uint8],
    *,
    name: str,
    subject: str,
    sha256: str,
    plane: str,
    kind: str,
    read: Callable[[], npt.NDArray[np.uint8]],
) -> RangeFrame:
    return RangeFrame(
        name=name,
        subject=subject,
        sha256=sha256,
        plane=plane,
        kind=kind,
        width_px=pixels.shape[1],
        height_px=pixels.shape[0],
        mean_grey=float(pixels.mean()),
        correlation=_neighbour_correlation(pixels),
        contrast=float(pixels.std()),
        read=read,
    )


def _read(exam: LabelledExam, sweep: int, index: int) -> npt.NDArray[np.uint8]:
    """Read one frame of an exam again.

    Raises:
        DatasetError: the exam no longer has it.
    """
    for number, labelled in enumerate(_pictures(exam)):
        if number == sweep and index < len(labelled.pixels):
            return np.array(labelled.pixels[index], np.uint8)
    raise DatasetError(f"{exam.name} no longer has frame {index} of sweep {sweep}; restore the dataset.")


def _neighbour_correlation(pixels: npt.NDArray[np.uint8]) -> float:
    """Correlate every pixel with the one beside it and the one below it; 0 where there is no contrast."""
    grey = pixels.astype(np.float32) - pixels.mean(dtype=np.float64).astype(np.float32)
    power = float((grey**2).mean())
    if power == 0:
        return 0.0
    beside, below = (grey[:, 1:] * grey[:, :-1]).mean(), (grey[1:] * grey[:-1]).mean()
    return float(beside + below) / (2 * power)


def _refuse_few(frames: int, distinct: int, least: int) -> None:
    """Refuse frames that are none, too few, or the same again and again.

    Raises:
        DatasetError: they are.
    """
    if frames == 0:
        raise DatasetError(
            "The calibration data hold no pictures of the subjects that the network was trained on; give the dataset "
            "that it was trained on."
        )
    if frames < least:
        raise DatasetError(
            f"The calibration data hold {frames} frames of the subjects that the network was trained on, and {least} "
            "are needed to see how far its activations range; give the whole dataset, or add pictures to it."
        )
    if distinct < least:
        raise DatasetError(
            f"Of the {frames} calibration frames only {distinct} are different pictures, and {least} are needed; "
            "remove the copies and add other pictures."
        )


def _in_turn(frames: Sequence[RangeFrame], count: int) -> list[RangeFrame]:
    """Take one frame of every stratum in turn.

    Args:
        frames: of distinct contents, by their hashes.
        count: how many.
    """
    thirds = np.quantile([frame.mean_grey for frame in frames], [1 / 3, 2 / 3])
    strata: dict[tuple[str, str, int, int], list[RangeFrame]] = {}
    for frame in frames:
        octave = round(math.log2(frame.width_px * frame.height_px) / 2)
        gain = int(np.searchsorted(thirds, frame.mean_grey))
        strata.setdefault((frame.plane, frame.kind, octave, gain), []).append(frame)
    rows = [strata[key] for key in sorted(strata)]
    turns = (frame for turn in zip_longest(*rows) for frame in turn if frame is not None)
    return list(islice(turns, count))


def _refuse_unfit(frames: Sequence[RangeFrame]) -> None:
    """Refuse pictures that show nothing, or noise.

    Raises:
        DatasetError: one does; the message names it.
    """
    for frame in frames:
        if frame.contrast < _LEAST_CONTRAST:
            raise DatasetError(
                f"{frame.name} is blank (its grey levels spread by {frame.contrast:.1f}), and ranges taken from it "
                "would be too narrow; remove it from the calibration data."
            )
        if frame.correlation < _LEAST_CORRELATION:
            raise DatasetError(
                f"{frame.name} looks like noise (neighbouring pixels correlate by {frame.correlation:.2f}), and ranges "
                "taken from noise fit no picture; give ultrasound frames."
            )


def _refuse_leaks(frames: Sequence[RangeFrame], split: Split, others: Sequence[LabelledExam]) -> None:
    """Refuse frames of subjects, or with contents, of the validation or the held-out part.

    Args:
        frames: drawn frames.
        split: the split of the training run.
        others: the exams of those two parts.

    Raises:
        DatasetError: one is; the message names it.
    """
    parts = {content: split.parts[subject] for content, subject in split.digests.items()}
    theirs = {sha256: exam.name for exam in others for sha256 in _contents(exam)}
    for frame in frames:
        part = split.parts.get(frame.subject, Part.TRAIN)
        if part is not Part.TRAIN:
            raise DatasetError(
                f"{frame.name} is of subject {frame.subject}, who is in the {part.value} part; leave that subject out "
                "of the calibration data."
            )
        if parts.get(frame.sha256, Part.TRAIN) is not Part.TRAIN or frame.sha256 in theirs:
            other = theirs.get(frame.sha256, "a picture that the training run judged on")
            raise DatasetError(
                f"{frame.name} is the same picture as {other}, which is not of the training part; remove one of them "
                "from the dataset."
            )
