"""FetalCLIP's image tower (Maani et al., arXiv 2502.14807) and the quality classifier of FetalCLIP-IQA (2507.22802).

The tower is the vision transformer ViT-L/14 of open_clip: pre-normalisation, a layer norm before the first block, one
on the class token after the last, exact GELU, and a projection without bias. It is rebuilt on transformers' CLIP, and
the released weights (`FetalCLIP_weights.pt`, an open_clip state dict with the text tower beside it) are read by
renaming. What differs between the two is three things: open_clip stacks the weights of query, key and value in one
array, its projection is applied from the right (`x @ proj`) where transformers' is a linear layer, and its class
embedding stands beside the others by another name.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, cast

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.initialization import no_init_weights

from edgefetal_devices.errors import InputError
from edgefetal_export.teachers.grey_input import CLIP, GreyToRgb

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peft import PeftModel
    from typing_extensions import Self

    Shape = tuple[int, ...]

RELEASED_FILE: Final = "FetalCLIP_weights.pt"
# Of numansaeed/fetalclip-model on Hugging Face, 1,710,766,661 bytes.
RELEASED_SHA256: Final = "90916caa408baf9374ee3f8c1533463331a4ace37a13e61385e782905b35c310"

_EPSILON: Final = 1e-5
_BLOCK: Final = 2**22
_VISUAL: Final = "visual."
# What else an open_clip CLIP holds: its text tower and the temperature.
_TEXT: Final = re.compile(
    r"positional_embedding|text_projection|logit_scale|logit_bias|attn_mask|token_embedding\.weight"
    r"|ln_final\.(weight|bias)|transformer\.resblocks\.\d+\.(ln_1|ln_2|attn|mlp)\..+"
)
# Modules of a block by open_clip's name and by transformers', each with a weight and a bias.
_PAIRS: Final = (
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("attn.out_proj", "self_attn.out_proj"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
)
_STACKED: Final = ("q_proj", "k_proj", "v_proj")
_NAMED_AT_MOST: Final = 3


class FetalClipConfig(BaseModel):
    """Shape of the image tower; the defaults are the release's (`FetalCLIP_config.json`).

    Args:
        image_px: side of the picture.
        patch_px: side of a patch.
        width: numbers for each patch.
        layers: transformer blocks.
        heads: attention heads.
        mlp_ratio: width of a block's hidden layer over `width`.
        projection: numbers of the embedding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_px: PositiveInt = 224
    patch_px: PositiveInt = 14
    width: PositiveInt = 1024
    layers: PositiveInt = 24
    heads: PositiveInt = 16
    mlp_ratio: PositiveInt = 4
    projection: PositiveInt = 768

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.image_px % self.patch_px or self.width % self.heads:
            raise ValueError("image_px must be a multiple of patch_px, and width one of heads")
        return self

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image_px // self.patch_px


def fetalclip_tower(config: FetalClipConfig) -> CLIPVisionModelWithProjection:
    """Build the tower with random weights.

    Its input is `pixel_values`, shape (N, 3, image_px, image_px), normalised as CLIP; its answer has `image_embeds`,
    shape (N, projection).
    """
    vision = CLIPVisionConfig(
        hidden_size=config.width,
        intermediate_size=config.mlp_ratio * config.width,
        projection_dim=config.projection,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        image_size=config.image_px,
        patch_size=config.patch_px,
        # open_clip's plain GELU; transformers' own default is OpenAI's quick one.
        hidden_act="gelu",
        layer_norm_eps=_EPSILON,
    )
    return CLIPVisionModelWithProjection(vision)


def read_fetalclip(
    path: Path, config: FetalClipConfig | None = None, *, expected_sha256: str | None = RELEASED_SHA256
) -> CLIPVisionModelWithProjection:
    """Read the image tower from an open_clip state dict.

    The file is a pickle, so its hash is checked before it is opened, and nothing but tensors is ever unpickled.

    Args:
        path: the state dict.
        config: shape of the tower, or None for the release's.
        expected_sha256: hash that the file must have, or None where the caller takes any weights of that shape.

    Returns:
        The tower in evaluation mode, frozen, in float32.

    Raises:
        InputError: the file cannot be read, is another one, or holds anything but the arrays of such a tower.
    """
    config = FetalClipConfig() if config is None else config
    if expected_sha256 is not None:
        _require_hash(path, expected_sha256)
    visual = _visual_part(path, _state_dict(path), config)
    with no_init_weights():  # drawing 304 million numbers takes longer than reading them
        tower = fetalclip_tower(config)
    tower.load_state_dict(converted(visual, config), strict=True)
    tower.requires_grad_(requires_grad=False)
    tower.train(mode=False)
    return tower


def _require_hash(path: Path, expected: str) -> None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give the released {RELEASED_FILE}.") from error
    found = digest.hexdigest()
    if found != expected:
        message = (
            f"{path} is not the file that was asked for: its sha256 is {found}, not {expected}. Download "
            f"{RELEASED_FILE} again; where you mean other weights of the same shape, say so with --any-weights."
        )
        raise InputError(message)


