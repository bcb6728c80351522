"""`edgefetal exams`: look at, export, delete and check the exams that a clinic's computer keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from edgefetal.cli.options import JsonOption

if TYPE_CHECKING:
    from edgefetal_runtime.store.envelope import StoredExam
    from edgefetal_runtime.store.exams import ExamStore
    from edgefetal_runtime.store.rows import ExamSummary

_LIST = "Example: edgefetal exams list exams --patient 0042"
_SHOW = "Example: edgefetal exams show exams 20260301T080000-1a2b3c4d"
_EXPORT = "Example: edgefetal exams export exams --patient 0042 --out for-the-hospital"
_DELETE = "Example: edgefetal exams delete exams --patient 0042 --yes"
_CHECK = "Example: edgefetal exams check exams"
_RESCUE = "Example: edgefetal exams rescue exams --out rescued"
_DAYS_AND_MINUTES = 16

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="Folder that the exams are kept in.")]
ExamArgument = Annotated[str, typer.Argument(metavar="EXAM", help="Number of an exam, as `list` shows it.")]
ExamOption = Annotated[Optional[str], typer.Option("--exam", metavar="EXAM", help="One exam, by its number.")]
PatientOption = Annotated[Optional[str], typer.Option("--patient", metavar="ID", help="All exams of a patient.")]

app = typer.Typer(no_args_is_help=True, help="Look at, export, delete and check the exams kept here.", epilog=_LIST)


@app.callback()
def _exams() -> None:
    """Look at, export, delete and check the exams kept here: name what to do."""


@app.command("list", epilog=_LIST)
def list_exams(store: StoreArgument, patient: PatientOption = None, json_file: JsonOption = None) -> None:
    """List the exams, the newest first; works beside the process that owns the store."""
    from edgefetal.cli import terminal
    from edgefetal_runtime.store.exams import ExamStore

    terminal.check_json_target(json_file, store)
    with ExamStore.open_to_read(store) as opened:
        exams = opened.exams(patient)
    _show_summaries(exams)
    terminal.write_json(json_file, {"exams": [vars(exam) for exam in exams]})


@app.command("show", epilog=_SHOW)
def show(store: StoreArgument, exam: ExamArgument, json_file: JsonOption = None) -> None:
    """Show one exam; that it was seen goes into the audit trail, unless another process owns the store."""
    from edgefetal.cli import terminal

    terminal.check_json_target(json_file, store)
    with _opened(store) as opened:
        found = opened.get(exam)
        if opened.reading_only is not None:
            terminal.say(f"Not in the audit trail, because {opened.reading_only}.")
    _show_exam(found)
    terminal.write_json(json_file, found.model_dump(mode="json"))


@app.command("export", epilog=_EXPORT)
def export(
    store: StoreArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder to write; must not exist.")],
    exam: ExamOption = None,
    patient: PatientOption = None,
    json_file: JsonOption = None,
) -> None:
    """Write one exam, or each of a patient's, as a folder like that of `edgefetal run`, with a manifest of hashes."""
    from edgefetal.cli import terminal

    terminal.check_json_target(json_file, store, out)
    with _opened(store) as opened:
        folders = opened.export(out, exam_id=exam, patient_id=patient)
    for folder in folders:
        terminal.say(f"Exported: {folder}")
    terminal.write_json(json_file, {"folders": [str(folder) for folder in folders]})


