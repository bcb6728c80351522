"""The picture of a run of the quality networks."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

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
    # matplotlib takes a second to import and only this picture needs it.
    from matplotlib.figure import Figure  # noqa: PLC0415

    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(epochs, [row["loss"] for row in rows], "o-", label="training")
    axes.plot(epochs, [row["validation_loss"] for row in rows], "o-", label="validation")
    axes.plot(best["epoch"], best["validation_loss"], "*", markersize=14, label=f"kept: epoch {best['epoch']}")
    axes.set(xlabel="epoch", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
