"""One's own pictures: a folder with a table `labels.csv` that says what they show.

    file,subject,plane,grade,abdomen_mask,x_mm_per_px,y_mm_per_px
    a/001.png,P1,abdomen,1,a/001_mask.png,0.2,0.2
    a/002.png,P1,none,0,none,0.2,0.2

Only `file` and `subject` must be there. `quality` (1 or 0) may stand in place of `grade` (0 not the plane, 1 optimal,
2 suboptimal). A mask is a picture, white inside; `none` says that the structure was looked for and is not there, and an
empty cell that nobody looked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgefetal_calibration.datasets.files import exact, length, plain_name, read_table
from edgefetal_calibration.datasets.labelled import NOT_THE_PLANE, OPTIMAL, SUBOPTIMAL
from edgefetal_calibration.datasets.pictures import PictureExam
from edgefetal_devices.errors import DatasetError, ScaleError
from edgefetal_runtime.infer.bundle import ABDOMEN, FEMUR, HEAD, NO_PLANE
from edgefetal_runtime.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LICENCE = "as its owner says"
ATTRIBUTION = "a folder of one's own pictures"

KIND = "folder"
TABLE = "labels.csv"
_STRUCTURES: Final = (HEAD, ABDOMEN, FEMUR)
_PLANES: Final = (*_STRUCTURES, NO_PLANE)
_GRADES: Final = tuple(str(grade) for grade in (NOT_THE_PLANE, OPTIMAL, SUBOPTIMAL))
_QUALITIES: Final = ("0", "1")
_ABSENT = "none"
_COLUMNS: Final = ("plane", "quality", "grade", "x_mm_per_px", "y_mm_per_px", *(f"{s}_mask" for s in _STRUCTURES))


def read_folder(root: Path) -> list[PictureExam]:
    """List the pictures that a folder's `labels.csv` names, by file name.

    Raises:
        DatasetError: there is no such table, a file that it names is missing or lies elsewhere, or a row is malformed
            or stands twice; the message names file and row.
    """
    table = root / TABLE
    if not table.is_file():
        raise DatasetError(f"{root} has no {TABLE}; write one with the columns file,subject and what is known besides.")
    exams: dict[str, PictureExam] = {}
    for number, row in read_table(table, ("file", "subject")):
        where = f"{table}, row {number}"
        cells = {column: row.get(column, "") for column in _COLUMNS}
        name = row["file"]
        if name in exams:
            raise DatasetError(f"{where}: {name} stands twice; keep one row.")
        exams[name] = PictureExam(
            name=name,
            subject=f"{KIND}/{plain_name(row, 'subject', number, table)}",
            picture=_file(root, name, "file", where),
            row=where,
            plane=_one_of(cells, "plane", _PLANES, where),
            grade=_grade(cells, where),
            scale=_scale(cells, number, table),
            masks={
                structure: None if cell == _ABSENT else _file(root, cell, f"{structure}_mask", where)
                for structure in _STRUCTURES
                if (cell := cells[f"{structure}_mask"])
            },
        )
    if not exams:
        raise DatasetError(f"{table} has no rows; name the pictures in it.")
    return [exams[name] for name in sorted(exams)]


def _file(root: Path, name: str, column: str, where: str) -> Path:
    path = root / name
    try:
        inside = bool(name) and path.resolve().is_relative_to(root.resolve())
        present = inside and path.is_file()
    except (OSError, ValueError):
        inside = present = False
    if not inside:
        raise DatasetError(f"{where}: {column} is {name[:80]!r}, which does not lie in {root}; put the file there.")
    if not present:
        raise DatasetError(f"{where}: {path} is missing; put the file there or mend the row.")
    return path


def _one_of(cells: Mapping[str, str], column: str, choices: tuple[str, ...], where: str) -> str | None:
    cell = cells[column]
    if cell and cell not in choices:
        raise DatasetError(f"{where}: {column} is {cell[:40]!r}, and must be one of {', '.join(choices)}; mend it.")
    return cell or None


def _grade(cells: Mapping[str, str], where: str) -> int | None:
    grade, quality = _one_of(cells, "grade", _GRADES, where), _one_of(cells, "quality", _QUALITIES, where)
    if grade is not None and quality is not None and (int(grade) != NOT_THE_PLANE) != bool(int(quality)):
        raise DatasetError(f"{where}: grade {grade} and quality {quality} contradict each other; keep the right one.")
    if grade is not None:
        return int(grade)
    return None if quality is None else OPTIMAL if int(quality) else NOT_THE_PLANE


def _scale(cells: Mapping[str, str], number: int, table: Path) -> Scale | None:
    x_mm, y_mm = (length(cells, column, number, table) for column in ("x_mm_per_px", "y_mm_per_px"))
    if x_mm is None and y_mm is None:
        return None
    if x_mm is None or y_mm is None:
        raise DatasetError(f"{table}, row {number}: x_mm_per_px and y_mm_per_px must both be given, or neither.")
    try:
        return exact(Scale(x_mm, y_mm, origin=f"{table.name}, row {number}"))
    except ScaleError as error:
        raise DatasetError(f"{table}: {error}") from error
