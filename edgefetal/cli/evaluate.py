"""`edgefetal evaluate`: accuracy on a labelled set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from edgefetal.cli.evaluate_run import evaluate_run, is_run
from edgefetal.cli.options import BackendOption, JsonOption, ThreadsOption
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
    json_file: JsonOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Measure a labelled set and compare with its truth, on subjects that the network was never trained on.

    Where the bundle has intervals, they are judged on those subjects that they were not fitted on.

    `hc18:PATH` is a folder in the official layout: `training_set/` and `training_set_pixel_size_and_HC.csv`.

    Of a run of a quality recipe the decision is judged instead, frame by frame on whole exams such as `acouslic:PATH`,
    sweeps with no abdomen included; where the run outlines the abdomen, ACOUSLIC-AI's challenge score is given too.
    """
    if is_run(Path(bundle)):
        _refuse("a training run", {"--reference": reference, "--chart": chart_file, "--backend": backend != "auto"})
        evaluate_run(
            Path(bundle), dataset, part, as_official=as_official, fov=fov, json_file=json_file, threads=threads
        )
        return
    _refuse("a bundle", {"--as-official": as_official, "--fov": fov})
    from edgefetal.cli import terminal
    from edgefetal.starter import bundle_folder
    from edgefetal_calibration.charts import draw_evaluation
    from edgefetal_calibration.datasets.kinds import read_heads
    from edgefetal_calibration.datasets.split import Part, Split, select_part
    from edgefetal_calibration.evaluate import compare, evaluate_heads, rows, summarise
    from edgefetal_calibration.intervals import coverage, risk_coverage, unused
    from edgefetal_runtime.atomic import write_file
    from edgefetal_runtime.infer.bundle import MODEL, REFERENCE, SPLIT, load_bundle
    from edgefetal_runtime.infer.network import load_network

    folder = bundle_folder(bundle)
    terminal.check_svg_target(chart_file, folder)
    terminal.check_json_target(json_file, folder, chart_file)
    loaded = load_bundle(folder)
    _, cases = read_heads(dataset)
    split = Split.model_validate_json(loaded.read(SPLIT))
    chosen = select_part(split, cases, part)
    files = {"shipped": MODEL} | ({"reference": REFERENCE} if reference else {})
    networks = {name: load_network(loaded, backend=backend, file=file, threads=threads) for name, file in files.items()}
    with terminal.steps() as progress:
        results = evaluate_heads(networks, chosen, progress.step("pictures", len(chosen)))

    intervals = loaded.manifest.intervals
    # A subject that the network was trained on says nothing of an interval either.
    held_out = split.select(chosen, Part.HELD_OUT)
    fresh = {case.name for case in (unused(held_out, intervals) if intervals else held_out)}
    unseen = [result for result in results["shipped"] if result.name in fresh]
    held = coverage(unseen, intervals.level) if intervals else {}
    risk = risk_coverage(results["shipped"])
    summaries = {name: summarise(of_network) for name, of_network in results.items()}
    value: dict[str, Any] = {
        "bundle": {"name": loaded.manifest.name, "sha256": loaded.sha256},
        "dataset": dataset,
        "part": part,
        "n_left_out": len(cases) - len(chosen),
        **summaries["shipped"],
        "coverage": held,
        "risk_coverage": risk,
        "cases": rows(results["shipped"]),
    }
    if reference:
        value["reference"] = {**summaries["reference"], "cases": rows(results["reference"])}
        value["paired"] = compare(results["shipped"], results["reference"])
    if chart_file is not None:
        title = f"{loaded.manifest.name} on {dataset.partition(':')[0]}, {part} part, n = {len(chosen)}"
        picture = draw_evaluation(results["shipped"], unseen, risk, intervals, title=title)
        write_file(chart_file, picture.encode())
    terminal.write_json(json_file, value)

    terminal.say(f"{part} part: {len(chosen)} of {len(cases)} pictures.")
    columns = ("graph", "measured", "MAE", "bias", "p95", "max", "Dice", "ms")
    lines = [
        (
            name,
            f"{s['n_measured']} of {s['n']}",
            *(terminal.figure(s[key]) for key in ("hc_mae_mm", "hc_bias_mm", "hc_p95_mm", "hc_max_mm")),
            terminal.figure(s["dice_mean"], 4),
            terminal.figure(1e3 * s["seconds_per_frame"], 1),
        )
        for name, s in summaries.items()
    ]
    terminal.show_table(f"HC error in mm, {summaries['shipped']['n_subjects']} subjects; ms a frame", columns, lines)
    terminal.show_coverage(held)
    if reference:
        paired = value["paired"]
        terminal.say(
            f"Shipped minus reference, case by case: mean absolute difference "
            f"{terminal.figure(paired['hc_mean_abs_difference_mm'], 3)} mm, largest "
            f"{terminal.figure(paired['hc_max_abs_difference_mm'])} mm; "
            f"{terminal.figure(paired['time_ratio'])} times as fast."
        )


def _refuse(what: str, options: dict[str, object]) -> None:
    """Refuse options that mean nothing for what is evaluated.

    Raises:
        InputError: one was given.
    """
    given = [name for name, value in options.items() if value not in (None, False)]
    if given:
        raise InputError(f"{' and '.join(given)} cannot be used on {what}; leave out, or evaluate another.")
