"""Networks small enough to quantise in milliseconds, prepared, with their images and ranges."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from edgefetal_devices.profile import read_int8_recipe
from edgefetal_export.onnx import exported
from edgefetal_export.quantise.histogram import Method
from edgefetal_export.quantise.qdq import prepared
from edgefetal_export.quantise.ranges import collect

if TYPE_CHECKING:
    import numpy.typing as npt

SIDE = 32


class TinyNet(nn.Module):
    """Four convolutions, one of them transposed, with a skip, and a plane head."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)])
        self.middle = nn.Conv2d(16, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.final = nn.Conv2d(16, 1, 1)
        self.head = nn.Linear(16, 2)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = self.down[0](image).relu()
        coarse = self.middle(self.down[1](fine).relu()).relu()
        mask = self.final(torch.cat([fine, self.up(coarse)], dim=1))
        return mask, self.head(coarse.mean(dim=(2, 3)))


@dataclass(frozen=True)
class Subject:
    """The prepared graph, images, and ranges by method for symmetric and for other activations."""

    model: bytes
    images: list[npt.NDArray[np.float32]]
    ranges: dict[bool, dict[Method, dict[str, tuple[float, float]]]]

    def of(self, recipe: str, method: Method = Method.MIN_MAX) -> dict[str, tuple[float, float]]:
        """Ranges for a recipe by its name."""
        return self.ranges[read_int8_recipe(recipe).symmetric_activations][method]


def graph_of(network: nn.Module) -> bytes:
    """Export and prepare a network of one picture."""
    return prepared(exported(network.eval(), torch.zeros(1, 1, SIDE, SIDE), "image", ("mask", "plane")))


def subject_of(model: bytes) -> Subject:
    """Take the ranges of a prepared graph over eight images of noise."""
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(1, 1, SIDE, SIDE)).astype(np.float32) for _ in range(8)]
    return Subject(
        model, images, {flag: collect(model, lambda: iter(images), symmetric=flag) for flag in (True, False)}
    )


@pytest.fixture(scope="session")
def tiny_network() -> TinyNet:
    torch.manual_seed(0)
    return TinyNet().eval()


@pytest.fixture(scope="session")
def tiny(tiny_network: TinyNet) -> Subject:
    return subject_of(graph_of(tiny_network))


@pytest.fixture(scope="session")
def spoilt(tiny_network: TinyNet) -> Subject:
    """The same answers, but one input channel of `middle` is ten thousand times larger and its weights as much smaller.

    One step for the whole tensor cannot hold that channel and the others.
    """
    network = copy.deepcopy(tiny_network)
    first, second = network.down[1], network.middle
    assert isinstance(first, nn.Conv2d)
    assert first.bias is not None
    with torch.no_grad():
        first.weight[3] *= 1e4
        first.bias[3] *= 1e4
        second.weight[:, 3] /= 1e4
    return subject_of(graph_of(network))


class TinyTransformer(nn.Module):
    """Two layers of a vision transformer on patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 8, stride=8)
        self.layers = nn.ModuleList([TinyLayer() for _ in range(2)])
        self.head = nn.Linear(16, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens)
        answer: torch.Tensor = self.head(tokens.mean(dim=1))
        return answer


class TinyLayer(nn.Module):
    """Attention of one head and a perceptron, each behind a norm and around a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.norm_1(tokens)
        weights = (self.q(x) @ self.k(x).transpose(1, 2) / 4).softmax(-1)
        tokens = tokens + self.out(weights @ self.v(x))
        return tokens + self.fc2(nn.functional.gelu(self.fc1(self.norm_2(tokens))))


@pytest.fixture(scope="session")
def tiny_transformer() -> Subject:
    torch.manual_seed(0)
    network = TinyTransformer().eval()
    return subject_of(prepared(exported(network, torch.zeros(1, 1, SIDE, SIDE), "image", ("quality",))))
