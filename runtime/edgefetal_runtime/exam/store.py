"""Writing an examination to disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2

from edgefetal_devices.errors import OutputError
from edgefetal_runtime.atomic import write_folder

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_runtime.exam.pipeline import ExamResult

RECORD = "exam.json"


def write_exam(result: ExamResult, folder: Path) -> None:
    """Write the record and its pictures, all or none.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    files = {RECORD: (result.exam.model_dump_json(indent=1) + "\n").encode()}
    for name, picture in result.overlays.items():
        encoded, content = cv2.imencode(".png", picture)
        if not encoded:
            message = f"{folder / name} cannot be encoded as PNG; check the memory of the machine and try again."
            raise OutputError(message)
        files[name] = content.tobytes()
    write_folder(folder, files)
