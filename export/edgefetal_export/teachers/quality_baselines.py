"""The six networks that FetalCLIP-IQA compares itself with, by name.

There they are timm's, with timm's weights; here they are MONAI's and transformers', with random weights unless local
ones are given. How each row differs from the published one stands in its `differs`; common to all is that the published
frames went through timm's own resizing, for the convolutional ones with an eighth of each side cut off, where ours are
prepared as every other network's are. timm names its layers otherwise than these libraries, so its files are not read,
but for VGG16, which is written out here with timm's names.

The convolutional networks train whole. The transformers are frozen but for LoRA on the attention's output, the MLP and
the patches, which is what the published `proj`, `fc1` and `fc2` reach in timm's networks (there the attention's output
is called, so nothing is inert).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import torch
from monai.networks.nets.densenet import DenseNet, DenseNet121
from monai.networks.nets.efficientnet import EfficientNet, EfficientNetBN
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, Dinov2Config, Dinov2Model, SwinConfig, SwinModel
from transformers.modeling_utils import PreTrainedModel

from edgefetal_devices.errors import InputError
from edgefetal_export.teachers.grey_input import CLIP, IMAGENET, SIDE_PX, Colours, GreyToRgb
from edgefetal_export.teachers.lora import LoraSettings, add_lora

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Scale = Literal["published", "tiny"]

# Sides of the input. The tiny networks are for tests: a few thousand weights of the same kinds of layers.
SIDES_PX: Final[dict[Scale, int]] = {"published": SIDE_PX, "tiny": 56}
_WEIGHTS_FILE: Final = "model.safetensors"

# Channels of VGG16's convolutions of 3 x 3, block by block (Simonyan and Zisserman 2015, table 1, D).
_VGG: Final[dict[Scale, tuple[tuple[int, ...], ...]]] = {
    "published": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    "tiny": ((4, 4), (8, 8), (8, 8)),
}
_VGG_HIDDEN: Final[dict[Scale, int]] = {"published": 4096, "tiny": 16}
# Side of the map after the last pool.
_VGG_MAP: Final = 7


@dataclass(frozen=True)
class Encoder:
    """A network without its classifier.

    Args:
        network: from (N, 3, H, W) to features, as a tensor or as transformers' `pooler_output`.
        width: number of features.
        head: how the names of the removed classifier begin in the library's weights.
    """

    network: nn.Module
    width: int
    head: tuple[str, ...] = ()


@dataclass(frozen=True)
class Baseline:
    """One row of the table.

    Args:
        name: name on the command line.
        build: gives the encoder with random weights.
        colours: how its published weights want colours.
        lora_targets: layers that adapters are put on; none where the whole network trains.
        published: what timm calls the published one.
        published_millions: its trainable parameters as published, in millions.
        differs: how ours differs from it.
    """

    name: str
    build: Callable[[Scale], Encoder]
    colours: Colours
    lora_targets: tuple[str, ...]
    published: str
    published_millions: float
    differs: str


class QualityBaseline(nn.Module):
    """An encoder and one fully connected layer."""

    def __init__(self, colours: Colours, encoder: nn.Module, width: int) -> None:
        """Put a random layer behind an encoder; the encoder is not copied."""
        super().__init__()
        self.colours = GreyToRgb(colours)
        self.encoder = encoder
        self.head = nn.Linear(width, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Run the network.

        Args:
            image: shape (N, 1, H, W), prepared by `square_spec`.

        Returns:
            `quality` logit, shape (N, 1).
        """
        answer = self.encoder(self.colours(image))
        return cast("Tensor", self.head(answer if isinstance(answer, Tensor) else answer.pooler_output))


