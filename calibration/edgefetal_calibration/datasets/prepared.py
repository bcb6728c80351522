"""Frames kept on disk at the network's size, from which training reads at random without decoding a sweep again.

pictures.u8   one picture after another, as `place` makes them
masks.u8      the masks of each, as `place_mask` makes them
journal.jsonl which exams are in them so far; only while they are being filled
index.json    what they hold; written last, so that a folder without it is unfinished
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from edgefetal_calibration.datasets.masks import place_mask
from edgefetal_devices.errors import DatasetError, OutputError
from edgefetal_runtime.atomic import write_file
from edgefetal_runtime.infer.preprocess import PreprocessSpec, place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgefetal_calibration.datasets.choice import FrameChoice
    from edgefetal_calibration.datasets.labelled import LabelledExam, LabelledSweep

PICTURES, MASKS, JOURNAL, INDEX = "pictures.u8", "masks.u8", "journal.jsonl", "index.json"
# Goes up whenever the same data and settings give other bytes.
_VERSION = 1
_BLOCK_BYTES = 1 << 22
Pixels = npt.NDArray[np.uint8]


class FrameRow(BaseModel):
    """What is known of a prepared frame.

    Args:
        exam: name of its exam.
        subject: whose it is.
        sweep: name of its sweep.
        index: its number within the sweep, from 0.
        plane: the plane that it shows, or None where nobody said.
        grade: its grade, or None where nobody graded.
        labelled: those structures whose mask is known; the masks of the others are black and mean nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    exam: str
    subject: str
    sweep: str
    index: NonNegativeInt
    plane: str | None
    grade: NonNegativeInt | None
    labelled: tuple[str, ...]


class _Entry(BaseModel):
    """A line of the journal: the frames of one exam."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    rows: tuple[FrameRow, ...]


class _Index(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    sums: dict[str, int]
    rows: tuple[FrameRow, ...]


@dataclass(frozen=True, eq=False)
class PreparedFrames:
    """Frames at the network's size.

    Args:
        spec: how they were placed; `normalise` with it turns pictures into what the network expects.
        structures: of the masks, in order.
        pictures: shape (N, h, w), uint8, on disk.
        masks: share of each pixel that the structure covers, shape (N, S, h, w), uint8, 0 to 255, on disk.
        rows: what is known of each frame.
    """

    spec: PreprocessSpec
    structures: tuple[str, ...]
    pictures: Pixels
    masks: Pixels
    rows: tuple[FrameRow, ...]


def prepare(
    exams: Sequence[LabelledExam],
    spec: PreprocessSpec,
    structures: Sequence[str],
    folder: Path,
    *,
    choose: FrameChoice,
    advance: Callable[[], None] = lambda: None,
) -> PreparedFrames:
    """Bring the chosen frames of exams to the network's size and keep them in a folder.

    A folder that was filled from the same exams with the same labels, settings and choice is used as it is, and one
    that was left unfinished is gone on with, exam by exam. One process fills a folder; others call this after it.

    Args:
        exams: in the order of the rows.
        spec: the network's preprocessing.
        structures: whose masks are wanted.
        folder: where the frames are kept; made if need be.
        choose: which frames of each sweep are taken.
        advance: called after each exam.

    Raises:
        DatasetError: the folder holds something else or is damaged, an exam cannot be read, or no frame was chosen.
        OutputError: the folder cannot be written.
    """
    structures = tuple(structures)
    key = _key(exams, spec, structures, choose)
    if (folder / INDEX).is_file():
        prepared = _open(folder, key, spec, structures)
        for _ in exams:
            advance()
        return prepared
    _refuse_foreign(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rows = _fill(exams, spec, structures, folder, key, choose, advance)
        if not rows:
            raise DatasetError("No frame of these exams was chosen for training; choose others, or give other exams.")
        index = _Index(key=key, sums={name: _sum(folder / name) for name in (PICTURES, MASKS)}, rows=tuple(rows))
        write_file(folder / INDEX, index.model_dump_json().encode())
        (folder / JOURNAL).unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}); check space and permissions.") from error
    return _mapped(folder, spec, structures, index.rows)


def _key(exams: Sequence[LabelledExam], spec: PreprocessSpec, structures: tuple[str, ...], choose: FrameChoice) -> str:
    """Hash over all that decides what the frames are."""
    said = {
        "version": _VERSION,
        "spec": spec.model_dump(),
        "structures": structures,
        "choice": choose.name,
        "exams": [[exam.name, exam.subject, exam.digest(), exam.labels_digest()] for exam in exams],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds anything but what this module writes.

    Raises:
        DatasetError: it does; nothing of it is touched.
    """
    own = {PICTURES, MASKS, JOURNAL, f".{INDEX}.partial"}
    try:
        others = sorted(path.name for path in folder.iterdir() if path.name not in own) if folder.exists() else []
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be used ({error.strerror}); name a folder that can be written to."
        ) from error
    if others:
        raise DatasetError(f"{folder} holds {others[0]!r}, so it is not for prepared frames; name another folder.")


