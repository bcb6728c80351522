"""`edgefetal verify`: is this bundle whole, whose is it, and does this machine prepare frames as its builder did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgefetal.cli.options import BackendOption, BundleArgument, JsonOption, TrustedOption

if TYPE_CHECKING:
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.trust import Trust


def verify(
    bundle: BundleArgument,
    execute: Annotated[bool, typer.Option("--run", help="Also run the golden frames and compare the answers.")] = False,
    backend: BackendOption = "auto",
    trusted: TrustedOption = None,
    json_file: JsonOption = None,
) -> None:
    """Check every file of a bundle, who signed it, and that frames are prepared here as they were where it was built.

    Where some key is trusted and none of them signed it, the check ends there and has failed.
    """
    from dataclasses import asdict

    from edgefetal.cli import terminal
    from edgefetal.starter import bundle_folder
    from edgefetal_devices.errors import BundleError, CheckFailedError
    from edgefetal_runtime.infer.bundle import load_bundle
    from edgefetal_runtime.infer.golden import check_network, check_preprocessing
    from edgefetal_runtime.infer.network import load_network
    from edgefetal_runtime.infer.trust import Demand, machine_trust, require

    folder = bundle_folder(bundle)
    terminal.check_json_target(json_file, folder, trusted)
    trust = machine_trust(trusted)
    loaded = load_bundle(folder, trust)
    about = {
        "name": loaded.manifest.name,
        "sha256": loaded.sha256,
        "files": len(loaded.manifest.files),
        "origin": loaded.standing.value,
        "signer": loaded.signer,
        "trusted": loaded.trusted,
        "budget_passed": loaded.manifest.budget_passed,
    }
    terminal.say(f"{loaded.manifest.name}: {len(loaded.manifest.files)} files as built, {loaded.sha256[:12]}.")
    terminal.say(_origin(loaded, trust))
    try:
        require(loaded, trust, Demand.CLINIC)
    except BundleError as error:
        terminal.write_json(json_file, {**about, "golden_frames": None, "network": None})
        raise CheckFailedError(str(error)) from error
    golden = check_preprocessing(loaded)
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
    network = None if report is None else asdict(report)
    terminal.write_json(json_file, {**about, "golden_frames": golden, "network": network})


def _origin(bundle: Bundle, trust: Trust) -> str:
    """Say in one sentence whose a bundle is."""
    from edgefetal_runtime.infer.trust import Standing

    if bundle.standing is Standing.PACKAGED:
        return "It comes with the program, and is trusted as that is."
    if bundle.signed_by is None:
        return "It is not signed: nobody stands for it."
    known = trust.find(bundle.signed_by)
    if known is None:
        return f"It is signed by key {bundle.signer}, which is not trusted here."
    return f"It is signed by {known.name}, key {bundle.signer}, which is trusted here."
