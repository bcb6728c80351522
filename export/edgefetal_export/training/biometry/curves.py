"""The picture of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefetal_export.training.figure import new_figure, png_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def draw_curves(rows: Sequence[dict[str, Any]], best: dict[str, Any]) -> bytes:
    """Draw losses and the validation errors of the lengths over epochs.

    Args:
        rows: one an epoch.
        best: the row of the checkpoint that is kept.

    Returns:
        A PNG picture.
    """
    epochs = [row["epoch"] for row in rows]
    figure, (loss, error) = new_figure(10, panels=2)
    ending = "_loss"
    for name in [name for name in rows[0] if name.endswith(ending)]:
        loss.plot(epochs, [row[name] for row in rows], label=name.removesuffix(ending).replace("_", " "))
    loss.set(xlabel="epoch", ylabel="training loss", yscale="log")
    for name in rows[0]["validation"]:
        measured = [row for row in rows if row["validation"][name]["mae_mm"] is not None]
        error.plot(
            [row["epoch"] for row in measured],
            [row["validation"][name]["mae_mm"] for row in measured],
            label=f"{name} error of the measured",
        )
    error.plot(epochs, [row["validation_cost_mm"] for row in rows], ":", label="with abstentions at 10 mm")
    error.plot(best["epoch"], best["validation_cost_mm"], "o", label=f"kept: epoch {best['epoch']}")
    error.set(xlabel="epoch", ylabel="validation mean absolute error (mm)", yscale="log")
    return png_of(figure)
