"""What a student is punished for, beside what people labelled: differing from its teachers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEAST = 1e-6


def taught_mask_loss(logits: Tensor, taught: Tensor, structures: Tensor, boundary: float) -> Tensor:
    """Cross-entropy with the teachers' probabilities, above what it is at best, and more of it on their edges.

    An edge is where a teacher's probability is near a half; there lie the pixels that decide a length.

    Args:
        logits: shape (N, structures, H, W).
        taught: the teachers' probabilities, likewise.
        structures: 1 where a structure of a frame is taught, shape (N, structures).
        boundary: how much more a pixel counts at a probability of a half than at 0 or 1.

    Returns:
        A scalar, 0 where nothing is taught or all are equal.
    """
    probability = taught.clamp(_LEAST, 1 - _LEAST)
    entropy = nn.functional.binary_cross_entropy(probability, probability, reduction="none")
    excess = nn.functional.binary_cross_entropy_with_logits(logits, probability, reduction="none") - entropy
    weight = (1 + boundary * 4 * probability * (1 - probability)) * structures[..., None, None]
    return (weight * excess).sum() / weight.sum().clamp(min=1)


def plane_members(planes: Sequence[str], teacher: Sequence[str], rest: str) -> Tensor:
    """Say which plane of a teacher each plane of the student is; what the teacher does not know is the rest to it.

    Returns:
        Shape (student's planes, teacher's planes), each row with a single 1.
    """
    return torch.tensor(
        [[float(name == (plane if plane in teacher else rest)) for name in teacher] for plane in planes]
    )


def taught_plane_loss(logits: Tensor, taught: Tensor, members: Tensor, asked: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the student from a teacher, over the planes that the teacher tells apart.

    Args:
        logits: shape (N, student's planes).
        taught: probabilities, shape (N, teacher's planes).
        members: of `plane_members`.
        asked: 1 where the teacher was asked, shape (N,).
    """
    merged = (logits.softmax(dim=1) @ members).clamp(min=_LEAST).log()
    divergence = nn.functional.kl_div(merged, taught, reduction="none").sum(dim=1)
    return (divergence * asked).sum() / asked.sum().clamp(min=1)


def taught_feature_loss(features: Tensor, taught: Tensor, asked: Tensor) -> Tensor:
    """One less the cosine between the student's projected vector and the teacher's.

    Args:
        features: shape (N, F).
        taught: likewise.
        asked: 1 where the teacher was asked, shape (N,).
    """
    apart = 1 - nn.functional.cosine_similarity(features, taught, dim=1, eps=_LEAST)
    return (apart * asked).sum() / asked.sum().clamp(min=1)


def said_loss(logits: Tensor, *said: Tensor) -> Tensor:
    """Cross-entropy of a head that answers once a frame with whoever says something of it.

    Args:
        logits: shape (N, 1).
        said: targets, shape (N,) each, 0 to 1, or below 0 where nothing is said.
    """
    parts = [
        (
            nn.functional.binary_cross_entropy_with_logits(logits[:, 0], target.clamp(0, 1), reduction="none"),
            target >= 0,
        )
        for target in said
    ]
    count = sum(known.sum() for _, known in parts)
    total: Tensor = sum((loss * known).sum() for loss, known in parts) / torch.as_tensor(count).clamp(min=1)
    return total
