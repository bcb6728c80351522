"""The files of one simulated exam: its sweeps, the masks of its target, and the truth of what was written."""

from __future__ import annotations

import contextlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np
import numpy.typing as npt

from edgefetal_calibration.phantom.cine import Cine
from edgefetal_calibration.phantom.scene import PlaneName
from edgefetal_calibration.phantom.writers import (
    ACOUSLIC_IMAGES,
    ACOUSLIC_MASKS,
    HeadPicture,
    write_acouslic_exam,
    write_dicom,
    write_hc18,
    write_mha,
    write_png,
    write_video,
)
from edgefetal_runtime.biometry.ellipse import Ellipse

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_calibration.phantom.capture_plan import CapturePlan
    from edgefetal_calibration.phantom.exam import Exam, FrameTruth, SimulatedFrame

Picture = npt.NDArray[np.uint8]
Tick = Callable[[], None]

FRAMES_PER_S: Final = 20.0
# Pictures of a head sweep that go into a folder in HC18's layout.
_HC18_QUALITY: Final = 0.4
# Keeps the draw of the lost frames apart from the other draws of an exam.
_LOST_STREAM: Final = 17


class FileFormat(str, Enum):
    """How sweeps are written."""

    MHA = "mha"
    MP4 = "mp4"
    DICOM = "dicom"
    PNG = "png"


class _Frames(Sequence[Picture], ABC):
    """Something of every frame of an exam, made when it is asked for."""

    def __init__(self, exam: Exam) -> None:
        self._exam = exam
        self._places = [(sweep, k) for sweep, planes in enumerate(exam.planes) for k in range(len(planes))]

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Picture: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Picture]: ...

    def __getitem__(self, index: int | slice) -> Picture | Sequence[Picture]:
        if isinstance(index, slice):
            return [self._at(*place) for place in self._places[index]]
        return self._at(*self._places[index])

    @abstractmethod
    def _at(self, sweep: int, index: int) -> Picture:
        """Return that of one frame."""


class _Pictures(_Frames):
    """Pictures; taken one after another, several are drawn at once, and each is told of."""

    def __init__(self, exam: Exam, threads: int, took: Callable[[SimulatedFrame], None]) -> None:
        super().__init__(exam)
        self._threads, self._took = threads, took

    def __iter__(self) -> Iterator[Picture]:
        for frame in self._exam.frames(self._threads):
            self._took(frame)
            yield frame.picture

    def _at(self, sweep: int, index: int) -> Picture:
        return self._exam.frame(sweep, index).picture


class _Masks(_Frames):
    """Masks of the exam's target."""

    def _at(self, sweep: int, index: int) -> Picture:
        return self._exam.mask(sweep, index)


def write_stacks(exam: Exam, out: Path, threads: int, tick: Tick) -> dict[str, Any]:
    """Write a blind exam's two stacks in ACOUSLIC-AI's layout.

    Args:
        exam: what is drawn.
        out: root of the dataset.
        threads: how many frames are drawn at once.
        tick: called after each frame.

    Returns:
        The truth of what was written, as JSON.

    Raises:
        OutputError: a file cannot be written.
    """
    truths: list[FrameTruth] = []

    def took(frame: SimulatedFrame) -> None:
        truths.append(frame.truth)
        tick()

    # What a killed run left of an exam that has no truth yet.
    for folder in (ACOUSLIC_IMAGES, ACOUSLIC_MASKS):
        with contextlib.suppress(OSError):
            (out / folder / f"{exam.plan.name}.mha").unlink()
    write_acouslic_exam(out, exam.plan.name, _Pictures(exam, threads, took), _Masks(exam))
    _, fan = exam.probe_and_fan
    return exam.record(truths, (fan.x_mm_per_px, fan.y_mm_per_px))


