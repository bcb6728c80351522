"""SonoNet's published weights: every array in its place, other files refused, the published answers given."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import re
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
import torch

from edgefetal_devices.errors import InputError
from edgefetal_export.teachers.sononet import (
    PLANES,
    Sononet,
    SononetConfig,
    Variant,
    plane_probabilities,
    read_sononet,
    sononet_input,
)
from edgefetal_runtime.sources.metaimage import open_metaimage
from edgefetal_runtime.sources.picture import read_grey

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Arrays = list[npt.NDArray[np.float32]]

# Of the files' names, in the order of the planes without the background.
LABELS = (
    "3VV", "4CH", "ABDOMINAL", "BRAIN-CB", "BRAIN-TV", "FEMUR", "KIDNEYS", "LIPS", "LVOT", "PROFILE", "RVOT",
    "SPINE-CORONAL", "SPINE-SAGITTAL",
)  # fmt: skip
PRETUS = {"496062": "Brain (Tv.)", "754103": "LVOT", "927832": "Abdominal", "947471": "Femur"}
VARIANTS = list(get_args(Variant))
MILLIONS = {"SonoNet16": 0.93, "SonoNet32": 3.7, "SonoNet64": 14.9, "SmallNet": 0.285}


def _random_arrays(variant: str, seed: int = 0) -> Arrays:
    """The arrays of a network, written down here a second time."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> npt.NDArray[np.float32]:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    arrays: Arrays = []
    if variant == "SmallNet":
        for out, into, side in ((32, 1, 7), (64, 32, 5), (128, 64, 3), (128, 128, 3), (64, 128, 1), (14, 64, 1)):
            arrays += [draw(out, into, side, side), draw(out)]
        return arrays
    f = int(variant.removeprefix("SonoNet"))
    widths = [1, f, f, 2 * f, 2 * f, 4 * f, 4 * f, 4 * f, 8 * f, 8 * f, 8 * f, 8 * f, 8 * f, 8 * f, 4 * f, 14]
    for number, (into, out) in enumerate(itertools.pairwise(widths)):
        side = 3 if number < 13 else 1
        scale = 1 + 0.1 * rng.normal(size=out)
        arrays += [draw(out, into, side, side), draw(out), scale.astype(np.float32), draw(out)]
        arrays.append(rng.uniform(0.5, 2.0, out).astype(np.float32))
    return arrays


def _written(folder: Path, arrays: Arrays) -> Path:
    path = folder / "weights.npz"
    np.savez(path, *arrays)
    return path


