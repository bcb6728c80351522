"""Training `fetalclip-cls` and the baselines: is a frame good enough to measure the abdomen on?

Two ways, by the recipe's `as_published`.

| | ours | FetalCLIP-IQA as published |
|---|---|---|
| adapters of FetalCLIP | attention and MLP | MLP (theirs on `out_proj` are inert) |
| training frames | all with a plane, and others drawn from whole exams | sweeps with a measured abdomen only |
| balance | as many with as without, drawn anew each epoch | none |
| augmentation | another one each time | two fixed copies |
| checkpoint | least loss, both kinds weighing alike | least loss |
| decision | threshold of the best F1 and temperature, on validation | probability of a half |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from edgefetal_calibration.datasets.labelled import NOT_THE_PLANE
from edgefetal_export.teachers.grey_input import square_spec
from edgefetal_export.training.quality.decision import Decision, fit_probability, published
from edgefetal_export.training.quality.encoders import (
    BaselineEncoder,
    Encoder,
    TowerEncoder,
    build_classifier,
    side_px,
)
from edgefetal_export.training.quality.frames import (
    FrameRecipe,
    FrameSamples,
    Material,
    Wishes,
    common_settings,
    epoch_order,
    facts_of,
    training_odds,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt
    from torch.utils.data import Dataset

CLASSIFIER: Final = "fetalclip-cls"
BASELINE: Final = "baseline"


class QualityRecipe(FrameRecipe):
    """Everything that decides the outcome of a run of a quality classifier.

    Args:
        encoder: the network in front of the last layer.
    """

    encoder: Encoder


def quality_recipe(encoder: TowerEncoder | BaselineEncoder, wishes: Wishes) -> QualityRecipe:
    """Fill in the recipe of a quality classifier: what the user chose, and what it always does."""
    return QualityRecipe(
        name=CLASSIFIER if isinstance(encoder, TowerEncoder) else BASELINE,
        preprocess=square_spec(side_px(encoder)),
        encoder=encoder,
        **common_settings(wishes),
    )


def _target(grade: int, _mask: npt.NDArray[np.uint8]) -> Tensor:
    """Both grades of plane count as good, as published."""
    return torch.tensor([float(grade != NOT_THE_PLANE)])


class QualityTask:
    """A quality classifier and the frames that it learns from: a `loop.Task`."""

    def __init__(self, network: nn.Module, recipe: QualityRecipe, training: Material, validation: Material) -> None:
        """Put them together; nothing is computed.

        Args:
            network: from pictures to one logit; changed by training.
            recipe: how to train it.
            training: frames of the training subjects, of both kinds.
            validation: frames of the validation subjects, of both kinds.
        """
        self.network = network
        self._recipe, self._training, self._validation = recipe, training, validation
        self.training: Dataset[tuple[Tensor, Tensor]] = FrameSamples(training, recipe, _target, augment=True)
        self.validation: Dataset[tuple[Tensor, Tensor]] = FrameSamples(validation, recipe, _target, augment=False)
        self.validation_count = len(validation.pictures)

    def order(self, epoch: int) -> Sequence[int]:
        """Return the samples of an epoch."""
        return epoch_order(self._training, self._recipe, epoch)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean binary cross-entropy."""
        return nn.functional.binary_cross_entropy_with_logits(logits, target)

    def statistics(self, logits: Tensor, _target: Tensor) -> Tensor:
        """Keep the logit of each picture, shape (N, 1)."""
        return logits

    def judge(self, statistics: npt.NDArray[np.float32]) -> dict[str, float | None]:
        """Return the loss and the figures at a half."""
        logit = statistics[:, 0].astype(np.float64)
        positive = self._validation.positive
        signed = np.where(positive, -logit, logit)
        each = np.logaddexp(0.0, signed)
        loss = each.mean() if self._recipe.balance == "none" else 0.5 * (each[positive].mean() + each[~positive].mean())
        return {"validation_loss": float(loss)}

    def decide(self, statistics: npt.NDArray[np.float32]) -> Decision:
        """Return the published decision, or fit ours."""
        truths = self._validation.positive
        if self._recipe.as_published:
            return published("probability", truths)
        logits = statistics[:, 0].astype(np.float64)
        return fit_probability(logits, truths, training_odds(self._training, self._recipe))

    def facts(self) -> dict[str, Any]:
        """Return what the metrics say beside the epochs."""
        return facts_of(self._recipe, self._training, self._validation)


def quality_network(recipe: QualityRecipe, weights: Path | None) -> nn.Module:
    """Build a recipe's network, the same one each time.

    Args:
        recipe: which.
        weights: what it begins with, or None: random, or to be filled from a run.

    Raises:
        InputError: the weights cannot be read, or are of another network.
    """
    torch.manual_seed(recipe.seed)
    return build_classifier(recipe.encoder, weights, recipe.weights)
