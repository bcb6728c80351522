"""Putting what was proven in its place: whole or not at all, and the old one stays until the new one has run.

What a power cut may leave behind is a folder that no link names, which the next `finish` removes. A link is replaced in
one step, and only when all that it will name is on the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgefetal_devices.errors import BundleError, OutputError
from edgefetal_runtime.atomic import as_output_error, json_bytes, new_folder, sync, write_file
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
    id_of,
    linked_id,
    read_finished,
    read_folder,
    try_out,
)
from edgefetal_runtime.infer.signature import SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.finished import Attestation, Finished
    from edgefetal_runtime.infer.trust import Trust

_LOCK: Final = "lock"
# Whatever the user's mask is, nobody else may put an engine there; of what lies in it the hashes are known.
_FOLDER_MODE: Final = 0o755


@dataclass(frozen=True)
class TimingCache:
    """What TensorRT measured in builds, for the next build.

    Args:
        key: names the GPU, the TensorRT and the CUDA that it belongs to.
        content: its bytes; empty where there are none.
    """

    key: str
    content: bytes


@dataclass(frozen=True, eq=False)
class Proven:
    """What is put in its place.

    Args:
        attestation: what was built and found.
        plan: the engine, or None where the processor runs the bundle.
        answers: golden frames and what was answered to them.
        timing: what was measured when it was built, or None; kept once it was activated, since a build that was refused
            is not to be repeated.
    """

    attestation: Attestation
    plan: bytes | None
    answers: bytes
    timing: TimingCache | None = None


@contextlib.contextmanager
def owned(home: Path) -> Iterator[None]:
    """Keep other processes from finishing into a folder while the body runs; it is made where it is not there yet.

    The system gives it up with the process, however that ends.

    Raises:
        OutputError: the folder cannot be written, or another process finishes something there.
    """
    with as_output_error(home):
        _make_folders(home / FINISHED)
        descriptor = os.open(home / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with as_output_error(home):
            _take(descriptor, home)
        yield
    finally:
        os.close(descriptor)


def _make_folders(folder: Path) -> None:
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(_FOLDER_MODE, exist_ok=True)
        sync(missing.parent)


def _take(descriptor: int, home: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        message = f"Another process finishes a bundle in {home}; wait until it is done, and try again."
        raise OutputError(message) from error


def install(home: Path, bundle: Bundle, proven: Proven, trust: Trust | None = None) -> Finished:
    """Write a finished folder, open it from the disk once, and make it the active one.

    Whatever fails leaves the old one active and nothing of the new one behind.

    Args:
        home: where finished bundles are kept; `owned`.
        bundle: verified.
        proven: what goes with it.
        trust: whom to trust; None for whom this machine trusts.

    Raises:
        OutputError: the disk does not take it.
        BundleError: the bundle was altered meanwhile, or what was written is not what was proven.
        EnvironmentLacksError: TensorRT or the GPU cannot be used any more.
        CheckFailedError: opened from the disk it answers otherwise than when it was proven.
    """
    files = _files(bundle, proven)
    folder = home / FINISHED / id_of(files[ATTESTATION])
    try:
        _write(folder, files)
        finished = read_folder(folder, trust)
        try_out(finished)
        _activate(home, folder.name)
    finally:
        # What failed is named by no link.
        forget_unused(home)
    if proven.timing is not None and proven.timing.content:
        _keep(home / TIMING, proven.timing)
    return finished


def roll_back(home: Path, trust: Trust | None = None) -> Finished:
    """Make the previous one active again, and the active one the previous.

    Args:
        home: where finished bundles are kept.
        trust: whom to trust; None for whom this machine trusts.

    Returns:
        What is active now.

    Raises:
        BundleError: there is none, or it was altered, or is of another board, GPU, driver or TensorRT.
        OutputError: the links cannot be written, or another process finishes something there.
        EnvironmentLacksError: TensorRT or the GPU cannot be used.
        CheckFailedError: it does not answer as it did when it was proven.
    """
    finished = read_finished(home, PREVIOUS, trust)
    with owned(home):
        was = linked_id(home, ACTIVE)
        if was == finished.path.name:
            message = (
                f"Nothing is kept in {home} but what is active; finish another bundle by `edgefetal finish BUNDLE`."
            )
            raise BundleError(message)
        try_out(finished)
        # What was asked for comes first: after a power cut between the two there is no way forth, which nobody needs.
        _relink(home, {ACTIVE: finished.path.name} | ({} if was is None else {PREVIOUS: was}))
    return finished


def forget_unused(home: Path) -> None:
    """Remove finished folders that are neither active nor previous, such as what a power cut left behind.

    What cannot be removed stays for the next time.
    """
    # Where a link cannot be read nobody knows what it names, and nothing is removed.
    with contextlib.suppress(OSError):
        kept = {linked_id(home, name) for name in (ACTIVE, PREVIOUS)}
        for folder in (home / FINISHED).iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def read_timing_cache(home: Path, key: str) -> TimingCache:
    """Return what TensorRT measured in earlier builds with the same key."""
    try:
        return TimingCache(key, (home / TIMING / f"{key}.cache").read_bytes())
    except OSError:
        return TimingCache(key, b"")


def _keep(folder: Path, timing: TimingCache) -> None:
    """Keep what TensorRT measured in place of what was kept before; where the disk does not take it, do without."""
    with contextlib.suppress(OSError, OutputError):
        folder.mkdir(_FOLDER_MODE, exist_ok=True)
        file = folder / f"{timing.key}.cache"
        write_file(file, timing.content)
        for other in folder.iterdir():
            if other != file:
                other.unlink()


def _files(bundle: Bundle, proven: Proven) -> dict[str, bytes]:
    """Return what goes into a finished folder, by its path in there.

    Raises:
        BundleError: the bundle was altered since it was verified, or cannot be read.
    """
    try:
        of_bundle = {name: bundle.read(name) for name in bundle.manifest.files}
        # These two the manifest cannot list; what is read back is verified before it is used.
        for name in (MANIFEST, SIGNATURE):
            if (bundle.path / name).is_file():
                of_bundle[name] = (bundle.path / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{bundle.path} cannot be read ({error.strerror}); copy the bundle again.") from error
    return {
        **{f"{BUNDLE}/{name}": content for name, content in of_bundle.items()},
        **({} if proven.plan is None else {ENGINE: proven.plan}),
        ANSWERS: proven.answers,
        ATTESTATION: json_bytes(proven.attestation.model_dump(mode="json")),
    }


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a finished folder; one of this name holds the very same.

    Raises:
        OutputError: the disk does not take it.
    """
    if folder.exists():
        return
    with new_folder(folder) as partial, as_output_error(folder):
        (partial / BUNDLE).mkdir()
        for name, content in files.items():
            (partial / name).write_bytes(content)


