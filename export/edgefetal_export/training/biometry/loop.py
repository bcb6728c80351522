"""Training a network that outlines and names planes: one epoch after another, resumable, judged in millimetres."""

from __future__ import annotations

import dataclasses
import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
import torch
from monai.losses.dice import DiceLoss
from pydantic import PositiveInt  # noqa: TC002 - pydantic reads annotations at run time
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from edgefetal_calibration.datasets import hc18
from edgefetal_calibration.datasets.split import Part, Split, kind_in_name, split_datasets
from edgefetal_devices.errors import CheckFailedError, DatasetError
from edgefetal_export.contract import Outputs  # noqa: TC001 - pydantic reads annotations at run time
from edgefetal_export.training import run as run_folder
from edgefetal_export.training.biometry.augment import without_head
from edgefetal_export.training.biometry.curves import draw_curves
from edgefetal_export.training.biometry.frames import (
    VALIDATION_EPOCH,
    Sample,
    TrainingFrame,
    drawn_frames,
    load_frames,
    require_labels,
    require_references,
)
from edgefetal_export.training.run import Recipe
from edgefetal_runtime.atomic import write_file
from edgefetal_runtime.biometry.field import fan_field
from edgefetal_runtime.biometry.measurement import Measured
from edgefetal_runtime.biometry.principal import PRINCIPAL, find_structure, principal_length
from edgefetal_runtime.infer.bundle import NO_PLANE
from edgefetal_runtime.infer.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefetal_calibration.datasets.labelled import LabelledExam

# A validation frame without a measurement counts as an error of this size when checkpoints are ranked, so that a
# network cannot win by refusing the hard ones.
ABSTENTION_COST_MM = 10.0

FRAMES_PER_EXAM = 4
_FEW_STEPS = 20


class BiometryRecipe(Recipe):
    """Everything that decides the outcome of a run, whatever network outlines; each adds its own.

    Args:
        network: shape of the network.
        classification_weight: weight of naming the plane; outlining has the rest of 1.
        no_head_share: pictures without a head for every picture with one.
        average_decay: decay a step of the running average of the weights, which is what is validated and kept.
        frames_per_exam: frames of an exam in an epoch, others in each; all of an exam that has no more.
        split_seed: seed of the split; that of the rest if None.
    """

    network: Outputs
    classification_weight: float
    no_head_share: float
    average_decay: float
    frames_per_exam: PositiveInt = FRAMES_PER_EXAM
    split_seed: int | None = None


