from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from edgefetal.cli import app
from edgefetal_calibration.datasets.split import Part
from edgefetal_devices.errors import DatasetError, InputError
from edgefetal_export.training.biometry import loop
from edgefetal_export.training.biometry.frames import load_frames
from edgefetal_export.training.biometry.loop import draw_split, train
from edgefetal_export.training.student.answers import ask
from edgefetal_export.training.student.recipe import TeacherRecord, parse_input
from edgefetal_export.training.student.samples import StudentSamples
from edgefetal_export.training.student.task import StudentInTraining, StudentTask
from edgefetal_export.training.student.teachers import SweepAnswer, Teacher, load_teacher, refuse_leaks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_calibration.datasets.labelled import LabelledSweep
    from edgefetal_export.training.student.recipe import StudentRecipe


class KilledError(Exception):
    """Stands for a kill."""


def looking(sweep: LabelledSweep) -> SweepAnswer:
    """Answer with the picture itself as mask, at half its size."""
    masks = np.stack([cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for frame in sweep.pixels])
    return SweepAnswer(masks=masks[:, None], to_frame=np.array([[2.0, 0, 0.5], [0, 2.0, 0.5]]))


def test_a_teachers_mask_moves_with_the_frame(
    tmp_path: Path, tiny_cases: list[HeadCase], student_of: Callable[..., StudentRecipe]
) -> None:
    teacher = Teacher(TeacherRecord(recipe="looking", sha256="c" * 64, structures=("head",)), looking)
    recipe = student_of(teacher.record).model_copy(update={"no_head_share": 0.0})
    cases = tiny_cases[:12]
    samples = StudentSamples(load_frames(cases, lambda: None), recipe, ask([teacher], cases, tmp_path), 3)
    agreeing = []
    for index in range(len(samples)):
        sample = samples[index]
        picture, mask = sample["image"][0].numpy(), sample["taught_masks"][0].numpy()
        seen = mask > 0.02
        agreeing.append(np.corrcoef(picture[seen], mask[seen])[0, 1])
    # Gain, grain and shadows differ; a mask left in its place would agree with nothing.
    assert np.median(agreeing) > 0.75
    assert min(agreeing) > 0.4


def test_pictures_without_their_head_are_not_taught(
    tmp_path: Path, tiny_teacher: Teacher, tiny_cases: list[HeadCase], student_of: Callable[..., StudentRecipe]
) -> None:
    recipe = student_of(tiny_teacher.record).model_copy(update={"no_head_share": 1.0})
    cases = tiny_cases[:4]
    samples = StudentSamples(load_frames(cases, lambda: None), recipe, ask([tiny_teacher], cases, tmp_path), 1)
    taught = [float(samples[index]["taught"]) for index in range(len(samples))]
    assert taught == [1.0] * 4 + [0.0] * 4
    assert float(samples[7]["taught_structures"].sum()) == 0
    assert {name: part.shape for name, part in samples[0].items()} == {
        name: part.shape for name, part in samples[7].items()
    }


def test_a_student_begins_alike_whoever_teaches_it(
    tiny_teacher: Teacher, student_of: Callable[..., StudentRecipe]
) -> None:
    alone, taught = (StudentInTraining(recipe) for recipe in (student_of(), student_of(tiny_teacher.record)))
    assert len(taught.state_dict()) > len(alone.state_dict())
    assert all(torch.equal(part, taught.state_dict()[name]) for name, part in alone.state_dict().items())


def test_a_killed_student_ends_with_the_same_weights(
    tmp_path: Path, tiny_teacher: Teacher, tiny_cases: list[HeadCase], student_of: Callable[..., StudentRecipe]
) -> None:
    recipe = student_of(tiny_teacher.record)
    task = StudentTask(recipe, ask([tiny_teacher], tiny_cases, tmp_path / "cache"))
    whole = train(tmp_path / "whole", task, tiny_cases, resume=False)

    def kill(_row: dict[str, Any]) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        train(tmp_path / "killed", task, tiny_cases, resume=False, on_epoch=kill)
    train(tmp_path / "killed", task, tiny_cases, resume=True)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not [name for name in first if "into_teacher" in name]
    assert {"segmentation_loss", "taught_mask_loss", "taught_plane_loss", "taught_feature_loss"} <= set(
        whole["epochs"][0]
    )
    assert whole["parameters"] == sum(
        part.numel() for name, part in first.items() if not name.endswith(("running_mean", "running_var", "tracked"))
    )
    student = load_teacher(tmp_path / "whole")
    assert student.record.structures == ("head",)


