"""Graded frames as training material: what the recipes of frame networks share."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt  # noqa: TC002 - pydantic reads annotations at run time
from torch import Tensor
from torch.utils.data import Dataset

from edgefetal_calibration.datasets.choice import FrameChoice, as_published_frames, quality_frames
from edgefetal_calibration.datasets.labelled import NOT_THE_PLANE, OPTIMAL, SUBOPTIMAL
from edgefetal_calibration.datasets.prepared import PreparedFrames, prepare
from edgefetal_calibration.datasets.split import Part, Split, split_datasets
from edgefetal_devices.errors import DatasetError
from edgefetal_export.training.quality.augment import PUBLISHED_COPIES, published_copy, vary
from edgefetal_export.training.quality.encoders import Provenance  # noqa: TC001 - pydantic reads annotations at run time
from edgefetal_export.training.quality.loop import LoopRecipe
from edgefetal_export.training.quality.sampling import balanced, shuffled
from edgefetal_runtime.infer.bundle import ABDOMEN
from edgefetal_runtime.infer.preprocess import normalise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_runtime.infer.preprocess import PreprocessSpec

_PREPARED: Final = "prepared"

Balance = Literal["sampler", "none"]
# The kind of a dataset, and its exams.
Graded = tuple[str, "Sequence[LabelledExam]"]


class FrameRecipe(LoopRecipe):
    """What every network for graded frames says beside what the loop asks.

    Args:
        weights: what the encoder began with.
        as_published: data, labels, augmentation, balance and decision as in FetalCLIP-IQA.
        balance: `sampler` shows as many frames with a plane as without; `none` leaves them as they come.
        negatives_per_positive: training frames without a plane that are read for each one with; whole exams have about
            forty.
        validation_every: of the validation sweeps every so-manieth frame is read.
    """

    weights: Provenance
    as_published: bool
    balance: Balance
    negatives_per_positive: PositiveFloat
    validation_every: PositiveInt


@dataclass(frozen=True)
class Wishes:
    """What a user may choose of a run on graded frames, whatever is trained.

    Args:
        dataset: kinds of the datasets, joined by `+`.
        weights: what the encoder begins with.
        as_published: as FetalCLIP-IQA does it.
        epochs: passes over the training subjects.
        batch_size: pictures a step, over all processes.
        accumulation: parts of each process's share of a step.
        learning_rate: of AdamW.
        precision: `fp32` or `bf16`.
        validation_every: of the validation sweeps every so-manieth frame is read.
        seed: of the split, the weights and the augmentation.
    """

    dataset: str
    weights: Provenance
    as_published: bool
    epochs: int
    batch_size: int
    accumulation: int
    learning_rate: float
    precision: str
    validation_every: int
    seed: int


def common_settings(wishes: Wishes) -> dict[str, Any]:
    """Return the fields of a recipe on graded frames that do not depend on what is trained.

    Shares of the subjects are the published 70, 10 and 20 %; AdamW's decay is torch's default, as published.
    """
    return {
        "dataset": wishes.dataset,
        "epochs": wishes.epochs,
        "batch_size": wishes.batch_size,
        "accumulation": wishes.accumulation,
        "learning_rate": wishes.learning_rate,
        "weight_decay": 1e-2,
        "validation_share": 0.1,
        "held_out_share": 0.2,
        "precision": wishes.precision,
        "seed": wishes.seed,
        "weights": wishes.weights,
        "as_published": wishes.as_published,
        "balance": "none" if wishes.as_published else "sampler",
        "negatives_per_positive": 5.0,
        "validation_every": wishes.validation_every,
    }


@dataclass(frozen=True, eq=False)
class Material:
    """Frames in the network's size, on disk, and what is known of each.

    Args:
        spec: how they were prepared.
        pictures: shape (N, h, w), uint8.
        masks: of the abdomen, shape (N, S, h, w), 0 to 255; S is 1, or 0 where only the grade is learnt.
        grades: shape (N,), `NOT_THE_PLANE`, `OPTIMAL` or `SUBOPTIMAL`.
    """

    spec: PreprocessSpec
    pictures: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    grades: npt.NDArray[np.uint8]

    @property
    def positive(self) -> npt.NDArray[np.bool_]:
        """Whether each frame shows the plane, optimally or not."""
        return np.asarray(self.grades != NOT_THE_PLANE)

    def counts(self) -> dict[str, int]:
        """Count the frames of each grade."""
        names = {"optimal": OPTIMAL, "suboptimal": SUBOPTIMAL, "without_the_plane": NOT_THE_PLANE}
        return {name: int((self.grades == grade).sum()) for name, grade in names.items()}


def material_of(frames: PreparedFrames, part: Part) -> Material:
    """Look at prepared frames as training does.

    Args:
        frames: what was read.
        part: of whom, for the message.

    Raises:
        DatasetError: a frame has no grade, or all frames are of one kind.
    """
    ungraded = next((row for row in frames.rows if row.grade is None), None)
    if ungraded is not None:
        raise DatasetError(
            f"Exam {ungraded.exam} does not say of every frame how well it shows the abdomen, and quality is learnt "
            "from that; give graded sets only, such as acouslic:PATH."
        )
    grades = np.array([row.grade for row in frames.rows], np.uint8)
    material = Material(frames.spec, frames.pictures, frames.masks, grades)
    if material.positive.all() or not material.positive.any():
        kind = "show the abdominal plane" if material.positive.any() else "show no abdominal plane"
        raise DatasetError(
            f"All {len(grades)} frames of the {part.value} subjects {kind}, and both kinds are needed; give more "
            "exams, or draw another split with --seed."
        )
    return material


class FrameSamples(Dataset[tuple[Tensor, Tensor]]):
    """Frames by (epoch, index), with the target that the task asks for.

    Where the recipe is as published an index past the frames is a copy of one: `index // n` is the copy's number.
    """

    def __init__(
        self,
        material: Material,
        recipe: FrameRecipe,
        target: Callable[[int, npt.NDArray[np.uint8]], Tensor],
        *,
        augment: bool,
    ) -> None:
        """Set up; nothing is computed before a sample is asked for.

        Args:
            material: the frames.
            recipe: whose seed and way of augmentation hold.
            target: makes what is to be learnt from a grade and the frame's masks, shape (S, h, w).
            augment: whether to vary the frames.
        """
        self._material, self._recipe, self._target, self._augment = material, recipe, target, augment

    def __len__(self) -> int:
        """Count the samples of an epoch before they are balanced."""
        copies = 1 + PUBLISHED_COPIES if self._augment and self._recipe.as_published else 1
        return copies * len(self._material.pictures)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Make a sample: the picture, shape (1, h, w), float32, and its target."""
        epoch, index = key
        copy, row = divmod(index, len(self._material.pictures))
        picture, masks = np.asarray(self._material.pictures[row]), np.asarray(self._material.masks[row])
        if self._augment and not self._recipe.as_published:
            picture, masks = vary(picture, masks, np.random.default_rng((self._recipe.seed, epoch, row)))
        elif copy:
            picture, masks = published_copy(picture, masks, np.random.default_rng((self._recipe.seed, copy, row)))
        image = torch.from_numpy(normalise(picture, self._material.spec)[None])
        return image, self._target(int(self._material.grades[row]), masks)


