"""Labelled frames become samples: every plane, its own mask channel, and no frame whose label is not whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_calibration.datasets.labelled import NOT_THE_PLANE, OPTIMAL, SUBOPTIMAL, LabelledSweep
from edgefetal_devices.errors import DatasetError
from edgefetal_export.training.biometry.augment import augmented_frame
from edgefetal_export.training.biometry.frames import (
    EpochSamples,
    TrainingFrame,
    drawn_frames,
    load_frames,
    require_labels,
    require_references,
)
from edgefetal_export.training.biometry.loop import train
from edgefetal_export.training.biometry.multitask import MultitaskTask, multitask_recipe
from edgefetal_runtime.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_export.training.biometry.multitask import MultitaskRecipe

STRUCTURES = ("head", "abdomen", "femur")
SHAPE = (120, 180)


@dataclass(frozen=True)
class DrawnExam:
    """A sweep in which a disc or a bar shows in the middle frames."""

    name: str
    structure: str
    beyond: str | None = None

    @property
    def subject(self) -> str:
        return self.name

    def digest(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    def labels_digest(self) -> str:
        return self.digest()

    def sweeps(self) -> Iterator[LabelledSweep]:
        rng = np.random.default_rng(list(self.name.encode()))
        pixels = rng.integers(20, 60, (6, *SHAPE)).astype(np.uint8)
        masks = np.zeros((6, *SHAPE), np.uint8)
        rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
        if self.structure == "femur":
            inside = (abs(rows - 60) < 4) & (abs(columns - 90) < 40)
            level, length_mm = 250, 79 * 0.5
        else:
            inside = np.hypot(rows - 60, columns - 90) < 40
            level, length_mm = (150 if self.structure == "head" else 100), 2 * np.pi * 40 * 0.5
        masks[2:5, inside] = 1
        pixels[masks == 1] = level
        planes = ["none", "none", *[self.structure] * 3, self.beyond or "none"]
        yield LabelledSweep(
            name="sweep_1",
            pixels=pixels,
            masks={self.structure: masks},
            planes=tuple(planes),
            scale=Scale(0.5, 0.5, "drawn"),
            lengths_mm={
                {"head": "HC", "abdomen": "AC", "femur": "FL"}[self.structure]: np.array(
                    [np.nan, np.nan, length_mm, length_mm, np.nan, np.nan]
                )
            },
        )


EXAMS = [DrawnExam(f"{structure}-{k}", structure) for structure in STRUCTURES for k in range(4)]


@pytest.fixture
def recipe() -> MultitaskRecipe:
    made = multitask_recipe(
        dataset="drawn",
        structures=STRUCTURES,
        epochs=2,
        batch_size=4,
        learning_rate=3e-3,
        classification_weight=0.1,
        precision="fp32",
        seed=3,
    )
    return made.model_copy(
        update={
            "network": made.network.model_copy(update={"features": (8, 8, 16, 16, 24, 8)}),
            "preprocess": made.preprocess.model_copy(update={"height_px": 64, "width_px": 96}),
        }
    )


def loaded(exams: list[DrawnExam]) -> list[list[TrainingFrame]]:
    return load_frames(exams, lambda: None)


def test_frames_carry_the_label_of_their_plane() -> None:
    (frames,) = loaded([DrawnExam("a", "femur")])
    assert [frame.plane for frame in frames] == ["none", "none", "femur", "femur", "femur", "none"]
    assert [frame.mask is not None for frame in frames] == [False, False, True, True, True, False]
    assert [frame.length_mm is not None for frame in frames] == [False, False, True, True, False, False]
    assert frames[2].mask is not None
    assert set(np.unique(frames[2].mask)) == {0, 255}


@dataclass(frozen=True)
class GradedExam(DrawnExam):
    """The same, and somebody graded its frames."""

    def sweeps(self) -> Iterator[LabelledSweep]:
        for sweep in super().sweeps():
            grades = [NOT_THE_PLANE, NOT_THE_PLANE, SUBOPTIMAL, OPTIMAL, SUBOPTIMAL, NOT_THE_PLANE]
            yield replace(sweep, grades=np.array(grades, np.uint8))


def test_an_optimal_frame_is_worth_more_than_a_suboptimal_one() -> None:
    ((*graded,), (*not_graded,)) = load_frames([GradedExam("g", "abdomen"), DrawnExam("n", "abdomen")], lambda: None)
    assert [frame.worth for frame in graded] == [0.0, 0.0, 0.6, 1.0, 0.6, 0.0]
    assert {frame.worth for frame in not_graded} == {None}


def test_frame_of_a_structure_without_mask_is_left_out() -> None:
    (frames,) = loaded([DrawnExam("a", "femur", beyond="abdomen")])
    assert [frame.plane for frame in frames] == ["none", "none", "femur", "femur", "femur"]


def test_sweep_without_planes_is_refused() -> None:
    class Unnamed(DrawnExam):
        def sweeps(self) -> Iterator[LabelledSweep]:
            for sweep in super().sweeps():
                yield replace(sweep, planes=None)

    with pytest.raises(DatasetError, match="which plane"):
        loaded([Unnamed("a", "head")])


def test_channels_without_a_teacher_and_masks_without_a_channel_are_refused() -> None:
    exams = loaded(EXAMS)
    require_labels(exams, STRUCTURES)
    with pytest.raises(DatasetError, match="outlines the femur"):
        require_labels(exams[:8], STRUCTURES)
    with pytest.raises(DatasetError, match="the femur too"):
        require_labels(exams, STRUCTURES[:2])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 9])
def test_drawn_frames_are_of_every_exam_and_half_of_them_show_a_plane(count: int) -> None:
    exams = loaded(EXAMS)
    drawn = drawn_frames(exams, count, (1, 0))
    assert len(drawn) == min(count, 6) * len(exams)
    assert sum(frame.plane != "none" for frame in drawn) == min(max((count + 1) // 2, count - 3), 3) * len(exams)
    assert len({id(frame) for frame in drawn}) == len(drawn)


def test_other_frames_are_drawn_in_each_epoch_and_the_same_in_one() -> None:
    exams = loaded(EXAMS)
    first, again, other = (drawn_frames(exams, 2, (1, epoch)) for epoch in (0, 0, 1))
    assert [id(f) for f in first] == [id(f) for f in again]
    assert [id(f) for f in first] != [id(f) for f in other]


def test_samples_hold_the_mask_in_the_channel_of_their_plane(recipe: MultitaskRecipe) -> None:
    samples = EpochSamples(loaded(EXAMS), recipe, 1)
    seen = set()
    for index in range(len(samples)):
        image, masks, plane = (samples[index][key] for key in ("image", "masks", "plane"))
        assert image.shape == (1, 64, 96)
        assert masks.shape == (3, 64, 96)
        named = recipe.network.planes[int(plane)]
        filled = {structure for structure, mask in zip(STRUCTURES, masks, strict=True) if float(mask.max()) > 0.5}
        assert filled == ({named} - {"none"})
        seen.add(named)
    assert seen == {*STRUCTURES, "none"}


@pytest.mark.parametrize("seed", range(12))
def test_mask_moves_with_its_picture(seed: int) -> None:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    mask: npt.NDArray[np.uint8] = np.where(np.hypot(rows - 60, columns - 90) < 30, 255, 0).astype(np.uint8)
    picture, moved, _ = augmented_frame(np.maximum(mask // 2, 20).astype(np.uint8), mask, np.random.default_rng(seed))
    assert moved is not None
    assert moved.shape == picture.shape
    inside, outside = picture[moved > 200], picture[(moved == 0) & (picture > 0)]
    assert np.median(inside) > 2 * np.median(outside)


def test_picture_without_a_mask_is_varied_alone() -> None:
    picture, mask, _ = augmented_frame(np.full(SHAPE, 50, np.uint8), None, np.random.default_rng(1))
    assert mask is None
    assert picture.std() > 0


def test_three_planes_are_trained_and_judged_in_millimetres(tmp_path: Path, recipe: MultitaskRecipe) -> None:
    steps: list[int] = []
    shares = {"validation_share": 0.25, "held_out_share": 0.1}
    exams = [DrawnExam(f"{structure}-{k}", structure) for structure in STRUCTURES for k in range(8)]
    metrics = train(
        tmp_path / "run", MultitaskTask(recipe.model_copy(update=shares)), exams, resume=False, on_count=steps.append
    )
    row = metrics["epochs"][-1]
    assert set(row["validation"]) == {"HC", "AC", "FL"}
    assert all(score["n"] >= score["n_measured"] for score in row["validation"].values())
    assert metrics["epochs"][1]["segmentation_loss"] < metrics["epochs"][0]["segmentation_loss"]
    assert steps == [16 * 4 // 4]


def test_frames_without_a_length_have_none() -> None:
    class Unmeasured(DrawnExam):
        def sweeps(self) -> Iterator[LabelledSweep]:
            for sweep in super().sweeps():
                yield replace(sweep, lengths_mm={})

    (frames,) = loaded([Unmeasured("a", "head")])
    assert all(frame.length_mm is None for frame in frames)
    with pytest.raises(DatasetError, match="No validation frame has a HC"):
        require_references(frames, ("head",))


def test_each_structure_needs_a_reference() -> None:
    frames = [frame for exam in loaded(EXAMS[:8]) for frame in exam]
    require_references(frames, STRUCTURES[:2])
    with pytest.raises(DatasetError, match="has a FL"):
        require_references(frames, STRUCTURES)
