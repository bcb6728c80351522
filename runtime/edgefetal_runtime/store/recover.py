"""What a store does when it is opened: end what was cut short, and lose nothing that was ever saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from edgefetal_devices.errors import StoreError
from edgefetal_runtime.store import audit
from edgefetal_runtime.store.blobs import PARTIAL
from edgefetal_runtime.store.envelope import StoredExam, looks_like_envelope
from edgefetal_runtime.store.live import interrupt_exam
from edgefetal_runtime.store.recording import SUFFIX
from edgefetal_runtime.store.rows import read_exam, read_summaries, write_ended

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from edgefetal_runtime.store.vault import Vault


@dataclass(frozen=True)
class Recovery:
    """What was found when the store was opened.

    Args:
        interrupted: exams that were open when the process or the power went; each has its last checkpoint.
        found_again: saved exams whose blob was there and whose row was not.
        files_removed: half-written files, and files of no exam.
        problems: what could not be put right; empty when all is well.
    """

    interrupted: tuple[str, ...] = ()
    found_again: tuple[str, ...] = ()
    files_removed: int = 0
    problems: tuple[str, ...] = ()


def recover(vault: Vault) -> Recovery:
    """Put a store in order; killed at any point, it can be done again.

    Where the disk refuses, the store opens all the same, with a problem named: what is there can be read.

    Raises:
        StoreError: the database is damaged.
    """
    problems: list[str] = []

    def tried(what: str, step: Callable[[], list[str]]) -> tuple[str, ...]:
        try:
            return tuple(step())
        except OSError as error:
            problems.append(f"{what} failed ({error.strerror}); free space or mend the disk, and open the store again")
        except StoreError as error:
            problems.append(f"{what} was left undone: {error}")
        return ()

    with vault.reading() as connection:
        contradiction = vault.head.contradiction(connection)
        if contradiction is not None:
            problems.append(f"{contradiction}; somebody altered the audit trail, or an old copy was put back")
            # Kept in the trail for ever, because the next entry brings the head in step with what is left.
            vault.note(audit.BROKEN, found=contradiction)
        partials = tried("removing half-written files", lambda: _remove_partials(vault))
        found_again, orphans = _stray(vault, connection)
        adopted = tried("indexing saved exams", lambda: [_adopt(vault, exam) for exam in found_again])
        interrupted = tried("ending interrupted exams", lambda: _interrupt(vault, connection))
        # What was not indexed after all keeps its files.
        orphans = orphans if len(adopted) == len(found_again) else []
        removed = tried("removing files of no exam", lambda: _remove_orphans(vault, connection, orphans))
        tried("emptying the write-ahead log", lambda: [str(vault.purge_log())])
        vault.note("store opened", interrupted=len(interrupted), found_again=len(adopted), problems=len(problems))
    return Recovery(interrupted, adopted, len(partials) + len(removed), tuple(problems))


def _remove_partials(vault: Vault) -> list[str]:
    count = vault.blobs.remove_partials()
    for path in vault.folder.glob(f".*{PARTIAL}"):
        vault.disk.unlink(path)
        count += 1
    return ["partial"] * count


def _stray(vault: Vault, connection: sqlite3.Connection) -> tuple[list[StoredExam], list[str]]:
    """Sort blobs that no row names into exams that lost their row, and what may go.

    A damaged blob is neither: it may be all that is left of an exam, so it stays, and `check` names it.
    """
    orphans = orphan_blobs(vault, connection)
    ended = {s.exam_id for s in read_summaries(connection, vault.folder) if s.envelope_sha256 is not None}
    gone = {row[0] for row in connection.execute("SELECT exam_id FROM tombstone")}
    found: dict[str, StoredExam] = {}
    rubbish = []
    for sha256 in orphans:
        try:
            content = vault.blobs.read(sha256)
        except StoreError:
            continue
        exam = _as_exam(content)
        if exam is None and looks_like_envelope(content):
            # Of a layout that this program does not know.
            continue
        if exam is None or exam.exam_id in ended | gone:
            rubbish.append(sha256)
        elif exam.exam_id not in found or found[exam.exam_id].ended_utc < exam.ended_utc:
            found[exam.exam_id] = exam
    return list(found.values()), rubbish


def orphan_blobs(vault: Vault, connection: sqlite3.Connection) -> list[str]:
    """Return the blobs that no row names."""
    named = {row[0] for row in connection.execute("SELECT sha256 FROM picture")}
    named |= {row[0] for row in connection.execute("SELECT envelope_sha256 FROM exam")}
    return sorted(set(vault.blobs.hashes()) - named)


def _as_exam(content: bytes) -> StoredExam | None:
    if not looks_like_envelope(content):
        return None
    try:
        return StoredExam.model_validate_json(content)
    except ValidationError:
        return None


def _adopt(vault: Vault, exam: StoredExam) -> str:
    """Index an exam by its blob: it was whole on the disk when the power or the row went."""
    with vault.change("exam found again", exam.patient_id, exam=exam.exam_id) as connection:
        write_ended(connection, exam)
    return exam.exam_id


def _interrupt(vault: Vault, connection: sqlite3.Connection) -> list[str]:
    opened = [s for s in read_summaries(connection, vault.folder) if s.envelope_sha256 is None]
    return [interrupt_exam(vault, connection, exam).exam_id for exam in opened]


def _named_by_exams(vault: Vault, connection: sqlite3.Connection, orphans: list[str]) -> set[str]:
    """Return what the exams themselves name: removing must not rest on rows that nothing vouches for."""
    if not orphans:
        return set()
    ended = [s for s in read_summaries(connection, vault.folder) if s.envelope_sha256 is not None]
    return {picture.sha256 for s in ended for picture in read_exam(vault, s.exam_id).pictures}


def _remove_orphans(vault: Vault, connection: sqlite3.Connection, orphans: list[str]) -> list[str]:
    """Remove what `_stray` let go, unless an exam that was indexed since names it; and recordings of no exam."""
    removable = sorted(
        set(orphans) & set(orphan_blobs(vault, connection)) - _named_by_exams(vault, connection, orphans)
    )
    vault.blobs.remove(removable)
    known = {row[0] for row in connection.execute("SELECT exam_id FROM exam")}
    recordings = [p for p in vault.recordings.glob(f"*{SUFFIX}") if p.name.removesuffix(SUFFIX) not in known]
    for path in recordings:
        vault.disk.unlink(path)
    if recordings:
        vault.disk.sync(vault.recordings)
    return [*removable, *(path.name for path in recordings)]
