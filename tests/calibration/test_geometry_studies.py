"""Studies of the geometry on real masks and pictures: each prints its table (`-m slow -s`) and holds its bounds."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal_calibration.cut import visible
from edgefetal_calibration.datasets.hc18 import MASK_EDGE_OFFSET_PX, HeadCase, read_hc18
from edgefetal_calibration.datasets.split import Part, Split, select_part
from edgefetal_calibration.thresholds import MAX_CUT_ERROR
from edgefetal_runtime.biometry.ellipse import (
    contour_points,
    ellipse_from_points,
    robust_ellipse_from_points,
)
from edgefetal_runtime.biometry.femur import Shaft, find_shaft
from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.biometry.outline import Outline, RoundStructure, outline_round
from edgefetal_runtime.biometry.region import only_region
from edgefetal_runtime.exam.find import find
from edgefetal_runtime.infer.bundle import SPLIT, Bundle
from edgefetal_runtime.infer.network import load_network
from edgefetal_runtime.infer.preprocess import PreprocessSpec, letterbox
from edgefetal_runtime.scale import Scale
from edgefetal_runtime.sources.metaimage import open_metaimage
from edgefetal_runtime.sources.picture import read_grey

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Map = npt.NDArray[np.float32]
    Field = npt.NDArray[np.bool_]

pytestmark = pytest.mark.slow

# A contour pixel's centre lies inside the edge between it and its neighbour: by 0 to 1 pixel along the nearer axis,
# which is half of max(|cos|, |sin|) of the edge's direction on average. There are as many contour pixels per length of
# edge as that same maximum, so their mean depth is half the ratio of the means of its square and of itself.
CONTOUR_PIXEL_DEPTH_PX = (math.pi + 2) / (8 * math.sqrt(2))
# `contour_points` of a black and white map lie on the edge itself.
MASK_CROSSING_OFFSET_PX = MASK_EDGE_OFFSET_PX + CONTOUR_PIXEL_DEPTH_PX

CUTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
MAX_MEDIAN_ERROR = 0.03
# Axis ratios are left out of the question here: HC18's roundest heads are refused for theirs, cut or not.
HEAD = RoundStructure("head", min_axis_ratio=0.5)
SPEC = PreprocessSpec(height_px=192, width_px=288, mean=0.15, std=0.2)


@pytest.fixture(scope="module")
def cases(hc18_root: Path) -> list[HeadCase]:
    return read_hc18(hc18_root)


def _mask_logits(case: HeadCase) -> Map:
    """The annotated mask as logits of 1 and -1 in its own grid."""
    return np.where(read_grey(case.annotation) > 127, 1, -1).astype(np.float32)


def _row(*cells: object) -> None:
    print("  ".join(f"{cell:>16}" for cell in cells))  # noqa: T201 - a study's table


def test_hc_of_all_masks_agrees_with_the_table(cases: list[HeadCase]) -> None:
    errors: dict[str, list[float]] = {"plain contour": [], "crossings": [], "offset corrected": []}
    for case in cases:
        logits, mm = _mask_logits(case), case.scale.x_mm_per_px
        region = only_region(logits, "head")
        assert not isinstance(region, Abstained)
        (contour,), _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        plain = ellipse_from_points(contour[:, 0].astype(np.float64))
        fit = robust_ellipse_from_points(contour_points(logits, region))
        assert plain is not None
        assert fit is not None
        for name, ellipse in (
            ("plain contour", plain),
            ("crossings", fit.ellipse),
            ("offset corrected", fit.ellipse.grown(-MASK_CROSSING_OFFSET_PX)),
        ):
            errors[name].append(ellipse.circumference() * mm - case.hc_mm)
    print(f"\nHC of {len(cases)} masks against the table, mm; offset {MASK_CROSSING_OFFSET_PX:.3f} px")  # noqa: T201
    _row("", "bias", "MAE", "p95", "max")
    for name, values in errors.items():
        size = np.abs(values)
        _row(name, *(f"{v:.3f}" for v in (np.mean(values), size.mean(), np.quantile(size, 0.95), size.max())))
    assert len(cases) == 834
    assert np.mean(errors["plain contour"]) == pytest.approx(0.83, abs=0.03)
    corrected = np.abs(errors["offset corrected"])
    assert corrected.mean() <= 0.15
    assert corrected.max() <= 0.5


@dataclass
class _Cuts:
    """Relative errors of what was measured, and reasons of what was not, by the share of the head that was hidden."""

    errors: dict[float, list[float]] = field(default_factory=lambda: {cut: [] for cut in CUTS})
    reasons: dict[float, list[str]] = field(default_factory=lambda: {cut: [] for cut in CUTS})

    def add(self, cut: float, found: Outline | Abstained, hc_mm: float) -> None:
        if isinstance(found, Abstained):
            self.reasons[cut].append(found.reason)
        else:
            self.errors[cut].append(found.extent / hc_mm - 1)

    def abstained(self, cut: float) -> float:
        return len(self.reasons[cut]) / (len(self.reasons[cut]) + len(self.errors[cut]))

    def median(self, cut: float) -> float:
        return float(np.median(np.abs(self.errors[cut]))) if self.errors[cut] else 0.0

    def show(self, title: str) -> None:
        print(f"\n{title}")  # noqa: T201 - a study's table
        _row("hidden", "measured", "median |e| %", "p95 |e| %", "max |e| %", "bias %", "abstained %")
        for cut in CUTS:
            percent = 100 * np.array(self.errors[cut])
            size = np.abs(percent)
            figures = (np.median(size), np.quantile(size, 0.95), size.max(), percent.mean()) if len(size) else ()
            _row(
                f"{cut:.0%}",
                len(percent),
                *(f"{v:.2f}" for v in figures),
                *("-" for _ in range(4 - len(figures))),
                f"{100 * self.abstained(cut):.1f}",
            )

    def assert_refused_in_time(self) -> None:
        for cut in CUTS:
            assert self.median(cut) < MAX_MEDIAN_ERROR
        assert self.abstained(0.1) <= self.abstained(0.3) <= self.abstained(0.5)
        assert self.abstained(0.5) > self.abstained(0.0) + 0.3


def test_masks_cut_by_an_edge_are_completed_or_refused(cases: list[HeadCase]) -> None:
    rng = np.random.default_rng(0)
    cuts = _Cuts()
    for case in cases:
        logits, head = _mask_logits(case), case.head_px()
        height, width = logits.shape
        box = letterbox(height, width, PreprocessSpec(height_px=height, width_px=width, mean=0, std=1))
        columns, rows = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
        hc_mm = head.grown(MASK_CROSSING_OFFSET_PX).circumference() * case.scale.x_mm_per_px
        for cut in CUTS:
            seen = visible(head, columns, rows, cut, rng.uniform(0, 2 * math.pi))
            clipped = np.where(seen, logits, np.float32(-1))
            cuts.add(cut, outline_round(clipped, box, case.scale, HEAD, seen), hc_mm)
    cuts.show(f"{len(cases)} masks cut by a straight edge, without noise")
    cuts.assert_refused_in_time()
    assert cuts.abstained(0.1) < 0.02


ROUGHNESS = 0.015
_HARMONICS = np.arange(2, 11)


def test_rough_masks_cut_by_an_edge_are_completed_or_refused(cases: list[HeadCase]) -> None:
    # Roughness as a network's: waves around the outline, the longer the higher, 1.5 % of the semi-minor axis in all.
    rng = np.random.default_rng(1)
    cuts = _Cuts()
    for case in cases:
        head, (height, width) = case.head_px(), read_grey(case.annotation).shape
        box = letterbox(height, width, SPEC)
        columns = np.arange(SPEC.width_px) * box.x.step + box.x.offset
        rows = (np.arange(SPEC.height_px) * box.y.step + box.y.offset)[:, None]
        u, v = head.normalised(columns, rows)
        turn = np.arctan2(v, u)
        hc_mm = head.circumference() * case.scale.x_mm_per_px
        for cut in CUTS:
            amplitudes = rng.normal(size=len(_HARMONICS)) / _HARMONICS
            amplitudes *= ROUGHNESS / math.sqrt((amplitudes**2).sum() / 2)
            phases = rng.uniform(0, 2 * math.pi, len(_HARMONICS))
            waves = np.zeros_like(turn)
            for order, amplitude, phase in zip(_HARMONICS, amplitudes, phases, strict=True):
                waves += amplitude * np.cos(order * turn + phase)
            seen = visible(head, columns, rows, cut, rng.uniform(0, 2 * math.pi))
            logits = np.where(seen, 20 * (1 + waves - np.hypot(u, v)), -5).astype(np.float32)
            cuts.add(cut, outline_round(logits, box, case.scale, HEAD, seen), hc_mm)
    cuts.show(f"{len(cases)} outlines of the network's roughness cut by a straight edge, at network resolution")
    cuts.assert_refused_in_time()


def test_pictures_cut_by_an_edge_are_measured_or_refused(cases: list[HeadCase], starter: Bundle) -> None:
    network = load_network(starter, threads=1)
    chosen = select_part(Split.model_validate_json(starter.read(SPLIT)), cases, Part.HELD_OUT.value)
    rng = np.random.default_rng(2)
    cuts = _Cuts()
    for case in chosen:
        pixels, head = case.frame().pixels, case.head_px()
        columns, rows = np.meshgrid(np.arange(pixels.shape[1], dtype=float), np.arange(pixels.shape[0], dtype=float))
        for cut in CUTS:
            seen = visible(head, columns, rows, cut, rng.uniform(0, 2 * math.pi))
            image, box = network.prepare(np.where(seen, pixels, 0).astype(np.uint8))
            found = find(network.manifest, HEAD, image, network.infer(image), box, case.scale)
            cuts.add(cut, found, case.hc_mm)
    cuts.show(f"{len(chosen)} held-out pictures cut by a straight edge, through the starter network")
    for cut in CUTS:
        kinds = Counter(re.sub(r"\d+%|\(.*?\)|; .*|: .*", "", reason) for reason in cuts.reasons[cut])
        print(f"{cut:.0%} hidden:", *(f"{n} x {kind}," for kind, n in kinds.most_common()))  # noqa: T201 - a study's table
    # The geometry cannot see that a network closed a cut head to a smaller whole one inside the edge, so the bundle
    # asks for more of the outline than the geometry needs; what is left of cut heads is next to nothing.
    cut_heads = [cut for cut in CUTS if cut]
    assert cuts.abstained(0.0) < 0.1
    assert min(cuts.abstained(cut) for cut in cut_heads) > 0.97
    assert sum(abs(error) > MAX_CUT_ERROR for cut in cut_heads for error in cuts.errors[cut]) <= 3


def _shaft_mm(rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], float]:
    """Corners of a shaft around its middle, (N, 2), and the length between the middles of its ends, all in mm."""
    length, width = rng.uniform(14, 55), rng.uniform(2.5, 5)
    bow, flare, leans = rng.uniform(-0.05, 0.05), rng.uniform(0, 0.6), rng.uniform(-0.6, 0.6, 2)
    t = np.linspace(-0.5, 0.5, 200)
    half = width / 2 * (1 + flare * (2 * np.abs(t)) ** 8)
    lean = np.tan(np.where(t < 0, leans[0], leans[1])) * half * (2 * np.abs(t)) ** 4
    middle = bow * length * (1 - 4 * t**2)
    upper = np.stack((t * length + lean, middle + half), axis=1)
    lower = np.stack((t * length - lean, middle - half), axis=1)
    turn = rng.uniform(0, math.pi)
    axes = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    return np.concatenate((upper, lower[::-1])) @ axes, length


def _filled(corners: npt.NDArray[np.float64], shape: tuple[int, int], zoom: int = 4) -> Map:
    """Share of each pixel that lies within a polygon."""
    large = np.zeros((shape[0] * zoom, shape[1] * zoom), np.uint8)
    fixed = np.round(((corners + 0.5) * zoom - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(large, [fixed], (1,), cv2.LINE_8, 4)
    return large.reshape(shape[0], zoom, shape[1], zoom).mean(axis=(1, 3)).astype(np.float32)


def _rectangle_length(logits: Map) -> float:
    """Long side of the smallest rectangle around the outline, to a fraction of a pixel."""
    region = only_region(logits, "femur")
    assert not isinstance(region, Abstained)
    return float(max(cv2.minAreaRect(contour_points(logits, region).astype(np.float32))[1]))


def _skeleton_length(logits: Map) -> float:
    """Distance between the two ends of the thinned mask that lie farthest apart."""
    morphology = pytest.importorskip("skimage.morphology")
    region = only_region(logits, "femur")
    assert not isinstance(region, Abstained)
    skeleton = morphology.skeletonize(region.astype(bool)).astype(np.uint8)
    neighbours = cv2.filter2D(skeleton, cv2.CV_16S, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT)
    ends = np.argwhere(skeleton.astype(bool) & (neighbours == 2)).astype(float)
    return float(np.linalg.norm(ends[:, None] - ends[None], axis=2).max()) if len(ends) > 1 else 0.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_centre_line_measures_shafts_better_than_a_rectangle_or_a_skeleton() -> None:
    rng = np.random.default_rng(3)
    print("\nfemur length of 200 simulated shafts at each resolution, error in mm")  # noqa: T201 - a study's table
    _row("mm/px", "method", "bias", "MAE", "p95", "refused")
    mae: dict[str, list[float]] = {"centre line": [], "rectangle": [], "skeleton": []}
    for shape, mm_per_px in (((96, 144), 0.8), ((192, 288), 0.4), ((384, 576), 0.2)):
        box = letterbox(*shape, PreprocessSpec(height_px=shape[0], width_px=shape[1], mean=0, std=1))
        errors: dict[str, list[float]] = {name: [] for name in mae}
        refused = 0
        for _ in range(200):
            corners, length = _shaft_mm(rng)
            share = _filled(corners / mm_per_px + (shape[1] / 2, shape[0] / 2) + rng.uniform(-5, 5, 2), shape)
            # The network's own blur and unevenness, in pixels of its grid.
            noise = cv2.GaussianBlur(rng.normal(size=shape), (0, 0), 2.0)
            logits = (10 * (cv2.GaussianBlur(share, (0, 0), 0.8) - 0.5) + 0.8 * noise / noise.std()).astype(np.float32)
            shaft = find_shaft(logits, box, Scale(mm_per_px, mm_per_px, origin="study"))
            if isinstance(shaft, Abstained):
                refused += 1
                continue
            errors["centre line"].append(shaft.length - length)
            errors["rectangle"].append(_rectangle_length(logits) * mm_per_px - length)
            errors["skeleton"].append(_skeleton_length(logits) * mm_per_px - length)
        for name, values in errors.items():
            size = np.abs(values)
            mae[name].append(float(size.mean()))
            figures = (np.mean(values), size.mean(), np.quantile(size, 0.95))
            _row(mm_per_px, name, *(f"{v:.2f}" for v in figures), refused)
        assert refused <= 10
    for ours, rectangle, skeleton in zip(mae["centre line"], mae["rectangle"], mae["skeleton"], strict=True):
        assert ours < rectangle
        assert ours < skeleton
    assert mae["centre line"][1] < 0.5


# The shaft of the picture labelled Limbs, drawn by hand along the bright edge, and the middles of its two ends, in
# pixels of the picture.
FEMUR_FILE = "image_transducer0_2D_1558092947471_layer0.mhd"
FEMUR_PX = np.array(
    [
        *((238, 117), (256, 126), (300, 148), (347, 172), (387, 193), (404, 200), (407, 207)),
        *((401, 213), (373, 203), (333, 180), (293, 160), (260, 148), (229, 144)),
    ],
    dtype=float,
)
FEMUR_MM = 38.7


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_real_femur_measures_what_calipers_do(shared_data: Path) -> None:
    (frame,) = open_metaimage(shared_data / "pretus" / FEMUR_FILE).frames()
    assert isinstance(frame.scale, Scale)
    mm = frame.scale.x_mm_per_px
    height, width = frame.pixels.shape
    box = letterbox(height, width, SPEC)
    share = _filled(box.to_network(FEMUR_PX), (SPEC.height_px, SPEC.width_px))
    logits = (10 * (cv2.GaussianBlur(share, (0, 0), 0.8) - 0.5)).astype(np.float32)
    shaft = find_shaft(logits, box, frame.scale)
    assert isinstance(shaft, Shaft), shaft
    lengths = {
        "centre line": shaft.length,
        "rectangle": _rectangle_length(logits) * box.x.step * mm,
        "skeleton": _skeleton_length(logits) * box.x.step * mm,
    }
    print(f"\nreal femur, {FEMUR_MM} mm by hand")  # noqa: T201 - a study's table
    for name, length in lengths.items():
        _row(name, f"{length:.2f} mm")
    # A caliper's click is good to a few pixels of 0.2 mm.
    assert shaft.length == pytest.approx(FEMUR_MM, abs=1.0)
