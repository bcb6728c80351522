"""Frames that the INT8 ranges are taken from, and proof of where they came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_calibration.datasets.split import Part, Split
from edgefetal_devices.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefetal_calibration.datasets.hc18 import HeadCase

# Fewer pictures than this cannot show how far activations range.
MIN_FRAMES = 8


@dataclass(frozen=True)
class RangeFrames:
    """The chosen frames.

    Args:
        cases: the labelled pictures, in the order in which they are used.
        sha256: hash over the content hashes of the pictures, in that order.
    """

    cases: tuple[HeadCase, ...]
    sha256: str


def choose_range_frames(cases: Sequence[HeadCase], split: Split, count: int) -> RangeFrames:
    """Choose pictures of training subjects, spread over all of them by the hash of their content.

    Args:
        cases: the dataset.
        split: the split of the training run.
        count: how many are wanted; fewer are used where there are fewer.

    Raises:
        DatasetError: the dataset holds too few pictures of the training subjects.
    """
    eligible = sorted(((case.digest(), case) for case in split.select(cases, Part.TRAIN)), key=lambda pair: pair[0])
    if len(eligible) < MIN_FRAMES:
        message = (
            f"The calibration data hold {len(eligible)} pictures of the subjects that the network was trained on, and "
            f"{MIN_FRAMES} are needed; give the dataset that it was trained on."
        )
        raise DatasetError(message)
    chosen = eligible[:count]
    digest = hashlib.sha256("".join(content for content, _ in chosen).encode()).hexdigest()
    return RangeFrames(tuple(case for _, case in chosen), digest)
