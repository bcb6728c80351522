"""Low-rank adapters (LoRA) through peft: put on, saved, loaded and merged.

Settings are those of FetalCLIP-IQA: rank 8, alpha 16, dropout 0.1, no bias. There the adapters on the attention's
`out_proj` never learn: open_clip's attention is torch's `nn.MultiheadAttention`, which takes that layer's weight and
never calls the layer, so what hangs on it is never computed. Of 2,359,296 weights 393,216 are dead, and the rest, the
MLP's, is what the published figures come from.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import peft
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from edgefetal_devices.errors import CheckFailedError, InputError
from edgefetal_runtime.atomic import write_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft import PeftModel
    from torch import Tensor

CONFIG_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"

_MLP: Final = ("fc1", "fc2")
_ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "out_proj")
# What an adapter's file may say differently without being another computation.
_FREE: Final = frozenset(
    {"r", "lora_alpha", "lora_dropout", "target_modules", "base_model_name_or_path", "auto_mapping", "inference_mode",
     "init_lora_weights", "peft_version", "revision", "task_type"}
)  # fmt: skip


class LoraSettings(BaseModel):
    """What is adapted, and how.

    Args:
        targets: last parts of the names of the layers.
        rank: of the product that is added to a layer's weight.
        alpha: the product is scaled by `alpha / rank`.
        dropout: share of an adapter's inputs that is dropped in training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    targets: tuple[str, ...]
    rank: PositiveInt = 8
    alpha: PositiveInt = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


def lora_targets(*, as_published: bool) -> tuple[str, ...]:
    """Return the layers of FetalCLIP's tower that are adapted.

    Args:
        as_published: only the MLP. The published adapters on `out_proj` are inert (see the module), but transformers
            does call that layer, so naming it here would train what never trained there; leaving it out is what gives
            the published network. Otherwise attention (query, key, value, output) and MLP, where every weight learns.
    """
    return _MLP if as_published else (*_ATTENTION, *_MLP)


def add_lora(encoder: nn.Module, settings: LoraSettings) -> PeftModel:
    """Freeze a network and put adapters on it; at first they add nothing.

    Args:
        encoder: changed in place; without adapters yet.
        settings: what is adapted.

    Returns:
        peft's wrapper around it, called as the network is.

    Raises:
        InputError: a target is the name of no layer.
    """
    names = [name for name, _ in encoder.named_modules()]
    for target in settings.targets:
        if not any(f".{name}".endswith(f".{target}") for name in names):
            raise InputError(f"The network has no layer {target!r} to adapt; choose LoRA targets that it has.")
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 by an old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        # peft asks for a transformers model and takes any module.
        made = peft.get_peft_model(cast("Any", encoder), _peft_config(settings))
    model = cast("PeftModel", made)
    # Where the base came from is a path on this machine; for None, peft would write it after all.
    model.peft_config["default"].base_model_name_or_path = ""
    return model


def _peft_config(settings: LoraSettings) -> peft.LoraConfig:
    return peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        bias="none",
        target_modules=list(settings.targets),
    )


def merge_lora(model: PeftModel) -> nn.Module:
    """Add the adapters to the weights that they adapt.

    Args:
        model: of `add_lora`; taken apart.

    Returns:
        The plain network, frozen, without a trace of peft, as export wants it.

    Raises:
        CheckFailedError: an adapter holds no finite numbers.
    """
    try:
        plain = cast("nn.Module", cast("Any", model).merge_and_unload(safe_merge=True))
    except ValueError as error:
        raise CheckFailedError(f"The adapters cannot be merged ({error}); train them again.") from error
    return plain.requires_grad_(requires_grad=False)


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapters as peft does, as safetensors and never as a pickle.

    Args:
        model: of `add_lora`.
        folder: made here.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary, safe_serialization=True, save_embedding_layers=False)
        # peft writes an empty model card beside them.
        files = {name: (Path(temporary) / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)}
    write_folder(folder, files)


