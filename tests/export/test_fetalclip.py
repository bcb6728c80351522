"""FetalCLIP's image tower: every array of the release in its place, other files refused, one answer in every form."""

from __future__ import annotations

import hashlib
import pickle
import re
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers.activations import QuickGELUActivation

from edgefetal_devices.errors import InputError
from edgefetal_export.onnx import QUALITY, check_parity, onnx_from_network
from edgefetal_export.teachers.fetalclip import (
    RELEASED_SHA256,
    FetalClipClassifier,
    FetalClipConfig,
    converted,
    fetalclip_tower,
    open_clip_shapes,
    read_fetalclip,
)
from edgefetal_export.teachers.grey_input import square_spec
from edgefetal_export.teachers.lora import LoraSettings, add_lora, lora_targets, merge_lora
from edgefetal_runtime.infer.backends import open_backend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    State = dict[str, Tensor]

TWIN = FetalClipConfig(image_px=112, width=32, layers=2, heads=2, projection=24)


def _shapes(image: int, patch: int, width: int, layers: int, projection: int) -> dict[str, tuple[int, ...]]:
    """The image tower's arrays in open_clip, written down here a second time."""
    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": ((image // patch) ** 2 + 1, width),
        "visual.proj": (width, projection),
        "visual.conv1.weight": (width, 3, patch, patch),
    }
    for norm in ("ln_pre", "ln_post"):
        shapes |= {f"visual.{norm}.weight": (width,), f"visual.{norm}.bias": (width,)}
    for n in range(layers):
        block = f"visual.transformer.resblocks.{n}"
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        for layer, out, into in (
            ("attn.out_proj", width, width),
            ("mlp.c_fc", 4 * width, width),
            ("mlp.c_proj", width, 4 * width),
        ):
            shapes |= {f"{block}.{layer}.weight": (out, into), f"{block}.{layer}.bias": (out,)}
    return shapes


def _text_tower(width: int = 8, layers: int = 2) -> State:
    """A text tower's arrays; only their names matter."""
    names = ["positional_embedding", "text_projection", "token_embedding.weight", "ln_final.weight", "ln_final.bias"]
    parts = ("ln_1.weight", "ln_1.bias", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight",
             "attn.out_proj.bias", "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias",
             "mlp.c_proj.weight", "mlp.c_proj.bias")  # fmt: skip
    names += [f"transformer.resblocks.{n}.{part}" for n in range(layers) for part in parts]
    return {"logit_scale": torch.tensor(4.6)} | {name: torch.zeros(width) for name in names}


def _random(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        array = torch.randn(shape, generator=generator)
        if ".ln_" in name and name.endswith("weight"):
            return 1 + 0.2 * array
        if len(shape) == 1:
            return 0.2 * array
        fan_in = shape[0] if name.endswith(".proj") else int(np.prod(shape[1:]))
        return array * (0.2 if "embedding" in name else fan_in**-0.5)

    return {name: draw(name, shape) for name, shape in shapes.items()}


def _twin_state(seed: int = 0) -> State:
    return _random(_shapes(112, 14, 32, 2, 24), seed) | _text_tower()


def _written(folder: Path, state: object) -> Path:
    path = folder / "weights.pt"
    torch.save(state, path)
    return path


@torch.inference_mode()
def _plain_tower(state: State, rgb: Tensor, heads: int, layers: int) -> Tensor:
    """open_clip's image tower, step by step, with torch's own attention."""

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"visual.{name}.weight"], state[f"visual.{name}.bias"]
        centred = x - x.mean(-1, keepdim=True)
        return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5) * weight + bias

    kernels = state["visual.conv1.weight"]
    width, _, patch, _ = kernels.shape
    n, _, height, _ = rgb.shape
    grid = height // patch
    patches = rgb.reshape(n, 3, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5).reshape(n, grid * grid, -1)
    x = patches @ kernels.reshape(width, -1).T
    x = torch.cat([state["visual.class_embedding"].expand(n, 1, width), x], dim=1)
    x = norm(x + state["visual.positional_embedding"], "ln_pre")
    for k in range(layers):
        block = f"transformer.resblocks.{k}"
        mine = {name.removeprefix(f"visual.{block}."): array for name, array in state.items()}
        attention = torch.nn.MultiheadAttention(width, heads, batch_first=True).eval()
        attention.load_state_dict(
            {name.removeprefix("attn."): array for name, array in mine.items() if name.startswith("attn.")}
        )
        y = norm(x, f"{block}.ln_1")
        x = x + attention(y, y, y, need_weights=False)[0]
        y = norm(x, f"{block}.ln_2") @ mine["mlp.c_fc.weight"].T + mine["mlp.c_fc.bias"]
        y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
        x = x + y @ mine["mlp.c_proj.weight"].T + mine["mlp.c_proj.bias"]
    return norm(x[:, 0], "ln_post") @ state["visual.proj"]


