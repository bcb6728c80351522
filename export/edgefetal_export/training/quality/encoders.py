"""What stands in front of a quality head: which network, how much of it trains, and where its weights came from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgefetal_devices.errors import InputError
from edgefetal_export.teachers.fetalclip import (
    RELEASED_SHA256,
    FetalClipClassifier,
    FetalClipConfig,
    fetalclip_tower,
    read_fetalclip,
)
from edgefetal_export.teachers.lora import LoraSettings, add_lora
from edgefetal_export.teachers.quality_baselines import (
    SIDES_PX,
    QualityBaseline,
    Scale,
    baseline_row,
    quality_baseline,
)

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftModel
    from torch import nn
    from transformers import CLIPVisionModelWithProjection
    from transformers.modeling_utils import PreTrainedModel
    from typing_extensions import Self

_BLOCK: Final = 2**22
_PRETRAINED_WEIGHTS: Final = "model.safetensors"

Trains = Literal["adapters", "whole", "nothing"]


class Provenance(BaseModel):
    """Where the weights came from that training began with.

    Args:
        origin: `released` is the published file, `given` another one of the same shape, `random` none at all: nothing
            was pretrained.
        sha256: of the file, where there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: Literal["released", "given", "random"]
    sha256: str | None = None

    @model_validator(mode="after")
    def _belongs(self) -> Self:
        if (self.origin == "random") is not (self.sha256 is None):
            raise ValueError("weights from a file have a sha256, and random ones have none")
        return self

    def sentence(self) -> str:
        """Say it plainly."""
        return {
            "released": "It began with the released weights of FetalCLIP.",
            "given": f"It began with weights of sha256 {self.sha256}, which are not FetalCLIP's released ones.",
            "random": "It began with RANDOM weights: nothing was pretrained, and its figures say nothing of networks "
            "that were.",
        }[self.origin]


class TowerEncoder(BaseModel):
    """FetalCLIP's image tower.

    Args:
        kind: which encoder this is.
        config: its shape.
        trains: adapters only, the whole tower, or nothing of it.
        lora: the adapters, where these train.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["fetalclip"] = "fetalclip"
    config: FetalClipConfig
    trains: Trains
    lora: LoraSettings | None

    @model_validator(mode="after")
    def _belongs(self) -> Self:
        if (self.trains == "adapters") is not (self.lora is not None):
            raise ValueError("adapters have settings, and nothing else has")
        return self


class BaselineEncoder(BaseModel):
    """One of the six published baselines; what of it trains stands in their table.

    Args:
        kind: which encoder this is.
        name: of the baseline.
        scale: `tiny` for trials.
        config: transformers' configuration of given weights, which may say more than the table does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["baseline"] = "baseline"
    name: str
    scale: Scale
    config: dict[str, Any] | None = None


Encoder = Annotated[TowerEncoder | BaselineEncoder, Field(discriminator="kind")]


def side_px(encoder: TowerEncoder | BaselineEncoder) -> int:
    """Return the side of the square that a network takes."""
    return encoder.config.image_px if isinstance(encoder, TowerEncoder) else SIDES_PX[encoder.scale]


def provenance_of(weights: Path | None, *, released: bool) -> Provenance:
    """Say where weights come from.

    Args:
        weights: a file, or transformers' folder, or None for random ones.
        released: whether it must be FetalCLIP's released file, whose hash is then known.

    Raises:
        InputError: the file cannot be read.
    """
    if weights is None:
        return Provenance(origin="random")
    if released:
        return Provenance(origin="released", sha256=RELEASED_SHA256)
    digest = _sha256(weights / _PRETRAINED_WEIGHTS if weights.is_dir() else weights)
    return Provenance(origin="released" if digest == RELEASED_SHA256 else "given", sha256=digest)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a file of weights.") from error
    return digest.hexdigest()


def build_tower(
    encoder: TowerEncoder, weights: Path | None, provenance: Provenance
) -> CLIPVisionModelWithProjection | PeftModel:
    """Build the tower as it trains.

    Args:
        encoder: which.
        weights: the file that it begins with, or None: random, or to be filled from a run.
        provenance: whose hash the file must have.

    Raises:
        InputError: the file is another one, or not of that shape.
    """
    if weights is None:
        tower = fetalclip_tower(encoder.config)
    else:
        tower = read_fetalclip(weights, encoder.config, expected_sha256=provenance.sha256)
    tower.requires_grad_(requires_grad=encoder.trains == "whole")
    return tower if encoder.lora is None else add_lora(tower, encoder.lora)


def build_classifier(
    encoder: TowerEncoder | BaselineEncoder, weights: Path | None, provenance: Provenance
) -> FetalClipClassifier | QualityBaseline:
    """Build a quality classifier; its last layer is random.

    Args:
        encoder: which.
        weights: what it begins with, or None: random, or to be filled from a run.
        provenance: whose hash the file must have.

    Raises:
        InputError: the weights cannot be read, or are of another network.
    """
    if isinstance(encoder, TowerEncoder):
        return FetalClipClassifier(build_tower(encoder, weights, provenance))
    row = baseline_row(encoder.name)
    if weights is not None or encoder.config is None:
        return quality_baseline(row, scale=encoder.scale, weights=weights)
    built = row.build(encoder.scale)
    plain = cast("PreTrainedModel", built.network)
    network = type(plain)(type(plain.config).from_dict(dict(encoder.config)))
    return QualityBaseline(row.colours, add_lora(network, LoraSettings(targets=row.lora_targets)), built.width)


def pretrained_config(encoder: BaselineEncoder, weights: Path | None) -> dict[str, Any] | None:
    """Return transformers' configuration of given weights, without which a run's network could not be built again.

    Raises:
        InputError: the weights cannot be read, or are of another network.
    """
    if weights is None or not weights.is_dir():
        return None
    network: nn.Module = quality_baseline(baseline_row(encoder.name), scale=encoder.scale, weights=weights).encoder
    return cast("dict[str, Any]", cast("Any", network).config.to_diff_dict())
