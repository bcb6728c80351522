"""An exam that is under way: its pictures, checkpoints and recording, until it is saved."""

from __future__ import annotations

import errno
import os
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgefetal_devices.errors import OutputError
from edgefetal_runtime.store.audit import last_entry, timestamp
from edgefetal_runtime.store.envelope import (
    State,
    StoredExam,
    StoredPicture,
    require_file_name,
    require_patient_id,
)
from edgefetal_runtime.store.recording import RecordedFrame, frame_bytes
from edgefetal_runtime.store.removal import remove_exams
from edgefetal_runtime.store.rows import ExamSummary, read_pictures, write_ended, write_picture, write_row

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from edgefetal_runtime.exam.record import BundleRecord, Exam
    from edgefetal_runtime.store.vault import Vault

_OVERLAY = "overlay"
_SUFFIXES = ((b"\x89PNG", ".png"), (b"\xff\xd8\xff", ".jpg"))


@dataclass(frozen=True)
class Kept:
    """Something was kept.

    Args:
        name: its name in the exam.
    """

    name: str


@dataclass(frozen=True)
class LeftOut:
    """Something was not kept; falsy.

    Args:
        reason: why.
    """

    reason: str

    def __bool__(self) -> bool:
        """Return False, so that `if kept:` reads as it should."""
        return False


def begin_exam(vault: Vault, patient_id: str | None, source: str, bundle: BundleRecord) -> OpenExam:
    """Begin an exam, if the disk could hold it to its end.

    Raises:
        InputError: the patient's id cannot be kept.
        OutputError: the disk is full or read-only.
    """
    require_patient_id(patient_id)
    vault.require_writable()
    if not vault.reserve.restore():
        message = (
            f"The disk of the exam store {vault.folder} is full: {vault.free_bytes() >> 20} MiB are free, and a new "
            f"exam needs {vault.policy.reserve_bytes >> 20} MiB in reserve. Export old exams and delete them, or free "
            "space otherwise, then begin again."
        )
        raise OutputError(message)
    now = timestamp(vault.clock())
    exam = ExamSummary(
        exam_id=f"{now[:19].replace('-', '').replace(':', '')}-{secrets.token_hex(4)}",
        patient_id=patient_id,
        source=source.encode(errors="replace").decode(),
        bundle_name=bundle.name,
        bundle_sha256=bundle.sha256,
        backend=bundle.backend,
        begun_utc=now,
        state="open",
        ended_utc=None,
        kept_from_utc=None,
        notes=(),
        recorded_frames=0,
        envelope_sha256=None,
    )
    try:
        with vault.change("exam begun", patient_id, exam=exam.exam_id) as connection:
            write_row(connection, exam, None)
    except OSError as error:
        raise vault.refused(error) from error
    vault.open_exams.add(exam.exam_id)
    return OpenExam(vault, exam)


