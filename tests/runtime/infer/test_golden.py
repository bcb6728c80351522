"""Golden frames: this machine prepares and runs frames as the builder's did, or says that it does not."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_devices.errors import BundleError, CheckFailedError
from edgefetal_runtime.infer.bundle import GOLDEN, Bundle, load_bundle
from edgefetal_runtime.infer.golden import (
    MAX_MASK_DISAGREEMENT,
    MAX_PLANE_DIFFERENCE,
    check_network,
    check_preprocessing,
    make_golden,
)
from edgefetal_runtime.infer.network import Network, load_network
from edgefetal_runtime.infer.preprocess import PreprocessSpec, preprocess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    Arrays = dict[str, npt.NDArray[Any]]
    Make = Callable[[Arrays], Bundle]


@dataclass
class GoldenBackend:
    """A back end that gives the answers that the builder wrote down, altered in one frame as a test wishes."""

    archive: Arrays
    spec: PreprocessSpec
    alter: Callable[[Arrays], None]
    name: str = "golden"

    def run(self, image: npt.NDArray[np.float32]) -> Arrays:
        digests = [str(self.archive[f"tensor_sha256_{n}"]) for n in range(int(self.archive["count"]))]
        number = digests.index(hashlib.sha256(image.tobytes()).hexdigest())
        answer = {name: self.archive[f"{name}_{number}"].astype(np.float32) for name in ("mask", "plane")}
        if number == self._largest_head():
            self.alter(answer)
        return answer

    def _largest_head(self) -> int:
        shares = [(self.archive[f"mask_{n}"] > 0).mean() for n in range(int(self.archive["count"]))]
        return int(np.argmax(shares))


@dataclass
class MaskBackend:
    """A back end whose graph has no plane head."""

    spec: PreprocessSpec
    name: str = "mask only"

    def run(self, image: npt.NDArray[np.float32]) -> Arrays:
        return {"mask": image.copy()}


@pytest.fixture(scope="module")
def archive(intact_bundle: Bundle) -> Arrays:
    with np.load(io.BytesIO(intact_bundle.read(GOLDEN)), allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}


@pytest.fixture
def with_golden(bundle_copy: Path, rehash: Callable[[Path], None]) -> Make:
    """Make a bundle whose hashes agree with other golden frames."""

    def make(arrays: Arrays) -> Bundle:
        np.savez_compressed(bundle_copy / GOLDEN, allow_pickle=False, **arrays)
        rehash(bundle_copy)
        return load_bundle(bundle_copy)

    return make


def _answers(bundle: Bundle, archive: Arrays, alter: Callable[[Arrays], None]) -> Network:
    return Network(bundle.manifest, GoldenBackend(archive, bundle.manifest.preprocess, alter))


def test_the_starter_is_prepared_and_answered_here_as_where_it_was_built(intact_bundle: Bundle) -> None:
    assert check_preprocessing(intact_bundle) >= 3
    report = check_network(intact_bundle, load_network(intact_bundle))
    assert report.frames == check_preprocessing(intact_bundle)
    assert 0 <= report.mask_disagreement <= MAX_MASK_DISAGREEMENT
    assert 0 <= report.plane_difference <= MAX_PLANE_DIFFERENCE


def test_golden_frames_are_of_several_sizes_so_that_every_step_is_proven(
    intact_bundle: Bundle, archive: Arrays
) -> None:
    boxes = [
        preprocess(archive[f"frame_{n}"], intact_bundle.manifest.preprocess)[1] for n in range(int(archive["count"]))
    ]
    assert {0, 1} <= {box.halvings for box in boxes}


def test_a_hash_of_another_tensor_is_refused(with_golden: Make, archive: Arrays) -> None:
    bundle = with_golden(archive | {"tensor_sha256_1": np.array("0" * 64)})
    with pytest.raises(CheckFailedError, match=r"Golden frame 1 is not prepared here .*install the OpenCV and NumPy"):
        check_preprocessing(bundle)
    with pytest.raises(CheckFailedError, match="Golden frame 1"):
        check_network(bundle, load_network(bundle))


def test_a_frame_with_a_patch_that_was_changed_is_refused(with_golden: Make, archive: Arrays) -> None:
    frame = archive["frame_0"].copy()
    frame[80:90, 100:110] ^= 0xFF
    with pytest.raises(CheckFailedError, match="Golden frame 0"):
        check_preprocessing(with_golden(archive | {"frame_0": frame}))


def test_another_preprocessing_is_refused(bundle_copy: Path, edit_manifest: Callable[..., None]) -> None:
    spec = load_bundle(bundle_copy).manifest.preprocess
    edit_manifest(bundle_copy, preprocess=spec.model_copy(update={"mean": spec.mean + 1e-6}).model_dump())
    with pytest.raises(CheckFailedError, match="Golden frame 0"):
        check_preprocessing(load_bundle(bundle_copy))


def test_golden_frames_that_are_not_the_ones_listed_are_refused(bundle_copy: Path, archive: Arrays) -> None:
    bundle = load_bundle(bundle_copy)
    np.savez_compressed(bundle_copy / GOLDEN, allow_pickle=False, **archive)
    (bundle_copy / GOLDEN).write_bytes((bundle_copy / GOLDEN).read_bytes() + b"\0")
    with pytest.raises(BundleError, match=GOLDEN):
        check_preprocessing(bundle)


def test_the_builders_own_answers_agree_fully(intact_bundle: Bundle, archive: Arrays) -> None:
    report = check_network(intact_bundle, _answers(intact_bundle, archive, lambda _: None))
    assert (report.mask_disagreement, report.plane_difference) == (0.0, 0.0)


def _flip_mask(share: float) -> Callable[[Arrays], None]:
    def alter(answer: Arrays) -> None:
        flat = answer["mask"].reshape(-1)
        flat[: round(share * flat.size)] *= -1

    return alter


def _shift_plane(by: float) -> Callable[[Arrays], None]:
    def alter(answer: Arrays) -> None:
        answer["plane"][0, 0] += by

    return alter


def test_differences_within_rounding_are_reported_and_pass(intact_bundle: Bundle, archive: Arrays) -> None:
    report = check_network(intact_bundle, _answers(intact_bundle, archive, _shift_plane(-0.25)))
    assert report.plane_difference == pytest.approx(0.25, abs=1e-3)
    report = check_network(intact_bundle, _answers(intact_bundle, archive, _flip_mask(0.001)))
    assert report.mask_disagreement == pytest.approx(0.001, rel=0.05)


@pytest.mark.parametrize(
    "alter",
    [
        _flip_mask(0.003),
        _shift_plane(0.6),
        _shift_plane(-0.6),
        _shift_plane(np.inf),
        _shift_plane(np.nan),
        lambda answer: answer["plane"].fill(np.nan),
        lambda answer: answer["mask"].fill(np.nan),
        lambda answer: answer["mask"].fill(-1.0),
    ],
    ids=["mask", "plane up", "plane down", "plane inf", "one plane NaN", "all planes NaN", "mask NaN", "empty mask"],
)
def test_other_answers_in_one_frame_are_refused(
    intact_bundle: Bundle, archive: Arrays, alter: Callable[[Arrays], None]
) -> None:
    with pytest.raises(CheckFailedError, match=r"answers otherwise here .*; build the bundle for this device"):
        check_network(intact_bundle, _answers(intact_bundle, archive, alter))


def test_what_is_made_here_passes_here(
    intact_bundle: Bundle, bundle_copy: Path, rehash: Callable[[Path], None]
) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((200, 300), (40, 70))]
    content = make_golden(frames, intact_bundle.manifest.preprocess, load_network(intact_bundle).backend)
    (bundle_copy / GOLDEN).write_bytes(content)
    rehash(bundle_copy)
    bundle = load_bundle(bundle_copy)
    assert check_preprocessing(bundle) == 2
    report = check_network(bundle, load_network(bundle))
    # Written down in half precision.
    assert report.plane_difference < 0.01
    assert report.mask_disagreement == pytest.approx(0.0, abs=1e-4)


def test_a_network_without_a_plane_head_is_checked_by_its_mask(
    bundle_copy: Path, edit_manifest: Callable[..., None], rehash: Callable[[Path], None]
) -> None:
    manifest = load_bundle(bundle_copy).manifest
    edit_manifest(bundle_copy, heads=manifest.heads.model_dump() | {"plane": []})
    backend = MaskBackend(manifest.preprocess)
    frame = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
    (bundle_copy / GOLDEN).write_bytes(make_golden([frame], manifest.preprocess, backend))
    rehash(bundle_copy)
    bundle = load_bundle(bundle_copy)
    assert check_preprocessing(bundle) == 1
    assert check_network(bundle, Network(bundle.manifest, backend)).frames == 1
