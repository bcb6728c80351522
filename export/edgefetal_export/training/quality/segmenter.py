"""Training `fetalclip-seg`: outline the abdomen, and call a frame good by how much of it is outlined.

As published: a frozen tower (the published adapters never receive a gradient), one mask for any abdomen, Dice, and a
frame is good where the mask covers at least 1 % of the picture. Ours: adapters that learn, a mask for optimal planes
and one for suboptimal, frames balanced as in `training.quality`, and the threshold of the best F1 on validation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from edgefetal_calibration.datasets.labelled import OPTIMAL, SUBOPTIMAL
from edgefetal_export.teachers.grey_input import square_spec
from edgefetal_export.teachers.unetr import FetalClipSegmenter, SegmenterConfig
from edgefetal_export.training.quality.decision import Decision, fit_threshold, published
from edgefetal_export.training.quality.encoders import TowerEncoder, build_tower
from edgefetal_export.training.quality.frames import (
    FrameRecipe,
    FrameSamples,
    Material,
    Wishes,
    common_settings,
    epoch_order,
    facts_of,
)
from edgefetal_runtime.infer.bundle import ABDOMEN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from torch.utils.data import Dataset

SEGMENTER: Final = "fetalclip-seg"
PUBLISHED_FILTERS: Final = 32
OPTIMAL_CHANNEL, SUBOPTIMAL_CHANNEL = "abdomen_optimal", "abdomen_suboptimal"
# What a pixel of each channel counts in the score of a frame: a suboptimal plane is worth 0.6 in ACOUSLIC-AI.
CHANNEL_WORTH: Final = {ABDOMEN: 1.0, OPTIMAL_CHANNEL: 1.0, SUBOPTIMAL_CHANNEL: 0.6}
_GRADE: Final = {OPTIMAL_CHANNEL: OPTIMAL, SUBOPTIMAL_CHANNEL: SUBOPTIMAL}
# Pixels that are added above and below in our Dice, so that a batch without a structure is a reason to outline nothing.
_SMOOTHING_PX: Final = 1.0
_TINY: Final = 1e-7


class SegmentationRecipe(FrameRecipe):
    """Everything that decides the outcome of a run of the segmenter.

    Args:
        encoder: the tower.
        decoder: what stands behind it; its structures are the mask channels.
    """

    encoder: TowerEncoder
    decoder: SegmenterConfig


def segmentation_recipe(
    encoder: TowerEncoder, wishes: Wishes, *, filters: int = PUBLISHED_FILTERS
) -> SegmentationRecipe:
    """Fill in the recipe of the segmenter: what the user chose, and what it always does.

    The published code reads every n-th block for n = 4, 3, 2, 1, whatever the depth of the tower.

    Args:
        encoder: the tower.
        wishes: what the user chose.
        filters: channels of the decoder at the picture's own size.
    """
    first, second, third, fourth = (max(1, encoder.config.layers // n) for n in (4, 3, 2, 1))
    structures = (ABDOMEN,) if wishes.as_published else (OPTIMAL_CHANNEL, SUBOPTIMAL_CHANNEL)
    return SegmentationRecipe(
        name=SEGMENTER,
        preprocess=square_spec(encoder.config.image_px),
        encoder=encoder,
        decoder=SegmenterConfig(structures=structures, blocks=(first, second, third, fourth), filters=filters),
        **common_settings(wishes),
    )


def segmentation_network(recipe: SegmentationRecipe, weights: Path | None) -> FetalClipSegmenter:
    """Build a recipe's network, the same one each time.

    Args:
        recipe: which.
        weights: what it begins with, or None: random, or to be filled from a run.

    Raises:
        InputError: the weights cannot be read, or are of another network; or the tower's shape cannot be decoded.
    """
    torch.manual_seed(recipe.seed)
    network = FetalClipSegmenter(build_tower(recipe.encoder, weights, recipe.weights), recipe.decoder)
    if recipe.encoder.trains == "whole":
        # The decoder reads the blocks alone; what stands behind them would wait for gradients that never come.
        for name in ("visual_projection", "vision_model.post_layernorm"):
            network.encoder.get_submodule(name).requires_grad_(requires_grad=False)
    return network


def mask_target(structures: Sequence[str]) -> Callable[[int, npt.NDArray[np.uint8]], Tensor]:
    """Return what makes the channels of a frame's mask from its grade and the abdomen's mask, 0 to 1."""

    def target(grade: int, masks: npt.NDArray[np.uint8]) -> Tensor:
        shown = torch.from_numpy(masks[0].astype(np.float32) / 255)
        blank = torch.zeros_like(shown)
        return torch.stack([shown if _GRADE.get(name, grade) == grade else blank for name in structures])

    return target


def dice_loss(logits: Tensor, target: Tensor, *, as_published: bool) -> Tensor:
    """Return 1 - Dice over the whole batch, the mean of the channels.

    Args:
        logits: shape (N, C, H, W).
        target: of the same shape, 0 to 1.
        as_published: a channel that is in no picture of the batch costs nothing, as in segmentation_models_pytorch.
    """
    share = torch.sigmoid(logits)
    common = (share * target).sum((0, 2, 3))
    both = (share + target).sum((0, 2, 3))
    if as_published:
        present = (target.sum((0, 2, 3)) > 0).to(logits.dtype)
        return ((1 - 2 * common / both.clamp_min(_TINY)) * present).mean()
    return (1 - (2 * common + _SMOOTHING_PX) / (both + _SMOOTHING_PX)).mean()


def frame_scores(areas: npt.NDArray[np.float64], structures: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the score of frames: the share of the picture that each channel's mask covers, times what it is worth.

    Args:
        areas: shape (N, C); a pixel that two channels claim is counted in the more probable one only.
        structures: of the channels.

    Returns:
        Shape (N,), 0 to 1.
    """
    scores: npt.NDArray[np.float64] = areas @ np.array([CHANNEL_WORTH[name] for name in structures])
    return scores


