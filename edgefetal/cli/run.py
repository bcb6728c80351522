"""`edgefetal run`: stream a source, pick frames, measure, write the exam."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from edgefetal.cli.age import EddOption, ExamDateOption, GaOption, LmpOption, known_age
from edgefetal.cli.options import BackendOption, BundleArgument, JsonOption, ThreadsOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefetal_runtime.exam.record import Exam, MeasurementRecord

_MAX_ROWS = 40
# Digits after the point by unit; a ratio gets two.
_DIGITS = {"mm": 1, "g": 0}


def run(
    bundle: BundleArgument,
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="PNG or JPEG picture, folder of them, video, MetaImage or DICOM file."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="EXAM", help="Folder to write; must not exist.")],
    mm_per_px: Annotated[
        Optional[str],
        typer.Option("--mm-per-px", metavar="X[,Y]", help="Pixel size in mm. Without one there are no millimetres."),
    ] = None,
    scale_csv: Annotated[
        Optional[Path],
        typer.Option("--scale-csv", metavar="FILE", help="Pixel sizes by file name, in HC18's layout."),
    ] = None,
    scale_profile: Annotated[
        Optional[Path],
        typer.Option("--scale-profile", metavar="FILE", help="Pixel sizes by probe, depth and format, in TOML."),
    ] = None,
    profile: Annotated[
        Optional[str],
        typer.Option("--profile", metavar="NAME", help="Which of the scale profiles, where there are several."),
    ] = None,
    depth_mm: Annotated[
        Optional[float],
        typer.Option("--depth-mm", metavar="D", help="Depth that the machine shows; the picture's ruler must agree."),
    ] = None,
    ga: GaOption = None,
    lmp: LmpOption = None,
    edd: EddOption = None,
    exam_date: ExamDateOption = None,
    json_file: JsonOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Stream a source, pick the best frames of each sweep, measure, and write the exam.

    A video, a MetaImage and each region of a DICOM file is one sweep. Each picture of a folder is a sweep of its own;
    their pixel sizes come from --mm-per-px, --scale-csv, --scale-profile, --depth-mm, or an HC18-style table in the
    folder or beside it. MetaImage and DICOM files bring their own. EXAM receives `exam.json` and a picture of every
    frame that was measured.

    Without --ga, --lmp or --edd the measures date the fetus. With one the age stands, and they are read as size.
    """
    from edgefetal.cli import terminal
    from edgefetal.starter import bundle_folder
    from edgefetal_devices.errors import InputError, ScaleError
    from edgefetal_runtime.atomic import require_new_folder
    from edgefetal_runtime.exam.pipeline import examine
    from edgefetal_runtime.exam.store import write_exam
    from edgefetal_runtime.infer.golden import open_for_clinic
    from edgefetal_runtime.scale import parse_mm_per_px
    from edgefetal_runtime.sources.scale_profile import read_scale_profile
    from edgefetal_runtime.sources.scale_wish import ScaleWish
    from edgefetal_runtime.sources.source import open_source

    folder = bundle_folder(bundle)
    require_new_folder(out, outside=folder)
    terminal.check_json_target(json_file, out, source, scale_csv, scale_profile, folder)
    if profile is not None and scale_profile is None:
        message = f"--profile {profile} names no file; give it with --scale-profile."
        raise ScaleError(message)
    wish = ScaleWish(
        stated=None if mm_per_px is None else parse_mm_per_px(mm_per_px),
        table=scale_csv,
        profile=None if scale_profile is None else read_scale_profile(scale_profile, profile),
        depth_mm=depth_mm,
    )
    age = known_age(ga, lmp, edd, exam_date)
    opened = open_source(source, wish)
    if age is not None and opened.kind == "folder":
        message = (
            f"Nothing says that the pictures of {source} are of one fetus, so one age cannot hold for all; run them "
            "one by one, or leave the age out."
        )
        raise InputError(message)
    loaded, network = open_for_clinic(folder, backend=backend, threads=threads)
    with terminal.steps() as progress:
        result = examine(opened, str(source), loaded, network, progress.step("frames", opened.frame_count), age)
    write_exam(result, out)
    terminal.write_json(json_file, result.exam.model_dump(mode="json"))
    show_exam(result.exam)
    terminal.say(f"Record and pictures: {out}")


