"""`edgefetal evaluate RUN`: a run of a quality recipe on whole exams, every sweep included."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgefetal.cli.evaluate_quality import TABLES, show_quality
from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_calibration.quality import ScoredExam
    from edgefetal_export.training.quality.scoring import FrameScorer

_DEFAULT_PART = "held-out"
# A share of the picture is no probability, so nothing can be said of its calibration.
_PROBABILITY_ONLY = ("ece", "brier")


def is_run(folder: Path) -> bool:
    """Say whether a folder is a training run; a bundle holds a recipe too, and a manifest."""
    return (folder / "recipe.json").is_file() and not (folder / "manifest.json").is_file()


def evaluate_run(
    run: Path,
    dataset: str,
    part: str,
    *,
    as_official: bool,
    fov: Path | None,
    json_file: Path | None,
    threads: int | None,
) -> None:
    """Judge the decision of a run on a part of a graded set, and where it outlines, by the challenge's score too."""
    from edgefetal.cli import terminal
    from edgefetal_calibration.challenge import (
        Answer,
        CaseScore,
        acouslic_field,
        read_field,
        score_exams,
        summarise_challenge,
    )
    from edgefetal_calibration.datasets.kinds import read_exams
    from edgefetal_calibration.datasets.split import select_part
    from edgefetal_calibration.quality import evaluate_quality, summarise_quality
    from edgefetal_export.training.run import read_split, recipe_name

    terminal.check_json_target(json_file, run, fov)
    name = recipe_name(run)
    if name == "sononet":
        if as_official or fov is not None:
            raise InputError(
                "SonoNet outlines nothing, so it has no challenge score; leave out --as-official and --fov."
            )
        if part != _DEFAULT_PART:
            raise InputError(
                f"{run} was trained elsewhere and has no split, so the whole dataset is judged; leave out --part."
            )
        _evaluate_sononet(run, dataset, json_file, threads)
        return
    scorer = _scorer(run, name, threads, challenge=as_official or fov is not None)
    _, exams = read_exams(dataset)
    split = read_split(run)
    chosen = select_part(split, exams, part)
    field = acouslic_field() if fov is None else read_field(fov)
    left_out = _why_no_challenge(chosen, field) if scorer.outlines else None
    if left_out is not None and (as_official or fov is not None):
        raise InputError(f"There is no challenge score: {left_out}; leave out --as-official and --fov, or mend that.")
    cases: list[CaseScore] = []
    with terminal.steps() as progress:
        scored = evaluate_quality(chosen, scorer.score_sweep, progress.step("sweeps", None))
        if scorer.outlines and left_out is None:
            frames = {exam.exam: _best_frame(exam, scorer) for exam in scored}
            cases = score_exams(
                chosen,
                lambda exam: Answer(frames[exam.name], _mask(exam, frames[exam.name], scorer)),
                field,
                as_official=as_official,
                advance=progress.step("outlines", len(chosen)),
            )
    summary = _without_calibration(summarise_quality(scored, scorer.decision.threshold), scorer)
    value: dict[str, Any] = {
        "run": {"recipe": name, **scorer.recipe.weights.model_dump(mode="json")},
        "note": scorer.recipe.weights.sentence(),
        "dataset": dataset,
        "part": part,
        "n_left_out": len(exams) - len(chosen),
        "decision": scorer.decision.model_dump(mode="json"),
        "quality": summary,
    }
    if cases:
        challenge = summarise_challenge(cases, as_official=as_official)
        value["challenge"] = {**challenge, "cases": [{**asdict(case), "total": case.total} for case in cases]}
    if left_out is not None:
        value["challenge_left_out"] = left_out
    terminal.write_json(json_file, value)

    _show(value, len(exams))


def _show(value: Mapping[str, Any], n_exams: int) -> None:
    """Show on the terminal what was written as JSON."""
    from edgefetal.cli import terminal

    terminal.say(value["note"])
    if "challenge_left_out" in value:
        terminal.say(f"ACOUSLIC-AI's challenge score is left out: {value['challenge_left_out']}.")
    show_quality(value["quality"], value["part"], n_exams)
    if "challenge" in value:
        rows = [
            (figure, terminal.figure(of["mean"], 3), terminal.figure(of["sd"], 3))
            for figure, of in value["challenge"].items()
            if isinstance(of, dict)
        ]
        rules = "as its evaluator computes it" if value["challenge"]["as_official"] else "by its rules"
        terminal.show_table(f"ACOUSLIC-AI's challenge, {rules}", ("score", "mean", "SD"), rows)


