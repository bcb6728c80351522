"""How good learnt scores are on operators that were never seen: against the Dice, and against the stored skill."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgefetal_export.training.skill.clips import clip_batch, tiles
from edgefetal_export.training.skill.levels import clip_dice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgefetal_export.teachers.skill import SkillModel
    from edgefetal_export.training.skill.clips import PreparedSweep
    from edgefetal_runtime.infer.preprocess import PreprocessSpec

# A clip is scored where the task network draws at least this share of one frame; with less, nothing was there to score.
LEAST_DRAWN = 0.01
_BATCH = 16
_RESAMPLES = 2000
_FEWEST = 3


@dataclass(frozen=True)
class JudgedClip:
    """A clip with what the two networks say of it.

    Args:
        exam: name of its exam.
        sweep: name of its sweep.
        start: its first frame.
        score: the skill network's, 0 to 1.
        scored: whether the task network sees the structure in it; needs no label.
        dice: mean hard Dice over the frames that show the structure, or None where none does.
    """

    exam: str
    sweep: str
    start: int
    score: float
    scored: bool
    dice: float | None


@dataclass(frozen=True)
class JudgedExam:
    """An exam with what follows from its clips.

    Args:
        name: of the exam.
        score: mean score of its scored clips, or None where it has none.
        dice: mean Dice of its clips that have one, or None.
        best_above_mean: whether its best-scored clip has a Dice above `dice`; a best-scored clip without a Dice has
            not. None where the exam has no Dice or only one clip that has.
        skill: stored skill of its operator, or None.
    """

    name: str
    score: float | None
    dice: float | None
    best_above_mean: bool | None
    skill: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "exam": self.name,
            "score": self.score,
            "dice": self.dice,
            "best_above_mean": self.best_above_mean,
            "skill": self.skill,
        }


def judge_clips(
    model: SkillModel, sweeps: Sequence[PreparedSweep], seq_len: int, spec: PreprocessSpec
) -> list[JudgedClip]:
    """Score the tiles of sweeps and draw their masks.

    Args:
        model: both networks; they are left in evaluation mode.
        sweeps: which.
        seq_len: frames of a clip.
        spec: how frames are normalised.
    """
    model.eval()
    cuts = tiles(sweeps, seq_len)
    judged = []
    for first in range(0, len(cuts), _BATCH):
        part = cuts[first : first + _BATCH]
        batch = clip_batch(sweeps, part, seq_len, spec)
        with torch.inference_mode():
            logits, scores = model.task(batch.frames), model.skill(batch.frames)
        reached = clip_dice(logits, batch.masks)
        drawn = (logits > 0).float().mean(dim=(-2, -1)).amax(dim=(1, 2))
        for k, cut in enumerate(part):
            sweep = sweeps[cut.sweep]
            dice = float(reached.dice[k]) if reached.counted[k] else None
            scored = float(drawn[k]) >= LEAST_DRAWN
            judged.append(JudgedClip(sweep.exam, sweep.name, cut.start, float(scores[k]), scored, dice))
    return judged


def judge_exams(clips: Sequence[JudgedClip], skills: Mapping[str, float]) -> list[JudgedExam]:
    """Gather clips by exam.

    Args:
        clips: those of an exam stand together.
        skills: stored skill by exam, where it is known.
    """
    exams = []
    for name, group in groupby(clips, key=lambda clip: clip.exam):
        own = list(group)
        scored = [clip for clip in own if clip.scored]
        dices = [clip.dice for clip in own if clip.dice is not None]
        dice = float(np.mean(dices)) if dices else None
        best = max(scored, key=lambda clip: clip.score, default=None)
        above = None if len(dices) < 2 else best is not None and best.dice is not None and best.dice > dice  # type: ignore[operator]  # noqa: PLR2004
        score = float(np.mean([clip.score for clip in scored])) if scored else None
        exams.append(JudgedExam(name, score, dice, above, skills.get(name)))
    return exams


def summary(clips: Sequence[JudgedClip], exams: Sequence[JudgedExam]) -> dict[str, Any]:
    """Return the figures that a run is known by, each with its number of cases; None where it is undefined."""
    pairs = [(clip.score, clip.dice) for clip in clips if clip.dice is not None]
    rated = [(exam.score, exam.skill) for exam in exams if exam.score is not None and exam.skill is not None]
    above = [exam.best_above_mean for exam in exams if exam.best_above_mean is not None]
    return {
        "clips": len(clips),
        "clips_with_dice": len(pairs),
        "dice": _mean([dice for _, dice in pairs]),
        "mse": _mean([(score - dice) ** 2 for score, dice in pairs]),
        "mse_of_the_mean": _mean([(dice - float(np.mean([d for _, d in pairs]))) ** 2 for _, dice in pairs]),
        "score_against_dice": spearman_or_none(pairs),
        "exams": len(exams),
        "exams_scored": sum(exam.score is not None for exam in exams),
        "best_above_mean": {"of": len(above), "share": _mean([float(a) for a in above])},
        "score_against_skill": {
            "of": len(rated),
            "spearman": spearman_or_none(rated),
            "interval_95": resampled_interval(rated),
        },
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def spearman_or_none(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Spearman's rank correlation, ties sharing their mean rank; None where it is not defined."""
    if len(pairs) < _FEWEST:
        return None
    a, b = (_ranks(np.array(values)) for values in zip(*pairs, strict=True))
    if a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rank values from 0; equal ones share the mean of their ranks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count + 1) / 2)[place])


def resampled_interval(pairs: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of Spearman's correlation over exams; None where it is not defined."""
    rng = np.random.default_rng(0)
    drawn = (
        spearman_or_none([pairs[k] for k in rng.integers(len(pairs), size=len(pairs))])
        for _ in range(_RESAMPLES if len(pairs) >= _FEWEST else 0)
    )
    known = [rho for rho in drawn if rho is not None]
    return (float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975))) if known else None
