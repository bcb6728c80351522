"""`edgefetal bench --baseline`: other tools at the same work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_export.peers.peer import Job, Recording
    from edgefetal_export.peers.table import PeerChoice
    from edgefetal_runtime.bench.record import PeersRecord
    from edgefetal_runtime.infer.bundle import Bundle

_ALL = "all"
_WEEKS = (18.0, 36.0)
_SEED = 101
_STACKS = (".mha", ".mhd")
_SQUARE_WITHIN = 0.001


def parse_baselines(texts: Sequence[str], dataset: str | None) -> list[PeerChoice]:
    """Read the peers that were asked for; `all` are those that need nothing else, or no more than the data given.

    Raises:
        InputError: there is no such peer, it is named twice, or it needs labelled pictures and there are none.
    """
    from edgefetal_devices.errors import InputError
    from edgefetal_export.peers.table import TABLE, PeerChoice, parse_peer

    choices: list[PeerChoice] = []
    for text in texts:
        if text == _ALL:
            free = (entry for entry in TABLE if entry.argument is None and (dataset or not entry.needs_data))
            choices += [PeerChoice(entry, None) for entry in free]
        else:
            choices.append(parse_peer(text))
    names = [(choice.entry.name, choice.argument) for choice in choices]
    for choice in choices:
        if names.count((choice.entry.name, choice.argument)) > 1:
            raise InputError(f"{choice.name} is named twice; name each peer once.")
        if choice.entry.needs_data and dataset is None:
            raise InputError(f"{choice.name} takes its ranges from labelled pictures; give --dataset hc18:PATH.")
    return choices


@dataclass(frozen=True)
class PeerPlan:
    """What the peers are to do.

    Args:
        job: what they are told.
        choices: the peers.
        given: the recording that all examine, or None where some are to be simulated.
        count: recordings, or times that the one is examined.
        pictures: labelled pictures that all measure.
        said: which pictures these are, or None.
    """

    job: Job
    choices: Sequence[PeerChoice]
    given: Recording | None
    count: int
    pictures: Sequence[HeadCase]
    said: str | None


def plan_peers(
    bundle: Bundle,
    backend: str,
    threads: int | None,
    choices: Sequence[PeerChoice],
    dataset: str | None,
    source: Path | None,
    count: int,
    *,
    simulated: bool,
) -> PeerPlan | None:
    """Find out whether the peers can do the work, before anything is measured; None where there are none.

    Args:
        bundle: the bundle.
        backend: its back end.
        threads: CPU threads of every tool, or None for its own choice.
        choices: the peers.
        dataset: labelled pictures as `KIND:PATH`, or None.
        source: the recording, or None to simulate some.
        count: recordings, or times that the one is examined.
        simulated: whether the recording is simulated.

    Raises:
        InputError: the bundle measures no heads, the recording has no scale, or a peer has learnt pictures that it
            would be judged on.
        DatasetError: the labelled pictures cannot be read.
        SourceError: the recording cannot be read.
    """
    if not choices:
        return None
    from edgefetal_calibration.datasets.kinds import read_heads
    from edgefetal_calibration.datasets.split import Part, parse_split
    from edgefetal_devices.errors import InputError
    from edgefetal_export.peers.beside import refuse_learnt
    from edgefetal_export.peers.peer import Job
    from edgefetal_export.peers.table import OURS
    from edgefetal_runtime.infer.backends import TABLE
    from edgefetal_runtime.infer.bundle import HEAD, SPLIT

    known = [entry.name for entry in TABLE]
    for choice in choices:
        if choice.entry is OURS and choice.argument not in known:
            raise InputError(f"There is no back end {choice.argument!r}; choose one of {', '.join(known)}.")
    if HEAD not in bundle.manifest.heads.mask:
        raise InputError(f"{bundle.path} outlines no head, which is what peers are compared on; give one that does.")
    parts: dict[Part, list[HeadCase]] = {part: [] for part in Part}
    said = None
    if dataset is not None:
        kind, cases = read_heads(dataset)
        split = parse_split(bundle.read(SPLIT), bundle.path / SPLIT)
        parts = {part: split.select(cases, part) for part in Part}
        if not parts[Part.HELD_OUT]:
            raise InputError(f"{dataset} holds no picture that the bundle has not learnt; give others.")
        said = f"{len(parts[Part.HELD_OUT])} held-out pictures of {kind.name} ({kind.attribution})"
        for choice in choices:
            if choice.entry.needs_data and not (parts[Part.TRAIN] and parts[Part.VALIDATION]):
                raise InputError(
                    f"{choice.name} takes ranges from pictures that the bundle has learnt, and {dataset} holds none of "
                    "these; give the set that it was trained on, or leave that peer out."
                )
    refuse_learnt(choices, parts[Part.HELD_OUT])
    return PeerPlan(
        job=Job(bundle.path.absolute(), backend, threads, tuple(parts[Part.TRAIN]), tuple(parts[Part.VALIDATION])),
        choices=choices,
        given=None if source is None else _given(source, simulated=simulated),
        count=count,
        pictures=parts[Part.HELD_OUT],
        said=said,
    )


def run_peers(plan: PeerPlan) -> PeersRecord:
    """Have our bundle and the peers examine the same recordings and measure the same pictures."""
    import tempfile

    from edgefetal.cli import terminal
    from edgefetal_export.peers.beside import compare_peers
    from edgefetal_runtime.bench.record import PeersRecord

    with tempfile.TemporaryDirectory() as folder:
        recordings = [plan.given] * plan.count if plan.given else _simulated(Path(folder), plan.count)
        with terminal.steps() as progress:
            rows = compare_peers(plan.job, plan.choices, recordings, plan.pictures, progress)
        frames = sum(1 for _ in recordings[0].open().frames())
    return PeersRecord(
        frames=frames,
        recordings=plan.count,
        repeated=plan.given is not None,
        simulated=recordings[0].simulated,
        pictures=plan.said,
        rows=rows,
    )


def _simulated(folder: Path, count: int) -> list[Recording]:
    """Draw sweeps across heads of fetuses of different ages."""
    import numpy as np

    from edgefetal.cli.bench_sweep import simulate_sweep
    from edgefetal_export.peers.peer import Recording
    from edgefetal_runtime.scale import Scale

    recordings = []
    for number, weeks in enumerate(np.linspace(*_WEEKS, count).tolist(), 1):
        drawn = simulate_sweep(folder, f"sweep-{number:02d}", weeks, _SEED + number, stack=True)
        recordings.append(
            Recording(
                path=drawn.path,
                stack=drawn.stack,
                scale=Scale(drawn.mm_per_px, drawn.mm_per_px, origin="drawn"),
                states_scale=False,
                truth_mm=drawn.hc_mm,
                simulated=True,
            )
        )
    return recordings


def _given(source: Path, *, simulated: bool) -> Recording:
    """Take a recording whose truth nobody knows.

    Raises:
        SourceError: it cannot be read.
        InputError: it has no scale, without which nobody measures, or pixels that are not square.
    """
    from edgefetal_devices.errors import InputError
    from edgefetal_export.peers.peer import Recording
    from edgefetal_runtime.scale import Scale
    from edgefetal_runtime.sources.source import open_source

    path = source.absolute()
    scale = next(iter(open_source(path).frames())).scale
    if not isinstance(scale, Scale):
        raise InputError(f"{source} does not say how large its pixels are ({scale.reason}); give one that does.")
    if not math.isclose(scale.x_mm_per_px, scale.y_mm_per_px, rel_tol=_SQUARE_WITHIN):
        raise InputError(f"The pixels of {source} are not square, which not every tool can take; give another.")
    return Recording(
        path=path,
        stack=path if path.suffix in _STACKS else None,
        scale=scale,
        states_scale=True,
        truth_mm=None,
        simulated=simulated,
    )
