"""`edgefetal distil`: several teachers, or none, into one student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgefetal.cli.options import JsonOption
from edgefetal.cli.train.options import (
    BatchSizeOption,
    EpochsOption,
    FramesPerExamOption,
    LearningRateOption,
    Precision,
    PrecisionOption,
    ResumeOption,
    RunOption,
    SeedOption,
    StructuresOption,
    ThreadsOption,
)

EXAMPLE = (
    "Example: edgefetal distil --teachers runs/heads --teachers runs/sononet --student small --data hc18:data/hc18 "
    "--out runs/student"
)


def distil(
    data: Annotated[
        list[str],
        typer.Option("--data", metavar="KIND:PATH", help="Labelled set, such as hc18:data/hc18; may be repeated."),
    ],
    out: RunOption,
    resume: ResumeOption = False,
    teachers: Annotated[
        Optional[list[Path]],
        typer.Option(
            "--teachers",
            metavar="RUN",
            help="A finished run, or an import, that teaches the heads it knows; may be repeated, and left out.",
        ),
    ] = None,
    unlabelled: Annotated[
        Optional[list[str]],
        typer.Option(
            "--unlabelled",
            metavar="KIND:PATH",
            help="Frames that the teachers alone say something of; may be repeated.",
        ),
    ] = None,
    student: Annotated[str, typer.Option("--student", help="nano, small or base.")] = "small",
    structures: StructuresOption = "head",
    input_size: Annotated[
        str, typer.Option("--input", metavar="WxH", help="Size of the network's input in px, multiples of 16.")
    ] = "288x192",
    grades: Annotated[
        bool, typer.Option("--grades", help="Also learn how good a frame is from grades in the data.")
    ] = False,
    epochs: EpochsOption = 80,
    frames_per_exam: FramesPerExamOption = 4,
    batch_size: BatchSizeOption = None,
    learning_rate: LearningRateOption = 2e-3,
    mask_weight: Annotated[float, typer.Option("--mask-weight", min=0, help="Of the teachers' masks.")] = 1.0,
    boundary_weight: Annotated[
        float, typer.Option("--boundary-weight", min=0, help="How much more a pixel on their edge counts.")
    ] = 4.0,
    plane_weight: Annotated[float, typer.Option("--plane-weight", min=0, help="Of the teachers' planes.")] = 1.0,
    feature_weight: Annotated[float, typer.Option("--feature-weight", min=0, help="Of their feature vectors.")] = 0.1,
    quality_weight: Annotated[float, typer.Option("--quality-weight", min=0, help="Of quality.")] = 0.1,
    skill_weight: Annotated[float, typer.Option("--skill-weight", min=0, help="Of skill.")] = 0.1,
    cache: Annotated[
        Optional[Path],
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Where the teachers' answers are kept, for any number of runs. [default: beside the run]",
            show_default=False,
        ),
    ] = None,
    precision: PrecisionOption = Precision.FP32,
    seed: SeedOption = 1,
    split_seed: Annotated[
        Optional[int],
        typer.Option("--split-seed", min=0, help="Of the split. [default: --seed]", show_default=False),
    ] = None,
    threads: ThreadsOption = 2,
    json_file: JsonOption = None,
) -> None:
    """Train one small network with all heads: from labels, and from what several teachers say of the same frames.

    A U-Net teaches masks, planes and features, SonoNet planes, a quality network quality, a skill network skill. They
    are asked once about every training frame; the answers are kept by content. Without --teachers the same student
    learns from labels alone.
    """
    import torch

    from edgefetal.cli import terminal
    from edgefetal.cli.train.outliner import train_shown, validation_errors
    from edgefetal_calibration.datasets.kinds import read_exams
    from edgefetal_calibration.datasets.split import Part
    from edgefetal_export.students.student import parse_size
    from edgefetal_export.training.biometry.loop import draw_split
    from edgefetal_export.training.biometry.multitask import default_batch_size, parse_structures
    from edgefetal_export.training.student.answers import ask
    from edgefetal_export.training.student.recipe import LossWeights, parse_input, student_recipe
    from edgefetal_export.training.student.task import StudentTask
    from edgefetal_export.training.student.teachers import load_teacher, refuse_leaks

    terminal.check_json_target(json_file, out)
    size, input_px, chosen = parse_size(student), parse_input(input_size), parse_structures(structures)
    torch.set_num_threads(threads)
    loaded = [load_teacher(run) for run in teachers or []]
    sets = [read_exams(text) for text in data]
    exams = [exam for _, of_set in sets for exam in of_set]
    unlabelled_sets = [read_exams(text) for text in unlabelled or []]
    without_labels = [exam for _, of_set in unlabelled_sets for exam in of_set]
    recipe = student_recipe(
        dataset="+".join(dict.fromkeys(kind.name for kind, _ in sets)),
        unlabelled="+".join(dict.fromkeys(kind.name for kind, _ in unlabelled_sets)),
        structures=chosen,
        size=size,
        teachers=tuple(teacher.record for teacher in loaded),
        graded=grades,
        input_px=input_px,
        epochs=epochs,
        frames_per_exam=frames_per_exam,
        batch_size=batch_size or default_batch_size(len(exams)),
        learning_rate=learning_rate,
        loss=LossWeights(
            mask=mask_weight,
            boundary=boundary_weight,
            plane=plane_weight,
            feature=feature_weight,
            quality=quality_weight,
            skill=skill_weight,
        ),
        precision=precision.value,
        seed=seed,
        split_seed=split_seed,
    )
    every = [*exams, *without_labels]
    split = draw_split(every, recipe)
    refuse_leaks(loaded, split, every)
    taught = split.select(every, Part.TRAIN)
    with terminal.steps() as progress:
        answers = {}
        if loaded:
            kept = cache or out.with_name(f"{out.name}-answers")
            answers = ask(loaded, taught, kept, progress.step("ask the teachers", len(taught)))
        task = StudentTask(recipe, answers)
        metrics = train_shown(progress, out, task, exams, without_labels, resume=resume, threads=threads)
    terminal.write_json(json_file, metrics)
    best = metrics["best"]
    terminal.say(
        f"Best: epoch {best['epoch']}, validation error {validation_errors(best)}. {metrics['parameters']} parameters. "
        f"Run: {out}"
    )
