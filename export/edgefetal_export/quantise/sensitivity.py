"""Which blocks eight bits cost most, and the fewest to put back into float for the whole to stay within its budget.

Everything is judged by one figure that the caller gives: how far a graph is over its accuracy budget. A likeness of
tensors, such as a cosine, would say nothing of a circumference in millimetres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    # Makes the graph in which the blocks of these names stay in float.
    Quantise = Callable[[Collection[str]], bytes]
    # How far a graph is over its accuracy budget, in units of the budget; 0 or less passes.
    Excess = Callable[[bytes], float]

# Of a network of some hundred blocks all can be tried alone, and twice as many sets of them.
MAX_TRIALS = 300


@dataclass(frozen=True)
class Trial:
    """A graph that was measured.

    Args:
        float_blocks: the blocks that it left in float, in the network's order.
        excess: how far it is over its budget, in units of the budget; infinite where it could not be measured.
    """

    float_blocks: tuple[str, ...]
    excess: float

    @property
    def passed(self) -> bool:
        """Whether it is within the budget."""
        return self.excess <= 0


@dataclass(frozen=True)
class Mended:
    """A graph that is within its budget with the fewest blocks in float that were found, or that comes nearest to it.

    Args:
        float_blocks: the blocks left in float, in the network's order.
        model: the graph.
        excess: how far it is over its budget.
        trials: everything that was measured, in order.
    """

    float_blocks: tuple[str, ...]
    model: bytes
    excess: float
    trials: tuple[Trial, ...]

    @property
    def passed(self) -> bool:
        """Whether it is within the budget."""
        return self.excess <= 0


class _Lab:
    """Measures graphs, each once, up to a number of them."""

    def __init__(
        self, blocks: Sequence[str], quantise: Quantise, excess: Excess, max_trials: int, on_trial: Callable[[], None]
    ) -> None:
        self._order = {name: place for place, name in enumerate(blocks)}
        self._quantise, self._excess = quantise, excess
        self._max_trials, self._on_trial = max_trials, on_trial
        self._known: dict[frozenset[str], Trial] = {}

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All that was measured, in order."""
        return tuple(self._known.values())

    @property
    def spent(self) -> bool:
        """Whether no further graph may be measured."""
        return len(self._known) >= self._max_trials

    def measure(self, float_blocks: Collection[str]) -> Trial | None:
        """Measure the graph with these blocks in float; None where the trials are spent."""
        key = frozenset(float_blocks)
        if key not in self._known:
            if self.spent:
                return None
            names = tuple(sorted(key, key=self._order.__getitem__))
            excess = self._excess(self._quantise(names))
            self._known[key] = Trial(names, math.inf if math.isnan(excess) else excess)
            self._on_trial()
        return self._known[key]


def rank_blocks(
    blocks: Sequence[str],
    quantise: Quantise,
    excess: Excess,
    *,
    max_trials: int = MAX_TRIALS,
    on_trial: Callable[[], None] = lambda: None,
) -> tuple[Trial, ...]:
    """Leave each block in float alone, and rank the blocks by what that is worth.

    Args:
        blocks: their names, in the network's order.
        quantise: makes the graph with the blocks that it is given in float.
        excess: how far a graph is over its accuracy budget, in units of the budget; 0 or less passes.
        max_trials: most graphs to measure; further blocks are not ranked.
        on_trial: called after every graph.

    Returns:
        One trial for each block, the one that brings the graph nearest to its budget first; of equals the earlier one.
    """
    lab = _Lab(blocks, quantise, excess, max_trials, on_trial)
    return _ranked(blocks, lab)


def _ranked(blocks: Sequence[str], lab: _Lab) -> tuple[Trial, ...]:
    alone = [trial for trial in (lab.measure([name]) for name in blocks) if trial is not None]
    return tuple(sorted(alone, key=lambda trial: trial.excess))


def mend(
    blocks: Sequence[str],
    quantise: Quantise,
    excess: Excess,
    *,
    max_trials: int = MAX_TRIALS,
    on_trial: Callable[[], None] = lambda: None,
) -> Mended:
    """Put back into float as few blocks as bring a graph within its budget.

    Blocks are added in the order of `rank_blocks` until the graph passes; then each is taken back that turns out not to
    be needed beside the others. The same arguments give the same answer.

    Args:
        blocks: names of the blocks that may be put back, in the network's order.
        quantise: makes the graph with the blocks that it is given in float.
        excess: how far a graph is over its accuracy budget, in units of the budget; 0 or less passes.
        max_trials: most graphs to measure.
        on_trial: called after every graph.

    Raises:
        InputError: not one trial is allowed.
    """
    if max_trials < 1:
        raise InputError(f"{max_trials} trials measure nothing; allow at least one.")
    lab = _Lab(blocks, quantise, excess, max_trials, on_trial)
    found = _search(blocks, lab)
    return Mended(found.float_blocks, quantise(found.float_blocks), found.excess, lab.trials)


def _search(blocks: Sequence[str], lab: _Lab) -> Trial:
    whole = lab.measure(())
    if whole is not None and whole.passed:
        return whole
    ranking = [trial.float_blocks[0] for trial in _ranked(blocks, lab)]
    added: list[str] = []
    for name in ranking:
        added.append(name)
        trial = lab.measure(added)
        if trial is None or trial.passed:
            break
    # What passed, with the fewest blocks; else what came nearest, of equals what was measured first.
    passing = [trial for trial in lab.trials if trial.passed]
    if not passing:
        return min(lab.trials, key=lambda trial: trial.excess)
    return _without_unneeded(min(passing, key=lambda trial: len(trial.float_blocks)), added, lab)


def _without_unneeded(found: Trial, added: Sequence[str], lab: _Lab) -> Trial:
    """Take back blocks of a graph that passes, those first that were worth least alone."""
    for name in [name for name in reversed(added) if name in found.float_blocks]:
        trial = lab.measure([block for block in found.float_blocks if block != name])
        if trial is not None and trial.passed:
            found = trial
    return found
