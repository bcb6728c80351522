"""Many simulated exams on disk, each whole or not there, drawn by one process or several.

An exam counts once its truth is written, which is written last; what a killed run leaves besides has a hidden name or
no truth, and is replaced when the run is resumed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgefetal_calibration.phantom.capture_plan import NO_CAPTURE
from edgefetal_calibration.phantom.exam import MAX_FRAMES, Exam, ExamPlan
from edgefetal_calibration.phantom.exam_files import FileFormat, write_stacks, write_sweeps
from edgefetal_calibration.phantom.protocol import ACOUSLIC_SWEEPS, Protocol, picture_px
from edgefetal_calibration.phantom.writers import (
    ACOUSLIC_TABLE,
    SweepCircumferences,
    write_acouslic_table,
)
from edgefetal_devices.errors import InputError, OutputError
from edgefetal_runtime.atomic import as_output_error, json_bytes, new_folder, require_new_folder, write_file

if TYPE_CHECKING:
    from concurrent.futures import Future

    from edgefetal_calibration.phantom.ages import Ages
    from edgefetal_calibration.phantom.capture_plan import CapturePlan
    from edgefetal_calibration.phantom.exam_files import Tick

TRUTH: Final = "truth.json"
ACOUSLIC_TRUTHS: Final = "truth"
_MAX_EXAMS: Final = 100_000


@dataclass(frozen=True)
class SeriesPlan:
    """Exams that are to be drawn.

    Args:
        protocol: what is swept.
        ages: gestational ages, from which each exam's is drawn.
        exams: how many.
        seed: of the series.
        skill: of the operator; each exam's is drawn from 0 to 1 if None.
        frame_count: frames of a sweep; the protocol's if None.
        file_format: how sweeps are written.
        capture: what sweeps go through before they are written.

    Raises:
        InputError: a value is out of range, or the capture chain does not fit the pictures, the frames or the format.
    """

    protocol: Protocol
    ages: Ages
    exams: int
    seed: int = 0
    skill: float | None = None
    frame_count: int | None = None
    file_format: FileFormat = FileFormat.MHA
    capture: CapturePlan = NO_CAPTURE

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not 1 <= self.exams <= _MAX_EXAMS:
            raise InputError(f"{self.exams} exams cannot be drawn; ask for 1 to {_MAX_EXAMS}.")
        self.exam(0)
        self._check_capture()

    def exam(self, number: int) -> ExamPlan:
        """Return the plan of one exam, from 0."""
        skill = self.skill
        if skill is None:
            skill = round(float(np.random.default_rng((max(self.seed, 0), number, 11)).uniform()), 3)
        weeks = self.ages.weeks_of(max(self.seed, 0), number)
        return ExamPlan(self.protocol, weeks, self.seed, number, skill=skill, frame_count=self.frame_count)

    def truth_path(self, out: Path, number: int) -> Path:
        """Return where an exam's truth is written."""
        name = self.exam(number).name
        return out / ACOUSLIC_TRUTHS / f"{name}.json" if self.acouslic_layout else out / name / TRUTH

    @property
    def acouslic_layout(self) -> bool:
        """Whether exams are written as ACOUSLIC-AI's are, in stacks of six sweeps."""
        return self.protocol is Protocol.ACOUSLIC and self.file_format is FileFormat.MHA

    @property
    def frames_drawn(self) -> int:
        """Frames of a sweep before they are captured."""
        return self.frame_count or self.protocol.frame_count

    def _check_capture(self) -> None:
        """Refuse a capture chain that would fail only after the first exam was drawn."""
        if not self.capture.changes:
            return
        if self.acouslic_layout:
            raise InputError(
                "ACOUSLIC-AI's layout fixes the size and the number of its pictures, so nothing is captured in it; "
                "give --format mp4, dicom or png as well, or leave out the options of the capture chain."
            )
        count = self.capture.frame_count(self.frames_drawn)
        if count > MAX_FRAMES:
            raise InputError(f"A sweep of {count} frames fills the disk; freeze for fewer, {MAX_FRAMES} are the most.")
        width, height = self.capture.picture_px(*picture_px(self.protocol), self.frames_drawn)
        if self.file_format is FileFormat.MP4 and (width % 2 or height % 2):
            raise InputError(
                f"Pictures of {width} x {height} pixels cannot be video; rescale or crop to even sides, or give "
                "another --format."
            )


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
    exam, truth_path = Exam(plan.exam(number)), plan.truth_path(out, number)
    tell = tick or (lambda: None)
    if plan.acouslic_layout:
        record = write_stacks(exam, out, threads, tell)
        with as_output_error(truth_path):
            truth_path.parent.mkdir(exist_ok=True)
        write_file(truth_path, json_bytes(_completed(plan, record)))
        return
    with new_folder(truth_path.parent) as folder:
        record = write_sweeps(exam, folder, plan.file_format, plan.capture, threads=threads, tick=tell)
        write_file(folder / TRUTH, json_bytes(_completed(plan, record)))


def _completed(plan: SeriesPlan, record: dict[str, Any]) -> dict[str, Any]:
    """Add to an exam's truth what only its series knows."""
    return {**record, "format": plan.file_format.value, "capture": plan.capture.to_json()}


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
    if plan.acouslic_layout:
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
    count = exam.protocol.sweep_count * plan.capture.frame_count(plan.frames_drawn)
    wanted = (exam.weeks, exam.skill, count, plan.file_format.value, plan.capture.to_json())
    try:
        found = (record["weeks"], record["skill"], len(record["frames"]), record["format"], record["capture"])
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
