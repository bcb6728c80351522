"""Our frames and our network in a loop, and scikit-image's ready-made geometry behind them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
from skimage import measure

from edgefetal_export.peers.fitting import circumference, largest, mm_per_px
from edgefetal_export.peers.in_place import how_it_ran, load_shipped
from edgefetal_runtime.infer.bundle import HEAD

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgefetal_export.peers.peer import Job, Recording
    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.infer.network import Network
    from edgefetal_runtime.infer.preprocess import Letterbox


@dataclass(frozen=True, eq=False)
class ScikitImage:
    """A network, and scikit-image behind it.

    Args:
        network: the network.
        settings: versions.
    """

    network: Network
    settings: str

    def examine(self, recording: Recording) -> float | None:
        """Take the frame with the largest outline; return HC in mm, or None."""
        found = (self._found(frame) for frame in recording.open().frames())
        return largest(fitted for fitted in found if fitted is not None)

    def measure(self, frame: Frame) -> float | None:
        """Measure one picture; return HC in mm, or None."""
        fitted = self._found(frame)
        return None if fitted is None else fitted[1]

    def _found(self, frame: Frame) -> tuple[float, float] | None:
        image, box = self.network.prepare(frame.pixels)
        logits = self.network.infer(image).mask_logits[self.network.manifest.heads.mask.index(HEAD)]
        return fit_region(logits, box, mm_per_px(frame))


def fit_region(logits: npt.NDArray[np.float32], box: Letterbox, mm_per_px: float) -> tuple[float, float] | None:
    """Measure the largest region: its contour at the zero level, and an ellipse through it.

    Args:
        logits: of one structure, shape (h, w).
        box: placement of the frame in the network input.
        mm_per_px: side of the frame's square pixels.

    Returns:
        The region's area in pixels of the network and the ellipse's circumference in mm, or None where none fits.
    """
    regions = measure.regionprops(measure.label(logits > 0))
    if not regions:
        return None
    region = max(regions, key=lambda region: region.area)
    alone = np.full(logits.shape, -1.0)
    rows, columns = region.slice
    # One pixel around it, so that the zero crossing is between the same two values as in the map.
    around = (slice(max(0, rows.start - 1), rows.stop + 1), slice(max(0, columns.start - 1), columns.stop + 1))
    alone[around] = logits[around]
    contour = max(measure.find_contours(alone, 0.0), key=len)
    ellipse = measure.EllipseModel.from_estimate(box.to_frame(contour[:, ::-1]) * mm_per_px)
    return (float(region.area), circumference(*ellipse.axis_lengths)) if ellipse else None


def open_scikit_image(job: Job, _argument: str | None) -> ScikitImage:
    """Load the bundle's graph as we do; what follows is scikit-image's."""
    network = load_shipped(job)
    version = metadata.version("scikit-image")
    settings = (
        f"the graph that ships, {network.backend.name}, scikit-image {version}, {how_it_ran(job, network.backend)}"
    )
    return ScikitImage(network, settings)
