"""A bundle's network: from pixels to logits and probabilities that mean what the manifest says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_devices.errors import BundleError, EdgeFetalError, EnvironmentLacksError
from edgefetal_devices.profile import read_profile
from edgefetal_runtime.infer.backends import Backend, open_backend
from edgefetal_runtime.infer.bundle import MODEL, REFERENCE, Bundle, load_bundle
from edgefetal_runtime.infer.network import Network, load_network
from edgefetal_runtime.infer.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MASK = np.zeros((4, 6), np.float32)


def test_frames_are_prepared_as_the_bundle_says(
    intact_bundle: Bundle, scripted_network: Callable[..., Network]
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (90, 120), dtype=np.uint8)
    image, box = scripted_network([(MASK, (0.0, 0.0))]).prepare(frame)
    expected, expected_box = preprocess(frame, intact_bundle.manifest.preprocess)
    np.testing.assert_array_equal(image, expected)
    assert box == expected_box


@pytest.mark.parametrize(
    ("logits", "head"),
    [((0.0, 0.0), 0.5), ((1.0, -1.0), 0.8807971), ((-3.0, 3.0), 0.0024726), ((1e4, -1e4), 1.0), ((-1e30, 1e30), 0.0)],
)
def test_plane_logits_become_probabilities_by_class(
    scripted_network: Callable[..., Network], logits: tuple[float, float], head: float
) -> None:
    output = scripted_network([(MASK, logits)]).infer(MASK[None, None])
    assert set(output.plane_probability) == {"head", "none"}
    assert output.plane_probability["head"] == pytest.approx(head, abs=1e-6)
    assert sum(output.plane_probability.values()) == pytest.approx(1.0)
    assert output.mask_logits.shape == (1, 4, 6)


def test_a_network_without_a_plane_head_gives_no_probabilities(
    intact_bundle: Bundle, scripted_network: Callable[..., Network]
) -> None:
    heads = intact_bundle.manifest.heads.model_copy(update={"plane": ()})
    network = scripted_network([(MASK, (1.0, 2.0))], intact_bundle.manifest.model_copy(update={"heads": heads}))
    assert network.infer(MASK[None, None]).plane_probability == {}


def test_the_shipped_graph_and_the_float_one_agree_on_a_frame(intact_bundle: Bundle) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
    shipped, reference = (
        network.infer(network.prepare(frame)[0])
        for network in (load_network(intact_bundle, file=file, threads=1) for file in (MODEL, REFERENCE))
    )
    assert shipped.mask_logits.dtype == np.float32
    assert ((shipped.mask_logits > 0) == (reference.mask_logits > 0)).mean() > 0.98
    # They are two graphs and not one.
    assert not np.array_equal(shipped.mask_logits, reference.mask_logits)


def test_the_same_frame_gets_the_same_answer_to_the_bit(intact_bundle: Bundle) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (200, 300), dtype=np.uint8)
    network = load_network(intact_bundle, threads=1)
    first, second = (network.infer(network.prepare(frame)[0]) for _ in range(2))
    np.testing.assert_array_equal(first.mask_logits, second.mask_logits)
    assert first.plane_probability == second.plane_probability


def test_a_bundle_runs_on_the_back_end_that_it_was_judged_on(
    bundle_copy: Path, edit_manifest: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless another is asked for by its name; one for a device that nobody knows here runs on any."""
    asked: list[str] = []

    def spy(name: str, model: bytes, threads: int | None = None, lanes: int = 1) -> Backend:
        asked.append(name)
        return open_backend("onnxruntime", model, threads, lanes)

    monkeypatch.setattr("edgefetal_runtime.infer.network.open_backend", spy)
    for device, backend in (("cpu-x86-openvino", "auto"), ("cpu-x86-openvino", "onnxruntime"), ("else", "auto")):
        edit_manifest(bundle_copy, device=device)
        load_network(load_bundle(bundle_copy), backend=backend, threads=1)
    assert asked == ["openvino", "onnxruntime", "auto"]


def test_a_bundle_for_a_board_that_is_not_finished_here_says_so_and_how_to_try_it(
    intact_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = read_profile("cpu").model_copy(update={"back_end": "tensorrt"})
    monkeypatch.setattr("edgefetal_runtime.infer.network.read_profile", lambda _: board)
    with pytest.raises(EnvironmentLacksError, match=r"`edgefetal finish BUNDLE`.*--backend onnxruntime"):
        load_network(intact_bundle)
    assert load_network(intact_bundle, backend="onnxruntime", threads=1).backend.name == "onnxruntime"


def test_a_graph_that_was_altered_after_verification_is_not_loaded(bundle_copy: Path) -> None:
    bundle = load_bundle(bundle_copy)
    content = bytearray((bundle_copy / MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_copy / MODEL).write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx is not the file that was built"):
        load_network(bundle)


@pytest.mark.parametrize("part", ["preprocess", "plane"])
def test_a_manifest_that_belongs_to_another_graph_is_a_user_error(
    bundle_copy: Path, edit_manifest: Callable[..., None], part: str
) -> None:
    manifest = load_bundle(bundle_copy).manifest
    if part == "preprocess":
        edit_manifest(bundle_copy, preprocess=manifest.preprocess.model_dump() | {"height_px": 64, "width_px": 96})
    else:
        edit_manifest(bundle_copy, heads=manifest.heads.model_dump() | {"plane": ["head", "abdomen", "none"]})
    bundle = load_bundle(bundle_copy)
    with pytest.raises(EdgeFetalError):  # noqa: PT012 - loading may refuse it, or else the first frame must
        network = load_network(bundle, threads=1)
        network.infer(network.prepare(np.zeros((90, 120), np.uint8))[0])
