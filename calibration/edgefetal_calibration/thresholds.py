"""Thresholds below which the runtime refuses a frame, fitted on validation subjects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgefetal_runtime.biometry.principal import PRINCIPAL
from edgefetal_runtime.infer.bundle import HEAD, Thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefetal_calibration.evaluate import CaseResult
    from edgefetal_calibration.frames import FrameResult

# Nothing is refused; what a network says without thresholds is what they are fitted on.
NONE = Thresholds(plane_probability=0.0, agreement=0.0)

# Each threshold may cost this share of true heads. With no other anatomy to fit on, what can be known is how sure the
# network is of heads; a picture that it is less sure of than of nearly every head is refused.
LOST_SHARE = 0.02
# A network that takes heads for something else is not helped by a threshold that lets them all pass.
MIN_PLANE_PROBABILITY, MIN_AGREEMENT = 0.5, 0.5


# Shares of the head hidden behind an edge, on which a network shows how it outlines what the picture cuts.
HIDDEN_SHARES = (0.1, 0.2, 0.3, 0.4)
# Of the cut heads that are measured all the same, nine in ten must come out within this of their HC.
MAX_CUT_ERROR = 0.05
_CUT_QUANTILE = 0.9


def fit_thresholds(
    heads: Sequence[CaseResult], cut_heads: Sequence[CaseResult], others: Sequence[FrameResult] = ()
) -> Thresholds:
    """Fit thresholds on validation pictures from results made with no thresholds.

    The planes' and the agreement's are those that `LOST_SHARE` of the frames which show them fall below, each.

    Args:
        heads: results on pictures of heads as they are.
        cut_heads: results on the same with `HIDDEN_SHARES` of the head blacked out.
        others: results on frames of exams, some of which show an abdomen or a femur.
    """
    agreements = [result.agreement for result in heads if result.agreement is not None]
    return Thresholds(
        plane_probability=max(
            MIN_PLANE_PROBABILITY, float(np.quantile([result.plane_probability for result in heads], LOST_SHARE))
        ),
        agreement=max(MIN_AGREEMENT, float(np.quantile(agreements, LOST_SHARE)) if agreements else 1.0),
        coverage=_fit_coverage(cut_heads),
        planes=_fit_planes(others),
    )


def _fit_planes(frames: Sequence[FrameResult]) -> dict[str, float]:
    """Return the least probability for each structure but the head, which real pictures give."""
    probabilities: dict[str, list[float]] = {}
    for frame in frames:
        if frame.plane in PRINCIPAL and frame.plane != HEAD and frame.probability is not None:
            # Of a frame that is taken for something else the result does not say how likely the truth was.
            named = frame.probability if frame.named == frame.plane else 0.0
            probabilities.setdefault(frame.plane, []).append(named)
    return {
        plane: max(MIN_PLANE_PROBABILITY, float(np.quantile(values, LOST_SHARE)))
        for plane, values in sorted(probabilities.items())
    }


def _fit_coverage(cut_heads: Sequence[CaseResult]) -> float:
    """Least coverage from which on cut heads are measured well enough, whatever else is seen of them."""
    found = sorted(
        (r.coverage, abs(r.hc_mm / r.hc_true_mm - 1))
        for r in cut_heads
        if r.coverage is not None and r.hc_mm is not None
    )
    errors = [error for _, error in found]
    bad = [
        k for k in range(len(found)) if float(np.quantile(errors[k:], _CUT_QUANTILE, method="higher")) > MAX_CUT_ERROR
    ]
    if not bad:
        return 0.0
    # Just above the last coverage that is too low; a whole head is never refused.
    return min(1.0, float(np.nextafter(found[bad[-1]][0], np.inf)))
