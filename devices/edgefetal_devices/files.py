"""Reading the small text files in which the kernel, the vendor and systemd say how a machine is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# A file of sysfs is at most a page.
_PAGE_BYTES = 4096


def read_text(file: Path, max_bytes: int = _PAGE_BYTES) -> str | None:
    """Read a small file, without the blanks and the NUL at its end; None where it is not there or refuses.

    Args:
        file: the file.
        max_bytes: no more is read than this.
    """
    try:
        with file.open("rb", buffering=0) as stream:
            content = stream.read(max_bytes)
    except OSError:
        return None
    return (content or b"").decode(errors="replace").rstrip("\0").strip()


def whole(text: str | None) -> int | None:
    """Read a whole number from 0; None for anything else."""
    if text is None or not (text.isascii() and text.isdecimal() and len(text) <= 18):  # noqa: PLR2004 - fits 64 bits
        return None
    return int(text)


def numbered(parent: Path, prefix: str) -> list[Path]:
    """List what is called by a prefix and a number, in the order of the numbers."""
    try:
        numbers = {path: whole(path.name.removeprefix(prefix)) for path in parent.iterdir()}
    except OSError:
        return []
    found = [(number, path) for path, number in numbers.items() if path.name.startswith(prefix) and number is not None]
    return [path for _, path in sorted(found)]


def entries(parent: Path) -> list[Path]:
    """List what is in a folder, by name; nothing where there is no such folder."""
    try:
        return sorted(parent.iterdir())
    except OSError:
        return []
