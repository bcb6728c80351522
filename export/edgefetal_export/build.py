"""From a training run to a bundle: export, prove, quantise, judge, package."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import cv2

from edgefetal_calibration.datasets.kinds import dataset_kind
from edgefetal_calibration.datasets.split import Part
from edgefetal_calibration.phantom.exam import Exam, ExamPlan
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.ranges import choose_range_frames
from edgefetal_calibration.thresholds import NONE
from edgefetal_devices.errors import InputError
from edgefetal_export.finish import Draft, finish
from edgefetal_export.onnx import check_parity, onnx_from_network
from edgefetal_export.quantise.static import METHOD, layer_groups, quantised_onnx
from edgefetal_export.teachers.multitask_unet import MultitaskUnet, parameter_count
from edgefetal_export.training import run as run_folder
from edgefetal_export.training.biometry.multitask import MultitaskRecipe
from edgefetal_runtime.atomic import require_new_folder
from edgefetal_runtime.infer import bundle as layout
from edgefetal_runtime.infer.backends import open_backend
from edgefetal_runtime.infer.bundle import HEAD
from edgefetal_runtime.infer.golden import make_golden
from edgefetal_runtime.infer.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_calibration.datasets.split import Split
    from edgefetal_calibration.ranges import RangeFrames
    from edgefetal_devices.profile import Profile
    from edgefetal_export.finish import Progress

RANGE_FRAMES = 200
_PARITY_FRAMES = 4
# Either OpenCV wheel will do.
_TOOLS = ("torch", "monai", "onnx", "onnxscript", "onnxruntime", "numpy", "opencv-python-headless", "opencv-python")


@dataclass(frozen=True)
class BuildResult:
    """What a build made.

    Args:
        evidence: what `evidence.json` holds.
        sizes_bytes: size of every file.
        parity: largest difference of a logit between the network and its float graph.
    """

    evidence: dict[str, Any]
    sizes_bytes: dict[str, int]
    parity: float


def golden_frames() -> list[npt.NDArray[np.uint8]]:
    """Draw the golden frames: simulated, because a bundle must not carry anybody's pictures, and of three sizes."""
    exam = Exam(ExamPlan(Protocol.HEAD, weeks=22.0, seed=7, skill=1.0, frame_count=3))
    beside, plane = (exam.frame(0, index).picture for index in (0, 1))
    half, beside_half = (
        cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for picture in (plane, beside)
    )
    # Odd sizes; less than the network's, more than it, and more than twice it are prepared in different ways.
    return [half[:181, :243].copy(), beside_half, plane[:501, :777].copy()]


def build(
    run: Path, profile: Profile, cases: Sequence[HeadCase], out: Path, *, name: str, progress: Progress
) -> BuildResult:
    """Build a bundle.

    Args:
        run: a training run.
        profile: the device to build for.
        cases: the dataset that the run was trained on.
        out: folder to write; must not exist.
        name: the bundle's name.
        progress: who wants to know how far it is.

    Returns:
        The evidence; where its `passed` is false the bundle was written for inspection and does not run in the clinic.

    Raises:
        InputError: `run` is no training run, or one of more than the head.
        DatasetError: the dataset is not the one that the run was trained on.
        OutputError: `out` exists or cannot be written.
        CheckFailedError: the exported graph does not answer as the network does.
    """
    require_new_folder(out)
    recipe, split = run_folder.read_recipe(run, MultitaskRecipe), run_folder.read_split(run)
    if recipe.network.structures != (HEAD,):
        beyond = ", ".join(structure for structure in recipe.network.structures if structure != HEAD)
        message = (
            f"{run} also outlines: {beyond}. Ranges, thresholds and the budget are made for heads alone, so that "
            "bundle would be unjudged; build a run with --structures head."
        )
        raise InputError(message)
    if "+" in recipe.dataset:
        message = f"{run} was trained on {recipe.dataset}; ranges and the budget come from one dataset: train on one."
        raise InputError(message)
    ranges = choose_range_frames(cases, split, RANGE_FRAMES)

    network = MultitaskUnet(recipe.network).eval()
    network.load_state_dict(run_folder.load_finished_weights(run, recipe))

    advance = progress.step("export to ONNX", 1)
    reference = onnx_from_network(network, recipe.preprocess)
    advance()

    advance = progress.step("compare with PyTorch", 1)
    images = [preprocess(case.frame().pixels, recipe.preprocess)[0] for case in ranges.cases[:_PARITY_FRAMES]]
    parity = check_parity(network, open_backend(profile.back_end, reference), images)
    advance()

    advance = progress.step("quantise to INT8", len(ranges.cases))
    range_images = (preprocess(case.frame().pixels, recipe.preprocess)[0] for case in ranges.cases)
    shipped = quantised_onnx(reference, profile.int8, range_images, advance)

    draft = Draft(
        manifest=_describe(name, profile, recipe, split, ranges, shipped, parameter_count(network)),
        shipped=shipped,
        reference=reference,
        golden=make_golden(golden_frames(), recipe.preprocess, open_backend(profile.back_end, shipped)),
        split=split,
        recipe=recipe,
    )
    finished = finish(draft, cases, out, progress=progress)
    return BuildResult(finished.evidence, finished.sizes_bytes, parity)


def _describe(
    name: str,
    profile: Profile,
    recipe: MultitaskRecipe,
    split: Split,
    ranges: RangeFrames,
    shipped: bytes,
    parameters: int,
) -> layout.Manifest:
    """Write the manifest as far as it is known before the graph was judged."""
    kind = dataset_kind(recipe.dataset)
    parts = list(split.parts.values())
    return layout.Manifest(
        schema_version=layout.SCHEMA_VERSION,
        name=name,
        version=metadata.version("edgefetal"),
        device=profile.name,
        heads=layout.Heads(mask=recipe.network.structures, plane=recipe.network.planes),
        preprocess=recipe.preprocess,
        thresholds=NONE,
        intervals=None,
        layers=layer_groups(shipped, profile.int8),
        calibration=layout.Calibration(
            dataset=recipe.dataset,
            part=Part.TRAIN.value,
            method=METHOD,
            frames=tuple(case.name for case in ranges.cases),
            sha256=ranges.sha256,
        ),
        training=layout.Training(
            recipe=recipe.name,
            dataset=recipe.dataset,
            licence=kind.licence,
            attribution=kind.attribution,
            subjects={part.value: parts.count(part) for part in Part},
            parameters=parameters,
        ),
        budget_passed=False,
        tools={"machine": platform.machine(), "python": platform.python_version()}
        | {tool: metadata.version(tool) for tool in _installed(_TOOLS)},
        files={},
    )


def _installed(names: Sequence[str]) -> list[str]:
    """Return those of the packages that are installed."""
    present = {distribution.metadata["Name"] for distribution in metadata.distributions()}
    return [tool for tool in names if tool in present]