class Task(Protocol):
    """What one kind of training adds to the loop."""

    @property
    def recipe(self) -> BiometryRecipe:
        """Return what was asked."""

    def network(self) -> nn.Module:
        """Build the network with weights drawn by the recipe's seed; it returns masks, planes, and what else it has."""

    def kept(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return those of the network's weights that are wanted when it is trained."""

    def samples(self, exams: Sequence[Sequence[TrainingFrame]], epoch: int) -> Dataset[Sample]:
        """Set up one epoch of varied samples."""

    def losses(self, network: nn.Module, batch: Sample) -> dict[str, Tensor]:
        """Return the loss, as `total`, and its parts by name."""


@dataclass(frozen=True)
class LengthScore:
    """How well one length is measured on the validation subjects.

    Args:
        mae_mm: mean absolute error over the measured frames, or None where none was.
        n: frames with a reference.
        n_measured: frames of these with a measurement.
    """

    mae_mm: float | None
    n: int
    n_measured: int

    def cost_mm(self) -> float:
        """Mean error with every abstention at `ABSTENTION_COST_MM`."""
        return ((self.mae_mm or 0.0) * self.n_measured + ABSTENTION_COST_MM * (self.n - self.n_measured)) / self.n


@dataclass(frozen=True)
class ValidationScore:
    """How good the averaged weights are on the validation subjects.

    Args:
        lengths: by the name of the measure.
        plane_accuracy: share of frames whose plane was named rightly, with a picture without a head for each annotated
            head.
    """

    lengths: Mapping[str, LengthScore]
    plane_accuracy: float

    def cost_mm(self) -> float:
        """Rank of a checkpoint: the mean over the measures."""
        return sum(length.cost_mm() for length in self.lengths.values()) / len(self.lengths)


def count_exams(exams: Sequence[LabelledExam], recipe: BiometryRecipe, unlabelled: Sequence[LabelledExam] = ()) -> int:
    """Count the exams that `train` will read."""
    split = draw_split([*exams, *unlabelled], recipe)
    read = sum(len(split.select(exams, part)) for part in (Part.TRAIN, Part.VALIDATION))
    return read + len(split.select(unlabelled, Part.TRAIN))


def epochs_done(run: Path) -> int:
    """Count the epochs that an interrupted run has behind it."""
    state = run_folder.load_checkpoint(run)
    return len(state["rows"]) if state else 0


def draw_split(exams: Sequence[LabelledExam], recipe: BiometryRecipe) -> Split:
    """Draw the recipe's split; each kind of dataset is in every part of it."""
    by_kind: dict[str, list[LabelledExam]] = {}
    for exam in exams:
        by_kind.setdefault(kind_in_name(exam.subject) or hc18.KIND, []).append(exam)
    sets = [(recipe.dataset, list(exams))] if len(by_kind) < 2 else list(by_kind.items())  # noqa: PLR2004 - several
    seed = recipe.seed if recipe.split_seed is None else recipe.split_seed
    return split_datasets(sets, seed=seed, validation=recipe.validation_share, held_out=recipe.held_out_share)


def validate(network: nn.Module, frames: Sequence[TrainingFrame], recipe: BiometryRecipe) -> ValidationScore:
    """Measure the validation frames by the clinic's geometry, and name their planes.

    The thresholds of the clinic are fitted later, on the finished network, so nothing is refused by them here.
    """
    network.eval()
    spec, config = recipe.preprocess, recipe.network
    errors_mm: dict[str, list[float | None]] = {}
    right: list[bool] = []
    with torch.inference_mode():
        for index, frame in enumerate(frames):
            images = [preprocess(frame.pixels, spec)]
            if frame.outline_px is not None:
                rng = np.random.default_rng((recipe.seed, VALIDATION_EPOCH, index))
                images.append(preprocess(without_head(frame.pixels, frame.outline_px, rng), spec))
            masks, planes = network(torch.from_numpy(np.concatenate([image for image, _ in images])))[:2]
            named = [config.planes[int(answer.argmax())] for answer in planes]
            right += [named[0] == frame.plane, *(name == NO_PLANE for name in named[1:])]
            if frame.length_mm is not None and frame.scale is not None and frame.plane in config.structures:
                image, box = images[0]
                logits = masks[0, config.structures.index(frame.plane)].numpy()
                found = find_structure(frame.plane, logits, box, frame.scale, fan_field(image[0, 0], spec, box))
                length = principal_length(found, frame.plane)
                error_mm = abs(length.value - frame.length_mm) if isinstance(length, Measured) else None
                errors_mm.setdefault(PRINCIPAL[frame.plane].name, []).append(error_mm)
    return ValidationScore(
        {name: _length_score(of_length) for name, of_length in sorted(errors_mm.items())}, sum(right) / len(right)
    )


def _length_score(errors_mm: Sequence[float | None]) -> LengthScore:
    measured = [error for error in errors_mm if error is not None]
    return LengthScore(float(np.mean(measured)) if measured else None, len(errors_mm), len(measured))


def segmentation_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of every pixel, and Dice of the structures that a frame shows.

    A frame shows one structure or none, so most channels are empty; their Dice is 1 whatever small value is predicted,
    and would drown the others'. What is drawn where nothing is, the cross-entropy punishes.

    Args:
        logits: shape (N, structures, H, W).
        mask: 0 to 1, of the same shape.
    """
    binary = nn.functional.binary_cross_entropy_with_logits(logits, mask)
    shown = mask.amax(dim=(2, 3)) > 0.5  # noqa: PLR2004 - at least a pixel's half
    if not shown.any():
        return binary
    dice: Tensor = DiceLoss(sigmoid=True, squared_pred=True)(logits[shown][:, None], mask[shown][:, None])
    return binary + dice


def _train_epoch(
    task: Task,
    network: nn.Module,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    batches: DataLoader[Sample],
    advance: Callable[[], None],
) -> dict[str, float]:
    """Run one epoch; return the mean of every part of the loss."""
    network.train()
    sums: dict[str, float] = {}
    for batch in batches:
        losses = task.losses(network, batch)
        optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        average.update_parameters(network)
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + float(loss.detach())
        advance()
    return {name: total / len(batches) for name, total in sums.items()}


def _loader(samples: Dataset[Sample], recipe: BiometryRecipe) -> DataLoader[Sample]:
    return DataLoader(
        samples, recipe.batch_size, shuffle=True, drop_last=True, num_workers=1, worker_init_fn=_single_threaded
    )


def _single_threaded(_worker: int) -> None:
    """Keep OpenCV from starting threads in a forked worker, where its pool may hang."""
    cv2.setNumThreads(0)


def train(
    run: Path,
    task: Task,
    exams: Sequence[LabelledExam],
    unlabelled: Sequence[LabelledExam] = (),
    *,
    resume: bool,
    threads: int = 2,
    on_load: Callable[[], None] = lambda: None,
    on_count: Callable[[int], None] = lambda _steps: None,
    on_step: Callable[[int], None] = lambda _epoch: None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda _row: None,
) -> dict[str, Any]:
    """Train, or go on training, and keep the best checkpoint by the validation error of the lengths.

    Args:
        run: the run's folder.
        task: what to do, and how.
        exams: the labelled exams; the split is drawn by subject.
        unlabelled: exams whose frames are used without a label; those of nobody who validates or is held out.
        resume: go on with a folder that exists.
        threads: CPU threads; the same number gives the same weights on the same machine.
        on_load: called after every exam that was read.
        on_count: called once with the number of optimiser steps of an epoch, when it is known.
        on_step: called after every optimiser step with the number of the epoch, from 1.
        on_epoch: called after every epoch with its row of metrics.

    Returns:
        What `metrics.json` holds.

    Raises:
        DatasetError: there are too few subjects or frames, or a structure of the recipe is nowhere outlined, or has no
            reference among the validation frames.
        CheckFailedError: the loss is no longer finite.
        OutputError: the folder belongs to another run.
    """
    torch.set_num_threads(threads)
    recipe = task.recipe
    split = draw_split([*exams, *unlabelled], recipe)
    run_folder.check_run(run, recipe, split, resume=resume)
    training = load_frames(split.select(exams, Part.TRAIN), on_load)
    require_labels(training, recipe.network.structures)
    training += load_frames(split.select(unlabelled, Part.TRAIN), on_load, labelled=False)
    steps = len(_loader(task.samples(training, 0), recipe))
    if steps == 0:
        message = f"{len(training)} training exams do not fill a batch of {recipe.batch_size}; use --batch-size."
        raise DatasetError(message)
    validating = drawn_frames(
        load_frames(split.select(exams, Part.VALIDATION), on_load),
        recipe.frames_per_exam,
        (recipe.seed, VALIDATION_EPOCH),
    )
    require_references(validating, recipe.network.structures)
    on_count(steps)
    run_folder.open_run(run, recipe, split, resume=resume)

    network = task.network()
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
        _write_results(run, task, split, network, rows, best_weights)

    for epoch in range(len(rows), recipe.epochs):
        started_s = time.perf_counter()
        # Dropout and the order of the batches must not depend on whether the run was interrupted.
        torch.manual_seed(recipe.seed * 100_003 + epoch)
        batches = _loader(task.samples(training, epoch), recipe)
        advance = functools.partial(on_step, epoch + 1)
        losses = _train_epoch(task, network, average, optimizer, schedule, batches, advance)
        if not np.isfinite(list(losses.values())).all():
            message = f"The loss of epoch {epoch + 1} is not finite; train anew with a smaller --learning-rate."
            raise CheckFailedError(message)
        score = validate(average.module, validating, recipe)
        rows.append(
            {
                "epoch": epoch + 1,
                **{f"{name}_loss": loss for name, loss in losses.items() if name != "total"},
                "validation": {name: dataclasses.asdict(length) for name, length in score.lengths.items()},
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
        _write_results(run, task, split, network, rows, best_weights)
        on_epoch(rows[-1])
    return _metrics(task, split, network, rows)


def _best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of the checkpoint that is kept: the least cost, and of equals the one trained longest."""
    return min(rows, key=lambda row: (row["validation_cost_mm"], -row["epoch"]))


def _write_results(
    run: Path,
    task: Task,
    split: Split,
    network: nn.Module,
    rows: list[dict[str, Any]],
    best_weights: dict[str, Tensor],
) -> None:
    """Write what the checkpoint says into the files that people and `build` read."""
    run_folder.save_weights(run, task.kept(best_weights))
    run_folder.write_metrics(run, _metrics(task, split, network, rows))
    write_file(run / run_folder.CURVES, draw_curves(rows, _best(rows)))


def _metrics(task: Task, split: Split, network: nn.Module, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Gather what `metrics.json` holds."""
    parts = list(split.parts.values())
    return {
        "recipe": task.recipe.name,
        "dataset": task.recipe.dataset,
        "subjects": {part.value: parts.count(part) for part in Part},
        "parameters": sum(part.numel() for part in task.kept(dict(network.named_parameters())).values()),
        "best": _best(rows),
        "epochs": rows,
    }
