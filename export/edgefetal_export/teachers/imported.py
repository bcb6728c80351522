"""A network that others trained, in a folder like that of a training run.

RUN/recipe.json         whose it is: file hash, licence, attribution, shape, preprocessing
RUN/model.safetensors   its weights
RUN/model.onnx          the same network as a graph, proven to answer alike
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from edgefetal_calibration.phantom.exam import ExamPlan, simulate_exam
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_devices.errors import InputError
from edgefetal_export.onnx import check_parity, onnx_from_network
from edgefetal_export.teachers import sononet
from edgefetal_export.teachers.sononet import Sononet, SononetConfig, SononetOnFrames, read_sononet
from edgefetal_export.training.run import RECIPE, WEIGHTS
from edgefetal_runtime.atomic import json_bytes, require_new_folder, write_folder
from edgefetal_runtime.infer.backends import open_backend
from edgefetal_runtime.infer.bundle import NO_PLANE
from edgefetal_runtime.infer.preprocess import PreprocessSpec, preprocess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefetal_calibration.datasets.labelled import LabelledSweep

GRAPH = "model.onnx"
_PLANE = ("plane",)


class SononetImport(BaseModel):
    """What `recipe.json` holds of an imported SonoNet.

    Args:
        name: of the recipe.
        sha256: hash of the published file.
        published: whether that is a file known to be the published one.
        licence: of the weights.
        attribution: the sentence that it asks for.
        network: its shape.
        preprocess: how frames are prepared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["sononet"] = "sononet"
    sha256: str
    published: bool
    licence: str = sononet.LICENCE
    attribution: str = sononet.ATTRIBUTION
    network: SononetConfig
    preprocess: PreprocessSpec = sononet.PREPROCESS


def import_sononet(weights: Path, out: Path, *, any_weights: bool = False) -> SononetImport:
    """Read published weights, export the network, and write both.

    Args:
        weights: the published `.npz` file.
        out: folder to write; must not exist.
        any_weights: also take a file of the right shape that is not known to be a published one.

    Returns:
        What was imported.

    Raises:
        InputError: the file is damaged, of another network, or not known and not asked for.
        OutputError: the folder exists or cannot be written.
        CheckFailedError: the exported graph does not answer as the network does.
    """
    require_new_folder(out)
    read = read_sononet(weights)
    if not (read.published or any_weights):
        message = (
            f"{weights} has the shape of {read.config.variant} but is not a file known to be published (SHA-256 "
            f"{read.sha256}); check where it is from, and add --any-weights if it is what you want."
        )
        raise InputError(message)
    recipe = SononetImport(sha256=read.sha256, published=read.published, network=read.config)
    network = SononetOnFrames(read.network).eval()
    graph = onnx_from_network(network, recipe.preprocess, _PLANE)
    plan = ExamPlan(Protocol.HEAD, 24.0, seed=1, frame_count=2)
    images = [preprocess(frame.picture, recipe.preprocess)[0] for frame in simulate_exam(plan)]
    check_parity(network, open_backend("onnxruntime", graph), images, _PLANE)
    files = {
        RECIPE: json_bytes(recipe.model_dump(mode="json")),
        WEIGHTS: save({name: tensor.contiguous() for name, tensor in read.network.state_dict().items()}),
        GRAPH: graph,
    }
    write_folder(out, files)
    return recipe


def load_sononet(run: Path) -> tuple[SononetImport, SononetOnFrames]:
    """Load an imported SonoNet, in evaluation mode.

    Raises:
        InputError: the folder is none, or a file of it is missing or damaged.
    """
    try:
        recipe = SononetImport.model_validate_json((run / RECIPE).read_bytes())
        network = Sononet(recipe.network)
        network.load_state_dict(load((run / WEIGHTS).read_bytes()))
    except (OSError, ValidationError, SafetensorError, RuntimeError) as error:
        message = f"{run} holds no whole import of SonoNet; make it anew by `edgefetal import sononet`."
        raise InputError(message) from error
    return recipe, SononetOnFrames(network.eval())


def plane_namer(recipe: SononetImport, network: SononetOnFrames) -> Callable[[LabelledSweep], list[str]]:
    """Return what names the plane of every frame of a sweep, in the names of the output contract."""

    @torch.inference_mode()
    def name_planes(sweep: LabelledSweep) -> list[str]:
        named = []
        for pixels in sweep.pixels:
            image, _ = preprocess(pixels, recipe.preprocess)
            best = int(network(torch.from_numpy(image)).argmax())
            named.append(sononet.CONTRACT_PLANES.get(recipe.network.planes[best], NO_PLANE))
        return named

    return name_planes
