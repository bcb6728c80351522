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
    ABDOMEN = "abdomen"
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
        typer.Option("--protocol", help="Six blind sweeps as in ACOUSLIC-AI, or one across the plane named."),
    ] = ProtocolName.ACOUSLIC,
    ga: Annotated[
        str,
        typer.Option(
            "--ga",
            metavar="AGE[..AGE]",
            help="Gestational age, 14w0d to 40w0d, or a range from which each exam's is drawn: 18w0d..36w0d.",
        ),
    ] = "28w0d",
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
    ruler: Annotated[bool, typer.Option("--ruler", help="Burn in a depth ruler.")] = False,
    text: Annotated[
        Optional[str], typer.Option("--text", metavar="TEXT", help="Burn in a line of text, in ASCII.")
    ] = None,
    rescale: Annotated[
        Optional[str], typer.Option("--rescale", metavar="WxH", help="Size of the pictures after a capture card.")
    ] = None,
    crop: Annotated[
        Optional[str],
        typer.Option("--crop", metavar="LEFT,TOP,RIGHT,BOTTOM", help="What is cut out of the rescaled pictures."),
    ] = None,
    freeze: Annotated[
        Optional[str],
        typer.Option("--freeze", metavar="FRAME:REPEATS", help="Show a frame, counted from 0, so many times more."),
    ] = None,
    drop: Annotated[
        float, typer.Option("--drop", metavar="SHARE", help="Share of the frames that are lost, 0 to 1.")
    ] = 0.0,
    workers: Annotated[int, typer.Option("--workers", help="Processes; the files do not depend on it.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was ended.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Draw exams of a simulated fetus whose size is known, with pictures, masks and truth.

    Anatomy and physics are simplified: good for training, for demonstrations and for tests of the chain. They say
    nothing of accuracy on patients.
    """
    from edgefetal.cli import terminal
    from edgefetal_calibration.phantom.ages import parse_ages
    from edgefetal_calibration.phantom.capture_plan import CapturePlan, parse_freeze, parse_part, parse_size
    from edgefetal_calibration.phantom.exam_files import FileFormat
    from edgefetal_calibration.phantom.protocol import Protocol
    from edgefetal_calibration.phantom.series import SeriesPlan, write_series

    terminal.check_json_target(json_file, out)
    plan = SeriesPlan(
        protocol=Protocol(protocol.value),
        ages=parse_ages(ga),
        exams=exams,
        seed=seed,
        skill=skill,
        frame_count=frames,
        file_format=FileFormat(file_format.value),
        capture=CapturePlan(
            ruler=ruler,
            text=text,
            size_px=None if rescale is None else parse_size(rescale),
            part_px=None if crop is None else parse_part(crop),
            frozen=None if freeze is None else parse_freeze(freeze),
            lost_share=drop,
        ),
    )
    with terminal.steps() as progress:
        on_exam = progress.step("exams", exams)
        per_exam = plan.protocol.sweep_count * plan.frames_drawn
        on_frame = progress.step("frames", per_exam * exams) if workers == 1 or exams == 1 else None
        paths = write_series(plan, out, workers=workers, resume=resume, on_exam=on_exam, on_frame=on_frame)
    record = {
        "simulated": True,
        "protocol": plan.protocol.value,
        "low_weeks": plan.ages.low_weeks,
        "high_weeks": plan.ages.high_weeks,
        "seed": seed,
        "exams": [str(path) for path in paths],
    }
    terminal.write_json(json_file, record)
    terminal.say(
        f"{exams} simulated {plan.protocol.value} exam{'s' if exams > 1 else ''} of {plan.ages} "
        f"(seed {seed}) in {out}. The truth of the first: {paths[0]}"
    )
