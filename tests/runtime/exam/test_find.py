"""What the network's answer for one frame says of each structure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_runtime.biometry.femur import Shaft
from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.biometry.outline import Outline
from edgefetal_runtime.exam.find import find, find_all, plane_probability
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.infer.bundle import Heads, Manifest, Thresholds
from edgefetal_runtime.infer.network import NetworkOutput
from edgefetal_runtime.infer.preprocess import preprocess
from edgefetal_runtime.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from edgefetal_runtime.exam.find import Found
    from edgefetal_runtime.infer.bundle import Bundle

SHAPE = (270, 400)
SCALE = Scale(0.3, 0.3, origin="test")
STRUCTURES = ("head", "abdomen", "femur")
ROUND, ROD = (200.0, 135.0, 90.0, 75.0, 0.3), (200.0, 135.0, 80.0, 7.0, 0.3)
CUT = (200.0, 230.0, 90.0, 75.0, 0.0)
THRESHOLDS = Thresholds(plane_probability=0.6, agreement=0.8, coverage=0.9)


@pytest.fixture(scope="module")
def manifest(intact_bundle: Bundle) -> Manifest:
    """A bundle of all structures."""
    heads = Heads(mask=STRUCTURES, plane=(*STRUCTURES, "none"), quality=True, skill=True)
    return intact_bundle.manifest.model_copy(update={"heads": heads, "thresholds": THRESHOLDS})


@pytest.fixture(scope="module")
def seen(
    manifest: Manifest, head_logits: Callable[..., npt.NDArray[np.float32]]
) -> Callable[..., tuple[npt.NDArray[np.float32], NetworkOutput, Any]]:
    """What the network says of a frame that shows ellipses, by structure; the others are empty."""

    def made(
        shapes: dict[str, tuple[float, ...]], planes: dict[str, float], sharpness: float = 100.0
    ) -> tuple[npt.NDArray[np.float32], NetworkOutput, Any]:
        image, box = preprocess(np.full(SHAPE, 60, np.uint8), manifest.preprocess)
        channels = [
            head_logits(shapes[structure], SHAPE, manifest.preprocess, sharpness)
            if structure in shapes
            else np.full(image.shape[2:], -20.0, np.float32)
            for structure in STRUCTURES
        ]
        return image, NetworkOutput(np.stack(channels), planes, 0.7, 0.4), box

    return made


@pytest.fixture(scope="module")
def found(manifest: Manifest, seen: Callable[..., Any]) -> Callable[..., Found]:
    """What is found of a structure that has this shape, at this probability of its plane."""

    def run(structure: str, shape: tuple[float, ...], probability: float = 0.9, sharpness: float = 100.0) -> Found:
        image, output, box = seen({structure: shape}, {structure: probability}, sharpness)
        return find(manifest, structure, image, output, box, SCALE)

    return run


@pytest.mark.parametrize(
    ("structure", "shape", "kind"),
    [("head", ROUND, Outline), ("abdomen", ROUND, Outline), ("femur", ROD, Shaft)],
)
def test_each_structure_is_found_in_its_own_channel_where_its_own_plane_is_likely(
    found: Callable[..., Found], structure: str, shape: tuple[float, ...], kind: type
) -> None:
    outline = found(structure, shape)
    assert isinstance(outline, kind)
    assert np.asarray(outline.contour_px).mean(axis=0) == pytest.approx((200, 135), abs=1)
    assert isinstance(found(structure, shape, THRESHOLDS.plane_probability), kind)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("probability", [0.0, 0.59, math.nan])
def test_a_plane_that_is_not_likely_is_not_looked_at(
    found: Callable[..., Found], structure: str, probability: float
) -> None:
    nothing = found(structure, ROD if structure == "femur" else ROUND, probability)
    assert isinstance(nothing, Abstained)
    assert nothing.reason == (
        f"not taken for a plane of the {structure} (probability {probability:.2f}); find the {structure}"
    )


@pytest.mark.parametrize("structure", STRUCTURES)
def test_another_structure_s_plane_says_nothing_of_this_one(
    manifest: Manifest, seen: Callable[..., Any], structure: str
) -> None:
    shapes = {"head": ROUND, "abdomen": ROUND, "femur": ROD}
    image, output, box = seen(shapes, {name: float(name == structure) for name in STRUCTURES})
    all_found = find_all(manifest, Frame(np.zeros(SHAPE, np.uint8), "s", 0, 0.0, SCALE), image, output, box)
    assert {name for name, outline in all_found.found.items() if not isinstance(outline, Abstained)} == {structure}
    assert tuple(all_found.found) == STRUCTURES
    assert (all_found.quality, all_found.skill) == (0.7, 0.4)


def test_a_structure_that_the_bundle_does_not_outline_is_not_found(
    manifest: Manifest, seen: Callable[..., Any]
) -> None:
    heads = manifest.model_copy(update={"heads": Heads(mask=("head",), plane=())})
    image, output, box = seen({"head": ROUND}, {})
    assert find(heads, "femur", image, output, box, SCALE) == Abstained(
        "the bundle outlines no femur; use one that does"
    )
    assert isinstance(find(heads, "head", image, output, box, SCALE), Outline), "no plane head: all are looked at"


def test_the_probability_is_one_without_a_plane_head_and_zero_of_a_plane_that_it_does_not_know() -> None:
    mask = np.zeros((1, 4, 4), np.float32)
    assert plane_probability(NetworkOutput(mask, {}), "head") == 1.0
    known = NetworkOutput(mask, {"head": 0.3, "none": 0.7})
    assert (plane_probability(known, "head"), plane_probability(known, "abdomen")) == (0.3, 0.0)


def test_agreement_is_asked_of_heads_alone(found: Callable[..., Found]) -> None:
    """The threshold was fitted on heads."""
    head, abdomen = (found(structure, ROUND, sharpness=2.0) for structure in ("head", "abdomen"))
    assert isinstance(abdomen, Outline)
    assert abdomen.agreement < THRESHOLDS.agreement
    assert isinstance(head, Abstained)
    assert "not sure enough" in head.reason
    assert head.reason.endswith("find a clearer plane")


def test_coverage_is_asked_of_heads_alone(found: Callable[..., Found]) -> None:
    head, abdomen = (found(structure, CUT) for structure in ("head", "abdomen"))
    assert isinstance(abdomen, Outline)
    assert abdomen.coverage < THRESHOLDS.coverage
    assert isinstance(head, Abstained)
    assert "the outline is open" in head.reason
    assert head.reason.endswith("show the whole head")
