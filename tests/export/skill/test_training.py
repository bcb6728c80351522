from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from edgefetal_calibration.datasets.labelled import LabelledSweep
from edgefetal_calibration.datasets.split import Part
from edgefetal_devices.errors import CheckFailedError, DatasetError, InputError, OutputError
from edgefetal_export.teachers.skill import (
    SkillConfig,
    SkillModel,
    SkillNetwork,
    each_frame_normalised,
    onnx_from_skill,
)
from edgefetal_export.training.run import read_recipe, read_split
from edgefetal_export.training.skill import levels_in_turn as training
from edgefetal_export.training.skill.clips import (
    Cut,
    clip_batch,
    drawn_cuts,
    labelled_structures,
    load_sweeps,
    stored_skills,
    tiles,
)
from edgefetal_export.training.skill.levels import Normalisation
from edgefetal_export.training.skill.levels_in_turn import (
    SkillRecipe,
    draw_levels,
    load_model,
    read_held_out,
    skill_recipe,
    train,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE_PX = (32, 48)
FRAMES, CLIP = 9, 4


class KilledError(Exception):
    """Stands for a kill."""


@dataclass(frozen=True)
class DiscExam:
    """A bright disc that crosses a noisy picture, and is there in the middle frames only; unsteady hands jerk it."""

    number: int
    skill: float | None
    frames: int = FRAMES
    structure: str = "head"
    shown: bool = True
    name: str = field(init=False)
    subject: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"exam-{self.number}")
        object.__setattr__(self, "subject", f"disc/{self.number}")

    def digest(self) -> str:
        return hashlib.sha256(f"{self.number}".encode()).hexdigest()

    def labels_digest(self) -> str:
        return self.digest()

    def sweeps(self) -> Iterator[LabelledSweep]:
        rng = np.random.default_rng(self.number)
        height, width = SIZE_PX
        y, x = np.mgrid[:height, :width]
        masks = np.zeros((self.frames, height, width), np.uint8)
        for k in range(1, self.frames - 1):
            jerk = rng.normal(size=2) * 6 * (self.number % 5) / 5
            masks[k] = (x - 24 - jerk[0]) ** 2 + (y - 16 - jerk[1]) ** 2 < 64
        masks *= self.shown
        pixels = np.clip(rng.normal(60, 20, masks.shape) + 100 * masks, 0, 255).astype(np.uint8)
        yield LabelledSweep("sweep_1", pixels, {self.structure: masks}, skill=self.skill)


def disc_exams(count: int = 24) -> list[DiscExam]:
    return [DiscExam(k, 1 - (k % 5) / 5) for k in range(count)]


def narrow(recipe: SkillRecipe) -> SkillRecipe:
    network = recipe.network.model_copy(update={"skill_features": (4, 4, 8, 8)})
    return recipe.model_copy(update={"network": network, "validation_share": 0.15})


def disc_recipe(**changes: Any) -> SkillRecipe:
    asked: dict[str, Any] = {
        "dataset": "disc",
        "structures": ("head",),
        "epochs": 3,
        "normalisation": Normalisation.RANK,
        "unrolled": False,
        "batch_size": 4,
        "seq_len": CLIP,
        "size_px": SIZE_PX,
        "features": 2,
        "learning_rate": 1e-2,
        "seed": 3,
    }
    return narrow(skill_recipe(**(asked | changes)))


@pytest.fixture(scope="module")
def disc_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    run = tmp_path_factory.mktemp("runs") / "discs"
    train(run, disc_recipe(), disc_exams(), resume=False, threads=1)
    return run


def checkpoint(run: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(run / "checkpoint.pt", weights_only=True)["model"])


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_run_leaves_what_it_promises(disc_run: Path) -> None:
    metrics = json.loads((disc_run / "metrics.json").read_text())
    assert [row["epoch"] for row in metrics["epochs"]] == [1, 2, 3]
    assert metrics["best"]["validation_cost"] == min(row["validation_cost"] for row in metrics["epochs"])
    assert metrics["epochs"][-1]["task_loss"] < metrics["epochs"][0]["task_loss"]
    held_out = metrics["held_out"]
    assert len(held_out["by_exam"]) == held_out["exams"] == metrics["subjects"]["held-out"] == 7
    assert held_out["clips"] == 14
    assert held_out["score_against_skill"]["of"] == held_out["exams_scored"]
    assert read_recipe(disc_run, SkillRecipe) == disc_recipe()
    assert (disc_run / "curves.png").read_bytes().startswith(b"\x89PNG")
    weights = load_file(disc_run / "model.safetensors")
    assert {name.partition(".")[0] for name in weights} == {"task", "skill"}
    assert not [file for file in disc_run.iterdir() if "partial" in file.name]


def test_nobody_is_in_two_places(disc_run: Path) -> None:
    split = read_split(disc_run)
    levels = json.loads((disc_run / "levels.json").read_text())
    task, skill = set(levels["task"]), set(levels["skill"])
    assert task | skill == {subject for subject, part in split.parts.items() if part is Part.TRAIN}
    assert not task & skill
    assert abs(len(task) - len(skill)) <= 1


