"""FetalCLIP_SEG: four maps from inside the image tower, and the depthwise-separable UNETR decoder that reads them.

The decoder is that of FetalCLIP's segmentation probe and of FetalCLIP-IQA, after UNETR (Hatamizadeh et al. 2022) in two
dimensions. All its 3 x 3 convolutions and its doublings work on one channel each, and 1 x 1 convolutions mix channels;
every convolution has a bias. On the way from the tower a separable convolution follows each doubling, on the way up a
1 x 1 convolution alone: that gives the published 1,591,941 parameters for one channel out. The count leaves two things
open, which are as in the published code: the longest way is that of the shallowest map, and a map stands before what
comes up where the two are joined.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Final, cast

import peft
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from edgefetal_devices.errors import InputError
from edgefetal_export.teachers.grey_input import CLIP, GreyToRgb

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import CLIPVisionModelWithProjection

    Encoder = CLIPVisionModelWithProjection | PeftModel

_RGB: Final = 3
# Four doublings bring a map to the picture's size.
_MAP_STEP_PX: Final = 16

Block = Annotated[int, Field(ge=1)]


class SegmenterConfig(BaseModel):
    """Shape of what stands behind the tower.

    Args:
        structures: names of the mask channels: one for any abdomen, as published, or one for each kind of plane.
        blocks: tower blocks, counted from 1, whose output is read, the shallowest first. The published code takes
            every n-th block for n = 4, 3, 2, 1, hence not 6, 12, 18, 24.
        filters: channels at the picture's own size; deeper levels have 2, 4 and 8 times as many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    structures: tuple[str, ...] = ("abdomen",)
    blocks: tuple[Block, Block, Block, Block] = (6, 8, 12, 24)
    filters: PositiveInt = 32


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    """Return a 3 x 3 convolution of each channel and a mixing one, each normalised and rectified."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _doubling(channels: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, channels, 2, stride=2, groups=channels)


def _from_tower(channels: list[int]) -> nn.Sequential:
    """Return a doubling with a separable convolution for every step from one number of channels to the next."""
    steps = [(_doubling(i), _separable(i, o)) for i, o in pairwise(channels)]
    return nn.Sequential(*(module for step in steps for module in step))


def _upwards(channels: list[int], outputs: int) -> nn.Sequential:
    """Return a separable convolution for every step, then a doubling that mixes channels without normalisation."""
    steps = [_separable(i, o) for i, o in pairwise(channels)]
    return nn.Sequential(*steps, _doubling(channels[-1]), nn.Conv2d(channels[-1], outputs, 1))


class UnetrDecoder(nn.Module):
    """From a picture and four maps to logits."""

    def __init__(self, width: int, outputs: int, filters: int) -> None:
        """Build the decoder with random weights.

        Args:
            width: channels of the maps.
            outputs: channels of the result.
            filters: channels at the picture's own size.
        """
        super().__init__()
        two, four, eight = 2 * filters, 4 * filters, 8 * filters
        self.picture = nn.Sequential(_separable(_RGB, filters), _separable(filters, filters))
        self.shallow = _from_tower([width, eight, four, two])
        self.middle = _from_tower([width, eight, four])
        self.deep = _from_tower([width, eight])
        self.up_last = _upwards([width], eight)
        self.up_deep = _upwards([2 * eight, eight, eight, eight], four)
        self.up_middle = _upwards([2 * four, four, four], two)
        self.up_shallow = _upwards([2 * two, two, two], filters)
        self.result = nn.Sequential(
            _separable(2 * filters, filters), _separable(filters, filters), nn.Conv2d(filters, outputs, 1)
        )

    def forward(self, picture: Tensor, shallow: Tensor, middle: Tensor, deep: Tensor, last: Tensor) -> Tensor:
        """Run the decoder.

        Args:
            picture: shape (N, 3, 16 h, 16 w).
            shallow: map of the first block read, shape (N, width, h, w).
            middle: map of the second.
            deep: map of the third.
            last: map of the fourth.

        Returns:
            Logits, shape (N, outputs, 16 h, 16 w).
        """
        up = self.up_last(last)
        up = self.up_deep(torch.cat([self.deep(deep), up], dim=1))
        up = self.up_middle(torch.cat([self.middle(middle), up], dim=1))
        up = self.up_shallow(torch.cat([self.shallow(shallow), up], dim=1))
        return cast("Tensor", self.result(torch.cat([self.picture(picture), up], dim=1)))


class FetalClipSegmenter(nn.Module):
    """FetalCLIP_SEG.

    Gradients reach the tower wherever its weights ask for them: with adapters the encoder learns, and without, frozen
    as `read_fetalclip` returns it, it is the published network. (The published configuration asks for adapters too, but
    its encoder runs without gradients, so they stay where they began, at nothing.)
    """

    def __init__(self, encoder: Encoder, config: SegmenterConfig) -> None:
        """Put a random decoder behind a tower; the tower is not copied.

        Args:
            encoder: the tower, plain or with adapters.
            config: shape of what stands behind it.

        Raises:
            InputError: the tower has fewer blocks than are to be read, or its picture is no multiple of 16 pixels.
        """
        super().__init__()
        tower = encoder.config
        if max(config.blocks) > tower.num_hidden_layers or list(config.blocks) != sorted(config.blocks):
            message = (
                f"Blocks {config.blocks} cannot be read in that order from a tower of {tower.num_hidden_layers}; name "
                "blocks that it has, the shallowest first."
            )
            raise InputError(message)
        side_px = cast("int", tower.image_size)
        if side_px % _MAP_STEP_PX:
            raise InputError(f"A tower for {side_px} pixels cannot be decoded; take a multiple of 16.")
        self.colours = GreyToRgb(CLIP)
        self.encoder: nn.Module = encoder
        self.decoder = UnetrDecoder(int(tower.hidden_size), len(config.structures), config.filters)
        self.blocks = config.blocks
        self.map_side = side_px // _MAP_STEP_PX

    def forward(self, image: Tensor) -> Tensor:
        """Run the network.

        Args:
            image: shape (N, 1, H, W), prepared by `square_spec`.

        Returns:
            `mask` logits, shape (N, structures, H, W).
        """
        rgb = self.colours(image)
        return cast("Tensor", self.decoder(rgb, *self.maps(rgb)))

    def maps(self, rgb: Tensor) -> list[Tensor]:
        """Return the outputs of the blocks that are read, each of shape (N, width, H / 16, W / 16).

        The class token is dropped, and the tower's grid of patches (16 a side, published) is resized bilinearly to the
        one that four doublings bring to the picture's size (14).
        """
        # The wrapper's layers are the tower's own; only the way in is needed.
        tower = self.encoder.get_base_model() if isinstance(self.encoder, peft.PeftModel) else self.encoder
        vision = cast("CLIPVisionModelWithProjection", tower).vision_model
        tokens = vision.pre_layrnorm(vision.embeddings(rgb))
        found = {}
        for number, layer in enumerate(vision.encoder.layers[: max(self.blocks)], 1):
            tokens = layer(tokens, attention_mask=None)
            if number in self.blocks:
                found[number] = self._map(tokens)
        return [found[number] for number in self.blocks]

    def _map(self, tokens: Tensor) -> Tensor:
        patches = tokens[:, 1:].transpose(1, 2)
        side = round(patches.shape[2] ** 0.5)
        grid = patches.reshape(patches.shape[0], patches.shape[1], side, side)
        return nn.functional.interpolate(grid, (self.map_side, self.map_side), mode="bilinear", align_corners=False)
