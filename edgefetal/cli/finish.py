"""`edgefetal finish`: build, prove and activate a bundle on the device that is to run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from edgefetal.cli.options import JsonOption

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_export.engine.finish import Here
    from edgefetal_runtime.infer.finished import Finished


def finish(
    bundle: Annotated[
        Optional[str],
        typer.Argument(
            metavar="[BUNDLE]",
            help="Folder of a bundle, `starter`, or `active`: what was finished here.",
            show_default=False,
        ),
    ] = None,
    allow_onnxruntime: Annotated[
        bool,
        typer.Option(
            "--allow-onnxruntime", help="Where TensorRT cannot be used, run the float graph on the processor, slower."
        ),
    ] = False,
    dla: Annotated[
        Optional[int],
        typer.Option("--dla", min=0, max=1, metavar="CORE", help="Let a deep-learning accelerator run what it can."),
    ] = None,
    back: Annotated[
        bool,
        typer.Option("--back", help="Finish nothing: make active what was so before, and the active one previous."),
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Verify a bundle, build its engine on this device, prove and time it, and make it what `run active` runs.

    The bundle must be signed by a key that this machine trusts, or be `starter`. The engine has to answer as the
    processor does, and to stay within the bundle's accuracy budget on simulated exams that are drawn here; of INT8 and
    FP16 the faster is taken. Whatever fails, or a power cut, leaves what was active as it was; the one before it is
    kept, and --back returns to it. What was found stands in `attestation.json`, under $EDGEFETAL_HOME or
    ~/.local/share/edgefetal.
    """
    from edgefetal.cli import terminal
    from edgefetal.starter import bundle_folder
    from edgefetal_devices.errors import InputError
    from edgefetal_export.engine.finish import FinishWish
    from edgefetal_export.engine.finish import finish as finish_bundle
    from edgefetal_export.engine.install import roll_back
    from edgefetal_runtime.infer.finished import home_folder

    home = home_folder()
    if back:
        if bundle is not None or allow_onnxruntime or dla is not None:
            raise InputError("--back takes what is kept on this machine as it is; give it alone.")
        terminal.check_json_target(json_file, home)
        report(roll_back(home), json_file)
        return
    if bundle is None:
        raise InputError("Name the bundle to finish, or give --back to return to the one before.")
    folder = bundle_folder(bundle)
    terminal.check_json_target(json_file, folder, home)
    here = this_machine()
    for caution in here.cautions:
        terminal.say(f"Caution: {caution}")
    with terminal.steps() as progress:
        finished = finish_bundle(folder, home, here, FinishWish(allow_onnxruntime, dla), progress=progress)
    report(finished, json_file)


def report(finished: Finished, json_file: Path | None) -> None:
    """Print what was attested of what is active now, and write it for machines."""
    from edgefetal.cli import terminal

    attestation = finished.attestation
    terminal.write_json(json_file, {"folder": str(finished.path), **attestation.model_dump(mode="json")})
    columns = ("graph", "back end", "build (s)", "p50 (ms)", "p95 (ms)", "p99 (ms)")
    rows = [
        (
            timing.graph,
            timing.back_end,
            terminal.figure(timing.build_s, 1),
            *(terminal.figure(value) for value in (timing.p50_ms, timing.p95_ms, timing.p99_ms)),
        )
        for timing in attestation.timings
    ]
    terminal.show_table("Latency on this device, copies included", columns, rows)
    terminal.show_table("Checked on this device", ("what", "found"), [(c.what, c.outcome) for c in attestation.checks])
    if attestation.layers:
        terminal.say("Layers: " + ", ".join(f"{count} in {name}" for name, count in attestation.layers.items()) + ".")
    terminal.say(
        f"Active: {attestation.bundle}, {attestation.graph} on {attestation.back_end}, in {finished.path}. "
        "Run it by: edgefetal run active SOURCE"
    )


def this_machine() -> Here:
    """Find out what finishing needs of this machine."""
    import platform

    from edgefetal.cli.doctor import this_host
    from edgefetal_devices.detect import read_serial
    from edgefetal_devices.doctor import diagnose
    from edgefetal_devices.telemetry import read_telemetry
    from edgefetal_export.engine.finish import Here
    from edgefetal_runtime.infer.tensorrt.api import load_tensorrt
    from edgefetal_runtime.infer.tensorrt.cuda import load_cuda

    host = this_host()
    return Here(
        board=host.board,
        serial=read_serial(host.root),
        machine=platform.machine(),
        available_bytes=read_telemetry(host.root).memory_available_bytes,
        cautions=tuple(
            f"{finding.found} {finding.remedy or ''}".strip() for finding in diagnose(host) if finding.state != "ok"
        ),
        load_tensorrt=load_tensorrt,
        load_cuda=load_cuda,
    )
