"""`edgefetal evaluate`: accuracy on a labelled set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgefetal.cli.evaluate_frames import evaluate_exams
from edgefetal.cli.evaluate_pictures import evaluate_pictures
from edgefetal.cli.evaluate_quality import evaluate_quality_bundle
from edgefetal.cli.evaluate_run import evaluate_run, is_run
from edgefetal.cli.options import BackendOption, JsonOption, SchedulerOption, ThreadsOption, WorkersOption
from edgefetal.cli.spreading import Wish, spread
from edgefetal_devices.errors import InputError

RunOrBundleArgument = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE|RUN", help="Folder of a bundle, or `starter`; or of a run of fetalclip-cls, -seg or baseline."
    ),
]


def evaluate(
    bundle: RunOrBundleArgument,
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="KIND:PATH", help="Labelled set, such as hc18:data/hc18.")
    ],
    part: Annotated[
        str,
        typer.Option("--part", help="held-out, validation or train: by the split that the bundle carries; or all."),
    ] = "held-out",
    reference: Annotated[bool, typer.Option("--reference", help="Also run the float graph, and compare.")] = False,
    chart_file: Annotated[
        Optional[Path],
        typer.Option("--chart", metavar="FILE.svg", help="Draw errors, intervals and the risk-coverage curve."),
    ] = None,
    as_official: Annotated[
        bool,
        typer.Option("--as-official", help="Challenge score with the known slips of the challenge's own evaluator."),
    ] = False,
    fov: Annotated[
        Optional[Path],
        typer.Option("--fov", metavar="MASK.mha", help="Field of view of the probe. [default: ACOUSLIC-AI's]"),
    ] = None,
    frames_per_exam: Annotated[
        int, typer.Option("--frames-per-exam", min=1, help="Frames of each exam of sweeps, half of them with a plane.")
    ] = 8,
    json_file: JsonOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Measure a labelled set and compare with its truth, on subjects that the network was never trained on.

    Where the bundle has intervals, they are judged on those subjects that they were not fitted on.

    `hc18:PATH` is a folder in the official layout: `training_set/` and `training_set_pixel_size_and_HC.csv`. Of exams
    of sweeps, such as `phantom:PATH`, some frames of each are measured: planes, HC, AC and FL. With --reference the
    lines of the accuracy budget are judged on them too.

    Of a run of a quality recipe, and of a bundle built from one, the decision is judged instead, frame by frame on
    whole exams such as `acouslic:PATH`, sweeps with no abdomen included; where the run outlines the abdomen,
    ACOUSLIC-AI's challenge score is given too.

    --workers and --scheduler spread the exams of a bundle's evaluation over processes or machines, each of which
    computes in one thread or --threads; every figure but the times is the same as with one process.
    """
    wish = Wish(workers, scheduler)
    if is_run(Path(bundle)):
        bundles_only = {"--reference": reference, "--chart": chart_file, "--backend": backend != "auto"}
        _refuse("a training run", bundles_only | {"--workers": workers, "--scheduler": scheduler})
        evaluate_run(
            Path(bundle), dataset, part, as_official=as_official, fov=fov, json_file=json_file, threads=threads
        )
        return
    _refuse("a bundle", {"--as-official": as_official, "--fov": fov})
    from edgefetal.cli import terminal
    from edgefetal.starter import bundle_folder
    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_calibration.datasets.kinds import read_exams
    from edgefetal_calibration.datasets.split import parse_split, select_part
    from edgefetal_runtime.infer.bundle import MODEL, REFERENCE, SPLIT, load_bundle
    from edgefetal_runtime.infer.network import load_network

    folder = bundle_folder(bundle)
    terminal.check_svg_target(chart_file, folder)
    terminal.check_json_target(json_file, folder, chart_file)
    loaded = load_bundle(folder)
    threads = wish.threads(threads)
    # Workers of other machines have other working folders.
    _, exams = read_exams(wish.absolute(dataset))
    split = parse_split(loaded.read(SPLIT), folder / SPLIT)
    selected = select_part(split, exams, part)
    files = {"shipped": MODEL} | ({"reference": REFERENCE} if reference else {})
    networks = {name: load_network(loaded, backend=backend, file=file, threads=threads) for name, file in files.items()}
    about = {
        "bundle": {"name": loaded.manifest.name, "sha256": loaded.sha256},
        "dataset": dataset,
        "part": part,
        "n_left_out": len(exams) - len(selected),
    }
    measures = bool(loaded.manifest.heads.mask)
    chosen = [exam for exam in selected if isinstance(exam, HeadCase)]
    if not measures:
        _refuse("a bundle that measures nothing", {"--chart": chart_file})
    elif len(chosen) < len(selected):
        _refuse("exams of sweeps", {"--chart": chart_file})
    with spread(wish, loaded, networks, files, backend, threads) as (graphs, mapper):
        if not measures:
            evaluate_quality_bundle(loaded, graphs, selected, about, json_file, mapper)
        elif len(chosen) < len(selected):
            terminal.say(f"{part} part: {len(selected)} of {len(exams)} exams.")
            evaluate_exams(loaded, graphs, selected, frames_per_exam, about, json_file, mapper)
        else:
            evaluate_pictures(loaded, graphs, chosen, split, about, chart_file, json_file, mapper)


def _refuse(what: str, options: dict[str, object]) -> None:
    """Refuse options that mean nothing for what is evaluated.

    Raises:
        InputError: one was given.
    """
    given = [name for name, value in options.items() if value not in (None, False)]
    if given:
        raise InputError(f"{' and '.join(given)} cannot be used on {what}; leave out, or evaluate another.")
