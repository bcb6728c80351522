"""Adapters: the right layers learn, files are peft's and safe, and nothing is left of them after merging."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgefetal_devices.errors import CheckFailedError, InputError, OutputError
from edgefetal_export.teachers.fetalclip import FetalClipClassifier, FetalClipConfig, fetalclip_tower
from edgefetal_export.teachers.lora import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    LoraSettings,
    add_lora,
    load_adapter,
    load_trainable_weights,
    lora_targets,
    merge_lora,
    save_adapter,
    trainable_weights,
)
from edgefetal_export.teachers.multitask_unet import parameter_count

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peft import PeftModel
    from transformers import CLIPVisionModelWithProjection

TWIN = FetalClipConfig(image_px=112, width=32, layers=2, heads=2, projection=24)
OURS = LoraSettings(targets=lora_targets(as_published=False))
PUBLISHED = LoraSettings(targets=lora_targets(as_published=True))


def _tower(config: FetalClipConfig = TWIN, seed: int = 0) -> CLIPVisionModelWithProjection:
    torch.manual_seed(seed)
    return fetalclip_tower(config)


def _trained(settings: LoraSettings = OURS, seed: int = 0) -> PeftModel:
    """Adapters that add something."""
    model = add_lora(_tower(seed=seed), settings).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1, generator=generator)
    return model


def _embeddings(model: nn.Module) -> Tensor:
    rgb = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        embeddings: Tensor = model(pixel_values=rgb).image_embeds
    return embeddings


@pytest.mark.parametrize(
    ("as_published", "count"),
    # Published are 2,359,296, of which the 393,216 on `out_proj` are dead.
    [(True, 2_359_296 - 393_216), (False, 24 * 8 * (4 * 2 * 1024 + 2 * 5 * 1024))],
)
def test_adapters_of_the_whole_tower_are_counted(as_published: bool, count: int) -> None:  # noqa: FBT001
    with torch.device("meta"):
        model = add_lora(
            fetalclip_tower(FetalClipConfig()), LoraSettings(targets=lora_targets(as_published=as_published))
        )
    assert parameter_count(model) == count
    assert count in {1_966_080, 3_538_944}


def test_the_published_out_proj_adapters_are_inert() -> None:
    """In open_clip's kind of block, torch's attention, peft's adapters on `out_proj` change and learn nothing."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.MultiheadAttention(16, 2, batch_first=True)
            self.c_fc = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            mixed: Tensor = self.c_fc(self.attn(x, x, x, need_weights=False)[0])
            return mixed

    model = add_lora(Block(), LoraSettings(targets=("out_proj", "c_fc"), dropout=0.0))
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "out_proj.lora" in name:
                weight.fill_(1.0)
    model(x).sum().backward()
    learned = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    assert {name.split(".")[2] for name in learned} == {"c_fc"}
    dead = sum(p.numel() for name, p in model.named_parameters() if p.requires_grad and name not in learned)
    assert dead == 2 * 8 * 16


@pytest.mark.parametrize("settings", [OURS, PUBLISHED])
def test_every_adapter_learns(settings: LoraSettings) -> None:
    """B starts at zero, so A's gradient is zero at the first step and must not be at the second."""
    network = FetalClipClassifier(add_lora(_tower(), settings))
    image = torch.rand(2, 1, 112, 112, generator=torch.Generator().manual_seed(4))
    adapters = {name: p for name, p in network.named_parameters() if p.requires_grad and "lora_" in name}
    assert len(adapters) == 2 * TWIN.layers * len(settings.targets)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    sizes: list[dict[str, float]] = []
    for _ in range(2):
        optimiser.zero_grad()
        network(image).square().sum().backward()
        sizes.append({name: float(p.grad.abs().max()) for name, p in adapters.items() if p.grad is not None})
        optimiser.step()
    assert {name for name, size in sizes[0].items() if size > 0} == {name for name in adapters if "lora_B" in name}
    assert {name for name, size in sizes[1].items() if size > 0} == set(adapters)
    base = [p for name, p in network.encoder.named_parameters() if "lora_" not in name]
    assert len(base) == 40
    assert all(p.grad is None and not p.requires_grad for p in base)


def test_fresh_adapters_change_nothing() -> None:
    before = _embeddings(_tower().eval())
    assert torch.equal(_embeddings(add_lora(_tower(), OURS).eval()), before)


def test_merging_gives_the_plain_tower() -> None:
    plain = _tower().eval()
    model = _trained()
    adapted = _embeddings(model)
    assert (adapted - _embeddings(plain)).abs().max() > 1e-2
    merged = merge_lora(model)
    assert type(merged) is type(plain)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert (_embeddings(merged) - adapted).abs().max() < 1e-5
    assert not any(p.requires_grad for p in merged.parameters())


def test_adapters_of_no_number_are_not_merged() -> None:
    model = _trained()
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name).fill_(torch.nan)
    with pytest.raises(CheckFailedError, match="train them again"):
        merge_lora(model)


def test_a_target_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no layer 'c_fc'"):
        add_lora(_tower(), LoraSettings(targets=("fc1", "c_fc")))


