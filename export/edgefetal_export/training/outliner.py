"""Networks that outline and name planes, whichever recipe trained them: the U-Net and the student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgefetal_devices.errors import InputError
from edgefetal_export.students.student import Student
from edgefetal_export.teachers.multitask_unet import MultitaskUnet
from edgefetal_export.training.biometry import multitask
from edgefetal_export.training.biometry.multitask import MultitaskRecipe
from edgefetal_export.training.run import RECIPE, load_finished_weights, read_recipe, recipe_name
from edgefetal_export.training.student import recipe as student
from edgefetal_export.training.student.recipe import StudentRecipe

if TYPE_CHECKING:
    from pathlib import Path

# By the recipe's name: `train multitask-unet` and `distil`.
OUTLINERS: Final[dict[str, type[MultitaskRecipe | StudentRecipe]]] = {
    multitask.NAME: MultitaskRecipe,
    student.NAME: StudentRecipe,
}


@dataclass(frozen=True, eq=False)
class Outliner:
    """A trained network.

    Args:
        recipe: how it was trained.
        network: in evaluation mode.
    """

    recipe: MultitaskRecipe | StudentRecipe
    network: MultitaskUnet | Student

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs in order."""
        return self.recipe.network.output_names


def load_outliner(run: Path) -> Outliner:
    """Load a finished run of `train multitask-unet` or of `distil`.

    Raises:
        InputError: it is none, is not finished, or a file of it is missing or damaged.
    """
    recipe = read_recipe(run, OUTLINERS.get(recipe_name(run) or "", StudentRecipe))
    network = MultitaskUnet(recipe.network) if isinstance(recipe, MultitaskRecipe) else Student(recipe.network)
    try:
        network.load_state_dict(load_finished_weights(run, recipe))
    except RuntimeError as error:
        message = f"{run} holds weights of another network than its {RECIPE} says; train it anew."
        raise InputError(message) from error
    return Outliner(recipe, network.eval())
