"""Options of the recipes that learn from graded frames, and what their commands have in common."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefetal_export.training.quality.classifier import QualityRecipe
    from edgefetal_export.training.quality.frames import Wishes
    from edgefetal_export.training.quality.segmenter import SegmentationRecipe

DataOption = Annotated[
    list[str],
    typer.Option("--data", metavar="KIND:PATH", help="Graded set, such as acouslic:data/acouslic; may be repeated."),
]
AsPublishedOption = Annotated[
    bool,
    typer.Option("--as-published", help="Data, augmentation, balance and decision as in FetalCLIP-IQA."),
]
ReleasedOption = Annotated[
    Optional[Path],
    typer.Option("--weights", metavar="FILE", help="The released FetalCLIP_weights.pt; its hash is checked."),
]
AnyWeightsOption = Annotated[
    Optional[Path],
    typer.Option("--any-weights", metavar="FILE", help="Another open_clip state dict of the tower's shape."),
]
RandomWeightsOption = Annotated[
    bool, typer.Option("--random-weights", help="Begin with nothing pretrained; the run says so wherever it speaks.")
]
LayersOption = Annotated[
    Optional[int],
    typer.Option("--layers", min=1, help="Blocks of a smaller tower. [default: 24]", show_default=False),
]
WidthOption = Annotated[
    Optional[int],
    typer.Option("--width", min=1, help="Width of a smaller tower. [default: 1024]", show_default=False),
]
SideOption = Annotated[
    Optional[int],
    typer.Option("--side-px", min=14, help="Side of the pictures. [default: 224]", show_default=False),
]
RankOption = Annotated[
    Optional[int],
    typer.Option(
        "--lora-rank", min=1, help="Rank of the adapters; their alpha is twice it. [default: 8]", show_default=False
    ),
]
DropoutOption = Annotated[
    Optional[float],
    typer.Option(
        "--lora-dropout", min=0.0, max=0.99, help="Of the adapters' inputs. [default: 0.1]", show_default=False
    ),
]
FiltersOption = Annotated[
    int, typer.Option("--filters", min=1, help="Channels of the decoder at the picture's own size.")
]
EpochsOption = Annotated[int, typer.Option("--epochs", min=1, help="Passes over the training subjects.")]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Pictures a step, over all processes.")]
AccumulationOption = Annotated[
    int, typer.Option("--accumulation", min=1, help="Parts of each process's share of a step, to need less memory.")
]
RateOption = Annotated[float, typer.Option("--learning-rate", min=1e-8, help="Of AdamW.")]
EveryOption = Annotated[
    Optional[int],
    typer.Option(
        "--validation-every",
        min=1,
        help="Read every so-manieth frame of the validation sweeps. [default: 1]",
        show_default=False,
    ),
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=0, help="Processes that prepare pictures ahead, for each that trains.")
]


class EncoderTrains(str, Enum):
    """How much of the encoder learns."""

    ADAPTERS = "adapters"
    WHOLE = "whole"
    NOTHING = "nothing"


EncoderOption = Annotated[
    Optional[EncoderTrains],
    typer.Option("--encoder", help="How much of the encoder learns. [default: adapters]", show_default=False),
]

# open_clip's default width of an attention head.
_HEAD_WIDTH = 64
_RANK, _DROPOUT = 8, 0.1


@dataclass(frozen=True)
class TowerWish:
    """What a user said of FetalCLIP's tower; None is the release's or the recipe's own."""

    layers: int | None
    width: int | None
    side_px: int | None

    @property
    def changed(self) -> bool:
        """Whether it is another one than the release's."""
        return (self.layers, self.width, self.side_px) != (None, None, None)


def chosen_weights(
    released: Path | None, given: Path | None, *, random: bool, tower: TowerWish
) -> tuple[Path | None, bool]:
    """Return the file that a tower begins with, or None for random weights; and whether it must be the released one.

    Raises:
        InputError: none or several were named, or the released weights were asked for in another shape.
    """
    named = [
        name
        for name, said in (
            ("--weights", released is not None),
            ("--any-weights", given is not None),
            ("--random-weights", random),
        )
        if said
    ]
    if not named:
        raise InputError(
            "No weights were named; give --weights FILE (the released FetalCLIP_weights.pt), --any-weights FILE "
            "(others of that shape), or --random-weights to begin with nothing pretrained."
        )
    if len(named) > 1:
        raise InputError(f"{' and '.join(named)} contradict each other; give one of them.")
    if released is not None and tower.changed:
        raise InputError(
            "The released weights fit the released tower only; leave out --layers, --width and --side-px, or give "
            "--any-weights or --random-weights."
        )
    return released or given, released is not None