def _activate(home: Path, name: str) -> None:
    """Make a finished folder the active one, and the active one the previous.

    Raises:
        OutputError: the links cannot be written; they are what they were.
    """
    with as_output_error(home):
        was = linked_id(home, ACTIVE)
    # First the way back: after a power cut between the two the old one is active, and previous too.
    _relink(home, ({} if was in (None, name) else {PREVIOUS: str(was)}) | {ACTIVE: name})


def _relink(home: Path, links: Mapping[str, str]) -> None:
    """Replace links one after the other.

    Raises:
        OutputError: one cannot be written; all are what they were, as far as the disk lets them.
    """
    with as_output_error(home):
        before = {name: linked_id(home, name) for name in links}
        try:
            for name, to in links.items():
                _link(home, name, to)
        except BaseException:
            for name, was in before.items():
                with contextlib.suppress(OSError):
                    _link(home, name, was)
            raise


def _link(home: Path, name: str, to: str | None) -> None:
    """Replace a link in one step, for good; None for no link."""
    partial = home / f".{name}.partial"
    partial.unlink(missing_ok=True)
    if to is None:
        (home / name).unlink(missing_ok=True)
    else:
        partial.symlink_to(f"{FINISHED}/{to}")
        partial.replace(home / name)
    sync(home)
