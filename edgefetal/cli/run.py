"""`edgefetal run`: stream a source, pick frames, measure, write the exam."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edgefetal.cli.age import EddOption, ExamDateOption, GaOption, LmpOption, known_age
from edgefetal.cli.live import LiveOptions, Sweeps, examine_live
from edgefetal.cli.options import (
    BackendOption,
    BundleArgument,
    JsonOption,
    SchedulerOption,
    ThreadsOption,
    WorkersOption,
)
from edgefetal.cli.run_each import Settings, run_each, show_each
from edgefetal.cli.spreading import Wish

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefetal.cli.keeping import Kept
    from edgefetal_runtime.exam.pipeline import ExamResult
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.network import Network
    from edgefetal_runtime.sources.live.live import LiveSource
    from edgefetal_runtime.sources.protocol import Source
    from edgefetal_runtime.sources.scale_wish import ScaleWish

SimulatedOption = Annotated[
    bool,
    typer.Option(
        "--simulated", help="The source is simulated: also measure what the bundle knows from simulations alone."
    ),
]


def run(
    bundle: BundleArgument,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="PNG or JPEG picture, folder of them, video, MetaImage or DICOM file; or a live source: "
            "v4l2:/dev/video0, rtsp://HOST/PATH, simulated:FILE.",
        ),
    ],
    out: Annotated[
        Optional[Path], typer.Option("--out", metavar="EXAM", help="Folder to write; must not exist.")
    ] = None,
    store: Annotated[
        Optional[Path], typer.Option("--store", metavar="DIR", help="The clinic's store, where the exam is kept.")
    ] = None,
    patient: Annotated[
        Optional[str], typer.Option("--patient", metavar="ID", help="The clinic's name for the patient, for the store.")
    ] = None,
    mm_per_px: Annotated[
        Optional[str],
        typer.Option("--mm-per-px", metavar="X[,Y]", help="Pixel size in mm. Without one there are no millimetres."),
    ] = None,
    scale_csv: Annotated[
        Optional[Path],
        typer.Option("--scale-csv", metavar="FILE", help="Pixel sizes by file name, in HC18's layout."),
    ] = None,
    scale_profile: Annotated[
        Optional[Path],
        typer.Option("--scale-profile", metavar="FILE", help="Pixel sizes by probe, depth and format, in TOML."),
    ] = None,
    profile: Annotated[
        Optional[str],
        typer.Option("--profile", metavar="NAME", help="Which of the scale profiles, where there are several."),
    ] = None,
    depth_mm: Annotated[
        Optional[float],
        typer.Option("--depth-mm", metavar="D", help="Depth that the machine shows; the picture's ruler must agree."),
    ] = None,
    sweep_frames: Annotated[
        Optional[int],
        typer.Option("--sweep-frames", min=1, metavar="N", help="Cut a recording into sweeps of so many frames."),
    ] = None,
    answer: Annotated[
        Optional[Path],
        typer.Option("--answer", metavar="DIR", help="Also answer for the abdomen in ACOUSLIC-AI's output format."),
    ] = None,
    ga: GaOption = None,
    lmp: LmpOption = None,
    edd: EddOption = None,
    exam_date: ExamDateOption = None,
    seconds: Annotated[
        Optional[float], typer.Option("--seconds", min=0.1, help="End a live examination after so long.")
    ] = None,
    sweeps: Annotated[
        Sweeps, typer.Option("--sweeps", help="Whether a live picture's sweeps are found, or commanded by Enter.")
    ] = Sweeps.FOUND,
    record: Annotated[bool, typer.Option("--record", help="Keep the live video in the store too.")] = False,
    port: Annotated[
        Optional[int],
        typer.Option("--port", min=0, max=65535, help="Serve /health and /metrics of a live examination."),
    ] = None,
    simulated: SimulatedOption = False,
    json_file: JsonOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
    each: Annotated[
        bool, typer.Option("--each", help="SOURCE is a folder of recordings, each an exam; EXAM gets a folder of each.")
    ] = False,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Stream a source, pick the best frames of each sweep, measure, and write the exam.

    A video, a MetaImage and each region of a DICOM file is one sweep; --sweep-frames cuts a recording into several.
    Each picture of a folder is a sweep of its own; their pixel sizes come from --mm-per-px, --scale-csv,
    --scale-profile, --depth-mm, or an HC18-style table in the folder or beside it. MetaImage and DICOM files bring
    their own. EXAM receives `exam.json` and a picture of every frame that was measured; --store keeps the same in the
    clinic's store.

    A live source is examined until it is stopped (Ctrl-C, SIGTERM or --seconds), and what was measured is saved.

    With --each, SOURCE holds one recording (or folder of pictures) an exam. Finished exams are left as they are when
    the same is run again; a recording that cannot be read is named at the end, and the others are done.

    Without --ga, --lmp or --edd the measures date the fetus. With one the age stands, and they are read as size.
    """
    from edgefetal.cli import terminal
    from edgefetal.cli.exam_tables import show_exam
    from edgefetal.cli.keeping import keeping
    from edgefetal.starter import bundle_folder
    from edgefetal_devices.errors import CheckFailedError, DeviceLostError, InputError
    from edgefetal_runtime.atomic import require_new_folder
    from edgefetal_runtime.exam.pipeline import FOLDER, Listener, examine
    from edgefetal_runtime.exam.record import BundleRecord
    from edgefetal_runtime.sources.live.live import LiveSource

    spreading = Wish(workers, scheduler)
    if each or spreading:
        _refuse_for_many(
            bundle,
            out,
            {"--store": store, "--patient": patient, "--answer": answer, "--ga": ga, "--lmp": lmp, "--edd": edd},
            spreading,
            each=each,
        )
    folder = bundle_folder(bundle)
    terminal.check_json_target(json_file, out, store, answer, Path(source), scale_csv, scale_profile, folder)
    live = LiveOptions(seconds, sweeps, record=record, port=port)
    _refuse_misplaced(source, live, store, recorded={"--sweep-frames": sweep_frames, "--answer": answer})
    wish = _scale_wish(mm_per_px, scale_csv, scale_profile, profile, depth_mm)
    if each or spreading:
        settings = Settings(wish, sweep_frames, simulated)
        _run_many(bundle, Path(source), out or Path(), settings, spreading, backend, threads, json_file)
        return
    for target in filter(None, (out, answer)):
        require_new_folder(target, outside=folder)
    age = known_age(ga, lmp, edd, exam_date)
    opened = _open(source, wish, sweep_frames)
    if age is not None and opened.kind == FOLDER:
        raise InputError(
            f"Nothing says that the pictures of {source} are of one fetus, so one age cannot hold for all; run them "
            "one by one, or leave the age out."
        )
    loaded, network = _open_bundle(bundle, backend, threads, live=isinstance(opened, LiveSource))
    about = BundleRecord(name=loaded.manifest.name, sha256=loaded.sha256, backend=network.backend.name)
    name = opened.name if isinstance(opened, LiveSource) else source
    report: dict[str, Any] = {}
    with keeping(out, store, patient, name, about) as kept:
        if isinstance(opened, LiveSource):
            result, report = examine_live(opened, loaded, network, kept, live, age, store=store, simulated=simulated)
        else:
            with terminal.steps() as progress:
                advance = progress.step("frames", opened.frame_count)
                listener = Listener(on_frame=lambda *_: advance(), take_picture=kept.take_picture)
                result = examine(opened, name, loaded, network, listener, age, simulated=simulated)
            kept.save(result.exam)
    if answer is not None:
        _write_answer(result, answer)
    exam = result.exam.model_dump(mode="json")
    terminal.write_json(json_file, {**exam, "live": report} if report else exam)
    show_exam(result.exam)
    _show_kept(kept, store, out, report)
    if report and not report["received"]:
        raise CheckFailedError(f"No frame came from {name}: {report['reason'] or 'it ended at once.'}")
    if result.exam.ended is not None:
        # Its exit code tells whoever started this that another try needs a new process.
        kind = DeviceLostError if result.device_lost else CheckFailedError
        raise kind(f"The examination ended early, and what was measured until then is kept: {result.exam.ended}")


