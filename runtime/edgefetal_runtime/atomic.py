"""Folders and files that appear on disk whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import TYPE_CHECKING

from edgefetal_devices.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def refuse_existing(path: Path) -> None:
    """Refuse to write over something.

    Raises:
        OutputError: the path exists.
    """
    # `lexists` finds a broken link too, and answers False for a name that no disk takes; writing then says so.
    if os.path.lexists(path):
        message = f"{path} exists; name another, or remove it first."
        raise OutputError(message)


def require_new_folder(folder: Path, outside: Path | None = None) -> None:
    """Refuse a folder that exists or cannot be made, before the work that is to fill it.

    Args:
        folder: the folder.
        outside: a folder that it may not lie in, because a file more would spoil that one; None for no such folder.

    Raises:
        OutputError: it exists, lies in `outside`, or the nearest folder above it that exists cannot be written to.
    """
    refuse_existing(folder)
    if outside is not None and outside.resolve() in folder.resolve().parents:
        message = f"{folder} lies in {outside}, which it would spoil; name a folder elsewhere."
        raise OutputError(message)
    above = next((parent for parent in folder.absolute().parents if os.path.lexists(parent)), None)
    if above is None or not above.is_dir() or not os.access(above, os.W_OK):
        message = f"{folder} cannot be made, because {above} is not a folder that can be written to; name another."
        raise OutputError(message)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk and would outlast a power cut.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Turn a failure of the disk into one that says what to do.

    Raises:
        OutputError: what is done in the body cannot be written.
    """
    try:
        yield
    except OSError as error:
        message = f"{path} cannot be written ({error.strerror}); check the folder, space and permissions."
        raise OutputError(message) from error


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a hidden folder to fill, which gets its name when all went well, so that a kill leaves a whole one or none.

    When the body is over, the folder outlasts a power cut.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    require_new_folder(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        with as_output_error(folder):
            made = [parent for parent in folder.absolute().parents if not parent.exists()]
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        yield partial
        with as_output_error(folder):
            # The new name must not reach the disk before what it names, and is not there until its own folder is.
            for inside in (*partial.rglob("*"), partial):
                sync(inside)
            partial.rename(folder)
            for parent in (folder.parent, *(path.parent for path in made)):
                sync(parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a new folder, as `new_folder` makes it.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    with new_folder(folder) as partial, as_output_error(folder):
        for name, content in files.items():
            (partial / name).write_bytes(content)


def json_bytes(value: object) -> bytes:
    """Write a value as the JSON that edgefetal's files hold: indented by one, with a newline at the end."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def write_file(path: Path, content: bytes, partial: Path | None = None) -> None:
    """Write a file under another name, then give it its own, so that a reader finds the old one or the new one.

    Args:
        path: the file.
        content: what it is to hold.
        partial: the other name, on the same disk; None for a hidden one in the same folder.

    Raises:
        OutputError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial") if partial is None else partial
    try:
        partial.write_bytes(content)
        # The new name must not reach the disk before the content does.
        sync(partial)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        message = f"{path} cannot be written ({error.strerror}); check the folder, space and permissions."
        raise OutputError(message) from error