@pytest.mark.parametrize("unrolled", [False, True])
def test_killed_run_ends_with_the_same_weights(tmp_path: Path, disc_run: Path, *, unrolled: bool) -> None:
    """Kill it within the second epoch and again after it; compare with the run that was never killed."""
    recipe = disc_recipe(unrolled=True, normalisation=Normalisation.MINMAX) if unrolled else disc_recipe()
    whole, run = disc_run, tmp_path / "killed"
    if unrolled:
        whole = tmp_path / "whole"
        train(whole, recipe, disc_exams(), resume=False, threads=1)

    def kill_in_second_epoch(epoch: int, _steps: int) -> None:
        if epoch == 2:
            raise KilledError

    def kill_after_second_epoch(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KilledError

    with pytest.raises(KilledError):
        train(run, recipe, disc_exams(), resume=False, threads=1, on_step=kill_in_second_epoch)
    with pytest.raises(KilledError):
        train(run, recipe, disc_exams(), resume=True, threads=1, on_epoch=kill_after_second_epoch)
    train(run, recipe, disc_exams(), resume=True, threads=1)
    assert same(checkpoint(whole), checkpoint(run))
    assert (whole / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_stored_skill_has_no_influence(tmp_path: Path, disc_run: Path) -> None:
    """Skills turned upside down, or none at all, give the same weights bit for bit."""
    for name, exams in (
        ("reversed", [replace(exam, skill=1 - (exam.skill or 0)) for exam in disc_exams()]),
        ("none", [replace(exam, skill=None) for exam in disc_exams()]),
    ):
        metrics = train(tmp_path / name, disc_recipe(), exams, resume=False, threads=1)
        assert same(checkpoint(disc_run), checkpoint(tmp_path / name))
    assert metrics["held_out"]["score_against_skill"] == {"of": 0, "spearman": None, "interval_95": None}


def test_skill_is_read_after_training_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_exams: object) -> dict[str, float]:
        raise KilledError

    monkeypatch.setattr(training, "stored_skills", refuse)
    rows: list[dict[str, Any]] = []
    with pytest.raises(KilledError):
        train(tmp_path / "run", disc_recipe(), disc_exams(), resume=False, threads=1, on_epoch=rows.append)
    assert len(rows) == 3


def test_finished_run_is_not_trained_again(disc_run: Path) -> None:
    before = (disc_run / "model.safetensors").read_bytes()
    rows: list[dict[str, Any]] = []
    train(disc_run, disc_recipe(), disc_exams(), resume=True, threads=1, on_epoch=rows.append)
    assert rows == []
    assert (disc_run / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("which", ["training", "validation"])
def test_loss_that_is_no_number_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    name = {"training": "skill_loss", "validation": "judge_clips"}[which]
    part = getattr(training, name)
    rows: list[dict[str, Any]] = []

    def broken(*arguments: Any) -> Any:
        value = part(*arguments)
        if not rows:
            return value
        return value * torch.nan if which == "training" else [replace(clip, score=np.nan) for clip in value]

    monkeypatch.setattr(training, name, broken)
    with pytest.raises(CheckFailedError, match=f"{which} loss of epoch 2 is not finite; lower --learning-rate"):
        train(tmp_path / "run", disc_recipe(), disc_exams(), resume=False, threads=1, on_epoch=rows.append)
    assert len(torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["rows"]) == len(rows) == 1


def test_existing_folder_and_other_settings_are_refused(disc_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any sweep is read."""
    monkeypatch.setattr(training, "load_sweeps", None)
    with pytest.raises(OutputError, match="--resume"):
        train(disc_run, disc_recipe(), disc_exams(), resume=False, threads=1)
    with pytest.raises(OutputError, match="other settings"):
        train(disc_run, disc_recipe(learning_rate=1e-3), disc_exams(), resume=True, threads=1)


def test_runs_are_shown_beside_each_other_only_on_the_same_exams(tmp_path: Path, disc_run: Path) -> None:
    assert read_held_out(disc_run, disc_recipe(), disc_exams())["held_out"]["exams"] == 7
    with pytest.raises(InputError, match="other exams"):
        read_held_out(disc_run, disc_recipe(seed=4), disc_exams())
    with pytest.raises(InputError, match=r"split\.json"):
        read_held_out(tmp_path, disc_recipe(), disc_exams())


def test_model_is_read_back(disc_run: Path) -> None:
    model, recipe = load_model(disc_run)
    assert not model.training
    assert recipe == disc_recipe()
    clip = torch.zeros(2, CLIP, *SIZE_PX)
    assert model.task(clip).shape == (2, 1, CLIP, *SIZE_PX)
    assert model.skill(clip).shape == (2,)


def test_onnx_answers_as_the_network(disc_run: Path) -> None:
    """One input, opset 18, the same scores; through the graph that the published width gives as well."""
    for model, recipe in (load_model(disc_run), (SkillModel(SkillConfig(structures=("head",))).eval(), None)):
        seq_len, size = (CLIP, SIZE_PX) if recipe else (10, (64, 80))
        content = onnx_from_skill(model.skill, seq_len, size)
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        (clip_input,) = session.get_inputs()
        assert clip_input.shape == [1, seq_len, *size]
        clips = np.random.default_rng(2).normal(size=(3, seq_len, *size)).astype(np.float32)
        for clip in clips:
            with torch.inference_mode():
                expected = model.skill(torch.from_numpy(clip[None])).numpy()
            (actual,) = session.run(None, {clip_input.name: clip[None]})
            np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_skill_network_is_a_resnet_18() -> None:
    network = SkillNetwork(SkillConfig(structures=("head",)))
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    # The published one: 17 convolutions and the last layer, and three projections of shortcuts.
    assert sum(m.kernel_size != (1, 1) for m in convolutions) == 17
    assert network.resnet.conv1.in_channels == 10


def test_gain_and_offset_of_a_frame_say_nothing() -> None:
    clip = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(each_frame_normalised(clip), each_frame_normalised(7 * clip - 2), atol=2e-2, rtol=0)
    assert torch.isfinite(each_frame_normalised(torch.zeros(1, 2, 16, 16))).all()


def test_tiles_end_with_the_sweep_and_do_not_overlap() -> None:
    recipe = disc_recipe()
    sweeps = load_sweeps(disc_exams(2), recipe.network, recipe.preprocess)
    assert tiles(sweeps, CLIP) == [Cut(0, 1), Cut(0, 5), Cut(1, 1), Cut(1, 5)]
    drawn = drawn_cuts(sweeps, CLIP, np.random.default_rng(0))
    assert sorted(cut.sweep for cut in drawn) == [0, 0, 1, 1]
    assert all(0 <= cut.start <= FRAMES - CLIP for cut in drawn)


def test_mask_is_varied_with_its_picture() -> None:
    recipe = disc_recipe()
    sweeps = load_sweeps(disc_exams(3)[2:], recipe.network, recipe.preprocess)
    plain = clip_batch(sweeps, [Cut(0, 2)], CLIP, recipe.preprocess)
    varied = clip_batch(sweeps, [Cut(0, 2, mirrored=True, backwards=True)], CLIP, recipe.preprocess)
    torch.testing.assert_close(varied.frames, plain.frames.flip(1, 3))
    torch.testing.assert_close(varied.masks, plain.masks.flip(2, 4))
    assert plain.masks.any()


def test_skills_are_read_by_exam() -> None:
    assert stored_skills([DiscExam(0, 0.25), DiscExam(1, None)]) == {"exam-0": 0.25}


def test_short_sweep_is_named(tmp_path: Path) -> None:
    exams = [*disc_exams(20), DiscExam(20, 0.5, frames=3)]
    with pytest.raises(DatasetError, match=r"exam-20, sweep_1 has 3 frames and a clip has 4"):
        load_sweeps(exams, disc_recipe().network, disc_recipe().preprocess)
    with pytest.raises(DatasetError, match="--batch-size"):
        train(tmp_path / "run", disc_recipe(batch_size=32), disc_exams(), resume=False, threads=1)
    assert not (tmp_path / "run").exists()


def test_other_structure_and_no_masks_are_named() -> None:
    recipe = disc_recipe()
    with pytest.raises(DatasetError, match="exam-0, sweep_1 has no mask of the head"):
        load_sweeps([DiscExam(0, 0.5, structure="femur")], recipe.network, recipe.preprocess)
    assert labelled_structures([DiscExam(0, 0.5, structure="femur")]) == ("femur",)
    with pytest.raises(DatasetError, match="no masks"):
        labelled_structures([])


def test_sweeps_without_the_structure_are_trained_on_and_not_scored(tmp_path: Path) -> None:
    """A third of the exams never shows the disc."""
    exams = [replace(exam, shown=exam.number % 3 > 0) for exam in disc_exams()]
    metrics = train(tmp_path / "run", disc_recipe(), exams, resume=False, threads=1)
    empty = {exam.name for exam in exams if not exam.shown}
    for of in metrics["held_out"]["by_exam"]:
        assert (of["dice"] is None) == (of["exam"] in empty)
        if of["exam"] in empty:
            assert of["best_above_mean"] is None


def test_nothing_to_see_anywhere_is_refused(tmp_path: Path) -> None:
    exams = [replace(exam, shown=False) for exam in disc_exams()]
    with pytest.raises(DatasetError, match="No validation clip shows a structure"):
        train(tmp_path / "run", disc_recipe(), exams, resume=False, threads=1)


def test_levels_need_two_subjects(disc_run: Path) -> None:
    split = read_split(disc_run)
    first = min(split.parts)
    parts = {first: Part.TRAIN, **{s: Part.HELD_OUT for s in split.parts if s != first}}
    with pytest.raises(DatasetError, match="two levels"):
        draw_levels(split.model_copy(update={"parts": parts}))


def test_impossible_recipes_are_refused() -> None:
    with pytest.raises(InputError, match="multiples of 16"):
        disc_recipe(size_px=(60, 80))
    with pytest.raises(InputError, match="--normalisation minmax"):
        disc_recipe(unrolled=True)
