"""`edgefetal train multitask-unet`: the biometry U-Net."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from edgefetal.cli.options import JsonOption
from edgefetal.cli.train.options import Precision, ResumeOption, RunOption, SeedOption, ThreadsOption


def multitask_unet(
    data: Annotated[str, typer.Option("--data", metavar="KIND:PATH", help="Labelled set, such as hc18:data/hc18.")],
    out: RunOption,
    resume: ResumeOption = False,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the training subjects.")] = 80,
    batch_size: Annotated[
        Optional[int],
        typer.Option(
            "--batch-size",
            min=1,
            help="Pictures a step. [default: 16, or half of the data if less]",
            show_default=False,
        ),
    ] = None,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=1e-8, help="Peak of the schedule.")] = 2e-3,
    classification_weight: Annotated[
        float, typer.Option("--classification-weight", min=0, max=1, help="`w` in `w * L_cls + (1 - w) * L_seg`.")
    ] = 0.1,
    precision: Annotated[
        Precision, typer.Option("--precision", help="bf16 is quicker on processors that have it.")
    ] = Precision.FP32,
    seed: SeedOption = 1,
    threads: ThreadsOption = 2,
    json_file: JsonOption = None,
) -> None:
    """The multi-task U-Net of Qazi et al. 2023 (arXiv 2311.09607): head mask, and head or no head.

    The split is by subject. The best checkpoint by validation HC error is kept as `model.safetensors`, with
    `metrics.json` and `curves.png`. A killed run goes on with --resume where its last epoch ended.
    """
    from edgefetal.cli import terminal
    from edgefetal_calibration.datasets.kinds import read_dataset
    from edgefetal_export.training.multitask import count_work, default_batch_size, multitask_recipe, train

    terminal.check_json_target(json_file, out)
    kind, cases = read_dataset(data)
    recipe = multitask_recipe(
        dataset=kind.name,
        epochs=epochs,
        batch_size=batch_size or default_batch_size(len(cases)),
        learning_rate=learning_rate,
        classification_weight=classification_weight,
        precision=precision.value,
        seed=seed,
    )
    work = count_work(out, cases, recipe)
    with terminal.steps() as progress:
        on_load = progress.step("read pictures", work.pictures)
        on_step = progress.resumable_step(
            "train", work.steps_per_epoch * epochs, work.steps_per_epoch * work.epochs_done
        )
        metrics = train(
            out,
            recipe,
            cases,
            resume=resume,
            threads=threads,
            on_load=on_load,
            on_step=lambda epoch: on_step(f"train, epoch {epoch} of {epochs}"),
            on_epoch=lambda row: progress.say(
                f"epoch {row['epoch']:3d}  loss {row['segmentation_loss']:.3f}  validation HC error "
                f"{terminal.figure(row['validation_hc_mae_mm'])} mm "
                f"({row['validation_n_measured']} of {row['validation_n']} measured)  "
                f"plane {row['validation_plane_accuracy']:.3f}"
            ),
        )
    terminal.write_json(json_file, metrics)
    best = metrics["best"]
    terminal.say(
        f"Best: epoch {best['epoch']}, validation HC error {terminal.figure(best['validation_hc_mae_mm'])} mm, "
        f"{best['validation_n_measured']} of {best['validation_n']} measured. Run: {out}"
    )
