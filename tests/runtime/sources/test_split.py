"""A recording cut into sweeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_devices.errors import SourceError
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.scale import NOT_GIVEN
from edgefetal_runtime.sources.split import SplitSource

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Recording:
    """So many frames at ten a second, of which it announces some number."""

    count: int
    announced: int | None = None
    kind: str = "metaimage"

    @property
    def frame_count(self) -> int | None:
        return self.announced

    def frames(self) -> Iterator[Frame]:
        for index in range(self.count):
            yield Frame(np.full((2, 2), index, np.uint8), "all.mha", index, index / 10, NOT_GIVEN)


def test_each_sweep_begins_anew_and_no_frame_is_lost() -> None:
    source = SplitSource(Recording(12, 12), 4)
    frames = list(source.frames())
    assert [frame.sweep for frame in frames] == [f"sweep {k}" for k in (1, 2, 3) for _ in range(4)]
    assert [frame.index for frame in frames] == [0, 1, 2, 3] * 3
    assert [int(frame.pixels[0, 0]) for frame in frames] == list(range(12))
    assert [frame.timestamp_s for frame in frames[4:8]] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert (source.kind, source.frame_count) == ("metaimage", 12)


@pytest.mark.parametrize(("announced", "per_sweep"), [(12, 5), (12, 0), (3, 4)])
def test_a_piece_left_over_is_refused_before_anything_is_read(announced: int, per_sweep: int) -> None:
    with pytest.raises(SourceError, match="--sweep-frames"):
        SplitSource(Recording(announced, announced), per_sweep)


def test_a_recording_of_unknown_length_is_refused_at_its_end() -> None:
    source = SplitSource(Recording(7), 3)
    frames = source.frames()
    assert len([next(frames) for _ in range(7)]) == 7
    with pytest.raises(SourceError, match="holds 1 of 3 frames"):
        next(frames)
