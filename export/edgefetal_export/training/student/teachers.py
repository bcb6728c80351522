"""What each teacher says of a frame, whatever network it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from edgefetal_calibration.datasets.split import Part
from edgefetal_devices.errors import DatasetError, InputError
from edgefetal_export.teachers import sononet
from edgefetal_export.teachers.imported import load_sononet
from edgefetal_export.training.outliner import OUTLINERS, load_outliner
from edgefetal_export.training.quality.scoring import QUALITY_RECIPES, load_scorer
from edgefetal_export.training.run import (
    RECIPE,
    WEIGHTS,
    read_split,
    recipe_name,
)
from edgefetal_export.training.skill import levels_in_turn
from edgefetal_export.training.skill.levels_in_turn import load_model
from edgefetal_export.training.student.recipe import TeacherRecord
from edgefetal_runtime.infer.bundle import NO_PLANE
from edgefetal_runtime.infer.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledExam, LabelledSweep
    from edgefetal_calibration.datasets.split import Split
    from edgefetal_runtime.infer.preprocess import PreprocessSpec

    Floats = npt.NDArray[np.float32]

_BATCH: Final = 8
# Masks are kept at half of the teacher's side, as 8-bit probabilities: an edge stays where it is to a tenth of a pixel.
MASK_SHRINK: Final = 2
SONONET: Final = "sononet"


@dataclass(frozen=True, eq=False)
class SweepAnswer:
    """What a teacher says of the frames of a sweep; a part that it does not know is empty.

    Args:
        masks: probability of its structures, 0 to 255, shape (N, structures, h, w), uint8.
        to_frame: from pixels of these masks to those of the frame, shape (2, 3).
        planes: probability of its planes, shape (N, planes).
        features: a vector for each frame, shape (N, F).
        quality: how good the frame is, 0 to 1, shape (N,).
        skill: how skilled the hand is, 0 to 1, shape (N,).
    """

    masks: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.uint8))
    to_frame: npt.NDArray[np.float64] = field(default_factory=lambda: np.eye(2, 3))
    planes: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    features: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    quality: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    skill: Floats = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network that teaches the heads it knows.

    Args:
        record: which it is, and what it knows.
        answer: what it says of a sweep.
        split: who it was trained on, or None where it was trained elsewhere.
    """

    record: TeacherRecord
    answer: Callable[[LabelledSweep], SweepAnswer]
    split: Split | None = None


def refuse_leaks(teachers: Sequence[Teacher], split: Split, exams: Sequence[LabelledExam]) -> None:
    """Refuse a teacher that learnt from, or was chosen on, those on whom the student is to be judged.

    Raises:
        DatasetError: names the teacher and one of the exams.
    """
    known_to_teacher = {Part.VALIDATION: (Part.TRAIN,), Part.HELD_OUT: (Part.TRAIN, Part.VALIDATION)}
    for teacher in teachers:
        if teacher.split is None:
            continue
        for part, forbidden in known_to_teacher.items():
            judged = split.select(exams, part)
            leaked = [exam for used in forbidden for exam in teacher.split.select(judged, used)]
            if leaked:
                message = (
                    f"The teacher {teacher.record.recipe} was trained on {leaked[0].name}, which is in the student's "
                    f"{part.value} part; give both the same data and --split-seed {teacher.split.seed}."
                )
                raise DatasetError(message)


def load_teacher(run: Path) -> Teacher:
    """Load a finished run, or an import, as a teacher.

    Raises:
        InputError: it is none, is not finished, or a file of it is missing or damaged.
    """
    name = recipe_name(run)
    if name == SONONET:
        return _namer(run)
    if name in OUTLINERS:
        return _outliner(run)
    if name in QUALITY_RECIPES:
        return _grader(run)
    if name == levels_in_turn.NAME:
        return _rater(run)
    message = f"{run} is no finished run that can teach; give runs of `edgefetal train`, `distil` or `import`."
    raise InputError(message)


def _identity(run: Path) -> str:
    """Hash what decides a teacher's answers."""
    return hashlib.sha256((run / RECIPE).read_bytes() + (run / WEIGHTS).read_bytes()).hexdigest()


