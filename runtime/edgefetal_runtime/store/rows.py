"""The index of exams in the database: writing rows, and reading them without trusting them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ValidationError

from edgefetal_devices.errors import InputError, StoreError
from edgefetal_runtime.store.blobs import sha256_hex
from edgefetal_runtime.store.envelope import StoredExam, StoredPicture, seal_of
from edgefetal_runtime.store.schema import damaged

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from edgefetal_runtime.store.vault import Vault

_COLUMNS = (
    "exam_id", "patient_id", "source", "bundle_name", "bundle_sha256", "backend", "begun_utc", "state", "ended_utc",
    "kept_from_utc", "notes", "recorded_frames", "envelope_sha256",
)  # fmt: skip
_SELECT = f"SELECT {', '.join(_COLUMNS)}, seal FROM exam"  # noqa: S608 - our own columns


@dataclass(frozen=True)
class ExamSummary:
    """One row of the index.

    Args:
        exam_id: the store's name for the exam.
        patient_id: the clinic's name for the patient, or None.
        source: where the frames came from.
        bundle_name: which bundle measured.
        bundle_sha256: hash of its manifest.
        backend: what ran it.
        begun_utc: the clock when it began.
        state: `open`, `interrupted` or `saved`.
        ended_utc: the clock when it was saved or found interrupted, or None.
        kept_from_utc: where its age is counted from, or None.
        notes: what was left out, and why.
        recorded_frames: frames of video that were recorded.
        envelope_sha256: the blob that it is, or None while it is open.
    """

    exam_id: str
    # Not in its `repr`, which ends in logs.
    patient_id: str | None = field(repr=False)
    source: str
    bundle_name: str
    bundle_sha256: str
    backend: str
    begun_utc: str
    state: str
    ended_utc: str | None
    kept_from_utc: str | None
    notes: tuple[str, ...]
    recorded_frames: int
    envelope_sha256: str | None

    def columns(self) -> tuple[str | int | None, ...]:
        """Return the values of its row, but for the seal."""
        fields = {**vars(self), "notes": json.dumps(self.notes)}
        return tuple(fields[name] for name in _COLUMNS)

    def seal(self) -> str:
        """Return the hash over its row."""
        return seal_of(self.columns())


def summary_of(exam: StoredExam) -> ExamSummary:
    """Return the row that an ended exam has."""
    return ExamSummary(
        **exam.model_dump(exclude={"format", "record", "pictures"}), envelope_sha256=sha256_hex(exam.to_bytes())
    )


def write_row(connection: sqlite3.Connection, summary: ExamSummary, body: str | None) -> None:
    """Write a row, over an older one of the same exam; its pictures stay."""
    names = (*_COLUMNS, "seal", "body")
    updates = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
    connection.execute(
        f"INSERT INTO exam ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "  # noqa: S608 - our own columns
        f"ON CONFLICT (exam_id) DO UPDATE SET {updates}",
        (*summary.columns(), summary.seal(), body),
    )


def write_picture(connection: sqlite3.Connection, exam_id: str, picture: StoredPicture) -> None:
    """Write the row of a picture."""
    connection.execute(
        "INSERT INTO picture VALUES (?, ?, ?, ?, ?, ?, ?)",
        (exam_id, picture.name, picture.sha256, picture.role, picture.sweep, picture.index, picture.timestamp_s),
    )


def write_ended(connection: sqlite3.Connection, exam: StoredExam) -> None:
    """Write all rows of an exam that has ended."""
    write_row(connection, summary_of(exam), exam.to_bytes().decode())
    connection.execute("DELETE FROM picture WHERE exam_id = ?", (exam.exam_id,))
    for picture in exam.pictures:
        write_picture(connection, exam.exam_id, picture)


def read_pictures(connection: sqlite3.Connection, exam_id: str) -> tuple[StoredPicture, ...]:
    """Return the pictures of an exam, in the order of their names."""
    rows = connection.execute(
        "SELECT name, sha256, role, sweep, frame_index, timestamp_s FROM picture WHERE exam_id = ? ORDER BY name",
        (exam_id,),
    )
    return tuple(
        StoredPicture(name=name, sha256=sha256, role=role, sweep=sweep, index=index, timestamp_s=timestamp_s)
        for name, sha256, role, sweep, index, timestamp_s in rows
    )


def read_summaries(connection: sqlite3.Connection, folder: Path) -> tuple[ExamSummary, ...]:
    """Return all rows, the newest first.

    Raises:
        StoreError: a row was altered.
    """
    summaries = [_trusted(row, folder) for row in connection.execute(_SELECT).fetchall()]
    return tuple(sorted(summaries, key=lambda s: (s.begun_utc, s.exam_id), reverse=True))


def read_summary(connection: sqlite3.Connection, exam_id: str, folder: Path) -> ExamSummary:
    """Return one row.

    Raises:
        InputError: there is none.
        StoreError: it was altered.
    """
    row = connection.execute(f"{_SELECT} WHERE exam_id = ?", (exam_id,)).fetchone()
    if row is None:
        message = f"The exam store {folder} has no exam {exam_id}; `edgefetal exams list {folder}` names those it has."
        raise InputError(message)
    return _trusted(row, folder)


def _trusted(row: tuple[object, ...], folder: Path) -> ExamSummary:
    try:
        fields = dict(zip(_COLUMNS, row, strict=False))
        summary = ExamSummary(**{**fields, "notes": tuple(json.loads(str(fields["notes"])))})  # type: ignore[arg-type]
        if summary.seal() == row[-1]:
            return summary
    except (TypeError, ValueError):
        pass
    raise damaged(folder, f"the row of exam {row[0]} was altered")


def read_exam(vault: Vault, exam_id: str) -> StoredExam:
    """Return an exam that has ended: from the database, or from its blob where that copy is damaged.

    Raises:
        InputError: there is none, or it is still open.
        StoreError: both copies are damaged.
    """
    with vault.reading() as connection:
        summary = read_summary(connection, exam_id, vault.folder)
        if summary.envelope_sha256 is None:
            message = f"Exam {exam_id} is still open; save it first."
            raise InputError(message)
        body = connection.execute("SELECT body FROM exam WHERE exam_id = ?", (exam_id,)).fetchone()[0]
        content = body.encode() if isinstance(body, str) else b""
        if sha256_hex(content) != summary.envelope_sha256:
            content = vault.blobs.read(summary.envelope_sha256)
    return parse_envelope(content, vault.folder)


def parse_envelope(content: bytes, folder: Path) -> StoredExam:
    """Return the exam that a blob is.

    Raises:
        StoreError: it is in a layout that this program does not know.
    """
    try:
        return StoredExam.model_validate_json(content)
    except ValidationError as error:
        message = f"An exam in {folder} is in a layout that this edgefetal does not know; update edgefetal."
        raise StoreError(message) from error
