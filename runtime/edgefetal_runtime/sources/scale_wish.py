"""What the user says of the pixel size, and what comes of it, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_devices.errors import ScaleError
from edgefetal_runtime.scale import NOT_GIVEN, NoScale, Scale
from edgefetal_runtime.sources.ruler import Ruler, read_ruler
from edgefetal_runtime.sources.scale_evidence import (
    MAX_DEPTH_MM,
    MIN_DEPTH_MM,
    scale_from_depth,
    scale_from_evidence,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.sources.protocol import Source
    from edgefetal_runtime.sources.scale_profile import ScaleProfile

# Compression and noise leave a ruler's strip alike from frame to frame; another depth does not.
_SAME_STRIP = 0.9


@dataclass(frozen=True)
class ScaleWish:
    """What the user says of the pixel size: one thing, or nothing.

    Args:
        stated: pixel size of every frame (`--mm-per-px`).
        table: file of pixel sizes by picture (`--scale-csv`).
        profile: stored pixel size of one probe, depth and format (`--scale-profile`).
        depth_mm: depth that the machine shows, to be joined with the ruler on the picture (`--depth-mm`).

    Raises:
        ScaleError: more than one was given, or the depth cannot be one.
    """

    stated: Scale | None = None
    table: Path | None = None
    profile: ScaleProfile | None = None
    depth_mm: float | None = None

    def __post_init__(self) -> None:
        """Refuse contradictions: it is not for us to choose."""
        given = [
            option
            for option, value in (
                ("--mm-per-px", self.stated),
                ("--scale-csv", self.table),
                ("--scale-profile", self.profile),
                ("--depth-mm", self.depth_mm),
            )
            if value is not None
        ]
        if len(given) > 1:
            number = "both" if len(given) == 2 else "all"  # noqa: PLR2004 - both are two
            message = f"{' and '.join(given)} were {number} given; keep the one that is right."
            raise ScaleError(message)
        if self.depth_mm is not None and not MIN_DEPTH_MM <= self.depth_mm <= MAX_DEPTH_MM:
            message = (
                f"--depth-mm is {self.depth_mm:g}; give the depth that the machine shows in mm, {MIN_DEPTH_MM:g} to "
                f"{MAX_DEPTH_MM:g} (16 cm is 160)."
            )
            raise ScaleError(message)

    def figure(self) -> Scale | None:
        """Return the pixel size that was given outright, stated or stored; None where none was."""
        return self.profile.scale() if self.profile else self.stated


NO_WISH = ScaleWish()


def _size_px(pixels: npt.NDArray[np.uint8]) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[0]


def scale_in_format(scale: Scale, for_px: tuple[int, int], frame_px: tuple[int, int]) -> Scale | NoScale:
    """Return a scale for frames of its own format, and why there is none for others.

    Args:
        scale: the pixel size.
        for_px: width and height of the frames for which it was stated.
        frame_px: width and height of the frame.
    """
    if frame_px == for_px:
        return scale
    return NoScale(
        f"{scale.origin} states the pixel size for pictures of {for_px[0]} x {for_px[1]}, and this one has "
        f"{frame_px[0]} x {frame_px[1]}; run it apart with its own pixel size"
    )


@dataclass(frozen=True, eq=False)
class _Watch:
    """What the last frame's ruler said.

    Args:
        sweep: whose frame it was.
        given: the pixel size from elsewhere that was judged, if any.
        ruler: its ruler, or None.
        strip: brightness along the ruler.
        scale: the verdict.
    """

    sweep: str
    given: Scale | NoScale
    ruler: Ruler | None
    strip: npt.NDArray[np.float64] | None
    scale: Scale | NoScale

    def still_holds(self, frame: Frame, given: Scale | NoScale) -> bool:
        """Tell whether a frame is of the same sweep and shows the same ruler, so that the verdict stands."""
        if self.sweep != frame.sweep or self.given != given:
            return False
        if self.ruler is None or self.strip is None:
            return True
        strip = self.ruler.strip(frame.pixels)
        if strip.shape != self.strip.shape or not strip.std() or not self.strip.std():
            return False
        return float(np.corrcoef(strip, self.strip)[0, 1]) >= _SAME_STRIP


@dataclass(frozen=True)
class WishedSource:
    """A source of screen pictures, each with the scale that comes of the wish and of the ruler on it.

    The ruler is read where a sweep begins and again when its strip changes. One that changes within a sweep and cannot
    be read any more voids the scale: the format changed.

    Args:
        source: the pictures, with scales of their own from a table, or without.
        wish: what the user says.
    """

    source: Source
    wish: ScaleWish

    @property
    def kind(self) -> str:
        """Return what the source is."""
        return self.source.kind

    @property
    def frame_count(self) -> int | None:
        """Return how many frames it announces."""
        return self.source.frame_count

    def frames(self) -> Iterator[Frame]:
        """Yield the frames with their scales.

        Raises:
            SourceError: a frame cannot be read.
        """
        figure = self.wish.figure()
        for_px = (self.wish.profile.width_px, self.wish.profile.height_px) if self.wish.profile else None
        watch: _Watch | None = None
        for frame in self.source.frames():
            # A typed figure belongs to the format of the first picture.
            for_px = for_px or _size_px(frame.pixels)
            given = scale_in_format(figure, for_px, _size_px(frame.pixels)) if figure else frame.scale
            if self.wish.depth_mm is not None:
                watch = _by_depth(frame, self.wish.depth_mm, watch)
            elif given:
                watch = _by_figure(frame, given, watch)
            else:
                watch = None
            yield replace(frame, scale=watch.scale if watch else given)


def _by_figure(frame: Frame, given: Scale, watch: _Watch | None) -> _Watch:
    """Judge a pixel size by the frame's ruler; where there never was one, it stands on its own."""
    if watch and watch.still_holds(frame, given):
        return watch
    ruler = read_ruler(frame.pixels)
    if ruler:
        return _Watch(frame.sweep, given, ruler, ruler.strip(frame.pixels), scale_from_evidence(ruler, given))
    if watch and watch.ruler and (watch.sweep, watch.given) == (frame.sweep, given):
        return replace(watch, scale=_changed(given.origin), strip=watch.ruler.strip(frame.pixels))
    return _Watch(frame.sweep, given, None, None, given)


def _by_depth(frame: Frame, depth_mm: float, watch: _Watch | None) -> _Watch:
    """Find the pixel size by depth and ruler; a verdict is kept while the ruler stays the same."""
    if watch and watch.scale and watch.still_holds(frame, NOT_GIVEN):
        return watch
    scale, ruler = scale_from_depth(frame.pixels, depth_mm)
    strip = ruler.strip(frame.pixels) if ruler else None
    return _Watch(frame.sweep, NOT_GIVEN, ruler, strip, scale)


def _changed(origin: str) -> NoScale:
    return NoScale(
        f"the ruler on the picture changed after {origin} was confirmed by it; the depth or format changed: run this "
        "part apart with its own pixel size"
    )
