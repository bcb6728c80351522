"""How a student is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgefetal_export.students.student import Student
from edgefetal_export.training.biometry.frames import UNKNOWN_PLANE
from edgefetal_export.training.biometry.loop import segmentation_loss
from edgefetal_export.training.student.losses import (
    plane_members,
    said_loss,
    taught_feature_loss,
    taught_mask_loss,
    taught_plane_loss,
)
from edgefetal_export.training.student.samples import StudentSamples
from edgefetal_runtime.infer.bundle import NO_PLANE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgefetal_export.training.biometry.frames import Sample, TrainingFrame
    from edgefetal_export.training.student.answers import Taught
    from edgefetal_export.training.student.recipe import StudentRecipe


class StudentInTraining(nn.Module):
    """A student with what only its training needs: for each teacher of features a map into that teacher's vectors."""

    def __init__(self, recipe: StudentRecipe) -> None:
        """Build it with weights drawn by the recipe's seed; the student's do not depend on who teaches it."""
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.student = Student(recipe.network)
        self.into_teacher = nn.ModuleDict(
            {
                str(place): nn.Linear(self.student.feature_count, teacher.features)
                for place, teacher in enumerate(recipe.teachers)
                if teacher.features
            }
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Answer as the student does."""
        answer: tuple[Tensor, ...] = self.student(image)
        return answer


@dataclass(frozen=True, eq=False)
class StudentTask:
    """What people and teachers say, weighed.

    Args:
        recipe: what was asked.
        answers: the teachers' answers by the digest of the frame.
    """

    recipe: StudentRecipe
    answers: Mapping[bytes, tuple[Taught, ...]]

    def network(self) -> StudentInTraining:
        """Build the network with weights drawn by the recipe's seed."""
        network = StudentInTraining(self.recipe)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def kept(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of the student itself."""
        prefix = "student."
        return {name.removeprefix(prefix): part for name, part in weights.items() if name.startswith(prefix)}

    def samples(self, exams: Sequence[Sequence[TrainingFrame]], epoch: int) -> StudentSamples:
        """Set up one epoch of varied samples."""
        return StudentSamples(exams, self.recipe, self.answers, epoch)

    def losses(self, network: nn.Module, batch: Sample) -> dict[str, Tensor]:
        """Return the loss and its parts.

        As for the U-Net, naming planes has the recipe's weight and outlining the rest, teachers included.
        """
        assert isinstance(network, StudentInTraining)  # noqa: S101 - `network` above made it
        recipe = self.recipe
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            answer, features = network.student.answer_and_features(batch["image"].to(memory_format=torch.channels_last))
        mask, plane = answer[0].float(), answer[1].float()
        said = dict(zip(recipe.network.output_names[2:], answer[2:], strict=True))
        labelled = batch["plane"] != UNKNOWN_PLANE
        parts = {"segmentation": mask.new_zeros(()), "classification": mask.new_zeros(())}
        if labelled.any():
            parts["segmentation"] = segmentation_loss(mask[labelled], batch["masks"][labelled])
            parts["classification"] = nn.functional.cross_entropy(plane[labelled], batch["plane"][labelled])
        parts |= _teachers_losses(recipe, mask, plane, features.float(), network, batch)
        for name, logits in said.items():
            by_people = (batch["worth"],) if name == "quality" else ()
            by_teachers = (batch[name],) if recipe.teachers else ()
            parts[name] = said_loss(logits.float(), *by_people, *by_teachers)
        return {"total": _weighed(recipe, parts), **parts}


def _teachers_losses(
    recipe: StudentRecipe, mask: Tensor, plane: Tensor, features: Tensor, network: StudentInTraining, batch: Sample
) -> dict[str, Tensor]:
    """Return how far the student is from its teachers, by what they teach."""
    parts: dict[str, Tensor] = {}
    if any(teacher.structures for teacher in recipe.teachers):
        parts["taught_mask"] = taught_mask_loss(
            mask, batch["taught_masks"], batch["taught_structures"], recipe.loss.boundary
        )
    named = [
        taught_plane_loss(
            plane,
            batch[f"planes/{place}"],
            plane_members(recipe.network.planes, teacher.planes, NO_PLANE),
            batch["taught"],
        )
        for place, teacher in enumerate(recipe.teachers)
        if teacher.planes
    ]
    felt = [
        taught_feature_loss(into(features), batch[f"features/{place}"], batch["taught"])
        for place, into in network.into_teacher.items()
    ]
    for name, of_teachers in (("taught_plane", named), ("taught_feature", felt)):
        if of_teachers:
            parts[name] = torch.stack(of_teachers).mean()
    return parts


def _weighed(recipe: StudentRecipe, parts: Mapping[str, Tensor]) -> Tensor:
    """Add the parts by the recipe's weights."""
    share, loss = recipe.classification_weight, recipe.loss
    weights = {
        "segmentation": 1 - share,
        "classification": share,
        "taught_mask": (1 - share) * loss.mask,
        "taught_plane": share * loss.plane,
        "taught_feature": loss.feature,
        "quality": loss.quality,
        "skill": loss.skill,
    }
    return torch.stack([weights[name] * part for name, part in parts.items()]).sum()