def _state_dict(path: Path) -> dict[str, Tensor]:
    """Open a state dict without reading the arrays yet."""
    try:
        loaded: object = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give the released {RELEASED_FILE}.") from error
    # Altered bytes make zip and pickle raise a dozen kinds of error, and so does a pickle that holds more than tensors.
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        message = f"{path} is not a file of tensors that torch.save wrote ({first}); give {RELEASED_FILE}."
        raise InputError(message) from error
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(array, Tensor) for name, array in loaded.items()
    ):
        inside = (
            f"with {_some(sorted(map(str, loaded)))}" if isinstance(loaded, dict) else f"of {type(loaded).__name__}"
        )
        message = f"{path} is no state dict but an object {inside}; give the state dict alone, by name and tensor."
        raise InputError(message)
    return loaded


def _visual_part(path: Path, state: Mapping[str, Tensor], config: FetalClipConfig) -> dict[str, Tensor]:
    """Return what belongs to the image tower, after a look at every name and shape.

    Raises:
        InputError: names are missing or too many, or an array has another shape, or holds no finite numbers.
    """
    expected = open_clip_shapes(config)
    strange = [name for name in state if name not in expected and not _TEXT.fullmatch(name)]
    missing = [name for name in expected if name not in state]
    if missing or strange:
        parts = [f"lacks {_some(missing)}"] * bool(missing) + [f"has {_some(strange)} too many"] * bool(strange)
        message = f"{path} does not hold FetalCLIP's image tower: it {' and '.join(parts)}; give {RELEASED_FILE}."
        raise InputError(message)
    for name, shape in expected.items():
        array = state[name]
        if tuple(array.shape) != shape:
            message = (
                f"{name} in {path} is {tuple(array.shape)}, and a tower of this shape has {shape}; give weights of "
                f"the same architecture, {config.layers} blocks of width {config.width}."
            )
            raise InputError(message)
        if not array.is_floating_point() or not bool(torch.isfinite(array).all()):
            raise InputError(f"{name} in {path} does not hold finite numbers; download the file again.")
    return {name: state[name] for name in expected}


def _some(names: list[str]) -> str:
    """Name the first few, and how many more there are."""
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def open_clip_shapes(config: FetalClipConfig) -> dict[str, Shape]:
    """Return name and shape of every array of the image tower in an open_clip state dict."""
    width, hidden = config.width, config.mlp_ratio * config.width
    shapes: dict[str, Shape] = {
        "class_embedding": (width,),
        "positional_embedding": (config.grid**2 + 1, width),
        "proj": (width, config.projection),
        "conv1.weight": (width, 3, config.patch_px, config.patch_px),
        "ln_pre.weight": (width,),
        "ln_pre.bias": (width,),
        "ln_post.weight": (width,),
        "ln_post.bias": (width,),
    }
    block: dict[str, Shape] = {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "mlp.c_fc.weight": (hidden, width),
        "mlp.c_fc.bias": (hidden,),
        "mlp.c_proj.weight": (width, hidden),
        "mlp.c_proj.bias": (width,),
    }
    for number in range(config.layers):
        shapes |= {f"transformer.resblocks.{number}.{name}": shape for name, shape in block.items()}
    return {_VISUAL + name: shape for name, shape in shapes.items()}


def converted(visual: Mapping[str, Tensor], config: FetalClipConfig) -> dict[str, Tensor]:
    """Rename the arrays of `open_clip_shapes` as transformers' CLIP has them.

    Returns:
        A state dict of `fetalclip_tower(config)`; arrays share their memory with what was given.
    """
    left = {name.removeprefix(_VISUAL): array for name, array in visual.items()}
    ours = {
        "vision_model.embeddings.class_embedding": left.pop("class_embedding"),
        "vision_model.embeddings.position_embedding.weight": left.pop("positional_embedding"),
        "vision_model.embeddings.patch_embedding.weight": left.pop("conv1.weight"),
        "visual_projection.weight": left.pop("proj").T,
    }
    for kind in ("weight", "bias"):
        # The missing e is transformers' own.
        ours[f"vision_model.pre_layrnorm.{kind}"] = left.pop(f"ln_pre.{kind}")
        ours[f"vision_model.post_layernorm.{kind}"] = left.pop(f"ln_post.{kind}")
        for number in range(config.layers):
            theirs, here = f"transformer.resblocks.{number}", f"vision_model.encoder.layers.{number}"
            stacked = left.pop(f"{theirs}.attn.in_proj_{kind}").chunk(len(_STACKED))
            ours |= {f"{here}.self_attn.{n}.{kind}": array for n, array in zip(_STACKED, stacked, strict=True)}
            ours |= {f"{here}.{new}.{kind}": left.pop(f"{theirs}.{old}.{kind}") for old, new in _PAIRS}
    assert not left, f"arrays without a place: {sorted(left)}"  # noqa: S101 - `open_clip_shapes` names all of them
    return ours


class FetalClipClassifier(nn.Module):
    """FetalCLIP_CLS: the tower's embedding and one fully connected layer.

    Args:
        encoder: the tower, plain or with adapters (`teachers.lora`).
    """

    def __init__(self, encoder: CLIPVisionModelWithProjection | PeftModel) -> None:
        """Put a random layer behind a tower; the tower is not copied."""
        super().__init__()
        self.colours = GreyToRgb(CLIP)
        self.encoder: nn.Module = encoder
        self.head = nn.Linear(int(encoder.config.projection_dim), 1)

    def forward(self, image: Tensor) -> Tensor:
        """Run the network.

        Args:
            image: shape (N, 1, H, W), prepared by `square_spec`.

        Returns:
            `quality` logit, shape (N, 1): above 0 where a measurable plane is likelier than not.
        """
        embedding = self.encoder(pixel_values=self.colours(image)).image_embeds
        return cast("Tensor", self.head(embedding))
