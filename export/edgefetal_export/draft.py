"""From graphs to a bundle: fit thresholds, judge, fit intervals, judge these, package."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

from edgefetal_calibration.datasets.hc18 import HeadCase
from edgefetal_calibration.datasets.split import Part, Split, parse_split
from edgefetal_calibration.evaluate import evaluate_heads
from edgefetal_calibration.frames import evaluate_frames, frame_rows, summarise_frames
from edgefetal_calibration.thresholds import HIDDEN_SHARES, NONE, fit_thresholds
from edgefetal_devices.errors import BundleError, DatasetError, InputError
from edgefetal_devices.profile import read_profile
from edgefetal_export.evidence import write_evidence_page
from edgefetal_export.held_out import PARTS, heads_among, report_calls, report_lengths
from edgefetal_export.model_card import write_model_card
from edgefetal_export.package import write_bundle
from edgefetal_export.ship import SHIPPED, Judge, frames_per_exam, judging_back_end
from edgefetal_export.training.trained import parse_recipe
from edgefetal_runtime.atomic import json_bytes
from edgefetal_runtime.infer import bundle as layout
from edgefetal_runtime.infer.backends import open_backend
from edgefetal_runtime.infer.network import Network

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgefetal_calibration.budget import AccuracyBudget, Judgement
    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_calibration.frames import FrameResult
    from edgefetal_export.progress import Progress
    from edgefetal_export.training.trained import TrainedRecipe
    from edgefetal_runtime.infer.backends import Backend
    from edgefetal_runtime.infer.bundle import Bundle, Manifest
    from edgefetal_runtime.infer.keys import SigningKey

REFERENCE = "reference"


@dataclass(frozen=True)
class Draft:
    """A bundle whose graphs are made, and of which something is still to be fitted.

    Args:
        manifest: everything but the intervals, the verdict and the files.
        shipped: the graph that ships.
        reference: the same network in float.
        half: the same in FP16, where the device is to choose; None where it is not.
        golden: content of `golden.npz`.
        split: which subjects it was trained on.
        recipe: how it was trained.
        evidence: how the graph was chosen and judged.
    """

    manifest: Manifest
    shipped: bytes
    reference: bytes
    half: bytes | None
    golden: bytes
    split: Split
    recipe: TrainedRecipe
    evidence: dict[str, Any]


def draft_of(bundle: Bundle) -> Draft:
    """Take a bundle back to where its graphs were made.

    Raises:
        BundleError: a file is missing or altered, or the bundle was built by a version that judged otherwise.
        DatasetError: its split is damaged.
    """
    evidence = json.loads(bundle.read(layout.EVIDENCE))
    if "judgement" not in evidence:
        message = f"{bundle.path} was built by an earlier version, whose evidence is another; build it anew."
        raise BundleError(message)
    return Draft(
        manifest=bundle.manifest,
        shipped=bundle.read(layout.MODEL),
        reference=bundle.read(layout.REFERENCE),
        half=bundle.read(layout.HALF) if layout.HALF in bundle.manifest.files else None,
        golden=bundle.read(layout.GOLDEN),
        split=parse_split(bundle.read(layout.SPLIT), bundle.path / layout.SPLIT),
        recipe=parse_recipe(bundle.read(layout.RECIPE), bundle.path),
        evidence=evidence,
    )


@dataclass(frozen=True)
class Finished:
    """What was written.

    Args:
        evidence: what `evidence.json` holds.
        sizes_bytes: size of every file.
    """

    evidence: dict[str, Any]
    sizes_bytes: dict[str, int]


def judge_for(
    manifest: Manifest,
    reference: bytes,
    validation: Sequence[LabelledExam],
    budget: AccuracyBudget,
    progress: Progress,
) -> Judge:
    """Fit the thresholds on the float graph, and run it on the frames that other graphs are to be judged on.

    Args:
        manifest: says what the outputs mean; where the network outlines, its thresholds are replaced.
        reference: the float graph.
        validation: the validation part; heads among it give the thresholds of a network that outlines.
        budget: what is allowed.
        progress: who wants to know how far it is.

    Raises:
        DatasetError: the network outlines, and there are no heads among the exams.
    """
    back_end = judging_back_end(read_profile(manifest.device))
    backend = open_backend(back_end, reference)
    if manifest.heads.mask:
        manifest = with_thresholds(manifest, backend, validation, progress)
    advance = progress.step("run the float graph on validation subjects", len(validation))
    results = evaluate_frames(
        {REFERENCE: Network(manifest, backend)}, validation, frames_per_exam(manifest.heads), on_exam=advance
    )[REFERENCE]
    return Judge(manifest, back_end, validation, budget, results)


def with_thresholds(
    manifest: Manifest, backend: Backend, validation: Sequence[LabelledExam], progress: Progress
) -> Manifest:
    """Fit the thresholds of a network that outlines.

    Raises:
        DatasetError: there are no heads.
    """
    heads = heads_among(validation)
    if not heads:
        message = "The data hold no validation pictures with annotated heads, which thresholds are fitted on; add hc18."
        raise DatasetError(message)
    unlimited = {REFERENCE: Network(manifest.model_copy(update={"thresholds": NONE}), backend)}
    advance = progress.step("fit thresholds on validation subjects", len(heads))
    unrefused = evaluate_heads(unlimited, heads, advance)[REFERENCE]
    advance = progress.step("fit thresholds on cut heads", len(heads) * len(HIDDEN_SHARES))
    cut = [
        result
        for share in HIDDEN_SHARES
        for result in evaluate_heads(unlimited, heads, advance, hidden_share=share)[REFERENCE]
    ]
    others = [exam for exam in validation if not isinstance(exam, HeadCase)]
    frames: list[FrameResult] = []
    if others:
        advance = progress.step("fit thresholds on validation exams", len(others))
        count = frames_per_exam(manifest.heads)
        frames = evaluate_frames(unlimited, others, count, on_exam=advance)[REFERENCE]
    return manifest.model_copy(update={"thresholds": fit_thresholds(unrefused, cut, frames)})


def judged_evidence(judge: Judge, judgement: Judgement, results: Sequence[FrameResult]) -> dict[str, Any]:
    """Return what the evidence says of a graph's judgement on validation subjects, as JSON values."""
    return {
        "part": Part.VALIDATION.value,
        # The runtime refuses a bundle whose manifest says others than it was judged with.
        "thresholds": judge.manifest.thresholds.model_dump(),
        "passed": judgement.passed,
        "reasons": list(judgement.reasons),
        "judgement": judgement.to_json(),
        "validation": {SHIPPED: summarise_frames(results), REFERENCE: summarise_frames(judge.reference)},
        "frames": {SHIPPED: frame_rows(results), REFERENCE: frame_rows(judge.reference)},
    }


