"""How well graded frames are told apart, on whole exams: a bundle that measures nothing, and what runs show too."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledExam, LabelledSweep
    from edgefetal_calibration.each import Mapper
    from edgefetal_calibration.quality import ScoredExam
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.network import Network

TABLES = {
    "per_frame": "all frames of all sweeps",
    "per_exam": "mean of the exams",
    "annotated_sweeps": "sweeps with a plane, as published",
}


def evaluate_quality_bundle(
    bundle: Bundle,
    networks: Mapping[str, Network],
    chosen: Sequence[LabelledExam],
    about: Mapping[str, Any],
    json_file: Path | None,
    mapper: Mapper,
) -> None:
    """Judge the decision of a bundle that measures nothing, every frame of every sweep.

    Args:
        bundle: the bundle.
        networks: its graphs by name.
        chosen: which exams.
        about: what else the JSON says.
        json_file: where to, or None.
        mapper: who does it.
    """
    from edgefetal.cli import terminal
    from edgefetal_calibration.each import in_order
    from edgefetal_calibration.quality import summarise_quality

    threshold = bundle.manifest.thresholds.quality
    with terminal.steps() as progress:
        summaries = {
            name: summarise_quality(
                in_order(
                    mapper,
                    partial(_score, networks, name),
                    chosen,
                    [exam.name for exam in chosen],
                    progress.step(f"exams, {name} graph", len(chosen)),
                ),
                threshold,
            )
            for name in networks
        }
    value: dict[str, Any] = {**about, "quality": summaries["shipped"]}
    if "reference" in summaries:
        value["reference"] = summaries["reference"]
    terminal.write_json(json_file, value)
    for name, summary in summaries.items():
        terminal.say(f"The {name} graph:")
        show_quality(summary, about["part"], len(chosen) + about["n_left_out"])


def _score(networks: Mapping[str, Network], name: str, exam: LabelledExam) -> ScoredExam:
    """Score an exam with one of several graphs."""
    from edgefetal_calibration.quality import score_exam

    return score_exam(exam, partial(_scores, networks[name]))


def _scores(network: Network, sweep: LabelledSweep) -> npt.NDArray[np.float64]:
    """Return the quality of every frame of a sweep, shape (N,)."""
    import numpy as np

    return np.array([network.infer(network.prepare(pixels)[0]).quality for pixels in sweep.pixels], np.float64)


def show_quality(summary: Mapping[str, Any], part: str, n_exams: int) -> None:
    """Print what `summarise_quality` returned.

    Args:
        summary: that.
        part: of the split.
        n_exams: how many exams there are in all parts.
    """
    from edgefetal.cli import terminal

    terminal.say(
        f"{part} part: {summary['n_exams']} of {n_exams} exams, {summary['n_frames']} frames, "
        f"{summary['n_positive']} with the plane; {summary['n_sweeps_without_plane']} of {summary['n_sweeps']} sweeps "
        "without it."
    )
    columns = ("metric", *TABLES.values())
    metrics = list(summary["per_frame"])
    lines = [(metric, *(_with_interval(summary[table][metric]) for table in TABLES)) for metric in metrics]
    terminal.show_table("Is the plane there? With 95 % intervals over subjects", columns, lines)


def _with_interval(figure: Mapping[str, Any]) -> str:
    from edgefetal.cli import terminal

    interval: Sequence[float] | None = figure["interval"]
    value = terminal.figure(figure["value"], 3)
    return value if interval is None else f"{value} ({interval[0]:.3f} to {interval[1]:.3f})"
