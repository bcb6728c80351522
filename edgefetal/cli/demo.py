"""`edgefetal demo`: the whole job on the starter bundle and a simulated sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefetal.cli.options import JsonOption

# The demo's only promise: the chain is joined up. A larger error means that it is not.
_MAX_RELATIVE_ERROR = 0.05
_CHECK = "check the installation with `edgefetal verify starter --run`"


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must not exist.")] = Path(
        "demo-exam"
    ),
    hc_mm: Annotated[float, typer.Option("--hc-mm", min=100, max=310, help="HC of the simulated head.")] = 180.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the simulation.")] = 1,
    json_file: JsonOption = None,
) -> None:
    """Simulate a probe sweep across a head of known size, run the starter bundle on it, and compare.

    The sweep is a simple drawing. It shows that the chain works from video to millimetres; it says nothing of accuracy
    on patients.
    """
    import tempfile

    from edgefetal.cli import terminal
    from edgefetal.cli.run import show_exam
    from edgefetal.starter import NAME, bundle_folder
    from edgefetal_calibration.phantom.head_clip import simulate_head_clip, write_clip
    from edgefetal_devices.errors import CheckFailedError
    from edgefetal_runtime.atomic import require_new_folder
    from edgefetal_runtime.exam.pipeline import examine
    from edgefetal_runtime.exam.store import RECORD, write_exam
    from edgefetal_runtime.infer.golden import open_for_clinic
    from edgefetal_runtime.scale import Scale
    from edgefetal_runtime.sources.scale_wish import ScaleWish
    from edgefetal_runtime.sources.source import open_source

    require_new_folder(out)
    terminal.check_json_target(json_file, out)
    terminal.say(f"Drawing a simulated sweep across a head of {hc_mm:g} mm (seed {seed}) ...")
    clip = simulate_head_clip(hc_mm=hc_mm, seed=seed)
    bundle, network = open_for_clinic(bundle_folder(NAME))
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "sweep.avi"
        write_clip(clip, video)
        source = open_source(video, ScaleWish(stated=Scale(clip.mm_per_px, clip.mm_per_px, origin="simulation")))
        with terminal.steps() as progress:
            result = examine(source, video.name, bundle, network, progress.step("frames", source.frame_count))
        write_exam(result, out, beside={video.name: video.read_bytes()})
    show_exam(result.exam)
    hc = next(m for m in result.exam.measurements if m.name == "HC")
    error_mm = None if hc.value is None else hc.value - clip.hc_mm
    record = {
        "simulated": True,
        "hc_true_mm": clip.hc_mm,
        "hc_measured_mm": hc.value,
        "error_mm": error_mm,
        "standard_plane_frame": clip.standard_plane_index,
        "measured_frame": hc.frames[0].index if hc.frames else None,
        "exam": str(out / RECORD),
    }
    terminal.write_json(json_file, record)
    if hc.value is None or error_mm is None:
        message = f"Nothing was measured on the simulated sweep: {hc.abstained}; {_CHECK}."
        raise CheckFailedError(message)
    terminal.say(
        f"Simulated head: true HC {clip.hc_mm:.1f} mm, measured {hc.value:.1f} mm, error {error_mm:+.1f} mm "
        f"({error_mm / clip.hc_mm:+.1%})."
    )
    terminal.say(f"The frame that was measured, with its outline: {out / str(result.exam.sweeps[0].overlay)}")
    if abs(error_mm) > _MAX_RELATIVE_ERROR * clip.hc_mm:
        message = f"The error is over {_MAX_RELATIVE_ERROR:.0%}; {_CHECK}."
        raise CheckFailedError(message)
