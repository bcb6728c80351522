"""From graphs to a bundle: fit thresholds, judge, fit intervals, judge these, package."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol

from edgefetal_calibration.budget import Budget, judge
from edgefetal_calibration.datasets.split import Part, Split
from edgefetal_calibration.evaluate import evaluate_heads, summarise
from edgefetal_calibration.intervals import coverage, fit_intervals, halves
from edgefetal_calibration.thresholds import HIDDEN_SHARES, NONE, fit_thresholds
from edgefetal_devices.errors import DatasetError
from edgefetal_devices.profile import read_profile
from edgefetal_export.model_card import write_model_card
from edgefetal_export.package import write_bundle
from edgefetal_export.training.biometry.multitask import MultitaskRecipe
from edgefetal_runtime.atomic import json_bytes
from edgefetal_runtime.infer import bundle as layout
from edgefetal_runtime.infer.backends import open_backend
from edgefetal_runtime.infer.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_runtime.infer.backends import Backend
    from edgefetal_runtime.infer.bundle import Bundle, Manifest


class Progress(Protocol):
    """Who wants to know how far the work is."""

    def step(self, title: str, total: int) -> Callable[[], None]:
        """Begin a step of `total` parts; return what to call after each part."""


@dataclass(frozen=True)
class Draft:
    """A bundle whose graphs are made, and whose decisions are still to be fitted.

    Args:
        manifest: everything but thresholds, intervals, the verdict and the files.
        shipped: the graph that ships.
        reference: the same network in float.
        golden: content of `golden.npz`.
        split: which subjects it was trained on.
        recipe: how it was trained.
        evidence: what was found when it was judged before, or None where it never was.
    """

    manifest: Manifest
    shipped: bytes
    reference: bytes
    golden: bytes
    split: Split
    recipe: MultitaskRecipe
    evidence: dict[str, Any] | None = None


def draft_of(bundle: Bundle) -> Draft:
    """Take a bundle back to where its graphs were made.

    Raises:
        BundleError: a file is missing or altered.
    """
    return Draft(
        manifest=bundle.manifest,
        shipped=bundle.read(layout.MODEL),
        reference=bundle.read(layout.REFERENCE),
        golden=bundle.read(layout.GOLDEN),
        split=Split.model_validate_json(bundle.read(layout.SPLIT)),
        recipe=MultitaskRecipe.model_validate_json(bundle.read(layout.RECIPE)),
        evidence=json.loads(bundle.read(layout.EVIDENCE)),
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


def finish(draft: Draft, cases: Sequence[HeadCase], out: Path, *, progress: Progress) -> Finished:
    """Fit what is fitted on data after training, judge it, and write the bundle.

    Validation subjects give the thresholds and the verdict on the shipped graph; a bundle that was judged before keeps
    both where the cases hold none, as another site's do. Half of the held-out subjects give the intervals; the other
    half, used for nothing, says whether they hold what they state.

    Args:
        draft: the graphs and what is known of them.
        cases: labelled pictures, with those of the validation and the held-out subjects.
        out: folder to write; must not exist.
        progress: who wants to know how far it is.

    Returns:
        The evidence; where its `passed` is false the bundle was written for inspection and does not run in the clinic.

    Raises:
        DatasetError: the cases hold no validation or no held-out subjects.
        OutputError: `out` exists or cannot be written.
    """
    validation = draft.split.select(cases, Part.VALIDATION)
    if not validation and draft.evidence is None:
        message = f"The data hold none of the {draft.recipe.name} run's validation subjects; give the run's dataset."
        raise DatasetError(message)
    held_out = draft.split.select(cases, Part.HELD_OUT)
    if not held_out:
        message = (
            "The data hold no held-out subjects to report on and to fit intervals on; give the run's whole dataset."
        )
        raise DatasetError(message)
    back_end = read_profile(draft.manifest.device).back_end
    backends = {
        name: open_backend(back_end, graph)
        for name, graph in (("shipped", draft.shipped), ("reference", draft.reference))
    }
    manifest = draft.manifest.model_copy(
        update={
            "schema_version": layout.SCHEMA_VERSION,
            "version": metadata.version("edgefetal"),
            "tools": {**draft.manifest.tools, "machine": platform.machine()},
            "intervals": None,
        }
    )
    # Another site's data hold no validation subjects: thresholds and verdict stay, and only intervals are fitted.
    evidence = dict(draft.evidence or {})
    if validation:
        manifest = manifest.model_copy(update={"thresholds": _thresholds(manifest, backends, validation, progress)})
        evidence = _judge(manifest, backends, validation, progress)
    networks = {name: Network(manifest, backend) for name, backend in backends.items()}

    # Reported beside the evidence; nothing but the intervals, and those on one half, is fitted on it.
    advance = progress.step("report on held-out subjects", len(held_out))
    unseen = evaluate_heads(networks, held_out, advance)
    evidence["held_out"] = {name: summarise(of_graph) for name, of_graph in unseen.items()}

    fitting, judging = halves(held_out)
    names = {case.name for case in fitting}
    intervals = fit_intervals(
        [result for result in unseen["shipped"] if result.name in names],
        [case.digest() for case in fitting],
        dataset=draft.split.dataset,
    )
    if intervals is None and not validation:
        message = f"{len(fitting)} pictures are too few to fit intervals on; give more labelled ones."
        raise DatasetError(message)
    manifest = manifest.model_copy(update={"intervals": intervals, "budget_passed": evidence["passed"]})
    evidence.pop("coverage", None)
    if intervals is not None:
        advance = progress.step("judge the intervals", len(judging))
        judged = evaluate_heads({"shipped": Network(manifest, backends["shipped"])}, judging, advance)
        evidence["coverage"] = coverage(judged["shipped"], intervals.level)

    files = {
        layout.MODEL: draft.shipped,
        layout.REFERENCE: draft.reference,
        layout.GOLDEN: draft.golden,
        layout.EVIDENCE: json_bytes(evidence),
        layout.SPLIT: (draft.split.model_dump_json() + "\n").encode(),
        layout.RECIPE: (draft.recipe.model_dump_json(indent=1) + "\n").encode(),
        layout.MODEL_CARD: write_model_card(manifest, draft.recipe, evidence).encode(),
    }
    write_bundle(out, files, manifest)
    return Finished(evidence, {file: len(content) for file, content in files.items()})


def _thresholds(
    manifest: Manifest, backends: Mapping[str, Backend], validation: Sequence[HeadCase], progress: Progress
) -> layout.Thresholds:
    """Fit the thresholds on validation pictures, whole and with a part of the head blacked out."""
    unlimited = Network(manifest.model_copy(update={"thresholds": NONE}), backends["shipped"])
    advance = progress.step("fit thresholds on validation subjects", len(validation))
    unrefused = evaluate_heads({"shipped": unlimited}, validation, advance)["shipped"]
    advance = progress.step("fit thresholds on cut heads", len(validation) * len(HIDDEN_SHARES))
    cut = [
        result
        for share in HIDDEN_SHARES
        for result in evaluate_heads({"shipped": unlimited}, validation, advance, hidden_share=share)["shipped"]
    ]
    return fit_thresholds(unrefused, cut)


def _judge(
    manifest: Manifest, backends: Mapping[str, Backend], validation: Sequence[HeadCase], progress: Progress
) -> dict[str, Any]:
    """Judge the shipped graph beside the float one on validation pictures."""
    networks = {name: Network(manifest, backend) for name, backend in backends.items()}
    advance = progress.step("judge on validation subjects", len(validation))
    results = evaluate_heads(networks, validation, advance)
    return judge(results["shipped"], results["reference"], Budget())