def write_sweeps(
    exam: Exam, folder: Path, file_format: FileFormat, capture: CapturePlan, *, threads: int, tick: Tick
) -> dict[str, Any]:
    """Write every sweep of an exam into its own file or folder, with the masks of its target beside it.

    Args:
        exam: what is drawn.
        folder: of the exam; must exist.
        file_format: of the sweeps.
        capture: what they go through before they are written.
        threads: how many frames are drawn at once.
        tick: called after each frame.

    Returns:
        The truth of what was written, as JSON.

    Raises:
        InputError: the capture chain does not fit the sweeps.
        OutputError: a file cannot be written.
    """
    drawn = exam.frames(threads)
    truths: list[FrameTruth] = []
    _, fan = exam.probe_and_fan
    mm_per_px = fan.x_mm_per_px, fan.y_mm_per_px
    # Labels do not survive lossy video, and a DICOM file of labels would be taken for pictures.
    masks_format = FileFormat.PNG if file_format is FileFormat.PNG else FileFormat.MHA
    for number, planes in enumerate(exam.planes, 1):
        cine, masks, known = _taken(itertools.islice(drawn, len(planes)), exam, tick)
        lost_seed = int(np.random.default_rng((exam.plan.seed, exam.plan.number, number, _LOST_STREAM)).integers(2**31))
        captured = capture.capture(cine, masks, face_y_px=fan.face_y_px, seed=lost_seed)
        stem = folder / f"sweep_{number}"
        if file_format is FileFormat.DICOM:
            name = f"{exam.plan.name}-{number}"
            write_dicom(captured.cine, stem.with_suffix(".dcm"), name=name, annotated=capture.text is not None)
        else:
            _write_sweep(captured.cine, stem, file_format)
        _write_sweep(captured.masks, stem.with_name(f"{stem.name}_mask"), masks_format)
        # HC18's pictures have no marks of a scanner and no pixels that are not square.
        if file_format is FileFormat.PNG and exam.plan.protocol.target is PlaneName.HEAD and not capture.changes:
            write_hc18(folder / "hc18", _heads(exam, cine.frames))
        truths += [replace(known[shown], index=index) for index, shown in enumerate(captured.shown.tolist())]
        mm_per_px = captured.cine.x_mm_per_px, captured.cine.y_mm_per_px
    return exam.record(truths, mm_per_px)


def _taken(frames: Iterable[SimulatedFrame], exam: Exam, tick: Tick) -> tuple[Cine, Cine, list[FrameTruth]]:
    """Take the frames of a sweep: pictures, masks of the exam's target, and truth."""
    _, fan = exam.probe_and_fan
    pictures, masks, truths = [], [], []
    for frame in frames:
        pictures.append(frame.picture)
        masks.append(frame.mask_of(exam.plan.protocol.target))
        truths.append(frame.truth)
        tick()
    cine, labels = (
        Cine(np.stack(stack), FRAMES_PER_S, fan.x_mm_per_px, fan.y_mm_per_px) for stack in (pictures, masks)
    )
    return cine, labels, truths


def _write_sweep(cine: Cine, stem: Path, file_format: FileFormat) -> None:
    """Write a sweep into its own file, or into a folder of pictures."""
    if file_format is FileFormat.PNG:
        stem.mkdir()
        for index, picture in enumerate(cine.frames):
            write_png(picture, stem / f"{index:04d}.png")
    elif file_format is FileFormat.MP4:
        write_video(cine, stem.with_suffix(".mp4"))
    else:
        write_mha(cine, stem.with_suffix(".mha"))


def _heads(exam: Exam, frames: Picture) -> Iterator[HeadPicture]:
    """Yield the good pictures of a head sweep as HC18 names them."""
    _, fan = exam.probe_and_fan
    count = 0
    for index, plane in enumerate(exam.planes[0]):
        truth = exam.truth(0, index)
        if truth.plane is PlaneName.HEAD and truth.quality >= _HC18_QUALITY:
            outline = exam.scene.head_section(plane)
            if outline is None:
                continue
            count += 1
            x, y = fan.to_px(outline.center_x, outline.center_y)
            step = fan.x_mm_per_px
            outline_px = Ellipse(x, y, outline.semi_major / step, outline.semi_minor / step, outline.angle_rad)
            name = f"{exam.plan.number:03d}_{'' if count == 1 else count}HC.png"
            yield HeadPicture(name, frames[index], outline_px, step)
