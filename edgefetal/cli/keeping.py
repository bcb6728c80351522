"""Where an examination goes: a folder, the clinic's store, or both."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefetal_runtime.exam.folder import ExamFolder
    from edgefetal_runtime.exam.record import BundleRecord, Exam
    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.store.live import OpenExam


@dataclass(frozen=True)
class Kept:
    """An examination that is being kept.

    Args:
        folder: the folder that fills, or None.
        exam: the store's exam, or None.
    """

    folder: ExamFolder | None
    exam: OpenExam | None

    def take_picture(self, name: str, content: bytes) -> None:
        """Keep a picture of a sweep that is over."""
        if self.folder is not None:
            self.folder.add(name, content)
        if self.exam is not None:
            self.exam.add_overlay(name, content)

    def checkpoint(self, exam: Exam) -> None:
        """Keep the record as it is, so that a crash loses no more than the sweep that runs."""
        if self.exam is not None:
            # Not laid out for people: it is written anew after every sweep, with all before, and is half as long so.
            self.exam.checkpoint(exam.model_dump_json())

    def record_frame(self, frame: Frame) -> None:
        """Keep a frame of the video; the first thing that is given up when the disk fills."""
        if self.exam is not None:
            self.exam.record_frame(frame.pixels, frame.index, frame.timestamp_s)

    def notes(self) -> tuple[str, ...]:
        """Say what was left out, and why."""
        return () if self.exam is None else self.exam.notes

    def save(self, exam: Exam) -> str | None:
        """Save the record; what is returned is the store's name for it, and it outlasts a power cut."""
        if self.folder is not None:
            self.folder.finish(exam)
        return None if self.exam is None else self.exam.save(exam, {}).exam_id


@contextlib.contextmanager
def keeping(
    out: Path | None, store: Path | None, patient: str | None, source: str, bundle: BundleRecord
) -> Iterator[Kept]:
    """Open where an examination is to be kept.

    Args:
        out: folder to write, which must not exist; None for none.
        store: folder of the clinic's store; None for none.
        patient: the clinic's name for the patient, for the store.
        source: how the user named the source.
        bundle: what measures.

    Raises:
        InputError: there is neither, or a patient and no store.
        OutputError: either cannot be written.
        StoreError: another process owns the store, or it is damaged.
    """
    from edgefetal_runtime.exam.folder import exam_folder
    from edgefetal_runtime.store.exams import ExamStore

    if out is None and store is None:
        raise InputError("Nothing says where the examination goes; give --out EXAM, --store DIR, or both.")
    if patient is not None and store is None:
        raise InputError("--patient names an examination in the store; give --store DIR too.")
    with contextlib.ExitStack() as stack:
        exam = None
        if store is not None:
            exam = stack.enter_context(ExamStore.open(store)).begin(patient, source, bundle)
        folder = None if out is None else stack.enter_context(exam_folder(out))
        yield Kept(folder, exam)