def test_a_twin_agrees_with_a_plain_one(tmp_path: Path) -> None:
    state = _twin_state()
    tower = read_fetalclip(_written(tmp_path, state), TWIN, expected_sha256=None)
    rgb = torch.randn(3, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = tower(pixel_values=rgb).image_embeds
    expected = _plain_tower(state, rgb, TWIN.heads, TWIN.layers)
    assert ours.shape == (3, 24)
    assert expected.std() > 0.3
    assert (ours - expected).abs().max() < 1e-5
    assert not tower.training
    assert not any(p.requires_grad for p in tower.parameters())


def test_the_agreement_would_notice_another_activation(tmp_path: Path) -> None:
    state = _twin_state()
    tower = read_fetalclip(_written(tmp_path, state), TWIN, expected_sha256=None)
    for layer in tower.vision_model.encoder.layers:
        layer.mlp.activation_fn = QuickGELUActivation()
    rgb = torch.randn(1, 3, 112, 112)
    with torch.inference_mode():
        other = tower(pixel_values=rgb).image_embeds
    assert (other - _plain_tower(state, rgb, TWIN.heads, TWIN.layers)).abs().max() > 1e-3


def test_every_array_of_the_release_has_one_place() -> None:
    """Names and shapes of the whole release, without its numbers."""
    released = _shapes(224, 14, 1024, 24, 768)
    assert open_clip_shapes(FetalClipConfig()) == released
    assert len(released) == 296
    assert sum(int(np.prod(shape)) for shape in released.values()) == 303_966_208
    with torch.device("meta"):
        tower = fetalclip_tower(FetalClipConfig())
        state = {name: torch.empty(shape) for name, shape in released.items()}
    ours = {name: array.shape for name, array in converted(state, FetalClipConfig()).items()}
    assert ours == {name: array.shape for name, array in tower.state_dict().items()}


def test_every_number_is_used_once(tmp_path: Path) -> None:
    state = {name: torch.zeros_like(array) for name, array in _twin_state().items()}
    visual = [name for name in state if name.startswith("visual.")]
    for k, name in enumerate(visual):
        state[name].fill_(k + 1)
    tower = read_fetalclip(_written(tmp_path, state), TWIN, expected_sha256=None)
    found = sum(float(p.double().sum()) for p in tower.parameters())
    assert found == sum((k + 1) * state[name].numel() for k, name in enumerate(visual))


def test_weights_of_half_precision_become_float32(tmp_path: Path) -> None:
    state = {name: array.half() for name, array in _twin_state().items()}
    tower = read_fetalclip(_written(tmp_path, state), TWIN, expected_sha256=None)
    assert {p.dtype for p in tower.parameters()} == {torch.float32}


def test_the_hash_is_checked_before_the_file_is_opened(tmp_path: Path) -> None:
    path = _written(tmp_path, _twin_state())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_fetalclip(path, TWIN, expected_sha256=sha256).config.hidden_size == 32
    path.write_bytes(b"no pickle at all")
    with pytest.raises(InputError, match="--any-weights") as refusal:
        read_fetalclip(path)
    assert str(path) in str(refusal.value)
    assert RELEASED_SHA256 in str(refusal.value)


def _without(name: str) -> Callable[[State], object]:
    return lambda state: {key: array for key, array in state.items() if key != name}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_without("visual.proj"), "lacks visual.proj;"),
        (lambda s: {k: v for k, v in s.items() if "resblocks.1" not in k}, "and 9 more"),
        (lambda s: s | {"visual.ln_mid.weight": torch.zeros(3)}, "has visual.ln_mid.weight too many"),
        (lambda s: s | {"epoch": torch.zeros(1)}, "has epoch too many"),
        (lambda s: s | {"visual.transformer.resblocks.2.ln_1.bias": torch.zeros(32)}, "resblocks.2.ln_1.bias too many"),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, "lacks visual.class_embedding"),
        (lambda s: s | {"visual.proj": s["visual.proj"].T.contiguous()}, "visual.proj in"),
        (lambda s: s | {"visual.ln_pre.bias": torch.full((32,), torch.nan)}, "finite"),
        (lambda s: s | {"visual.ln_pre.bias": torch.zeros(32, dtype=torch.int64)}, "finite"),
        (lambda s: {"epoch": 3, "state_dict": s}, "no state dict but an object with epoch, state_dict"),
        (lambda s: list(s.values()), "no state dict but an object of list"),
        (lambda s: s["visual.proj"], "no state dict but an object of Tensor"),
    ],
)
def test_other_state_dicts_are_refused(tmp_path: Path, spoil: Callable[[State], object], says: str) -> None:
    path = _written(tmp_path, spoil(_twin_state()))
    with pytest.raises(InputError, match=re.escape(says)) as refusal:
        read_fetalclip(path, TWIN, expected_sha256=None)
    assert str(path) in str(refusal.value)


