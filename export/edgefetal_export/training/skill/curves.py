"""The picture of a run of skill assessment."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

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
    # matplotlib takes a second to import and only this picture needs it.
    from matplotlib.figure import Figure  # noqa: PLC0415

    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, validation = figure.subplots(1, 2)
    loss.plot(epochs, [row["task_loss"] for row in rows], label="task (weighted soft Dice)")
    loss.plot(epochs, [row["skill_loss"] for row in rows], label="skill (squared error)")
    loss.set(xlabel="epoch", ylabel="training loss", yscale="log")
    validation.plot(epochs, [row["validation_dice"] for row in rows], label="Dice of the task network")
    validation.plot(epochs, [row["validation_mse"] ** 0.5 for row in rows], label="error of the score (RMS)")
    validation.plot(epochs, [row["validation_cost"] for row in rows], ":", label="cost")
    validation.plot(best["epoch"], best["validation_cost"], "o", label=f"kept: epoch {best['epoch']}")
    validation.set(xlabel="epoch", ylabel="validation")
    for axes in (loss, validation):
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