def _evaluate_sononet(run: Path, dataset: str, json_file: Path | None, threads: int | None) -> None:
    """Judge how an imported SonoNet names planes; it was trained elsewhere, so the whole dataset is unseen."""
    import torch

    from edgefetal.cli import terminal
    from edgefetal_calibration.datasets.kinds import read_exams
    from edgefetal_calibration.planes import count_planes, summarise_planes
    from edgefetal_export.teachers.imported import load_sononet, plane_namer

    if threads is not None:
        torch.set_num_threads(threads)
    recipe, network = load_sononet(run)
    _, exams = read_exams(dataset)
    with terminal.steps() as progress:
        counts = count_planes(exams, plane_namer(recipe, network), progress.step("exams", len(exams)))
    summary = summarise_planes(counts)
    terminal.write_json(json_file, {"run": recipe.model_dump(mode="json"), "dataset": dataset, **summary})
    rows = [
        (plane, str(of["n"]), terminal.figure(of["recall"], 3), terminal.figure(of["precision"], 3))
        for plane, of in summary["planes"].items()
    ]
    terminal.show_table(
        f"{recipe.network.variant} on {len(exams)} exams: {summary['n']} frames, "
        f"{terminal.figure(summary['accuracy'], 3)} named rightly",
        ("plane", "frames", "recall", "precision"),
        rows,
    )


def _scorer(run: Path, name: str | None, threads: int | None, *, challenge: bool) -> FrameScorer:
    """Read a run of a quality recipe.

    Raises:
        InputError: it is another run, or the challenge's score was asked for and it outlines nothing.
    """
    from edgefetal_export.training.quality.scoring import QUALITY_RECIPES, load_scorer

    if name not in QUALITY_RECIPES:
        raise InputError(_why_not(run, name))
    scorer = load_scorer(run, threads=threads)
    if challenge and not scorer.outlines:
        raise InputError(
            f"{run} is a run of {name}, which outlines nothing, so it has no challenge score; leave out --as-official "
            "and --fov, or give a run of fetalclip-seg."
        )
    return scorer


def _why_not(run: Path, name: str | None) -> str:
    """Say why a run is not judged here, and what to do instead."""
    if name is None:
        return f"{run}/recipe.json is damaged, or {run} is no run; give a folder that `edgefetal train` made."
    if name == "skill":
        return (
            f"{run} is a run of the recipe 'skill', which is judged when it is trained; its figures are in "
            f"{run}/metrics.json."
        )
    if name == "multitask-unet":
        return f"{run} is a run of the recipe {name!r}, which is judged as a bundle; make one with `edgefetal build`."
    return f"{run} is a run of the recipe {name!r}, which this version does not know; update edgefetal."


def _why_no_challenge(exams: Sequence[LabelledExam], field: npt.NDArray[np.bool_]) -> str | None:
    """Say why the first sweep has no challenge score, so that nobody waits for a refusal; None where it has one."""
    import math

    from edgefetal_runtime.infer.bundle import ABDOMEN

    sweep = next((sweep for exam in exams[:1] for sweep in exam.sweeps()), None)
    if sweep is None:
        return None
    rows, columns = sweep.pixels.shape[1:]
    where = f"{exams[0].name}, {sweep.name}"
    if sweep.grades is None or ABDOMEN not in sweep.masks:
        return f"the abdomen of {where} is not outlined and graded"
    if sweep.scale is None:
        return f"{where} has no pixel size"
    if not math.isclose(sweep.scale.x_mm_per_px, sweep.scale.y_mm_per_px, rel_tol=1e-6):
        return f"the pixels of {where} are not square"
    if field.shape != (rows, columns):
        return (
            f"the field of view is {field.shape[1]} x {field.shape[0]} and the frames of {where} are {columns} x {rows}"
        )
    return None


def _best_frame(exam: ScoredExam, scorer: FrameScorer) -> int:
    """Return the frame of the best score, the earliest of equals, or -1 where none reaches the threshold."""
    from edgefetal_calibration.challenge import NO_FRAME

    best = int(exam.scores.argmax())
    return best if exam.scores[best] >= scorer.decision.threshold else NO_FRAME


def _mask(exam: LabelledExam, frame: int, scorer: FrameScorer) -> npt.NDArray[np.bool_]:
    """Outline the abdomen on a frame of an exam by its number; nothing where there is no frame."""
    import numpy as np

    first = 0
    for sweep in exam.sweeps():
        if first <= frame < first + len(sweep.pixels):
            return scorer.mask(sweep.pixels[frame - first]).astype(np.bool_)
        first += len(sweep.pixels)
    return np.zeros((0, 0), np.bool_)


def _without_calibration(summary: dict[str, Any], scorer: FrameScorer) -> dict[str, Any]:
    """Take out what only probabilities have, where scores are none."""
    if scorer.decision.score == "probability":
        return summary
    nothing = {"value": None, "interval": None}
    tables = {table: {**summary[table], **dict.fromkeys(_PROBABILITY_ONLY, nothing)} for table in TABLES}
    return {**summary, **tables}
