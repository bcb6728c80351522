"""What every source offers, and how a path becomes one."""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING, Protocol

from edgefetal_devices.errors import ScaleError, SourceError
from edgefetal_runtime.sources.picture import PICTURE_SUFFIXES
from edgefetal_runtime.sources.scale_table import has_scale_columns, read_scale_table
from edgefetal_runtime.sources.still import StillSource
from edgefetal_runtime.sources.video import VIDEO_SUFFIXES, VideoSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.scale import Scale

# HC18 keeps its masks beside its pictures.
_ANNOTATION_SUFFIX = "_Annotation"
# macOS leaves a shadow of every file on a memory stick.
_MAC_SHADOW = "._"


class Source(Protocol):
    """Frames in order, one sweep after another."""

    @property
    def kind(self) -> str:
        """Return what it is, for the exam record: `still`, `folder` or `video`."""

    @property
    def frame_count(self) -> int | None:
        """Return how many frames it announces, or None where it does not say."""

    def frames(self) -> Iterator[Frame]:
        """Yield the frames; those of one sweep follow one another.

        Raises:
            SourceError: a frame cannot be read.
        """


def open_source(path: Path, *, scale: Scale | None, scale_csv: Path | None) -> Source:
    """Open a PNG or JPEG picture, a folder of them, or a video file.

    Every picture of a folder is a sweep of its own, because nothing says that they show the same patient. Its pixel
    sizes come from `scale`, from `scale_csv`, or from a table in HC18's layout that lies in the folder or, named
    `<folder>_pixel_size*.csv`, beside it. A video is one sweep.

    Args:
        path: what to open.
        scale: pixel size of every frame, or None.
        scale_csv: table of pixel sizes by file name, or None.

    Raises:
        SourceError: the path is missing, empty, or of no known kind.
        ScaleError: both kinds of scale were given, or the table is malformed or lacks a picture.
    """
    if scale is not None and scale_csv is not None:
        message = "--mm-per-px and --scale-csv were both given; keep the one that is right."
        raise ScaleError(message)
    # `os.path` answers False for a name that no disk takes; `Path` raises.
    if os.path.isdir(path):  # noqa: PTH112
        return _folder(path, scale, scale_csv)
    if not os.path.isfile(path):  # noqa: PTH113
        message = f"{path} does not exist; give a picture, a folder of pictures or a video file."
        raise SourceError(message)
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return StillSource("still", ((path, scale or _table_scales([path], scale_csv)[path]),))
    if suffix in VIDEO_SUFFIXES:
        if scale_csv is not None:
            message = f"--scale-csv names pictures; give the pixel size of the video {path.name} with --mm-per-px."
            raise ScaleError(message)
        return VideoSource(path, scale)
    known = " ".join((*PICTURE_SUFFIXES, *VIDEO_SUFFIXES))
    message = f"{path} is of no kind that can be read ({known}); convert it first."
    raise SourceError(message)


def _folder(path: Path, scale: Scale | None, scale_csv: Path | None) -> StillSource:
    pictures = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in PICTURE_SUFFIXES
        and not file.stem.endswith(_ANNOTATION_SUFFIX)
        and not file.name.startswith(_MAC_SHADOW)
    )
    if not pictures:
        message = f"{path} holds no PNG or JPEG pictures; give the folder that holds them."
        raise SourceError(message)
    if scale is not None:
        return StillSource("folder", tuple((picture, scale) for picture in pictures))
    found = scale_csv or _table_of(path)
    scales = _table_scales(pictures, found)
    return StillSource("folder", tuple(scales.items()))


def _table_of(folder: Path) -> Path | None:
    """Find the one table of pixel sizes in or beside a folder, if there is one.

    Raises:
        ScaleError: there are several, and it is not for us to choose.
    """
    candidates = [
        *sorted(folder.glob("*.csv")),
        *sorted(folder.absolute().parent.glob(f"{glob.escape(folder.absolute().name)}_pixel_size*.csv")),
    ]
    tables = [table for table in candidates if has_scale_columns(table)]
    if len(tables) > 1:
        message = f"Several tables could give pixel sizes ({', '.join(map(str, tables))}); name one with --scale-csv."
        raise ScaleError(message)
    return tables[0] if tables else None


def _table_scales(pictures: Sequence[Path], table_path: Path | None) -> dict[Path, Scale | None]:
    """Look up every picture's pixel size; without a table none has one.

    Raises:
        ScaleError: a picture has no row.
    """
    if table_path is None:
        return dict.fromkeys(pictures)
    table = read_scale_table(table_path)
    missing = [picture.name for picture in pictures if picture.name not in table]
    if missing:
        message = (
            f"{table_path} has no row for {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + "; add the row, or give the pixel size with --mm-per-px."
        )
        raise ScaleError(message)
    return {picture: table[picture.name].scale for picture in pictures}
