from __future__ import annotations

import pytest
import torch
from torch import nn

from edgefetal_export.training.skill.judge import (
    JudgedClip,
    judge_exams,
    resampled_interval,
    spearman_or_none,
    summary,
)
from edgefetal_export.training.skill.levels import (
    ClipBatch,
    ClipDice,
    Normalisation,
    clip_dice,
    foretelling_loss,
    normalised_scores,
    skill_loss,
    soft_dice_losses,
    task_loss,
    unrolled_loss,
)

ALL = torch.ones(4, dtype=torch.bool)


class ToyTask(nn.Module):
    """Three numbers that draw every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1, dtype=torch.float64)
        self.bend = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        bent: torch.Tensor = self.line(clip[..., None])[..., 0] + self.bend * clip**2
        return bent[:, None]


class ToySkill(nn.Module):
    """A score from the mean grey level, by two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor([0.4, -0.2], dtype=torch.float64))

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.numbers[0] * clip.mean(dim=(1, 2, 3)) + self.numbers[1] * clip.std(dim=(1, 2, 3)))


def toy_batch(seed: int) -> ClipBatch:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(4, 3, 5, 6, generator=generator, dtype=torch.float64)
    spread = torch.linspace(0.5, 2, 4, dtype=torch.float64)[:, None, None, None]
    return ClipBatch(frames * spread + spread, (frames > 0.2).double()[:, None])


def toys() -> tuple[ToyTask, ToySkill]:
    torch.manual_seed(1)
    return ToyTask(), ToySkill()


def test_scores_become_weights_as_published() -> None:
    scores = torch.tensor([0.2, 0.9, 0.4, 0.3])
    rank, minmax, softmax, none = (normalised_scores(scores, ALL, how) for how in Normalisation)
    torch.testing.assert_close(rank, torch.tensor([0, 1, 2 / 3, 1 / 3]))
    torch.testing.assert_close(minmax, torch.tensor([0, 1, 2 / 7, 1 / 7]))
    torch.testing.assert_close(softmax, scores.softmax(0))
    torch.testing.assert_close(none, torch.ones(4))


@pytest.mark.parametrize("how", list(Normalisation))
def test_clips_without_the_structure_get_the_mean_weight(how: Normalisation) -> None:
    scores = torch.tensor([0.2, 0.9, 0.4, 0.3])
    counted = torch.tensor([True, False, True, True])
    weights = normalised_scores(scores, counted, how)
    others = normalised_scores(scores[counted], ALL[:3], how)
    torch.testing.assert_close(weights[counted], others)
    torch.testing.assert_close(weights[1], others.mean())


@pytest.mark.parametrize("how", list(Normalisation))
def test_scores_that_cannot_be_told_apart_weight_alike(how: Normalisation) -> None:
    """A minimum over a maximum of the same size would be no number, and a single clip's rank would be 0."""
    for scores, counted in (
        (torch.full((4,), 0.5), ALL),
        (torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([True, False, False, False])),
        (torch.tensor([0.1, 0.2, 0.3, 0.4]), ~ALL),
    ):
        torch.testing.assert_close(normalised_scores(scores, counted, how), torch.ones(4))


def test_dice_is_of_frames_that_show_the_structure() -> None:
    masks = torch.zeros(3, 1, 2, 4, 4)
    masks[0, 0, 0, :2] = 1  # one of two frames shows it; half of it is drawn
    masks[1, 0, :, :2] = 1  # both do, and all is drawn
    logits = torch.full_like(masks, -1)
    logits[0, 0, 0, 0] = 1
    logits[1, 0, :, :2] = 1
    logits[2] = 1  # drawn where nothing is
    reached = clip_dice(logits, masks)
    torch.testing.assert_close(reached.dice, torch.tensor([2 * 4 / 12, 1.0, 0.0]))
    assert reached.counted.tolist() == [True, True, False]


def test_empty_frames_are_lost_only_where_something_is_drawn() -> None:
    masks = torch.zeros(2, 1, 3, 16, 16)
    logits = torch.full_like(masks, -20)
    logits[1] = 20
    silent, drawn = soft_dice_losses(logits, masks).tolist()
    assert silent < 1e-4
    assert drawn > 0.99


def test_clips_without_dice_teach_the_skill_network_nothing() -> None:
    scores = torch.tensor([0.5, 0.9], requires_grad=True)
    loss = foretelling_loss(scores, ClipDice(torch.tensor([0.7, 0.0]), torch.tensor([True, False])))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0.04)
    assert scores.grad is not None
    assert scores.grad.tolist() == [pytest.approx(-0.4), 0]
    nothing = foretelling_loss(scores, ClipDice(torch.zeros(2), torch.zeros(2, dtype=torch.bool)))
    assert nothing.item() == 0


