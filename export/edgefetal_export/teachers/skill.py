"""Skill assessment without ratings, after Wang et al. 2025 (arXiv 2512.23920): two networks over the same clip.

The task network draws the masks of a clip; the skill network foretells, from the clip alone, how well it will. Both
take consecutive frames as channels. Shapes follow the published run: a U-Net of five levels, and a ResNet-18 from
scratch with one sigmoid output; widths of the U-Net and its normalisation are ours. The code is written anew.
"""

from __future__ import annotations

from typing import cast

import torch
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.resnet import ResNet
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn

from edgefetal_export.onnx import exported

# Grey levels of a frame that is all one colour are not divided by nothing.
_LEAST_STD = 1e-3


class SkillConfig(BaseModel):
    """Shape of the two networks.

    Args:
        structures: names of the masks.
        seq_len: consecutive frames of a clip.
        task_features: channels of the U-Net's five levels from the finest to the bottleneck, then of its last
            up-convolution.
        skill_features: channels of the ResNet's four stages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    structures: tuple[str, ...]
    seq_len: PositiveInt = 10
    task_features: tuple[int, int, int, int, int, int] = (16, 32, 64, 128, 160, 16)
    skill_features: tuple[int, int, int, int] = (64, 128, 256, 512)


def each_frame_normalised(clip: Tensor) -> Tensor:
    """Bring every frame to a mean of 0 and a standard deviation of 1, so that a scanner's gain says nothing.

    Args:
        clip: shape (N, T, H, W).
    """
    mean = clip.mean(dim=(2, 3), keepdim=True)
    # Written out: every runtime has these operators, and `std` becomes a different one in each.
    variance = ((clip - mean) ** 2).mean(dim=(2, 3), keepdim=True)
    return (clip - mean) / (variance.sqrt() + _LEAST_STD)


class TaskNetwork(nn.Module):
    """The lower level: a U-Net that draws the masks of all frames of a clip at once.

    It has instance normalisation, so what it answers depends neither on the other clips of a batch nor on a running
    average, and a virtual step of its weights is a function of the weights alone.
    """

    def __init__(self, config: SkillConfig) -> None:
        """Build the network with random weights."""
        super().__init__()
        self._structures, self._seq_len = len(config.structures), config.seq_len
        self.unet = BasicUNet(
            spatial_dims=2,
            in_channels=config.seq_len,
            out_channels=config.seq_len * len(config.structures),
            features=config.task_features,
        )

    def forward(self, clip: Tensor) -> Tensor:
        """Draw the masks.

        Args:
            clip: shape (N, T, H, W), preprocessed; H and W multiples of 16.

        Returns:
            Logits, shape (N, structures, T, H, W).
        """
        logits = self.unet(each_frame_normalised(clip))
        return cast("Tensor", logits.unflatten(1, (self._structures, self._seq_len)))


class SkillNetwork(nn.Module):
    """The upper level: a ResNet-18 that foretells the task network's Dice on a clip."""

    def __init__(self, config: SkillConfig) -> None:
        """Build the network with random weights."""
        super().__init__()
        self.resnet = ResNet(
            block="basic",
            layers=[2, 2, 2, 2],
            block_inplanes=list(config.skill_features),
            spatial_dims=2,
            n_input_channels=config.seq_len,
            conv1_t_stride=2,
            num_classes=1,
        )

    def forward(self, clip: Tensor) -> Tensor:
        """Score the clips.

        Args:
            clip: shape (N, T, H, W), preprocessed.

        Returns:
            Scores within 0 to 1, shape (N,).
        """
        return torch.sigmoid(self.resnet(each_frame_normalised(clip)).flatten())


class SkillModel(nn.Module):
    """Both networks; their weights are saved as `task.*` and `skill.*`."""

    def __init__(self, config: SkillConfig) -> None:
        """Build both with random weights."""
        super().__init__()
        self.task = TaskNetwork(config)
        self.skill = SkillNetwork(config)


def onnx_from_skill(skill: SkillNetwork, seq_len: int, size_px: tuple[int, int]) -> bytes:
    """Export the skill network for one clip at a time, with the input `clip` and the output `score`.

    Args:
        skill: in evaluation mode.
        seq_len: frames of a clip.
        size_px: height and width of a frame.
    """
    return exported(skill, torch.zeros(1, seq_len, *size_px), "clip", ("score",))
