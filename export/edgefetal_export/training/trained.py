"""Finished runs that a bundle can be built of: networks that outline, and networks that say how good a frame is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from peft import PeftModel
from pydantic import ValidationError

from edgefetal_calibration.thresholds import NONE
from edgefetal_devices.errors import InputError
from edgefetal_export.onnx import QUALITY
from edgefetal_export.teachers.lora import merge_lora
from edgefetal_export.teachers.multitask_unet import parameter_count
from edgefetal_export.training.biometry.multitask import MultitaskRecipe
from edgefetal_export.training.outliner import OUTLINERS, load_outliner
from edgefetal_export.training.quality.classifier import BASELINE, CLASSIFIER, QualityRecipe
from edgefetal_export.training.quality.decision import fold_into
from edgefetal_export.training.quality.scoring import load_scorer
from edgefetal_export.training.quality.segmenter import SEGMENTER
from edgefetal_export.training.run import recipe_name
from edgefetal_export.training.student.recipe import StudentRecipe
from edgefetal_runtime.infer.bundle import Heads, Thresholds

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from edgefetal_export.teachers.fetalclip import FetalClipClassifier
    from edgefetal_export.teachers.quality_baselines import QualityBaseline

TrainedRecipe = MultitaskRecipe | StudentRecipe | QualityRecipe

_GRADERS: Final = (CLASSIFIER, BASELINE)
# By the recipe's name.
_RECIPES: Final[dict[str, type[TrainedRecipe]]] = {**OUTLINERS, **dict.fromkeys(_GRADERS, QualityRecipe)}


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network, ready for export.

    Args:
        recipe: how it was trained.
        network: in evaluation mode; adapters are merged.
        heads: what it answers with.
        output_names: names of its outputs, in order.
        thresholds: decisions that the run fitted; none where they are still to be fitted.
        parameters: number of trained numbers.
    """

    recipe: TrainedRecipe
    network: nn.Module
    heads: Heads
    output_names: tuple[str, ...]
    thresholds: Thresholds
    parameters: int


def parse_recipe(content: bytes, source: object) -> TrainedRecipe:
    """Read the recipe of a network that a bundle can be built of.

    Args:
        content: JSON.
        source: where it is from, for the message.

    Raises:
        InputError: it is of another kind or not ours.
    """
    try:
        return _RECIPES[json.loads(content)["name"]].model_validate_json(content)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        message = f"{source} holds no recipe that bundles are built of; train a network by `edgefetal distil`."
        raise InputError(message) from error


def load_trained(run: Path) -> Trained:
    """Load a finished run of `train multitask-unet`, `distil`, `train fetalclip-cls` or `train baseline`.

    Raises:
        InputError: it is none, is not finished, or a file of it is missing or damaged.
        CheckFailedError: its adapters cannot be merged.
    """
    name = recipe_name(run)
    if name == SEGMENTER:
        message = (
            f"{run} is a run of {SEGMENTER}, which calls a frame good by how much it outlines, and that is no answer "
            f"of the output contract; build a run of {CLASSIFIER}, or teach a student by this one (`edgefetal distil`)."
        )
        raise InputError(message)
    return _grader(run) if name in _GRADERS else _outliner(run)


def _outliner(run: Path) -> Trained:
    """Load a network that outlines; its thresholds are fitted on its float graph."""
    outliner = load_outliner(run)
    shape, names = outliner.recipe.network, outliner.output_names
    return Trained(
        recipe=outliner.recipe,
        network=outliner.network,
        heads=Heads(mask=shape.structures, plane=shape.planes, quality="quality" in names, skill="skill" in names),
        output_names=names,
        thresholds=NONE,
        parameters=parameter_count(outliner.network),
    )


def _grader(run: Path) -> Trained:
    """Load a quality classifier: its adapters merged, and the run's decision in its last layer and its threshold."""
    scorer = load_scorer(run)
    network = cast("FetalClipClassifier | QualityBaseline", scorer.network)
    parameters = parameter_count(network)
    if isinstance(network.encoder, PeftModel):
        network.encoder = merge_lora(network.encoder)
    fold_into(network.head, scorer.decision)
    return Trained(
        recipe=cast("QualityRecipe", scorer.recipe),
        network=network,
        heads=Heads(mask=(), plane=(), quality=True),
        output_names=QUALITY,
        thresholds=NONE.model_copy(update={"quality": scorer.decision.threshold}),
        parameters=parameters,
    )
