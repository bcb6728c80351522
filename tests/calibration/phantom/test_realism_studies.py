"""Simulated pictures beside real ones: what a classifier that never saw simulation says, and grey-level statistics.

Each study prints its table (`-m slow -s`). Pictures to look at come from `tests/benchmarks/side_by_side.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.phantom.exam import Exam, ExamPlan
from edgefetal_calibration.phantom.probe import Fan
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.volume import Volume, read_volume, reslice, row_plane
from edgefetal_runtime.sources.metaimage import open_metaimage
from edgefetal_runtime.sources.picture import read_grey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Grey = npt.NDArray[np.uint8]
    Classify = Callable[[Sequence[Grey]], npt.NDArray[np.float32]]

pytestmark = pytest.mark.slow

WEEKS = (20.0, 24.0, 28.0, 32.0, 36.0)
SEEDS = 6
EXPECTED = {
    Protocol.HEAD: ("Brain (Cb.)", "Brain (Tv.)"),
    Protocol.ABDOMEN: ("Abdominal",),
    Protocol.ACOUSLIC: ("Abdominal",),
    Protocol.FEMUR: ("Femur",),
}
NAMES = {
    Protocol.HEAD: "head",
    Protocol.ABDOMEN: "abdomen",
    Protocol.ACOUSLIC: "blind",
    Protocol.FEMUR: "femur",
}
# SonoNet's pictures are wider than high by this.
ASPECT = 288 / 224
# How much more than the structure a zoomed picture shows.
ROOM = 1.4

# What CALOPUS calls what `in_view` names, and which of our sweeps is set beside which part of its steps, in percent.
MARKED = {"head": "head", "abdomen": "abdomen", "heart": "heart", "placenta": "placenta", "fluid": "AF"}
STEPS = {"A": (0, 0, 100), "B1": (1, 0, 33), "B2": (0, 33, 67), "B3": (2, 67, 100), "E": (4, 0, 100)}

BLACK = 4
EDGE_MM = 2.0
WINDOW_MM = 8.0
# A window is of one tissue where the means of its quarters differ by no more than this share of its mean.
EVEN = 0.25
WINDOW_GREY = (25, 200)
PATCH_PX = 9
PATCH_MM_PER_PX = 0.28


@dataclass(frozen=True, eq=False)
class Sized:
    """A picture with the size of its square pixels and the box of the structure in it, if known."""

    pixels: Grey
    mm_per_px: float
    structure: tuple[int, int, int, int] | None = None


def _row(*cells: object) -> None:
    print("  ".join(f"{cell:>13}" for cell in cells))  # noqa: T201 - a study's table


@pytest.fixture(scope="module")
def classify(shared_data: Path) -> Classify:
    from edgefetal_export.teachers.sononet import plane_probabilities, read_sononet

    path = shared_data / "sononet" / "SonoNet16.npz"
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    network = read_sononet(path).network
    return lambda pictures: plane_probabilities(network, pictures)


@pytest.fixture(scope="module")
def planes() -> tuple[str, ...]:
    from edgefetal_export.teachers.sononet import PLANES

    return PLANES


@pytest.fixture(scope="module")
def volume(shared_data: Path) -> Volume:
    path = shared_data / "fetal_head_volume" / "fetal_head_3DUS.mha"
    if not path.is_file():
        pytest.skip(f"no volume at {path}")
    return read_volume(path)


@pytest.fixture(scope="module")
def hc18_sample(hc18_root: Path) -> list[Sized]:
    cases = read_hc18(hc18_root)
    chosen = np.random.default_rng(1).choice(len(cases), 40, replace=False)
    return [Sized(read_grey(cases[k].picture), cases[k].scale.x_mm_per_px) for k in sorted(chosen)]


@pytest.fixture(scope="module")
def pretus(shared_data: Path) -> list[Sized]:
    paths = sorted((shared_data / "pretus").glob("*.mhd"))
    if not paths:
        pytest.skip("no pictures of pretus")
    frames = [next(iter(open_metaimage(path).frames())) for path in paths]
    return [Sized(frame.pixels, frame.scale.x_mm_per_px) for frame in frames]


@pytest.fixture(scope="module")
def simulated() -> dict[Protocol, list[Sized]]:
    """The frame nearest to the standard plane of exams of 20 to 36 weeks."""
    return {protocol: list(_standard_planes(protocol)) for protocol in EXPECTED}


def _standard_planes(protocol: Protocol) -> Iterable[Sized]:
    for weeks in WEEKS:
        for seed in range(SEEDS):
            exam = Exam(ExamPlan(protocol, weeks, seed=seed, skill=1.0))
            truths = [exam.truth(s, k) for s, path in enumerate(exam.planes) for k in range(len(path))]
            best = max(truths, key=lambda t: (t.plane is protocol.target, t.quality))
            # Some exams never get to the abdomen.
            if best.plane is protocol.target:
                mask = exam.mask(best.sweep, best.index)
                _, fan = exam.probe_and_fan
                box = tuple(cv2.boundingRect(mask))
                yield Sized(exam.frame(best.sweep, best.index).picture, fan.x_mm_per_px, box)


def _zoomed(picture: Sized) -> Grey:
    """Cut a picture to its structure with some room around it, as a sonographer fills the screen."""
    assert picture.structure is not None
    left, top, width, height = picture.structure
    wide = ROOM * max(width, ASPECT * height, 50 / picture.mm_per_px)
    corner = np.array([left + width / 2 - wide / 2, top + height / 2 - wide / ASPECT / 2])
    warp = np.array([[1.0, 0.0, -corner[0]], [0.0, 1.0, -corner[1]]])
    return np.asarray(cv2.warpAffine(picture.pixels, warp, (round(wide), round(wide / ASPECT))), np.uint8)


def _resliced(volume: Volume, row: float) -> Sized:
    """The slice of a row at the size of the volume's own voxels."""
    height, _, width = volume.voxels.shape
    mm_per_px = volume.spacing_mm[0]
    fan = Fan(width, height, mm_per_px, mm_per_px, (width - 1) / 2, 0.0)
    return Sized(reslice(volume, row_plane(volume, row), fan), mm_per_px)


