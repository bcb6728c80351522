"""From a training run, or another bundle, to a bundle: export, prove, quantise, judge, mend, package."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

import cv2
import onnx

from edgefetal_calibration.datasets.kinds import dataset_kind
from edgefetal_calibration.datasets.real import simulated_alone
from edgefetal_calibration.datasets.split import Part
from edgefetal_calibration.phantom.exam import Exam, ExamPlan
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.ranges import LEAST_FRAMES, draw_range_frames
from edgefetal_devices.errors import DatasetError
from edgefetal_devices.possible import require_possible
from edgefetal_export.case_pictures import require_place_for_cases, write_worst_cases
from edgefetal_export.draft import REFERENCE, Draft, draft_of, judge_for, judged_evidence, package
from edgefetal_export.engine.dry_run import DryRun, dry_run, stand_ins
from edgefetal_export.onnx import check_parity, onnx_from_network
from edgefetal_export.quantise.blocks import blocks_of
from edgefetal_export.quantise.qdq import prepared
from edgefetal_export.quantise.ranges import read_or_collect
from edgefetal_export.quantise.tuning import TuningSettings, tuned
from edgefetal_export.ship import SHIPPED, Floats, Precision, choose, judging_back_end, story
from edgefetal_export.training import run as run_folder
from edgefetal_export.training.trained import load_trained
from edgefetal_runtime.atomic import require_new_folder
from edgefetal_runtime.infer import bundle as layout
from edgefetal_runtime.infer.backends import open_backend
from edgefetal_runtime.infer.golden import make_golden
from edgefetal_runtime.infer.network import Network
from edgefetal_runtime.infer.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from edgefetal_calibration.budget import AccuracyBudget
    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_calibration.datasets.split import Split
    from edgefetal_calibration.ranges import RangeSet
    from edgefetal_devices.profile import Profile
    from edgefetal_export.progress import Progress
    from edgefetal_export.ship import Shipped
    from edgefetal_export.training.trained import TrainedRecipe
    from edgefetal_runtime.infer.keys import SigningKey

RANGE_FRAMES = 200
_PARITY_FRAMES = 4
# Either OpenCV wheel will do.
_TOOLS = (
    "torch",
    "monai",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
)


@dataclass(frozen=True)
class BuildResult:
    """What a build made.

    Args:
        evidence: what `evidence.json` holds.
        sizes_bytes: size of every file.
        parity: largest difference of a logit between the network and its float graph; None where the graph was
            another bundle's, which was compared when that was built.
        dry_runs: what TensorRT said of the graphs of a bundle for a GPU, by their files; empty for a processor.
    """

    evidence: dict[str, Any]
    sizes_bytes: dict[str, int]
    parity: float | None
    dry_runs: dict[str, DryRun]


@dataclass(frozen=True, eq=False)
class Source:
    """What a bundle is built of.

    Args:
        reference: the float graph.
        network: what it was exported from; None of a bundle.
        output_names: names of its outputs, in order.
        heads: what it answers with.
        thresholds: decisions that came with it.
        recipe: how it was trained.
        parameters: number of trained numbers.
        split: which subjects it was trained on.
        simulated: structures that it knows from simulations alone; None where the data have to tell.
        folder: where ranges are kept for the next build; None where nothing may be written.
    """

    reference: bytes
    network: nn.Module | None
    output_names: tuple[str, ...]
    heads: layout.Heads
    thresholds: layout.Thresholds
    recipe: TrainedRecipe
    parameters: int
    split: Split
    simulated: tuple[str, ...] | None
    folder: Path | None


def source_of_run(run: Path) -> Source:
    """Export a finished run.

    Raises:
        InputError: it is none of a network that outlines, or that says how good a frame is.
    """
    trained, split = load_trained(run), run_folder.read_split(run)
    return Source(
        reference=onnx_from_network(trained.network, trained.recipe.preprocess, trained.output_names),
        network=trained.network,
        output_names=trained.output_names,
        heads=trained.heads,
        thresholds=trained.thresholds,
        recipe=trained.recipe,
        parameters=trained.parameters,
        split=split,
        simulated=None,
        folder=run,
    )


def source_of_bundle(bundle: layout.Bundle) -> Source:
    """Take a bundle's float graph, to quantise it for another device; without its network nothing can be tuned.

    Raises:
        BundleError: a file is missing or altered.
        DatasetError: its split is damaged.
    """
    draft = draft_of(bundle)
    manifest = draft.manifest
    return Source(
        reference=draft.reference,
        network=None,
        output_names=(),
        heads=manifest.heads,
        thresholds=manifest.thresholds,
        recipe=draft.recipe,
        parameters=manifest.training.parameters,
        split=draft.split,
        simulated=manifest.simulated,
        folder=None,
    )


def golden_frames(protocol: Protocol = Protocol.HEAD) -> list[npt.NDArray[np.uint8]]:
    """Draw the golden frames: simulated, because a bundle must not carry anybody's pictures, and of three sizes.

    Args:
        protocol: what they show, the middle one best.
    """
    exam = Exam(ExamPlan(protocol, weeks=22.0, seed=7, skill=1.0, frame_count=3))
    beside, plane = (exam.frame(0, index).picture for index in (0, 1))
    half, beside_half = (
        cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for picture in (plane, beside)
    )
    # Odd sizes; less than the network's, more than it, and more than twice it are prepared in different ways.
    return [half[:181, :243].copy(), beside_half, plane[:501, :777].copy()]


def build(
    source: Callable[[], Source],
    profile: Profile,
    exams: Sequence[LabelledExam],
    out: Path,
    *,
    name: str,
    budget: AccuracyBudget,
    precision: Precision = Precision.AUTO,
    least_range_frames: int = LEAST_FRAMES,
    worst_cases: Path | None = None,
    key: SigningKey | None = None,
    progress: Progress,
) -> BuildResult:
    """Build a bundle.

    Ranges are kept in a run's folder, for the next build of the same weights, frames, preprocessing and recipe.

    Args:
        source: gives what it is built of.
        profile: the device to build for.
        exams: the datasets that the run was trained on.
        out: folder to write; must not exist.
        name: the bundle's name.
        budget: what may be lost.
        precision: what is to ship.
        least_range_frames: with fewer calibration frames nothing is built.
        worst_cases: folder for a page with pictures of the worst validation frames, which must not exist; None for no
            such page. A bundle that breaks its budget has one too.
        key: who signs the bundle, within its budget or not; None for nobody.
        progress: who wants to know how far it is.

    Returns:
        The evidence; where its `passed` is false the bundle was written for inspection and does not run in the clinic.

    Raises:
        InputError: the device cannot compute in what is asked for, or `source` gives nothing.
        DatasetError: the datasets are not those that it was trained on, or not fit to take ranges from.
        OutputError: `out` or `worst_cases` exists or cannot be written, or one lies in the other.
        CheckFailedError: the exported graph does not answer as the network does, or TensorRT does not take it.
    """
    require_possible(profile, precision=precision.value, jetpack=None, tensorrt=None, dla=False)
    require_new_folder(out)
    if worst_cases is not None:
        require_place_for_cases(worst_cases, out)
    advance = progress.step("export to ONNX", 1)
    begun = source()
    advance()
    # What TensorRT does not take it is better to hear of now.
    _dry_runs({layout.REFERENCE: begun.reference}, (), profile, progress)
    recipe, spec, reference, network = begun.recipe, begun.recipe.preprocess, begun.reference, begun.network
    # What a network of no outlines judges is the abdomen.
    golden = golden_frames(Protocol.HEAD if begun.heads.mask else Protocol.ABDOMEN)
    validation = begun.split.select(exams, Part.VALIDATION)
    if not validation:
        message = f"The data hold none of the {recipe.name} run's validation subjects; give the run's datasets."
        raise DatasetError(message)
    advance = progress.step("draw calibration frames", 1)
    frames = draw_range_frames(exams, begun.split, RANGE_FRAMES, least=least_range_frames)
    advance()

    back_end = judging_back_end(profile)
    images = [preprocess(frame.pixels(), spec)[0] for frame in frames.frames]
    parity = None
    if network is not None:
        advance = progress.step("compare with PyTorch", 1)
        backend = open_backend(back_end, reference)
        parity = check_parity(network, backend, images[:_PARITY_FRAMES], begun.output_names)
        advance()

    manifest = _describe(name, profile, begun, frames, exams)
    judge = judge_for(manifest, reference, validation, budget, progress)

    def floats(graph: bytes, title: str) -> Floats:
        ready = prepared(graph)
        file = f"ranges-{profile.int8.name}-{hashlib.sha256(ready).hexdigest()[:12]}.json"
        cache = None if begun.folder is None else begun.folder / file
        on_image = progress.step(title, 2 * len(frames.frames))
        return Floats(ready, read_or_collect(cache, ready, profile.int8, spec, frames.frames, on_image))

    def tune(network: nn.Module) -> Floats:
        settings = TuningSettings()
        on_step = progress.step("tune with quantisation in the loop", settings.steps)
        blocks = blocks_of(onnx.load_from_string(prepared(reference)).graph)
        last = [block.name for block in blocks if block.last and profile.int8.float_outputs]
        student = tuned(network, images, profile.int8, settings, on_step, float_modules=last)
        return floats(onnx_from_network(student, spec, begun.output_names), "take ranges of the tuned network")

    shipped = choose(
        reference,
        lambda: floats(reference, "take ranges"),
        profile,
        judge,
        precision=precision,
        tune=None if network is None else partial(tune, network),
        frame=golden[-1],
        on_trial=progress.step("judge quantised graphs", None),
    )
    graphs = {layout.MODEL: shipped.model} | ({} if shipped.half is None else {layout.HALF: shipped.half})
    dry_runs = _dry_runs(graphs, shipped.layers, profile, progress)
    draft = Draft(
        manifest=judge.manifest.model_copy(
            update={
                "layers": shipped.layers,
                "budget_passed": shipped.judgement.passed,
                "calibration": manifest.calibration.model_copy(
                    update={"method": "none" if shipped.method is None else shipped.method.value}
                ),
            }
        ),
        shipped=shipped.model,
        reference=reference,
        half=shipped.half,
        golden=make_golden(golden, spec, open_backend(back_end, shipped.model)),
        split=begun.split,
        recipe=recipe,
        evidence={
            "name": name,
            "device": profile.name,
            "judged_on": back_end,
            "dry_runs": {file: run.to_json() for file, run in dry_runs.items()},
            **story(shipped),
            **judged_evidence(judge, shipped.judgement, shipped.results),
            "calibration": _calibration_evidence(frames, shipped),
            "versions": _versions(),
            "machine": {"processor": platform.machine(), "python": platform.python_version()},
        },
    )
    finished = package(draft, exams, out, progress=progress, key=key)
    if worst_cases is not None:
        advance = progress.step("draw the worst cases", 1)
        compared = {SHIPPED: shipped.model, REFERENCE: reference}
        networks = {of: Network(judge.manifest, open_backend(judge.back_end, graph)) for of, graph in compared.items()}
        write_worst_cases(worst_cases, name, networks, validation, finished.evidence["frames"])
        advance()
    return BuildResult(finished.evidence, finished.sizes_bytes, parity, dry_runs)


def _dry_runs(
    graphs: Mapping[str, bytes], layers: Sequence[layout.LayerGroup], profile: Profile, progress: Progress
) -> dict[str, DryRun]:
    """Compile graphs for a GPU like the target's, where the target has one.

    Args:
        graphs: by their files.
        layers: what the manifest says of the shipped graph.
        profile: the target.
        progress: who wants to know how far it is.

    Raises:
        CheckFailedError: TensorRT does not take one.
    """
    if profile.gpu is None:
        return {}
    capabilities = stand_ins(profile.gpu.compute_capabilities)
    return {
        file: dry_run(graph, layers if file == layout.MODEL else (), capabilities, progress)
        for file, graph in graphs.items()
    }


def _calibration_evidence(frames: RangeSet, shipped: Shipped) -> dict[str, Any]:
    """Say where the ranges came from, frame by frame and by stratum."""
    strata = Counter(
        (frame.plane, frame.kind, f"{frame.width_px} x {frame.height_px}", _gain(frame.mean_grey))
        for frame in frames.frames
    )
    return {
        "method": "none" if shipped.method is None else shipped.method.value,
        "sha256": frames.sha256,
        "rule": frames.rule,
        "strata": [
            {"plane": plane, "source": kind, "size": size, "gain": gain, "n": n}
            for (plane, kind, size, gain), n in sorted(strata.items())
        ],
        "frames": [frame.record() for frame in frames.frames],
    }


def _gain(mean_grey: float) -> str:
    """Say how bright a picture is, for people."""
    dark, bright = 25, 55
    return "dark" if mean_grey < dark else "bright" if mean_grey > bright else "middle"


def _describe(
    name: str, profile: Profile, begun: Source, frames: RangeSet, exams: Sequence[LabelledExam]
) -> layout.Manifest:
    """Write the manifest as far as it is known before a graph was chosen."""
    recipe, simulated = begun.recipe, begun.simulated
    if simulated is None:
        simulated = simulated_alone(begun.split.select(exams, Part.TRAIN), begun.heads.mask)
    kinds = [dataset_kind(kind) for kind in recipe.dataset.split("+")]
    parts = list(begun.split.parts.values())
    return layout.Manifest(
        schema_version=layout.SCHEMA_VERSION,
        name=name,
        version=metadata.version("edgefetal"),
        device=profile.name,
        heads=begun.heads,
        preprocess=recipe.preprocess,
        thresholds=begun.thresholds,
        intervals=None,
        layers=(),
        calibration=layout.Calibration(
            dataset=recipe.dataset,
            part=Part.TRAIN.value,
            method="none",
            frames=tuple(frame.name for frame in frames.frames),
            sha256=frames.sha256,
        ),
        training=layout.Training(
            recipe=recipe.name,
            dataset=recipe.dataset,
            licence="; ".join(dict.fromkeys(kind.licence for kind in kinds)),
            attribution="; ".join(dict.fromkeys(kind.attribution for kind in kinds)),
            subjects={part.value: parts.count(part) for part in Part},
            parameters=begun.parameters,
        ),
        simulated=simulated,
        budget_passed=False,
        tools={"machine": platform.machine(), "python": platform.python_version()} | _versions(),
        files={},
    )


def _versions() -> dict[str, str]:
    return {tool: metadata.version(tool) for tool in _installed(_TOOLS)}


def _installed(names: Sequence[str]) -> list[str]:
    """Return those of the packages that are installed."""
    present = {distribution.metadata["Name"] for distribution in metadata.distributions()}
    return [tool for tool in names if tool in present]
