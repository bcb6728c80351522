from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgefetal_devices.errors import InputError
from edgefetal_export.onnx import exported
from edgefetal_export.students.student import Size, Student, parse_size, student_config
from edgefetal_export.teachers.multitask_unet import parameter_count

STRUCTURES = ("head", "abdomen", "femur")
PLANES = (*STRUCTURES, "none")
# What TensorRT, onnxruntime and OpenVINO all have in INT8, or do exactly.
QUANTISABLE = {"Conv", "Relu", "Add", "Resize", "ReduceMean", "Gemm", "Split"}


def student(size: Size, *, quality: bool = True, skill: bool = True) -> Student:
    torch.manual_seed(1)
    return Student(student_config(size, STRUCTURES, PLANES, quality=quality, skill=skill)).eval()


def test_sizes_grow_and_the_one_that_ships_is_small() -> None:
    counts = [parameter_count(student(size)) for size in Size]
    assert all(2 * smaller < larger for smaller, larger in pairwise(counts))
    assert counts[1] <= 3_000_000


@pytest.mark.parametrize("size", Size)
def test_graph_answers_alike_with_operators_that_can_be_quantised(size: Size) -> None:
    network = student(size)
    image = torch.from_numpy(np.random.default_rng(2).normal(size=(1, 1, 64, 96)).astype(np.float32))
    graph = exported(network, torch.zeros_like(image), "image", network.config.output_names)
    assert set(Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)) <= QUANTISABLE
    found = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"image": image.numpy()})
    with torch.inference_mode():
        expected = network(image)
    assert [answer.shape for answer in found] == [(1, 3, 64, 96), (1, 4), (1, 1), (1, 1)]
    for name, a, b in zip(network.config.output_names, found, expected, strict=True):
        assert np.abs(a - b.numpy()).max() < 1e-4, name


@pytest.mark.parametrize(
    ("quality", "skill", "names"),
    [
        (False, False, ("mask", "plane")),
        (True, False, ("mask", "plane", "quality")),
        (False, True, ("mask", "plane", "skill")),
    ],
)
def test_only_the_heads_that_were_asked_for_are_there(quality: bool, skill: bool, names: tuple[str, ...]) -> None:  # noqa: FBT001
    network = student(Size.NANO, quality=quality, skill=skill)
    assert network.config.output_names == names
    assert len(network(torch.zeros(2, 1, 32, 32))) == len(names)


def test_mask_lies_where_the_picture_is() -> None:
    """A bilinear head at half size must not shift what it enlarges: mirrored pictures give mirrored masks."""
    network = student(Size.NANO)
    for convolution in [part for part in network.modules() if isinstance(part, torch.nn.Conv2d)]:
        convolution.weight.data = (convolution.weight + convolution.weight.flip(3)) / 2
    image = torch.rand(1, 1, 64, 96)
    with torch.inference_mode():
        # The halving convolutions see a pixel more to the left, so the picture is even about a pixel's middle.
        mask = torch.nn.functional.interpolate(network.mask_head(torch.rand(1, 16, 32, 48)), scale_factor=2.0)
        assert mask.shape[-2:] == image.shape[-2:]
        constant = network(torch.full((1, 1, 64, 96), 0.3))[0]
    assert float(constant[..., 24:40, 40:56].std(dim=(2, 3)).max()) < 1e-4


def test_unknown_size_is_refused() -> None:
    with pytest.raises(InputError, match="nano, small, base"):
        parse_size("tiny")
