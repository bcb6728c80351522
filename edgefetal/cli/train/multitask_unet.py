"""`edgefetal train multitask-unet`: the biometry U-Net."""

from __future__ import annotations

from typing import Annotated

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


def multitask_unet(
    data: Annotated[
        list[str],
        typer.Option("--data", metavar="KIND:PATH", help="Labelled set, such as hc18:data/hc18; may be repeated."),
    ],
    out: RunOption,
    resume: ResumeOption = False,
    structures: StructuresOption = "head",
    epochs: EpochsOption = 80,
    frames_per_exam: FramesPerExamOption = 4,
    batch_size: BatchSizeOption = None,
    learning_rate: LearningRateOption = 2e-3,
    classification_weight: Annotated[
        float, typer.Option("--classification-weight", min=0, max=1, help="`w` in `w * L_cls + (1 - w) * L_seg`.")
    ] = 0.1,
    precision: PrecisionOption = Precision.FP32,
    seed: SeedOption = 1,
    threads: ThreadsOption = 2,
    json_file: JsonOption = None,
) -> None:
    """The multi-task U-Net of Qazi et al. 2023 (arXiv 2311.09607): masks, and which plane a frame shows, if any.

    The split is by subject. The best checkpoint by the validation error of HC, AC and FL is kept as
    `model.safetensors`, with `metrics.json` and `curves.png`. A killed run goes on with --resume where its last epoch
    ended. Masks of the abdomen and the femur come from `edgefetal phantom`.
    """
    from edgefetal.cli import terminal
    from edgefetal.cli.train.outliner import train_shown, validation_errors
    from edgefetal_calibration.datasets.kinds import read_exams
    from edgefetal_export.training.biometry.multitask import (
        MultitaskTask,
        default_batch_size,
        multitask_recipe,
        parse_structures,
    )

    terminal.check_json_target(json_file, out)
    sets = [read_exams(text) for text in data]
    exams = [exam for _, of_set in sets for exam in of_set]
    recipe = multitask_recipe(
        dataset="+".join(dict.fromkeys(kind.name for kind, _ in sets)),
        structures=parse_structures(structures),
        epochs=epochs,
        frames_per_exam=frames_per_exam,
        batch_size=batch_size or default_batch_size(len(exams)),
        learning_rate=learning_rate,
        classification_weight=classification_weight,
        precision=precision.value,
        seed=seed,
    )
    with terminal.steps() as progress:
        metrics = train_shown(progress, out, MultitaskTask(recipe), exams, resume=resume, threads=threads)
    terminal.write_json(json_file, metrics)
    best = metrics["best"]
    terminal.say(f"Best: epoch {best['epoch']}, validation error {validation_errors(best)}. Run: {out}")
