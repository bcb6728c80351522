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
# A ruler may be switched on, or come free of what hid it, while a video runs. Once a second at 25 to 30 frames a second
# loses little of a sweep, and a reading along both axes (some 40 ms on a desk for a noisy 1280 x 720) costs each frame
# less than 2 ms.
SEARCH_EVERY_FRAMES = 30


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
class _Sight:
    """What was last seen along one axis of the picture.

    Args:
        ruler: its ruler, or None where none was ever read.
        strip: brightness along the ruler.
        lost: the ruler was read, and then its strip changed and it could not be read again.
    """

    ruler: Ruler | None = None
    strip: npt.NDArray[np.float64] | None = None
    lost: bool = False

    def still_holds(self, pixels: npt.NDArray[np.uint8]) -> bool:
        """Tell whether a picture shows the same ruler, so that it need not be read again."""
        if self.ruler is None or self.strip is None:
            return True
        strip = self.ruler.strip(pixels)
        if strip.shape != self.strip.shape or not strip.std() or not self.strip.std():
            return False
        return float(np.corrcoef(strip, self.strip)[0, 1]) >= _SAME_STRIP


@dataclass(frozen=True, eq=False)
class _Watch:
    """What the rulers of the last frame said.

    Args:
        sweep: whose frame it was.
        given: the pixel size from elsewhere that was judged, if any.
        down: what was seen down the picture.
        across: what was seen across it.
        searched_at: index of the frame on which rulers were last looked for where there were none.
        scale: the verdict.
    """

    sweep: str
    given: Scale | NoScale
    down: _Sight
    across: _Sight
    searched_at: int
    scale: Scale | NoScale


@dataclass(frozen=True)
class WishedSource:
    """A source of pictures, each with the scale that comes of the wish and of the rulers on it.

    Rulers down and across the picture are read where a sweep begins, looked for every `SEARCH_EVERY_FRAMES` along an
    axis where there was none, and read again when their strip changes. From the frame on which it is read, a ruler
    confirms the scale along its axis or voids it. One that changes within a sweep and cannot be read any more voids the
    scale: the format changed. With `--depth-mm`, the ruler down the picture is looked for on every frame until there is
    a scale.

    Args:
        source: the pictures, with scales of their own from a table or their file, or without.
        wish: what the user says.
        stated_by_file: the scales are those of the file itself (MetaImage, DICOM): only a ruler that contradicts them
            changes anything.
    """

    source: Source
    wish: ScaleWish
    stated_by_file: bool = False

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
                watch = _by_figure(frame, given, watch, stated_by_file=self.stated_by_file)
            else:
                watch = None
            yield replace(frame, scale=watch.scale if watch else given)


def _by_figure(frame: Frame, given: Scale, watch: _Watch | None, *, stated_by_file: bool) -> _Watch:
    """Judge a pixel size by the frame's rulers; as long as there were none, it stands on its own."""
    last = watch if watch and (watch.sweep, watch.given) == (frame.sweep, given) else None
    due = last is None or frame.index - last.searched_at >= SEARCH_EVERY_FRAMES
    down = _look(frame.pixels, "y", last.down if last else None, due=due)
    across = _look(frame.pixels, "x", last.across if last else None, due=due)
    if last and not due and (down, across) == (last.down, last.across):
        return last
    scale = scale_from_evidence([sight.ruler for sight in (down, across) if sight.ruler and not sight.lost], given)
    if scale and stated_by_file:
        # What the file states is not for a lost ruler to void, and one that had contradicted it is not forgotten.
        scale = last.scale if last and (down.lost or across.lost) else given
    elif scale and (down.lost or across.lost):
        scale = _changed(given.origin)
    return _Watch(frame.sweep, given, down, across, frame.index if due or not last else last.searched_at, scale)


def _look(pixels: npt.NDArray[np.uint8], axis: str, last: _Sight | None, *, due: bool) -> _Sight:
    """Read the ruler along an axis where it is due or the last one changed."""
    if last and last.still_holds(pixels) and (last.ruler or not due):
        return last
    ruler = read_ruler(pixels, axis)
    if ruler:
        return _Sight(ruler, ruler.strip(pixels))
    if last and last.ruler:
        return _Sight(last.ruler, last.ruler.strip(pixels), lost=True)
    return last or _Sight()


def _by_depth(frame: Frame, depth_mm: float, watch: _Watch | None) -> _Watch:
    """Find the pixel size by depth and ruler; a verdict is kept while the ruler stays the same."""
    if watch and watch.scale and watch.sweep == frame.sweep and watch.down.still_holds(frame.pixels):
        return watch
    scale, ruler = scale_from_depth(frame.pixels, depth_mm)
    down = _Sight(ruler, ruler.strip(frame.pixels)) if ruler else _Sight()
    return _Watch(frame.sweep, NOT_GIVEN, down, _Sight(), frame.index, scale)


def _changed(origin: str) -> NoScale:
    return NoScale(
        f"the ruler on the picture changed after it was read beside {origin}; the depth or format changed: run this "
        "part apart with its own pixel size"
    )
