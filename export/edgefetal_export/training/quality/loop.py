"""The training loop of the quality networks, on one processor or many, under Hugging Face `accelerate`.

A step is of `batch_size` pictures whatever the number of processes: each takes its share of them, and where memory is
short each share is taken in `accumulation` parts. Which picture is drawn when depends on nothing but the seed and the
epoch, so a run that was ended goes on where its last epoch stopped, and two processes see in a step what one would.
What differs between one process and two: dropout draws other numbers, batch normalisation sees its process's share of
a batch only, and sums are taken in another order.

The main process alone writes files. Nothing is sent anywhere.
"""

from __future__ import annotations

import datetime as dt
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, InitProcessGroupKwargs, broadcast_object_list
from pydantic import PositiveInt  # noqa: TC002 - pydantic reads annotations at run time
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from edgefetal_calibration.datasets.split import Part
from edgefetal_devices.errors import CheckFailedError, EdgeFetalError, InputError
from edgefetal_export.teachers.lora import load_trainable_weights, trainable_weights
from edgefetal_export.training import run as run_folder
from edgefetal_export.training.quality.curves import draw_loss_curves
from edgefetal_export.training.run import Recipe
from edgefetal_runtime.atomic import json_bytes, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from pydantic import BaseModel

    from edgefetal_calibration.datasets.split import Split

DECISION: Final = "decision.json"
# How long processes wait for one that reads a dataset.
_PATIENCE: Final = dt.timedelta(hours=12)

Batch = tuple[Tensor, Tensor]


class LoopRecipe(Recipe):
    """What the loop asks beside what every run says.

    Args:
        accumulation: parts in which each process takes its share of a step, so that less memory is needed.
    """

    accumulation: PositiveInt


class Task(Protocol):
    """What is trained, and how well it does.

    Samples are asked for by (epoch, index), so that any epoch can be made again without the ones before it.
    """

    @property
    def network(self) -> nn.Module:
        """From pictures, shape (N, 1, H, W), to logits; what is not to be trained is frozen."""

    @property
    def training(self) -> Dataset[Batch]:
        """Training pictures with what is to be learnt of each."""

    @property
    def validation(self) -> Dataset[Batch]:
        """The same of the validation subjects, as they are, by (0, index)."""

    @property
    def validation_count(self) -> int:
        """How many these are."""

    def order(self, epoch: int) -> Sequence[int]:
        """Return the training samples of an epoch in their order; as many in every epoch."""

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of a batch."""

    def statistics(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return what is kept of each validation picture, shape (N, K)."""

    def judge(self, statistics: npt.NDArray[np.float32]) -> dict[str, float | None]:
        """Return the figures of an epoch by what was kept of all validation pictures; `validation_loss` is one."""

    def decide(self, statistics: npt.NDArray[np.float32]) -> BaseModel:
        """Fit on the validation pictures what turns the network's answer into a decision."""

    def facts(self) -> dict[str, Any]:
        """Return what `metrics.json` says of the run beside its epochs."""


@dataclass(frozen=True, eq=False)
class Reporter:
    """Whom the main process tells how far it is.

    Args:
        on_plan: called before the first step with the number of steps of the whole run and of those already done.
        on_step: called after every optimiser step with the number of the epoch, from 1.
        on_epoch: called after every epoch with its row of metrics.
    """

    on_plan: Callable[[int, int], None] = lambda _steps, _done: None
    on_step: Callable[[int], None] = lambda _epoch: None
    on_epoch: Callable[[dict[str, Any]], None] = lambda _row: None


class _Draws(Sampler[tuple[int, int]]):
    """The samples of the epoch that was set, each as (epoch, index)."""

    def __init__(self, order: Callable[[int], Sequence[int]], count: int) -> None:
        self._order, self._count = order, count
        self.epoch = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, index) for index in self._order(self.epoch)[: self._count]])


def make_accelerator(recipe: LoopRecipe) -> Accelerator:
    """Find the processes and the device, as `accelerate launch` or a plain start gives them.

    Raises:
        InputError: a step cannot be shared out evenly.
    """
    # A second run in this process may ask for another precision; which processes there are stays as it is.
    AcceleratorState._reset_state()  # noqa: SLF001 - accelerate has no public way
    accelerator = Accelerator(
        mixed_precision="bf16" if recipe.precision == "bf16" else "no",
        gradient_accumulation_steps=recipe.accumulation,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )
    parts = accelerator.num_processes * recipe.accumulation
    if recipe.batch_size % parts:
        message = (
            f"A step of {recipe.batch_size} pictures cannot be shared out to {accelerator.num_processes} process(es) "
            f"in {recipe.accumulation} part(s) each; give a --batch-size that is a multiple of {parts}."
        )
        raise InputError(message)
    return accelerator


