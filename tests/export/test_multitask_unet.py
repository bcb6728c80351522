from __future__ import annotations

import pytest
import torch
from torch import nn

from edgefetal_export.teachers.multitask_unet import (
    MultitaskUnet,
    MultitaskUnetConfig,
    joint_loss,
    parameter_count,
)

CONFIG = MultitaskUnetConfig(structures=("head", "femur"), planes=("head", "femur", "none"))


def test_outputs_follow_the_contract() -> None:
    mask, plane = MultitaskUnet(CONFIG).eval()(torch.zeros(2, 1, 64, 96))
    assert mask.shape == (2, 2, 64, 96)
    assert plane.shape == (2, 3)


def test_it_is_the_published_shape() -> None:
    """Five levels: four poolings, four up-convolutions, two convolutions a level each way."""
    network = MultitaskUnet(CONFIG)
    kinds = [type(module) for module in network.modules()]
    assert kinds.count(nn.MaxPool2d) == 4
    assert kinds.count(nn.ConvTranspose2d) == 4
    assert kinds.count(nn.Conv2d) == 2 * 5 + 2 * 4 + 1
    assert kinds.count(nn.Linear) == 1


def test_plane_head_hangs_on_the_bottleneck() -> None:
    """The plane does not depend on the decoder, and its loss reaches the encoder."""
    network = MultitaskUnet(CONFIG).eval()
    image = torch.rand(1, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    before = network(image)[1]
    with torch.no_grad():
        network.unet.upcat_1.convs.conv_0.conv.weight.zero_()
    after = network(image)[1]
    assert torch.equal(before, after)
    after.sum().backward()
    assert network.unet.conv_0.conv_0.conv.weight.grad.abs().sum() > 0
    assert network.unet.upcat_1.convs.conv_0.conv.weight.grad is None


def test_default_size_fits_the_starter() -> None:
    assert (
        parameter_count(MultitaskUnet(MultitaskUnetConfig(structures=("head",), planes=("head", "none")))) == 1_342_643
    )


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 2.0), (1.0, 4.0), (0.25, 2.5)])
def test_joint_loss(weight: float, expected: float) -> None:
    assert joint_loss(torch.tensor(2.0), torch.tensor(4.0), weight).item() == pytest.approx(expected)
