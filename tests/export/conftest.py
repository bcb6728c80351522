"""A network and a run small enough to train in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefetal_calibration.datasets.hc18 import HeadCase, read_hc18
from edgefetal_export.training.biometry.loop import train
from edgefetal_export.training.biometry.multitask import MultitaskTask, multitask_recipe
from edgefetal_runtime.infer.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_export.training.biometry.multitask import MultitaskRecipe


@pytest.fixture(scope="session")
def tiny_cases(tiny_hc18: Path) -> list[HeadCase]:
    return read_hc18(tiny_hc18)


@pytest.fixture(scope="session")
def tiny_recipe() -> MultitaskRecipe:
    """Three epochs of a narrow network on pictures of 96 x 64."""
    recipe = multitask_recipe(
        dataset="hc18",
        structures=("head",),
        epochs=3,
        batch_size=8,
        learning_rate=3e-3,
        classification_weight=0.1,
        precision="fp32",
        seed=5,
    )
    return recipe.model_copy(
        update={
            "network": recipe.network.model_copy(update={"features": (8, 8, 16, 16, 24, 8)}),
            "preprocess": PreprocessSpec(height_px=64, width_px=96, mean=0.15, std=0.2),
            "average_decay": 0.5,
        }
    )


@pytest.fixture(scope="session")
def tiny_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_cases: list[HeadCase], tiny_recipe: MultitaskRecipe
) -> Path:
    """A finished run."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    train(run, MultitaskTask(tiny_recipe), tiny_cases, resume=False)
    return run