def show_exam(exam: Exam) -> None:
    """Print an exam: all values of a single sweep, or a row a sweep."""
    from edgefetal.cli import terminal
    from edgefetal_runtime.growth.gestation import format_weeks

    if len(exam.sweeps) == 1:
        _show_sweep(exam)
    else:
        _show_sweeps(exam)
    if exam.dating is not None:
        terminal.say(f"The known age stands: {format_weeks(exam.dating.weeks)} ({exam.dating.basis}).")
    if exam.growth:
        _show_growth(exam)
    for caution in exam.cautions:
        terminal.say(f"{caution}.")
    terminal.say(exam.disclaimer)


def _show_sweep(exam: Exam) -> None:
    from edgefetal.cli import terminal

    measured = [(m, m.value) for m in exam.measurements if m.value is not None]
    if measured:
        level = "interval" if exam.interval_level is None else f"{exam.interval_level:.0%} interval"
        terminal.show_table(
            f"{exam.sweeps[0].name}, frame {measured[0][0].frames[0].index}",
            ("measure", "value", "unit", level, "how"),
            [
                (
                    m.name,
                    _written(value, m.unit),
                    "" if m.unit in ("1", "weeks") else m.unit,
                    "-" if m.interval is None else " to ".join(_written(end, m.unit) for end in m.interval),
                    m.method,
                )
                for m, value in measured
            ],
        )
        terminal.say(
            "Intervals of ages and weights carry the measurement's error only; the formula's own comes on top."
        )
    for reason in dict.fromkeys(m.no_interval for m in exam.measurements if m.no_interval):
        without = [m for m in exam.measurements if m.no_interval == reason]
        terminal.say(f"{_names(without)}: no interval, because {reason}.")
    for reason in dict.fromkeys(m.abstained for m in exam.measurements if m.abstained):
        missing = [m for m in exam.measurements if m.abstained == reason]
        terminal.say(f"{_names(missing)}: none, because {reason}.")


def _names(measurements: Sequence[MeasurementRecord]) -> str:
    """Name measurements; of ages and weights also the formula."""
    names = [f"{m.name} by {m.method.partition(';')[0]}" if m.unit in ("weeks", "g") else m.name for m in measurements]
    return ", ".join(dict.fromkeys(names))


def _show_growth(exam: Exam) -> None:
    from edgefetal.cli import terminal
    from edgefetal_runtime.growth.distributions import format_centile

    terminal.show_table(
        "Size for the known age",
        ("sweep", "measure", "chart", "value", "z", "centile", "note"),
        [
            (
                g.sweep,
                g.measure,
                g.chart,
                "-" if g.value is None else _written(g.value, "g" if g.measure == "EFW" else "mm"),
                terminal.figure(g.z),
                "-" if g.centile is None else format_centile(g.centile),
                g.note,
            )
            for g in exam.growth[:_MAX_ROWS]
        ],
    )


def _written(value: float, unit: str) -> str:
    """Write a figure as people read it: an age in weeks and days."""
    from edgefetal_runtime.growth.gestation import format_weeks

    return format_weeks(value) if unit == "weeks" else f"{value:.{_DIGITS.get(unit, 2)}f}"


def _show_sweeps(exam: Exam) -> None:
    from edgefetal.cli import terminal

    rows = []
    for sweep in exam.sweeps[:_MAX_ROWS]:
        of_sweep = [m for m in exam.measurements if m.sweep == sweep.name]
        hc = next(m for m in of_sweep if m.name == "HC")
        value = terminal.figure(hc.value, 1)
        if hc.interval is not None:
            value += f" ({hc.interval[0]:.0f} to {hc.interval[1]:.0f})"
        # The first age is the most trusted; where it abstains, so does this column.
        age = next((m for m in of_sweep if m.name == "GA"), None)
        written = "-" if age is None or age.value is None else f"{_written(age.value, 'weeks')} by {age.method}"
        why = hc.abstained or (age.abstained if age else None) or ""
        rows.append((sweep.name, value, written, str(hc.frames[0].index) if hc.frames else "-", why))
    terminal.show_table("Sweeps", ("sweep", "HC (mm)", "age", "frame", "why there is none"), rows)
    if len(exam.sweeps) > _MAX_ROWS:
        terminal.say(f"... and {len(exam.sweeps) - _MAX_ROWS} more sweeps in the record.")
