"""The six baselines: published sizes, the right weights learn, local weights and no others, and graphs that agree."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig

from edgefetal_devices.errors import InputError
from edgefetal_export.onnx import QUALITY, check_parity, onnx_from_network
from edgefetal_export.teachers.grey_input import square_spec
from edgefetal_export.teachers.lora import merge_lora
from edgefetal_export.teachers.multitask_unet import parameter_count
from edgefetal_export.teachers.quality_baselines import SIDES_PX, TABLE, baseline_row, quality_baseline
from edgefetal_runtime.infer.backends import open_backend

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_export.teachers.quality_baselines import Baseline, QualityBaseline

SIDE = SIDES_PX["tiny"]
COUNTS = {
    "densenet121": 6_954_881,
    "efficientnet-b0": 4_008_829,
    "vgg16": 134_264_641,
    # Frozen but for the adapters of 8 on the attention's output, the MLP and the patches, and the last layer.
    "swin-large": 96 * (2 * 192 + 2 * 384 + 18 * 768 + 2 * 1536) + 8 * (3 * 4 * 4 + 192) + 1537,
    "deit3-large": 24 * 98_304 + 8 * (3 * 16 * 16 + 1024) + 1025,
    "clip-vit-large": 24 * 98_304 + 8 * (3 * 14 * 14 + 1024) + 1025,
}
rows = pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
transformers_rows = pytest.mark.parametrize("name", ["swin-large", "deit3-large", "clip-vit-large"])


def _tiny(row: Baseline, weights: Path | None = None, seed: int = 0) -> QualityBaseline:
    torch.manual_seed(seed)
    return quality_baseline(row, scale="tiny", weights=weights)


def _image(count: int = 2) -> Tensor:
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@rows
def test_as_many_weights_train_as_published(row: Baseline) -> None:
    with torch.device("meta"):
        network = quality_baseline(row)
    assert parameter_count(network) == COUNTS[row.name]
    step = 1.0 if row.published_millions > 100 else 0.1
    assert parameter_count(network) / 1e6 == pytest.approx(row.published_millions, abs=step / 2)


def test_the_table_has_every_published_baseline() -> None:
    assert [row.name for row in TABLE] == list(COUNTS)
    assert all(row.differs for row in TABLE)
    assert baseline_row("vgg16") is TABLE[2]
    with pytest.raises(InputError, match="choose one of densenet121, efficientnet-b0"):
        baseline_row("resnet50")


@rows
def test_one_logit_comes_out_and_what_should_learn_learns(row: Baseline) -> None:
    network = _tiny(row)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
            if "lambda1" in name:  # DeiT3's layer scale begins at 1e-6, too small for its gradients to be seen
                weight.fill_(0.5)
    logit = network.eval()(_image())
    assert logit.shape == (2, 1)
    assert (logit[0] - logit[1]).abs() > 1e-7
    logit.square().sum().backward()
    for name, weight in network.named_parameters():
        learns = not row.lora_targets or "lora_" in name or name.startswith("head.")
        assert weight.requires_grad == learns, name
        assert (weight.grad is not None) == learns, name


@rows
def test_the_graph_answers_as_the_network(row: Baseline) -> None:
    network = _tiny(row)
    if row.lora_targets:
        network.encoder = merge_lora(network.encoder)
    exported = onnx_from_network(network.eval(), square_spec(SIDE), QUALITY)
    images = [image[None].numpy() for image in _image(3)]
    backend = open_backend("onnxruntime", exported)
    assert check_parity(network, backend, images, QUALITY) < 1e-4
    assert np.ptp([backend.run(image)["quality"] for image in images]) > 0


def test_deit3_is_what_the_library_computes() -> None:
    """DeiT3 step by step: no position for the class token, and a scale on either way."""
    network = _tiny(baseline_row("deit3-large"))
    encoder = merge_lora(network.encoder).eval()
    state = encoder.state_dict()
    with torch.no_grad():
        for name, array in state.items():
            if "lambda1" in name or name.endswith("bias"):
                array.normal_(0.3, 0.3)
    rgb = torch.randn(2, 3, SIDE, SIDE)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        return nn.functional.layer_norm(x, (16,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    with torch.inference_mode():
        conv = "embeddings.patch_embeddings.projection"
        x = nn.functional.conv2d(rgb, state[f"{conv}.weight"], state[f"{conv}.bias"], stride=14).flatten(2)
        x = x.transpose(1, 2) + state["embeddings.position_embeddings"][:, 1:]
        x = torch.cat([state["embeddings.cls_token"].expand(2, 1, 16), x], dim=1)
        for k in range(2):
            block = next(n for n in state if f".{k}.norm1.weight" in n).removesuffix(".norm1.weight")
            y = norm(x, f"{block}.norm1")
            q, key, v = (
                linear(y, f"{block}.attention.{p}_proj").reshape(2, -1, 2, 8).transpose(1, 2) for p in ("q", "k", "v")
            )
            y = (torch.softmax(q @ key.transpose(2, 3) * 8**-0.5, dim=-1) @ v).transpose(1, 2).reshape(2, -1, 16)
            x = x + state[f"{block}.layer_scale1.lambda1"] * linear(y, f"{block}.attention.o_proj")
            y = nn.functional.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
            x = x + state[f"{block}.layer_scale2.lambda1"] * linear(y, f"{block}.mlp.fc2")
        expected = norm(x, "layernorm")[:, 0]
        assert (encoder(rgb).pooler_output - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "head"), [("densenet121", "class_layers.out"), ("efficientnet-b0", "_fc"), ("vgg16", "head.fc")]
)
def test_weights_of_a_convolutional_network_are_read(tmp_path: Path, name: str, head: str) -> None:
    row = baseline_row(name)
    source = _tiny(row, seed=3)
    path = tmp_path / "model.safetensors"
    body = {key: array.clone() for key, array in source.encoder.state_dict().items()}
    save_file(body | {f"{head}.weight": torch.zeros(1000, 5), f"{head}.bias": torch.zeros(1000)}, path)
    read = _tiny(row, path, seed=4)
    rgb = torch.rand(1, 3, SIDE, SIDE)
    assert torch.equal(read.encoder.eval()(rgb), source.encoder.eval()(rgb))
    assert not torch.equal(_tiny(row, seed=4).encoder.eval()(rgb), source.encoder(rgb))

    first = next(iter(body))
    for spoilt in (
        {key: array for key, array in body.items() if key != first},
        body | {"more": torch.zeros(1)},
        body | {first: torch.zeros(2, 2)},
    ):
        save_file(spoilt, path)
        with pytest.raises(InputError, match="another network") as refusal:
            _tiny(row, path)
        assert str(path) in str(refusal.value)
    path.write_bytes(b"no weights")
    with pytest.raises(InputError, match="not a sound safetensors"):
        _tiny(row, path)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        _tiny(row, path)


@transformers_rows
def test_a_folder_of_transformers_is_read(tmp_path: Path, name: str) -> None:
    row = baseline_row(name)
    folder = tmp_path / "base"
    source = row.build("tiny").network
    source.save_pretrained(folder)
    read = _tiny(row, folder)
    rgb = torch.rand(1, 3, SIDE, SIDE)
    ours = read.encoder.eval()(rgb).pooler_output
    assert (ours - source.eval()(rgb).pooler_output).abs().max() < 1e-5
    assert (ours - row.build("tiny").network.eval()(rgb).pooler_output).abs().max() > 1e-2
    assert parameter_count(read) == parameter_count(_tiny(row))

    weights = folder / "model.safetensors"
    arrays = load_file(weights)
    save_file(dict(list(arrays.items())[1:]), weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"lacks|{type(source).__name__}") as refusal:
        _tiny(row, folder)
    assert str(folder) in str(refusal.value)
    weights.unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        _tiny(row, folder)


def test_the_vision_part_of_a_whole_clip_is_read_with_its_own_activation(tmp_path: Path) -> None:
    row = baseline_row("clip-vit-large")
    vision = row.build("tiny").network.config.to_dict() | {"hidden_act": "quick_gelu"}
    text = CLIPTextConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    whole = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision, projection_dim=8)).eval()
    whole.save_pretrained(tmp_path / "clip")
    read = _tiny(row, tmp_path / "clip").eval()
    rgb = torch.rand(1, 3, SIDE, SIDE)
    assert torch.equal(read.encoder(rgb).pooler_output, whole.vision_model(rgb).pooler_output)


@transformers_rows
def test_another_folder_is_refused(tmp_path: Path, name: str) -> None:
    row = baseline_row(name)
    folder = tmp_path / "base"
    other = baseline_row("swin-large" if name != "swin-large" else "clip-vit-large").build("tiny").network
    other.save_pretrained(folder)
    with pytest.raises(InputError, match=str(folder)):
        _tiny(row, folder)
    row.build("tiny").network.save_pretrained(folder)
    config = folder / "config.json"
    said = json.loads(config.read_text())
    config.write_text(json.dumps(said | {"image_size": 112, "window_size": 3}))
    with pytest.raises(InputError, match=str(folder)):
        _tiny(row, folder)
    config.write_text("{}")
    with pytest.raises(InputError, match=str(folder)):
        _tiny(row, folder)
