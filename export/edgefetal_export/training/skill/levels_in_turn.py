"""Training skill assessment without ratings: two levels in turn, resumable, judged on operators that were never seen.

RUN/levels.json         which training subject is in which level, beside the files that every run has
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field

from edgefetal_calibration.datasets.split import Part, Split, split_by_subject
from edgefetal_devices.errors import CheckFailedError, DatasetError, InputError
from edgefetal_export.teachers.multitask_unet import parameter_count
from edgefetal_export.teachers.skill import SkillConfig, SkillModel
from edgefetal_export.training import run as run_folder
from edgefetal_export.training.run import Recipe
from edgefetal_export.training.skill.clips import drawn_batches, load_sweeps, stored_skills, tiles
from edgefetal_export.training.skill.curves import draw_skill_curves
from edgefetal_export.training.skill.judge import judge_clips, judge_exams, summary
from edgefetal_export.training.skill.levels import Normalisation, skill_loss, task_loss, unrolled_loss
from edgefetal_runtime.atomic import json_bytes, write_file
from edgefetal_runtime.infer.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_export.training.skill.clips import PreparedSweep
    from edgefetal_export.training.skill.judge import JudgedClip
    from edgefetal_export.training.skill.levels import ClipBatch

NAME = "skill"
LEVELS = "levels.json"
TASK, SKILL = "task", "skill"
# Four poolings of the U-Net.
_SIDE_MULTIPLE = 16
_FEW_STEPS = 20


class SkillRecipe(Recipe):
    """Everything that decides the outcome of a run.

    Args:
        network: shape of both networks.
        normalisation: how scores become weights.
        unrolled: whether the skill network also gets the gradient through a virtual step of the task network.
        skill_learning_rate: peak of the skill network's schedule.
        virtual_learning_rate: length of the virtual step.
        unrolled_weight: weight of the loss after the virtual step beside the foretelling loss.
    """

    network: SkillConfig
    normalisation: Normalisation
    unrolled: bool
    skill_learning_rate: float = Field(gt=0)
    virtual_learning_rate: float = Field(gt=0)
    unrolled_weight: float = Field(gt=0)


@dataclass(frozen=True)
class Levels:
    """Who is in which level; nobody is in both.

    Args:
        task: subjects whose clips train the task network.
        skill: subjects on whose clips the task network is judged, which trains the skill network.
    """

    task: tuple[str, ...]
    skill: tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """How much a run has to do, for whoever shows its progress.

    Args:
        exams: exams to read.
        epochs_done: epochs that an interrupted run has behind it.
    """

    exams: int
    epochs_done: int


@dataclass(frozen=True, eq=False)
class _Data:
    """The sweeps of the two levels and of validation."""

    task: list[PreparedSweep]
    skill: list[PreparedSweep]
    validation: list[PreparedSweep]


def skill_recipe(
    *,
    dataset: str,
    structures: tuple[str, ...],
    epochs: int,
    normalisation: Normalisation,
    unrolled: bool,
    batch_size: int = 16,
    learning_rate: float = 2e-3,
    skill_learning_rate: float = 1e-3,
    seq_len: int = 10,
    size_px: tuple[int, int] = (64, 80),
    features: int = 8,
    seed: int = 1,
) -> SkillRecipe:
    """Fill in the recipe `skill`: what the user chose, and what it always does.

    Args:
        dataset: kind of the dataset.
        structures: names of the masks.
        epochs: passes over the clips of both levels.
        normalisation: how scores become weights.
        unrolled: whether to unroll one step.
        batch_size: clips a step of each level.
        learning_rate: peak for the task network.
        skill_learning_rate: peak for the skill network.
        seq_len: frames of a clip.
        size_px: height and width of a frame.
        features: channels of the U-Net's finest level, doubled at each of the four below.
        seed: of the split, the weights and the clips.

    Raises:
        InputError: a side is no multiple of 16, or the unrolled step has no way to its scores.
    """
    if any(side % _SIDE_MULTIPLE for side in size_px):
        raise InputError(f"Frames of {size_px[1]} x {size_px[0]} cannot be halved four times; give multiples of 16.")
    if unrolled and not normalisation.differentiable:
        raise InputError(
            f"No gradient passes through the normalisation {normalisation.value!r}, so a step cannot be unrolled; add "
            "--normalisation minmax or softmax."
        )
    return SkillRecipe(
        name=NAME,
        dataset=dataset,
        network=SkillConfig(
            structures=structures,
            seq_len=seq_len,
            task_features=(features, 2 * features, 4 * features, 8 * features, 16 * features, features),
        ),
        preprocess=PreprocessSpec(height_px=size_px[0], width_px=size_px[1], mean=0.15, std=0.2),
        normalisation=normalisation,
        unrolled=unrolled,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        skill_learning_rate=skill_learning_rate,
        virtual_learning_rate=0.1,
        unrolled_weight=1.0,
        weight_decay=1e-2,
        validation_share=0.08,
        held_out_share=0.3,
        precision="fp32",
        seed=seed,
    )


def draw_split(exams: Sequence[LabelledExam], recipe: SkillRecipe) -> Split:
    """Draw the recipe's split."""
    return split_by_subject(
        exams,
        dataset=recipe.dataset,
        seed=recipe.seed,
        validation=recipe.validation_share,
        held_out=recipe.held_out_share,
    )


