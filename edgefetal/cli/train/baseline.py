"""`edgefetal train baseline NAME`: the networks that FetalCLIP-IQA compares itself with."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from edgefetal.cli.options import JsonOption
from edgefetal.cli.train.frame_options import (
    AccumulationOption,
    AsPublishedOption,
    BatchOption,
    DataOption,
    EpochsOption,
    EveryOption,
    RandomWeightsOption,
    RateOption,
    RunWish,
    WorkersOption,
    train_frames,
    wishes,
)
from edgefetal.cli.train.options import Precision, ResumeOption, RunOption, SeedOption, ThreadsOption
from edgefetal_devices.errors import InputError

EXAMPLE = (
    "Example: edgefetal train baseline densenet121 --random-weights --data acouslic:data/acouslic --out runs/densenet"
)


class Scale(str, Enum):
    """How large the network is."""

    PUBLISHED = "published"
    TINY = "tiny"


def baseline(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="densenet121, efficientnet-b0, vgg16, swin-large, deit3-large or clip-vit-large."
        ),
    ],
    data: DataOption,
    out: RunOption,
    weights: Annotated[
        Optional[Path],
        typer.Option("--weights", metavar="FILE", help="Pretrained weights: safetensors, or transformers' folder."),
    ] = None,
    random_weights: RandomWeightsOption = False,
    as_published: AsPublishedOption = False,
    scale: Annotated[Scale, typer.Option("--scale", help="tiny is for trials.")] = Scale.PUBLISHED,
    epochs: EpochsOption = 5,
    batch_size: BatchOption = 32,
    accumulation: AccumulationOption = 1,
    learning_rate: RateOption = 3e-4,
    precision: Precision = Precision.FP32,
    validation_every: EveryOption = None,
    seed: SeedOption = 1,
    threads: ThreadsOption = 2,
    workers: WorkersOption = 0,
    resume: ResumeOption = False,
    json_file: JsonOption = None,
) -> None:
    """A baseline of FetalCLIP-IQA: convolutional ones train whole, transformers through adapters.

    The split, the checkpoint and the decision are those of `train fetalclip-cls`.
    """
    from edgefetal_export.teachers.quality_baselines import baseline_row
    from edgefetal_export.training.quality.classifier import quality_recipe
    from edgefetal_export.training.quality.encoders import BaselineEncoder, pretrained_config

    baseline_row(name)
    if (weights is None) is not random_weights:
        raise InputError(
            "Say what the network begins with: either --weights FILE, or --random-weights for nothing pretrained."
        )
    plain = BaselineEncoder(name=name, scale=scale.value)
    encoder = plain.model_copy(update={"config": pretrained_config(plain, weights)})
    of_kind = wishes(
        weights=weights,
        released=False,
        as_published=as_published,
        epochs=epochs,
        batch_size=batch_size,
        accumulation=accumulation,
        learning_rate=learning_rate,
        precision=precision.value,
        validation_every=validation_every,
        seed=seed,
    )
    train_frames(
        RunWish(data, out, weights, resume, threads, workers, json_file),
        lambda kind: quality_recipe(encoder, of_kind(kind)),
    )
