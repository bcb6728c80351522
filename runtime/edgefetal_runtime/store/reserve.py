"""A file that keeps space free for measurements."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_runtime.store.disk import Disk


@dataclass(frozen=True)
class Reserve:
    """The file and its size.

    Args:
        path: where it is.
        size_bytes: what it keeps free.
        disk: what makes and removes it.
    """

    path: Path
    size_bytes: int
    disk: Disk

    def is_there(self) -> bool:
        """Say whether the file has its full size; another process's policy may have made it larger."""
        try:
            return self.path.stat().st_size >= self.size_bytes
        except OSError:
            return False

    def restore(self) -> bool:
        """Make the file if it is missing or too small; say whether it is there now."""
        if self.is_there():
            return True
        try:
            self.disk.unlink(self.path)
            self.disk.allocate(self.path, self.size_bytes)
        except OSError:
            with contextlib.suppress(OSError):
                self.disk.unlink(self.path)
            return False
        return True

    def give_up(self) -> None:
        """Free the space.

        Raises:
            OSError: the disk refuses.
        """
        self.disk.unlink(self.path)
        self.disk.sync(self.path.parent)
