"""`edgefetal train skill`: skill assessment without ratings."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edgefetal.cli.options import JsonOption
from edgefetal.cli.train.options import ResumeOption, RunOption, SeedOption, ThreadsOption

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLE = "Example: edgefetal train skill --data phantom:exams --out runs/skill"


class NormalisationName(str, Enum):
    """How the scores of a batch become weights."""

    RANK = "rank"
    MINMAX = "minmax"
    SOFTMAX = "softmax"
    NONE = "none"


def skill(
    data: Annotated[str, typer.Option("--data", metavar="KIND:PATH", help="Exams with masks, such as phantom:exams.")],
    out: RunOption,
    resume: ResumeOption = False,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the clips of both levels.")] = 40,
    unrolled: Annotated[
        bool, typer.Option("--unrolled", help="Also learn from one virtual step of the task network.")
    ] = False,
    normalisation: Annotated[
        Optional[NormalisationName],
        typer.Option(
            "--normalisation",
            help="How the scores of a batch become weights. [default: rank, or minmax where a step is unrolled]",
            show_default=False,
        ),
    ] = None,
    structures: Annotated[
        Optional[str],
        typer.Option(
            "--structures",
            metavar="NAME[,NAME]",
            help="Whose masks are drawn. [default: those of the first exam]",
            show_default=False,
        ),
    ] = None,
    clip_frames: Annotated[int, typer.Option("--clip-frames", min=1, help="Consecutive frames of a clip.")] = 10,
    width: Annotated[int, typer.Option("--width", min=16, help="Of a frame, a multiple of 16.")] = 80,
    height: Annotated[int, typer.Option("--height", min=16, help="Of a frame, a multiple of 16.")] = 64,
    features: Annotated[
        int, typer.Option("--features", min=1, help="Channels of the U-Net's finest level; the published run has 32.")
    ] = 8,
    batch_size: Annotated[int, typer.Option("--batch-size", min=2, help="Clips a step of each level.")] = 16,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=1e-8, help="Peak, task network.")] = 2e-3,
    skill_learning_rate: Annotated[
        float, typer.Option("--skill-learning-rate", min=1e-8, help="Peak, skill network.")
    ] = 1e-3,
    beside: Annotated[
        Optional[list[Path]],
        typer.Option("--beside", metavar="RUN", help="A finished run to show in the same table; may be repeated."),
    ] = None,
    seed: SeedOption = 1,
    threads: ThreadsOption = 2,
    json_file: JsonOption = None,
) -> None:
    """Learn how skilled an operator is from how well a network can draw their clips (Wang et al., arXiv 2512.23920).

    No rating is used. The split is by subject, and the training subjects are shared out between the two levels. The
    table is of the held-out exams; where the data store a skill, it is compared there and nowhere else. A killed run
    goes on with --resume where its last epoch ended.
    """
    from edgefetal.cli import terminal
    from edgefetal_calibration.datasets.kinds import read_exams
    from edgefetal_export.training.skill.clips import labelled_structures
    from edgefetal_export.training.skill.levels import Normalisation
    from edgefetal_export.training.skill.levels_in_turn import count_work, read_held_out, skill_recipe, train

    terminal.check_json_target(json_file, out)
    kind, exams = read_exams(data)
    way = normalisation or (NormalisationName.MINMAX if unrolled else NormalisationName.RANK)
    recipe = skill_recipe(
        dataset=kind.name,
        structures=tuple(structures.split(",")) if structures else labelled_structures(exams),
        epochs=epochs,
        normalisation=Normalisation(way.value),
        unrolled=unrolled,
        batch_size=batch_size,
        learning_rate=learning_rate,
        skill_learning_rate=skill_learning_rate,
        seq_len=clip_frames,
        size_px=(height, width),
        features=features,
        seed=seed,
    )
    others = [read_held_out(run, recipe, exams) for run in beside or ()]
    work = count_work(out, exams)
    with terminal.steps() as progress:
        on_load = progress.step("read exams", work.exams)
        on_epoch = progress.resumable_step("train", epochs, work.epochs_done)

        def ended(row: Mapping[str, Any]) -> None:
            on_epoch(f"train, epoch {row['epoch']} of {epochs}")
            progress.say(
                f"epoch {row['epoch']:3d}  task loss {row['task_loss']:.3f}  skill loss {row['skill_loss']:.4f}  "
                f"validation Dice {row['validation_dice']:.3f}  error of the score {row['validation_mse'] ** 0.5:.3f}"
            )

        metrics = train(out, recipe, exams, resume=resume, threads=threads, on_load=on_load, on_epoch=ended)
    terminal.write_json(json_file, metrics)
    columns = (
        "run", "step", "weights", "score against skill", "best clip above its scan's mean", "error of the score (MSE)",
        "Dice",
    )  # fmt: skip
    rows = [_table_row(run.name, of) for run, of in ((out, metrics), *zip(beside or (), others, strict=True))]
    terminal.show_table("On held-out exams", columns, rows)
    terminal.say(f"Best: epoch {metrics['best']['epoch']}. Run: {out}")


def _table_row(name: str, metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """One run's line of the table."""
    from edgefetal.cli import terminal

    of = metrics["held_out"]
    against, above = of["score_against_skill"], of["best_above_mean"]
    interval = against["interval_95"]
    bounds = "" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"
    return (
        name,
        "unrolled" if metrics["unrolled"] else "alternating",
        metrics["normalisation"],
        f"{terminal.figure(against['spearman'])}{bounds}, n {against['of']}",
        "-" if above["share"] is None else f"{above['share']:.0%} of {above['of']}",
        f"{terminal.figure(of['mse'], 4)}, n {of['clips_with_dice']}",
        terminal.figure(of["dice"], 3),
    )