def load_adapter(encoder: nn.Module, folder: Path) -> PeftModel:
    """Put saved adapters on the network that they were made for.

    Args:
        encoder: as it was before they were trained; changed in place.
        folder: of `save_adapter`, or of peft's `save_pretrained`.

    Returns:
        As `add_lora`, in evaluation mode.

    Raises:
        InputError: a file is missing or damaged, asks for more than plain LoRA, or was made for another base.
    """
    settings, weights = _read_settings(folder / CONFIG_FILE), _read_weights(folder / WEIGHTS_FILE)
    try:
        model = add_lora(encoder, settings)
    except InputError as error:
        raise InputError(f"{folder / CONFIG_FILE} was made for another base: {error}") from error
    expected = {name: tuple(array.shape) for name, array in peft.get_peft_model_state_dict(model).items()}
    found = {name: tuple(array.shape) for name, array in weights.items()}
    if found != expected:
        cast("Any", model).unload()
        name = next(n for n in sorted(found.keys() | expected.keys()) if found.get(n) != expected.get(n))
        message = (
            f"{folder / WEIGHTS_FILE} was made for another base: {name} is {found.get(name, 'missing')}, and on this "
            f"network {expected.get(name, 'has no place')}; give the weights that the adapter was trained on."
        )
        raise InputError(message)
    peft.set_peft_model_state_dict(model, weights)
    return model.eval()


def _read_settings(path: Path) -> LoraSettings:
    try:
        said = json.loads(path.read_bytes())
        settings = LoraSettings(
            targets=tuple(sorted(said["target_modules"])),
            rank=said["r"],
            alpha=said["lora_alpha"],
            dropout=said["lora_dropout"],
        )
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a folder that peft wrote.") from error
    # A JSON value of another kind makes any of these.
    except (ValueError, TypeError, KeyError, ValidationError) as error:
        raise InputError(f"{path} does not describe plain LoRA adapters; give a folder that peft wrote.") from error
    plain = json.loads(json.dumps(cast("Any", _peft_config(settings)).to_dict(), default=sorted))
    # An option that this version of peft does not know is one whose meaning nobody checks.
    other = sorted(name for name in said.keys() - _FREE if said[name] != plain.get(name))
    if other:
        message = f"{path} asks for {', '.join(other)}, which is more than plain LoRA; train with r, alpha and dropout."
        raise InputError(message)
    return settings


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        weights = load_file(path)
    except OSError as error:
        reason = error.strerror or "not found"
        raise InputError(f"{path} cannot be read ({reason}); save the adapter as safetensors.") from error
    except SafetensorError as error:
        raise InputError(f"{path} is not a sound safetensors file ({error}); copy it again.") from error
    if not all(array.is_floating_point() and bool(torch.isfinite(array).all()) for array in weights.values()):
        raise InputError(f"{path} does not hold finite numbers; copy it again or train anew.")
    return weights


def trainable_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return what training changes, by name: all that a checkpoint needs beside the frozen base.

    These are the parameters that take gradients, and the buffers of the modules that own them, such as the statistics
    of batch normalisation. Arrays share their memory with the network.
    """
    kept: dict[str, Tensor] = {}
    for prefix, module in network.named_modules():
        own = {name: p for name, p in module.named_parameters(recurse=False) if p.requires_grad}
        if own:
            state = own | dict(module.named_buffers(recurse=False))
            kept |= {f"{prefix}.{name}".removeprefix("."): array.detach() for name, array in state.items()}
    return kept


@torch.no_grad()
def load_trainable_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put back what `trainable_weights` returned of a network of the same make.

    Raises:
        InputError: names or shapes are others.
    """
    own = trainable_weights(network)
    wrong = sorted(
        name
        for name in own.keys() | weights.keys()
        if name not in own or name not in weights or own[name].shape != weights[name].shape
    )
    if wrong:
        message = f"The weights are of another network ({wrong[0]} differs); give those of the same recipe."
        raise InputError(message)
    for name, array in own.items():
        array.copy_(weights[name])
