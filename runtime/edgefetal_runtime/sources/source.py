"""How a path becomes a source."""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING

from edgefetal_devices.errors import ScaleError, SourceError
from edgefetal_runtime.scale import NOT_GIVEN, refuse_conflict
from edgefetal_runtime.sources.dicom import DICOM_SUFFIXES, has_dicom_mark, open_dicom
from edgefetal_runtime.sources.metaimage import METAIMAGE_SUFFIXES, open_metaimage
from edgefetal_runtime.sources.picture import PICTURE_SUFFIXES
from edgefetal_runtime.sources.protocol import Source
from edgefetal_runtime.sources.scale_table import has_scale_columns, read_scale_table
from edgefetal_runtime.sources.scale_wish import NO_WISH, ScaleWish, WishedSource
from edgefetal_runtime.sources.still import StillSource
from edgefetal_runtime.sources.video import VIDEO_SUFFIXES, VideoSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgefetal_runtime.scale import NoScale, Scale

__all__ = ["Source", "open_source"]

# HC18 keeps its masks beside its pictures.
_ANNOTATION_SUFFIX = "_Annotation"
# macOS leaves a shadow of every file on a memory stick.
_MAC_SHADOW = "._"


def open_source(path: Path, wish: ScaleWish = NO_WISH) -> Source:
    """Open a PNG or JPEG picture, a folder of them, a video, a MetaImage or an ultrasound DICOM file.

    Every picture of a folder is a sweep of its own, because nothing says that they show the same patient. Its pixel
    size comes from the wish, or from a table in HC18's layout that lies in the folder or, named
    `<folder>_pixel_size*.csv`, beside it. A video, a MetaImage and each region of a DICOM file is one sweep. A file
    that states its own pixel size keeps it, and a wish must agree with it; a ruler on its frames that contradicts it
    voids it.

    Args:
        path: what to open.
        wish: what the user says of the pixel size.

    Raises:
        SourceError: the path is missing, empty, or of no known kind.
        ScaleError: the table is malformed or lacks a picture, or the file's own pixel size contradicts the wish.
    """
    # `os.path` answers False for a name that no disk takes; `Path` raises.
    if os.path.isdir(path):  # noqa: PTH112
        return WishedSource(_folder(path, wish), wish)
    if not os.path.isfile(path):  # noqa: PTH113
        message = f"{path} does not exist; give a picture, a folder of pictures, a video, MetaImage or DICOM file."
        raise SourceError(message)
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        scale = _table_scales([path], wish.table)[path]
        return WishedSource(StillSource("still", ((path, scale),)), wish)
    if wish.table is not None:
        message = f"--scale-csv names pictures; give the pixel size of {path.name} with --mm-per-px."
        raise ScaleError(message)
    if suffix in VIDEO_SUFFIXES:
        return WishedSource(VideoSource(path), wish)
    if suffix in METAIMAGE_SUFFIXES:
        image = open_metaimage(path)
        return _with_own_scale(image, (image.scale,), wish)
    if suffix in DICOM_SUFFIXES or has_dicom_mark(path):
        dicom = open_dicom(path)
        if dicom.spacing and (figure := wish.figure()):
            refuse_conflict(dicom.spacing, figure)
        return _with_own_scale(dicom, tuple(region.scale for region in dicom.regions), wish)
    known = " ".join((*PICTURE_SUFFIXES, *VIDEO_SUFFIXES, *METAIMAGE_SUFFIXES, *DICOM_SUFFIXES))
    message = f"{path} is of no kind that can be read ({known}); convert it first."
    raise SourceError(message)


def is_recording(path: Path) -> bool:
    """Say whether a file is of a kind that `open_source` reads, by its name or DICOM's mark; HC18's masks are not."""
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return _is_picture(path)
    known = suffix in (*VIDEO_SUFFIXES, *METAIMAGE_SUFFIXES, *DICOM_SUFFIXES)
    return (known and not path.name.startswith(_MAC_SHADOW)) or has_dicom_mark(path)


def _is_picture(path: Path) -> bool:
    """Say whether a file is named as a picture, and neither as a mask of HC18's nor as a shadow."""
    return (
        path.suffix.lower() in PICTURE_SUFFIXES
        and not path.stem.endswith(_ANNOTATION_SUFFIX)
        and not path.name.startswith(_MAC_SHADOW)
    )


def _with_own_scale(source: Source, scales: tuple[Scale | NoScale, ...], wish: ScaleWish) -> Source:
    """Keep the pixel sizes that a file states; without any, the wish is asked.

    Raises:
        ScaleError: they contradict the wish.
    """
    own = [scale for scale in scales if scale]
    if not own:
        return WishedSource(source, wish)
    figure = wish.figure()
    for scale in own:
        if figure:
            refuse_conflict(scale, figure)
        if wish.depth_mm is not None:
            message = f"The pixel size is stated already ({scale.origin}); leave --depth-mm out."
            raise ScaleError(message)
    return WishedSource(source, NO_WISH, stated_by_file=True)


def _folder(path: Path, wish: ScaleWish) -> StillSource:
    pictures = sorted(file for file in path.iterdir() if _is_picture(file))
    if not pictures:
        message = f"{path} holds no PNG or JPEG pictures; give the folder that holds them."
        raise SourceError(message)
    # What is said on the command line goes before a table that lies about.
    asked = wish.figure() is not None or wish.depth_mm is not None
    table = wish.table or (None if asked else _table_of(path))
    return StillSource("folder", tuple(_table_scales(pictures, table).items()))


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


def _table_scales(pictures: Sequence[Path], table_path: Path | None) -> dict[Path, Scale | NoScale]:
    """Look up every picture's pixel size; without a table none has one.

    Raises:
        ScaleError: a picture has no row.
    """
    if table_path is None:
        return dict.fromkeys(pictures, NOT_GIVEN)
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