def test_a_saved_adapter_comes_back(tmp_path: Path) -> None:
    model = _trained()
    folder = tmp_path / "adapter"
    save_adapter(model, folder)
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    again = load_adapter(_tower(), folder)
    assert torch.equal(_embeddings(again), _embeddings(model))
    assert not again.training
    assert parameter_count(again) == parameter_count(model)
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):
        theirs = peft.PeftModel.from_pretrained(_tower(), str(folder)).eval()
    assert torch.equal(_embeddings(theirs), _embeddings(model))
    with pytest.raises(OutputError, match="exists"):
        save_adapter(model, folder)


def test_an_adapter_tells_nothing_of_the_machine(tmp_path: Path) -> None:
    tower = _tower()
    tower.save_pretrained(tmp_path / "base")
    read = type(tower).from_pretrained(tmp_path / "base", local_files_only=True)
    save_adapter(add_lora(read, OURS), tmp_path / "adapter")
    assert str(tmp_path) not in (tmp_path / "adapter" / CONFIG_FILE).read_text()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"width": 48}, "was made for another base"),
        ({"layers": 1}, "has no place"),
        ({"layers": 3}, "is missing"),
        ({"mlp_ratio": 2}, "was made for another base"),
    ],
)
def test_an_adapter_for_another_base_is_refused(tmp_path: Path, change: dict[str, int], says: str) -> None:
    folder = tmp_path / "adapter"
    save_adapter(_trained(), folder)
    tower = _tower(TWIN.model_copy(update=change))
    names = set(tower.state_dict())
    with pytest.raises(InputError, match=says) as refusal:
        load_adapter(tower, folder)
    assert str(folder / WEIGHTS_FILE) in str(refusal.value)
    assert set(tower.state_dict()) == names
    with pytest.raises(InputError, match="no layer") as refusal:
        load_adapter(nn.Sequential(nn.Linear(3, 3)), folder)
    assert str(folder / CONFIG_FILE) in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"alpha_pattern": {"fc1": 3}}, "alpha_pattern"),
        ({"modules_to_save": ["fc1"]}, "modules_to_save"),
        ({"peft_type": "LOHA"}, "peft_type"),
        ({"not_yet_invented": 1}, "not_yet_invented"),
        ({"r": 0}, "does not describe"),
        ({"lora_dropout": 2}, "does not describe"),
        ({"target_modules": None}, "does not describe"),
    ],
)
def test_more_than_plain_lora_is_refused(tmp_path: Path, change: dict[str, object], says: str) -> None:
    folder = tmp_path / "adapter"
    save_adapter(_trained(), folder)
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=says) as refusal:
        load_adapter(_tower(), folder)
    assert str(path) in str(refusal.value)


def _poisoned(path: Path) -> None:
    weights = load_file(path)
    save_file({name: torch.full_like(array, torch.nan) for name, array in weights.items()}, path)


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        (CONFIG_FILE, lambda path: path.unlink(), "cannot be read"),
        (CONFIG_FILE, lambda path: path.write_text("[]"), "does not describe"),
        (CONFIG_FILE, lambda path: path.write_bytes(b"\xff{"), "does not describe"),
        (WEIGHTS_FILE, lambda path: path.unlink(), "cannot be read"),
        (
            WEIGHTS_FILE,
            lambda path: path.rename(path.with_name("adapter_model.bin")),
            "save the adapter as safetensors",
        ),
        (WEIGHTS_FILE, lambda path: path.write_bytes(path.read_bytes()[:200]), "not a sound safetensors"),
        (WEIGHTS_FILE, _poisoned, "finite"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, spoil: Callable[[Path], Any], says: str) -> None:
    folder = tmp_path / "adapter"
    save_adapter(_trained(), folder)
    spoil(folder / name)
    with pytest.raises(InputError, match=re.escape(says)) as refusal:
        load_adapter(_tower(), folder)
    assert str(folder / name) in str(refusal.value)


def test_a_checkpoint_holds_what_learns_and_no_more() -> None:
    class Network(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.encoder = _trained(seed=seed)
            self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
            self.frozen = nn.BatchNorm2d(3).requires_grad_(requires_grad=False)

    network = Network(0)
    with torch.no_grad():
        network.body(torch.rand(4, 1, 8, 8))
    kept = {name: array.clone() for name, array in trainable_weights(network).items()}
    others = {name.split(".")[0] for name in kept}
    assert others == {"encoder", "body"}
    assert sum("lora_" in name for name in kept) == 2 * TWIN.layers * len(OURS.targets)
    assert {name for name in kept if name.startswith("body")} == {
        f"body.{n}" for n in ("0.weight", "0.bias", "1.weight", "1.bias")
    } | {f"body.1.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")}
    other = Network(5)
    load_trainable_weights(other, kept)
    assert all(torch.equal(array, kept[name]) for name, array in trainable_weights(other).items())
    with pytest.raises(InputError, match="another network"):
        load_trainable_weights(other, {name: array for name, array in kept.items() if name != "body.0.bias"})
    with pytest.raises(InputError, match="another network"):
        load_trainable_weights(other, kept | {"body.0.bias": torch.zeros(3)})