def _read_journal(folder: Path, key: str) -> list[_Entry]:
    """Return what was filled in so far.

    Raises:
        DatasetError: it is of other exams or settings, or damaged.
    """
    path = folder / JOURNAL
    if not path.is_file():
        return []
    # A run that was ended in the middle of a line never finished that exam.
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        entries = [_Entry.model_validate_json(line) for line in lines]
    except ValidationError as error:
        raise _damaged(folder) from error
    if any(entry.key != key for entry in entries):
        raise _other(folder)
    return entries


def _damaged(folder: Path) -> DatasetError:
    return DatasetError(f"{folder} is damaged; remove it, and its frames are prepared again.")


def _other(folder: Path) -> DatasetError:
    return DatasetError(
        f"{folder} holds frames that were prepared from other exams, labels or settings; name another folder, or "
        "remove it, and the frames are prepared anew."
    )


def _fill(
    exams: Sequence[LabelledExam],
    spec: PreprocessSpec,
    structures: tuple[str, ...],
    folder: Path,
    key: str,
    choose: FrameChoice,
    advance: Callable[[], None],
) -> list[FrameRow]:
    """Write the frames of all exams that the journal does not name yet; return the rows of all."""
    done = _read_journal(folder, key)
    rows = [row for entry in done for row in entry.rows]
    size = spec.height_px * spec.width_px
    for _ in done:
        advance()
    with (
        _at(folder / PICTURES, len(rows) * size) as pictures,
        _at(folder / MASKS, len(rows) * size * len(structures)) as masks,
        # What stands after the last whole line is of an exam that was not finished.
        _at(folder / JOURNAL, sum(len(_line(entry)) for entry in done)) as journal,
    ):
        for exam in exams[len(done) :]:
            added = []
            for sweep in exam.sweeps():
                for index in choose(sweep).tolist():
                    pictures.write(place(sweep.pixels[index], spec)[0].data)
                    masks.write(_masks(sweep, index, spec, structures).data)
                    added.append(_row(exam, sweep, index, structures))
            # The journal must not reach the disk before what it tells of.
            for stream in (pictures, masks):
                stream.flush()
                os.fsync(stream.fileno())
            journal.write(_line(_Entry(key=key, rows=tuple(added))))
            journal.flush()
            os.fsync(journal.fileno())
            rows += added
            advance()
    return rows


def _line(entry: _Entry) -> bytes:
    return entry.model_dump_json().encode() + b"\n"


def _at(path: Path, size: int) -> IO[bytes]:
    """Open a file to go on after its first `size` bytes.

    Raises:
        DatasetError: it is shorter.
    """
    path.touch()
    stream = path.open("r+b")
    if stream.seek(0, os.SEEK_END) < size:
        stream.close()
        raise _damaged(path.parent)
    stream.truncate(size)
    stream.seek(size)
    return stream


def _masks(sweep: LabelledSweep, index: int, spec: PreprocessSpec, structures: tuple[str, ...]) -> Pixels:
    """Return a frame's masks at the network's size, shape (S, h, w)."""
    placed = np.zeros((len(structures), spec.height_px, spec.width_px), np.uint8)
    for channel, structure in enumerate(structures):
        if structure in sweep.masks:
            placed[channel] = place_mask(sweep.masks[structure][index], spec)
    return placed


def _row(exam: LabelledExam, sweep: LabelledSweep, index: int, structures: tuple[str, ...]) -> FrameRow:
    return FrameRow(
        exam=exam.name,
        subject=exam.subject,
        sweep=sweep.name,
        index=index,
        plane=None if sweep.planes is None else sweep.planes[index],
        grade=None if sweep.grades is None else int(sweep.grades[index]),
        labelled=tuple(structure for structure in structures if structure in sweep.masks),
    )


def _sum(path: Path) -> int:
    """CRC-32 of a file: enough against a bad disk or a copy that was cut short, and ten times as fast as SHA-256."""
    total = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            total = zlib.crc32(block, total)
    return total


def _open(folder: Path, key: str, spec: PreprocessSpec, structures: tuple[str, ...]) -> PreparedFrames:
    """Open a finished folder.

    Raises:
        DatasetError: it is of other exams or settings, or damaged.
    """
    try:
        index = _Index.model_validate_json((folder / INDEX).read_bytes())
    except (OSError, ValidationError) as error:
        raise _damaged(folder) from error
    if index.key != key:
        raise _other(folder)
    size = len(index.rows) * spec.height_px * spec.width_px
    try:
        for name, expected in ((PICTURES, size), (MASKS, size * len(structures))):
            path = folder / name
            if path.stat().st_size != expected or _sum(path) != index.sums.get(name):
                raise _damaged(folder)
    except OSError as error:
        raise _damaged(folder) from error
    return _mapped(folder, spec, structures, index.rows)


def _mapped(
    folder: Path, spec: PreprocessSpec, structures: tuple[str, ...], rows: tuple[FrameRow, ...]
) -> PreparedFrames:
    def read(name: str, shape: tuple[int, ...]) -> Pixels:
        # An empty file cannot be mapped.
        mapped: Any = (
            np.memmap(folder / name, np.uint8, "r", shape=shape) if np.prod(shape) else np.zeros(shape, np.uint8)
        )
        return mapped  # type: ignore[no-any-return]

    n, h, w = len(rows), spec.height_px, spec.width_px
    return PreparedFrames(spec, structures, read(PICTURES, (n, h, w)), read(MASKS, (n, len(structures), h, w)), rows)
