"""`edgefetal run FOLDER --each`: every recording of a folder is an examination of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from edgefetal_devices.errors import CheckFailedError, EdgeFetalError, EnvironmentLacksError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefetal.cli.spreading import Wish
    from edgefetal_calibration.each import Mapper
    from edgefetal_runtime.exam.pipeline import ExamResult
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.network import Network
    from edgefetal_runtime.sources.scale_wish import ScaleWish

# In the folder of all, what they are measured with; in each exam, which state of its recording was measured.
SETTINGS, STAMP = "each.json", "source.json"
DONE, BEFORE, FAILED = "done", "done before", "failed"
_GRAPH: Final = "shipped"


@dataclass(frozen=True)
class Settings:
    """What every recording is measured with.

    Args:
        scale: what the user says of the pixel size.
        sweep_frames: frames of a sweep, or None.
        simulated: whether the recordings are simulations.
    """

    scale: ScaleWish
    sweep_frames: int | None
    simulated: bool


@dataclass(frozen=True)
class Recording:
    """One source.

    Args:
        path: where it is, absolute.
        said: how the user would name it.
        stamp: SHA-256 of the names, sizes and times of its files.
    """

    path: Path
    said: str
    stamp: str


def run_each(
    folder: Path,
    out: Path,
    opened: tuple[Bundle, Network],
    settings: Settings,
    wish: Wish,
    backend: str,
    threads: int | None,
) -> dict[str, Any]:
    """Examine every recording of a folder that is not examined yet, and write each to a folder of its own.

    Workers read and compute, and this process alone writes, so an exam whose worker died is still written once.

    Args:
        folder: holds recordings, and folders of pictures of which each is one source.
        out: gets a folder for each, of the recording's name; may hold what an earlier call with the same settings did.
        opened: the bundle, and its network opened with the same back end and threads.
        settings: what each is measured with.
        wish: what the user says of workers.
        backend: name of the back end, or `auto`.
        threads: CPU threads of the network.

    Returns:
        What became of each, as JSON values.

    Raises:
        InputError: the folder holds no recording, or `out` was begun with another bundle or other settings.
        EnvironmentLacksError: this machine, or every worker, lacks something.
    """
    from edgefetal.cli import terminal
    from edgefetal.cli.spreading import spread
    from edgefetal_runtime.infer.bundle import MODEL

    bundle, network = opened
    if settings.scale.table is not None:
        # Workers of other machines have other working folders.
        settings = replace(settings, scale=replace(settings.scale, table=settings.scale.table.absolute()))
    recordings = _recordings(folder)
    _begin(out, _described(bundle, network, settings))
    states = {recording.path.name: _state(recording, out) for recording in recordings}
    todo = [recording for recording in recordings if states[recording.path.name] is None]
    if todo:
        with (
            spread(wish, bundle, {_GRAPH: network}, {_GRAPH: MODEL}, backend, threads, clinic=True) as (graphs, mapper),
            terminal.steps() as progress,
        ):
            work = partial(_examine, graphs, bundle, settings)
            states |= _examine_all(todo, out, work, mapper, progress.step("exams", len(todo)))
    rows = []
    for recording in recordings:
        state, reason = states[recording.path.name] or (FAILED, None)
        rows.append({"source": recording.said, "exam": str(out / recording.path.name), "state": state, "why": reason})
    return {"bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256}, "out": str(out), "exams": rows}


def show_each(value: Mapping[str, Any]) -> None:
    """Say what became of the recordings.

    Raises:
        CheckFailedError: some could not be examined.
    """
    from edgefetal.cli import terminal

    states = [row["state"] for row in value["exams"]]
    counts = [f"{states.count(state)} {state}" for state in (DONE, BEFORE, FAILED) if state in states]
    terminal.say(f"{len(states)} recordings: {', '.join(counts)}. Exams: {value['out']}")
    failed = [row for row in value["exams"] if row["state"] == FAILED]
    for row in failed:
        terminal.say(f"{row['source']}: {row['why']}")
    if failed:
        raise CheckFailedError(
            f"{len(failed)} of {len(states)} recordings have no exam, for the reasons above; mend or remove them and "
            "run the same again, which leaves finished exams as they are."
        )


def _recordings(folder: Path) -> list[Recording]:
    """List what `open_source` would open in a folder, by name; the rest, such as tables, is passed over.

    Raises:
        SourceError: there is nothing of the kind.
    """
    from edgefetal_devices.errors import SourceError

    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder, and --each examines what a folder holds; leave --each out.")
    found = [path for path in sorted(folder.absolute().iterdir()) if _is_recording(path)]
    if not found:
        raise SourceError(f"{folder} holds no recording; give the folder that holds them, one file or folder an exam.")
    return [Recording(path, str(folder / path.name), _stamp(path)) for path in found]


def _is_recording(path: Path) -> bool:
    from edgefetal_runtime.sources.source import is_recording

    if path.name.startswith("."):
        return False
    if path.is_dir():
        return any(is_recording(file) for file in path.iterdir() if file.is_file())
    return is_recording(path)


def _stamp(path: Path) -> str:
    """Return a hash by which a recording is known as unchanged: of its files, and of those that go with it by name."""
    beside = [
        other
        for other in path.parent.iterdir()
        if other.is_file() and (other.stem == path.stem or other.name.startswith(f"{path.name}_pixel_size"))
    ]
    inside = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else []
    states = ((file, file.stat()) for file in sorted({*beside, *inside}))
    lines = [f"{file.relative_to(path.parent)} {state.st_size} {state.st_mtime_ns}" for file, state in states]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _described(bundle: Bundle, network: Network, settings: Settings) -> dict[str, Any]:
    """Return all that figures depend on beside the recording, as JSON values."""
    scale = settings.scale
    table = None if scale.table is None else hashlib.sha256(scale.table.read_bytes()).hexdigest()
    described = {
        "bundle": bundle.sha256,
        "backend": network.backend.name,
        "scale": {**asdict(scale), "table": table},
        "sweep_frames": settings.sweep_frames,
        "simulated": settings.simulated,
    }
    value: dict[str, Any] = json.loads(json.dumps(described, default=str))
    return value


def _begin(out: Path, described: Mapping[str, Any]) -> None:
    """Make the folder of the exams, or go on with one that was begun with the same settings.

    Raises:
        InputError: it was begun with others, or by something else.
        OutputError: it cannot be written.
    """
    from edgefetal_runtime.atomic import as_output_error, json_bytes, write_file

    file = out / SETTINGS
    with as_output_error(out):
        out.mkdir(parents=True, exist_ok=True)
        is_new = not any(out.iterdir())
    if is_new:
        write_file(file, json_bytes(described))
        return
    known = _read(file)
    if known is None:
        raise InputError(f"{out} exists, and was not begun by `run --each`; name another folder with --out.")
    others = [key for key, value in described.items() if known.get(key) != value]
    if others:
        raise InputError(
            f"{out} was begun with another {' and '.join(others)}, and exams of both must not stand side by side; name "
            "another folder with --out."
        )


def _read(file: Path) -> dict[str, Any] | None:
    """Read one of this command's own files; None where it is not there or damaged."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        value = json.loads(file.read_bytes())
        return value if isinstance(value, dict) else None
    return None


