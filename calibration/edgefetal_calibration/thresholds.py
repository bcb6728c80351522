"""Thresholds below which the runtime refuses a frame, fitted on validation subjects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgefetal_runtime.infer.bundle import Thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefetal_calibration.evaluate import CaseResult

# Nothing is refused; what a network says without thresholds is what they are fitted on.
NONE = Thresholds(plane_probability=0.0, agreement=0.0)

# Each threshold may cost this share of true heads. With no other anatomy to fit on, what can be known is how sure the
# network is of heads; a picture that it is less sure of than of nearly every head is refused.
LOST_SHARE = 0.02
# A network that takes heads for something else is not helped by a threshold that lets them all pass.
MIN_PLANE_PROBABILITY, MIN_AGREEMENT = 0.5, 0.5


def fit_thresholds(heads: Sequence[CaseResult]) -> Thresholds:
    """Fit thresholds that `LOST_SHARE` of true heads fall below, each.

    Args:
        heads: results on validation pictures, all of heads, made with no thresholds.
    """
    agreements = [result.agreement for result in heads if result.agreement is not None]
    return Thresholds(
        plane_probability=max(
            MIN_PLANE_PROBABILITY, float(np.quantile([result.plane_probability for result in heads], LOST_SHARE))
        ),
        agreement=max(MIN_AGREEMENT, float(np.quantile(agreements, LOST_SHARE)) if agreements else 1.0),
    )