def draw_levels(split: Split) -> Levels:
    """Share the training subjects out between the levels, one half each, by a hash of the seed and the name.

    Raises:
        DatasetError: there is only one training subject.
    """
    train = [subject for subject, part in split.parts.items() if part is Part.TRAIN]
    if len(train) < 2:  # noqa: PLR2004 - one a level
        raise DatasetError(f"{len(train)} training subject(s) are too few for two levels; give more exams.")
    ranked = sorted(train, key=lambda subject: hashlib.sha256(f"{split.seed}:level:{subject}".encode()).digest())
    return Levels(tuple(sorted(ranked[::2])), tuple(sorted(ranked[1::2])))


def count_work(run: Path, exams: Sequence[LabelledExam]) -> Work:
    """Count what `train` will have to do."""
    state = run_folder.load_checkpoint(run)
    return Work(len(exams), len(state["rows"]) if state else 0)


def steps_per_epoch(task: Sequence[PreparedSweep], skill: Sequence[PreparedSweep], recipe: SkillRecipe) -> int:
    """Count the steps of an epoch: whole batches of the level that has fewer clips; the other is drawn anew each time.

    Raises:
        DatasetError: there is not one.
    """
    fewest = min(len(tiles(sweeps, recipe.network.seq_len)) for sweeps in (task, skill))
    if fewest < recipe.batch_size:
        raise DatasetError(
            f"{fewest} clips of a level do not fill a batch of {recipe.batch_size}; use --batch-size, or add exams."
        )
    return fewest // recipe.batch_size


def new_model(recipe: SkillRecipe) -> SkillModel:
    """Build both networks with the recipe's random weights."""
    torch.manual_seed(recipe.seed)
    return SkillModel(recipe.network)


def load_model(run: Path) -> tuple[SkillModel, SkillRecipe]:
    """Read a finished run's networks, in evaluation mode.

    Raises:
        InputError: the folder is no finished run of this recipe.
    """
    recipe = run_folder.read_recipe(run, SkillRecipe)
    model = SkillModel(recipe.network)
    try:
        model.load_state_dict(run_folder.load_finished_weights(run, recipe))
    except RuntimeError as error:
        raise InputError(
            f"{run} holds weights of other networks; train it anew with `edgefetal train skill`."
        ) from error
    return model.eval(), recipe


def read_held_out(run: Path, recipe: SkillRecipe, exams: Sequence[LabelledExam]) -> dict[str, Any]:
    """Read the metrics of a finished run, to be shown beside another run's.

    Args:
        run: its folder.
        recipe: of the other run.
        exams: of the other run.

    Raises:
        InputError: it is not finished, or was judged on other exams.
    """
    if run_folder.read_split(run) != draw_split(exams, recipe):
        raise InputError(f"{run} was judged on other exams; give a run of the same data and --seed.")
    run_folder.load_finished_weights(run, run_folder.read_recipe(run, SkillRecipe))
    metrics: dict[str, Any] = json.loads((run / run_folder.METRICS).read_bytes())
    if "held_out" not in metrics:
        raise InputError(f"{run} was not judged yet; go on with it by `edgefetal train skill ... --resume`.")
    return metrics


