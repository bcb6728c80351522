"""What `edgefetal phantom` writes: simulated exams, whose truth is known.

Blind sweeps lie in ACOUSLIC-AI's layout with `truth/<uuid>.json`; every other exam is a folder `<uuid>/` with
`truth.json` and, for each sweep, `sweep_1.mha`, `.mp4`, `.dcm` or a folder of pictures, and its masks beside it. An
exam without a truth was never finished, and is none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgefetal_calibration.datasets.files import (
    as_dataset_error,
    bytes_digest,
    frames_digest,
    open_stack,
    stack_digest,
    take,
)
from edgefetal_calibration.datasets.labelled import NOT_THE_PLANE, OPTIMAL, SUBOPTIMAL, LabelledSweep
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.scene import PlaneName
from edgefetal_calibration.phantom.series import ACOUSLIC_TRUTHS, TRUTH
from edgefetal_calibration.phantom.writers import ACOUSLIC_IMAGES, ACOUSLIC_MASKS
from edgefetal_devices.errors import DatasetError
from edgefetal_runtime.biometry.quantities import AC, FL, HC
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.scale import NOT_GIVEN, Scale
from edgefetal_runtime.sources.dicom import open_dicom
from edgefetal_runtime.sources.metaimage import open_metaimage
from edgefetal_runtime.sources.picture import read_grey
from edgefetal_runtime.sources.video import VideoSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

LICENCE = "the project's own"
ATTRIBUTION = "simulated by edgefetal phantom; nobody's pictures"

KIND = "phantom"
_MAX_TRUTH_BYTES = 64_000_000
_LENGTHS = {HC.name: "hc_mm", AC.name: "ac_mm", FL.name: "fl_mm"}


class _FrameTruth(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    sweep: int = Field(ge=1)
    frame: int = Field(ge=0)
    plane: PlaneName
    optimal: bool
    hc_mm: float | None
    ac_mm: float | None
    fl_mm: float | None


class _Truth(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    uuid: str
    protocol: Protocol
    seed: int
    number: int
    skill: float
    mm_per_px: tuple[float, float]
    frames: tuple[_FrameTruth, ...] = Field(min_length=1)


@dataclass(frozen=True)
class PhantomExam:
    """One simulated examination, still on disk.

    Its masks are of the structure that its protocol is for, because no others are written; planes and lengths are known
    of every frame, and grades where the protocol is for the abdomen.

    Args:
        name: its uuid.
        truth: path of its truth.
        stack: the stack of a blind exam in ACOUSLIC-AI's layout; None where each sweep has its own file.
        stack_labels: the stack of its masks, likewise.
    """

    name: str
    truth: Path
    stack: Path | None = None
    stack_labels: Path | None = None

    @property
    def subject(self) -> str:
        """The fetus: exams of one seed and number are of the same one, whatever is swept and however it was written.

        Raises:
            DatasetError: the truth is missing or malformed.
        """
        return f"{KIND}/{_fetus(self.truth)}"

    def digest(self) -> str:
        """SHA-256 of its size and first frames; that of a blind exam is the same as when it is read as ACOUSLIC-AI's.

        Raises:
            DatasetError: the pictures are missing or damaged.
        """
        return stack_digest(self.stack) if self.stack else _sweep_digest(self.truth)

    def labels_digest(self) -> str:
        """SHA-256 of the bytes of its truth, from which its masks were drawn too."""
        return bytes_digest(self.truth)

    def sweeps(self) -> Iterator[LabelledSweep]:
        """Read its sweeps, one at a time.

        Raises:
            DatasetError: the truth or a file is missing, malformed, or of another number or size of frames.
        """
        truth = _read_truth(self.truth)
        by_sweep = _by_sweep(truth, self.truth)
        target = truth.protocol.target
        graded = target is PlaneName.ABDOMEN
        with as_dataset_error():
            scale = Scale(*truth.mm_per_px, origin=f"truth of {self.name}", relative_uncertainty=0.0)
        for number, (frames, (pixels, mask)) in enumerate(zip(by_sweep, self._pixels(by_sweep), strict=True), 1):
            yield LabelledSweep(
                name=f"sweep_{number}",
                pixels=pixels,
                masks={target.value: mask},
                planes=tuple(frame.plane.value for frame in frames),
                grades=np.array([_grade(frame) for frame in frames], np.uint8) if graded else None,
                scale=scale,
                lengths_mm={
                    measure: np.array([getattr(frame, field) for frame in frames], np.float64)
                    for measure, field in _LENGTHS.items()
                },
                skill=truth.skill,
            )

    def _pixels(
        self, by_sweep: list[list[_FrameTruth]]
    ) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
        """Yield the pictures of each sweep and their masks, both of shape (N, H, W)."""
        if self.stack is None or self.stack_labels is None:
            for number, frames in enumerate(by_sweep, 1):
                stem = self.truth.parent / f"sweep_{number}"
                labels = stem.with_name(f"{stem.name}_mask")
                pixels = _whole(stem, len(frames))
                yield pixels, np.minimum(_whole(labels, len(frames)), 1)
            return
        sources = open_stack(self.stack), open_stack(self.stack_labels)
        count = sum(map(len, by_sweep))
        for source in sources:
            if source.frame_count != count:
                raise DatasetError(
                    f"{source.path} has {source.frame_count} frames and {self.truth} knows of {count}; draw the exam "
                    "again."
                )
        pictures, masks = (source.frames() for source in sources)
        for frames in by_sweep:
            pixels = take(pictures, len(frames), self.stack)
            yield pixels, np.minimum(take(masks, len(frames), self.stack_labels), 1)


def read_phantom(root: Path) -> list[PhantomExam]:
    """List the finished exams of a folder that `edgefetal phantom` wrote, by uuid.

    Raises:
        DatasetError: there are none, or the pictures of one are missing.
    """
    exams = []
    for truth in root.glob(f"{ACOUSLIC_TRUTHS}/*.json"):
        stacks = [root / folder / f"{truth.stem}.mha" for folder in (ACOUSLIC_IMAGES, ACOUSLIC_MASKS)]
        for path in stacks:
            if not path.is_file():
                raise DatasetError(f"{path} is missing, and {truth} is its truth; draw the exam again.")
        exams.append(PhantomExam(truth.stem, truth, *stacks))
    exams += [PhantomExam(truth.parent.name, truth) for truth in root.glob(f"*/{TRUTH}")]
    # What a killed run left behind has a hidden name.
    exams = sorted((exam for exam in exams if not exam.name.startswith(".")), key=lambda exam: exam.name)
    if not exams:
        raise DatasetError(
            f"{root} holds no finished exam (no {ACOUSLIC_TRUTHS}/<uuid>.json and no <uuid>/{TRUTH}); draw some with "
            "`edgefetal phantom`."
        )
    return exams


def _read_truth(path: Path) -> _Truth:
    try:
        if path.stat().st_size > _MAX_TRUTH_BYTES:
            raise DatasetError(f"{path} is larger than any truth of an exam; draw the exam again.")
        content = json.loads(path.read_bytes())
        # Nothing but a simulation has a truth of this kind, and it says so.
        if not isinstance(content, dict) or content.get("simulated") is not True:
            raise DatasetError(f"{path} is not the truth of a simulated exam; draw the exam again.")
        return _Truth.model_validate(content)
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not the truth of a simulated exam ({_first(error)}); draw it again.") from error


@lru_cache(maxsize=4096)
def _fetus(path: Path) -> str:
    truth = _read_truth(path)
    return f"{truth.seed}-{truth.number}"


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        wrong: Any = error.errors()[0]
        return f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}"
    return str(error)


def _by_sweep(truth: _Truth, path: Path) -> list[list[_FrameTruth]]:
    """Group the frames by sweep.

    Raises:
        DatasetError: sweeps or frames are missing, or not in order.
    """
    sweeps: list[list[_FrameTruth]] = [[] for _ in range(truth.protocol.sweep_count)]
    for frame in truth.frames:
        if frame.sweep > len(sweeps) or frame.frame != len(sweeps[frame.sweep - 1]):
            raise DatasetError(f"{path}: frame {frame.frame} of sweep {frame.sweep} is out of order; draw it again.")
        sweeps[frame.sweep - 1].append(frame)
    if not all(sweeps):
        raise DatasetError(f"{path} knows of no frames of sweep {sweeps.index([]) + 1}; draw it again.")
    return sweeps


def _grade(frame: _FrameTruth) -> int:
    if frame.plane is not PlaneName.ABDOMEN:
        return NOT_THE_PLANE
    return OPTIMAL if frame.optimal else SUBOPTIMAL


def _whole(stem: Path, count: int) -> npt.NDArray[np.uint8]:
    """Read a sweep that must have so many frames, shape (count, H, W)."""
    frames = _frames(stem)
    pixels = take(frames, count, stem)
    with as_dataset_error():
        if next(frames, None) is not None:
            raise DatasetError(f"{stem} has more frames than the {count} that its truth knows of; draw it again.")
    return pixels


def _frames(stem: Path) -> Iterator[Frame]:
    """Read a sweep in whatever format it was written.

    Raises:
        DatasetError: it is in none.
    """
    if stem.is_dir():
        pictures = sorted(stem.glob("*.png"))
        return (Frame(read_grey(p), stem.name, k, 0.0, NOT_GIVEN) for k, p in enumerate(pictures))
    stack, video, dicom = (stem.with_name(f"{stem.name}{suffix}") for suffix in (".mha", ".mp4", ".dcm"))
    with as_dataset_error():
        if stack.is_file():
            return open_metaimage(stack).frames()
        if video.is_file():
            return VideoSource(video).frames()
        if dicom.is_file():
            return open_dicom(dicom).frames()
    raise DatasetError(f"{stem} is there neither as a folder nor as .mha, .mp4 or .dcm; draw the exam again.")


@lru_cache(maxsize=4096)
def _sweep_digest(path: Path) -> str:
    truth = _read_truth(path)
    frames = chain.from_iterable(_frames(path.parent / f"sweep_{k}") for k in range(1, truth.protocol.sweep_count + 1))
    with as_dataset_error():
        return frames_digest(len(truth.frames), (frame.pixels for frame in frames))
