"""Training a network that outlines, shown on the terminal: what `train multitask-unet` and `distil` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgefetal.cli.terminal import Steps
    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_export.training.biometry.loop import Task


def train_shown(
    progress: Steps,
    run: Path,
    task: Task,
    exams: Sequence[LabelledExam],
    unlabelled: Sequence[LabelledExam] = (),
    *,
    resume: bool,
    threads: int,
) -> dict[str, Any]:
    """Train, or go on training, with a bar for reading and one for learning, and a line an epoch.

    Arguments, result and errors are those of `edgefetal_export.training.biometry.loop.train`.
    """
    from edgefetal_export.training.biometry.loop import count_exams, epochs_done, train

    recipe = task.recipe
    done, on_load = epochs_done(run), progress.step("read exams", count_exams(exams, recipe, unlabelled))
    # How many steps there are is known once the exams are read.
    steps: list[Callable[[str], None]] = []
    return train(
        run,
        task,
        exams,
        unlabelled,
        resume=resume,
        threads=threads,
        on_load=on_load,
        on_count=lambda count: steps.append(progress.resumable_step("train", count * recipe.epochs, count * done)),
        on_step=lambda epoch: steps[0](f"train, epoch {epoch} of {recipe.epochs}"),
        on_epoch=lambda row: progress.say(
            f"epoch {row['epoch']:3d}  loss {row['segmentation_loss']:.3f}  validation error {validation_errors(row)}  "
            f"plane {row['validation_plane_accuracy']:.3f}"
        ),
    )


def validation_errors(row: dict[str, Any]) -> str:
    """Write the validation errors of an epoch."""
    from edgefetal.cli import terminal

    return ", ".join(
        f"{name} {terminal.figure(score['mae_mm'])} mm ({score['n_measured']} of {score['n']} measured)"
        for name, score in row["validation"].items()
    )