class _Vgg(nn.Module):
    """VGG16 up to its last hidden layer, with timm's names; dropout is 0 there too."""

    def __init__(self, blocks: tuple[tuple[int, ...], ...], hidden: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for block in blocks:
            for filters in block:
                layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
                channels = filters
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pre_logits = nn.ModuleDict(
            {"fc1": nn.Conv2d(channels, hidden, _VGG_MAP), "fc2": nn.Conv2d(hidden, hidden, 1)}
        )

    def forward(self, rgb: Tensor) -> Tensor:
        """Return shape (N, hidden) for (N, 3, H, W) of the side that it was made for."""
        hidden = torch.relu(self.pre_logits["fc1"](self.features(rgb)))
        return torch.relu(self.pre_logits["fc2"](hidden)).flatten(1)


def _densenet(scale: Scale) -> Encoder:
    network = (
        DenseNet121(spatial_dims=2, in_channels=3, out_channels=1)
        if scale == "published"
        else DenseNet(2, 3, 1, init_features=8, growth_rate=4, block_config=(2, 2))
    )
    return _without(network, "class_layers.out")


def _efficientnet(scale: Scale) -> Encoder:
    network = (
        EfficientNetBN("efficientnet-b0", pretrained=False, num_classes=1)
        if scale == "published"
        else EfficientNet(
            ["r1_k3_s11_e1_i32_o16_se0.25", "r1_k3_s22_e2_i16_o24_se0.25"],
            num_classes=1,
            width_coefficient=0.25,
            image_size=SIDES_PX[scale],
        )
    )
    # The default saves memory in training by a function of its own that no exporter knows.
    network.set_swish(memory_efficient=False)
    return _without(network, "_fc")


def _without(network: nn.Module, classifier: str) -> Encoder:
    """Take the classifier off a network of MONAI's."""
    width = cast("nn.Linear", network.get_submodule(classifier)).in_features
    network.set_submodule(classifier, nn.Identity())
    return Encoder(network, width, head=(f"{classifier}.",))


def _vgg16(scale: Scale) -> Encoder:
    return Encoder(_Vgg(_VGG[scale], _VGG_HIDDEN[scale]), _VGG_HIDDEN[scale], head=("head.",))


def _swin_large(scale: Scale) -> Encoder:
    tiny = scale == "tiny"
    config = SwinConfig(
        image_size=SIDES_PX[scale],
        embed_dim=8 if tiny else 192,
        depths=(2, 1) if tiny else (2, 2, 18, 2),
        num_heads=(1, 2) if tiny else (6, 12, 24, 48),
    )
    return Encoder(SwinModel(config), int(config.hidden_size))


def _deit3_large(scale: Scale) -> Encoder:
    tiny = scale == "tiny"
    config = Dinov2Config(
        image_size=SIDES_PX[scale],
        patch_size=14 if tiny else 16,
        hidden_size=16 if tiny else 1024,
        num_hidden_layers=2 if tiny else 24,
        num_attention_heads=2 if tiny else 16,
        layerscale_value=1e-6,
        use_mask_token=False,
    )
    network = Dinov2Model(config)
    with torch.no_grad():
        # DeiT3's class token has no position; a position of zero, frozen with the rest, is the same.
        network.embeddings.position_embeddings[:, 0].zero_()
    return Encoder(network, config.hidden_size)


def _clip_vit_large(scale: Scale) -> Encoder:
    tiny = scale == "tiny"
    config = CLIPVisionConfig(
        image_size=SIDES_PX[scale],
        patch_size=14,
        hidden_size=16 if tiny else 1024,
        intermediate_size=64 if tiny else 4096,
        num_hidden_layers=2 if tiny else 24,
        num_attention_heads=2 if tiny else 16,
        hidden_act="gelu",
    )
    return Encoder(CLIPVisionModel(config), config.hidden_size)


TABLE: Final = (
    Baseline(
        name="densenet121",
        build=_densenet,
        colours=IMAGENET,
        lora_targets=(),
        published="densenet121",
        published_millions=7.0,
        differs="The same layers.",
    ),
    Baseline(
        name="efficientnet-b0",
        build=_efficientnet,
        colours=IMAGENET,
        lora_targets=(),
        published="efficientnet_b0",
        published_millions=4.0,
        differs=(
            "MONAI pads as TensorFlow does (timm: evenly), has 1e-3 in its batch normalisation (timm: 1e-5), and drops "
            "0.2 of the features and up to 0.2 of the blocks in training (timm: none)."
        ),
    ),
    Baseline(
        name="vgg16",
        build=_vgg16,
        colours=IMAGENET,
        lora_targets=(),
        published="vgg16",
        published_millions=134.0,
        differs="The same layers, written out here; timm's own safetensors file fits.",
    ),
    Baseline(
        name="swin-large",
        build=_swin_large,
        colours=IMAGENET,
        lora_targets=("projection", "o_proj", "fc1", "fc2"),
        published="swin_large_patch4_window7_224.ms_in22k_ft_in1k",
        published_millions=1.7,
        differs=(
            "transformers keeps query, key and value apart, which changes no number; its stochastic depth leaves the "
            "MLP's way alone (timm: drops both)."
        ),
    ),
    Baseline(
        name="deit3-large",
        build=_deit3_large,
        colours=IMAGENET,
        lora_targets=("projection", "o_proj", "fc1", "fc2"),
        published="deit3_large_patch16_224.fb_in22k_ft_in1k",
        published_millions=2.4,
        differs=(
            "transformers' DeiT has no layer scale; its DINOv2 has, and is DeiT3's network when the class token's "
            "position, which DeiT3 lacks, is zero. No weights of DeiT3 are published in that layout."
        ),
    ),
    Baseline(
        name="clip-vit-large",
        build=_clip_vit_large,
        colours=CLIP,
        lora_targets=("patch_embedding", "out_proj", "fc1", "fc2"),
        published="vit_large_patch14_clip_224.openai_ft_in12k_in1k",
        published_millions=2.4,
        differs=(
            "The published weights were tuned on ImageNet and are timm's alone; OpenAI's, which transformers reads, "
            "were not, and use the quick GELU, which their folder says."
        ),
    ),
)


def baseline_row(name: str) -> Baseline:
    """Return the row of a name.

    Raises:
        InputError: the table has no such name.
    """
    for row in TABLE:
        if row.name == name:
            return row
    raise InputError(f"There is no baseline {name!r}; choose one of {', '.join(row.name for row in TABLE)}.")


def quality_baseline(row: Baseline, *, scale: Scale = "published", weights: Path | None = None) -> QualityBaseline:
    """Build a baseline as it trains: whole, or frozen with adapters.

    Args:
        row: of the table.
        scale: `tiny` for tests.
        weights: pretrained weights in the library's own format: for the convolutional ones a safetensors file with
            MONAI's names (VGG16: timm's), for the others a folder of transformers' with config.json and
            model.safetensors. Without them the encoder is random, which for a frozen one means little.

    Raises:
        InputError: the weights cannot be read, or are of another network.
    """
    encoder = row.build(scale)
    network = encoder.network
    if weights is not None and isinstance(network, PreTrainedModel):
        network = _from_folder(network, weights)
    elif weights is not None:
        _read_file(encoder, weights)
    if row.lora_targets:
        network = add_lora(network, LoraSettings(targets=row.lora_targets))
    return QualityBaseline(row.colours, network, encoder.width)


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in network.state_dict().items()}