def test_the_resliced_real_head_is_named_brain_at_its_standard_planes(
    volume: Volume, classify: Classify, planes: tuple[str, ...]
) -> None:
    rows = range(80, 151, 4)
    answers = classify([_resliced(volume, row).pixels for row in rows])
    brain = [planes.index(name) for name in EXPECTED[Protocol.HEAD]]
    _row("row", "named", "probability", "brain")
    for row, answer in zip(rows, answers, strict=True):
        named = int(answer.argmax())
        _row(row, planes[named], f"{answer[named]:.2f}", f"{answer[brain].sum():.2f}")
        if 104 <= row <= 128:
            assert named in brain
            assert answer[brain].sum() > 0.5
        if row in {80, 148}:
            assert named not in brain


def test_real_pictures_are_named(hc18_root: Path, classify: Classify, planes: tuple[str, ...]) -> None:
    """What the classifier is worth on heads that it never saw either: the ruler for the table of simulated planes."""
    answers = classify([read_grey(case.picture) for case in read_hc18(hc18_root)])
    named = Counter(planes[k] for k in answers.argmax(axis=1))
    brain = sum(named[name] for name in EXPECTED[Protocol.HEAD]) / len(answers)
    _row("HC18", f"n = {len(answers)}", f"brain {brain:.3f}", *(f"{name} {n}" for name, n in named.most_common(5)))
    assert brain > 0.8


def test_answers_on_simulated_planes_are_reported_as_they_are(
    simulated: dict[Protocol, list[Sized]], classify: Classify, planes: tuple[str, ...]
) -> None:
    _row("simulated", "picture", "n", "named right", "mean prob.", "most named")
    for protocol, pictures in simulated.items():
        right = [planes.index(name) for name in EXPECTED[protocol]]
        for cut, shown in (("whole", [p.pixels for p in pictures]), ("zoomed", [_zoomed(p) for p in pictures])):
            answers = classify(shown)
            assert np.isfinite(answers).all()
            named = answers.argmax(axis=1)
            most = ", ".join(f"{planes[k]} {n}" for k, n in Counter(named.tolist()).most_common(4))
            share = np.isin(named, right).mean()
            _row(NAMES[protocol], cut, len(shown), f"{share:.2f}", f"{answers[:, right].sum(axis=1).mean():.2f}", most)


