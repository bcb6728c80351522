"""The student: one small encoder under all heads of the output contract, made for INT8.

Every layer is a convolution with batch normalisation and ReLU, an addition, a nearest-neighbour or bilinear resize, a
mean or a linear layer: all have INT8 or exact forms in TensorRT, onnxruntime and OpenVINO, and batch normalisation
folds away. There is no transposed convolution, no concatenation (whose inputs would have to share one scale) and no
activation other than ReLU. The first convolution halves the picture, so that full size is touched once at either end.
"""

from __future__ import annotations

import itertools
from enum import Enum
from typing import Final, cast

from pydantic import Field
from torch import Tensor, nn

from edgefetal_devices.errors import InputError
from edgefetal_export.contract import Outputs

# Channels of the four levels are these multiples of the width.
_WIDENING: Final = (1, 2, 4, 6)
# Sides of a picture must be multiples of what four halvings make of one pixel.
SIDE_MULTIPLE: Final = 16


class Size(str, Enum):
    """How large a student is; `small` is what ships."""

    NANO = "nano"
    SMALL = "small"
    BASE = "base"


# Width of the first level, and convolutions after the halving one in each of the four levels.
_SHAPES: Final[dict[Size, tuple[int, tuple[int, int, int, int]]]] = {
    Size.NANO: (16, (0, 1, 1, 1)),
    Size.SMALL: (32, (1, 1, 2, 2)),
    Size.BASE: (48, (1, 2, 3, 3)),
}


class StudentConfig(Outputs):
    """Shape of the network.

    Args:
        width: channels of the first level, at half the picture's size; the next have 2, 4 and 6 times as many.
        depths: convolutions after the halving one in each of the four levels.
        quality: whether it says how good a frame is.
        skill: whether it says how skilled the hand is.
        dropout: dropout before the heads that answer once a frame.
    """

    width: int = Field(gt=0)
    depths: tuple[int, int, int, int]
    quality: bool = False
    skill: bool = False
    dropout: float = 0.2

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs in order."""
        optional = (("quality", self.quality), ("skill", self.skill))
        return ("mask", "plane", *(name for name, present in optional if present))


def parse_size(text: str) -> Size:
    """Read the name of a size.

    Raises:
        InputError: there is no such size.
    """
    try:
        return Size(text)
    except ValueError as error:
        names = ", ".join(size.value for size in Size)
        message = f"There is no student {text!r}; choose one of {names}."
        raise InputError(message) from error


def student_config(
    size: Size, structures: tuple[str, ...], planes: tuple[str, ...], *, quality: bool = False, skill: bool = False
) -> StudentConfig:
    """Return the shape of a size."""
    width, depths = _SHAPES[size]
    return StudentConfig(structures=structures, planes=planes, width=width, depths=depths, quality=quality, skill=skill)


def _convolution(inputs: int, outputs: int, *, side: int = 3, step: int = 1, relu: bool = True) -> nn.Sequential:
    """Build a convolution with batch normalisation, and ReLU unless something is added first."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, side, step, padding=side // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


class Student(nn.Module):
    """The network."""

    def __init__(self, config: StudentConfig) -> None:
        """Build it with random weights."""
        super().__init__()
        self.config = config
        widths = [config.width * factor for factor in _WIDENING]
        self.levels = nn.ModuleList(
            nn.Sequential(
                _convolution(inputs, outputs, step=2), *(_convolution(outputs, outputs) for _ in range(depth))
            )
            for inputs, outputs, depth in zip([1, *widths], widths, config.depths, strict=False)
        )
        self.narrow = nn.ModuleList(
            _convolution(below, above, side=1, relu=False) for above, below in itertools.pairwise(widths)
        )
        self.merge = nn.ModuleList(_convolution(width, width) for width in widths[:-1])
        self.mask_head = nn.Conv2d(widths[0], len(config.structures), 1)
        # One linear layer for all that is said once a frame.
        self.frame_head = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(widths[-1], len(config.planes) + config.quality + config.skill)
        )

    @property
    def feature_count(self) -> int:
        """Numbers in the frame's feature vector."""
        return cast("nn.Linear", self.frame_head[1]).in_features

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Run the network.

        Args:
            image: shape (N, 1, H, W), preprocessed; H and W multiples of 16.

        Returns:
            Logits as `config.output_names` says: `mask`, shape (N, structures, H, W), `plane`, shape (N, planes), and
            where there are such heads `quality` and `skill`, shape (N, 1) each.
        """
        return self.answer_and_features(image)[0]

    def answer_and_features(self, image: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Run the network; return its answer and the frame's feature vector, shape (N, feature_count)."""
        maps = []
        for level in self.levels:
            image = level(image)
            maps.append(image)
        features = maps[-1].mean(dim=(2, 3))
        rising = maps[-1]
        for narrow, merge, beside in zip(reversed(self.narrow), reversed(self.merge), reversed(maps[:-1]), strict=True):
            # Narrowed before it is enlarged: the same sum at a quarter of the work.
            enlarged = nn.functional.interpolate(narrow(rising), scale_factor=2.0, mode="nearest")
            rising = merge(nn.functional.relu(enlarged + beside))
        mask = nn.functional.interpolate(self.mask_head(rising), scale_factor=2.0, mode="bilinear", align_corners=False)
        answers = self.frame_head(features).split(
            [len(self.config.planes), *[1] * (self.config.quality + self.config.skill)], dim=1
        )
        return (mask, *answers), features