class OpenExam:
    """An exam under way. Nothing but `save` raises for a disk that is full: what is left out is said instead."""

    def __init__(self, vault: Vault, exam: ExamSummary) -> None:
        """Take over an exam that was begun."""
        self._vault = vault
        self._exam = exam
        self._pictures: dict[str, StoredPicture] = {}
        self._frames = 0
        self._recording_stopped: LeftOut | None = None

    @property
    def exam_id(self) -> str:
        """The store's name for it."""
        return self._exam.exam_id

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out so far, and why."""
        return self._exam.notes

    def add_picture(
        self, content: bytes, sweep: str, index: int | None, timestamp_s: float | None, role: str
    ) -> Kept | LeftOut:
        """Keep a picture; it outlasts a power cut when this returns `Kept`.

        Args:
            content: a PNG or JPEG file.
            sweep: the sweep that it is of.
            index: position of its frame in the sweep, or None.
            timestamp_s: time of its frame in the source, or None.
            role: what it shows, such as `plane`; part of its name, and not `overlay`.

        Raises:
            OutputError: the exam has ended.
            StoreError: the database is damaged.
        """
        if role == _OVERLAY:
            raise ValueError("overlays come with `save`, under the names that the record has for them")
        suffix = next((suffix for magic, suffix in _SUFFIXES if content.startswith(magic)), ".bin")
        with self._vault.lock:
            self._require_open()
            name = f"{role}-{len(self._pictures) + 1:03d}{suffix}"
            require_file_name(name, frozenset(self._pictures))
            kept = self._keep(name, content, sweep, index, timestamp_s, role)
            if isinstance(kept, LeftOut):
                return kept
            try:
                with self._vault.change(None) as connection:
                    write_picture(connection, self.exam_id, self._pictures[name])
            except OSError as error:
                del self._pictures[name]
                return self._leave_out(f"picture {name}", _words(error))
            return kept

    def add_overlay(self, name: str, content: bytes) -> Kept | LeftOut:
        """Keep a picture that the record names, as soon as there is one; its row is written when the exam is saved.

        Args:
            name: its file name, as in the record.
            content: a PNG file.

        Raises:
            OutputError: the exam has ended, or the name cannot be a file's.
        """
        with self._vault.lock:
            self._require_open()
            require_file_name(name, frozenset(self._pictures))
            return self._keep(name, content, "", None, None, _OVERLAY)

    def checkpoint(self, record_json: str) -> Kept | LeftOut:
        """Keep what is known so far; it outlasts a power cut when this returns `Kept`.

        Args:
            record_json: any JSON; after a crash the exam is found interrupted with the last one.

        Raises:
            OutputError: the exam has ended.
            StoreError: the database is damaged.
        """
        with self._vault.lock:
            self._require_open()
            try:
                with self._vault.change(None) as connection:
                    write_row(connection, replace(self._exam, recorded_frames=self._frames), record_json)
            except OSError as error:
                # The reserve is for the end of the exam, which is worth more than a point on the way.
                return LeftOut(_words(error))
            return Kept(self.exam_id)

    def record_frame(self, pixels: npt.NDArray[np.uint8], index: int, timestamp_s: float) -> Kept | LeftOut:
        """Record a frame of video, as long as the disk has room; it may be lost in a power cut before `save`.

        Args:
            pixels: shape (H, W), uint8.
            index: position in the source.
            timestamp_s: time in the source.

        Raises:
            OutputError: the exam has ended.
        """
        with self._vault.lock:
            self._require_open()
            if self._recording_stopped is not None:
                return self._recording_stopped
            floor = self._vault.policy.stop_recording_below_bytes
            path = self._vault.recording_path(self.exam_id)
            try:
                free = self._vault.free_bytes()
                if free < floor:
                    return self._stop_recording(f"only {free >> 20} MiB are free")
                self._vault.disk.append(path, frame_bytes(RecordedFrame(pixels, index, timestamp_s)))
            except OSError as error:
                return self._stop_recording(_words(error))
            self._frames += 1
            return Kept(path.name)

    def save(self, exam: Exam, overlays: Mapping[str, bytes]) -> StoredExam:
        """Save the exam. When this returns, it outlasts a power cut, with every picture that it names.

        Args:
            exam: the record.
            overlays: PNG pictures by file name.

        Raises:
            OutputError: the disk refuses; the exam stays open, and this can be tried again.
            StoreError: the database is damaged.
        """
        return self.save_record(exam.model_dump_json(indent=1) + "\n", overlays)

    def save_record(self, record_json: str, overlays: Mapping[str, bytes]) -> StoredExam:
        """Save as `save` does, with the text of the record."""
        with self._vault.lock:
            self._require_open()
            # Those of an earlier try, which failed, have no row yet; a deletion since may have taken their content.
            others = frozenset(name for name, picture in self._pictures.items() if picture.role != _OVERLAY)
            for name, content in overlays.items():
                require_file_name(name, others)
                self._keep(name, content, "", None, None, _OVERLAY)
            self._end_recording()
            self._exam = replace(self._exam, recorded_frames=self._frames)
            pictures = tuple(self._pictures[name] for name in sorted(self._pictures))
            ended = self._vault.with_reserve(
                lambda: end_exam(self._vault, self._exam, "saved", record_json, pictures),
            )
            self._vault.open_exams.discard(self.exam_id)
            return ended

    def discard(self) -> None:
        """Forget the exam, as one that was begun by mistake.

        Raises:
            OutputError: the exam has ended, or the disk refuses.
        """
        with self._vault.lock:
            self._require_open()
            self._vault.open_exams.discard(self.exam_id)
            remove_exams(self._vault, (self._exam,), "exam discarded", self._exam.patient_id)

    def _require_open(self) -> None:
        if self.exam_id not in self._vault.open_exams:
            message = f"Exam {self.exam_id} has ended; begin a new one."
            raise OutputError(message)

    def _keep(
        self, name: str, content: bytes, sweep: str, index: int | None, timestamp_s: float | None, role: str
    ) -> Kept | LeftOut:
        """Make a picture's content outlast a power cut; its row follows with the exam's."""
        floor = self._vault.policy.leave_out_pictures_below_bytes
        try:
            free = self._vault.free_bytes()
            if free < floor:
                return self._leave_out(f"picture {name}", f"only {free >> 20} MiB are free")
            sha256 = self._vault.blobs.put(content)
        except OSError as error:
            return self._leave_out(f"picture {name}", _words(error))
        self._pictures[name] = StoredPicture(
            name=name, sha256=sha256, role=role, sweep=sweep, index=index, timestamp_s=timestamp_s
        )
        return Kept(name)

    def _leave_out(self, what: str, why: str) -> LeftOut:
        note = f"{what} was left out, because {why}"
        if note not in self._exam.notes:
            self._exam = replace(self._exam, notes=(*self._exam.notes, note))
        return LeftOut(why)

    def _stop_recording(self, why: str) -> LeftOut:
        self._recording_stopped = self._leave_out(f"video after {self._frames} frames", why)
        return self._recording_stopped

    def _end_recording(self) -> None:
        """Make the recording outlast a power cut, or say that it may not have."""
        if self._frames:
            try:
                self._vault.disk.sync(self._vault.recording_path(self.exam_id))
                self._vault.disk.sync(self._vault.recordings)
            except OSError as error:
                self._leave_out("the end of the video", _words(error))


def end_exam(
    vault: Vault, exam: ExamSummary, state: State, record: str, pictures: tuple[StoredPicture, ...]
) -> StoredExam:
    """Write an exam's blob, then its rows; both outlast a power cut when this returns.

    Raises:
        OSError: the disk refuses. The blob may be there: then the store, when it is next opened, has the exam.
    """
    now = timestamp(vault.clock())
    with vault.reading() as connection:
        last = last_entry(connection)
    ended = StoredExam(
        exam_id=exam.exam_id,
        patient_id=exam.patient_id,
        source=exam.source,
        bundle_name=exam.bundle_name,
        bundle_sha256=exam.bundle_sha256,
        backend=exam.backend,
        begun_utc=exam.begun_utc,
        ended_utc=now,
        # A clock that lost its battery says 1970; counted from there, an exam of today would be old at once.
        kept_from_utc=now if last is None else max(now, last.latest_utc),
        state=state,
        record=record,
        pictures=pictures,
        notes=exam.notes,
        recorded_frames=exam.recorded_frames,
    )
    vault.blobs.put(ended.to_bytes())
    with vault.change(
        f"exam {state}", exam.patient_id, exam=exam.exam_id, pictures=len(pictures), left_out=len(exam.notes)
    ) as connection:
        write_ended(connection, ended)
    return ended


def interrupt_exam(vault: Vault, connection: sqlite3.Connection, exam: ExamSummary) -> StoredExam:
    """End an exam that no process works on any more, with its last checkpoint.

    Raises:
        OSError: the disk refuses; the exam stays open.
    """
    body = connection.execute("SELECT body FROM exam WHERE exam_id = ?", (exam.exam_id,)).fetchone()[0]
    return end_exam(vault, exam, "interrupted", body or "", read_pictures(connection, exam.exam_id))


def _words(error: OSError) -> str:
    """Say why the disk refused."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return f"the disk refused ({os.strerror(error.errno) if error.errno else error})"
