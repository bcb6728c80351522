"""What the readers of datasets share: pictures, stacks, tables and hashes, with errors that name the file."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import math
import re
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_calibration.datasets.labelled import NOT_THE_PLANE, OPTIMAL, SUBOPTIMAL
from edgefetal_devices.errors import DatasetError, ScaleError, SourceError
from edgefetal_runtime.sources.metaimage import open_metaimage
from edgefetal_runtime.sources.picture import read_grey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.scale import Scale
    from edgefetal_runtime.sources.metaimage import MetaImageSource

# So many frames that show something tell one sweep from every other: speckle never comes twice.
_DIGEST_FRAMES = 16
# Names of files that stand in a table: they must not reach out of their folder.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@contextlib.contextmanager
def as_dataset_error() -> Iterator[None]:
    """Turn what is wrong with a file or a pixel size into what is wrong with the dataset.

    Raises:
        DatasetError: a file that is read in the body is missing, malformed or states an absurd pixel size.
    """
    try:
        yield
    except (SourceError, ScaleError) as error:
        raise DatasetError(str(error)) from error


@lru_cache(maxsize=16384)
def picture_digest(picture: Path) -> str:
    """SHA-256 of a picture's size and pixels.

    Raises:
        SourceError: it cannot be read.
    """
    pixels = read_grey(picture)
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def frames_digest(count: int, frames: Iterable[npt.NDArray[np.uint8]]) -> str:
    """SHA-256 of the number of an exam's frames, of their size, and of its first frames that are not of one grey.

    Args:
        count: frames of the exam.
        frames: as many of them as are asked for, each of shape (H, W).
    """
    digest = hashlib.sha256(f"{count}".encode())
    taken = 0
    for frame in frames:
        if frame.min() == frame.max():
            continue
        digest.update(f"{frame.shape}".encode() + np.ascontiguousarray(frame).tobytes())
        taken += 1
        if taken == _DIGEST_FRAMES:
            break
    return digest.hexdigest()


def bytes_digest(*paths: Path, extra: str = "") -> str:
    """SHA-256 of the bytes of files, and of a text.

    Raises:
        DatasetError: a file cannot be read.
    """
    digest = hashlib.sha256(extra.encode())
    for path in paths:
        digest.update(hashlib.sha256(_content(path)).digest())
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); restore it from the dataset.") from error


def open_stack(path: Path) -> MetaImageSource:
    """Read the header of a stack of frames.

    Raises:
        DatasetError: it is missing, malformed or not grey.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing; restore it from the dataset.")
    with as_dataset_error():
        stack = open_metaimage(path)
    if stack.layout.channels != 1:
        raise DatasetError(f"{path} has {stack.layout.channels} channels a pixel, not one; restore it.")
    return stack


def take(frames: Iterator[Frame], count: int, path: Path) -> npt.NDArray[np.uint8]:
    """Read the next frames of a source into one array, shape (count, H, W).

    Args:
        frames: what is left of the source.
        count: how many, at least 1.
        path: what is read, for the message.

    Raises:
        DatasetError: the source ends before, is damaged, or its frames are not of one size.
    """
    pixels: npt.NDArray[np.uint8] | None = None
    with as_dataset_error():
        for index in range(count):
            frame = next(frames, None)
            if frame is None:
                raise DatasetError(f"{path} ends after {index} of {count} frames; restore it.")
            if pixels is None:
                pixels = np.empty((count, *frame.pixels.shape), np.uint8)
            if frame.pixels.shape != pixels.shape[1:]:
                raise DatasetError(f"{path}: frame {index} is not of the size of the first; restore it.")
            pixels[index] = frame.pixels
    if pixels is None:
        raise DatasetError(f"{path} holds no frames; restore it.")
    return pixels