def _plain_sononet(arrays: Arrays, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The network in NumPy and float64, layer by layer: logits."""
    x = image.astype(np.float64)
    left = iter(arrays)
    for number in range(15):
        filters, shift, scale, mean, inverse_std = (next(left).astype(np.float64) for _ in range(5))
        reach = filters.shape[-1] // 2
        padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, filters.shape[2:], axis=(1, 2))
        x = np.einsum("cyxij,ocij->oyx", seen, filters)
        x = (x - mean[:, None, None]) * (scale * inverse_std)[:, None, None] + shift[:, None, None]
        if number < 14:
            x = np.maximum(x, 0)
        if number in {1, 3, 6, 9}:
            height, width = (side // 2 for side in x.shape[1:])
            x = x[:, : 2 * height, : 2 * width].reshape(len(x), height, 2, width, 2).max(axis=(2, 4))
    return x.mean(axis=(1, 2))


def test_a_network_with_random_weights_agrees_with_a_plain_one(tmp_path: Path) -> None:
    arrays = _random_arrays("SonoNet16")
    imported = read_sononet(_written(tmp_path, arrays))
    image = np.random.default_rng(1).normal(size=(1, 40, 51)).astype(np.float32)
    with torch.inference_mode():
        ours = imported.network(torch.from_numpy(image)[None])[0].numpy()
    np.testing.assert_allclose(ours, _plain_sononet(arrays, image), atol=1e-4)
    assert np.ptp(ours) > 0.1


def test_filters_of_smallnet_are_turned(tmp_path: Path) -> None:
    arrays = _random_arrays("SmallNet")
    network = read_sononet(_written(tmp_path, arrays)).network
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    for convolution, filters, bias in zip(convolutions, arrays[::2], arrays[1::2], strict=True):
        assert (convolution.weight.numpy() == filters[:, :, ::-1, ::-1]).all()
        assert convolution.bias is not None
        assert (convolution.bias.numpy() == bias).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_told_by_its_arrays(tmp_path: Path, variant: str) -> None:
    path = _written(tmp_path, _random_arrays(variant))
    imported = read_sononet(path)
    assert imported.config.variant == variant
    assert imported.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not imported.published
    assert not imported.network.training
    count = sum(p.numel() for p in imported.network.parameters())
    assert count / 1e6 == pytest.approx(MILLIONS[variant], rel=0.02)
    rng = np.random.default_rng(2)
    pictures = [rng.integers(0, 256, shape, np.uint8) for shape in ((300, 400), (100, 90), (224, 288))]
    probabilities = plane_probabilities(imported.network, pictures)
    assert probabilities.shape == (3, len(PLANES))
    assert probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    alone = plane_probabilities(imported.network, pictures[1:2])
    np.testing.assert_allclose(alone[0], probabilities[1], atol=1e-5)


def test_other_planes_give_other_classes() -> None:
    network = Sononet(SononetConfig(planes=("head", "other"))).eval()
    picture = np.zeros((50, 60), np.uint8)
    assert plane_probabilities(network, [picture] * 17).shape == (17, 2)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda arrays: arrays[:-1], "74 arrays in place of 75, and array 74"),
        (lambda arrays: [*arrays, arrays[-1]], "76 arrays in place of 75, and array 75"),
        (lambda arrays: [*arrays[:10], arrays[10].transpose(1, 0, 2, 3), *arrays[11:]], "array 10 is the first"),
        (lambda arrays: [arrays[0][:, :, :2], *arrays[1:]], "as none of SonoNet16, SonoNet32"),
        (lambda arrays: [*arrays[:7], np.full_like(arrays[7], np.nan), *arrays[8:]], "arr_7"),
        (lambda arrays: [*arrays[:7], arrays[7].astype(np.float64), *arrays[8:]], "arr_7"),
        (lambda arrays: [*arrays[:4], np.zeros_like(arrays[4]), *arrays[5:]], "standard deviation"),
        (lambda _: [np.float32(1.0)], "as none of"),
        (lambda arrays: [*arrays[:3], np.array([{}], dtype=object), *arrays[4:]], "not a sound .npz"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, spoil: object, says: str) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, *spoil(_random_arrays("SonoNet16")))  # type: ignore[operator]
    with pytest.raises(InputError, match=re.escape(says)) as refusal:
        read_sononet(path)
    assert str(path) in str(refusal.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    with pytest.raises(InputError, match="cannot be read"):
        read_sononet(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_sononet(tmp_path)
    for content in (b"", b"PK\x03\x04 and nothing more", pickle.dumps({"arr_0": 1})):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"not a sound \.npz"):
            read_sononet(path)
    whole = _written(tmp_path, _random_arrays("SonoNet16")).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"not a sound \.npz"):
        read_sononet(path)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(byte ^ 0xFF for byte in whole[middle : middle + 9]) + whole[middle + 9 :])
    with pytest.raises(InputError, match=r"not a sound \.npz"):
        read_sononet(path)
    np.savez(path, weights=np.zeros(3, np.float32))
    with pytest.raises(InputError, match="other names"):
        read_sononet(path)


def test_a_file_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez_compressed(path, np.zeros((40_000_000,), np.float32))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(InputError, match="unpacks to"):
        read_sononet(path)


def test_a_picture_is_prepared_as_published() -> None:
    picture = np.random.default_rng(3).integers(0, 256, (448, 576), np.uint8)
    halved = np.floor(picture.reshape(224, 2, 288, 2).mean(axis=(1, 3)) + 0.5)
    expected = 255 * (halved - halved.mean()) / halved.std()
    prepared = sononet_input(picture)
    assert prepared.shape == (1, 224, 288)
    assert prepared.dtype == np.float32
    # Halves may be rounded either way.
    assert np.abs(prepared[0] - expected).max() < 1.01 * 255 / halved.std()
    assert prepared.mean() == pytest.approx(0, abs=0.05)
    assert prepared.std() == pytest.approx(255, rel=1e-3)
    assert not sononet_input(np.full((50, 50), 77, np.uint8)).any()


@pytest.mark.parametrize("picture", [np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9)), np.zeros((0, 9), np.uint8)])
def test_what_is_no_grey_picture_is_refused(picture: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match="not grey"):
        sononet_input(picture)


def test_no_picture_is_refused() -> None:
    with pytest.raises(InputError, match="no picture"):
        plane_probabilities(Sononet(SononetConfig()).eval(), [])


@pytest.fixture(scope="module")
def published(shared_data: Path) -> Path:
    folder = shared_data / "sononet"
    if not (folder / "SonoNet16.npz").is_file():
        pytest.skip(f"no weights at {folder}")
    return folder


# SmallNet takes the abdomen for background; turned the other way round its filters name 6 right.
@pytest.mark.parametrize(("variant", "least"), [("SonoNet16", 13), ("SmallNet", 12)])
def test_published_weights_name_their_own_pictures(published: Path, variant: str, least: int) -> None:
    imported = read_sononet(published / f"{variant}.npz")
    assert imported.published
    assert imported.config.variant == variant
    pictures = [read_grey(published / "example_images" / f"{label}.png")[115:734, 81:874] for label in LABELS]
    named = plane_probabilities(imported.network, pictures).argmax(axis=1)
    expected = [k for k, plane in enumerate(PLANES) if plane != "Background"]
    assert (named == expected).sum() >= least


def test_published_weights_name_pictures_of_another_maker(published: Path, shared_data: Path) -> None:
    network = read_sononet(published / "SonoNet16.npz").network
    for stamp, plane in PRETUS.items():
        paths = list((shared_data / "pretus").glob(f"*{stamp}*.mhd"))
        if not paths:
            pytest.skip("no pictures of pretus")
        frame = next(iter(open_metaimage(paths[0]).frames()))
        (answer,) = plane_probabilities(network, [frame.pixels])
        assert PLANES[int(answer.argmax())] == plane
