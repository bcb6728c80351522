"""TensorRT where one is installed, and somebody to tell how far a build is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from edgefetal.starter import bundle_folder
from edgefetal_devices.errors import EnvironmentLacksError
from edgefetal_devices.profile import read_int8_recipe
from edgefetal_export.build import golden_frames
from edgefetal_export.onnx import QUALITY, onnx_from_network
from edgefetal_export.quantise.half import in_half
from edgefetal_export.quantise.histogram import Method
from edgefetal_export.quantise.qdq import prepared, quantised
from edgefetal_export.quantise.ranges import collect
from edgefetal_export.teachers.fetalclip import FetalClipClassifier, FetalClipConfig, fetalclip_tower
from edgefetal_export.teachers.lora import LoraSettings, add_lora, lora_targets, merge_lora
from edgefetal_runtime.infer.bundle import REFERENCE, load_bundle
from edgefetal_runtime.infer.preprocess import preprocess
from edgefetal_runtime.infer.tensorrt.api import TensorRT, load_tensorrt

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt


@dataclass
class Bars:
    """Progress bars by title: how many steps of how many are done."""

    done: dict[str, list[int | None]] = field(default_factory=dict)

    def step(self, title: str, total: int | None) -> Callable[[], None]:
        """Begin a bar."""
        bar: list[int | None] = [0, total]
        self.done[title] = bar

        def advance() -> None:
            assert bar[0] is not None
            bar[0] += 1

        return advance


@pytest.fixture
def bars() -> Bars:
    return Bars()


@pytest.fixture(scope="session")
def tensorrt() -> TensorRT:
    """A real TensorRT whose builder works without a GPU."""
    try:
        found = load_tensorrt()
    except EnvironmentLacksError as error:
        pytest.skip(str(error))
    if not found.is_rtx:
        pytest.skip(f"{found.name} {found.version} builds for the GPU of its machine alone")
    return found


@pytest.fixture(scope="session")
def graphs() -> dict[str, bytes]:
    """The starter student and a two-layer ViT with adapters merged, each in FP32, FP16 and INT8 beside FP16."""
    starter = load_bundle(bundle_folder("starter"))
    spec = starter.manifest.preprocess
    images = [preprocess(frame, spec)[0] for frame in golden_frames()]
    made = {"starter": _in_all(starter.read(REFERENCE), images)}

    torch.manual_seed(0)
    settings = LoraSettings(targets=lora_targets(as_published=False))
    tower = add_lora(
        fetalclip_tower(FetalClipConfig(image_px=112, width=64, layers=2, heads=2, projection=24)), settings
    )
    classifier = FetalClipClassifier(tower).eval()
    for name, weight in classifier.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.05)
    classifier.encoder = merge_lora(tower)
    small = spec.model_copy(update={"height_px": 112, "width_px": 112})
    images = [preprocess(frame, small)[0] for frame in golden_frames()]
    made["ViT"] = _in_all(onnx_from_network(classifier, small, QUALITY), images)
    return {f"{network} {precision}": graph for network, of in made.items() for precision, graph in of.items()}


def _in_all(reference: bytes, images: list[npt.NDArray[np.float32]]) -> dict[str, bytes]:
    ready = prepared(reference)
    recipe = read_int8_recipe("tensorrt")
    table = collect(ready, lambda: iter(images), symmetric=recipe.symmetric_activations)[Method.MIN_MAX]
    return {"fp32": ready, "fp16": in_half(ready), "int8": in_half(quantised(ready, recipe, table))}
