"""`edgefetal build`: checkpoint to bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edgefetal.cli.options import BudgetOption, JsonOption, KeyOption

if TYPE_CHECKING:
    from edgefetal_runtime.infer.keys import SigningKey


def build(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder of a run of distil, multitask-unet, fetalclip-cls or baseline, or of a bundle, or `starter`: "
            "of a bundle its float graph is the start.",
        ),
    ],
    device: Annotated[
        str, typer.Option("--device", help="Device profile to build for; `cpu` is this machine's processor.")
    ],
    calibration: Annotated[
        list[str],
        typer.Option(
            "--calibration",
            metavar="KIND:PATH",
            help="A dataset of the run, of which training subjects give the INT8 ranges; may be repeated.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="Folder to write; must not exist.")],
    precision: Annotated[
        str, typer.Option("--precision", help="auto (INT8 where it holds and is faster), int8, fp16 (GPUs) or fp32.")
    ] = "auto",
    budget: BudgetOption = None,
    name: Annotated[
        Optional[str], typer.Option("--name", help="The bundle's name. [default: the folder's]", show_default=False)
    ] = None,
    cases: Annotated[
        Optional[Path],
        typer.Option(
            "--worst-cases",
            metavar="DIR",
            help="Also write a page with pictures of the worst validation frames there. Patients' pictures: keep it.",
        ),
    ] = None,
    key: KeyOption = None,
    json_file: JsonOption = None,
) -> None:
    """Quantise a trained network, or another bundle's, for a device, judge it in millimetres, mend it, and package it.

    The budget is judged on validation subjects, the very graph that ships against the float one. INT8 that breaks it
    is mended: other ranges, single blocks back in float, tuning; INT8 that cannot be mended, or is not faster, does not
    ship. `evidence.html` in the bundle tells the whole story.

    For a board with a GPU, INT8 and FP16 stand in the graph itself, and TensorRT compiles it here if one is installed
    that can; the engine is built, proven and timed on the board by `edgefetal finish`.

    Of a run that only says how good a frame is, such as fetalclip-cls, the F1 of its calls is judged; that bundle
    measures nothing, and `edgefetal run` refuses it.
    """
    from functools import partial

    from edgefetal.cli import terminal
    from edgefetal.starter import bundle_folder
    from edgefetal_calibration.budget_file import read_budget
    from edgefetal_calibration.datasets.kinds import read_exams
    from edgefetal_devices.possible import require_possible
    from edgefetal_devices.profile import read_profile
    from edgefetal_export.build import build as build_bundle
    from edgefetal_export.build import source_of_bundle, source_of_run
    from edgefetal_export.ship import parse_precision
    from edgefetal_runtime.atomic import require_new_folder
    from edgefetal_runtime.infer.bundle import MANIFEST, load_bundle
    from edgefetal_runtime.infer.keys import read_signing_key

    require_new_folder(out)
    folder = bundle_folder(source)
    terminal.check_json_target(json_file, out, folder, cases, key)
    signing_key = None if key is None else read_signing_key(key)
    profile, limits, wanted = read_profile(device), read_budget(budget), parse_precision(precision)
    require_possible(profile, precision=wanted.value, jetpack=None, tensorrt=None, dla=False)
    loaded = load_bundle(folder) if (folder / MANIFEST).exists() else None
    exams = [exam for text in calibration for exam in read_exams(text)[1]]
    with terminal.steps() as progress:
        result = build_bundle(
            partial(source_of_run, folder) if loaded is None else partial(source_of_bundle, loaded),
            profile,
            exams,
            out,
            name=name or out.name,
            budget=limits,
            precision=wanted,
            worst_cases=cases,
            key=signing_key,
            progress=progress,
        )
    if cases is not None:
        terminal.say(f"Pictures of the worst cases: {cases}. They are the validation data's: do not pass them on.")
    terminal.write_json(
        json_file,
        {
            "out": str(out),
            "signer": signer_of(signing_key),
            "parity": result.parity,
            "dry_runs": {file: run.to_json() for file, run in result.dry_runs.items()},
            "sizes_bytes": result.sizes_bytes,
            "evidence": result.evidence,
        },
    )
    if result.parity is not None:
        terminal.say(f"ONNX differs from PyTorch by at most {result.parity:.1e} in a logit.")
    for file, run in result.dry_runs.items():
        terminal.say(f"{file}: {run.told}")
    show_finished(result.evidence, result.sizes_bytes, out, signing_key)


def signer_of(key: SigningKey | None) -> str | None:
    """Return the id of the key that a bundle was signed with, or None."""
    return None if key is None else key.public.key_id


def show_finished(evidence: dict[str, Any], sizes_bytes: dict[str, int], out: Path, key: SigningKey | None) -> None:
    """Print what a bundle was found to do on validation subjects and how well its intervals hold.

    Raises:
        CheckFailedError: it is over its budget.
    """
    from edgefetal.cli import terminal
    from edgefetal_devices.errors import CheckFailedError
    from edgefetal_runtime.infer.bundle import MODEL, REFERENCE

    graphs = (("shipped", evidence["precision"], MODEL), ("reference", "float", REFERENCE))
    calls = [
        (
            f"{graph}, {precision}",
            f"{sizes_bytes[file] / 1e6:.2f}",
            f"{of['n_right']} of {of['n']}",
            terminal.figure(of["f1"], 3),
            terminal.figure(1e3 * evidence["validation"][graph]["seconds_per_frame"], 1),
        )
        for graph, precision, file in graphs
        if (of := evidence["validation"][graph].get("calls")) is not None
    ]
    lines = [
        (
            f"{graph}, {precision}",
            f"{sizes_bytes[file] / 1e6:.2f}",
            measure,
            f"{of['n_measured']} of {of['n']}",
            terminal.figure(of["mae_mm"]),
            terminal.figure(of["dice_mean"], 4),
            terminal.figure(1e3 * evidence["validation"][graph]["seconds_per_frame"], 1),
        )
        for graph, precision, file in graphs
        for measure, of in evidence["validation"][graph]["lengths"].items()
    ]
    columns = ("graph", "MB", "length", "measured", "MAE (mm)", "Dice", "ms a frame")
    if lines:
        terminal.show_table("Validation subjects", columns, lines)
    if calls:
        of_calls = ("graph", "MB", "called rightly", "F1", "ms a frame")
        terminal.show_table("Good frames told from others, validation subjects", of_calls, calls)
    for step in evidence["mending"]:
        terminal.say(f"Tried: {step['step']}: {step['outcome']}.")
    terminal.show_coverage(evidence.get("coverage", {}))
    terminal.say(f"Bundle: {out}")
    if key is None:
        terminal.say(
            "It is not signed: a machine that trusts some key will not run it. Sign it by `edgefetal keys sign`."
        )
    else:
        terminal.say(f"Signed by key {signer_of(key)}.")
    if not evidence["passed"]:
        reasons = " ".join(evidence["reasons"])
        message = f"{out} was written but is over its budget, and `edgefetal run` will refuse it. {reasons}"
        raise CheckFailedError(message)
    terminal.say("Within its accuracy budget.")
