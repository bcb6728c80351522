"""Is everything in a store as it was written?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_devices.errors import StoreError
from edgefetal_runtime.store import audit
from edgefetal_runtime.store.blobs import sha256_hex
from edgefetal_runtime.store.recover import orphan_blobs
from edgefetal_runtime.store.rows import ExamSummary, parse_envelope, read_pictures, read_summaries, summary_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from edgefetal_runtime.store.vault import Vault


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Args:
        exams: how many exams were looked at.
        blobs: how many blobs were read and hashed.
        audit_entries: how many entries the chain has.
        problems: what is wrong, a sentence each; empty when all is well.
    """

    exams: int
    blobs: int
    audit_entries: int
    problems: tuple[str, ...]


def check_vault(vault: Vault) -> CheckReport:
    """Read everything but the recordings and compare it with its hashes.

    Raises:
        StoreError: the database is so damaged that it cannot be read at all.
    """
    with vault.reading() as connection:
        problems = [*_database(connection), *_audit(vault, connection)]
        try:
            summaries = read_summaries(connection, vault.folder)
        except StoreError as error:
            problems.append(str(error))
            summaries = ()
        for summary in summaries:
            problems += _exam(vault, connection, summary)
        orphans = set(orphan_blobs(vault, connection))
        hashes = sorted(vault.blobs.hashes())
        for sha256 in hashes:
            try:
                vault.blobs.read(sha256)
            except StoreError as error:
                problems.append(str(error))
            if sha256 in orphans and not vault.open_exams:
                problems.append(f"blob {sha256[:12]} belongs to no exam; opening the store for writing looks at it")
        count = connection.execute("SELECT count(*) FROM audit").fetchone()[0]
        vault.note("check", problems=len(problems))
    return CheckReport(len(summaries), len(hashes), count, tuple(dict.fromkeys(problems)))


def _database(connection: sqlite3.Connection) -> Iterator[str]:
    for (found,) in connection.execute("PRAGMA integrity_check(20)").fetchall():
        if found != "ok":
            yield f"the database contradicts itself: {found}"
    for row in connection.execute("PRAGMA foreign_key_check").fetchall():
        yield f"table {row[0]} names an exam that is not there"


def _audit(vault: Vault, connection: sqlite3.Connection) -> Iterator[str]:
    for found in (audit.first_broken(connection), vault.head.contradiction(connection)):
        if found is not None:
            yield found
    for entry in audit.entries(connection):
        if entry.event == audit.BROKEN:
            yield f"audit entry {entry.seq} of {entry.time_utc} says: {entry.details}"


def _exam(vault: Vault, connection: sqlite3.Connection, summary: ExamSummary) -> Iterator[str]:
    pictures = read_pictures(connection, summary.exam_id)
    for picture in pictures:
        if not vault.blobs.path(picture.sha256).is_file():
            yield f"exam {summary.exam_id} lacks {picture.name}; restore the store from a copy"
    if summary.envelope_sha256 is None:
        return
    body = connection.execute("SELECT body FROM exam WHERE exam_id = ?", (summary.exam_id,)).fetchone()[0]
    if not isinstance(body, str) or sha256_hex(body.encode()) != summary.envelope_sha256:
        yield f"the record of exam {summary.exam_id} in the database was altered; its blob is used instead"
    try:
        exam = parse_envelope(vault.blobs.read(summary.envelope_sha256), vault.folder)
    except StoreError as error:
        yield f"exam {summary.exam_id}: {error}"
        return
    if summary_of(exam) != summary or sorted(exam.pictures, key=lambda p: p.name) != list(pictures):
        yield f"exam {summary.exam_id} is not in the index as in its blob"