def _state(recording: Recording, out: Path) -> tuple[str, str | None] | None:
    """Return what is known of a recording before anything is examined: its state and why; None where it is to be."""
    target = out / recording.path.name
    if not target.exists():
        return None
    stamp = _read(target / STAMP)
    if stamp is None:
        return FAILED, f"{target} exists, and this command did not make it; remove it, or name another folder."
    if stamp.get("stamp") != recording.stamp:
        return FAILED, f"it changed since it was examined; remove {target} to have it examined again."
    return BEFORE, None


def _examine(networks: Mapping[str, Network], bundle: Bundle, settings: Settings, recording: Recording) -> ExamResult:
    """Examine one recording, with its pictures in the result; nothing is written."""
    from edgefetal_runtime.exam.pipeline import examine
    from edgefetal_runtime.sources.source import open_source
    from edgefetal_runtime.sources.split import SplitSource

    source = open_source(recording.path, settings.scale)
    if settings.sweep_frames is not None:
        source = SplitSource(source, settings.sweep_frames)
    result = examine(source, recording.said, bundle, networks[_GRAPH], simulated=settings.simulated)
    # What is not written need not travel.
    return replace(result, sweeps=())


def _examine_all(
    todo: Sequence[Recording],
    out: Path,
    work: Callable[[Recording], ExamResult],
    mapper: Mapper,
    on_done: Callable[[], None],
) -> dict[str, tuple[str, str | None]]:
    """Examine recordings and write each as soon as it is there; return the state of each by name, and why."""
    from edgefetal_runtime.atomic import json_bytes
    from edgefetal_runtime.exam.folder import write_exam

    states: dict[str, tuple[str, str | None]] = {}
    with contextlib.closing(mapper(work, todo, [recording.said for recording in todo])) as outcomes:
        for index, outcome in outcomes:
            name = todo[index].path.name
            if isinstance(outcome, EnvironmentLacksError):
                # It holds for all of them.
                raise outcome
            if isinstance(outcome, EdgeFetalError):
                states[name] = (FAILED, str(outcome))
            else:
                write_exam(outcome, out / name, {STAMP: json_bytes({"stamp": todo[index].stamp})})
                states[name] = (DONE, None)
            on_done()
    return states
