"""A training run on disk: what it was asked, where it stands, what came out.

RUN/recipe.json         the question: data, split seed, network, preprocessing, optimiser
RUN/split.json          which subject is in which part
RUN/checkpoint.pt       where training stands and the best weights so far, replaced whole after every epoch; the files
                        below are written from it
RUN/model.safetensors   the best weights so far
RUN/metrics.json        one row an epoch, and the best
RUN/curves.png          the same as a picture
"""

from __future__ import annotations

import io
import json
import pickle
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from edgefetal_calibration.datasets.split import Split
from edgefetal_devices.errors import InputError, OutputError
from edgefetal_runtime.atomic import json_bytes, write_file, write_folder
from edgefetal_runtime.infer.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from pathlib import Path

RECIPE, SPLIT, CHECKPOINT = "recipe.json", "split.json", "checkpoint.pt"
WEIGHTS, METRICS, CURVES = "model.safetensors", "metrics.json", "curves.png"


class Recipe(BaseModel):
    """What decides the outcome of a training run, whatever is trained; each network's recipe adds its own.

    Args:
        name: the recipe's name on the command line.
        dataset: kind of the dataset.
        preprocess: how frames are prepared.
        epochs: passes over the training subjects.
        batch_size: samples a step.
        learning_rate: peak of the schedule.
        weight_decay: AdamW's decoupled weight decay.
        validation_share: share of the subjects that choose the checkpoint.
        held_out_share: share of the subjects that are never seen.
        precision: arithmetic of the forward pass, `fp32` or `bf16`.
        seed: seed of the split, the weights and the augmentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dataset: str
    preprocess: PreprocessSpec
    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: float
    validation_share: float
    held_out_share: float
    precision: str
    seed: int


RecipeT = TypeVar("RecipeT", bound=Recipe)


def write_metrics(run: Path, metrics: dict[str, Any]) -> None:
    """Replace the run's metrics."""
    write_file(run / METRICS, json_bytes(metrics))


def save_checkpoint(run: Path, state: dict[str, Any]) -> None:
    """Replace the run's checkpoint."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_file(run / CHECKPOINT, buffer.getvalue())


def load_checkpoint(run: Path) -> dict[str, Any] | None:
    """Read the run's checkpoint, or None where it has none yet.

    Raises:
        InputError: it is damaged.
    """
    path = run / CHECKPOINT
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        message = f"{path} is damaged; remove {run} and train anew."
        raise InputError(message) from error
    return state


def save_weights(run: Path, weights: dict[str, torch.Tensor]) -> None:
    """Replace the run's best weights."""
    write_file(run / WEIGHTS, save({name: tensor.contiguous() for name, tensor in weights.items()}))


def load_finished_weights(run: Path, recipe: Recipe) -> dict[str, torch.Tensor]:
    """Read the best weights of a run that has all its epochs.

    Raises:
        InputError: the run was not finished, or a file of it is missing or damaged.
    """
    try:
        done = len(json.loads((run / METRICS).read_bytes())["epochs"])
        weights = load_file(run / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        message = f"{run} has no whole {METRICS} and {WEIGHTS}; go on with it by `edgefetal train ... --resume`."
        raise InputError(message) from error
    if done != recipe.epochs:
        message = f"{run} has {done} of {recipe.epochs} epochs; go on with it by `edgefetal train ... --resume`."
        raise InputError(message)
    return weights


def read_recipe(run: Path, kind: type[RecipeT]) -> RecipeT:
    """Read what a run was asked.

    Args:
        run: its folder.
        kind: the recipe that it must be of.

    Raises:
        InputError: the folder is not a training run, or one of another recipe.
    """
    try:
        return kind.model_validate_json((run / RECIPE).read_bytes())
    except (OSError, ValidationError) as error:
        name = recipe_name(run)
        message = (
            f"{run} is not a training run ({RECIPE} is missing or not ours); make one with `edgefetal train`."
            if name is None
            else f"{run} is a run of the recipe {name!r}, which cannot be used here; give one of another recipe."
        )
        raise InputError(message) from error


def recipe_name(run: Path) -> str | None:
    """Return the name of the recipe that a folder is a run of, or None where it is no run."""
    try:
        name = json.loads((run / RECIPE).read_bytes())["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None


def read_split(run: Path) -> Split:
    """Read who was trained on.

    Raises:
        InputError: the run's split is missing or damaged.
    """
    try:
        return Split.model_validate_json((run / SPLIT).read_bytes())
    except (OSError, ValidationError) as error:
        message = f"{run} has no whole {SPLIT}; train it anew with `edgefetal train`."
        raise InputError(message) from error


def check_run(run: Path, recipe: Recipe, split: Split, *, resume: bool) -> bool:
    """Say whether a folder already holds this run.

    Raises:
        OutputError: the folder is not empty and `resume` was not asked for, or it belongs to another question.
    """
    if not (run.is_dir() and any(run.iterdir())):
        return False
    if not resume:
        message = f"{run} is not empty; add --resume to go on with it, or name another folder."
        raise OutputError(message)
    if read_recipe(run, type(recipe)) != recipe or read_split(run) != split:
        message = f"{run} was started with other settings or other data; name another folder."
        raise OutputError(message)
    return True


def open_run(run: Path, recipe: Recipe, split: Split, *, resume: bool) -> None:
    """Start a run's folder, or check that the folder at hand asks the same question.

    Raises:
        OutputError: as `check_run` does, or the folder cannot be written.
    """
    if check_run(run, recipe, split, resume=resume):
        return
    if run.is_dir():
        run.rmdir()
    write_folder(
        run, {SPLIT: json_bytes(split.model_dump(mode="json")), RECIPE: json_bytes(recipe.model_dump(mode="json"))}
    )
