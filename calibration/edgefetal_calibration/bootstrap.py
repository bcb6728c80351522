"""One-sided bounds of figures over frames, by the bootstrap over subjects.

Frames of one subject are not independent, so whole subjects are drawn with replacement (Davison and Hinkley 1997,
chapter 3.8). A statistic is a function from how often each subject was drawn, shape (R, S), to its figure in each draw,
shape (R,), NaN where it is undefined. The draws are the same whenever they are made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[np.float64]
Statistic = Callable[[Array], Array]

LEVEL: Final = 0.95
_RESAMPLES: Final = 2000
# So many numbers of a table of draws by frames are in memory at a time.
_CHUNK_NUMBERS: Final = 2_000_000


@dataclass(frozen=True)
class Bounded:
    """A figure and its bound.

    Args:
        estimate: over all frames.
        upper: one-sided 95 % bound; never below the estimate.
    """

    estimate: float
    upper: float


def bounded(subjects: Sequence[str], statistic: Statistic) -> Bounded | None:
    """Return a statistic and its upper bound; None where it is undefined over all frames.

    Where no subject shows any difference the bound is 0, however few they are: ask for enough of them beforehand.

    Args:
        subjects: whose each frame is, at least one.
        statistic: made of the same frames by one of the functions below.
    """
    n_subjects = len(set(subjects))
    estimate = float(statistic(np.ones((1, n_subjects)))[0])
    if np.isnan(estimate):
        return None
    rng = np.random.default_rng(0)
    times = rng.multinomial(n_subjects, np.full(n_subjects, 1 / n_subjects), size=_RESAMPLES).astype(np.float64)
    rows = max(1, _CHUNK_NUMBERS // len(subjects))
    drawn = np.concatenate([statistic(times[start : start + rows]) for start in range(0, _RESAMPLES, rows)])
    drawn = drawn[~np.isnan(drawn)]
    # Of a skewed figure most draws may lie below what was seen; a bound below it would be no bound.
    return Bounded(estimate, max(estimate, float(np.quantile(drawn, LEVEL))) if len(drawn) else estimate)


def mean_of(subjects: Sequence[str], values: Sequence[float]) -> Statistic:
    """Make the mean of a value of each frame."""
    membership = _membership(subjects)
    sums, counts = np.bincount(membership, np.asarray(values, np.float64)), np.bincount(membership)

    def mean(times: Array) -> Array:
        return _shares(times @ sums, times @ counts.astype(np.float64))

    return mean


def worst_share_of(subjects: Sequence[str], values: Sequence[float], share: float) -> Statistic:
    """Make the mean of the largest values, which are this share of all; a value may count in part."""
    table = np.asarray(values, np.float64)
    order = np.argsort(-table, kind="stable")
    membership, falling = _membership(subjects)[order], table[order]

    def mean_of_worst(times: Array) -> Array:
        weights = times[:, membership]
        before = np.cumsum(weights, axis=1) - weights
        wanted = share * weights.sum(axis=1)
        return _shares(np.clip(wanted[:, None] - before, 0.0, weights) @ falling, wanted)

    return mean_of_worst


def balanced_error_of(subjects: Sequence[str], truths: Sequence[bool], called: Sequence[bool]) -> Statistic:
    """Make the share of frames that are called wrongly, the mean of both kinds; whoever always says the same has 0.5.

    Args:
        subjects: whose each frame is.
        truths: which kind each frame is of.
        called: which kind it is called.
    """
    membership = _membership(subjects)
    truth = np.asarray(truths, np.bool_)
    wrong = truth != np.asarray(called, np.bool_)
    kinds = [(np.bincount(membership, kind & wrong), np.bincount(membership, kind)) for kind in (truth, ~truth)]

    def error(times: Array) -> Array:
        missed, alarms = (_shares(times @ wrongs, times @ wholes) for wrongs, wholes in kinds)
        return (missed + alarms) / 2

    return error


def macro_f1_loss_of(
    subjects: Sequence[str],
    truths: Sequence[str],
    shipped: Sequence[str],
    reference: Sequence[str],
    classes: Sequence[str],
) -> Statistic:
    """Make the decrease of F1, averaged over classes, from the names that one network gives to another's.

    Args:
        subjects: whose each frame is.
        truths: class of each frame.
        shipped: its class by the network whose loss it is.
        reference: its class by the other.
        classes: those that are averaged over; in a draw without one of them it is left out.
    """
    names = sorted({*truths, *shipped, *reference, *classes})
    scored = np.array([name in classes for name in names])
    membership = _membership(subjects)
    tables = [
        _confusion(
            membership, [(names.index(t), names.index(n)) for t, n in zip(truths, given, strict=True)], len(names)
        )
        for given in (shipped, reference)
    ]

    def loss(times: Array) -> Array:
        of_shipped, of_reference = (_macro_f1(np.tensordot(times, table, axes=1), scored) for table in tables)
        return of_reference - of_shipped

    return loss


def _membership(subjects: Sequence[str]) -> npt.NDArray[np.intp]:
    """Number the subjects in the order of their names; return the number of each frame's."""
    membership: npt.NDArray[np.intp] = np.unique(np.array(subjects), return_inverse=True)[1]
    return membership


def _shares(parts: Array, wholes: Array) -> Array:
    """Divide, with NaN where the whole is 0."""
    shares: Array = np.divide(parts, wholes, out=np.full(parts.shape, np.nan), where=wholes > 0)
    return shares


def _confusion(membership: npt.NDArray[np.intp], pairs: Sequence[tuple[int, int]], n_classes: int) -> Array:
    """Count the frames of each subject by class and by the class that was named, shape (S, C, C)."""
    table = np.zeros((int(membership.max()) + 1, n_classes, n_classes))
    truths, named = np.array(pairs).T
    np.add.at(table, (membership, truths, named), 1.0)
    return table


def _macro_f1(counts: Array, scored: npt.NDArray[np.bool_]) -> Array:
    """Return F1 averaged over the scored classes where it is defined; counts of shape (R, C, C), result (R,)."""
    hits = np.diagonal(counts, axis1=1, axis2=2)
    f1 = _shares(2 * hits, counts.sum(axis=1) + counts.sum(axis=2))[:, scored]
    known = ~np.isnan(f1)
    return _shares(np.where(known, f1, 0.0).sum(axis=1), known.sum(axis=1).astype(np.float64))