@pytest.mark.parametrize("how", list(Normalisation))
def test_task_loss_does_not_reach_the_skill_network(how: Normalisation) -> None:
    task, skill = toys()
    task_loss(task, skill, toy_batch(0), how).backward()  # type: ignore[no-untyped-call]
    assert all(part.grad is not None for part in task.parameters())
    assert all(part.grad is None for part in skill.parameters())


def test_task_batch_is_weighted_by_its_own_scores() -> None:
    task, skill = toys()
    batch = toy_batch(0)
    weights = normalised_scores(skill(batch.frames), ALL, Normalisation.MINMAX)
    expected = (weights * soft_dice_losses(task(batch.frames), batch.masks)).mean()
    torch.testing.assert_close(task_loss(task, skill, batch, Normalisation.MINMAX), expected)


def test_foretelling_does_not_reach_the_task_network() -> None:
    task, skill = toys()
    skill_loss(task, skill, toy_batch(0)).backward()  # type: ignore[no-untyped-call]
    assert all(part.grad is None for part in task.parameters())
    assert skill.numbers.grad is not None
    assert skill.numbers.grad.abs().sum() > 0


@pytest.mark.parametrize("how", [Normalisation.MINMAX, Normalisation.SOFTMAX])
def test_unrolled_gradient_is_that_of_finite_differences(how: Normalisation) -> None:
    task, skill = toys()

    def loss() -> torch.Tensor:
        return unrolled_loss(task, skill, toy_batch(0), toy_batch(1), how, virtual_learning_rate=0.7)

    torch.autograd.backward(loss(), inputs=list(skill.parameters()))
    assert skill.numbers.grad is not None
    step = 1e-5
    for k in range(2):
        with torch.no_grad():
            skill.numbers[k] += step
        above = loss().item()
        with torch.no_grad():
            skill.numbers[k] -= 2 * step
        below = loss().item()
        with torch.no_grad():
            skill.numbers[k] += step
        assert abs(above - below) > 1e-9
        assert skill.numbers.grad[k].item() == pytest.approx((above - below) / (2 * step), rel=1e-5)


def test_unrolled_step_leaves_the_task_network_alone() -> None:
    task, skill = toys()
    before = [part.clone() for part in task.parameters()]
    skill.eval()
    loss = unrolled_loss(task, skill, toy_batch(0), toy_batch(1), Normalisation.MINMAX, 0.7)
    torch.autograd.backward(loss, inputs=list(skill.parameters()))
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, task.parameters(), strict=True))
    assert not skill.training


def clip(exam: str, start: int, score: float, dice: float | None, *, scored: bool = True) -> JudgedClip:
    return JudgedClip(exam, "sweep_1", start, score, scored, dice)


def test_exam_is_the_mean_of_its_scored_clips() -> None:
    clips = [
        clip("a", 0, 0.9, 0.8),
        clip("a", 10, 0.5, 0.6),
        clip("a", 20, 1.0, None, scored=False),  # nothing was seen, so its score counts nowhere
        clip("b", 0, 0.4, 0.9),
        clip("b", 10, 0.7, None),  # best scored, and shows nothing
        clip("b", 20, 0.3, 0.5),
        clip("c", 0, 0.2, None, scored=False),
        clip("d", 0, 0.2, 0.5),
    ]
    a, b, c, d = judge_exams(clips, {"a": 0.9, "b": 0.3, "c": 0.1})
    assert (a.score, a.dice) == (pytest.approx(0.7), pytest.approx(0.7))
    assert (a.best_above_mean, a.skill) == (True, 0.9)
    assert b.best_above_mean is False
    assert (c.score, c.dice, c.best_above_mean) == (None, None, None)
    assert (d.best_above_mean, d.skill) == (None, None)
    figures = summary(clips, [a, b, c, d])
    assert figures["best_above_mean"] == {"of": 2, "share": 0.5}
    assert figures["exams_scored"] == 3
    assert figures["clips_with_dice"] == 5
    assert figures["mse"] == pytest.approx((0.01 + 0.01 + 0.25 + 0.04 + 0.09) / 5)
    assert figures["score_against_skill"] == {"of": 2, "spearman": None, "interval_95": None}


def test_rank_correlation_agrees_with_a_worked_case() -> None:
    # By hand: ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4.
    assert spearman_or_none([(1, 1), (2, 2), (2, 3), (5, 9)]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert spearman_or_none([(1, 3), (2, 2), (3, 1)]) == pytest.approx(-1)
    assert spearman_or_none([(1, 1), (1, 2), (1, 3)]) is None
    assert spearman_or_none([(1, 1), (2, 2)]) is None
    interval = resampled_interval([(k, k + (k % 3)) for k in range(20)])
    assert interval is not None
    assert 0.8 < interval[0] < interval[1] <= 1
    assert resampled_interval([]) is None