def test_nobody_who_is_judged_is_used_without_a_label(
    tmp_path: Path,
    tiny_cases: list[HeadCase],
    student_of: Callable[..., StudentRecipe],
    tiny_teacher: Teacher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = student_of(tiny_teacher.record).model_copy(update={"epochs": 1})
    split = draw_split(tiny_cases, recipe)
    unlabelled: list[str] = []
    original = loop.load_frames

    def spy(exams: list[HeadCase], advance: Callable[[], None], *, labelled: bool = True) -> Any:
        unlabelled.extend(exam.name for exam in exams if not labelled)
        return original(exams, advance, labelled=labelled)

    monkeypatch.setattr(loop, "load_frames", spy)
    task = StudentTask(recipe, ask([tiny_teacher], tiny_cases, tmp_path / "cache"))
    metrics = train(tmp_path / "run", task, tiny_cases, tiny_cases, resume=False)
    assert sorted(unlabelled) == sorted(case.name for case in split.select(tiny_cases, Part.TRAIN))
    assert metrics["epochs"][0]["segmentation_loss"] > 0


def test_a_teacher_that_knows_the_judged_is_refused(
    tiny_teacher: Teacher, tiny_cases: list[HeadCase], student_of: Callable[..., StudentRecipe]
) -> None:
    recipe = student_of(tiny_teacher.record)
    refuse_leaks([tiny_teacher], draw_split(tiny_cases, recipe), tiny_cases)
    other = draw_split(tiny_cases, recipe.model_copy(update={"split_seed": 77}))
    with pytest.raises(DatasetError, match="--split-seed 5"):
        refuse_leaks([tiny_teacher], other, tiny_cases)


def test_what_is_no_teacher_is_refused(tmp_path: Path, tiny_run: Path) -> None:
    with pytest.raises(InputError, match="no finished run that can teach"):
        load_teacher(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_run, broken)
    (broken / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="--resume"):
        load_teacher(broken)


@pytest.mark.parametrize("text", ["288", "288x", "x192", "288x190", "0x16", "-16x16", "16x16x16", "٢٨٨x192"])
def test_odd_input_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_input(text)


def test_command_trains_with_and_without_a_teacher(tmp_path: Path, tiny_hc18: Path, tiny_run: Path) -> None:
    common = [
        "distil", "--data", f"hc18:{tiny_hc18}", "--student", "nano", "--input", "96x64", "--epochs", "1",
        "--batch-size", "8", "--seed", "5", "--threads", "1",
    ]  # fmt: skip
    alone, taught, result = tmp_path / "alone", tmp_path / "taught", tmp_path / "taught.json"
    ran = CliRunner().invoke(app, [*common, "--out", str(alone)])
    assert ran.exit_code == 0, ran.output
    arguments = ["--teachers", str(tiny_run), "--unlabelled", f"hc18:{tiny_hc18}", "--json", str(result)]
    ran = CliRunner().invoke(app, [*common, *arguments, "--out", str(taught)])
    assert ran.exit_code == 0, ran.output
    assert "ask the teachers" in ran.output
    metrics = json.loads(result.read_text())
    assert metrics["epochs"][0]["taught_mask_loss"] > 0
    assert "taught_mask_loss" not in json.loads((alone / "metrics.json").read_text())["epochs"][0]
    refused = CliRunner().invoke(app, [*common, "--teachers", str(tmp_path), "--out", str(tmp_path / "x")])
    assert refused.exit_code == 2
    assert "can teach" in refused.output
