"""Writing an examination to a folder."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from edgefetal_runtime.atomic import as_output_error, new_folder, sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgefetal_runtime.exam.pipeline import ExamResult
    from edgefetal_runtime.exam.record import Exam

RECORD = "exam.json"


class ExamFolder:
    """A folder that fills while an examination runs; it has no name before the record is in it."""

    def __init__(self, partial: Path) -> None:
        """Take over an empty folder."""
        self._partial = partial

    def add(self, name: str, content: bytes) -> None:
        """Write a picture or another file.

        Raises:
            OutputError: it cannot be written.
        """
        path = self._partial / name
        with as_output_error(path):
            path.write_bytes(content)
            sync(path)

    def finish(self, exam: Exam) -> None:
        """Write the record.

        Raises:
            OutputError: it cannot be written.
        """
        self.add(RECORD, (exam.model_dump_json(indent=1) + "\n").encode())


@contextlib.contextmanager
def exam_folder(folder: Path) -> Iterator[ExamFolder]:
    """Give a folder to fill; it appears whole, under its own name, when the body is over, or not at all.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    with new_folder(folder) as partial:
        yield ExamFolder(partial)


def write_exam(result: ExamResult, folder: Path, beside: Mapping[str, bytes] | None = None) -> None:
    """Write the record and its pictures, all or none.

    Args:
        result: what to write.
        folder: where; must not exist.
        beside: further files by name.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    with exam_folder(folder) as files:
        for name, content in {**(beside or {}), **result.overlays}.items():
            files.add(name, content)
        files.finish(result.exam)
