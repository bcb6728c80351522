"""A student small enough to train in seconds, and the tiny run as its teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefetal_export.students.student import Size
from edgefetal_export.training.student.recipe import LossWeights, StudentRecipe, student_recipe
from edgefetal_export.training.student.teachers import Teacher, load_teacher
from edgefetal_runtime.infer.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefetal_export.training.student.recipe import TeacherRecord


@pytest.fixture(scope="session")
def tiny_teacher(tiny_run: Path) -> Teacher:
    return load_teacher(tiny_run)


@pytest.fixture(scope="session")
def student_of() -> Callable[..., StudentRecipe]:
    """Return what makes the recipe of two epochs of a narrow student for given teachers."""

    def recipe(*teachers: TeacherRecord, graded: bool = False) -> StudentRecipe:
        made = student_recipe(
            dataset="hc18",
            unlabelled="",
            structures=("head",),
            size=Size.NANO,
            teachers=teachers,
            graded=graded,
            input_px=(96, 64),
            epochs=2,
            batch_size=8,
            learning_rate=3e-3,
            loss=LossWeights(),
            precision="fp32",
            seed=5,
            split_seed=None,
        )
        return made.model_copy(
            update={
                "network": made.network.model_copy(update={"width": 4}),
                "preprocess": PreprocessSpec(height_px=64, width_px=96, mean=0.15, std=0.2),
                "average_decay": 0.5,
            }
        )

    return recipe
