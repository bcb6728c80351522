"""Writing an examination to disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefetal_runtime.atomic import write_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgefetal_runtime.exam.pipeline import ExamResult

RECORD = "exam.json"


def write_exam(result: ExamResult, folder: Path, beside: Mapping[str, bytes] | None = None) -> None:
    """Write the record and its pictures, all or none.

    Args:
        result: what to write.
        folder: where; must not exist.
        beside: further files by name.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    record = (result.exam.model_dump_json(indent=1) + "\n").encode()
    write_folder(folder, {**(beside or {}), **result.overlays, RECORD: record})