def _field(picture: Sized) -> npt.NDArray[np.bool_]:
    """Inside of the fan: the hull of its largest lit part, less a margin."""
    lit = cv2.morphologyEx((picture.pixels > BLACK).view(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    parts, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(max(parts, key=cv2.contourArea))
    field = cv2.fillConvexPoly(np.zeros(lit.shape, np.uint8), hull, (1,))
    size = 2 * round(EDGE_MM / picture.mm_per_px) + 1
    return cv2.erode(field, np.ones((size, size), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0


def _even_windows(picture: Sized) -> Iterable[tuple[float, npt.NDArray[np.float64]]]:
    """Give windows of one tissue near the middle beam, where depth runs downwards, with their depth as share."""
    field = _field(picture)
    rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
    side = max(8, 2 * round(WINDOW_MM / picture.mm_per_px / 2))
    half = side // 2
    middle, reach = columns.mean(), 0.2 * np.ptp(columns)
    for top in range(rows[0], rows[-1] - side, half):
        for left in range(int(middle - reach), int(middle + reach) - side, half):
            spot = np.s_[top : top + side, left : left + side]
            if field[spot].all():
                window = picture.pixels[spot].astype(np.float64)
                quarters = window.reshape(2, half, 2, half).mean(axis=(1, 3))
                low, high = WINDOW_GREY
                if low < window.mean() < high and np.ptp(quarters) < EVEN * window.mean():
                    yield (top + half - rows[0]) / np.ptp(rows), window


def _correlation(window: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Autocovariance of a window less its slope, zero lag in the middle."""
    side = len(window)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    flat = window - window.mean()
    flat -= (flat * x).sum() / (x * x).sum() * x + (flat * y).sum() / (y * y).sum() * y
    power = np.abs(np.fft.fft2(flat, (2 * side, 2 * side))) ** 2
    lags = np.fft.fftshift(np.fft.ifft2(power).real)[1:, 1:]
    overlap = side - np.abs(np.arange(1 - side, side))
    return np.asarray(lags / np.outer(overlap, overlap))


def _full_width(profile: npt.NDArray[np.float64]) -> float:
    """Full width at half maximum in lags, of one side that begins at lag zero."""
    share = profile / profile[0]
    below = int(np.argmax(share < 0.5))
    return 2 * (below - 1 + (share[below - 1] - 0.5) / (share[below - 1] - share[below]))


def _speckle_widths_mm(pictures: Sequence[Sized]) -> list[tuple[int, float, float]]:
    """Windows, axial and lateral width of the autocorrelation in each third of the depth; NaN without windows."""
    widths: list[list[tuple[float, float]]] = [[], [], []]
    for picture in pictures:
        for depth, window in _even_windows(picture):
            lags = _correlation(window)
            middle = len(window) - 1
            widths[min(2, int(3 * depth))].append(
                (
                    _full_width(lags[middle : middle + middle // 2, middle]) * picture.mm_per_px,
                    _full_width(lags[middle, middle : middle + middle // 2]) * picture.mm_per_px,
                )
            )
    return [
        (len(third), *(float(np.median([pair[k] for pair in third])) if third else float("nan") for k in (0, 1)))
        for third in widths
    ]


def _contrast(picture: Sized) -> list[float]:
    """Standard deviation over mean of grey in patches of 9 x 9 pixels inside even windows, at 0.28 mm or coarser."""
    shrink = min(1.0, picture.mm_per_px / PATCH_MM_PER_PX)
    if shrink < 1:
        small = cv2.resize(picture.pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        picture = Sized(np.asarray(small, np.uint8), picture.mm_per_px / shrink)
    found = []
    for _, window in _even_windows(picture):
        count = len(window) // PATCH_PX
        part = window[: count * PATCH_PX, : count * PATCH_PX]
        patches = part.reshape(count, PATCH_PX, count, PATCH_PX)
        # A shadow's edge may leave a patch of a window without any echo.
        mean, spread = patches.mean(axis=(1, 3)), patches.std(axis=(1, 3))
        found += (spread[mean > BLACK] / mean[mean > BLACK]).tolist()
    return found


def test_intensity_and_speckle_simulated_beside_real(
    simulated: dict[Protocol, list[Sized]], volume: Volume, hc18_sample: list[Sized], pretus: list[Sized]
) -> None:
    sources = {f"sim. {NAMES[protocol]}": pictures for protocol, pictures in simulated.items()}
    sources |= {
        "HC18": hc18_sample,
        "volume": [_resliced(volume, row) for row in range(80, 151, 4)],
        "pretus": pretus,
    }
    tables: dict[str, list[float]] = {}
    _row("source", "n", "mm/px", "mean", "SD", "5 %", "25 %", "50 %", "75 %", "95 %", "black", "contrast")
    for name, pictures in sources.items():
        grey = np.concatenate([picture.pixels[_field(picture)][::7] for picture in pictures])
        contrast = float(np.median([value for picture in pictures for value in _contrast(picture)]))
        levels = np.percentile(grey, (5, 25, 50, 75, 95))
        size = np.median([picture.mm_per_px for picture in pictures])
        black = (grey <= BLACK).mean()
        _row(
            name, len(pictures), f"{size:.3f}", f"{grey.mean():.1f}", f"{grey.std():.1f}",
            *(f"{level:.0f}" for level in levels), f"{black:.2f}", f"{contrast:.3f}",
        )  # fmt: skip
        tables[name] = [float(grey.mean()), float(grey.std()), contrast]
    _row("source", *(f"{what} {third}" for third in ("near", "middle", "far") for what in ("n", "axial", "lateral")))
    for name, pictures in sources.items():
        _row(name, *(cell for n, *mm in _speckle_widths_mm(pictures) for cell in (n, *(f"{v:.2f} mm" for v in mm))))
    assert all(np.isfinite(values).all() for values in tables.values())


def test_what_is_in_view_along_blind_sweeps_beside_calopus(shared_data: Path) -> None:
    """How likely each anatomy is in view, in tenths of a sweep, beside what people marked in real sweeps.

    CALOPUS' sweeps are not ours, and its frames were marked by eye: steps A and B are taken for sweeps up along the
    middle and beside it, and E for the lower one across. Ages are not published with it.
    """
    path = shared_data / "calopus" / "probabilities.json"
    if not path.is_file():
        pytest.skip(f"no statistics at {path}")
    real = json.loads(path.read_text())
    seen = _in_view_by_tenths(exams=60)
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in MARKED}
    _row("step", "what", "simulated", "CALOPUS", "apart", "correlation")
    for step, (sweep, first, last) in STEPS.items():
        for name, label in MARKED.items():
            marked = np.array(real[f"{step[0]}/all"][label])[first:last]
            theirs = np.array([tenth.mean() for tenth in np.array_split(marked, 10)])
            ours = seen[name][sweep]
            apart, alike = float(np.abs(ours - theirs).mean()), float(np.corrcoef(ours, theirs)[0, 1])
            found[name].append((float(ours.mean()), float(theirs.mean()), apart, alike))
            _row(step, name, *(f"{value:.2f}" for value in found[name][-1]))
    pooled = {name: np.mean(rows, axis=0) for name, rows in found.items()}
    for name, row in pooled.items():
        _row("all", name, *(f"{value:.3f}" for value in row))
    _, _, apart, alike = np.mean(list(pooled.values()), axis=0)
    _row("all", "all", "", "", f"{apart:.3f}", f"{alike:.3f}")
    assert apart < 0.16
    assert alike > 0.45
    assert pooled["fluid"][2] < 0.25


def _in_view_by_tenths(exams: int) -> dict[str, npt.NDArray[np.float64]]:
    """Share of exams of 18 to 36 weeks in which each anatomy is in view, shape (sweeps, 10)."""
    seen = {name: np.zeros((Protocol.ACOUSLIC.sweep_count, 10)) for name in MARKED}
    for number in range(exams):
        weeks = 18.0 + 18.0 * number / exams
        exam = Exam(ExamPlan(Protocol.ACOUSLIC, weeks, seed=1, number=number, skill=0.8, frame_count=10))
        for sweep in {sweep for sweep, *_ in STEPS.values()}:
            for tenth in range(10):
                for name in exam.in_view(sweep, tenth):
                    seen[name][sweep, tenth] += 1 / exams
    return seen
