"""Which frames of a sweep are taken for training."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_calibration.datasets.labelled import NOT_THE_PLANE
from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledSweep

# A sweep without any graded frame gives as many others as if it had this many graded ones, which is what the sweeps of
# ACOUSLIC-AI's public set have on average (6,620 in 1,800).
GRADED_OF_A_SWEEP = 4


@dataclass(frozen=True)
class FrameChoice:
    """A way to choose frames.

    Args:
        name: says all that the choice depends on; frames that are kept on disk are known again by it.
        pick: returns the numbers of the chosen frames of a sweep, in order.
    """

    name: str
    pick: Callable[[LabelledSweep], npt.NDArray[np.intp]]

    def __call__(self, sweep: LabelledSweep) -> npt.NDArray[np.intp]:
        """Return the numbers of the chosen frames of a sweep, in order."""
        return self.pick(sweep)


def _every(sweep: LabelledSweep) -> npt.NDArray[np.intp]:
    return np.arange(len(sweep.pixels))


def graded(sweep: LabelledSweep) -> npt.NDArray[np.bool_]:
    """Mark the frames that show the plane, optimal or not, shape (N,); none where nobody graded."""
    if sweep.grades is None:
        return np.zeros(len(sweep.pixels), np.bool_)
    shown: npt.NDArray[np.bool_] = sweep.grades != NOT_THE_PLANE
    return shown


def _annotated_sweeps(sweep: LabelledSweep) -> npt.NDArray[np.intp]:
    return _every(sweep) if graded(sweep).any() else np.empty(0, np.intp)


all_frames = FrameChoice("all", _every)

# As FetalCLIP-IQA's data were prepared: a sweep in which nobody found an abdomen is left out whole, so that what is
# trained and judged on them has never seen two thirds of the sweeps.
as_published_frames = FrameChoice("as published: all frames of sweeps with the plane", _annotated_sweeps)


def quality_frames(negatives_per_positive: float, seed: int) -> FrameChoice:
    """Choose every graded frame, and of every sweep some of the others, those without the plane included.

    Args:
        negatives_per_positive: how many others for each graded frame of a sweep; a sweep with none gives as many as one
            with `GRADED_OF_A_SWEEP`, and every sweep gives at least one.
        seed: of the draw, which depends on nothing else but the sweep's pixels.

    Raises:
        InputError: a figure is negative.
    """
    if not 0 <= negatives_per_positive < np.inf or seed < 0:
        raise InputError(
            f"{negatives_per_positive:g} negatives for each positive, or the seed {seed}, cannot be; give 0 or more."
        )

    def pick(sweep: LabelledSweep) -> npt.NDArray[np.intp]:
        shown = graded(sweep)
        others = np.flatnonzero(~shown)
        wanted = round(negatives_per_positive * (int(shown.sum()) or GRADED_OF_A_SWEEP))
        count = min(max(1, wanted), len(others))
        rng = np.random.default_rng((seed, zlib.crc32(np.ascontiguousarray(sweep.pixels[0]).data)))
        drawn = rng.choice(others, count, replace=False) if count else others[:0]
        return np.sort(np.concatenate((np.flatnonzero(shown), drawn)))

    return FrameChoice(f"graded, and {negatives_per_positive!r} others for each, seed {seed}", pick)
