"""`edgefetal run`: stream a source, pick frames, measure, write the exam."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from edgefetal.cli.options import BackendOption, BundleArgument, JsonOption, ThreadsOption

if TYPE_CHECKING:
    from edgefetal_runtime.exam.record import Exam

_MAX_ROWS = 40


def run(
    bundle: BundleArgument,
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="PNG or JPEG picture, folder of them, or video file.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="EXAM", help="Folder to write; must not exist.")],
    mm_per_px: Annotated[
        Optional[str],
        typer.Option("--mm-per-px", metavar="X[,Y]", help="Pixel size in mm. Without one there are no millimetres."),
    ] = None,
    scale_csv: Annotated[
        Optional[Path],
        typer.Option("--scale-csv", metavar="FILE", help="Pixel sizes by file name, in HC18's layout."),
    ] = None,
    json_file: JsonOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Stream a source, pick the best frames of each sweep, measure, and write the exam.

    A video is one sweep. Each picture of a folder is a sweep of its own; their pixel sizes come from --mm-per-px,
    --scale-csv, or an HC18-style table in the folder or beside it. EXAM receives `exam.json` and a picture of every
    frame that was measured.
    """
    from edgefetal.cli import terminal
    from edgefetal.starter import bundle_folder
    from edgefetal_runtime.atomic import require_new_folder
    from edgefetal_runtime.exam.pipeline import examine
    from edgefetal_runtime.exam.store import write_exam
    from edgefetal_runtime.infer.golden import open_for_clinic
    from edgefetal_runtime.scale import parse_mm_per_px
    from edgefetal_runtime.sources.source import open_source

    require_new_folder(out)
    folder = bundle_folder(bundle)
    terminal.check_json_target(json_file, out, source, scale_csv, folder)
    scale = None if mm_per_px is None else parse_mm_per_px(mm_per_px)
    opened = open_source(source, scale=scale, scale_csv=scale_csv)
    loaded, network = open_for_clinic(folder, backend=backend, threads=threads)
    with terminal.steps() as progress:
        result = examine(opened, str(source), loaded, network, progress.step("frames", opened.frame_count))
    write_exam(result, out)
    terminal.write_json(json_file, result.exam.model_dump(mode="json"))
    show_exam(result.exam)
    terminal.say(f"Record and pictures: {out}")


def show_exam(exam: Exam) -> None:
    """Print an exam, one row a sweep."""
    from edgefetal.cli import terminal

    rows = []
    for sweep in exam.sweeps[:_MAX_ROWS]:
        of_sweep = {m.name: m for m in exam.measurements if m.sweep == sweep.name}
        hc, index = of_sweep["HC"], of_sweep["cephalic_index"]
        frame = str(hc.frames[0].index) if hc.frames else "-"
        rows.append((sweep.name, terminal.figure(hc.value, 1), terminal.figure(index.value), frame, hc.abstained or ""))
    columns = ("sweep", "HC (mm)", "cephalic index", "frame", "why there is none")
    terminal.show_table("Head circumference", columns, rows)
    if len(exam.sweeps) > _MAX_ROWS:
        terminal.say(f"... and {len(exam.sweeps) - _MAX_ROWS} more sweeps in the record.")
    terminal.say(exam.disclaimer)
