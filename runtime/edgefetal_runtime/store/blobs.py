"""Files named by the SHA-256 of what they hold: written once, checked whenever read."""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import TYPE_CHECKING

from edgefetal_devices.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from edgefetal_runtime.store.disk import Disk

_SHA256 = re.compile(r"[0-9a-f]{64}")
PARTIAL = ".partial"


def sha256_hex(content: bytes) -> str:
    """Return the hash that content is known by."""
    return hashlib.sha256(content).hexdigest()


class Blobs:
    """A folder of folders, named by the first two digits of the hashes in them."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        """Take a folder, which must exist before anything is put there."""
        self.folder = folder
        self._disk = disk
        # Folders whose own names are known to be on the disk, because they were synced since this process began.
        self._durable: set[Path] = set()

    def path(self, sha256: str) -> Path:
        """Return where content is or would be."""
        return self.folder / sha256[:2] / sha256

    def put(self, content: bytes) -> str:
        """Keep content; when this returns its hash, the content outlasts a power cut.

        Raises:
            OSError: the disk refuses; nothing is then under the hash's name, or all of it.
        """
        sha256 = sha256_hex(content)
        path = self.path(sha256)
        if path.parent not in self._durable:
            self._disk.mkdir(path.parent)
            self._disk.sync(self.folder)
            self._durable.add(path.parent)
        # What is there already is read again, so that a damaged file is not taken for this content.
        if not _holds(path, content):
            partial = path.with_name(f".{sha256}{PARTIAL}")
            try:
                self._disk.write(partial, content)
                self._disk.sync(partial)
                self._disk.rename(partial, path)
            except OSError:
                with contextlib.suppress(OSError):
                    self._disk.unlink(partial)
                raise
        self._disk.sync(path.parent)
        return sha256

    def read(self, sha256: str) -> bytes:
        """Return content.

        Raises:
            StoreError: it is missing, cannot be read, or is not what was written.
        """
        path = self.path(sha256)
        try:
            content = path.read_bytes()
        except OSError as error:
            message = f"{path} cannot be read ({error.strerror}); restore it from a copy of the store."
            raise StoreError(message) from error
        if sha256_hex(content) != sha256:
            message = f"{path} is not what was written; restore it from a copy of the store."
            raise StoreError(message)
        return content

    def hashes(self) -> Iterator[str]:
        """Yield the names of all blobs."""
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            if folder.is_dir():
                yield from (file.name for file in folder.iterdir() if _SHA256.fullmatch(file.name))

    def remove(self, hashes: Iterable[str]) -> None:
        """Remove content for good.

        Raises:
            OSError: the disk refuses; some may be left.
        """
        paths = [self.path(sha256) for sha256 in hashes]
        for path in paths:
            self._disk.unlink(path)
        for folder in sorted({path.parent for path in paths if path.parent.is_dir()}):
            self._disk.sync(folder)

    def remove_partials(self) -> int:
        """Remove what a kill left half written; return how many files."""
        partials = sorted(self.folder.glob(f"*/.*{PARTIAL}"))
        for path in partials:
            self._disk.unlink(path)
        return len(partials)


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False
