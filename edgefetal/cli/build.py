"""`edgefetal build`: checkpoint to bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from edgefetal.cli.options import JsonOption


def build(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run.")],
    device: Annotated[
        str, typer.Option("--device", help="Device profile to build for; `cpu` is this machine's processor.")
    ],
    calibration: Annotated[
        str,
        typer.Option(
            "--calibration",
            metavar="KIND:PATH",
            help="The dataset of the run: its training subjects give the INT8 ranges.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="Folder to write; must not exist.")],
    name: Annotated[
        Optional[str], typer.Option("--name", help="The bundle's name. [default: the folder's]", show_default=False)
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Export a trained network, prove it, quantise it for a device, judge it in millimetres, and package it."""
    from edgefetal.cli import terminal
    from edgefetal_calibration.datasets.kinds import read_heads
    from edgefetal_devices.profile import read_profile
    from edgefetal_export.build import build as build_bundle
    from edgefetal_runtime.atomic import require_new_folder

    require_new_folder(out)
    terminal.check_json_target(json_file, out, run)
    profile = read_profile(device)
    _, cases = read_heads(calibration)
    with terminal.steps() as progress:
        result = build_bundle(run, profile, cases, out, name=name or out.name, progress=progress)
    terminal.write_json(
        json_file,
        {"out": str(out), "parity": result.parity, "sizes_bytes": result.sizes_bytes, "evidence": result.evidence},
    )
    terminal.say(f"ONNX differs from PyTorch by at most {result.parity:.1e} in a logit.")
    show_finished(result.evidence, result.sizes_bytes, out)


def show_finished(evidence: dict[str, Any], sizes_bytes: dict[str, int], out: Path) -> None:
    """Print what a bundle was found to do on validation subjects and how well its intervals hold.

    Raises:
        CheckFailedError: it is over its budget.
    """
    from edgefetal.cli import terminal
    from edgefetal_devices.errors import CheckFailedError
    from edgefetal_runtime.infer.bundle import MODEL, REFERENCE

    lines = [
        (
            graph,
            f"{sizes_bytes[file] / 1e6:.2f}",
            f"{s['n_measured']} of {s['n']}",
            terminal.figure(s["hc_mae_mm"]),
            terminal.figure(s["dice_mean"], 4),
            terminal.figure(1e3 * s["seconds_per_frame"], 1),
        )
        for graph, file, s in (
            ("shipped, INT8", MODEL, evidence["shipped"]),
            ("reference, float", REFERENCE, evidence["reference"]),
        )
    ]
    columns = ("graph", "MB", "measured", "HC MAE (mm)", "Dice", "ms a frame")
    terminal.show_table("Validation subjects", columns, lines)
    terminal.show_coverage(evidence.get("coverage", {}))
    terminal.say(f"Bundle: {out}")
    if not evidence["passed"]:
        reasons = "; ".join(evidence["reasons"])
        message = f"{out} was written but is over its budget, and `edgefetal run` will refuse it: {reasons}."
        raise CheckFailedError(message)
    terminal.say("Within its accuracy budget.")
