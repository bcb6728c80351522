"""An epoch of varied frames with what people and teachers say of them.

A teacher sees a frame as it is; its masks are moved with the frame when that is varied, and what it says of the frame
as a whole stays. So it is asked once, however often the frame is varied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from edgefetal_export.training.biometry.augment import chained
from edgefetal_export.training.biometry.frames import EpochSamples, Sample
from edgefetal_export.training.student.answers import frame_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgefetal_export.training.biometry.frames import TrainingFrame, Varied
    from edgefetal_export.training.student.answers import Taught
    from edgefetal_export.training.student.recipe import StudentRecipe

# What stands where nobody says anything.
UNSAID = -1.0


class StudentSamples(Dataset[Sample]):
    """One epoch of samples.

    Beside what `EpochSamples` holds a sample has:

    - `worth`: 0 to 1 by the grade that people gave, or `UNSAID`;
    - `taught`: 1 where teachers were asked, else 0 and the rest is empty;
    - `taught_masks`: the teachers' mean probability, shape (structures, h, w), and `taught_structures`, shape
      (structures,), 1 where any teaches that mask;
    - `planes/K` and `features/K`: what teacher K says, where it teaches these;
    - `quality`, `skill`: the teachers' mean, or `UNSAID`.
    """

    def __init__(
        self,
        exams: Sequence[Sequence[TrainingFrame]],
        recipe: StudentRecipe,
        answers: Mapping[bytes, tuple[Taught, ...]],
        epoch: int,
    ) -> None:
        """Set up the epoch; nothing is computed before a sample is asked for."""
        self._frames = EpochSamples(exams, recipe, epoch)
        self._recipe, self._answers = recipe, answers

    def __len__(self) -> int:
        """Count the samples."""
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample:
        """Make sample `index`, the same one whenever it is asked for."""
        sample, varied = self._frames.made(index)
        worth = None if varied is None else varied.frame.worth
        sample["worth"] = torch.tensor(UNSAID if worth is None else worth)
        if self._recipe.teachers:
            answers = None if varied is None else self._answers[frame_digest(varied.frame.pixels)]
            sample |= _taught(answers, varied, self._recipe)
        return sample


def _taught(answers: tuple[Taught, ...] | None, varied: Varied | None, recipe: StudentRecipe) -> Sample:
    """Gather what all teachers say of a varied frame; nothing, in the same shape, where they were not asked."""
    spec, structures = recipe.preprocess, recipe.network.structures
    sums = np.zeros((len(structures), spec.height_px, spec.width_px), np.float32)
    counts = np.zeros(len(structures), np.float32)
    sample: Sample = {"taught": torch.tensor(float(answers is not None))}
    said: dict[str, list[float]] = {"quality": [], "skill": []}
    for place, teacher in enumerate(recipe.teachers):
        answer = None if answers is None else answers[place]
        if teacher.planes:
            sample[f"planes/{place}"] = _vector(None if answer is None else answer.planes, len(teacher.planes))
        if teacher.features:
            sample[f"features/{place}"] = _vector(None if answer is None else answer.features, teacher.features)
        if answer is None or varied is None:
            continue
        said["quality"] += [] if answer.quality is None else [answer.quality]
        said["skill"] += [] if answer.skill is None else [answer.skill]
        if answer.masks is None:
            continue
        matrix = chained(answer.to_frame, varied.to_network)
        for channel, structure in enumerate(teacher.structures):
            if structure in structures:
                at = structures.index(structure)
                sums[at] += cv2.warpAffine(answer.masks[channel], matrix, (spec.width_px, spec.height_px))
                counts[at] += 1
    sample["taught_masks"] = torch.from_numpy(sums / np.maximum(counts, 1)[:, None, None] / np.float32(255))
    sample["taught_structures"] = torch.from_numpy(np.minimum(counts, 1))
    return sample | {name: torch.tensor(np.mean(values) if values else UNSAID).float() for name, values in said.items()}


def _vector(values: npt.NDArray[np.float32] | None, count: int) -> Tensor:
    return torch.zeros(count) if values is None else torch.from_numpy(np.array(values, np.float32))
