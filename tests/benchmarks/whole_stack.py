"""ACOUSLIC-sized exams: `edgefetal run` beside a program that holds the whole stack, as the public baseline does.

edgefetal phantom --protocol acouslic --ga 18w0d..36w0d --exams 4 --seed 41 --out exams
python tests/benchmarks/whole_stack.py BUNDLE exams

Both run the bundle's network, each exam in a fresh process of each in turn. Printed are seconds, the most memory that
the process had, and the challenge's scores. The bundle must outline the abdomen. Needs the extra `peers`. The figures
are in docs/sweeps.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own short name

from edgefetal_calibration.challenge import Answer, acouslic_field, read_case, score_case
from edgefetal_calibration.challenge_files import FRAME_NUMBER, MASKS
from edgefetal_calibration.datasets.acouslic import SWEEP_FRAMES
from edgefetal_calibration.datasets.phantom import read_phantom
from edgefetal_export.peers.whole_stack import WholeStack
from edgefetal_runtime.bench.cold import run_process
from edgefetal_runtime.infer.bundle import ABDOMEN, load_bundle
from edgefetal_runtime.infer.network import load_network

OURS, THEIRS = "edgefetal run", "a whole stack"


def answer_by_stack(bundle: Path, stack: Path, out: Path) -> None:
    """Answer one exam the other way, in a process of its own."""
    network = load_network(load_bundle(bundle))
    answer = WholeStack(network, "", ABDOMEN).answer(stack)
    np.savez(out, frame=answer.frame, mask=answer.mask)


def main() -> None:
    """Answer every exam both ways and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("exams", type=Path)
    parser.add_argument("--first", type=int, default=4, help="so many exams")
    parser.add_argument("--by-stack", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.by_stack:
        answer_by_stack(asked.bundle, asked.exams, asked.by_stack)
        return
    field = acouslic_field()
    seconds: dict[str, list[float]] = {OURS: [], THEIRS: []}
    peaks_mb: dict[str, list[float]] = {OURS: [], THEIRS: []}
    scores: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for exam in read_phantom(asked.exams)[: asked.first]:
        truth = read_case(exam)
        assert exam.stack is not None
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            commands = {
                OURS: [
                    "-m", "edgefetal", "run", str(asked.bundle.absolute()), str(exam.stack.absolute()),
                    "--sweep-frames", str(SWEEP_FRAMES), "--simulated", "--out", "exam", "--answer", "answer",
                ],
                THEIRS: [
                    str(Path(__file__).absolute()), str(asked.bundle.absolute()), str(exam.stack.absolute()),
                    "--by-stack", "answer.npz",
                ],
            }  # fmt: skip
            for who, command in commands.items():
                process = run_process([sys.executable, *command], folder)
                seconds[who].append(process.wall_s)
                peaks_mb[who].append(process.peak_rss_mb)
            frame = json.loads((folder / "answer" / FRAME_NUMBER).read_bytes())
            masks = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "answer" / MASKS)))
            held = np.load(folder / "answer.npz")
            answers = {
                OURS: Answer(frame, masks[max(frame, 0)] > 0),
                THEIRS: Answer(int(held["frame"]), held["mask"]),
            }
            for who, answer in answers.items():
                scored = score_case(truth, answer, field)
                scores[who].append(scored.total)
                lengths_mm = scored.ac_mm, scored.reference_ac_mm
                error_mm = None if None in lengths_mm else lengths_mm[0] - lengths_mm[1]
                print(
                    f"{exam.name[:8]} {who}: {seconds[who][-1]:.1f} s, {peaks_mb[who][-1]:.0f} MB, "
                    f"frame {answer.frame}, AC error {error_mm}, score {scored.total:.3f}",
                    flush=True,
                )
    for who, taken in seconds.items():
        print(
            f"{who}: {60 / np.median(taken):.2f} exams a minute, at most {max(peaks_mb[who]):.0f} MB, "
            f"mean score {np.mean(scores[who]):.3f} of {len(taken)} exams"
        )


if __name__ == "__main__":
    main()
