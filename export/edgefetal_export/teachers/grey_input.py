"""What stands before a network that was made for colour photographs: one preprocessing, and the colours in the graph.

A bundle's input is one grey channel, so these networks are prepared with mean 0 and standard deviation 1 (grey on the
0 to 1 scale), and `GreyToRgb` does the rest inside the network. Padding to a square needs nothing of its own:
`square_spec` asks for a square, and `preprocess` centres every frame on black.

FetalCLIP pads first and then shrinks with PIL's bicubic filter, which widens with the factor and overshoots at edges;
FetalCLIP-IQA shrinks with OpenCV's cubic filter, which does not widen, so that speckle aliases. Ours halves with a
Gaussian and goes the rest of the way bilinearly, in integers, so that every machine sees the same bits. On simulated
frames of 744 x 562 pixels at 224 ours and PIL's differ by 4 of 255 grey levels on average (correlation 0.98), and the
two published ways by 2 from each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from edgefetal_runtime.infer.preprocess import PreprocessSpec

SIDE_PX: Final = 224


@dataclass(frozen=True)
class Colours:
    """How a network wants red, green and blue, each on the 0 to 1 scale.

    Args:
        mean: level of each that becomes 0.
        std: difference of each that becomes 1.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# OpenAI's CLIP, whose figures FetalCLIP kept (open_clip, constants.py).
CLIP: Final = Colours((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
# ImageNet's, as timm and torchvision use them.
IMAGENET: Final = Colours((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class GreyToRgb(nn.Module):
    """Repeats grey as red, green and blue, and normalises each."""

    mean: Tensor
    std: Tensor

    def __init__(self, colours: Colours) -> None:
        """Remember the figures; there is nothing to learn or to store."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(colours.mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(colours.std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return shape (N, 3, H, W) for grey on the 0 to 1 scale, shape (N, 1, H, W)."""
        rgb: Tensor = (image - self.mean) / self.std
        return rgb


def square_spec(side_px: int = SIDE_PX) -> PreprocessSpec:
    """Return the preprocessing of these networks: a square, padded with black, grey on the 0 to 1 scale."""
    return PreprocessSpec(height_px=side_px, width_px=side_px, mean=0.0, std=1.0)
