"""Many simulated exams on disk, each whole or not there, drawn by one process or several.

An exam counts once its truth is written, which is written last; what a killed run leaves besides has a hidden name or
no truth, and is replaced when the run is resumed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np
import numpy.typing as npt

from edgefetal_calibration.phantom.cine import Cine
from edgefetal_calibration.phantom.exam import Exam, ExamPlan, FrameTruth, SimulatedFrame, sweep_acs
from edgefetal_calibration.phantom.protocol import ACOUSLIC_SWEEPS, Protocol
from edgefetal_calibration.phantom.scene import PlaneName
from edgefetal_calibration.phantom.writers import (
    ACOUSLIC_IMAGES,
    ACOUSLIC_MASKS,
    ACOUSLIC_TABLE,
    HeadPicture,
    SweepCircumferences,
    as_output_error,
    new_folder,
    write_acouslic_exam,
    write_acouslic_table,
    write_dicom,
    write_hc18,
    write_mha,
    write_png,
    write_video,
)
from edgefetal_devices.errors import InputError, OutputError
from edgefetal_runtime.atomic import json_bytes, require_new_folder, write_file
from edgefetal_runtime.biometry.ellipse import Ellipse

if TYPE_CHECKING:
    from concurrent.futures import Future

    Tick = Callable[[], None]

Picture = npt.NDArray[np.uint8]

TRUTH: Final = "truth.json"
ACOUSLIC_TRUTHS: Final = "truth"
FRAMES_PER_S: Final = 20.0
# Pictures of a head sweep that go into a folder in HC18's layout.
_HC18_QUALITY: Final = 0.4
_MAX_EXAMS: Final = 100_000


class FileFormat(str, Enum):
    """How sweeps are written."""

    MHA = "mha"
    MP4 = "mp4"
    DICOM = "dicom"
    PNG = "png"


@dataclass(frozen=True)
class SeriesPlan:
    """Exams that are to be drawn.

    Args:
        protocol: what is swept.
        weeks: gestational age in exact weeks.
        exams: how many.
        seed: of the series.
        skill: of the operator; each exam's is drawn from 0 to 1 if None.
        frame_count: frames of a sweep; the protocol's if None.
        file_format: how sweeps are written.

    Raises:
        InputError: a value is out of range, or the format cannot hold the protocol.
    """

    protocol: Protocol
    weeks: float
    exams: int
    seed: int = 0
    skill: float | None = None
    frame_count: int | None = None
    file_format: FileFormat = FileFormat.MHA

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not 1 <= self.exams <= _MAX_EXAMS:
            raise InputError(f"{self.exams} exams cannot be drawn; ask for 1 to {_MAX_EXAMS}.")
        self.exam(0)

    def exam(self, number: int) -> ExamPlan:
        """Return the plan of one exam, from 0."""
        skill = self.skill
        if skill is None:
            skill = round(float(np.random.default_rng((max(self.seed, 0), number, 11)).uniform()), 3)
        return ExamPlan(self.protocol, self.weeks, self.seed, number, skill=skill, frame_count=self.frame_count)

    def truth_path(self, out: Path, number: int) -> Path:
        """Return where an exam's truth is written."""
        name = self.exam(number).name
        return out / ACOUSLIC_TRUTHS / f"{name}.json" if self._acouslic_layout else out / name / TRUTH

    @property
    def _acouslic_layout(self) -> bool:
        return self.protocol is Protocol.ACOUSLIC and self.file_format is FileFormat.MHA


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


def write_exam(plan: SeriesPlan, number: int, out: Path, *, threads: int = 1, tick: Tick | None = None) -> None:
    """Draw one exam and write it, whole or not at all.

    Args:
        plan: of the series.
        number: of the exam.
        out: folder of the series.
        threads: how many frames are drawn at once.
        tick: called after each frame.

    Raises:
        OutputError: it cannot be written.
    """
    exam = Exam(plan.exam(number))
    truths: list[FrameTruth] = []

    def took(frame: SimulatedFrame) -> None:
        truths.append(frame.truth)
        if tick is not None:
            tick()

    truth_path = plan.truth_path(out, number)
    pictures, masks = _Pictures(exam, threads, took), _Masks(exam)
    if plan.protocol is Protocol.ACOUSLIC and plan.file_format is FileFormat.MHA:
        _remove_leftovers(out, exam.plan.name)
        write_acouslic_exam(out, exam.plan.name, pictures, masks)
        with as_output_error(truth_path):
            truth_path.parent.mkdir(exist_ok=True)
        write_file(truth_path, json_bytes(_record(exam, truths)))
        return
    with new_folder(truth_path.parent) as folder:
        _write_sweeps(plan, exam, folder, pictures, masks)
        write_file(folder / TRUTH, json_bytes(_record(exam, truths)))


def _record(exam: Exam, truths: list[FrameTruth]) -> dict[str, Any]:
    record = exam.record(truths)
    record["sweep_ac_mm"] = sweep_acs(truths, len(exam.planes))
    return record


def _remove_leftovers(out: Path, name: str) -> None:
    """Remove what a killed run left of an exam that has no truth yet."""
    for folder in (ACOUSLIC_IMAGES, ACOUSLIC_MASKS):
        with contextlib.suppress(OSError):
            (out / folder / f"{name}.mha").unlink()


