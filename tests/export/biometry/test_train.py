from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from edgefetal_calibration.datasets.split import Part
from edgefetal_devices.errors import DatasetError, InputError, OutputError
from edgefetal_export.training.biometry import loop
from edgefetal_export.training.biometry.loop import (
    LengthScore,
    ValidationScore,
    epochs_done,
    segmentation_loss,
    train,
)
from edgefetal_export.training.biometry.multitask import MultitaskRecipe, MultitaskTask, default_batch_size
from edgefetal_export.training.run import load_finished_weights, read_recipe, read_split

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_export.training.biometry.frames import TrainingFrame


class KilledError(Exception):
    """Stands for a kill."""


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    return {f"{part}.{name}": t for part in ("network", "average") for name, t in state[part].items()}


def test_run_leaves_what_it_promises(tiny_run: Path, tiny_recipe: MultitaskRecipe) -> None:
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert [row["epoch"] for row in metrics["epochs"]] == [1, 2, 3]
    assert metrics["best"]["validation_cost_mm"] == min(row["validation_cost_mm"] for row in metrics["epochs"])
    assert metrics["epochs"][-1]["segmentation_loss"] < metrics["epochs"][0]["segmentation_loss"]
    assert sum(metrics["subjects"].values()) == 28
    assert read_recipe(tiny_run, MultitaskRecipe) == tiny_recipe
    assert (tiny_run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(load_file(tiny_run / "model.safetensors")) > 50
    assert not [file for file in tiny_run.iterdir() if "partial" in file.name]


def test_killed_run_ends_with_the_same_weights(
    tmp_path: Path, tiny_run: Path, tiny_cases: list[HeadCase], tiny_recipe: MultitaskRecipe
) -> None:
    """Kill it within the second epoch and again after the second; compare with the run that was never killed."""
    run = tmp_path / "run"

    def kill_in_second_epoch(epoch: int) -> None:
        if epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        train(run, MultitaskTask(tiny_recipe), tiny_cases, resume=False, on_step=kill_in_second_epoch)
    assert epochs_done(run) == 1

    def kill_after_second_epoch(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KilledError

    with pytest.raises(KilledError):
        train(run, MultitaskTask(tiny_recipe), tiny_cases, resume=True, on_epoch=kill_after_second_epoch)
    train(run, MultitaskTask(tiny_recipe), tiny_cases, resume=True)
    expected, actual = final_weights(tiny_run), final_weights(run)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_finished_run_is_not_trained_again(
    tmp_path: Path, tiny_run: Path, tiny_cases: list[HeadCase], tiny_recipe: MultitaskRecipe
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    steps: list[int] = []
    metrics = train(run, MultitaskTask(tiny_recipe), tiny_cases, resume=True, on_step=steps.append)
    assert steps == []
    assert metrics["best"]["epoch"] in (1, 2, 3)


def test_existing_folder_needs_resume(tiny_run: Path, tiny_cases: list[HeadCase], tiny_recipe: MultitaskRecipe) -> None:
    with pytest.raises(OutputError, match="--resume"):
        train(tiny_run, MultitaskTask(tiny_recipe), tiny_cases, resume=False)


def test_other_settings_are_refused(tiny_run: Path, tiny_cases: list[HeadCase], tiny_recipe: MultitaskRecipe) -> None:
    other = tiny_recipe.model_copy(update={"learning_rate": 1e-4})
    with pytest.raises(OutputError, match="other settings"):
        train(tiny_run, MultitaskTask(other), tiny_cases, resume=True)


def test_other_data_are_refused(tiny_run: Path, tiny_cases: list[HeadCase], tiny_recipe: MultitaskRecipe) -> None:
    with pytest.raises(OutputError, match="other data"):
        train(tiny_run, MultitaskTask(tiny_recipe), tiny_cases[:-3], resume=True)


def test_too_few_pictures_for_a_batch(tmp_path: Path, tiny_cases: list[HeadCase], tiny_recipe: MultitaskRecipe) -> None:
    large = tiny_recipe.model_copy(update={"batch_size": 64})
    with pytest.raises(DatasetError, match="--batch-size"):
        train(tmp_path / "run", MultitaskTask(large), tiny_cases, resume=False)
    assert not (tmp_path / "run").exists()


def test_foreign_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a training run"):
        read_recipe(tmp_path, MultitaskRecipe)


def test_only_training_and_validation_pictures_are_read(
    tmp_path: Path, tiny_cases: list[HeadCase], tiny_recipe: MultitaskRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[LabelledExam] = []
    original = loop.load_frames

    def spy(
        exams: list[LabelledExam], advance: Callable[[], None], *, labelled: bool = True
    ) -> list[list[TrainingFrame]]:
        read.extend(exams)
        return original(exams, advance, labelled=labelled)

    monkeypatch.setattr(loop, "load_frames", spy)
    train(tmp_path / "run", MultitaskTask(tiny_recipe.model_copy(update={"epochs": 1})), tiny_cases, resume=False)
    parts = read_split(tmp_path / "run").parts
    assert {parts[case.subject] for case in read} == {Part.TRAIN, Part.VALIDATION}
    held_out = {subject for subject, part in parts.items() if part is Part.HELD_OUT}
    assert held_out
    assert not held_out & {case.subject for case in read}


@pytest.mark.parametrize("epochs", [1, 2, 10, 20, 21])
def test_any_number_of_steps_has_a_schedule(
    tmp_path: Path, tiny_cases: list[HeadCase], tiny_recipe: MultitaskRecipe, epochs: int
) -> None:
    """One step an epoch, killed after the first: ten steps with a tenth of warm-up would divide by zero."""
    recipe = tiny_recipe.model_copy(update={"epochs": epochs, "batch_size": 25})

    def kill(_: int) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        train(tmp_path / "run", MultitaskTask(recipe), tiny_cases, resume=False, on_step=kill)


def test_files_are_written_again_from_the_checkpoint(
    tmp_path: Path, tiny_run: Path, tiny_cases: list[HeadCase], tiny_recipe: MultitaskRecipe
) -> None:
    """A kill between the checkpoint and the files must not leave weights of another epoch."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    expected = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(b"torn")
    (run / "metrics.json").unlink()
    with pytest.raises(InputError, match="--resume"):
        load_finished_weights(run, tiny_recipe)
    train(run, MultitaskTask(tiny_recipe), tiny_cases, resume=True)
    assert (run / "model.safetensors").read_bytes() == expected
    assert load_finished_weights(run, tiny_recipe)


def test_unfinished_run_is_not_built(tmp_path: Path, tiny_cases: list[HeadCase], tiny_recipe: MultitaskRecipe) -> None:
    def kill(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KilledError

    with pytest.raises(KilledError):
        train(tmp_path / "run", MultitaskTask(tiny_recipe), tiny_cases, resume=False, on_epoch=kill)
    with pytest.raises(InputError, match="2 of 3 epochs"):
        load_finished_weights(tmp_path / "run", tiny_recipe)


def test_torn_checkpoint_is_named(
    tmp_path: Path, tiny_run: Path, tiny_cases: list[HeadCase], tiny_recipe: MultitaskRecipe
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    content = (run / "checkpoint.pt").read_bytes()
    (run / "checkpoint.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged"):
        train(run, MultitaskTask(tiny_recipe), tiny_cases, resume=True)


def test_empty_channels_do_not_drown_the_shown_one() -> None:
    """The gradient on the structure that is shown must not shrink with the number of channels beside it."""
    mask = torch.zeros(1, 3, 16, 16)
    mask[0, 0, 4:12, 4:12] = 1
    gradients = []
    for channels in (1, 3):
        logits = torch.zeros(1, channels, 16, 16, requires_grad=True)
        dice = segmentation_loss(logits, mask[:, :channels]) - torch.nn.functional.binary_cross_entropy_with_logits(
            logits, mask[:, :channels]
        )
        (gradient,) = torch.autograd.grad(dice, logits)
        gradients.append(gradient[0, 0])
        assert not gradient[0, 1:].any()
    assert torch.allclose(gradients[0], gradients[1], atol=1e-8)
    assert gradients[0].abs().max() > 0


def test_what_is_drawn_where_nothing_is_costs() -> None:
    empty = torch.zeros(2, 3, 16, 16)
    assert segmentation_loss(torch.full_like(empty, 4.0), empty) > 10 * segmentation_loss(empty - 4.0, empty)


def test_abstentions_cost() -> None:
    assert LengthScore(2.0, n=10, n_measured=10).cost_mm() == pytest.approx(2.0)
    assert LengthScore(2.0, n=10, n_measured=5).cost_mm() == pytest.approx(6.0)
    assert LengthScore(None, n=10, n_measured=0).cost_mm() == pytest.approx(10.0)


def test_every_length_counts_alike() -> None:
    lengths = {"HC": LengthScore(2.0, n=100, n_measured=100), "FL": LengthScore(4.0, n=10, n_measured=10)}
    assert ValidationScore(lengths, plane_accuracy=1.0).cost_mm() == pytest.approx(3.0)


@pytest.mark.parametrize(("pictures", "expected"), [(834, 16), (32, 16), (12, 6), (1, 1)])
def test_default_batch_leaves_an_epoch_with_steps(pictures: int, expected: int) -> None:
    assert default_batch_size(pictures) == expected
