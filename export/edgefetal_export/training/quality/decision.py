"""From a network's answer to a decision: what is fitted on the validation subjects and kept beside the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, ValidationError

from edgefetal_calibration.quality import best_threshold, fit_temperature, frame_metrics, tempered
from edgefetal_devices.errors import CheckFailedError, InputError
from edgefetal_export.training.quality.loop import DECISION

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from torch import nn

# A probability of a half, and a mask on 1 % of the picture.
PUBLISHED_THRESHOLDS: Final = {"probability": 0.5, "area": 0.01}


class Decision(BaseModel):
    """When a frame is good enough to measure.

    Args:
        score: `probability` is `1 / (1 + exp(-(logit + offset) / temperature))`; `area` is the share of the picture
            that the mask covers, suboptimal planes counted less.
        threshold: a frame is good where its score is at least this.
        offset: added to the logit, because training showed frames with a plane more often than examinations do.
        temperature: divides the logit, so that probabilities mean what they say.
        fitted: whether these were fitted on the validation subjects; else they are fixed, as published.
        frames: validation frames.
        positives: of these, frames with a plane.
        f1: on these at the threshold, or None where nothing was fitted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    score: Literal["probability", "area"]
    threshold: float
    offset: float = 0.0
    temperature: PositiveFloat = 1.0
    fitted: bool
    frames: NonNegativeInt
    positives: NonNegativeInt
    f1: float | None

    def probability(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Turn logits of any shape into probabilities."""
        return tempered(logits + self.offset, self.temperature)


def published(score: Literal["probability", "area"], truths: npt.NDArray[np.bool_]) -> Decision:
    """Return the fixed decision of FetalCLIP-IQA.

    Args:
        score: what is compared.
        truths: of the validation frames, for the count only.
    """
    return Decision(
        score=score,
        threshold=PUBLISHED_THRESHOLDS[score],
        fitted=False,
        frames=len(truths),
        positives=int(truths.sum()),
        f1=None,
    )


def fit_probability(logits: npt.NDArray[np.float64], truths: npt.NDArray[np.bool_], training_odds: float) -> Decision:
    """Fit temperature and threshold on validation frames.

    Training on as many frames with a plane as without teaches a network odds that examinations do not have. The ratio
    of the two is known, so it is taken off the logit before the one free figure, the temperature, is fitted.

    Args:
        logits: shape (N,), as the network gives them.
        truths: whether each frame shows the plane; both kinds occur.
        training_odds: frames with a plane for each without, as training weighed them.
    """
    share = float(truths.mean())
    offset = math.log(share / (1 - share) / training_odds)
    temperature = fit_temperature(logits + offset, truths)
    return fit_threshold("probability", tempered(logits + offset, temperature), truths).model_copy(
        update={"offset": offset, "temperature": temperature}
    )


def fit_threshold(
    score: Literal["probability", "area"], scores: npt.NDArray[np.float64], truths: npt.NDArray[np.bool_]
) -> Decision:
    """Fit the threshold of the best F1 on validation frames.

    Args:
        score: what is compared.
        scores: shape (N,), 0 to 1.
        truths: whether each frame shows the plane.

    Raises:
        CheckFailedError: they are areas, and nothing is outlined in any frame.
    """
    # A frame in which nothing is outlined is never good, whatever its F1 would be.
    if score == "area" and not (scores > 0).any():
        raise CheckFailedError(
            f"The kept network outlines nothing in any of {len(scores)} validation frames, so no area can be the "
            "threshold; train longer with --epochs in another --out, or with another --learning-rate."
        )
    threshold = best_threshold(scores, truths, above=0.0 if score == "area" else -1.0)
    return Decision(
        score=score,
        threshold=threshold,
        fitted=True,
        frames=len(truths),
        positives=int(truths.sum()),
        f1=frame_metrics(scores, truths, threshold)["f1"],
    )


@torch.no_grad()
def fold_into(head: nn.Linear, decision: Decision) -> None:
    """Put offset and temperature into a network's last layer, so that its logit is that of the probability.

    Args:
        head: gives the logit; changed in place.
        decision: of a probability.
    """
    head.weight.div_(decision.temperature)
    head.bias.add_(decision.offset).div_(decision.temperature)


def read_decision(run: Path) -> Decision:
    """Read what a run fitted.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return Decision.model_validate_json((run / DECISION).read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{run} has no whole {DECISION}; go on with it by `edgefetal train ... --resume`.") from error
