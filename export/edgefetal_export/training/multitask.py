"""Training the multi-task U-Net on heads: one epoch after another, resumable, judged in millimetres."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from monai.losses.dice import DiceLoss
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from edgefetal_calibration.datasets.split import Part, Split, split_by_subject
from edgefetal_devices.errors import DatasetError
from edgefetal_export.teachers.multitask_unet import MultitaskUnet, MultitaskUnetConfig, joint_loss, parameter_count
from edgefetal_export.training import run as run_folder
from edgefetal_export.training.augment import augmented_head, outline_in_network, soft_mask, without_head
from edgefetal_export.training.curves import draw_curves
from edgefetal_export.training.run import Recipe
from edgefetal_runtime.atomic import write_file
from edgefetal_runtime.biometry.field import fan_field
from edgefetal_runtime.biometry.head import HEAD_SHAPE, measure_head
from edgefetal_runtime.biometry.measurement import Measured
from edgefetal_runtime.biometry.outline import Outline, outline_round
from edgefetal_runtime.biometry.quantities import HC
from edgefetal_runtime.infer.bundle import HEAD, NO_PLANE
from edgefetal_runtime.infer.preprocess import PreprocessSpec, preprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_runtime.biometry.ellipse import Ellipse
    from edgefetal_runtime.scale import Scale

PLANES = (HEAD, NO_PLANE)
_HEAD_CLASS, _NO_HEAD_CLASS = 0, 1

# A validation picture without a measurement counts as an error of this size when checkpoints are ranked, so that a
# network cannot win by refusing the hard ones.
ABSTENTION_COST_MM = 10.0

# The seed of a sample is (seed, epoch, index): any epoch can be made again without the ones before it.
_VALIDATION_EPOCH = 1_000_000
_FEW_STEPS = 20


class MultitaskRecipe(Recipe):
    """Everything that decides the outcome of a run of the multi-task U-Net.

    Args:
        network: shape of the network.
        classification_weight: `w` in `w * L_cls + (1 - w) * L_seg`; the paper does not give it.
        no_head_share: pictures without a head for every picture with one.
        average_decay: decay a step of the running average of the weights, which is what is validated and kept.
    """

    network: MultitaskUnetConfig
    classification_weight: float
    no_head_share: float
    average_decay: float


@dataclass(frozen=True, eq=False)
class LabelledHead:
    """A picture in memory with its label.

    Args:
        pixels: shape (H, W), uint8.
        outline_px: the annotated outline, in pixels.
        scale: pixel size.
        hc_mm: reference head circumference.
    """

    pixels: npt.NDArray[np.uint8]
    outline_px: Ellipse
    scale: Scale
    hc_mm: float


class HeadSamples(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """One epoch of augmented pictures, with and without a head: image, soft mask, plane."""

    def __init__(self, heads: Sequence[LabelledHead], recipe: MultitaskRecipe, epoch: int) -> None:
        """Set up the epoch; nothing is computed before a sample is asked for."""
        self._heads, self._recipe, self._epoch = heads, recipe, epoch

    def __len__(self) -> int:
        """Count the samples: every head once, and the recipe's share of pictures without one."""
        return len(self._heads) + round(self._recipe.no_head_share * len(self._heads))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Make sample `index`, the same one whenever it is asked for."""
        rng = np.random.default_rng((self._recipe.seed, self._epoch, index))
        spec = self._recipe.preprocess
        if index < len(self._heads):
            head = self._heads[index]
            pixels, outline_px = augmented_head(head.pixels, head.outline_px, rng)
            image, box = preprocess(pixels, spec)
            outline = outline_in_network(outline_px, box)
            mask = (
                np.zeros((spec.height_px, spec.width_px), np.float32) if outline is None else soft_mask(outline, spec)
            )
            plane = _HEAD_CLASS
        else:
            head = self._heads[int(rng.integers(len(self._heads)))]
            image, _ = preprocess(without_head(head.pixels, head.outline_px, rng), spec)
            mask = np.zeros((spec.height_px, spec.width_px), np.float32)
            plane = _NO_HEAD_CLASS
        return torch.from_numpy(image[0]), torch.from_numpy(mask)[None], torch.tensor(plane)


@dataclass(frozen=True)
class ValidationScore:
    """How good the averaged weights are on the validation subjects.

    Args:
        hc_mae_mm: mean absolute HC error over the measured pictures, or None where none was.
        n: pictures with a head.
        n_measured: pictures of these with a measurement.
        plane_accuracy: share of right answers on the pictures with a head and as many without.
    """

    hc_mae_mm: float | None
    n: int
    n_measured: int
    plane_accuracy: float

    def cost_mm(self) -> float:
        """Rank of a checkpoint: mean error with every abstention at `ABSTENTION_COST_MM`."""
        return ((self.hc_mae_mm or 0.0) * self.n_measured + ABSTENTION_COST_MM * (self.n - self.n_measured)) / self.n


def default_batch_size(pictures: int) -> int:
    """Return 16, or half of the pictures where these are fewer than 32, so that an epoch has steps."""
    return max(1, min(16, pictures // 2))


def multitask_recipe(
    *,
    dataset: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    classification_weight: float,
    precision: str,
    seed: int,
) -> MultitaskRecipe:
    """Fill in the recipe `multitask-unet`: what the user chose, and what it always does.

    Frames become 288 x 192, a little over a third of HC18's 800 x 540.
    """
    return MultitaskRecipe(
        name="multitask-unet",
        dataset=dataset,
        network=MultitaskUnetConfig(structures=(HEAD,), planes=PLANES),
        preprocess=PreprocessSpec(height_px=192, width_px=288, mean=0.15, std=0.2),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=1e-2,
        classification_weight=classification_weight,
        no_head_share=0.2,
        average_decay=0.995,
        validation_share=0.1,
        held_out_share=0.15,
        precision=precision,
        seed=seed,
    )


@dataclass(frozen=True)
class Work:
    """How much a run has to do, for whoever shows its progress.

    Args:
        pictures: pictures to read.
        steps_per_epoch: optimiser steps of an epoch.
        epochs_done: epochs that an interrupted run has behind it.
    """

    pictures: int
    steps_per_epoch: int
    epochs_done: int


def count_work(run: Path, cases: Sequence[HeadCase], recipe: MultitaskRecipe) -> Work:
    """Count what `train` will have to do."""
    split = draw_split(cases, recipe)
    n_train, n_validation = (len(split.select(cases, part)) for part in (Part.TRAIN, Part.VALIDATION))
    state = run_folder.load_checkpoint(run)
    return Work(n_train + n_validation, steps_per_epoch(n_train, recipe), len(state["rows"]) if state else 0)


def load_heads(cases: Sequence[HeadCase], advance: Callable[[], None]) -> list[LabelledHead]:
    """Read pictures and labels into memory (0.4 MB each)."""
    heads = []
    for case in cases:
        heads.append(LabelledHead(case.frame().pixels, case.head_px(), case.scale, case.hc_mm))
        advance()
    return heads


def draw_split(cases: Sequence[HeadCase], recipe: MultitaskRecipe) -> Split:
    """Draw the recipe's split."""
    return split_by_subject(
        cases,
        dataset=recipe.dataset,
        seed=recipe.seed,
        validation=recipe.validation_share,
        held_out=recipe.held_out_share,
    )


