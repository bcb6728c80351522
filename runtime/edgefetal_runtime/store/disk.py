"""The one door to the disk: every change that the store makes outside of SQLite is a method here.

Tests put their faults and their log of writes in a subclass. Each method is one step that a power cut falls before or
after; which of them are on the disk is only sure after `sync`.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from edgefetal_runtime import atomic

if TYPE_CHECKING:
    from pathlib import Path

# The store holds what is known of patients: nobody else on the machine may read it.
_FILE_MODE = 0o600
_FOLDER_MODE = 0o700


class Disk:
    """A real disk. Every method raises `OSError` as the system does."""

    def write(self, path: Path, content: bytes) -> None:
        """Write a whole file, over what was there."""
        _write(path, content, os.O_TRUNC)

    def append(self, path: Path, content: bytes) -> None:
        """Write at the end of a file."""
        _write(path, content, os.O_APPEND)

    def allocate(self, path: Path, size_bytes: int) -> None:
        """Make a file that really takes up its size."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        finally:
            os.close(descriptor)

    def sync(self, path: Path) -> None:
        """Wait until a file's content, or a folder's list of names, would outlast a power cut."""
        atomic.sync(path)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, over what had it."""
        old.replace(new)

    def unlink(self, path: Path) -> None:
        """Remove a file; one that is not there is removed already."""
        path.unlink(missing_ok=True)

    def mkdir(self, path: Path) -> None:
        """Make a folder; one that is there is made already."""
        path.mkdir(mode=_FOLDER_MODE, exist_ok=True)

    def open_lock(self, path: Path) -> int:
        """Open a file for a lock, making it if need be; return its descriptor."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)

    def free_bytes(self, folder: Path) -> int:
        """Return how much more the disk of a folder takes."""
        return shutil.disk_usage(folder).free


def _write(path: Path, content: bytes, flag: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flag, _FILE_MODE)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)
