"""The picture of a run of the quality networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefetal_export.training.figure import new_figure, png_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def draw_loss_curves(rows: Sequence[dict[str, Any]], best: dict[str, Any]) -> bytes:
    """Draw the losses over the epochs.

    Args:
        rows: one an epoch, with `epoch`, `loss` and `validation_loss`.
        best: the row of the checkpoint that is kept.

    Returns:
        A PNG picture.
    """
    epochs = [row["epoch"] for row in rows]
    figure, (axes,) = new_figure(6, panels=1)
    axes.plot(epochs, [row["loss"] for row in rows], "o-", label="training")
    axes.plot(epochs, [row["validation_loss"] for row in rows], "o-", label="validation")
    axes.plot(best["epoch"], best["validation_loss"], "*", markersize=14, label=f"kept: epoch {best['epoch']}")
    axes.set(xlabel="epoch", ylabel="loss")
    return png_of(figure)