def tower_encoder(
    wish: TowerWish,
    trains: str,
    *,
    as_published: bool,
    rank: int | None,
    dropout: float | None,
) -> Any:  # noqa: ANN401 - torch comes with it
    """Return the tower that was asked for, as `TowerEncoder`.

    Raises:
        InputError: there is no such tower, or it has no adapters and something was said of them.
    """
    said = [name for name, value in (("--lora-rank", rank), ("--lora-dropout", dropout)) if value is not None]
    if said and trains != EncoderTrains.ADAPTERS.value:
        of = "the published segmenter" if as_published else f"--encoder {trains}"
        raise InputError(f"{' and '.join(said)} say how adapters learn, and {of} has none; leave out one or the other.")
    from pydantic import ValidationError

    from edgefetal_export.teachers.fetalclip import FetalClipConfig
    from edgefetal_export.teachers.lora import LoraSettings, lora_targets
    from edgefetal_export.training.quality.encoders import TowerEncoder

    width = wish.width or FetalClipConfig().width
    side = wish.side_px or FetalClipConfig().image_px
    nowhere = (
        f"There is no tower of width {width} for pictures of {side} pixels: the width must be below {_HEAD_WIDTH} or a "
        f"multiple of it, and the side a multiple of {FetalClipConfig().patch_px}."
    )
    # One head of any width divides itself, so transformers would build what open_clip never does.
    if width > _HEAD_WIDTH and width % _HEAD_WIDTH:
        raise InputError(nowhere)
    shape = {
        "width": width,
        "heads": max(1, width // _HEAD_WIDTH),
        "layers": wish.layers or FetalClipConfig().layers,
        "image_px": side,
    }
    try:
        config = FetalClipConfig(**shape)
    except ValidationError as error:
        raise InputError(nowhere) from error
    rank, dropout = _RANK if rank is None else rank, _DROPOUT if dropout is None else dropout
    lora = LoraSettings(targets=lora_targets(as_published=as_published), rank=rank, alpha=2 * rank, dropout=dropout)
    return TowerEncoder(config=config, trains=trains, lora=lora if trains == EncoderTrains.ADAPTERS.value else None)


@dataclass(frozen=True)
class RunWish:
    """How a run is to go, which does not decide its outcome; and where its parts lie."""

    data: Sequence[str]
    out: Path
    weights: Path | None
    resume: bool
    threads: int
    workers: int
    json_file: Path | None


def speaks() -> bool:
    """Say whether this is the process of `accelerate launch` that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


def train_frames(
    wish: RunWish, recipe_of: Callable[[str], QualityRecipe | SegmentationRecipe], *, masks: bool = False
) -> None:
    """Read the data, train, and show it.

    Args:
        wish: how.
        recipe_of: fills in the recipe for a dataset's kind.
        masks: whether outlines are needed beside grades.
    """
    from edgefetal.cli import terminal
    from edgefetal_calibration.datasets.kinds import read_exams
    from edgefetal_export.training.quality.frames import refuse_ungraded
    from edgefetal_export.training.quality.loop import Reporter
    from edgefetal_export.training.quality.whole_run import train_on_frames

    terminal.check_json_target(wish.json_file, wish.out)
    if not speaks():
        terminal.silence()
    sets = [(text, *read_exams(text)) for text in wish.data]
    for text, _, exams in sets:
        refuse_ungraded(exams, text, masks=masks)
    recipe = recipe_of("+".join(dict.fromkeys(kind.name for _, kind, _ in sets)))
    terminal.say(recipe.weights.sentence())
    with terminal.steps() as progress:
        on_exam = progress.step("read exams", None)
        bar: list[Callable[[str], None]] = []

        def on_plan(steps: int, done: int) -> None:
            bar.append(progress.resumable_step("train", steps, done))

        metrics = train_on_frames(
            wish.out,
            recipe,
            [(kind.name, exams) for _, kind, exams in sets],
            wish.weights,
            resume=wish.resume,
            threads=wish.threads,
            workers=wish.workers,
            on_exam=on_exam,
            reporter=Reporter(
                on_plan=on_plan,
                on_step=lambda epoch: bar[0](f"train, epoch {epoch} of {recipe.epochs}"),
                on_epoch=lambda row: progress.say(
                    f"epoch {row['epoch']:3d}  loss {row['loss']:.4f}  validation loss {row['validation_loss']:.4f}  "
                    f"{row['seconds']:.0f} s"
                ),
            ),
        )
    if speaks():
        terminal.write_json(wish.json_file, metrics)
    best = metrics["best"]
    terminal.say(
        f"Best: epoch {best['epoch']}, validation loss {best['validation_loss']:.4f}; trained "
        f"{metrics['parameters_trained']:,} of {metrics['parameters']:,} parameters. Run: {wish.out}"
    )


def wishes(
    *,
    weights: Path | None,
    released: bool,
    as_published: bool,
    epochs: int,
    batch_size: int,
    accumulation: int,
    learning_rate: float,
    precision: str,
    validation_every: int | None,
    seed: int,
) -> Callable[[str], Wishes]:
    """Return what fills in a user's wishes once the kind of the data is known.

    Raises:
        InputError: the weights cannot be read, or two wishes contradict each other.
    """
    if as_published and validation_every is not None:
        raise InputError(
            "--as-published reads every frame of the sweeps with the plane; leave out --validation-every, or leave out "
            "--as-published."
        )
    from edgefetal_export.training.quality.encoders import provenance_of
    from edgefetal_export.training.quality.frames import Wishes

    provenance = provenance_of(weights, released=released)

    def of_kind(dataset: str) -> Wishes:
        return Wishes(
            dataset=dataset,
            weights=provenance,
            as_published=as_published,
            epochs=epochs,
            batch_size=batch_size,
            accumulation=accumulation,
            learning_rate=learning_rate,
            precision=precision,
            validation_every=1 if validation_every is None else validation_every,
            seed=seed,
        )

    return of_kind