def _network(recipe: MultitaskRecipe) -> MultitaskUnet:
    torch.manual_seed(recipe.seed)
    network = MultitaskUnet(recipe.network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def validate(network: nn.Module, heads: Sequence[LabelledHead], recipe: MultitaskRecipe) -> ValidationScore:
    """Measure the validation pictures by the clinic's geometry, and classify as many without a head.

    The thresholds of the clinic are fitted later, on the finished network, so nothing is refused by them here.
    """
    network.eval()
    errors_mm: list[float] = []
    right = 0
    with torch.inference_mode():
        for index, head in enumerate(heads):
            image, box = preprocess(head.pixels, recipe.preprocess)
            rng = np.random.default_rng((recipe.seed, _VALIDATION_EPOCH, index))
            empty, _ = preprocess(without_head(head.pixels, head.outline_px, rng), recipe.preprocess)
            masks, planes = network(torch.from_numpy(np.concatenate((image, empty))))
            right += int(planes[0].argmax() == _HEAD_CLASS) + int(planes[1].argmax() == _NO_HEAD_CLASS)
            field = fan_field(image[0, 0], recipe.preprocess, box)
            outline = outline_round(masks[0, 0].numpy(), box, head.scale, HEAD_SHAPE, field)
            hc = measure_head(outline)[HC] if isinstance(outline, Outline) else outline
            if isinstance(hc, Measured):
                errors_mm.append(abs(hc.value - head.hc_mm))
    mae_mm = float(np.mean(errors_mm)) if errors_mm else None
    return ValidationScore(mae_mm, len(heads), len(errors_mm), right / (2 * len(heads)))


def _train_epoch(
    network: nn.Module,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    batches: DataLoader[tuple[Tensor, Tensor, Tensor]],
    recipe: MultitaskRecipe,
    advance: Callable[[], None],
) -> tuple[float, float]:
    """Run one epoch; return the mean segmentation and classification losses."""
    dice = DiceLoss(sigmoid=True, squared_pred=True)
    binary = nn.BCEWithLogitsLoss()
    cross = nn.CrossEntropyLoss()
    network.train()
    sums = np.zeros(2)
    for image, mask, plane in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            mask_logits, plane_logits = network(image.to(memory_format=torch.channels_last))
        segmentation = dice(mask_logits.float(), mask) + binary(mask_logits.float(), mask)
        classification = cross(plane_logits.float(), plane)
        optimizer.zero_grad(set_to_none=True)
        joint_loss(segmentation, classification, recipe.classification_weight).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        average.update_parameters(network)
        sums += (float(segmentation.detach()), float(classification.detach()))
        advance()
    segmentation_mean, classification_mean = sums / len(batches)
    return float(segmentation_mean), float(classification_mean)


def _single_threaded(_worker: int) -> None:
    """Keep OpenCV from starting threads in a forked worker, where its pool may hang."""
    cv2.setNumThreads(0)


def steps_per_epoch(n_heads: int, recipe: MultitaskRecipe) -> int:
    """Count the optimiser steps of one epoch over `n_heads` training pictures."""
    return (n_heads + round(recipe.no_head_share * n_heads)) // recipe.batch_size


def train(
    run: Path,
    recipe: MultitaskRecipe,
    cases: Sequence[HeadCase],
    *,
    resume: bool,
    threads: int = 2,
    on_load: Callable[[], None] = lambda: None,
    on_step: Callable[[int], None] = lambda _epoch: None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda _row: None,
) -> dict[str, Any]:
    """Train, or go on training, and keep the best checkpoint by validation HC error.

    Args:
        run: the run's folder.
        recipe: what to do.
        cases: the labelled pictures; the split is drawn from them by subject.
        resume: go on with a folder that exists.
        threads: CPU threads; the same number gives the same weights on the same machine.
        on_load: called after every picture that was read.
        on_step: called after every optimiser step with the number of the epoch, from 1.
        on_epoch: called after every epoch with its row of metrics.

    Returns:
        What `metrics.json` holds.

    Raises:
        DatasetError: there are too few subjects or pictures.
        OutputError: the folder belongs to another run.
    """
    torch.set_num_threads(threads)
    split = draw_split(cases, recipe)
    train_cases, validation_cases = (split.select(cases, part) for part in (Part.TRAIN, Part.VALIDATION))
    steps = steps_per_epoch(len(train_cases), recipe)
    if steps == 0:
        message = f"{len(train_cases)} training pictures do not fill a batch of {recipe.batch_size}; use --batch-size."
        raise DatasetError(message)
    run_folder.open_run(run, recipe, split, resume=resume)
    heads = load_heads(train_cases, on_load)
    validation_heads = load_heads(validation_cases, on_load)

    network = _network(recipe)
    averaging = get_ema_multi_avg_fn(recipe.average_decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(network, multi_avg_fn=averaging, use_buffers=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    total_steps = recipe.epochs * steps
    # A warm-up of a single step is a division by zero in torch, and a tenth of so few steps may be that one.
    warm_up_share = 0.1 if total_steps > _FEW_STEPS else 0.3
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=total_steps, pct_start=warm_up_share
    )
    stateful: dict[str, Any] = {"network": network, "average": average, "optimizer": optimizer, "schedule": schedule}
    rows: list[dict[str, Any]] = []
    best_weights: dict[str, Tensor] = {}
    if (state := run_folder.load_checkpoint(run)) is not None:
        for name, part in stateful.items():
            part.load_state_dict(state[name])
        rows, best_weights = state["rows"], state["best_weights"]
        _write_results(run, recipe, split, network, rows, best_weights)

    for epoch in range(len(rows), recipe.epochs):
        started_s = time.perf_counter()
        # Dropout and the order of the batches must not depend on whether the run was interrupted.
        torch.manual_seed(recipe.seed * 100_003 + epoch)
        batches = DataLoader(
            HeadSamples(heads, recipe, epoch),
            recipe.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=1,
            worker_init_fn=_single_threaded,
        )
        advance = functools.partial(on_step, epoch + 1)
        losses = _train_epoch(network, average, optimizer, schedule, batches, recipe, advance)
        score = validate(average.module, validation_heads, recipe)
        rows.append(
            {
                "epoch": epoch + 1,
                "segmentation_loss": losses[0],
                "classification_loss": losses[1],
                "validation_hc_mae_mm": score.hc_mae_mm,
                "validation_n": score.n,
                "validation_n_measured": score.n_measured,
                "validation_plane_accuracy": score.plane_accuracy,
                "validation_cost_mm": score.cost_mm(),
                "seconds": time.perf_counter() - started_s,
            }
        )
        if _best(rows) is rows[-1]:
            best_weights = {name: tensor.clone() for name, tensor in average.module.state_dict().items()}
        run_folder.save_checkpoint(
            run,
            {name: part.state_dict() for name, part in stateful.items()} | {"rows": rows, "best_weights": best_weights},
        )
        _write_results(run, recipe, split, network, rows, best_weights)
        on_epoch(rows[-1])
    return _metrics(recipe, split, network, rows)


def _best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of the checkpoint that is kept: the least cost, and of equals the one trained longest."""
    return min(rows, key=lambda row: (row["validation_cost_mm"], -row["epoch"]))


def _write_results(
    run: Path,
    recipe: MultitaskRecipe,
    split: Split,
    network: nn.Module,
    rows: list[dict[str, Any]],
    best_weights: dict[str, Tensor],
) -> None:
    """Write what the checkpoint says into the files that people and `build` read."""
    run_folder.save_weights(run, best_weights)
    run_folder.write_metrics(run, _metrics(recipe, split, network, rows))
    write_file(run / run_folder.CURVES, draw_curves(rows, _best(rows)))


def _metrics(recipe: MultitaskRecipe, split: Split, network: nn.Module, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Gather what `metrics.json` holds."""
    parts = list(split.parts.values())
    return {
        "recipe": recipe.name,
        "dataset": recipe.dataset,
        "subjects": {part.value: parts.count(part) for part in Part},
        "parameters": parameter_count(network),
        "best": _best(rows),
        "epochs": rows,
    }
