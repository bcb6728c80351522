"""`edgefetal calibrate`: fit a bundle's thresholds and intervals again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefetal.cli.options import BudgetOption, BundleArgument, JsonOption, KeyOption


def calibrate(
    bundle: BundleArgument,
    dataset: Annotated[
        list[str],
        typer.Option(
            "--dataset",
            metavar="KIND:PATH",
            help="The bundle's own dataset, or a site's, which gives the intervals alone; may be repeated.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="Folder to write; must not exist.")],
    budget: BudgetOption = None,
    key: KeyOption = None,
    json_file: JsonOption = None,
) -> None:
    """Fit the thresholds and intervals of a bundle again, judge it again, and write it as a new one; no training.

    The graphs stay as they are. Labelled pictures of another site give the intervals alone; thresholds and verdict,
    which need the network's own validation subjects, stay.

    The old bundle's signature does not hold for the new one; --key signs that.
    """
    from edgefetal.cli import terminal
    from edgefetal.cli.build import show_finished, signer_of
    from edgefetal.starter import bundle_folder
    from edgefetal_calibration.budget_file import read_budget
    from edgefetal_calibration.datasets.kinds import read_exams
    from edgefetal_export.draft import draft_of, recalibrate
    from edgefetal_runtime.atomic import require_new_folder
    from edgefetal_runtime.infer.bundle import load_bundle
    from edgefetal_runtime.infer.keys import read_signing_key

    folder = bundle_folder(bundle)
    require_new_folder(out, outside=folder)
    terminal.check_json_target(json_file, out, folder, key)
    signing_key = None if key is None else read_signing_key(key)
    limits, draft = read_budget(budget), draft_of(load_bundle(folder))
    exams = [exam for text in dataset for exam in read_exams(text)[1]]
    with terminal.steps() as progress:
        finished = recalibrate(draft, exams, out, budget=limits, progress=progress, key=signing_key)
    terminal.write_json(
        json_file,
        {
            "out": str(out),
            "signer": signer_of(signing_key),
            "sizes_bytes": finished.sizes_bytes,
            "evidence": finished.evidence,
        },
    )
    show_finished(finished.evidence, finished.sizes_bytes, out, signing_key)