def train(
    run: Path,
    recipe: SkillRecipe,
    exams: Sequence[LabelledExam],
    *,
    resume: bool,
    threads: int = 2,
    on_load: Callable[[], None] = lambda: None,
    on_step: Callable[[int, int], None] = lambda _epoch, _steps: None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda _row: None,
) -> dict[str, Any]:
    """Train, or go on training; then judge the kept weights on the held-out exams.

    No stored skill is read before the last epoch is over.

    Args:
        run: the run's folder.
        recipe: what to do.
        exams: the labelled exams; the split and the levels are drawn from them by subject.
        resume: go on with a folder that exists.
        threads: CPU threads; the same number gives the same weights on the same machine.
        on_load: called after every exam that was read.
        on_step: called after every step with the number of the epoch, from 1, and the steps of an epoch.
        on_epoch: called after every epoch with its row of metrics.

    Returns:
        What `metrics.json` holds.

    Raises:
        CheckFailedError: a loss is not finite.
        DatasetError: there are too few subjects or clips, or an exam does not fit.
        OutputError: the folder belongs to another run.
    """
    torch.set_num_threads(threads)
    split = draw_split(exams, recipe)
    # Reading takes long; a folder that will be refused is refused before.
    run_folder.check_run(run, recipe, split, resume=resume)
    levels = draw_levels(split)
    run_exams = split.select(exams, Part.TRAIN)
    data = _Data(
        *(
            load_sweeps(part, recipe.network, recipe.preprocess, on_load)
            for part in (
                [exam for exam in run_exams if exam.subject in levels.task],
                [exam for exam in run_exams if exam.subject in levels.skill],
                split.select(exams, Part.VALIDATION),
            )
        )
    )
    steps = steps_per_epoch(data.task, data.skill, recipe)
    run_folder.open_run(run, recipe, split, resume=resume)
    write_file(run / LEVELS, json_bytes({TASK: levels.task, SKILL: levels.skill}))

    training = _Training(recipe, steps)
    rows: list[dict[str, Any]] = []
    best_weights: dict[str, Tensor] = {}
    if (state := run_folder.load_checkpoint(run)) is not None:
        training.load_state(state)
        rows, best_weights = state["rows"], state["best_weights"]
    for epoch in range(len(rows), recipe.epochs):
        started_s = time.perf_counter()
        losses = training.epoch(data, epoch, on_step)
        _check_finite(losses, "training", epoch, run)
        clips = judge_clips(training.model, data.validation, recipe.network.seq_len, recipe.preprocess)
        row = _row(epoch, losses, clips) | {"seconds": time.perf_counter() - started_s}
        _check_finite((row["validation_cost"],), "validation", epoch, run)
        rows.append(row)
        if _best(rows) is rows[-1]:
            best_weights = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
        run_folder.save_checkpoint(run, training.state() | {"rows": rows, "best_weights": best_weights})
        _write_results(run, _metrics(recipe, split, levels, rows), best_weights)
        on_epoch(rows[-1])
    held_out = split.select(exams, Part.HELD_OUT)
    training.model.load_state_dict(best_weights)
    metrics = _metrics(recipe, split, levels, rows) | {"held_out": judged(training.model, recipe, held_out, on_load)}
    _write_results(run, metrics, best_weights)
    return metrics


