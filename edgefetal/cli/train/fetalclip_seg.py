"""`edgefetal train fetalclip-seg`: outline the abdomen, and judge a frame by what is outlined."""

from __future__ import annotations

from edgefetal.cli.options import JsonOption
from edgefetal.cli.train.frame_options import (
    AccumulationOption,
    AnyWeightsOption,
    AsPublishedOption,
    BatchOption,
    DataOption,
    DropoutOption,
    EncoderOption,
    EncoderTrains,
    EpochsOption,
    EveryOption,
    FiltersOption,
    LayersOption,
    RandomWeightsOption,
    RankOption,
    RateOption,
    ReleasedOption,
    RunWish,
    SideOption,
    TowerWish,
    WidthOption,
    WorkersOption,
    chosen_weights,
    tower_encoder,
    train_frames,
    wishes,
)
from edgefetal.cli.train.options import Precision, ResumeOption, RunOption, SeedOption, ThreadsOption
from edgefetal_devices.errors import InputError

EXAMPLE = (
    "Example: edgefetal train fetalclip-seg --weights FetalCLIP_weights.pt --data acouslic:data/acouslic --out runs/seg"
)


def fetalclip_seg(
    data: DataOption,
    out: RunOption,
    weights: ReleasedOption = None,
    any_weights: AnyWeightsOption = None,
    random_weights: RandomWeightsOption = False,
    as_published: AsPublishedOption = False,
    encoder: EncoderOption = None,
    lora_rank: RankOption = None,
    lora_dropout: DropoutOption = None,
    layers: LayersOption = None,
    width: WidthOption = None,
    side_px: SideOption = None,
    filters: FiltersOption = 32,
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
    """FetalCLIP_SEG of He, Wang and Yaqub 2025 (arXiv 2507.22802): the tower, four of its blocks, a UNETR decoder.

    The split is by subject. Kept is the epoch of the least validation loss; then a threshold of the outlined area is
    fitted on the validation subjects. A killed run goes on with --resume where its last epoch ended. On several GPUs or
    processes: `accelerate launch -m edgefetal train fetalclip-seg ...`
    """
    from edgefetal_export.training.quality.segmenter import segmentation_recipe

    tower = TowerWish(layers, width, side_px)
    file, released = chosen_weights(weights, any_weights, random=random_weights, tower=tower)
    if as_published and encoder not in (None, EncoderTrains.NOTHING):
        raise InputError(
            "The published segmenter's encoder is frozen: its adapters never receive a gradient. Leave out --encoder, "
            "or leave out --as-published."
        )
    trains = (encoder or (EncoderTrains.NOTHING if as_published else EncoderTrains.ADAPTERS)).value
    built = tower_encoder(tower, trains, as_published=as_published, rank=lora_rank, dropout=lora_dropout)
    of_kind = wishes(
        weights=file,
        released=released,
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
        RunWish(data, out, file, resume, threads, workers, json_file),
        lambda kind: segmentation_recipe(built, of_kind(kind), filters=filters),
        masks=True,
    )