def _refuse_for_many(
    bundle: str, out: Path | None, of_one: Mapping[str, object], spreading: Wish, *, each: bool
) -> None:
    """Refuse what can hold of one exam only, and workers for one exam or for what was finished on this machine.

    Raises:
        InputError: there is one.
    """
    from edgefetal_devices.errors import InputError
    from edgefetal_runtime.infer.finished import ACTIVE

    if not each:
        raise InputError("--workers and --scheduler spread many exams; add --each, or leave them out.")
    given = [option for option, value in of_one.items() if value is not None]
    if given:
        raise InputError(f"{given[0]} is of one exam, and --each examines many; leave it out, or run them one by one.")
    if spreading and bundle == ACTIVE:
        raise InputError("What is active is of this machine alone; name its bundle, or leave the workers out.")
    if out is None:
        raise InputError("Nothing says where the examinations go; give --out DIR.")


def _run_many(
    bundle: str,
    source: Path,
    out: Path,
    settings: Settings,
    spreading: Wish,
    backend: str,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """Examine every recording of a folder, and say what became of them."""
    from edgefetal.cli import terminal

    threads = spreading.threads(threads)
    opened = _open_bundle(bundle, backend, threads, live=False)
    value = run_each(source, out, opened, settings, spreading, backend, threads)
    terminal.write_json(json_file, value)
    show_each(value)


def _scale_wish(
    mm_per_px: str | None, table: Path | None, profiles: Path | None, profile: str | None, depth_mm: float | None
) -> ScaleWish:
    """Read what the user says of the pixel size.

    Raises:
        ScaleError: it cannot be read, or is more than one thing.
    """
    from edgefetal_devices.errors import ScaleError
    from edgefetal_runtime.scale import parse_mm_per_px
    from edgefetal_runtime.sources.scale_profile import read_scale_profile
    from edgefetal_runtime.sources.scale_wish import ScaleWish

    if profile is not None and profiles is None:
        raise ScaleError(f"--profile {profile} names no file; give it with --scale-profile.")
    return ScaleWish(
        stated=None if mm_per_px is None else parse_mm_per_px(mm_per_px),
        table=table,
        profile=None if profiles is None else read_scale_profile(profiles, profile),
        depth_mm=depth_mm,
    )


def _open_bundle(name: str, backend: str, threads: int | None, *, live: bool) -> tuple[Bundle, Network]:
    """Open a bundle to measure with: what was finished on this machine, or one that its processor runs."""
    from edgefetal.starter import bundle_folder
    from edgefetal_runtime.infer.cores import lanes_for_files
    from edgefetal_runtime.infer.finished import ACTIVE, open_active
    from edgefetal_runtime.infer.golden import open_for_clinic

    # Live, the next frame is not there yet, and all threads work on this one.
    lanes = 1 if live else lanes_for_files(threads)
    if name == ACTIVE:
        return open_active(backend=backend, threads=threads, lanes=lanes)
    return open_for_clinic(bundle_folder(name), backend=backend, threads=threads, lanes=lanes)


def _show_kept(kept: Kept, store: Path | None, out: Path | None, report: Mapping[str, Any]) -> None:
    """Say what came of the frames, what was left out, and where the examination is."""
    from edgefetal.cli import terminal

    for line in (*_counts(report), *(f"Not kept: {note}." for note in kept.notes())):
        terminal.say(line)
    if kept.exam is not None:
        terminal.say(f"Saved in {store} as {kept.exam.exam_id}.")
    if out is not None:
        terminal.say(f"Record and pictures: {out}")


def _refuse_misplaced(source: str, live: LiveOptions, store: Path | None, recorded: Mapping[str, object]) -> None:
    """Refuse options of live sources for recordings, and the other way round.

    Raises:
        InputError: there is one.
    """
    from edgefetal_devices.errors import InputError
    from edgefetal_runtime.sources.live.address import is_address

    if is_address(source):
        wrong, kind = [option for option, value in recorded.items() if value is not None], "recordings"
    else:
        wrong, kind = live.given(), "live sources"
    if wrong:
        raise InputError(f"{wrong[0]} is for {kind}, and {source} is none; leave it out.")
    if live.record and store is None:
        raise InputError("--record keeps the video in the store; give --store DIR too.")


def _open(source: str, wish: ScaleWish, sweep_frames: int | None) -> Source | LiveSource:
    from edgefetal_runtime.sources.live.address import is_address
    from edgefetal_runtime.sources.live.live import open_live
    from edgefetal_runtime.sources.source import open_source
    from edgefetal_runtime.sources.split import SplitSource

    if is_address(source):
        return open_live(source, wish)
    opened = open_source(Path(source), wish)
    return opened if sweep_frames is None else SplitSource(opened, sweep_frames)


def _write_answer(result: ExamResult, folder: Path) -> None:
    """Answer for the abdomen as ACOUSLIC-AI asks: one frame of all sweeps, or none.

    Raises:
        InputError: the bundle outlines no abdomen, the pixel size is unknown, or the sweeps are not of one length.
        OutputError: the folder cannot be written.
    """
    from edgefetal_calibration.challenge_files import abdomen_answer, write_answer
    from edgefetal_devices.errors import InputError
    from edgefetal_runtime.infer.bundle import ABDOMEN

    abdomens = [part for sweep in result.sweeps for part in sweep.structures if part.structure == ABDOMEN]
    records = [sweep.record for sweep in result.sweeps]
    if len(abdomens) != len(records) or not records:
        raise InputError("The bundle outlines no abdomen, so there is no answer; use one that does.")
    first = records[0]
    if first.scale is None or len({record.frames_seen for record in records}) > 1:
        raise InputError("The challenge's answer needs a pixel size and sweeps of one length; give --sweep-frames.")
    width_px, height_px = first.size_px
    answer = abdomen_answer(abdomens, first.frames_seen, (height_px, width_px))
    write_answer(answer, sum(record.frames_seen for record in records), first.scale.x_mm_per_px, folder)


def _counts(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Say in one line what came of a live source's frames; nothing of a recording."""
    if not report:
        return ()
    dropped = ", ".join(f"{count} {cause}" for cause, count in report["dropped"].items() if count)
    late = report["latency_ms"]["p99"]
    latency = "" if late is None else f" 99 % came out within {late:.0f} ms of the driver."
    return (
        f"{report['received']} frames came, {report['analysed']} were analysed; dropped: {dropped or 'none'}.{latency}",
    )
