"""`edgefetal demo`: the whole job on the starter bundle and a simulated sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefetal.cli.options import JsonOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefetal_calibration.phantom.cine import Cine
    from edgefetal_calibration.phantom.exam import Exam

# The demo's only promise: the chain is joined up. The starter's own errors on simulated heads are a few per cent, so a
# larger one means that it is not.
_MAX_RELATIVE_ERROR = 0.08
_CHECK = "check the installation with `edgefetal verify starter --run`"
_SKILL = 0.8
# Enough of them at the plane, and few enough for a small computer.
_FRAMES = 40
_MAX_THREADS = 4
_VIDEO = "sweep.avi"
_TRUTH = "truth.json"


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must not exist.")] = Path(
        "demo-exam"
    ),
    ga: Annotated[
        str, typer.Option("--ga", metavar="AGE", help="Age of the simulated fetus, 14w0d to 40w0d.")
    ] = "28w0d",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the simulation: another fetus, another hand.")] = 1,
    json_file: JsonOption = None,
) -> None:
    """Simulate a probe sweep across the head of a fetus of known size, run the starter bundle on it, and compare.

    The pictures are computed from a drawn anatomy. They show that the chain works from video to millimetres; they say
    nothing of accuracy on patients. DIR receives the sweep, its truth, the exam's record and the picture that was
    measured.
    """
    import os
    import tempfile

    from edgefetal.cli import terminal
    from edgefetal.cli.exam_tables import show_exam
    from edgefetal.starter import NAME, bundle_folder
    from edgefetal_calibration.phantom.exam import Exam, ExamPlan
    from edgefetal_calibration.phantom.protocol import Protocol
    from edgefetal_calibration.phantom.writers import write_video
    from edgefetal_devices.errors import CheckFailedError
    from edgefetal_runtime.atomic import json_bytes, require_new_folder
    from edgefetal_runtime.exam.folder import RECORD, write_exam
    from edgefetal_runtime.exam.pipeline import Listener, examine
    from edgefetal_runtime.growth.gestation import format_weeks, parse_age
    from edgefetal_runtime.infer.golden import open_for_clinic
    from edgefetal_runtime.scale import Scale
    from edgefetal_runtime.sources.scale_wish import ScaleWish
    from edgefetal_runtime.sources.source import open_source

    require_new_folder(out)
    terminal.check_json_target(json_file, out)
    exam = Exam(ExamPlan(Protocol.HEAD, parse_age(ga).weeks, seed, skill=_SKILL, frame_count=_FRAMES))
    bundle, network = open_for_clinic(bundle_folder(NAME))
    terminal.say(
        f"SIMULATED: a fetus of {format_weeks(exam.plan.weeks)} (seed {seed}); a probe is swept across its head."
    )
    with tempfile.TemporaryDirectory() as folder, terminal.steps() as progress:
        threads = min(_MAX_THREADS, os.cpu_count() or 1)
        sweep, truth = _draw(exam, threads, progress.step("draw the sweep", exam.frame_count))
        video = Path(folder) / _VIDEO
        write_video(sweep, video)
        source = open_source(video, ScaleWish(stated=Scale(sweep.x_mm_per_px, sweep.y_mm_per_px, origin="simulation")))
        advance = progress.step("measure", source.frame_count)
        result = examine(source, video.name, bundle, network, Listener(on_frame=lambda *_: advance()), simulated=True)
        write_exam(result, out, beside={_VIDEO: video.read_bytes(), _TRUTH: json_bytes(truth)})
    show_exam(result.exam)
    hc = next(m for m in result.exam.measurements if m.name == "HC")
    hc_true_mm = truth["hc_mm"]
    error_mm = None if hc.value is None else hc.value - hc_true_mm
    measured_frame = hc.frames[0].index if hc.frames else None
    record = {
        "simulated": True,
        "weeks": exam.plan.weeks,
        "seed": seed,
        "hc_true_mm": hc_true_mm,
        "hc_in_frame_mm": None if measured_frame is None else truth["frames"][measured_frame]["hc_mm"],
        "hc_measured_mm": hc.value,
        "interval_mm": hc.interval,
        "error_mm": error_mm,
        "standard_plane_frame": _nearest_the_plane(truth),
        "measured_frame": measured_frame,
        "mm_per_px": truth["mm_per_px"],
        "exam": str(out / RECORD),
    }
    terminal.write_json(json_file, record)
    if hc.value is None or error_mm is None:
        message = (
            f"Nothing was measured on the simulated sweep: {hc.abstained}. The starter refuses some simulated heads; "
            f"try another --seed, or {_CHECK}."
        )
        raise CheckFailedError(message)
    between = "" if hc.interval is None else f" ({hc.interval[0]:.0f} to {hc.interval[1]:.0f})"
    terminal.say(
        f"SIMULATED head: true HC {hc_true_mm:.1f} mm, measured {hc.value:.1f} mm{between}, error {error_mm:+.1f} mm "
        f"({error_mm / hc_true_mm:+.1%})."
    )
    terminal.say(
        f"The frame that was measured, with its outline: {out / str(result.exam.sweeps[0].structures[0].overlay)}"
    )
    terminal.say(f"The sweep and all that is known of it: {out / _VIDEO}, {out / _TRUTH}")
    if abs(error_mm) > _MAX_RELATIVE_ERROR * hc_true_mm:
        message = f"The error is over {_MAX_RELATIVE_ERROR:.0%}; try another --seed, or {_CHECK}."
        raise CheckFailedError(message)


def _draw(exam: Exam, threads: int, on_frame: Callable[[], None]) -> tuple[Cine, dict[str, Any]]:
    """Draw an exam of one sweep; return its pictures, marked as simulated, and its truth."""
    import numpy as np

    from edgefetal_calibration.phantom.capture import burn_text
    from edgefetal_calibration.phantom.cine import Cine
    from edgefetal_calibration.phantom.exam_files import FRAMES_PER_S

    pictures, truths = [], []
    for frame in exam.frames(threads):
        pictures.append(frame.picture)
        truths.append(frame.truth)
        on_frame()
    _, fan = exam.probe_and_fan
    cine = Cine(np.stack(pictures), FRAMES_PER_S, fan.x_mm_per_px, fan.y_mm_per_px)
    # A copy of these pictures must not pass for a patient's.
    return burn_text(cine, ["SIMULATED"], left_px=8), exam.record(truths, (fan.x_mm_per_px, fan.y_mm_per_px))


def _nearest_the_plane(truth: dict[str, Any]) -> int | None:
    """Return the number of the frame nearest the head's standard plane, or None where no frame is near it."""
    heads = [frame for frame in truth["frames"] if frame["plane"] == "head"]
    return max(heads, key=lambda frame: frame["quality"])["frame"] if heads else None
