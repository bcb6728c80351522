"""Which frames an epoch is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

# Apart from the streams of the augmentation, which begin with (seed, epoch, index).
_ORDER_STREAM = 2_147_483_647


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """Return 0 to `count` - 1 in an order that depends on the seed and the epoch only."""
    order: list[int] = np.random.default_rng((seed, epoch, _ORDER_STREAM)).permutation(count).tolist()
    return order


def balanced(positive: Sequence[bool] | npt.NDArray[np.bool_], seed: int, epoch: int) -> list[int]:
    """Return every frame of the rarer kind once and as many of the other, drawn anew each epoch, in a mixed order.

    With nearly all frames of one kind, as in a whole examination, this shows a network both kinds alike without showing
    it any frame twice in an epoch. There are as many samples in every epoch.

    Args:
        positive: of each frame, whether it is of the one kind.
        seed: of the run.
        epoch: whose order is asked for.
    """
    of_kind = np.asarray(positive, bool)
    rng = np.random.default_rng((seed, epoch, _ORDER_STREAM))
    rare, common = sorted((np.flatnonzero(of_kind), np.flatnonzero(~of_kind)), key=len)
    drawn = rng.choice(common, len(rare), replace=False)
    order: list[int] = rng.permutation(np.concatenate((rare, drawn))).tolist()
    return order
