"""`edgefetal bench`: where a frame's time goes, how fast an examination is here, and whether a change is real."""

from __future__ import annotations

import enum
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from edgefetal.cli.options import BackendOption, JsonOption, ThreadsOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefetal_export.peers.table import PeerChoice
    from edgefetal_runtime.bench.bench import Input, Side
    from edgefetal_runtime.bench.compare import Comparison
    from edgefetal_runtime.bench.record import BenchRecord

_FLOAT, _NOTHING = "float", "none"
_WEEKS, _SEED = 28.0, 1
# Two windows of frames: with fewer it cannot end by its rule.
_LEAST_WARM_UP = 20


class Precision(str, enum.Enum):
    """Which of a bundle's graphs is run."""

    SHIPPED = "shipped"
    FLOAT = "float"


def bench(
    bundle: Annotated[
        Optional[str],
        typer.Argument(
            metavar="BUNDLE",
            help="Folder of a bundle, `starter`, or `active`: what was finished here.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        Optional[Path],
        typer.Option("--source", metavar="FILE", help="Recording to bench on. [default: a simulated sweep]"),
    ] = None,
    backend: BackendOption = "auto",
    precision: Annotated[
        Precision, typer.Option("--precision", help="The graph that ships, or the float one beside it.")
    ] = Precision.SHIPPED,
    threads: ThreadsOption = None,
    against: Annotated[
        str,
        typer.Option("--against", metavar="BUNDLE", help="Compare with this in turns: a bundle, `float`, or `none`."),
    ] = _FLOAT,
    against_backend: Annotated[
        Optional[str], typer.Option("--against-backend", help="Its back end. [default: the same]", show_default=False)
    ] = None,
    simulated: Annotated[bool, typer.Option("--simulated", help="The recording is simulated.")] = False,
    fps: Annotated[float, typer.Option("--fps", min=1, max=240, help="Frames a second of the live part.")] = 30.0,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="Of the live part; 0 leaves it out.")] = 10.0,
    frames: Annotated[int, typer.Option("--frames", min=10, help="Frames timed one at a time.")] = 300,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Whole examinations, beside the network alone.")] = 11,
    blocks: Annotated[
        int, typer.Option("--blocks", min=1, help="Blocks of turns with the other; each loads anew.")
    ] = 12,
    rounds: Annotated[int, typer.Option("--rounds", min=2, help="Turns of each block.")] = 40,
    cold_starts: Annotated[int, typer.Option("--cold-starts", min=0, help="Fresh processes; 0 leaves them out.")] = 5,
    baseline: Annotated[
        Optional[list[str]],
        typer.Option(
            "--baseline",
            metavar="PEER",
            help="Another tool at the same work, may be repeated: torch:RUN, torch-compile:RUN, onnxruntime, openvino, "
            "onnxruntime-int8, nncf, notebook, scikit-image, whole-stack, edgefetal:BACKEND, or all that need no RUN.",
        ),
    ] = None,
    dataset: Annotated[
        Optional[str],
        typer.Option(
            "--dataset",
            metavar="KIND:PATH",
            help="Labelled heads, such as hc18:PATH: the peers measure those that the bundle has not learnt.",
        ),
    ] = None,
    recordings: Annotated[
        int, typer.Option("--recordings", min=1, help="Recordings that each peer examines; 8 give an interval.")
    ] = 8,
    compare: Annotated[
        Optional[tuple[Path, Path]],
        typer.Option(
            "--compare", metavar="A B", help="Only compare records, or folders of repeats: is B's change real?"
        ),
    ] = None,
    html: Annotated[
        Optional[Path], typer.Option("--html", metavar="FILE", help="Write the record as a page too.")
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Time a bundle stage by stage and as a whole, from files and live, beside another and from a cold start.

    The machine is watched meanwhile, and a run that was disturbed or throttled is marked. Ratios come from interleaved
    pairs and hold on a busy machine; times do not.

    With --baseline other tools do the same work, each in a process of its own and all in turns; they come with
    edgefetal[build,peers]. That part is not watched.

    With --compare nothing is measured: two records, or two folders of repeats, tell whether a change is real.
    """
    from edgefetal.cli import terminal
    from edgefetal_devices.errors import InputError

    if compare is not None:
        if bundle is not None:
            raise InputError(f"--compare only reads records; leave {bundle} out.")
        for target in (json_file, html):
            terminal.check_json_target(target, *compare)
        _compare(compare, json_file)
        return
    if bundle is None:
        raise InputError("Name a bundle, such as `starter`, or two records with --compare.")
    from edgefetal.cli.bench_peers import plan_peers, run_peers
    from edgefetal.starter import bundle_folder
    from edgefetal_runtime.atomic import write_file
    from edgefetal_runtime.bench.bench import Plan, run_bench
    from edgefetal_runtime.bench.page import bench_page

    for target in (json_file, html):
        terminal.check_json_target(target, bundle_folder(bundle), source)
    choices = _peers(bundle, precision, baseline or [], dataset)
    side = _side(bundle, backend, precision, threads)
    peers = plan_peers(side.bundle, backend, threads, choices, dataset, source, recordings, simulated=simulated)
    other = _other(bundle, side, against, against_backend or backend, threads)
    plan = Plan(
        frames=frames,
        warm_up_cap=max(_LEAST_WARM_UP, frames),
        pairs=pairs,
        blocks=blocks,
        rounds=rounds,
        stream_s=seconds,
        cold_starts=cold_starts,
    )
    with _input(source, fps, simulated=simulated, live=seconds > 0) as (path, given):
        from edgefetal_runtime.bench.bench import Commands

        commands = Commands(*_commands(bundle, path, backend, threads, simulated=given.simulated))
        with terminal.steps() as progress:
            advance = progress.resumable_step("begin", 5, 0)
            # The float graph is none that `edgefetal run` would run.
            record = run_bench(
                side, other, given, plan, commands if precision is Precision.SHIPPED else None, on_part=advance
            )
    if peers is not None:
        # What was measured so far stays whatever becomes of the peers.
        terminal.write_json(json_file, record.model_dump(mode="json"))
        record = record.model_copy(update={"peers": run_peers(peers)})
    terminal.write_json(json_file, record.model_dump(mode="json"))
    if html is not None:
        write_file(html, bench_page(record))
    _show(record)


def _peers(bundle: str, precision: Precision, baseline: list[str], dataset: str | None) -> list[PeerChoice]:
    """Read which other tools are wanted.

    Raises:
        InputError: what is benched is not what they are compared with, or they are not named as they should be.
        EnvironmentLacksError: what builds bundles is not installed, of which the peers are a part.
    """
    import importlib.util

    from edgefetal_devices.errors import EnvironmentLacksError, InputError
    from edgefetal_runtime.infer.finished import ACTIVE

    if not baseline:
        if dataset is not None:
            raise InputError("--dataset is for other tools to measure; name them by --baseline.")
        return []
    if bundle == ACTIVE or precision is not Precision.SHIPPED:
        raise InputError("Other tools are compared with the graph of a bundle that ships; name its folder.")
    if importlib.util.find_spec("torch") is None:
        raise EnvironmentLacksError("Other tools need the workstation's install; pip install 'edgefetal[build,peers]'.")
    from edgefetal.cli.bench_peers import parse_baselines

    return parse_baselines(baseline, dataset)


def _side(bundle: str, backend: str, precision: Precision, threads: int | None) -> Side:
    """Name a network that can be loaded over and over."""
    from edgefetal.starter import bundle_folder
    from edgefetal_devices.errors import InputError
    from edgefetal_runtime.bench.bench import Side
    from edgefetal_runtime.infer.bundle import MODEL, REFERENCE, load_bundle
    from edgefetal_runtime.infer.finished import ACTIVE, open_active
    from edgefetal_runtime.infer.network import load_network

    if bundle == ACTIVE:
        if precision is Precision.FLOAT:
            raise InputError("What was finished here is an engine of the graph that ships; name the bundle's folder.")
        loaded, _ = open_active(backend=backend, threads=threads)
        return Side(
            loaded, "shipped", threads, lambda lanes: open_active(backend=backend, threads=threads, lanes=lanes)[1]
        )
    loaded = load_bundle(bundle_folder(bundle))
    file = MODEL if precision is Precision.SHIPPED else REFERENCE
    return Side(
        loaded,
        precision.value,
        threads,
        lambda lanes: load_network(loaded, backend=backend, file=file, threads=threads, lanes=lanes),
    )


def _other(bundle: str, side: Side, against: str, backend: str, threads: int | None) -> Side | None:
    """Name what it is compared with."""
    from edgefetal_runtime.infer.finished import ACTIVE

    if against == _NOTHING:
        return None
    if against != _FLOAT:
        return _side(against, backend, Precision.SHIPPED, threads)
    # The float graph against itself shows nothing, and an engine's float graph is not on this back end.
    if side.graph == "float" or bundle == ACTIVE:
        return None
    return _side(bundle, backend, Precision.FLOAT, threads)


@contextmanager
def _input(source: Path | None, fps: float, *, simulated: bool, live: bool) -> Iterator[tuple[Path, Input]]:
    """Open the recording, or simulate one."""
    import tempfile

    from edgefetal.cli.bench_sweep import simulate_sweep
    from edgefetal_devices.errors import InputError
    from edgefetal_runtime.bench.bench import Input
    from edgefetal_runtime.sources.live.address import is_address
    from edgefetal_runtime.sources.live.live import open_live
    from edgefetal_runtime.sources.source import open_source

    if source is not None and is_address(str(source)):
        raise InputError(f"{source} cannot be read twice; give a recording of it, which is played live too.")
    with tempfile.TemporaryDirectory() as folder:
        path = simulate_sweep(Path(folder), "sweep", _WEEKS, _SEED).path if source is None else source.absolute()
        played = open_live(f"simulated:{path}?fps={fps:g}&loop=1") if live else None
        yield path, Input(open_source(path), played, fps, simulated=simulated or source is None)


def _commands(
    bundle: str, source: Path, backend: str, threads: int | None, *, simulated: bool
) -> tuple[list[str], list[str]]:
    """Return what is started in fresh processes: `edgefetal run` on the recording, and `edgefetal --help`."""
    import sys

    from edgefetal.starter import NAME
    from edgefetal_runtime.infer.finished import ACTIVE

    named = bundle if bundle in {NAME, ACTIVE} else str(Path(bundle).absolute())
    edgefetal = [sys.executable, "-m", "edgefetal"]
    chosen = ["--backend", backend, *([] if threads is None else ["--threads", str(threads)])]
    run = [*edgefetal, "run", named, str(source), *chosen, *(["--simulated"] if simulated else [])]
    return run, [*edgefetal, "--help"]


def _show(record: BenchRecord) -> None:
    from edgefetal.cli import terminal
    from edgefetal_runtime.bench.tables import headline, titled_tables

    for title, table in titled_tables(record).items():
        terminal.show_table(title, table.heads, table.rows)
        if table.note:
            terminal.say(table.note)
    for line in (*headline(record), *record.notes):
        terminal.say(line)


def _compare(paths: tuple[Path, Path], json_file: Path | None) -> None:
    """Compare records, and say what they can tell."""
    from dataclasses import asdict

    from edgefetal.cli import terminal
    from edgefetal_runtime.bench.compare import compare, read_side

    found = compare(*map(read_side, paths))
    terminal.write_json(json_file, asdict(found))
    rows = [
        (
            of.figure,
            terminal.figure(of.first),
            terminal.figure(of.second),
            f"{of.ratio:.3f}" + ("" if of.low is None else f" ({of.low:.3f} to {of.high:.3f})"),
            of.verdict,
        )
        for of in found.figures
    ]
    terminal.show_table("B beside A", ("figure", "A", "B", "times as fast", "verdict"), rows)
    for line in _told(found):
        terminal.say(line)


def _told(found: Comparison) -> list[str]:
    """Say what a comparison shows, and what it rests on."""
    lines = [f"Changed: {change}." for change in found.changed] or ["Nothing that is recorded changed between them."]
    lines += [f"Doubt: {doubt}." for doubt in found.doubts]
    if found.real is None:
        return [*lines, "Whether the change is real cannot be told from these records."]
    first = found.figures[0]
    return [*lines, f"{first.figure}: {'a real change, ' if found.real else ''}{first.verdict}."]
