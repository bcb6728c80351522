"""Our choice of the abdomen's frame beside three published rules, on simulated blind sweeps: the table of docs/live.md.

edgefetal phantom --protocol acouslic --ga 18w0d..36w0d --exams 50 --frames 60 --seed 77 --out blind
python tests/benchmarks/selection.py BUNDLE blind

One network answers for all four; only the rule differs. The published ones: the frame with the largest outline
(ACOUSLIC-AI's baseline); the sweep with the most positive frames, and in it the largest circumference (a submission to
the challenge); the highest quality alone.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_calibration.challenge import NO_FRAME, Answer, acouslic_field, read_case, score_case
from edgefetal_calibration.challenge_files import abdomen_answer
from edgefetal_calibration.datasets.phantom import read_phantom
from edgefetal_calibration.evaluate import mask_in_frame
from edgefetal_runtime.exam.find import find_all, plane_probability
from edgefetal_runtime.exam.measure import StructureSelector, size_px
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.infer.bundle import ABDOMEN, load_bundle
from edgefetal_runtime.infer.network import load_network

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgefetal_calibration.challenge import CaseScore, CaseTruth
    from edgefetal_calibration.datasets.phantom import PhantomExam
    from edgefetal_runtime.infer.network import Network


@dataclass(frozen=True)
class Row:
    """What the rules look at in one frame."""

    sweep: int
    area: int
    length_px: float
    quality: float
    positive: bool


def answers(network: Network, exam: PhantomExam) -> dict[str, Answer]:
    """Answer an exam by every rule."""
    manifest = network.manifest
    rows: list[Row] = []
    ours = []
    masks: list[npt.NDArray[np.uint8]] = []
    shape = (0, 0)
    per_sweep = 0
    for number, sweep in enumerate(exam.sweeps()):
        selector = StructureSelector(ABDOMEN)
        per_sweep = len(sweep.pixels)
        for index, pixels in enumerate(sweep.pixels):
            image, box = network.prepare(pixels)
            output = network.infer(image)
            frame = Frame(pixels, sweep.name, index, index / 30, sweep.scale)
            finding = find_all(manifest, frame, image, output, box)
            selector.push(finding)
            shape = pixels.shape
            mask = mask_in_frame(output.mask_logits[manifest.heads.mask.index(ABDOMEN)], box, shape)
            # The class of a frame as a plain classifier names it.
            positive = plane_probability(output, ABDOMEN) >= max(output.plane_probability.values())
            length = size_px(finding.found[ABDOMEN])
            rows.append(Row(number, int(mask.sum()), length, output.quality or 0.0, positive))
            masks.append(np.packbits(mask))
        ours.append(selector.finish(None, only_simulated=False))

    def answer(frame: int) -> Answer:
        if frame == NO_FRAME:
            return Answer(NO_FRAME, np.zeros(shape, np.bool_))
        packed = np.unpackbits(masks[frame], count=shape[0] * shape[1])
        return Answer(frame, packed.astype(np.bool_).reshape(shape))

    return {
        # What the runtime outlines, as it would answer.
        "ours": abdomen_answer(ours, per_sweep, shape),
        "largest outline": answer(_largest(rows)),
        "most positives, then largest": answer(_most_positive(rows)),
        "highest quality": answer(int(np.argmax([row.quality for row in rows]))),
    }


def _largest(rows: list[Row]) -> int:
    areas = [row.area for row in rows]
    return int(np.argmax(areas)) if max(areas) else NO_FRAME


def _most_positive(rows: list[Row]) -> int:
    counts = np.bincount([row.sweep for row in rows if row.positive], minlength=1)
    if not counts.max():
        return NO_FRAME
    sweep = int(counts.argmax())
    return max(
        (k for k, row in enumerate(rows) if row.positive and row.sweep == sweep), key=lambda k: rows[k].length_px
    )


def _mean(values: list[float]) -> str:
    if not values:
        return "-"
    drawn = np.random.default_rng(0).choice(np.array(values), (2000, len(values))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{np.mean(values):.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Print a table of the rules."""
    network = load_network(load_bundle(Path(sys.argv[1])), threads=1)
    field = acouslic_field()
    scores: dict[str, list[tuple[CaseTruth, Answer, CaseScore]]] = {}
    exams = read_phantom(Path(sys.argv[2]))
    for number, exam in enumerate(exams, 1):
        truth = read_case(exam)
        for rule, answer in answers(network, exam).items():
            scores.setdefault(rule, []).append((truth, answer, score_case(truth, answer, field)))
        print(f"\r{number} of {len(exams)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print("| rule | WFSS | AC error, mm: mean, largest (n) | wrong answers | no answer where there is one |")
    print("|---|---|---|---|---|")
    for rule, cases in scores.items():
        shown = [(t, a, s) for t, a, s in cases if t.packed]
        empty = [(t, a, s) for t, a, s in cases if not t.packed]
        errors = [abs(s.ac_mm - s.reference_ac_mm) for _, _, s in shown if None not in (s.ac_mm, s.reference_ac_mm)]
        wrong = sum(a.frame != NO_FRAME for _, a, _ in empty) + sum(
            a.frame != NO_FRAME and s.reference_ac_mm is None for _, a, s in shown
        )
        missed = sum(a.frame == NO_FRAME for _, a, _ in shown)
        mm = "-" if not errors else f"{np.mean(errors):.2f}, {max(errors):.1f} ({len(errors)})"
        wfss = _mean([s.wfss for _, _, s in shown])
        print(f"| {rule} | {wfss} | {mm} | {wrong} of {len(cases)} | {missed} of {len(shown)} |")
    print(f"\n{len(exams)} exams, {sum(not t.packed for t, _, _ in scores['ours'])} without an abdomen.")


if __name__ == "__main__":
    main()
