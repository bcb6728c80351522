"""The exam store as the rest of edgefetal uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefetal_devices.errors import EdgeFetalError, InputError
from edgefetal_runtime.store import audit
from edgefetal_runtime.store.check import CheckReport, check_vault
from edgefetal_runtime.store.disk import Disk
from edgefetal_runtime.store.export import export_exam, export_patient
from edgefetal_runtime.store.live import OpenExam, begin_exam
from edgefetal_runtime.store.policy import Policy
from edgefetal_runtime.store.recording import RecordedFrame, read_frames
from edgefetal_runtime.store.recover import Recovery, recover
from edgefetal_runtime.store.removal import Removed, RetentionReport, apply_retention, remove_exam, remove_patient
from edgefetal_runtime.store.rows import ExamSummary, read_exam, read_summaries
from edgefetal_runtime.store.vault import Vault, open_vault, open_vault_to_read, utc_now

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from edgefetal_runtime.exam.record import BundleRecord
    from edgefetal_runtime.store.envelope import StoredExam


class ExamStore:
    """Exams in one folder, owned by one process at a time; its threads may share it.

    What `OpenExam.save` returned outlasts a power cut. Nothing here logs, and no message names a patient.
    """

    def __init__(self, vault: Vault, recovery: Recovery) -> None:
        """Take over an opened vault; use `open` or `open_to_read`."""
        self._vault = vault
        self.recovery = recovery

    @classmethod
    def open(
        cls,
        folder: Path,
        policy: Policy | None = None,
        *,
        disk: Disk | None = None,
        clock: Callable[[], dt.datetime] = utc_now,
    ) -> Self:
        """Own a store: make it if need be, and put in order what a crash left (`recovery` says what).

        On a read-only disk it opens for reading; `reading_only` says why.

        Args:
            folder: where it is.
            policy: its rules.
            disk: the door to the disk.
            clock: returns the time, with its zone.

        Raises:
            StoreError: another process owns it, or it is damaged.
            OutputError: the disk refuses.
        """
        vault = open_vault(folder, policy or Policy(), disk or Disk(), clock)
        if vault.reading_only is not None:
            return cls(vault, Recovery())
        try:
            recovery = recover(vault)
        except EdgeFetalError:
            vault.close()
            raise
        vault.reserve.restore()
        return cls(vault, recovery)

    @classmethod
    def open_to_read(cls, folder: Path) -> Self:
        """Read a store beside the process that owns it; looking is then not in its audit trail.

        Raises:
            StoreError: it is none, is damaged, or cannot be read.
        """
        return cls(open_vault_to_read(folder, "it was opened for reading only", Disk()), Recovery())

    def close(self) -> None:
        """Let others own the store; an exam that is still open is found interrupted when it is next opened."""
        self._vault.close()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    @property
    def reading_only(self) -> str | None:
        """Why nothing can be written, or None."""
        return self._vault.reading_only

    def begin(self, patient_id: str | None, source: str, bundle: BundleRecord) -> OpenExam:
        """Begin an exam, if the disk could hold it to its end.

        Args:
            patient_id: the clinic's name for the patient, never looked into; None where there is none.
            source: where the frames come from.
            bundle: what will measure.

        Raises:
            InputError: the patient's id cannot be kept.
            OutputError: the disk is full or read-only.
        """
        return begin_exam(self._vault, patient_id, source, bundle)

    def exams(self, patient_id: str | None = None) -> tuple[ExamSummary, ...]:
        """List the exams, of all patients or of one, the newest first.

        Raises:
            StoreError: the database is damaged.
        """
        with self._vault.reading() as connection:
            summaries = read_summaries(connection, self._vault.folder)
        return tuple(s for s in summaries if patient_id is None or s.patient_id == patient_id)

    def get(self, exam_id: str) -> StoredExam:
        """Return an exam, and note in the audit trail that it was seen.

        Raises:
            InputError: there is none, or it is still open.
            StoreError: it is damaged.
        """
        exam = read_exam(self._vault, exam_id)
        self._vault.note("exam viewed", exam.patient_id, exam=exam_id)
        return exam

    def picture(self, exam_id: str, name: str) -> bytes:
        """Return a picture of an exam.

        Raises:
            InputError: there is none.
            StoreError: it is damaged.
        """
        pictures = {picture.name: picture.sha256 for picture in read_exam(self._vault, exam_id).pictures}
        if name not in pictures:
            message = f"Exam {exam_id} has no picture {name}; it has {', '.join(sorted(pictures)) or 'none'}."
            raise InputError(message)
        return self._vault.blobs.read(pictures[name])

    def recording(self, exam_id: str) -> Iterator[RecordedFrame]:
        """Yield the recorded frames of an exam, up to the first that is damaged; none where nothing was recorded.

        Raises:
            InputError: there is no such exam.
            StoreError: it is damaged.
        """
        read_exam(self._vault, exam_id)
        path = self._vault.recording_path(exam_id)
        if path.exists():
            yield from read_frames(path)

    def export(self, folder: Path, *, exam_id: str | None = None, patient_id: str | None = None) -> tuple[Path, ...]:
        """Write an exam into a new folder, or each of a patient's exams into a folder in a new folder.

        Args:
            folder: what to make.
            exam_id: the exam; or
            patient_id: the patient.

        Returns:
            The folders with an exam in each.

        Raises:
            InputError: there is no such exam or patient, or not one of the two was named.
            StoreError: a part of it is damaged.
            OutputError: the folder exists or cannot be written.
        """
        if exam_id is not None and patient_id is None:
            return export_exam(self._vault, exam_id, folder)
        if patient_id is not None and exam_id is None:
            return export_patient(self._vault, patient_id, folder)
        raise InputError("Name an exam or a patient, and not both.")

    def delete_exam(self, exam_id: str) -> Removed:
        """Remove an exam for good; pictures that other exams share stay.

        Raises:
            InputError: there is none, or it is open.
            OutputError: the disk refuses.
        """
        return remove_exam(self._vault, exam_id)

    def delete_patient(self, patient_id: str) -> Removed:
        """Remove all exams of a patient for good; the audit trail keeps a salted hash of the id.

        Raises:
            InputError: there are none, or one is open.
            OutputError: the disk refuses.
        """
        return remove_patient(self._vault, patient_id)

    def apply_retention(self, policy: Policy | None = None, *, dry_run: bool = False) -> RetentionReport:
        """Remove what is older than the policy keeps it, unless the clock is in doubt.

        Args:
            policy: the ages; those that the store was opened with unless given.
            dry_run: only say what would be removed.

        Raises:
            OutputError: the disk refuses, or the store is open for reading.
        """
        return apply_retention(self._vault, policy or self._vault.policy, dry_run=dry_run)

    def confirm_clock(self) -> None:
        """Note that somebody has seen that the clock is right, after it jumped.

        Raises:
            OutputError: the disk refuses, or the store is open for reading.
        """
        try:
            with self._vault.change(audit.CLOCK_CONFIRMED):
                pass
        except OSError as error:
            raise self._vault.refused(error) from error

    def check(self) -> CheckReport:
        """Read everything but the recordings and compare it with its hashes.

        Raises:
            StoreError: the database is so damaged that it cannot be read at all.
        """
        return check_vault(self._vault)

    def audit_trail(self) -> tuple[audit.Entry, ...]:
        """Return all entries of the audit trail, the oldest first.

        Raises:
            StoreError: the database is damaged.
        """
        with self._vault.reading() as connection:
            return tuple(audit.entries(connection))