def _write_sweeps(plan: SeriesPlan, exam: Exam, folder: Path, pictures: _Pictures, masks: _Masks) -> None:
    """Write every sweep of an exam into its own file or folder, with the masks of its target beside it."""
    _, fan = exam.probe_and_fan
    shown, first = iter(pictures), 0
    for number, planes in enumerate(exam.planes, 1):
        frames = np.stack(list(itertools.islice(shown, len(planes))))
        labels = np.stack([masks[first + k] for k in range(len(planes))])
        cine = Cine(frames, FRAMES_PER_S, fan.x_mm_per_px, fan.y_mm_per_px)
        stem = f"sweep_{number}"
        if plan.file_format is FileFormat.PNG:
            for kind, stack in (("", frames), ("_mask", labels)):
                (folder / f"{stem}{kind}").mkdir()
                for index, picture in enumerate(stack):
                    write_png(picture, folder / f"{stem}{kind}" / f"{index:04d}.png")
        else:
            if plan.file_format is FileFormat.MHA:
                write_mha(cine, folder / f"{stem}.mha")
            elif plan.file_format is FileFormat.MP4:
                write_video(cine, folder / f"{stem}.mp4")
            else:
                write_dicom(cine, folder / f"{stem}.dcm", name=f"{exam.plan.name}-{number}")
            write_mha(Cine(labels, FRAMES_PER_S, fan.x_mm_per_px, fan.y_mm_per_px), folder / f"{stem}_mask.mha")
        if plan.protocol is Protocol.HEAD and plan.file_format is FileFormat.PNG:
            write_hc18(folder / "hc18", _heads(exam, frames))
        first += len(planes)


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


def write_series(
    plan: SeriesPlan,
    out: Path,
    *,
    workers: int = 1,
    resume: bool = False,
    on_exam: Tick | None = None,
    on_frame: Tick | None = None,
) -> list[Path]:
    """Draw a series of exams and write it.

    Args:
        plan: of the series.
        out: folder of the series; must not exist unless `resume`.
        workers: processes for several exams, or threads for a single one; the bytes do not depend on it.
        resume: keep the exams that are there, and draw only the others.
        on_exam: called after each exam.
        on_frame: called after each frame, where all is drawn by this process.

    Returns:
        Paths of the truths, in order.

    Raises:
        InputError: there are no workers.
        OutputError: the folder exists, belongs to another series, or cannot be written.
    """
    if workers < 1:
        raise InputError(f"{workers} workers draw nothing; give at least 1.")
    if not resume:
        require_new_folder(out)
    with as_output_error(out):
        out.mkdir(parents=True, exist_ok=True)
    paths = [plan.truth_path(out, number) for number in range(plan.exams)]
    todo = [number for number, path in enumerate(paths) if not _is_done(plan, number, path)]
    tell = on_exam or (lambda: None)
    for _ in range(plan.exams - len(todo)):
        tell()
    if workers == 1 or len(todo) <= 1:
        for number in todo:
            write_exam(plan, number, out, threads=workers, tick=on_frame)
            tell()
    else:
        _in_processes(plan, todo, out, min(workers, len(todo)), tell)
    if plan.protocol is Protocol.ACOUSLIC and plan.file_format is FileFormat.MHA:
        _write_table(out)
    return paths


def _is_done(plan: SeriesPlan, number: int, path: Path) -> bool:
    """Say whether an exam is there; one of the same name but another plan is refused.

    Raises:
        OutputError: the exam is of another series.
    """
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read ({error}); write to another folder.") from error
    exam = plan.exam(number)
    count = exam.frame_count or exam.protocol.frame_count
    wanted = (exam.weeks, exam.skill, exam.protocol.sweep_count * count)
    try:
        found = (record["weeks"], record["skill"], len(record["frames"]))
    except (KeyError, TypeError) as error:
        raise OutputError(f"{path} is no truth of a simulated exam; write to another folder.") from error
    if wanted != found:
        raise OutputError(f"{path} is of another series; write to another folder, or ask for the same exams.")
    return True


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however that ended; else it would draw on unseen."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _in_processes(plan: SeriesPlan, todo: list[int], out: Path, workers: int, tell: Tick) -> None:
    """Draw exams by several processes, no more of them waiting than are needed."""
    # A fork of a process in which OpenCV has threads may hang.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)
    waiting: set[Future[None]] = set()
    try:
        for number in todo:
            waiting.add(pool.submit(write_exam, plan, number, out))
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                tell()
    except BrokenProcessPool as error:
        raise OutputError(
            "A drawing process was ended from outside, perhaps for want of memory; resume with fewer workers."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _write_table(out: Path) -> None:
    """Write the circumferences of all exams that are there, in place of an earlier table."""
    rows = []
    for path in sorted((out / ACOUSLIC_TRUTHS).glob("*.json")):
        record = json.loads(path.read_bytes())
        acs = tuple(record["sweep_ac_mm"])[:ACOUSLIC_SWEEPS]
        rows.append(SweepCircumferences(record["uuid"], f"sim-{record['seed']}-{record['number']}", acs))
    target = out / ACOUSLIC_TABLE
    with as_output_error(target), tempfile.TemporaryDirectory(prefix=".table.", dir=out) as folder:
        write_acouslic_table(Path(folder), rows)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(Path(folder) / ACOUSLIC_TABLE, target.with_name(f".{target.name}.partial"))
        os.replace(target.with_name(f".{target.name}.partial"), target)  # noqa: PTH105 - the line above names both
