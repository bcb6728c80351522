"""The recipe `multitask-unet`: the biometry U-Net of Qazi et al. 2023, with their joint loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgefetal_devices.errors import InputError
from edgefetal_export.teachers.multitask_unet import MultitaskUnet, MultitaskUnetConfig, joint_loss
from edgefetal_export.training.biometry.frames import EpochSamples
from edgefetal_export.training.biometry.loop import FRAMES_PER_EXAM, BiometryRecipe, segmentation_loss
from edgefetal_runtime.biometry.principal import PRINCIPAL
from edgefetal_runtime.infer.bundle import NO_PLANE
from edgefetal_runtime.infer.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from edgefetal_export.training.biometry.frames import Sample, TrainingFrame

NAME = "multitask-unet"


class MultitaskRecipe(BiometryRecipe):
    """Everything that decides the outcome of a run; the paper does not give the weight of naming the plane.

    Args:
        network: shape of the network.
    """

    network: MultitaskUnetConfig


def default_batch_size(exams: int) -> int:
    """Return 16, or half of the exams where these are fewer than 32, so that an epoch has steps."""
    return max(1, min(16, exams // 2))


def multitask_recipe(
    *,
    dataset: str,
    structures: tuple[str, ...],
    epochs: int,
    batch_size: int,
    frames_per_exam: int = FRAMES_PER_EXAM,
    learning_rate: float,
    classification_weight: float,
    precision: str,
    seed: int,
) -> MultitaskRecipe:
    """Fill in the recipe `multitask-unet`: what the user chose, and what it always does.

    Frames become 288 x 192, a little over a third of HC18's 800 x 540.
    """
    return MultitaskRecipe(
        name=NAME,
        dataset=dataset,
        network=MultitaskUnetConfig(structures=structures, planes=(*structures, NO_PLANE)),
        preprocess=PreprocessSpec(height_px=192, width_px=288, mean=0.15, std=0.2),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=1e-2,
        classification_weight=classification_weight,
        no_head_share=0.2,
        average_decay=0.995,
        frames_per_exam=frames_per_exam,
        validation_share=0.1,
        held_out_share=0.15,
        precision=precision,
        seed=seed,
    )


def parse_structures(text: str) -> tuple[str, ...]:
    """Read the names of structures, with commas between, into the order of the output contract.

    Raises:
        InputError: a name is not of the contract, or none is given.
    """
    names = {name.strip() for name in text.split(",")}
    if not names <= set(PRINCIPAL):
        message = f"{text!r} does not name structures; write some of {','.join(PRINCIPAL)}."
        raise InputError(message)
    return tuple(structure for structure in PRINCIPAL if structure in names)


@dataclass(frozen=True)
class MultitaskTask:
    """How the U-Net is trained.

    Args:
        recipe: what was asked.
    """

    recipe: MultitaskRecipe

    def network(self) -> MultitaskUnet:
        """Build the network with weights drawn by the recipe's seed."""
        torch.manual_seed(self.recipe.seed)
        network = MultitaskUnet(self.recipe.network)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def kept(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return all weights."""
        return dict(weights)

    def samples(self, exams: Sequence[Sequence[TrainingFrame]], epoch: int) -> EpochSamples:
        """Set up one epoch of varied samples."""
        return EpochSamples(exams, self.recipe, epoch)

    def losses(self, network: nn.Module, batch: Sample) -> dict[str, Tensor]:
        """Return the joint loss and its two parts."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            mask_logits, plane_logits = network(batch["image"].to(memory_format=torch.channels_last))
        segmentation = segmentation_loss(mask_logits.float(), batch["masks"])
        classification = nn.functional.cross_entropy(plane_logits.float(), batch["plane"])
        return {
            "total": joint_loss(segmentation, classification, self.recipe.classification_weight),
            "segmentation": segmentation,
            "classification": classification,
        }