def _outliner(run: Path) -> Teacher:
    """Teach masks, planes and features, and of a student whatever else it has."""
    outliner = load_outliner(run)
    recipe, network = outliner.recipe, outliner.network
    shape, extra = recipe.network, outliner.output_names[2:]
    record = TeacherRecord(
        recipe=recipe.name,
        sha256=_identity(run),
        structures=shape.structures,
        planes=shape.planes,
        features=network.feature_count,
        quality="quality" in extra,
        skill="skill" in extra,
    )

    @torch.inference_mode()
    def answer(sweep: LabelledSweep) -> SweepAnswer:
        images, to_frame = _prepared(sweep, recipe.preprocess)
        parts = [network.answer_and_features(images[k : k + _BATCH]) for k in range(0, len(images), _BATCH)]
        answers, features = zip(*parts, strict=True)
        masks, planes, *others = (torch.cat(outputs) for outputs in zip(*answers, strict=True))
        said = dict(zip(extra, (torch.sigmoid(other[:, 0]).numpy() for other in others), strict=True))
        return SweepAnswer(
            masks=_shrunk(torch.sigmoid(masks)),
            to_frame=to_frame,
            planes=planes.softmax(dim=1).numpy(),
            features=torch.cat(features).numpy(),
            **said,
        )

    return Teacher(record, answer, read_split(run))


def _prepared(sweep: LabelledSweep, spec: PreprocessSpec) -> tuple[Tensor, npt.NDArray[np.float64]]:
    """Prepare the frames of a sweep; return them and the map from shrunk masks to the frame."""
    prepared = [preprocess(pixels, spec) for pixels in sweep.pixels]
    box = prepared[0][1]
    # The middle of a shrunk pixel lies between the pixels that it was made of.
    within = (MASK_SHRINK - 1) / 2
    to_frame = np.array(
        [
            [MASK_SHRINK * box.x.step, 0.0, box.x.offset + within * box.x.step],
            [0.0, MASK_SHRINK * box.y.step, box.y.offset + within * box.y.step],
        ]
    )
    return torch.from_numpy(np.concatenate([image for image, _ in prepared])), to_frame


def _shrunk(probability: Tensor) -> npt.NDArray[np.uint8]:
    small = nn.functional.avg_pool2d(probability, MASK_SHRINK)
    return (small * 255).round().to(torch.uint8).numpy()


def _namer(run: Path) -> Teacher:
    """Teach planes by SonoNet, whose fourteen classes become those of the contract."""
    recipe, network = load_sononet(run)
    named = [sononet.CONTRACT_PLANES.get(plane, NO_PLANE) for plane in recipe.network.planes]
    planes = tuple(dict.fromkeys((*(name for name in named if name != NO_PLANE), NO_PLANE)))
    members = torch.tensor([[float(name == plane) for plane in planes] for name in named])
    record = TeacherRecord(recipe=SONONET, sha256=_identity(run), planes=planes)

    @torch.inference_mode()
    def answer(sweep: LabelledSweep) -> SweepAnswer:
        images, _ = _prepared(sweep, recipe.preprocess)
        parts = [network(images[k : k + _BATCH]).softmax(dim=1) @ members for k in range(0, len(images), _BATCH)]
        return SweepAnswer(planes=torch.cat(parts).numpy())

    return Teacher(record, answer)


def _grader(run: Path) -> Teacher:
    """Teach quality: a probability, or of a network that judges by area its decision."""
    scorer = load_scorer(run)
    record = TeacherRecord(recipe=scorer.recipe.name, sha256=_identity(run), quality=True)

    def answer(sweep: LabelledSweep) -> SweepAnswer:
        scores = scorer.score_sweep(sweep)
        quality = (scores >= scorer.decision.threshold).astype(np.float32) if scorer.outlines else scores
        return SweepAnswer(quality=np.asarray(quality, np.float32))

    return Teacher(record, answer, read_split(run))


def _rater(run: Path) -> Teacher:
    """Teach skill: a frame has the mean score of the clips that hold it."""
    model, recipe = load_model(run)
    model.eval()
    length, spec = recipe.network.seq_len, recipe.preprocess
    record = TeacherRecord(recipe=recipe.name, sha256=_identity(run), skill=True)

    @torch.inference_mode()
    def answer(sweep: LabelledSweep) -> SweepAnswer:
        frames = len(sweep.pixels)
        if frames < length:
            # Too short to be judged.
            return SweepAnswer(skill=np.full(frames, np.nan, np.float32))
        placed = np.stack([preprocess(pixels, spec)[0][0, 0] for pixels in sweep.pixels])
        starts = sorted({*range(0, frames - length + 1, length), frames - length})
        total, count = np.zeros(frames, np.float32), np.zeros(frames, np.float32)
        for start in starts:
            score = float(model.skill(torch.from_numpy(placed[start : start + length])[None]))
            total[start : start + length] += score
            count[start : start + length] += 1
        return SweepAnswer(skill=total / count)

    return Teacher(record, answer, read_split(run))
