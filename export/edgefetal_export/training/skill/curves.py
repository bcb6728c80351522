"""The picture of a run of skill assessment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefetal_export.training.figure import new_figure, png_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def draw_skill_curves(rows: Sequence[dict[str, Any]], best: dict[str, Any]) -> bytes:
    """Draw the losses of both levels, and the validation figures, over epochs.

    Args:
        rows: one an epoch.
        best: the row of the checkpoint that is kept.

    Returns:
        A PNG picture.
    """
    epochs = [row["epoch"] for row in rows]
    figure, (loss, validation) = new_figure(10, panels=2)
    loss.plot(epochs, [row["task_loss"] for row in rows], label="task (weighted soft Dice)")
    loss.plot(epochs, [row["skill_loss"] for row in rows], label="skill (squared error)")
    loss.set(xlabel="epoch", ylabel="training loss", yscale="log")
    validation.plot(epochs, [row["validation_dice"] for row in rows], label="Dice of the task network")
    validation.plot(epochs, [row["validation_mse"] ** 0.5 for row in rows], label="error of the score (RMS)")
    validation.plot(epochs, [row["validation_cost"] for row in rows], ":", label="cost")
    validation.plot(best["epoch"], best["validation_cost"], "o", label=f"kept: epoch {best['epoch']}")
    validation.set(xlabel="epoch", ylabel="validation")
    return png_of(figure)