class _Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("the file's own code ran",))


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.pt"
    for missing in (path, tmp_path):
        for sha256 in (None, RELEASED_SHA256):
            with pytest.raises(InputError, match="cannot be read"):
                read_fetalclip(missing, TWIN, expected_sha256=sha256)
    _written(tmp_path, _twin_state())
    whole = path.read_bytes()
    trap = _written(tmp_path, {"visual.proj": _Trap()}).read_bytes()
    old = tmp_path / "old.pt"
    torch.save(_twin_state(), old, _use_new_zipfile_serialization=False)
    for content in (b"", b"text", whole[: len(whole) // 2], pickle.dumps(_Trap()), trap, old.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a file of tensors") as refusal:
            read_fetalclip(path, TWIN, expected_sha256=None)
        assert str(path) in str(refusal.value)
    assert "own code" not in capsys.readouterr().out


def test_a_shape_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of patch_px"):
        FetalClipConfig(image_px=100)
    with pytest.raises(ValidationError, match="one of heads"):
        FetalClipConfig(heads=7)


def _twin_classifier(seed: int = 0) -> FetalClipClassifier:
    tower = fetalclip_tower(TWIN)
    tower.load_state_dict(converted(_random(open_clip_shapes(TWIN), seed), TWIN))
    torch.manual_seed(seed)
    return FetalClipClassifier(tower).eval()


def test_the_classifier_is_one_layer_on_the_embedding() -> None:
    network = _twin_classifier()
    image = torch.rand(2, 1, 112, 112)
    logit = network(image)
    assert logit.shape == (2, 1)
    rgb = (image.repeat(1, 3, 1, 1) - network.colours.mean) / network.colours.std
    embedding = network.encoder(pixel_values=rgb).image_embeds
    expected = embedding @ network.head.weight.T + network.head.bias
    assert torch.allclose(logit, expected, atol=1e-6)
    assert (logit[0] - logit[1]).abs() > 1e-4
    with torch.device("meta"):
        full = FetalClipClassifier(fetalclip_tower(FetalClipConfig()))
    assert sum(p.numel() for p in full.head.parameters()) == 769


def _images(side: int, count: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    rng = np.random.default_rng(1)
    return [rng.random((1, 1, side, side), np.float32) for _ in range(count)]


def test_the_graph_answers_as_the_adapted_network() -> None:
    network = _twin_classifier()
    model = add_lora(network.encoder, LoraSettings(targets=lora_targets(as_published=False)))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(3))
    network.encoder = model
    image = torch.rand(1, 1, 112, 112)
    adapted = network.eval()(image)
    network.encoder = merge_lora(model)
    exported = onnx_from_network(network.eval(), square_spec(112), QUALITY)
    backend = open_backend("onnxruntime", exported)
    assert check_parity(network, backend, _images(112, 3), QUALITY) < 1e-4
    assert np.abs(backend.run(image.numpy())["quality"] - adapted.detach().numpy()).max() < 1e-4
    for word in (b"/site-packages/", b'File "', b".py"):
        assert word not in exported


@pytest.mark.slow
def test_the_whole_network_is_read_and_runs_as_a_graph(tmp_path: Path) -> None:
    """All 304 million numbers: 6 GB of memory for a minute or three."""
    state = _random(_shapes(224, 14, 1024, 24, 768)) | _text_tower()
    path = _written(tmp_path, state)
    tower = read_fetalclip(path, expected_sha256=None)
    rgb = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = tower(pixel_values=rgb).image_embeds
    expected = _plain_tower(state, rgb, 16, 24)
    assert expected.std() > 0.3
    # 24 layers of rounding.
    assert (ours - expected).abs().max() < 1e-4
    del state
    network = FetalClipClassifier(tower).eval()
    started = time.monotonic()
    exported = onnx_from_network(network, square_spec(), QUALITY)
    seconds = time.monotonic() - started
    assert 4 * 303_966_208 < len(exported) < 2**31
    backend = open_backend("onnxruntime", exported, threads=1)
    images = _images(224, 3)
    assert check_parity(network, backend, images, QUALITY) < 1e-3
    started = time.process_time()
    for image in images:
        backend.run(image)
    frame_ms = (time.process_time() - started) / len(images) * 1000
    print(f"export {seconds:.0f} s, {len(exported) / 1e6:.0f} MB, {frame_ms:.0f} ms of one core a frame")  # noqa: T201
