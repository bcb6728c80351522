"""The two levels of skill assessment without ratings: how clips are weighted, lost and judged, and one step of each.

The lower level trains the task network on `mean_i w_i * L_i`, with `L_i` the soft Dice loss of clip i and `w_i` its
skill score, normalised within the batch. The upper level trains the skill network to foretell the Dice of the task
network as it stands. The published code weights the task batch with scores of another batch, whose graph it keeps; here
the score is of the clip that it weights, and is detached.

**What counts as skill.** The target is the hard Dice of a clip averaged over the frames that show the structure, and
nothing else. A frame without the structure has no Dice: the published code gives it 0, so that a clip on the way to the
plane is bad by construction whoever holds the probe, and a 1 for rightly drawing nothing would make the emptiest clip
the best one. A clip without any such frame teaches the skill network nothing, and is no part of a score. It still
teaches the task network to draw nothing there, with the mean weight of the batch, for it has no score that was ever
taught. Frames without the structure count in the loss the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

# Added above and below in the soft Dice, as a share of a frame's pixels: an empty frame is lost in proportion to what
# is drawn on it, and a structure of a twentieth of the frame is hardly touched.
SMOOTHING = 2e-3


class Normalisation(str, Enum):
    """How the scores of a batch become weights; `none` weights all alike, as a control."""

    RANK = "rank"
    MINMAX = "minmax"
    SOFTMAX = "softmax"
    NONE = "none"

    @property
    def differentiable(self) -> bool:
        """Whether a gradient passes from the weights to the scores."""
        return self in (Normalisation.MINMAX, Normalisation.SOFTMAX)


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """Clips with their masks.

    Args:
        frames: shape (N, T, H, W), normalised by the recipe's preprocessing.
        masks: shape (N, structures, T, H, W), float, 0 or 1.
    """

    frames: Tensor
    masks: Tensor


@dataclass(frozen=True, eq=False)
class ClipDice:
    """How well clips were drawn.

    Args:
        dice: mean hard Dice over the frames that show a structure, shape (N,); 0 where `counted` is False.
        counted: whether any frame of the clip shows a structure, shape (N,), bool.
    """

    dice: Tensor
    counted: Tensor


def normalised_scores(scores: Tensor, counted: Tensor, how: Normalisation) -> Tensor:
    """Turn the scores of a batch into weights of its clips.

    `rank` spreads 0 to 1 evenly by rank, `minmax` stretches the scores to 0 to 1, `softmax` is their softmax, all as
    published. Scores that cannot be told apart, because they are equal or fewer than two, weight all clips alike.

    Args:
        scores: shape (N,).
        counted: which clips are ranked, shape (N,), bool; the others get the mean weight of these.
        how: the way.

    Returns:
        Weights, shape (N,); a gradient passes where `how` is differentiable.
    """
    ranked = scores[counted]
    if how is Normalisation.NONE or len(ranked) < 2 or bool(ranked.max() == ranked.min()):  # noqa: PLR2004 - to rank
        return torch.ones_like(scores).detach()
    if how is Normalisation.RANK:
        weights = torch.empty_like(ranked)
        weights[ranked.argsort(stable=True)] = torch.linspace(0, 1, len(ranked), dtype=ranked.dtype)
        weights = weights.detach()
    elif how is Normalisation.MINMAX:
        weights = (ranked - ranked.min()) / (ranked.max() - ranked.min())
    else:
        weights = ranked.softmax(dim=0)
    return torch.where(counted, torch.zeros_like(scores).masked_scatter(counted, weights), weights.mean())


def soft_dice_losses(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the soft Dice loss of each clip, the mean over its structures and frames.

    Args:
        logits: shape (N, structures, T, H, W).
        masks: likewise.

    Returns:
        Shape (N,), each 0 to 1.
    """
    drawn = logits.sigmoid()
    smoothing = SMOOTHING * masks.shape[-1] * masks.shape[-2]
    overlap = (drawn * masks).sum(dim=(-2, -1))
    total = drawn.sum(dim=(-2, -1)) + masks.sum(dim=(-2, -1))
    return (1 - (2 * overlap + smoothing) / (total + smoothing)).mean(dim=(1, 2))