def _read_file(encoder: Encoder, path: Path) -> None:
    """Fill an encoder from a safetensors file; the classifier in it is left out."""
    try:
        found = load_file(path)
    except OSError as error:
        reason = error.strerror or "not found"
        raise InputError(f"{path} cannot be read ({reason}); give a safetensors file of weights.") from error
    except SafetensorError as error:
        raise InputError(f"{path} is not a sound safetensors file ({error}); convert or download it again.") from error
    body = {name: array for name, array in found.items() if not name.startswith(encoder.head)}
    expected = _shapes(encoder.network)
    _require_same(path, expected, {name: tuple(array.shape) for name, array in body.items()})
    encoder.network.load_state_dict(body, strict=True)


def _from_folder(network: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Read a transformers folder into a network like the given one; nothing is looked for elsewhere."""
    for name in ("config.json", _WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} has no {name}; give a folder of transformers' with config.json and safetensors."
            )
    try:
        read, told = cast("Any", type(network)).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    # A configuration or a file of another kind makes transformers raise a dozen kinds of error.
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{folder} does not hold {type(network).__name__} ({first}); give its own folder.") from error
    lacking = sorted(told["missing_keys"])
    if lacking:
        raise InputError(f"{folder} lacks {lacking[0]} and {len(lacking) - 1} more; give a folder of the same network.")
    _require_same(folder, _shapes(network), _shapes(read))
    # Where it came from is a path on this machine.
    read.config.name_or_path = read.name_or_path = ""
    return cast("PreTrainedModel", read)


def _require_same(path: Path, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    """Refuse weights of other names or shapes."""
    if found != expected:
        name = next(n for n in sorted(found.keys() | expected.keys()) if found.get(n) != expected.get(n))
        message = (
            f"{path} is of another network: {name} is {found.get(name, 'missing')}, not "
            f"{expected.get(name, 'expected at all')}; give weights of this one."
        )
        raise InputError(message)
