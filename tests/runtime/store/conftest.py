"""What the tests of the store share: its helpers can be imported by their names, and a quick place for disks."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of reopenings need no real syncs, which the log stands for."""
    memory = Path("/dev/shm")  # noqa: S108 - not a name that others could take: a fresh folder is made in it
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def shimmed() -> None:
    """Skip where Python's SQLite is not a library of its own, whose writes could be watched."""
    from sqlite_shim import sqlite_library

    if sqlite_library() is None:
        pytest.skip("Python's sqlite3 has SQLite built in, so its writes cannot be watched")


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print what the run must show, past pytest's capture: how many faults, and how they ended."""

    def shown(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")  # noqa: T201 - docs/store.md has these figures

    return shown
