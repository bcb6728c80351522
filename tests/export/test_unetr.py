"""FetalCLIP's segmenter: the published decoder, fed from the right blocks, and an encoder that learns."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from edgefetal_devices.errors import InputError
from edgefetal_export.onnx import MASK, check_parity, onnx_from_network
from edgefetal_export.teachers.fetalclip import FetalClipConfig, fetalclip_tower
from edgefetal_export.teachers.grey_input import square_spec
from edgefetal_export.teachers.lora import LoraSettings, add_lora, lora_targets, merge_lora
from edgefetal_export.teachers.multitask_unet import parameter_count
from edgefetal_export.teachers.unetr import FetalClipSegmenter, SegmenterConfig, UnetrDecoder
from edgefetal_runtime.infer.backends import open_backend

TWIN = FetalClipConfig(image_px=112, width=32, layers=2, heads=2, projection=24)
CONFIG = SegmenterConfig(blocks=(1, 1, 2, 2), filters=8)
LORA = LoraSettings(targets=lora_targets(as_published=False))


def _twin(config: SegmenterConfig = CONFIG, *, lora: LoraSettings | None = None) -> FetalClipSegmenter:
    torch.manual_seed(0)
    tower = fetalclip_tower(TWIN)
    tower.requires_grad_(requires_grad=False)
    return FetalClipSegmenter(tower if lora is None else add_lora(tower, lora), config)


@pytest.mark.parametrize(("outputs", "count"), [(1, 1_591_941), (2, 1_591_941 + 33)])
def test_the_decoder_has_the_published_size(outputs: int, count: int) -> None:
    assert parameter_count(UnetrDecoder(1024, outputs, 32)) == count


def test_the_decoder_works_on_one_channel_at_a_time() -> None:
    kinds = [m for m in UnetrDecoder(1024, 1, 32).modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert all(m.groups == m.in_channels for m in kinds if m.kernel_size != (1, 1))
    assert sum(isinstance(m, nn.ConvTranspose2d) for m in kinds) == 3 + 2 + 1 + 4


def test_the_default_blocks_are_those_of_the_published_rule() -> None:
    assert SegmenterConfig().blocks == tuple(24 // n for n in (4, 3, 2, 1))
    with torch.device("meta"):
        network = FetalClipSegmenter(fetalclip_tower(FetalClipConfig()), SegmenterConfig())
        assert network(torch.zeros(1, 1, 224, 224)).shape == (1, 1, 224, 224)
    assert network.map_side == 14


def test_masks_have_the_size_of_the_picture() -> None:
    network = _twin(SegmenterConfig(structures=("optimal", "suboptimal"), blocks=(1, 1, 2, 2), filters=4)).train()
    mask = network(torch.rand(3, 1, 112, 112))
    assert mask.shape == (3, 2, 112, 112)
    assert (mask[:, 0] - mask[:, 1]).abs().max() > 0.1


@torch.inference_mode()
def test_maps_are_the_blocks_outputs_without_the_class_token() -> None:
    network = _twin().eval()
    rgb = torch.randn(2, 3, 112, 112)
    states = network.encoder(pixel_values=rgb, output_hidden_states=True).hidden_states
    assert len(states) == 3  # the embedding, then a block each
    for ours, state in zip(network.maps(rgb), (states[1], states[1], states[2], states[2]), strict=True):
        grid = torch.empty(2, 32, 8, 8)
        for row in range(8):
            for column in range(8):
                grid[:, :, row, column] = state[:, 1 + 8 * row + column]
        # From 8 a side to 7: pixel k of 7 lies at (k + 0.5) * 8 / 7 - 0.5 of 8.
        places = (torch.arange(7) + 0.5) * 8 / 7 - 0.5
        low = places.floor().long()
        share = places - low
        rows = grid[:, :, low] * (1 - share)[:, None] + grid[:, :, low + 1] * share[:, None]
        expected = rows[..., low] * (1 - share) + rows[..., low + 1] * share
        assert (ours - expected).abs().max() < 1e-5


def test_the_picture_reaches_the_mask_past_the_tower() -> None:
    network = _twin().train()
    image = torch.rand(1, 1, 112, 112)
    with torch.no_grad():
        before = network(image)
        network.decoder.picture[0][0].weight.zero_()
        assert (network(image) - before).abs().max() > 0.1


def test_the_encoder_learns_where_adapters_are_on() -> None:
    network = _twin(lora=LORA)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
    network(torch.rand(2, 1, 112, 112)).square().mean().backward()
    adapters = {name: p for name, p in network.named_parameters() if "lora_" in name}
    assert len(adapters) == 2 * 2 * 6
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in adapters.values())
    base = [p for name, p in network.encoder.named_parameters() if "lora_" not in name]
    assert base
    assert all(p.grad is None for p in base)


def test_as_published_the_encoder_stays_as_it_is() -> None:
    network = _twin()
    network(torch.rand(2, 1, 112, 112)).square().mean().backward()
    assert all(p.grad is None for p in network.encoder.parameters())
    assert all(p.grad is not None for p in network.decoder.parameters())
    assert parameter_count(network) == parameter_count(network.decoder)


@pytest.mark.parametrize("blocks", [(1, 1, 2, 3), (2, 1, 2, 2)])
def test_blocks_that_cannot_be_read_are_refused(blocks: tuple[int, int, int, int]) -> None:
    with pytest.raises(InputError, match=re.escape(str(blocks))):
        _twin(SegmenterConfig(blocks=blocks, filters=4))


def test_a_picture_that_cannot_be_doubled_to_is_refused() -> None:
    tower = fetalclip_tower(TWIN.model_copy(update={"image_px": 98}))
    with pytest.raises(InputError, match="98 pixels"):
        FetalClipSegmenter(tower, CONFIG)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        SegmenterConfig(blocks=(0, 1, 2, 2))


def test_the_graph_answers_as_the_adapted_network() -> None:
    network = _twin(lora=LORA)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the statistics of what was seen, so that the signal comes through
        network.train()(torch.rand(4, 1, 112, 112))
    image = torch.rand(1, 1, 112, 112)
    adapted = network.eval()(image).detach().numpy()
    network.encoder = merge_lora(network.encoder)
    exported = onnx_from_network(network.eval(), square_spec(112), MASK)
    model = onnx.load_from_string(exported)
    onnx.checker.check_model(model, full_check=True)
    assert [o.name for o in model.graph.output] == ["mask"]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    backend = open_backend("onnxruntime", exported)
    rng = np.random.default_rng(1)
    images = [rng.random((1, 1, 112, 112), np.float32) for _ in range(3)]
    assert check_parity(network, backend, images, MASK) < 1e-4
    assert np.abs(backend.run(image.numpy())["mask"] - adapted).max() < 1e-4
    assert np.ptp(adapted) > 0.1
