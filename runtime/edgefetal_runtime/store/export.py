"""Exams as folders of plain files, laid out as those of `edgefetal run --out`, with a manifest of hashes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_devices.errors import InputError, StoreError
from edgefetal_runtime.atomic import require_new_folder, write_folder
from edgefetal_runtime.store.blobs import Blobs
from edgefetal_runtime.store.disk import Disk
from edgefetal_runtime.store.envelope import MANIFEST, StoredExam, looks_like_envelope
from edgefetal_runtime.store.rows import parse_envelope, read_exam, read_summaries

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_runtime.store.vault import Vault


def export_exam(vault: Vault, exam_id: str, out: Path) -> tuple[Path, ...]:
    """Write one exam into a new folder; return that folder.

    Raises:
        InputError: there is no such exam, or it is still open.
        StoreError: a part of it is damaged.
        OutputError: the folder exists or cannot be written.
    """
    require_new_folder(out, outside=vault.folder)
    exam = read_exam(vault, exam_id)
    vault.note("exam exported", exam.patient_id, exam=exam_id)
    write_folder(out, _files(exam, vault.blobs))
    return (out,)


def export_patient(vault: Vault, patient_id: str, out: Path) -> tuple[Path, ...]:
    """Write every exam of a patient that has ended into a folder of its own in a new folder; return these.

    Raises:
        InputError: there is none.
        StoreError: a part of one is damaged.
        OutputError: the folder exists or cannot be written.
    """
    require_new_folder(out, outside=vault.folder)
    with vault.reading() as connection:
        summaries = read_summaries(connection, vault.folder)
    ids = [s.exam_id for s in summaries if s.patient_id == patient_id and s.envelope_sha256 is not None]
    if not ids:
        message = f"The exam store {vault.folder} has no exam of that patient; check how the id is written."
        raise InputError(message)
    return tuple(folder for exam_id in ids for folder in export_exam(vault, exam_id, out / exam_id))


def _files(exam: StoredExam, blobs: Blobs) -> dict[str, bytes]:
    pictures = {picture.name: blobs.read(picture.sha256) for picture in exam.pictures}
    record = {exam.record_name(): exam.record.encode()} if exam.record else {}
    return {**record, **pictures, MANIFEST: exam.manifest()}


@dataclass(frozen=True)
class Rescued:
    """What was got out of a damaged store.

    Args:
        exams: numbers of the exams that were written out.
        problems: what was missing, a sentence each; empty when nothing was.
    """

    exams: tuple[str, ...]
    problems: tuple[str, ...]


def rescue(folder: Path, out: Path) -> Rescued:
    """Write out every exam whose blob is whole, without the database, and change nothing in the store.

    An exam that was open when the damage came has no blob yet, and is not among them.

    Raises:
        InputError: the folder holds no blobs.
        OutputError: the folder to write exists or cannot be written.
    """
    blobs = Blobs(folder / "blobs", Disk())
    if not blobs.folder.is_dir():
        message = f"{folder} is not an exam store: it has no folder `blobs`; name another."
        raise InputError(message)
    require_new_folder(out, outside=folder)
    found: dict[str, StoredExam] = {}
    problems = []
    for sha256 in sorted(blobs.hashes()):
        try:
            content = blobs.read(sha256)
            exam = parse_envelope(content, folder) if looks_like_envelope(content) else None
        except StoreError as error:
            problems.append(str(error))
            continue
        if exam is not None and (exam.exam_id not in found or found[exam.exam_id].ended_utc < exam.ended_utc):
            found[exam.exam_id] = exam
    for exam in found.values():
        whole = exam.model_copy(update={"pictures": tuple(p for p in exam.pictures if _is_whole(p.sha256, blobs))})
        problems += [f"exam {exam.exam_id} lacks {p.name}" for p in exam.pictures if p not in whole.pictures]
        # The manifest names all pictures, so that what is missing shows.
        write_folder(out / exam.exam_id, {**_files(whole, blobs), MANIFEST: exam.manifest()})
    return Rescued(tuple(found), tuple(problems))


def _is_whole(sha256: str, blobs: Blobs) -> bool:
    try:
        blobs.read(sha256)
    except StoreError:
        return False
    return True
