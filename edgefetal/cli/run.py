"""`edgefetal run`: stream a source, pick frames, measure, write the exam."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from edgefetal.cli.age import EddOption, ExamDateOption, GaOption, LmpOption, known_age
from edgefetal.cli.options import BackendOption, BundleArgument, JsonOption, ThreadsOption

SimulatedOption = Annotated[
    bool,
    typer.Option(
        "--simulated", help="The source is simulated: also measure what the bundle knows from simulations alone."
    ),
]


def run(
    bundle: BundleArgument,
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="PNG or JPEG picture, folder of them, video, MetaImage or DICOM file."),
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
    scale_profile: Annotated[
        Optional[Path],
        typer.Option("--scale-profile", metavar="FILE", help="Pixel sizes by probe, depth and format, in TOML."),
    ] = None,
    profile: Annotated[
        Optional[str],
        typer.Option("--profile", metavar="NAME", help="Which of the scale profiles, where there are several."),
    ] = None,
    depth_mm: Annotated[
        Optional[float],
        typer.Option("--depth-mm", metavar="D", help="Depth that the machine shows; the picture's ruler must agree."),
    ] = None,
    ga: GaOption = None,
    lmp: LmpOption = None,
    edd: EddOption = None,
    exam_date: ExamDateOption = None,
    simulated: SimulatedOption = False,
    json_file: JsonOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Stream a source, pick the best frames of each sweep, measure, and write the exam.

    A video, a MetaImage and each region of a DICOM file is one sweep. Each picture of a folder is a sweep of its own;
    their pixel sizes come from --mm-per-px, --scale-csv, --scale-profile, --depth-mm, or an HC18-style table in the
    folder or beside it. MetaImage and DICOM files bring their own. EXAM receives `exam.json` and a picture of every
    frame that was measured.

    Without --ga, --lmp or --edd the measures date the fetus. With one the age stands, and they are read as size.
    """
    from edgefetal.cli import terminal
    from edgefetal.cli.exam_tables import show_exam
    from edgefetal.starter import bundle_folder
    from edgefetal_devices.errors import InputError, ScaleError
    from edgefetal_runtime.atomic import require_new_folder
    from edgefetal_runtime.exam.pipeline import Listener, examine
    from edgefetal_runtime.exam.store import write_exam
    from edgefetal_runtime.infer.golden import open_for_clinic
    from edgefetal_runtime.scale import parse_mm_per_px
    from edgefetal_runtime.sources.scale_profile import read_scale_profile
    from edgefetal_runtime.sources.scale_wish import ScaleWish
    from edgefetal_runtime.sources.source import open_source

    folder = bundle_folder(bundle)
    require_new_folder(out, outside=folder)
    terminal.check_json_target(json_file, out, source, scale_csv, scale_profile, folder)
    if profile is not None and scale_profile is None:
        message = f"--profile {profile} names no file; give it with --scale-profile."
        raise ScaleError(message)
    wish = ScaleWish(
        stated=None if mm_per_px is None else parse_mm_per_px(mm_per_px),
        table=scale_csv,
        profile=None if scale_profile is None else read_scale_profile(scale_profile, profile),
        depth_mm=depth_mm,
    )
    age = known_age(ga, lmp, edd, exam_date)
    opened = open_source(source, wish)
    if age is not None and opened.kind == "folder":
        message = (
            f"Nothing says that the pictures of {source} are of one fetus, so one age cannot hold for all; run them "
            "one by one, or leave the age out."
        )
        raise InputError(message)
    loaded, network = open_for_clinic(folder, backend=backend, threads=threads)
    with terminal.steps() as progress:
        advance = progress.step("frames", opened.frame_count)
        listener = Listener(on_frame=lambda *_: advance())
        result = examine(opened, str(source), loaded, network, listener, age, simulated=simulated)
    write_exam(result, out)
    terminal.write_json(json_file, result.exam.model_dump(mode="json"))
    show_exam(result.exam)
    terminal.say(f"Record and pictures: {out}")