def on_main_process(accelerator: Accelerator, work: Callable[[], None]) -> None:
    """Do something in the main process while the others wait; what it refuses is refused in all.

    Raises:
        EdgeFetalError: `work` raised it in the main process.
    """
    refusal: list[tuple[str, str] | None] = [None]
    if accelerator.is_main_process:
        try:
            work()
        except EdgeFetalError as error:
            if accelerator.num_processes == 1:
                raise
            refusal = [(str(error), type(error).__name__)]
    broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise InputError(refusal[0][0])


def steps_per_epoch(task: Task, recipe: LoopRecipe) -> int:
    """Count the optimiser steps of an epoch; the samples that do not fill a step are left out."""
    return len(task.order(0)) // recipe.batch_size


def train(
    accelerator: Accelerator,
    run: Path,
    recipe: LoopRecipe,
    split: Split,
    task: Task,
    *,
    workers: int = 0,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Train, or go on training, in a folder that `open_run` made, and keep the best weights by validation loss.

    Args:
        accelerator: of `make_accelerator`.
        run: the run's folder.
        recipe: how to train.
        split: who is in which part.
        task: what to train; its network is changed in place and ends with the best weights.
        workers: processes that prepare pictures ahead, for each process that trains; 0 prepares them in between.
        reporter: told of progress in the main process.

    Returns:
        What `metrics.json` holds.

    Raises:
        CheckFailedError: a loss is not finite, or the network cannot decide anything after its last epoch.
        InputError: there are fewer samples than a step has, or the checkpoint is damaged.
    """
    reporter = Reporter() if reporter is None else reporter
    steps = steps_per_epoch(task, recipe)
    if steps == 0:
        message = f"{len(task.order(0))} training pictures do not fill a step of {recipe.batch_size}; use --batch-size."
        raise InputError(message)
    draws = _Draws(task.order, steps * recipe.batch_size)
    # A step's parts are loaded one by one; `split_batches` gives each process its share of a part.
    part = recipe.batch_size // recipe.accumulation
    batches = _loader(task.training, part, draws, workers)
    still = _Draws(lambda _epoch: range(task.validation_count), task.validation_count)
    validation_batches = _loader(task.validation, _validation_batch(recipe, accelerator), still, workers)

    parameters = [p for p in task.network.parameters() if p.requires_grad]
    plain_optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    state = run_folder.load_checkpoint(run)
    rows: list[dict[str, Any]] = []
    best = _Best({}, np.zeros((0, 0), np.float32))
    if state is not None:
        load_trainable_weights(task.network, state["network"])
        plain_optimizer.load_state_dict(state["optimizer"])
        rows, best = state["rows"], _Best(state["best_weights"], state["best_statistics"].numpy())
        on_main_process(accelerator, lambda: _write_results(run, recipe, split, task, rows, best, weights=True))
    network, optimizer, batches, validation_batches = accelerator.prepare(
        task.network, plain_optimizer, batches, validation_batches
    )

    if accelerator.is_main_process:
        reporter.on_plan(recipe.epochs * steps, len(rows) * steps)
    for epoch in range(len(rows), recipe.epochs):
        started_s = time.perf_counter()
        # Dropout must not depend on whether the run was interrupted, and must differ between processes.
        torch.manual_seed((recipe.seed * 100_003 + epoch) * 1_009 + accelerator.process_index)
        draws.epoch = epoch
        loss = _train_epoch(accelerator, network, optimizer, batches, task, reporter, epoch + 1)
        check_finite(loss, "training", epoch + 1, run)
        statistics = _validate(accelerator, network, validation_batches, task)
        row = {"epoch": epoch + 1, "loss": loss, **task.judge(statistics), "seconds": time.perf_counter() - started_s}
        check_finite(row["validation_loss"], "validation", epoch + 1, run)
        rows.append(row)
        better = _best_row(rows) is row
        if better:
            best = _Best({n: t.cpu().clone() for n, t in trainable_weights(task.network).items()}, statistics)

        def write(best: _Best = best, *, better: bool = better) -> None:
            run_folder.save_checkpoint(run, _checkpoint(task, plain_optimizer, rows, best))
            _write_results(run, recipe, split, task, rows, best, weights=better)

        on_main_process(accelerator, write)
        if accelerator.is_main_process:
            reporter.on_epoch(row)
    accelerator.wait_for_everyone()
    load_trainable_weights(task.network, best.weights)
    return _metrics(recipe, split, task, rows)


def check_finite(loss: float | None, which: str, epoch: int, run: Path) -> None:
    """Refuse a loss that is no number, before anything is kept of it.

    Raises:
        CheckFailedError: it is not finite.
    """
    if loss is None or not math.isfinite(loss):
        raise CheckFailedError(
            f"The {which} loss of epoch {epoch} is not finite ({loss}); lower --learning-rate and name another --out. "
            f"{run} keeps the {epoch - 1} epoch(s) before, and with the same settings --resume comes to the same."
        )


@dataclass(frozen=True, eq=False)
class _Best:
    """The weights that are kept so far, and what was kept of each validation picture under them."""

    weights: dict[str, Tensor]
    statistics: npt.NDArray[np.float32]


def _loader(samples: Dataset[Batch], size: int, draws: _Draws, workers: int) -> DataLoader[Batch]:
    return DataLoader(
        samples,
        batch_size=size,
        # The type of a sampler is that of an index; ours says the epoch too.
        sampler=draws,
        num_workers=workers,
        worker_init_fn=_single_threaded,
    )


def _single_threaded(_worker: int) -> None:
    """Keep OpenCV from starting threads in a forked worker, where its pool may hang."""
    cv2.setNumThreads(0)


def _validation_batch(recipe: LoopRecipe, accelerator: Accelerator) -> int:
    """As large as a training part, but no smaller than one picture for each process."""
    return max(recipe.batch_size // recipe.accumulation, int(accelerator.num_processes))


def _train_epoch(
    accelerator: Accelerator,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: DataLoader[Batch],
    task: Task,
    reporter: Reporter,
    epoch: int,
) -> float:
    """Run one epoch; return the mean loss over all processes, or what is not finite as soon as it is seen."""
    network.train()
    total, count = 0.0, 0
    for image, target in batches:
        with accelerator.accumulate(network):
            loss = task.loss(network(image).float(), target)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        total, count = total + float(loss.detach()), count + 1
        # Several processes must end together, which they do after the epoch: their mean is no number then either.
        if accelerator.num_processes == 1 and not math.isfinite(total):
            return total
        if accelerator.sync_gradients and accelerator.is_main_process:
            reporter.on_step(epoch)
    mean = accelerator.reduce(torch.tensor(total / count, device=accelerator.device), reduction="mean")
    return float(mean)


def _validate(
    accelerator: Accelerator, network: nn.Module, batches: DataLoader[Batch], task: Task
) -> npt.NDArray[np.float32]:
    """Return what is kept of every validation picture, in their order, in every process."""
    network.eval()
    kept = []
    with torch.inference_mode():
        for image, target in batches:
            statistics = task.statistics(network(image).float(), target)
            kept.append(accelerator.gather_for_metrics(statistics).cpu().numpy())
    return np.concatenate(kept).astype(np.float32)


def _checkpoint(
    task: Task, optimizer: torch.optim.Optimizer, rows: list[dict[str, Any]], best: _Best
) -> dict[str, Any]:
    return {
        "network": {name: tensor.cpu() for name, tensor in trainable_weights(task.network).items()},
        "optimizer": _on_cpu(optimizer.state_dict()),
        "rows": rows,
        "best_weights": best.weights,
        "best_statistics": torch.from_numpy(best.statistics),
    }


def _on_cpu(value: Any) -> Any:  # noqa: ANN401 - an optimiser's state is nested as it likes
    """Copy what is nested in dictionaries and lists, with tensors off the accelerator, so that any machine reads it."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_on_cpu(inner) for inner in value]
    return value


def _best_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of the checkpoint that is kept: the least validation loss, and of equals the latest."""
    return min(rows, key=lambda row: (row["validation_loss"], -row["epoch"]))


def _write_results(
    run: Path,
    recipe: LoopRecipe,
    split: Split,
    task: Task,
    rows: list[dict[str, Any]],
    best: _Best,
    *,
    weights: bool,
) -> None:
    """Write what the checkpoint says into the files that people and later commands read.

    Args:
        run: the run's folder.
        recipe: how it is trained.
        split: who is in which part.
        task: what is trained.
        rows: the epochs so far.
        best: what is kept.
        weights: also the weights, which are large where most of a network is frozen.
    """
    if weights:
        whole = {name: tensor.detach().cpu() for name, tensor in task.network.state_dict().items()}
        known = {name: tensor for name, tensor in best.weights.items() if name in whole}
        run_folder.save_weights(run, whole | known)
    run_folder.write_metrics(run, _metrics(recipe, split, task, rows))
    write_file(run / run_folder.CURVES, draw_loss_curves(rows, _best_row(rows)))
    try:
        decision = task.decide(best.statistics)
    except CheckFailedError:
        # An early epoch may decide nothing yet; a decision of weights that are kept no longer must not stay.
        (run / DECISION).unlink(missing_ok=True)
        if len(rows) >= recipe.epochs:
            raise
        return
    write_file(run / DECISION, json_bytes(decision.model_dump(mode="json")))


def _metrics(recipe: LoopRecipe, split: Split, task: Task, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Gather what `metrics.json` holds."""
    parts = list(split.parts.values())
    parameters = list(task.network.parameters())
    return {
        "recipe": recipe.name,
        "dataset": recipe.dataset,
        "subjects": {part.value: parts.count(part) for part in Part},
        "parameters": sum(p.numel() for p in parameters),
        "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad),
        **task.facts(),
        "best": _best_row(rows),
        "epochs": rows,
    }
