"""An exam as the store keeps it: one self-describing blob, of which the database is the index."""

from __future__ import annotations

import json
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from edgefetal_devices.errors import InputError
from edgefetal_runtime.store.blobs import sha256_hex

_MAX_PATIENT_ID = 128
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MANIFEST = "manifest.json"
INTERRUPTED_RECORD = "interrupted.json"
_TAKEN = frozenset({"exam.json", INTERRUPTED_RECORD, MANIFEST})

State = Literal["interrupted", "saved"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredPicture(_Part):
    """One picture of an exam.

    Args:
        name: its file name in an export.
        sha256: hash of its content.
        role: what it shows, such as `overlay`.
        sweep: the sweep that it is of; empty where it is of none.
        index: position of its frame in the sweep, or null.
        timestamp_s: time of its frame in the source, or null.
    """

    name: str
    sha256: str
    role: str
    sweep: str
    index: int | None
    timestamp_s: float | None


class StoredExam(_Part):
    """One exam, whole but for the pictures' content.

    Args:
        format: the layout of this blob.
        exam_id: the store's name for it.
        patient_id: the clinic's name for the patient, or null.
        source: where the frames came from.
        bundle_name: which bundle measured.
        bundle_sha256: hash of its manifest.
        backend: what ran it.
        begun_utc: the clock when it began, ISO 8601.
        ended_utc: the clock when it was saved, or found interrupted.
        kept_from_utc: where its age is counted from: `ended_utc`, or a later time that the store had seen before.
        state: `saved`, or `interrupted` where the process or the power went before it was.
        record: text of `exam.json`; of an interrupted exam the last checkpoint, or empty.
        pictures: what was kept with it.
        notes: what was left out, and why.
        recorded_frames: frames of video that were recorded.
    """

    format: Literal["edgefetal-exam/1"] = "edgefetal-exam/1"
    exam_id: str
    # Not in its `repr`, which ends in logs.
    patient_id: str | None = Field(repr=False)
    source: str
    bundle_name: str
    bundle_sha256: str
    backend: str
    begun_utc: str
    ended_utc: str
    kept_from_utc: str
    state: State
    record: str
    pictures: tuple[StoredPicture, ...]
    notes: tuple[str, ...]
    recorded_frames: int

    def to_bytes(self) -> bytes:
        """Write the blob."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    def record_name(self) -> str:
        """Return the file name of its record; an unfinished one must not pass for a whole one."""
        return "exam.json" if self.state == "saved" else INTERRUPTED_RECORD

    def files(self) -> dict[str, str]:
        """Return the hash of every file of an export by its name."""
        record = {self.record_name(): sha256_hex(self.record.encode())} if self.record else {}
        return record | {picture.name: picture.sha256 for picture in self.pictures}

    def manifest(self) -> bytes:
        """Write what an export says of itself beside its files."""
        fields = self.model_dump(mode="json", exclude={"record", "format"})
        return (json.dumps({**fields, "files": self.files()}, indent=1, ensure_ascii=False) + "\n").encode()


def looks_like_envelope(content: bytes) -> bool:
    """Say whether a blob is an exam rather than a picture; cheap, for scanning."""
    return content.startswith(b'{\n "format": "edgefetal-exam/')


def seal_of(columns: tuple[str | int | None, ...]) -> str:
    """Return the hash that shows that a row of the index was not altered."""
    return sha256_hex(json.dumps(columns).encode())


def require_patient_id(patient_id: str | None) -> None:
    """Refuse what cannot be a patient's id; the message does not repeat it.

    Raises:
        InputError: it is empty, too long, or holds something that is not printed.
    """
    if patient_id is None:
        return
    if not 0 < len(patient_id) <= _MAX_PATIENT_ID or not patient_id.isprintable() or patient_id != patient_id.strip():
        message = (
            f"This patient id cannot be kept; give 1 to {_MAX_PATIENT_ID} printed characters, without blanks at its "
            "ends, or leave it out."
        )
        raise InputError(message)


def require_file_name(name: str, others: frozenset[str]) -> None:
    """Refuse a picture's name that is unsafe in an export, or taken.

    Raises:
        ValueError: so it is; names come from our own code.
    """
    if not _FILE_NAME.fullmatch(name) or name in _TAKEN or name in others:
        message = f"{name!r} cannot name a picture of this exam"
        raise ValueError(message)