def clip_dice(logits: Tensor, masks: Tensor) -> ClipDice:
    """Judge drawn clips by the frames that show a structure.

    Args:
        logits: shape (N, structures, T, H, W).
        masks: likewise.
    """
    drawn = logits > 0
    shown = masks > 0
    area = shown.sum(dim=(-2, -1))
    dice = 2 * (drawn & shown).sum(dim=(-2, -1)) / (drawn.sum(dim=(-2, -1)) + area).clamp(min=1)
    frames = (area > 0).sum(dim=(1, 2))
    # Where the area is 0 the overlap is too, so these frames add nothing to the sum.
    return ClipDice(dice.sum(dim=(1, 2)) / frames.clamp(min=1), frames > 0)


def foretelling_loss(scores: Tensor, target: ClipDice) -> Tensor:
    """Mean squared difference between score and Dice over the clips that have a Dice; 0 where none has.

    Args:
        scores: shape (N,).
        target: what the task network reached on the same clips.
    """
    return ((scores - target.dice) ** 2 * target.counted).sum() / target.counted.sum().clamp(min=1)


def shows_structure(masks: Tensor) -> Tensor:
    """Whether any frame of a clip shows a structure, shape (N,), bool.

    Args:
        masks: shape (N, structures, T, H, W).
    """
    return masks.flatten(1).any(dim=1)


def scores_of_task_batch(skill: nn.Module, batch: ClipBatch) -> Tensor:
    """Score the clips that the task network is about to learn from, with a gradient to the skill network.

    Batch normalisation uses its running averages, so that a clip's score does not depend on its neighbours.

    Returns:
        Shape (N,).
    """
    training = skill.training
    skill.eval()
    scores: Tensor = skill(batch.frames)
    skill.train(training)
    return scores


def task_loss(task: nn.Module, skill: nn.Module, batch: ClipBatch, how: Normalisation) -> Tensor:
    """Return the lower level's loss: soft Dice, weighted by the detached scores of the same clips."""
    with torch.no_grad():
        weights = normalised_scores(scores_of_task_batch(skill, batch), shows_structure(batch.masks), how)
    return (weights * soft_dice_losses(task(batch.frames), batch.masks)).mean()


def skill_loss(task: nn.Module, skill: nn.Module, batch: ClipBatch) -> Tensor:
    """Return the upper level's loss: the skill network against the Dice of the task network as it stands."""
    with torch.no_grad():
        target = clip_dice(task(batch.frames), batch.masks)
    return foretelling_loss(skill(batch.frames), target)


def unrolled_loss(
    task: nn.Module,
    skill: nn.Module,
    task_batch: ClipBatch,
    skill_batch: ClipBatch,
    how: Normalisation,
    virtual_learning_rate: float,
) -> Tensor:
    """Return the loss on the skill subjects after one virtual step on the task subjects.

    As in Meta-Weight-Net (Shu et al. 2019, arXiv 1902.07379): the step is plain gradient descent, its weights are those
    that the skill network gives, and the gradient goes back through it to the skill network. The task network itself is
    not changed.

    Args:
        task: the task network.
        skill: the skill network.
        task_batch: clips of the virtual step.
        skill_batch: clips of other subjects, on which the stepped network is judged.
        how: a differentiable normalisation.
        virtual_learning_rate: length of the step.
    """
    here: Mapping[str, Tensor] = {name: part.detach().requires_grad_() for name, part in task.named_parameters()}
    weights = normalised_scores(scores_of_task_batch(skill, task_batch), shows_structure(task_batch.masks), how)
    losses = soft_dice_losses(functional_call(task, dict(here), (task_batch.frames,)), task_batch.masks)
    gradients = torch.autograd.grad((weights * losses).mean(), tuple(here.values()), create_graph=True)
    stepped = {
        name: part - virtual_learning_rate * gradient
        for (name, part), gradient in zip(here.items(), gradients, strict=True)
    }
    return soft_dice_losses(functional_call(task, stepped, (skill_batch.frames,)), skill_batch.masks).mean()