def judged(
    model: SkillModel, recipe: SkillRecipe, exams: Sequence[LabelledExam], on_load: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Judge a trained model on exams, and list every one of them.

    Raises:
        DatasetError: an exam does not fit the recipe.
    """
    sweeps = load_sweeps(exams, recipe.network, recipe.preprocess, on_load)
    clips = judge_clips(model, sweeps, recipe.network.seq_len, recipe.preprocess)
    by_exam = judge_exams(clips, stored_skills(exams))
    return summary(clips, by_exam) | {"by_exam": [exam.to_json() for exam in by_exam]}


class _Training:
    """The networks with their optimisers and schedules."""

    def __init__(self, recipe: SkillRecipe, steps: int) -> None:
        self._recipe, self._steps = recipe, steps
        self.model = new_model(recipe)
        self._task = torch.optim.AdamW(
            self.model.task.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self._skill = torch.optim.AdamW(
            self.model.skill.parameters(), lr=recipe.skill_learning_rate, weight_decay=recipe.weight_decay
        )
        total = recipe.epochs * steps
        # A warm-up of a single step is a division by zero in torch, and a tenth of so few steps may be that one.
        warm_up = 0.1 if total > _FEW_STEPS else 0.3
        self._schedules = [
            torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=total, pct_start=warm_up)
            for optimizer, rate in ((self._task, recipe.learning_rate), (self._skill, recipe.skill_learning_rate))
        ]

    def state(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on."""
        return {
            "model": self.model.state_dict(),
            "optimizers": [self._task.state_dict(), self._skill.state_dict()],
            "schedules": [schedule.state_dict() for schedule in self._schedules],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.model.load_state_dict(state["model"])
        for part, saved in zip((self._task, self._skill), state["optimizers"], strict=True):
            part.load_state_dict(saved)
        for schedule, saved in zip(self._schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)

    def epoch(self, data: _Data, epoch: int, on_step: Callable[[int, int], None]) -> tuple[float, float]:
        """Run one epoch, or until a loss is not finite; return the mean losses of the task and of the skill network."""
        recipe = self._recipe
        self.model.train()
        # The clips of a level depend on the epoch alone, whether or not the run was interrupted.
        task_clips, skill_clips = (
            drawn_batches(
                sweeps,
                recipe.batch_size,
                recipe.network.seq_len,
                recipe.preprocess,
                np.random.default_rng((recipe.seed, epoch, level)),
            )
            for level, sweeps in enumerate((data.task, data.skill))
        )
        sums = np.zeros(2)
        for task_batch, skill_batch in zip(task_clips, skill_clips, strict=False):
            sums += self._step(task_batch, skill_batch)
            if not np.isfinite(sums).all():
                break
            on_step(epoch + 1, self._steps)
        task_mean, skill_mean = sums / self._steps
        return float(task_mean), float(skill_mean)

    def _step(self, task_batch: ClipBatch, skill_batch: ClipBatch) -> tuple[float, float]:
        """One step of the upper level, and then one of the lower."""
        task, skill, recipe = self.model.task, self.model.skill, self._recipe
        upper = foretelling = skill_loss(task, skill, skill_batch)
        if recipe.unrolled:
            upper = foretelling + recipe.unrolled_weight * unrolled_loss(
                task, skill, task_batch, skill_batch, recipe.normalisation, recipe.virtual_learning_rate
            )
        self._skill.zero_grad(set_to_none=True)
        # A batch that shows no structure at all teaches nothing here.
        if upper.requires_grad:
            torch.autograd.backward(upper, inputs=list(skill.parameters()))
        self._skill.step()

        lower = task_loss(task, skill, task_batch, recipe.normalisation)
        self._task.zero_grad(set_to_none=True)
        torch.autograd.backward(lower)
        self._task.step()
        for schedule in self._schedules:
            schedule.step()
        return float(lower.detach()), float(foretelling.detach())


def _check_finite(losses: Sequence[float], which: str, epoch: int, run: Path) -> None:
    """Refuse losses that are no numbers, before anything is kept of them.

    Raises:
        CheckFailedError: one is not finite.
    """
    if not np.isfinite(losses).all():
        raise CheckFailedError(
            f"A {which} loss of epoch {epoch + 1} is not finite; lower --learning-rate or --skill-learning-rate and "
            f"name another --out. {run} keeps the {epoch} epoch(s) before, and with the same settings --resume comes "
            "to the same."
        )


def _row(epoch: int, losses: tuple[float, float], clips: list[JudgedClip]) -> dict[str, Any]:
    """One epoch's line of metrics, from losses and the clips of the validation subjects."""
    pairs = [(clip.score, clip.dice) for clip in clips if clip.dice is not None]
    if not pairs:
        raise DatasetError("No validation clip shows a structure; give more exams, or another --seed.")
    dice = float(np.mean([dice for _, dice in pairs]))
    mse = float(np.mean([(score - dice) ** 2 for score, dice in pairs]))
    return {
        "epoch": epoch + 1,
        "task_loss": losses[0],
        "skill_loss": losses[1],
        "validation_clips": len(pairs),
        "validation_dice": dice,
        "validation_mse": mse,
        # Either figure alone can be good while nothing was learnt: foretelling 0 is easy for a network that draws
        # nothing. Both are in units of Dice.
        "validation_cost": 1 - dice + math.sqrt(mse),
    }


def _best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of the checkpoint that is kept: the least cost, and of equals the one trained longest."""
    return min(rows, key=lambda row: (row["validation_cost"], -row["epoch"]))


def _write_results(run: Path, metrics: dict[str, Any], best_weights: dict[str, Tensor]) -> None:
    """Write what people and later commands read."""
    run_folder.save_weights(run, best_weights)
    run_folder.write_metrics(run, metrics)
    # A run is whole without its picture.
    with suppress(ImportError):
        write_file(run / run_folder.CURVES, draw_skill_curves(metrics["epochs"], metrics["best"]))


def _metrics(recipe: SkillRecipe, split: Split, levels: Levels, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Gather what `metrics.json` holds before the held-out exams are judged."""
    parts = list(split.parts.values())
    model = SkillModel(recipe.network)
    return {
        "recipe": recipe.name,
        "dataset": recipe.dataset,
        "unrolled": recipe.unrolled,
        "normalisation": recipe.normalisation.value,
        "subjects": {
            **{part.value: parts.count(part) for part in Part},
            TASK: len(levels.task),
            SKILL: len(levels.skill),
        },
        "parameters": {TASK: parameter_count(model.task), SKILL: parameter_count(model.skill)},
        "best": _best(rows),
        "epochs": rows,
    }