def take_labels(frames: Iterator[Frame], count: int, path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Read the next masks of a stack of 0, 1 (optimal) and 2 (suboptimal).

    Args:
        frames: what is left of the stack.
        count: how many, at least 1.
        path: what is read, for the message.

    Returns:
        The masks, shape (count, H, W), 0 or 1, and the frames' grades, shape (count,): optimal where a frame has both.

    Raises:
        DatasetError: the stack ends before, is damaged, or holds another value.
    """
    labels = take(frames, count, path)
    grades = np.full(count, NOT_THE_PLANE, np.uint8)
    for index, label in enumerate(labels):
        if not label.any():
            continue
        counts = np.bincount(label.ravel(), minlength=256)
        if counts[SUBOPTIMAL + 1 :].any():
            raise DatasetError(
                f"{path}: a mask holds {int(np.flatnonzero(counts)[-1])}, and only 0, {OPTIMAL} and {SUBOPTIMAL} mean "
                "something; restore it from the dataset."
            )
        grades[index] = OPTIMAL if counts[OPTIMAL] else SUBOPTIMAL if counts[SUBOPTIMAL] else NOT_THE_PLANE
    np.minimum(labels, 1, out=labels)
    return labels, grades


def refuse_other_size(images: MetaImageSource, labels: MetaImageSource) -> None:
    """Refuse masks that cannot be of the pictures.

    Raises:
        DatasetError: the stacks differ in the number or the size of their frames; the message names both.
    """
    shapes = [(s.layout.frame_count, s.layout.height_px, s.layout.width_px) for s in (images, labels)]
    if shapes[0] != shapes[1]:
        raise DatasetError(
            f"{labels.path} is {shapes[1]} and {images.path} is {shapes[0]} (frames, rows, columns); restore both from "
            "the dataset."
        )


def exact(scale: Scale) -> Scale:
    """Return a dataset's pixel size without its uncertainty.

    The references are in the same millimetres, so an error of the pixel size is in both and shows in no difference.
    """
    return replace(scale, relative_uncertainty=0.0)


@lru_cache(maxsize=4096)
def stack_digest(path: Path) -> str:
    """SHA-256 of a stack's size and first frames.

    Raises:
        DatasetError: it is missing or damaged.
    """
    stack = open_stack(path)
    with as_dataset_error():
        return frames_digest(stack.frame_count, (frame.pixels for frame in stack.frames()))


def read_table(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> list[tuple[int, dict[str, str]]]:
    """Read a table with named columns; cells and names are stripped of blanks.

    Args:
        path: the file.
        columns: those that it must have.
        delimiter: between cells.

    Returns:
        Each row's line number, from 1, and its cells by column; a cell that the row lacks is empty.

    Raises:
        DatasetError: the file is missing or no text, lacks a column, or has a row of more cells than columns.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, delimiter=delimiter)
            names = [name.strip() for name in next(reader, [])]
            lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as a table ({error}); restore it from the dataset.") from error
    missing = [name for name in columns if name not in names]
    if missing:
        raise DatasetError(f"{path} lacks the column {missing[0]!r}; its first line must name {', '.join(columns)}.")
    if len(set(names)) < len(names):
        raise DatasetError(f"{path} names a column twice; its first line must name each once.")
    rows = []
    for number, cells in lines:
        if len(cells) > len(names):
            raise DatasetError(f"{path}, row {number}: there are more cells than columns; mend the row.")
        padded = [*(cell.strip() for cell in cells), *[""] * (len(names) - len(cells))]
        rows.append((number, dict(zip(names, padded, strict=True))))
    return rows


def plain_name(row: Mapping[str, str], column: str, number: int, path: Path) -> str:
    """Return a cell that names a file or a subject.

    Raises:
        DatasetError: it is empty, or is no plain name.
    """
    name = row[column]
    if not _PLAIN_NAME.fullmatch(name):
        raise DatasetError(
            f"{path}, row {number}: {column} is {name[:80]!r}, and must be a name of letters, digits and ._- only; "
            "mend the row."
        )
    return name


def length(row: Mapping[str, str], column: str, number: int, path: Path) -> float | None:
    """Return a cell that holds a length above zero, or None where it is empty.

    Raises:
        DatasetError: it holds something else.
    """
    text = row[column]
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise DatasetError(f"{path}, row {number}: {column} is {text[:40]!r}, which is no length; mend the row.")
    return value
