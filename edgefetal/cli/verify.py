"""`edgefetal verify`: is this bundle whole, and does this machine prepare frames as its builder did."""

from __future__ import annotations

from typing import Annotated

import typer

from edgefetal.cli.options import BackendOption, BundleArgument, JsonOption


def verify(
    bundle: BundleArgument,
    execute: Annotated[bool, typer.Option("--run", help="Also run the golden frames and compare the answers.")] = False,
    backend: BackendOption = "auto",
    json_file: JsonOption = None,
) -> None:
    """Check every file of a bundle, and that frames are prepared here bit for bit as they were when it was built."""
    from dataclasses import asdict

    from edgefetal.cli import terminal
    from edgefetal.starter import bundle_folder
    from edgefetal_runtime.infer.bundle import load_bundle
    from edgefetal_runtime.infer.golden import check_network, check_preprocessing
    from edgefetal_runtime.infer.network import load_network

    folder = bundle_folder(bundle)
    terminal.check_json_target(json_file, folder)
    loaded = load_bundle(folder)
    golden = check_preprocessing(loaded)
    terminal.say(f"{loaded.manifest.name}: {len(loaded.manifest.files)} files as built, {loaded.sha256[:12]}.")
    terminal.say(f"{golden} golden frames are prepared here bit for bit as they were when it was built.")
    report = check_network(loaded, load_network(loaded, backend=backend)) if execute else None
    if report is not None:
        differs = (
            f"{report.mask_disagreement:.4%} of the mask differs"
            if loaded.manifest.heads.mask
            else f"its logit differs by at most {report.score_difference:.3f}"
        )
        terminal.say(f"The network answers as it did there ({differs}).")
    if not loaded.manifest.budget_passed:
        terminal.say("It did not pass its accuracy budget, so `edgefetal run` refuses it; see evidence.json.")
    terminal.write_json(
        json_file,
        {
            "name": loaded.manifest.name,
            "sha256": loaded.sha256,
            "files": len(loaded.manifest.files),
            "golden_frames": golden,
            "budget_passed": loaded.manifest.budget_passed,
            "network": None if report is None else asdict(report),
        },
    )