def covered(logits: Tensor) -> Tensor:
    """Return which pixels each channel's mask covers, shape (N, C, H, W): its logit is above 0 and the largest."""
    largest = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).movedim(-1, 1).bool()
    return largest & (logits > 0)


class SegmentationTask:
    """A segmenter and the frames that it learns from: a `loop.Task`."""

    def __init__(
        self, network: nn.Module, recipe: SegmentationRecipe, training: Material, validation: Material
    ) -> None:
        """Put them together; nothing is computed.

        Args:
            network: from pictures to mask logits; changed by training.
            recipe: how to train it.
            training: frames of the training subjects, of both kinds, with masks.
            validation: frames of the validation subjects, of both kinds, with masks.
        """
        self.network = network
        self._recipe, self._training, self._validation = recipe, training, validation
        target = mask_target(recipe.decoder.structures)
        self.training: Dataset[tuple[Tensor, Tensor]] = FrameSamples(training, recipe, target, augment=True)
        self.validation: Dataset[tuple[Tensor, Tensor]] = FrameSamples(validation, recipe, target, augment=False)
        self.validation_count = len(validation.pictures)

    def order(self, epoch: int) -> Sequence[int]:
        """Return the samples of an epoch."""
        return epoch_order(self._training, self._recipe, epoch)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the Dice loss of a batch."""
        return dice_loss(logits, target, as_published=self._recipe.as_published)

    def statistics(self, logits: Tensor, target: Tensor) -> Tensor:
        """Keep of each picture and channel: what is common, what both are, and the share covered; shape (N, 3 C)."""
        share = torch.sigmoid(logits)
        common, both = (share * target).sum((2, 3)), (share + target).sum((2, 3))
        return torch.cat([common, both, covered(logits).float().mean((2, 3))], dim=1)

    def judge(self, statistics: npt.NDArray[np.float32]) -> dict[str, float | None]:
        """Return the Dice loss over all validation pictures together."""
        common, both, _ = np.split(statistics.astype(np.float64), 3, axis=1)
        dice = 2 * common.sum(0) / np.maximum(both.sum(0), _TINY)
        return {"validation_loss": float(1 - dice.mean())}

    def decide(self, statistics: npt.NDArray[np.float32]) -> Decision:
        """Return the published decision, or fit ours."""
        truths = self._validation.positive
        if self._recipe.as_published:
            return published("area", truths)
        areas = np.split(statistics.astype(np.float64), 3, axis=1)[2]
        return fit_threshold("area", frame_scores(areas, self._recipe.decoder.structures), truths)

    def facts(self) -> dict[str, Any]:
        """Return what the metrics say beside the epochs."""
        return facts_of(self._recipe, self._training, self._validation)
