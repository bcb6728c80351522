"""`edgefetal verify`: is this bundle whole, whose is it, and does this machine prepare frames as its builder did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgefetal.cli.options import BackendOption, BundleArgument, JsonOption, TrustedOption

if TYPE_CHECKING:
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.finished import Attestation
    from edgefetal_runtime.infer.trust import Trust


def verify(
    bundle: BundleArgument,
    execute: Annotated[bool, typer.Option("--run", help="Also run the golden frames and compare the answers.")] = False,
    backend: BackendOption = "auto",
    trusted: TrustedOption = None,
    json_file: JsonOption = None,
) -> None:
    """Check every file of a bundle, who signed it, and that frames are prepared here as they were where it was built.

    Where some key is trusted and none of them signed it, the check ends there and has failed. Of `active` the engine
    and the attestation are checked too, and --run runs it as it was finished.
    """
    from dataclasses import asdict

    from edgefetal.cli import terminal
    from edgefetal.starter import bundle_folder
    from edgefetal_devices.errors import BundleError, CheckFailedError
    from edgefetal_runtime.infer.bundle import load_bundle
    from edgefetal_runtime.infer.finished import ACTIVE, home_folder, read_finished, try_out
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
        "finished": None,
    }
    terminal.say(f"{loaded.manifest.name}: {len(loaded.manifest.files)} files as built, {loaded.sha256[:12]}.")
    terminal.say(_origin(loaded, trust))
    try:
        require(loaded, trust, Demand.CLINIC)
    except BundleError as error:
        terminal.write_json(json_file, {**about, "golden_frames": None, "network": None})
        raise CheckFailedError(str(error)) from error
    finished = read_finished(home_folder(), trust=trust) if bundle == ACTIVE else None
    if finished is not None:
        finished.read_engine()
        finished.read_answers()
        about["finished"] = finished.attestation.model_dump(mode="json")
        terminal.say(_finished(finished.attestation))
    golden = check_preprocessing(loaded)
    terminal.say(f"{golden} golden frames are prepared here bit for bit as they were when it was built.")
    # What is active runs on what it was finished for, unless another back end is asked for.
    active = finished if backend == "auto" else None
    report = None
    if execute:
        report = check_network(loaded, load_network(loaded, backend=backend)) if active is None else try_out(active)
    if report is not None:
        differs = (
            f"{report.mask_disagreement:.4%} of the mask differs"
            if loaded.manifest.heads.mask
            else f"its logit differs by at most {report.score_difference:.3f}"
        )
        then = "there" if active is None else "when it was proven"
        terminal.say(f"The network answers as it did {then} ({differs}).")
    if not loaded.manifest.budget_passed:
        terminal.say("It did not pass its accuracy budget, so `edgefetal run` refuses it; see evidence.json.")
    network = None if report is None else asdict(report)
    terminal.write_json(json_file, {**about, "golden_frames": golden, "network": network})


def _finished(attestation: Attestation) -> str:
    """Say in one sentence what was finished here."""
    by = "" if attestation.tensorrt is None else f" by {attestation.tensorrt}"
    return (
        f"It was finished here at {attestation.created_utc}: {attestation.graph} on {attestation.back_end}{by}, whole "
        "as it was proven."
    )


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
