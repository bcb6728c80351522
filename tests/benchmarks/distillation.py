"""What teachers are worth: runs of `edgefetal distil` on the held-out subjects of their own split, side by side.

    python tests/benchmarks/distillation.py --data hc18:PATH RUN [RUN ...]

Each run's network is asked in float, with no threshold, for the lengths of its held-out frames; of a frame that nothing
fits there is no length. The runs must be of one split.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgefetal_calibration.datasets.kinds import read_exams
from edgefetal_calibration.datasets.split import Part
from edgefetal_export.training.biometry.frames import load_frames
from edgefetal_export.training.biometry.loop import validate
from edgefetal_export.training.outliner import load_outliner
from edgefetal_export.training.run import read_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", action="append", required=True, metavar="KIND:PATH")
    arguments = parser.parse_args()
    exams = [exam for text in arguments.data for exam in read_exams(text)[1]]
    split = read_split(arguments.runs[0])
    frames = [frame for of_exam in load_frames(split.select(exams, Part.HELD_OUT), lambda: None) for frame in of_exam]
    for run in arguments.runs:
        if read_split(run).parts != split.parts:
            parser.error(f"{run} has another split than {arguments.runs[0]}; train all with one --split-seed")
        outliner = load_outliner(run)
        score = validate(outliner.network, frames, outliner.recipe)
        lengths = "  ".join(
            f"{name} {length.mae_mm:.2f} mm ({length.n_measured} of {length.n})"
            for name, length in score.lengths.items()
            if length.mae_mm is not None
        )
        print(f"{run.name:16s} {lengths}  plane {score.plane_accuracy:.3f}  cost {score.cost_mm():.2f} mm", flush=True)


if __name__ == "__main__":
    main()