@app.command("delete", epilog=_DELETE)
def delete(
    store: StoreArgument,
    exam: ExamOption = None,
    patient: PatientOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Really delete; without it nothing is.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Delete one exam, or all of a patient, for good; the audit trail keeps a salted hash of the patient's id."""
    from dataclasses import asdict

    from edgefetal.cli import terminal
    from edgefetal_devices.errors import InputError
    from edgefetal_runtime.store.exams import ExamStore

    terminal.check_json_target(json_file, store)
    if (exam is None) == (patient is None):
        raise InputError("Name what to delete with --exam or --patient, and not both.")
    if not yes:
        with ExamStore.open_to_read(store) as opened:
            found = [e for e in opened.exams(patient) if exam in (None, e.exam_id)]
        _show_summaries(found)
        message = f"Nothing was deleted. These {len(found)} exams will be, and cannot be brought back, with --yes."
        raise InputError(message)
    # A mistyped name must not make a new store.
    ExamStore.open_to_read(store).close()
    with ExamStore.open(store) as opened:
        removed = opened.delete_exam(exam) if exam is not None else opened.delete_patient(str(patient))
    terminal.say(f"Deleted: {removed.exams} exams, {removed.files} files.")
    terminal.write_json(json_file, asdict(removed))


@app.command("check", epilog=_CHECK)
def check(store: StoreArgument, json_file: JsonOption = None) -> None:
    """Read every exam and picture and compare it with its hash; check the database and the audit trail."""
    from dataclasses import asdict

    from edgefetal.cli import terminal
    from edgefetal_devices.errors import CheckFailedError

    terminal.check_json_target(json_file, store)
    with _opened(store) as opened:
        report, recovery = opened.check(), opened.recovery
    terminal.show_table(
        str(store),
        ("what", "how many"),
        [
            ("exams", str(report.exams)),
            ("files as written", str(report.blobs)),
            ("audit entries", str(report.audit_entries)),
            ("found interrupted just now", str(len(recovery.interrupted))),
            ("found again just now", str(len(recovery.found_again))),
        ],
    )
    problems = tuple(dict.fromkeys((*recovery.problems, *report.problems)))
    terminal.write_json(json_file, {**asdict(report), "problems": list(problems), "recovery": asdict(recovery)})
    for problem in problems:
        terminal.say(f"- {problem}")
    if problems:
        message = f"{store} has {len(problems)} problems; restore what is damaged from a copy."
        raise CheckFailedError(message)
    terminal.say("Everything is as it was written.")


@app.command("rescue", epilog=_RESCUE)
def rescue(
    store: StoreArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder to write; must not exist.")],
    json_file: JsonOption = None,
) -> None:
    """Export every exam that can be read from a damaged store, without its database; changes nothing in it."""
    from dataclasses import asdict

    from edgefetal.cli import terminal
    from edgefetal_devices.errors import CheckFailedError
    from edgefetal_runtime.store import export as exporting

    terminal.check_json_target(json_file, store, out)
    rescued = exporting.rescue(store, out)
    terminal.say(f"Exams exported to {out}: {len(rescued.exams)}.")
    terminal.write_json(json_file, asdict(rescued))
    for problem in rescued.problems:
        terminal.say(f"- {problem}")
    if rescued.problems:
        message = f"{len(rescued.problems)} files of {store} could not be read; what is above is missing."
        raise CheckFailedError(message)


def _opened(store: Path) -> ExamStore:
    """Own a store that is there; beside another owner, read it."""
    from edgefetal_devices.errors import StoreError
    from edgefetal_runtime.store.exams import ExamStore

    reader = ExamStore.open_to_read(store)
    try:
        owned = ExamStore.open(store)
    except StoreError:
        return reader
    reader.close()
    return owned


def _show_summaries(exams: tuple[ExamSummary, ...] | list[ExamSummary]) -> None:
    from edgefetal.cli import terminal

    terminal.show_table(
        f"{len(exams)} exams",
        ("exam", "patient", "begun (UTC)", "state", "source", "left out"),
        [
            (
                exam.exam_id,
                exam.patient_id or "-",
                exam.begun_utc[:_DAYS_AND_MINUTES].replace("T", " "),
                exam.state,
                exam.source,
                str(len(exam.notes) or "-"),
            )
            for exam in exams
        ],
    )


def _show_exam(found: StoredExam) -> None:
    """Print an exam as `run` does; of an interrupted one only what is sure."""
    from pydantic import ValidationError

    from edgefetal.cli import terminal
    from edgefetal.cli.exam_tables import show_exam
    from edgefetal_runtime.exam.record import Exam

    terminal.show_table(
        f"Exam {found.exam_id}",
        ("what", "is"),
        [
            ("patient", found.patient_id or "-"),
            ("begun (UTC)", found.begun_utc),
            ("ended (UTC)", found.ended_utc),
            ("state", found.state),
            ("source", found.source),
            ("bundle", f"{found.bundle_name} {found.bundle_sha256[:12]}"),
            ("pictures", ", ".join(picture.name for picture in found.pictures) or "-"),
            ("recorded frames", str(found.recorded_frames)),
        ],
    )
    for note in found.notes:
        terminal.say(f"- {note}")
    if found.state == "interrupted":
        terminal.say("It was interrupted before it was saved: its last checkpoint is no result. Export it to see it.")
        return
    try:
        record = Exam.model_validate_json(found.record)
    except ValidationError:
        terminal.say("Its record is of another version of edgefetal; export it to see it.")
        return
    show_exam(record)
