"""Stills: each picture is a sweep of one frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_runtime.frame import Frame
from edgefetal_runtime.sources.picture import read_grey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefetal_runtime.scale import NoScale, Scale


@dataclass(frozen=True)
class StillSource:
    """Pictures with their pixel sizes.

    Args:
        kind: `still` or `folder`.
        pictures: paths with their pixel sizes, or why those are unknown.
    """

    kind: str
    pictures: tuple[tuple[Path, Scale | NoScale], ...]

    @property
    def frame_count(self) -> int:
        """Count the pictures."""
        return len(self.pictures)

    def frames(self) -> Iterator[Frame]:
        """Read the pictures one by one.

        Raises:
            SourceError: a picture is missing, cut short or damaged.
        """
        for path, scale in self.pictures:
            yield Frame(read_grey(path), sweep=path.name, index=0, timestamp_s=0.0, scale=scale)
