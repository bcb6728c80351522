"""`edgefetal phantom`: simulated exams with known truth."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from edgefetal.cli.options import JsonOption


class ProtocolName(str, Enum):
    """What is swept."""

    ACOUSLIC = "acouslic"
    HEAD = "head"
    FEMUR = "femur"


class FormatName(str, Enum):
    """How sweeps are written."""

    MHA = "mha"
    MP4 = "mp4"
    DICOM = "dicom"
    PNG = "png"


def phantom(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must not exist.")],
    protocol: Annotated[
        ProtocolName,
        typer.Option("--protocol", help="Six blind sweeps as in ACOUSLIC-AI, or one across the head or the femur."),
    ] = ProtocolName.ACOUSLIC,
    ga: Annotated[str, typer.Option("--ga", metavar="AGE", help="Gestational age, 14w0d to 40w0d.")] = "28w0d",
    exams: Annotated[int, typer.Option("--exams", help="How many.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Of the series; the same seed draws the same bytes.")] = 1,
    skill: Annotated[
        Optional[float],
        typer.Option(
            "--skill",
            help="Of the operator, 0 (novice) to 1 (expert). [default: another in each exam]",
            show_default=False,
        ),
    ] = None,
    file_format: Annotated[
        FormatName, typer.Option("--format", help="Of the sweeps; mha writes acouslic exams in ACOUSLIC-AI's layout.")
    ] = FormatName.MHA,
    frames: Annotated[
        Optional[int],
        typer.Option("--frames", help="Of a sweep. [default: 140 of acouslic, else 60]", show_default=False),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes; the files do not depend on it.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was ended.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Draw exams of a simulated fetus whose size is known, with pictures, masks and truth.

    Anatomy and physics are simplified: good for training, for demonstrations and for tests of the chain. They say
    nothing of accuracy on patients.
    """
    from edgefetal.cli import terminal
    from edgefetal_calibration.phantom.protocol import Protocol
    from edgefetal_calibration.phantom.series import FileFormat, SeriesPlan, write_series
    from edgefetal_runtime.growth.gestation import format_weeks, parse_age

    terminal.check_json_target(json_file, out)
    plan = SeriesPlan(
        protocol=Protocol(protocol.value),
        weeks=parse_age(ga).weeks,
        exams=exams,
        seed=seed,
        skill=skill,
        frame_count=frames,
        file_format=FileFormat(file_format.value),
    )
    with terminal.steps() as progress:
        on_exam = progress.step("exams", exams)
        per_exam = plan.protocol.sweep_count * (frames or plan.protocol.frame_count)
        on_frame = progress.step("frames", per_exam * exams) if workers == 1 or exams == 1 else None
        paths = write_series(plan, out, workers=workers, resume=resume, on_exam=on_exam, on_frame=on_frame)
    record = {
        "simulated": True,
        "protocol": plan.protocol.value,
        "weeks": plan.weeks,
        "seed": seed,
        "exams": [str(path) for path in paths],
    }
    terminal.write_json(json_file, record)
    terminal.say(
        f"{exams} simulated {plan.protocol.value} exam{'s' if exams > 1 else ''} of {format_weeks(plan.weeks)} "
        f"(seed {seed}) in {out}. The truth of the first: {paths[0]}"
    )
