"""Pixel sizes from a table in HC18's layout: `filename,pixel size(mm)[,head circumference (mm)]`.

The layout is that of the HC18 challenge (van den Heuvel et al. 2018, doi 10.5281/zenodo.1327317).
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_devices.errors import ScaleError
from edgefetal_runtime.scale import Scale

if TYPE_CHECKING:
    from pathlib import Path

_NAME, _PIXEL_SIZE, _HC = "filename", "pixel size(mm)", "head circumference (mm)"


@dataclass(frozen=True)
class ScaleRow:
    """One row of the table.

    Args:
        scale: the picture's pixel size.
        hc_mm: the reference head circumference, or None where the table has none.
    """

    scale: Scale
    hc_mm: float | None


def _number(text: str | None, column: str, row_number: int, path: Path) -> float:
    try:
        return float(text or "")
    except ValueError:
        message = f"{path}, row {row_number}: {column!r} is {text!r}, not a number; mend the row."
        raise ScaleError(message) from None


def has_scale_columns(path: Path) -> bool:
    """Tell whether a file begins with the columns of a table of pixel sizes."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            names = {name.strip().lower() for name in next(csv.reader(stream, skipinitialspace=True), [])}
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return {_NAME, _PIXEL_SIZE} <= names


def read_scale_table(path: Path) -> dict[str, ScaleRow]:
    """Read the table, keyed by file name.

    Raises:
        ScaleError: the file is missing or not text, a column is missing, a figure is not a number or cannot be what
            its column says, or one file has two different rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            columns = {name.strip().lower(): name for name in reader.fieldnames or []}
            rows = [(reader.line_num, row) for row in reader]
            # More cells than columns: a decimal comma has cut a figure in two.
            wide = [number for number, row in rows if None in row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        message = f"{path} cannot be read as a table ({error}); give a CSV with the columns {_NAME},{_PIXEL_SIZE}."
        raise ScaleError(message) from error
    if _NAME not in columns or _PIXEL_SIZE not in columns:
        message = f"{path} lacks the columns {_NAME!r} and {_PIXEL_SIZE!r}; its first line is {','.join(columns)!r}."
        raise ScaleError(message)
    if wide:
        message = f"{path}, row {wide[0]}: there are more cells than columns; write figures with a decimal point."
        raise ScaleError(message)
    table: dict[str, ScaleRow] = {}
    for number, row in rows:
        name = (row[columns[_NAME]] or "").strip()
        size_mm = _number(row[columns[_PIXEL_SIZE]], _PIXEL_SIZE, number, path)
        hc_mm = _number(row[columns[_HC]], _HC, number, path) if _HC in columns else None
        if hc_mm is not None and not 0 < hc_mm < math.inf:
            message = f"{path}, row {number}: {_HC!r} is {hc_mm}, not a length; mend the row."
            raise ScaleError(message)
        entry = ScaleRow(Scale(size_mm, size_mm, origin=f"{path.name}, row {number}"), hc_mm)
        earlier = table.setdefault(name, entry)
        if (earlier.scale.x_mm_per_px, earlier.hc_mm) != (size_mm, hc_mm):
            message = f"{path}, row {number}: {name} stands twice with different figures; keep one row."
            raise ScaleError(message)
    return table
