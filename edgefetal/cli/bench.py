"""`edgefetal bench`: how fast the shipped graph is here, beside the float one."""

from __future__ import annotations

from typing import Annotated

import typer

from edgefetal.cli.options import BackendOption, BundleArgument, JsonOption, ThreadsOption


def bench(
    bundle: BundleArgument,
    rounds: Annotated[int, typer.Option("--rounds", min=10, help="Timed runs of each graph.")] = 100,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
) -> None:
    """Time the shipped graph and the float one in turns on one simulated frame, after a warm-up."""
    import os
    import platform
    from dataclasses import asdict
    from importlib import metadata

    from edgefetal.cli import terminal
    from edgefetal.starter import bundle_folder
    from edgefetal_calibration.phantom.exam import Exam, ExamPlan
    from edgefetal_calibration.phantom.protocol import Protocol
    from edgefetal_runtime.infer.bundle import MODEL, REFERENCE, load_bundle
    from edgefetal_runtime.infer.latency import speed_ratio, time_networks
    from edgefetal_runtime.infer.network import load_network

    folder = bundle_folder(bundle)
    terminal.check_json_target(json_file, folder)
    loaded = load_bundle(folder)
    networks = {
        name: load_network(loaded, backend=backend, file=file, threads=threads)
        for name, file in (("shipped", MODEL), ("reference", REFERENCE))
    }
    # Of three frames that a practised hand takes across the head the middle one is about at the plane.
    frame = Exam(ExamPlan(Protocol.HEAD, weeks=24.0, seed=1, skill=1.0, frame_count=3)).frame(0, 1)
    warm_up = max(10, rounds // 10)
    with terminal.steps() as progress:
        latencies, seconds = time_networks(
            networks,
            frame.picture,
            rounds=rounds,
            warm_up=warm_up,
            on_round=progress.step("rounds", rounds + warm_up),
        )
    ratio = speed_ratio(seconds["reference"], seconds["shipped"])
    machine = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": metadata.version("onnxruntime"),
        "back_end": networks["shipped"].backend.name,
        "threads": threads,
    }
    terminal.write_json(
        json_file,
        {
            "bundle": {"name": loaded.manifest.name, "sha256": loaded.sha256},
            "machine": machine,
            "rounds": rounds,
            "latency": {name: asdict(latency) for name, latency in latencies.items()},
            "reference_over_shipped": asdict(ratio),
        },
    )
    columns = ("graph", "prepare (ms)", "network p50 (ms)", "p95 (ms)", "max (ms)")
    lines = [
        (name, *(f"{v:.2f}" for v in (la.prepare_ms, la.infer_p50_ms, la.infer_p95_ms, la.infer_max_ms)))
        for name, la in latencies.items()
    ]
    terminal.show_table(
        f"{rounds} interleaved rounds, {machine['back_end']}, {machine['machine']}, {machine['cpus']} cores",
        columns,
        lines,
    )
    terminal.say(
        f"The shipped graph is {ratio.median:.2f} times as fast as the float one "
        f"(95 % interval {ratio.low:.2f} to {ratio.high:.2f})."
    )
