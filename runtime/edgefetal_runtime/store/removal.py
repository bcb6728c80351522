"""Removing exams for good, when asked to or by age."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_devices.errors import InputError, OutputError
from edgefetal_runtime.store import audit
from edgefetal_runtime.store.rows import ExamSummary, read_summaries, read_summary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefetal_runtime.store.policy import Policy
    from edgefetal_runtime.store.vault import Vault


@dataclass(frozen=True)
class Removed:
    """What was removed.

    Args:
        exams: how many exams.
        files: how many files of them; those that other exams share stay.
        log_emptied: whether the write-ahead log was emptied too; a reader may have held it until the store is next
            opened.
    """

    exams: int
    files: int
    log_emptied: bool


@dataclass(frozen=True)
class RetentionReport:
    """What was removed by age, or would be.

    Args:
        exams: numbers of the exams.
        recordings: numbers of the exams whose recording it is.
        refused: why nothing was removed, or None.
    """

    exams: tuple[str, ...]
    recordings: tuple[str, ...]
    refused: str | None


def remove_exam(vault: Vault, exam_id: str) -> Removed:
    """Remove one exam.

    Raises:
        InputError: there is none, or it is open.
        OutputError: the disk refuses.
    """
    with vault.reading() as connection:
        exam = read_summary(connection, exam_id, vault.folder)
        return remove_exams(vault, (exam,), "exam deleted", exam.patient_id)


def remove_patient(vault: Vault, patient_id: str) -> Removed:
    """Remove all exams of a patient.

    Raises:
        InputError: there are none, or one is open.
        OutputError: the disk refuses.
    """
    with vault.reading() as connection:
        exams = tuple(exam for exam in read_summaries(connection, vault.folder) if exam.patient_id == patient_id)
        if not exams:
            # The id is not repeated: messages end in logs.
            message = f"The exam store {vault.folder} has no exam of that patient; check how the id is written."
            raise InputError(message)
        return remove_exams(vault, exams, "patient deleted", patient_id)


def remove_exams(vault: Vault, exams: Sequence[ExamSummary], event: str, patient_id: str | None) -> Removed:
    """Remove exams: first from the index, then their files, then what the write-ahead log still holds.

    Raises:
        InputError: one is open.
        OutputError: the disk refuses; what is left is removed when the store is next opened.
    """
    vault.require_writable()
    if vault.open_exams & {exam.exam_id for exam in exams}:
        raise InputError("An exam is still open; save or discard it first.")
    ids = [exam.exam_id for exam in exams]

    def forget() -> set[str]:
        with vault.change(event, patient_id, exams=ids) as connection:
            blobs = {exam.envelope_sha256 for exam in exams if exam.envelope_sha256}
            for exam_id in ids:
                blobs |= {
                    sha for (sha,) in connection.execute("SELECT sha256 FROM picture WHERE exam_id = ?", (exam_id,))
                }
                connection.execute("DELETE FROM exam WHERE exam_id = ?", (exam_id,))
                connection.execute("INSERT OR IGNORE INTO tombstone VALUES (?)", (exam_id,))
            return {
                sha256
                for sha256 in blobs
                if connection.execute("SELECT 1 FROM picture WHERE sha256 = ?", (sha256,)).fetchone() is None
            }

    with vault.lock:
        # Deleting is the way out of a full disk; it must not need room that only deleting could make. An exam that is
        # under way has the first call on the reserve.
        blobs = vault.with_reserve(forget) if not vault.open_exams else _or_refused(vault, forget)
        recordings = [path for exam_id in ids if (path := vault.recording_path(exam_id)).exists()]
        try:
            vault.blobs.remove(sorted(blobs))
            for path in recordings:
                vault.disk.unlink(path)
            vault.disk.sync(vault.recordings)
            emptied = vault.purge_log()
        except OSError as error:
            message = (
                f"{len(ids)} exams are deleted from the index, and some of their files are left, because the disk "
                f"refuses ({error.strerror}); mend it and open the store {vault.folder} again, which removes them."
            )
            raise OutputError(message) from error
        vault.reserve.restore()
    return Removed(len(ids), len(blobs) + len(recordings), emptied)


def _or_refused(vault: Vault, forget: Callable[[], set[str]]) -> set[str]:
    try:
        return forget()
    except OSError as error:
        raise vault.refused(error) from error


def apply_retention(vault: Vault, policy: Policy, *, dry_run: bool = False) -> RetentionReport:
    """Remove recordings and exams that are older than the policy keeps them.

    Args:
        vault: the store.
        policy: the ages.
        dry_run: only say what would be removed.

    Raises:
        OutputError: the disk refuses.
    """
    with vault.reading() as connection:
        summaries = [s for s in read_summaries(connection, vault.folder) if s.kept_from_utc is not None]
        broken = audit.first_broken(connection) or vault.head.contradiction(connection)
        last = audit.last_entry(connection)
        doubt = audit.clock_in_doubt(connection)
    now = vault.clock()
    exams = _older(summaries, now, policy.keep_exams_days)
    recorded = [s for s in summaries if s not in exams and vault.recording_path(s.exam_id).exists()]
    recordings = _older(recorded, now, policy.keep_recordings_days)
    refused = None
    if broken is not None:
        refused = f"{broken}: the times in the audit trail cannot be trusted"
    elif last is not None and audit.timestamp(now) < last.latest_utc:
        refused = "the clock is behind what it was; set it"
    elif doubt or (last is not None and _age_days(last.time_utc, now) > policy.clock_jump_days):
        refused = "the clock jumped forward; confirm that it is right"
    report = RetentionReport(tuple(s.exam_id for s in exams), tuple(s.exam_id for s in recordings), refused)
    if dry_run or refused or not (exams or recordings):
        return report
    vault.require_writable()
    if recordings:
        _remove_recordings(vault, report.recordings)
    if exams:
        remove_exams(vault, exams, "retention", None)
    return report


def _remove_recordings(vault: Vault, exam_ids: Sequence[str]) -> None:
    try:
        with vault.change("retention of recordings", None, exams=list(exam_ids)):
            pass
        for exam_id in exam_ids:
            vault.disk.unlink(vault.recording_path(exam_id))
        vault.disk.sync(vault.recordings)
    except OSError as error:
        raise vault.refused(error) from error


def _older(summaries: Sequence[ExamSummary], now: dt.datetime, days: float | None) -> list[ExamSummary]:
    if days is None:
        return []
    return [s for s in summaries if s.kept_from_utc is not None and _age_days(s.kept_from_utc, now) > days]


def _age_days(time_utc: str, now: dt.datetime) -> float:
    return (now - dt.datetime.fromisoformat(time_utc)) / dt.timedelta(days=1)
