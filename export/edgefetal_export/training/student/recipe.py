"""What a student is trained to: the recipe `student`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, NonNegativeFloat

from edgefetal_devices.errors import InputError
from edgefetal_export.students.student import SIDE_MULTIPLE, Size, StudentConfig, student_config
from edgefetal_export.training.biometry.loop import FRAMES_PER_EXAM, BiometryRecipe
from edgefetal_runtime.infer.bundle import NO_PLANE
from edgefetal_runtime.infer.preprocess import PreprocessSpec

NAME = "student"


class TeacherRecord(BaseModel):
    """A teacher and what it knows.

    Args:
        recipe: how it was made.
        sha256: hash of its recipe and weights.
        structures: whose masks it teaches.
        planes: which planes it tells apart.
        features: numbers in the vector that it has for a frame; 0 where it teaches none.
        quality: whether it says how good a frame is.
        skill: whether it says how skilled the hand is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    sha256: str
    structures: tuple[str, ...] = ()
    planes: tuple[str, ...] = ()
    features: int = 0
    quality: bool = False
    skill: bool = False


class LossWeights(BaseModel):
    """How much each part of the loss counts, beside outlines and planes that people labelled.

    Args:
        mask: the teachers' masks.
        boundary: how much more a pixel on the edge of a teacher's mask counts than one far from it.
        plane: the teachers' planes.
        feature: the teachers' feature vectors.
        quality: quality, of people and teachers alike.
        skill: the teachers' skill.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mask: NonNegativeFloat = 1.0
    boundary: NonNegativeFloat = 4.0
    plane: NonNegativeFloat = 1.0
    feature: NonNegativeFloat = 0.1
    quality: NonNegativeFloat = 0.1
    skill: NonNegativeFloat = 0.1


class StudentRecipe(BiometryRecipe):
    """Everything that decides the outcome of a student's run.

    Args:
        network: shape of the network.
        size: by which rule it was drawn.
        teachers: who taught it; empty where it learnt from labels alone.
        unlabelled: kinds of the data used without labels, with `+` between, or empty.
        loss: weights of the parts of the loss.
    """

    network: StudentConfig
    size: Size
    teachers: tuple[TeacherRecord, ...]
    unlabelled: str
    loss: LossWeights


def parse_input(text: str) -> tuple[int, int]:
    """Read the width and height of the network's input, as in `288x192`.

    Raises:
        InputError: it is not of that form, or its sides are not multiples of what the network halves.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts):  # noqa: PLR2004 - two sides
        message = f"{text!r} is no size; write the width and the height in pixels, such as 288x192."
        raise InputError(message)
    width_px, height_px = (int(part) for part in parts)
    if width_px % SIDE_MULTIPLE or height_px % SIDE_MULTIPLE:
        message = f"An input of {text} cannot be halved four times; give multiples of {SIDE_MULTIPLE}."
        raise InputError(message)
    return width_px, height_px


def student_recipe(
    *,
    dataset: str,
    unlabelled: str,
    structures: tuple[str, ...],
    size: Size,
    teachers: tuple[TeacherRecord, ...],
    graded: bool,
    input_px: tuple[int, int],
    epochs: int,
    batch_size: int,
    frames_per_exam: int = FRAMES_PER_EXAM,
    learning_rate: float,
    loss: LossWeights,
    precision: str,
    seed: int,
    split_seed: int | None,
) -> StudentRecipe:
    """Fill in the recipe: what the user chose, and what it always does.

    Args:
        dataset: kinds of the labelled data, with `+` between.
        unlabelled: those of the data used without labels.
        structures: what is outlined.
        size: of the network.
        teachers: who teaches it.
        graded: whether the data grade frames, so that quality can be learnt without a teacher.
        input_px: width and height of the network's input.
        epochs: passes over the training subjects.
        batch_size: samples a step.
        frames_per_exam: frames of an exam in an epoch.
        learning_rate: peak of the schedule.
        loss: weights of the parts of the loss.
        precision: arithmetic of the forward pass.
        seed: of the weights and the augmentation.
        split_seed: of the split; `seed` if None.

    Raises:
        InputError: a teacher knows nothing that the student is to learn.
    """
    width_px, height_px = input_px
    for teacher in teachers:
        if not (
            set(teacher.structures) & set(structures)
            or set(teacher.planes) & set(structures)
            or teacher.quality
            or teacher.skill
        ):
            message = f"The teacher {teacher.recipe} knows nothing of {', '.join(structures)}; leave it out."
            raise InputError(message)
    return StudentRecipe(
        name=NAME,
        dataset=dataset,
        network=student_config(
            size,
            structures,
            (*structures, NO_PLANE),
            quality=graded or any(teacher.quality for teacher in teachers),
            skill=any(teacher.skill for teacher in teachers),
        ),
        size=size,
        teachers=teachers,
        unlabelled=unlabelled,
        loss=loss,
        preprocess=PreprocessSpec(height_px=height_px, width_px=width_px, mean=0.15, std=0.2),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=1e-2,
        classification_weight=0.1,
        no_head_share=0.2,
        average_decay=0.995,
        frames_per_exam=frames_per_exam,
        validation_share=0.1,
        held_out_share=0.15,
        precision=precision,
        seed=seed,
        split_seed=split_seed,
    )
