"""`edgefetal evaluate BUNDLE` on exams of any kind: planes and lengths, frame by frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_calibration.each import Mapper
    from edgefetal_calibration.frames import FrameResult
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.network import Network


def evaluate_exams(
    bundle: Bundle,
    networks: Mapping[str, Network],
    exams: Sequence[LabelledExam],
    frames_per_exam: int,
    about: Mapping[str, Any],
    json_file: Path | None,
    mapper: Mapper,
) -> None:
    """Measure some frames of every exam, and say how far lengths are off and how often planes are named rightly.

    Args:
        bundle: the bundle.
        networks: its graphs by name.
        exams: which.
        frames_per_exam: at most so many frames of each.
        about: what else the JSON says.
        json_file: where to, or None.
        mapper: who does it.
    """
    from edgefetal.cli import terminal
    from edgefetal_calibration.budget import judge_frames
    from edgefetal_calibration.budget_file import read_budget
    from edgefetal_calibration.frames import evaluate_frames, frame_rows, summarise_frames

    with terminal.steps() as progress:
        results = evaluate_frames(networks, exams, frames_per_exam, progress.step("exams", len(exams)), mapper)
    summaries = {name: summarise_frames(of_network) for name, of_network in results.items()}
    value: dict[str, Any] = {**about, **summaries["shipped"], "frames": frame_rows(results["shipped"])}
    if "reference" in results:
        judgement = judge_frames(
            results["shipped"], results["reference"], read_budget(), bundle.manifest.heads.mask
        ).to_json()
        value["reference"] = summaries["reference"]
        value["paired"] = judgement["lines"]
    terminal.write_json(json_file, value)
    columns = ("graph", "length", "measured", "MAE", "bias", "max", "Dice")
    lines = [
        (
            name,
            measure,
            f"{of['n_measured']} of {of['n']}",
            *(terminal.figure(of[key]) for key in ("mae_mm", "bias_mm", "max_mm")),
            terminal.figure(of["dice_mean"], 4),
        )
        for name, summary in summaries.items()
        for measure, of in summary["lengths"].items()
    ]
    shipped = summaries["shipped"]
    terminal.show_table(f"Error in mm, {shipped['n']} frames of {shipped['n_subjects']} subjects", columns, lines)
    show_planes(results["shipped"])
    for line in value.get("paired", []):
        if line["group"] == "all":
            terminal.say(f"{line['verdict']}: {line['reason']}")


def show_planes(results: Sequence[FrameResult]) -> None:
    """Print which planes were named how, where the network names planes."""
    from edgefetal.cli import terminal

    pairs = [(r.plane, r.named) for r in results if r.plane is not None and r.named is not None]
    truths, names = (sorted({pair[k] for pair in pairs}) for k in (0, 1))
    rows = [(truth, *(str(pairs.count((truth, name))) for name in names)) for truth in truths]
    if rows:
        terminal.show_table("Planes: shown (rows) and named (columns)", ("", *names), rows)