def recalibrate(
    draft: Draft,
    exams: Sequence[LabelledExam],
    out: Path,
    *,
    budget: AccuracyBudget,
    progress: Progress,
    key: SigningKey | None = None,
) -> Finished:
    """Fit everything that is fitted after training again, judge again, and write the bundle; the graphs stay.

    Validation subjects give the thresholds and the verdict; a bundle keeps both where the exams hold none, as another
    site's do, which give the intervals alone.

    Args:
        draft: the bundle.
        exams: labelled exams, with those of the validation and the held-out subjects.
        out: folder to write; must not exist.
        budget: what is allowed.
        progress: who wants to know how far it is.
        key: who signs the new bundle, which no signature of the old one covers; None for nobody.

    Raises:
        InputError: the network measures nothing, so that there is nothing to fit.
        DatasetError: as `package` and `judge_for` do.
        OutputError: `out` exists or cannot be written.
    """
    if not draft.manifest.heads.mask:
        message = (
            f"{draft.manifest.name} only says how good a frame is: its decision was fitted when it was trained, and it "
            "has no intervals. Build it anew from its run by `edgefetal build`."
        )
        raise InputError(message)
    validation = draft.split.select(exams, Part.VALIDATION)
    if not validation:
        return package(draft, exams, out, progress=progress, intervals_only=True, key=key)
    judge = judge_for(draft.manifest, draft.reference, validation, budget, progress)
    advance = progress.step("judge the shipped graph", 1)
    judgement, results = judge.judged(draft.shipped)
    # The device is given no choice that breaks the budget with the new thresholds.
    half = draft.half if draft.half is not None and judge.judged(draft.half)[0].passed else None
    advance()
    evidence = {**draft.evidence, **judged_evidence(judge, judgement, results)}
    manifest = judge.manifest.model_copy(update={"budget_passed": judgement.passed})
    return package(
        replace(draft, half=half, manifest=manifest, evidence=evidence), exams, out, progress=progress, key=key
    )


def package(
    draft: Draft,
    exams: Sequence[LabelledExam],
    out: Path,
    *,
    progress: Progress,
    intervals_only: bool = False,
    key: SigningKey | None = None,
) -> Finished:
    """Report on held-out subjects, fit intervals where the network measures, and write the bundle.

    Args:
        draft: graphs, thresholds and verdict.
        exams: labelled exams, with those of the held-out subjects.
        out: folder to write; must not exist.
        progress: who wants to know how far it is.
        intervals_only: the exams are another site's, so intervals are all that they are for.
        key: who signs the bundle; None for nobody.

    Returns:
        The evidence; where its `passed` is false the bundle was written for inspection and does not run in the clinic.

    Raises:
        DatasetError: there are no held-out subjects of the kind that is needed, or too few where intervals are all that
            is wanted.
        OutputError: `out` exists or cannot be written.
    """
    held_out = draft.split.select(exams, Part.HELD_OUT)
    back_end = judging_back_end(read_profile(draft.manifest.device))
    manifest = draft.manifest.model_copy(
        update={
            "schema_version": layout.SCHEMA_VERSION,
            "version": metadata.version("edgefetal"),
            "tools": {**draft.manifest.tools, "machine": platform.machine()},
            "intervals": None,
        }
    )
    graphs = {SHIPPED: draft.shipped, REFERENCE: draft.reference}
    networks = {name: Network(manifest, open_backend(back_end, graph)) for name, graph in graphs.items()}
    found = (
        report_lengths(networks, held_out, progress, dataset=draft.recipe.dataset, intervals_only=intervals_only)
        if manifest.heads.mask
        else report_calls(networks, held_out, progress)
    )
    manifest = manifest.model_copy(update={"intervals": found.intervals})
    evidence = {key: value for key, value in draft.evidence.items() if key not in PARTS} | found.evidence

    files = {
        layout.MODEL: draft.shipped,
        layout.REFERENCE: draft.reference,
        **({} if draft.half is None else {layout.HALF: draft.half}),
        layout.GOLDEN: draft.golden,
        layout.EVIDENCE: json_bytes(evidence),
        layout.EVIDENCE_PAGE: write_evidence_page(evidence),
        layout.SPLIT: (draft.split.model_dump_json() + "\n").encode(),
        layout.RECIPE: (draft.recipe.model_dump_json(indent=1) + "\n").encode(),
        layout.MODEL_CARD: write_model_card(manifest, draft.recipe, evidence).encode(),
    }
    write_bundle(out, files, manifest, key)
    return Finished(evidence, {file: len(content) for file, content in files.items()})
