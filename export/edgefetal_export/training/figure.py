"""The picture of a training run: what the curves of every family of networks share."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width_in: float, panels: int) -> tuple[Figure, list[Axes]]:
    """Return an empty figure, four inches high, and its panels side by side."""
    # matplotlib takes a second to import and only these pictures need it.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width_in, 4), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def png_of(figure: Figure) -> bytes:
    """Draw a figure as a PNG picture, with a grid and a legend in every panel."""
    for axes in figure.axes:
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
