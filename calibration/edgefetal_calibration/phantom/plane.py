"""The plane that a probe images, as a value between anatomy and image formation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Plane:
    """Where a probe stands and which plane it images, in world coordinates in mm.

    A point of the plane is `origin + x * lateral + z * axial`, with x and z in mm.

    Args:
        origin: middle of the probe's face, shape (3,).
        lateral: unit vector along the face, shape (3,): x of the picture, to the right.
        axial: unit vector into the body, shape (3,), at right angles to `lateral`: z of the picture, downwards.
    """

    origin: npt.NDArray[np.float64]
    lateral: npt.NDArray[np.float64]
    axial: npt.NDArray[np.float64]

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """Unit vector out of the plane, shape (3,): lateral x axial."""
        return np.cross(self.lateral, self.axial)

    def points(self, x_mm: npt.NDArray[np.floating], z_mm: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Return the world coordinates of points of the plane, shape (..., 3), float32, for x and z of one shape."""
        x, z = x_mm[..., None].astype(np.float32), z_mm[..., None].astype(np.float32)
        return (
            np.asarray(self.origin, np.float32)
            + x * self.lateral.astype(np.float32)
            + z * self.axial.astype(np.float32)
        )
