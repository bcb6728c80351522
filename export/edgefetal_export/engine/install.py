"""Putting what was proven in its place: whole or not at all, and the old one stays until the new one has run."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_devices.errors import OutputError
from edgefetal_runtime.atomic import json_bytes, new_folder, write_file
from edgefetal_runtime.infer.bundle import MANIFEST
from edgefetal_runtime.infer.finished import (
    ACTIVE,
    ANSWERS,
    ATTESTATION,
    BUNDLE,
    ENGINE,
    FINISHED,
    PREVIOUS,
    TIMING,
    activate,
    open_finished,
    read_folder,
)
from edgefetal_runtime.infer.signature import SIGNATURE

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.finished import Attestation, Finished


@dataclass(frozen=True, eq=False)
class Proven:
    """What is put in its place.

    Args:
        attestation: what was built and found.
        plan: the engine, or None where the processor runs the bundle.
        answers: golden frames and what the engine answered to them.
    """

    attestation: Attestation
    plan: bytes | None
    answers: bytes


def install(home: Path, name: str, bundle: Bundle, proven: Proven) -> Finished:
    """Write a finished folder, open it from the disk once, and make it the active one.

    Whatever fails before the link is replaced leaves the old one active, and nothing of the new one behind.

    Args:
        home: where finished bundles are kept.
        name: of the folder; not there yet.
        bundle: verified.
        proven: what goes with it.

    Raises:
        OutputError: the disk does not take it.
        BundleError: what was written is not what was proven.
        CheckFailedError: opened from the disk it answers otherwise than when it was proven.
    """
    folder = home / FINISHED / name
    with new_folder(folder) as partial:
        _write(partial, bundle, proven)
    try:
        finished = read_folder(folder)
        open_finished(finished)
        activate(home, folder)
    finally:
        # Of what failed nothing is left, unless it was active already.
        forget_unused(home)
    return finished


def forget_unused(home: Path) -> None:
    """Remove finished folders that are neither active nor previous, such as what a power cut left behind."""
    links = [home / name for name in (ACTIVE, PREVIOUS)]
    kept = {link.readlink().name for link in links if link.is_symlink()}
    for folder in (home / FINISHED).iterdir():
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def read_timing_cache(home: Path, key: str) -> bytes:
    """Return what TensorRT measured in earlier builds with the same key; empty where there were none."""
    try:
        return (home / TIMING / f"{key}.cache").read_bytes()
    except OSError:
        return b""


def write_timing_cache(home: Path, key: str, content: bytes) -> None:
    """Keep what TensorRT measured, for the next build.

    Raises:
        OutputError: the disk does not take it.
    """
    path = home / TIMING / f"{key}.cache"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{path.parent} cannot be made ({error.strerror}); check the folder, space and permissions."
        raise OutputError(message) from error
    write_file(path, content)


def sha256_of(content: bytes) -> str:
    """Return the hash that the attestation keeps."""
    return hashlib.sha256(content).hexdigest()


def _write(folder: Path, bundle: Bundle, proven: Proven) -> None:
    """Fill a folder.

    Raises:
        OutputError: the disk does not take it.
    """
    try:
        copy = folder / BUNDLE
        copy.mkdir()
        for file in bundle.manifest.files:
            (copy / file).write_bytes(bundle.read(file))
        # These two the manifest cannot list; what is read back is verified before it is used.
        for file in (MANIFEST, SIGNATURE):
            if (bundle.path / file).is_file():
                shutil.copyfile(bundle.path / file, copy / file, follow_symlinks=False)
        if proven.plan is not None:
            (folder / ENGINE).write_bytes(proven.plan)
        (folder / ANSWERS).write_bytes(proven.answers)
        (folder / ATTESTATION).write_bytes(json_bytes(proven.attestation.model_dump(mode="json")))
    except OSError as error:
        message = f"{folder.parent} cannot be written to ({error.strerror}); free space there, and finish again."
        raise OutputError(message) from error
