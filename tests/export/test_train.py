from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from edgefetal_devices.errors import DatasetError, InputError, OutputError
from edgefetal_export.training.multitask import ValidationScore, count_work, default_batch_size, train
from edgefetal_export.training.run import read_recipe, read_split

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_export.training.run import Recipe


class KilledError(Exception):
    """Stands for a kill."""


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    return {f"{part}.{name}": t for part in ("network", "average") for name, t in state[part].items()}


def test_run_leaves_what_it_promises(tiny_run: Path, tiny_recipe: Recipe) -> None:
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert [row["epoch"] for row in metrics["epochs"]] == [1, 2, 3]
    assert metrics["best"]["validation_cost_mm"] == min(row["validation_cost_mm"] for row in metrics["epochs"])
    assert metrics["epochs"][-1]["segmentation_loss"] < metrics["epochs"][0]["segmentation_loss"]
    assert sum(metrics["subjects"].values()) == 28
    assert read_recipe(tiny_run) == tiny_recipe
    assert (tiny_run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(load_file(tiny_run / "model.safetensors")) > 50
    assert not list(tiny_run.glob(".*.partial"))


def test_killed_run_ends_with_the_same_weights(
    tmp_path: Path, tiny_run: Path, tiny_cases: list[HeadCase], tiny_recipe: Recipe
) -> None:
    """Kill it within the second epoch and again after the second; compare with the run that was never killed."""
    run = tmp_path / "run"

    def kill_in_second_epoch(epoch: int) -> None:
        if epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        train(run, tiny_recipe, tiny_cases, resume=False, on_step=kill_in_second_epoch)
    assert count_work(run, tiny_cases, tiny_recipe).epochs_done == 1

    def kill_after_second_epoch(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KilledError

    with pytest.raises(KilledError):
        train(run, tiny_recipe, tiny_cases, resume=True, on_epoch=kill_after_second_epoch)
    train(run, tiny_recipe, tiny_cases, resume=True)
    expected, actual = final_weights(tiny_run), final_weights(run)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_finished_run_is_not_trained_again(
    tmp_path: Path, tiny_run: Path, tiny_cases: list[HeadCase], tiny_recipe: Recipe
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    steps: list[int] = []
    metrics = train(run, tiny_recipe, tiny_cases, resume=True, on_step=steps.append)
    assert steps == []
    assert metrics["best"]["epoch"] in (1, 2, 3)


def test_existing_folder_needs_resume(tiny_run: Path, tiny_cases: list[HeadCase], tiny_recipe: Recipe) -> None:
    with pytest.raises(OutputError, match="--resume"):
        train(tiny_run, tiny_recipe, tiny_cases, resume=False)


def test_other_settings_are_refused(tiny_run: Path, tiny_cases: list[HeadCase], tiny_recipe: Recipe) -> None:
    other = tiny_recipe.model_copy(update={"learning_rate": 1e-4})
    with pytest.raises(OutputError, match="other settings"):
        train(tiny_run, other, tiny_cases, resume=True)


def test_other_data_are_refused(tiny_run: Path, tiny_cases: list[HeadCase], tiny_recipe: Recipe) -> None:
    with pytest.raises(OutputError, match="other data"):
        train(tiny_run, tiny_recipe, tiny_cases[:-3], resume=True)


def test_too_few_pictures_for_a_batch(tmp_path: Path, tiny_cases: list[HeadCase], tiny_recipe: Recipe) -> None:
    large = tiny_recipe.model_copy(update={"batch_size": 64})
    with pytest.raises(DatasetError, match="--batch-size"):
        train(tmp_path / "run", large, tiny_cases, resume=False)
    assert not (tmp_path / "run").exists()


def test_foreign_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a training run"):
        read_recipe(tmp_path)


def test_split_is_by_subject(tiny_run: Path, tiny_cases: list[HeadCase]) -> None:
    split = read_split(tiny_run)
    twice = [case.subject for case in tiny_cases if case.name.endswith("_2HC.png")]
    assert len(twice) == 4
    assert set(split.parts) == {case.subject for case in tiny_cases}


def test_abstentions_cost() -> None:
    assert ValidationScore(2.0, n=10, n_measured=10, plane_accuracy=1.0).cost_mm() == pytest.approx(2.0)
    assert ValidationScore(2.0, n=10, n_measured=5, plane_accuracy=1.0).cost_mm() == pytest.approx(6.0)
    assert ValidationScore(10.0, n=10, n_measured=0, plane_accuracy=1.0).cost_mm() == pytest.approx(10.0)


@pytest.mark.parametrize(("pictures", "expected"), [(834, 16), (32, 16), (12, 6), (1, 1)])
def test_default_batch_leaves_an_epoch_with_steps(pictures: int, expected: int) -> None:
    assert default_batch_size(pictures) == expected