def epoch_order(material: Material, recipe: FrameRecipe, epoch: int) -> list[int]:
    """Return the training samples of an epoch, as the recipe balances them."""
    if recipe.balance == "sampler":
        return balanced(material.positive, recipe.seed, epoch)
    copies = 1 + PUBLISHED_COPIES if recipe.as_published else 1
    return shuffled(copies * len(material.pictures), recipe.seed, epoch)


def training_odds(material: Material, recipe: FrameRecipe) -> float:
    """Return how many frames with a plane a network sees for each without."""
    if recipe.balance != "none":
        return 1.0
    count = int(material.positive.sum())
    return count / (len(material.positive) - count)


def draw_split(datasets: Sequence[Graded], recipe: FrameRecipe) -> Split:
    """Draw the recipe's split by subject, of each dataset by itself.

    Raises:
        DatasetError: there are too few subjects, or the same exam lies under two subjects of different parts.
    """
    return split_datasets(
        datasets, seed=recipe.seed, validation=recipe.validation_share, held_out=recipe.held_out_share
    )


def refuse_ungraded(exams: Sequence[LabelledExam], source: str, *, masks: bool) -> None:
    """Look at the first sweep of a dataset, so that one without grades is refused before all of it is read.

    Args:
        exams: of the dataset.
        source: what the user called it.
        masks: whether outlines of the abdomen are needed too.

    Raises:
        DatasetError: it has no exams, no grades, or no masks where they are needed.
    """
    sweep = next((sweep for exam in exams[:1] for sweep in exam.sweeps()), None)
    if sweep is None or sweep.grades is None or (masks and ABDOMEN not in sweep.masks):
        needed = "grades with outlines" if masks else "grades"
        raise DatasetError(
            f"{source} has no {needed} of the abdominal plane, from which this is learnt; give graded sets only, such "
            "as acouslic:PATH."
        )


def every_nth(step: int) -> FrameChoice:
    """Choose one frame of so many, of every sweep, those without the plane included."""
    return FrameChoice(f"one in {step}", lambda sweep: np.arange(0, len(sweep.pixels), step))


def frame_choice(recipe: FrameRecipe, part: Part) -> FrameChoice:
    """Return which frames of a part's sweeps are read."""
    if recipe.as_published:
        return as_published_frames
    if part is Part.TRAIN:
        return quality_frames(recipe.negatives_per_positive, recipe.seed)
    return every_nth(recipe.validation_every)


def facts_of(recipe: FrameRecipe, training: Material, validation: Material) -> dict[str, Any]:
    """Return what `metrics.json` says of a run beside its epochs."""
    return {
        "as_published": recipe.as_published,
        "weights": recipe.weights.model_dump(mode="json"),
        "note": recipe.weights.sentence(),
        "training_frames": training.counts(),
        "validation_frames": validation.counts(),
    }


def prepare_material(
    run: Path,
    exams: Sequence[LabelledExam],
    recipe: FrameRecipe,
    part: Part,
    structures: Sequence[str],
    advance: Callable[[], None] = lambda: None,
) -> Material:
    """Read the exams of a part into `RUN/prepared/`, or find them there.

    Raises:
        DatasetError: an exam cannot be read or has no grades, or all frames are of one kind.
        OutputError: the folder cannot be written.
    """
    frames = prepare(
        exams,
        recipe.preprocess,
        structures,
        run / _PREPARED / part.value,
        choose=frame_choice(recipe, part),
        advance=advance,
    )
    return material_of(frames, part)


def remove_prepared(run: Path) -> None:
    """Remove the frames that were prepared for training, which nothing needs once it is done."""
    shutil.rmtree(run / _PREPARED, ignore_errors=True)
