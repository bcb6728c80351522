"""What every source offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefetal_runtime.frame import Frame


class Source(Protocol):
    """Frames in order, one sweep after another."""

    @property
    def kind(self) -> str:
        """Return what it is, for the exam record.

        Files are `still`, `folder`, `video`, `metaimage` or `dicom`; live sources are `v4l2`, `rtsp`, `simulated` or
        `drill`.
        """

    @property
    def frame_count(self) -> int | None:
        """Return how many frames it announces, or None where it does not say."""

    def frames(self) -> Iterator[Frame]:
        """Yield the frames; those of one sweep follow one another.

        Raises:
            SourceError: a frame cannot be read.
        """
