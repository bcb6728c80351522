"""Accuracy of a network on labelled heads, case by case, through the clinic's own path."""

from __future__ import annotations

import itertools
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edgefetal_calibration.bootstrap import bounded, mean_of
from edgefetal_calibration.cut import cut_picture
from edgefetal_calibration.datasets.masks import ellipse_mask
from edgefetal_calibration.each import in_order, in_turn
from edgefetal_runtime.biometry.head import measure_head
from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.biometry.outline import Outline
from edgefetal_runtime.biometry.quantities import HC
from edgefetal_runtime.exam.find import find, plane_probability
from edgefetal_runtime.infer.bundle import HEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_calibration.each import Mapper
    from edgefetal_runtime.biometry.ellipse import Ellipse
    from edgefetal_runtime.infer.network import Network
    from edgefetal_runtime.infer.preprocess import Letterbox

# Small heads are of the first trimester and early second, where the same error in mm weighs more.
SIZE_BANDS_MM = (0, 100, 200, 1000)

# To hand a picture to another process takes half as long as to measure it.
_BATCH = 16


@dataclass(frozen=True)
class CaseResult:
    """One picture's outcome.

    Args:
        name: file name.
        subject: whose picture it is.
        truth: reference of each measure by its name; lengths in mm.
        measured: value of each measure by its name; empty where the frame was refused.
        intervals: its interval, where the bundle's tables give one.
        abstained: why HC was not measured, or None.
        plane_probability: the network's probability that this is a head plane.
        agreement: soft Dice between the network's probabilities and the fitted ellipse, or None where none fits.
        roughness: how far the outline strays from its ellipse, or None where none fits.
        coverage: share of the outline that was seen, or None where none fits.
        dice: overlap of the network's mask with the annotated ellipse, 0 to 1.
        seconds: preparing, running and measuring; reading the file is not in it.
    """

    name: str
    subject: str
    truth: dict[str, float]
    measured: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    abstained: str | None
    plane_probability: float
    agreement: float | None
    roughness: float | None
    coverage: float | None
    dice: float
    seconds: float

    @property
    def hc_true_mm(self) -> float:
        """Reference head circumference."""
        return self.truth[HC.name]

    @property
    def hc_mm(self) -> float | None:
        """Measured head circumference, or None."""
        return self.measured.get(HC.name)


def logits_in_frame(
    mask_logits: npt.NDArray[np.float32], box: Letterbox, shape: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Bring logits from the network's grid, shape (h, w), to the frame's, shape (H, W)."""
    resampled = cv2.warpAffine(
        mask_logits,
        box.matrix_to_network(),
        (shape[1], shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(resampled, np.float32)


def mask_in_frame(
    mask_logits: npt.NDArray[np.float32], box: Letterbox, shape: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Bring a mask from the network's grid, shape (h, w), to the frame's, shape (H, W)."""
    return logits_in_frame(mask_logits, box, shape) > 0


def dice(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """Dice coefficient of two masks; 1 where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total


def _run_case(network: Network, case: HeadCase, pixels: npt.NDArray[np.uint8], head_px: Ellipse) -> CaseResult:
    started_s = time.perf_counter()
    image, box = network.prepare(pixels)
    output = network.infer(image)
    outline = find(network.manifest, HEAD, image, output, box, case.scale)
    measures = measure_head(outline, network.manifest.intervals) if isinstance(outline, Outline) else {}
    seconds = time.perf_counter() - started_s
    mask = mask_in_frame(output.mask_logits[network.manifest.heads.mask.index(HEAD)], box, pixels.shape[:2])
    found = {measure.name: value for measure, value in measures.items() if isinstance(value, Measured)}
    why = measures[HC] if isinstance(outline, Outline) else outline
    return CaseResult(
        name=case.name,
        subject=case.subject,
        truth=case.truth(head_px),
        measured={name: value.value for name, value in found.items()},
        intervals={name: value.interval for name, value in found.items() if value.interval is not None},
        abstained=why.reason if isinstance(why, Abstained) else None,
        plane_probability=plane_probability(output, HEAD),
        agreement=outline.agreement if isinstance(outline, Outline) else None,
        roughness=outline.roughness if isinstance(outline, Outline) else None,
        coverage=outline.coverage if isinstance(outline, Outline) else None,
        dice=dice(mask, ellipse_mask(head_px, (pixels.shape[0], pixels.shape[1]))),
        seconds=seconds,
    )


def evaluate_heads(
    networks: Mapping[str, Network],
    cases: Sequence[HeadCase],
    on_case: Callable[[], None] = lambda: None,
    hidden_share: float = 0.0,
    mapper: Mapper = in_turn,
) -> dict[str, list[CaseResult]]:
    """Measure every case with every network, one after the other in an order that alternates, so their times compare.

    Args:
        networks: networks by name.
        cases: labelled pictures.
        on_case: called after every picture.
        hidden_share: share of each head's area to black out behind a straight edge first.
        mapper: who does it.

    Returns:
        For each network, one result a case, in the order of the cases.

    Raises:
        SourceError: a picture cannot be read.
        DatasetError: an annotation holds no outline.
    """
    one = partial(_evaluate_head, networks, hidden_share)
    found = in_order(mapper, one, list(enumerate(cases)), [case.name for case in cases], on_case, batch=_BATCH)
    return {name: [of_case[name] for of_case in found] for name in networks}


def _evaluate_head(
    networks: Mapping[str, Network], hidden_share: float, numbered: tuple[int, HeadCase]
) -> dict[str, CaseResult]:
    """Measure one case with every network; `numbered` is the case with its number, which says who comes first."""
    number, case = numbered
    pixels = case.frame().pixels
    head_px = case.head_px()
    if hidden_share:
        pixels = cut_picture(pixels, head_px, hidden_share, case.name)
    names = list(networks)[:: -1 if number % 2 else 1]
    return {name: _run_case(networks[name], case, pixels, head_px) for name in names}


def summarise(results: Sequence[CaseResult]) -> dict[str, Any]:
    """Summarise one network's results, all together and by size of the head.

    Figures over the measured cases are null where there is none.

    Args:
        results: at least one case.
    """
    return {
        **_summary(results),
        "seconds_per_frame": float(np.median([r.seconds for r in results])),
        "by_size": [
            {"from_mm": low, "to_mm": high, **_summary(within)}
            for low, high in itertools.pairwise(SIZE_BANDS_MM)
            if (within := [r for r in results if low <= r.hc_true_mm < high])
        ],
    }


def _summary(results: Sequence[CaseResult]) -> dict[str, Any]:
    errors_mm = np.array([r.hc_mm - r.hc_true_mm for r in results if r.hc_mm is not None])
    measured = len(errors_mm) > 0
    return {
        "n": len(results),
        "n_subjects": len({r.subject for r in results}),
        "n_measured": len(errors_mm),
        "hc_mae_mm": float(np.abs(errors_mm).mean()) if measured else None,
        "hc_bias_mm": float(errors_mm.mean()) if measured else None,
        "hc_sd_mm": float(errors_mm.std(ddof=1)) if len(errors_mm) > 1 else None,
        "hc_p95_mm": float(np.percentile(np.abs(errors_mm), 95)) if measured else None,
        "hc_max_mm": float(np.abs(errors_mm).max()) if measured else None,
        "dice_mean": float(np.mean([r.dice for r in results])),
    }


def compare(results: Sequence[CaseResult], reference: Sequence[CaseResult]) -> dict[str, Any]:
    """Compare two networks case by case; both lists are of the same cases in the same order.

    The differences are `results` minus `reference`, over the cases that both measured.
    """
    pairs = list(zip(results, reference, strict=True))
    both = [
        (a.subject, a.hc_mm - b.hc_mm, abs(a.hc_mm - a.hc_true_mm) - abs(b.hc_mm - b.hc_true_mm))
        for a, b in pairs
        if a.hc_mm is not None and b.hc_mm is not None
    ]
    differences_mm = np.array([difference for _, difference, _ in both])
    absolute_mm = np.abs(differences_mm)
    some = len(both) > 0
    return {
        "n_both_measured": len(both),
        "n_only_one_measured": sum((a.hc_mm is None) != (b.hc_mm is None) for a, b in pairs),
        "hc_mean_abs_difference_mm": float(absolute_mm.mean()) if some else None,
        "hc_difference_upper_mm": _upper_bound([subject for subject, _, _ in both], absolute_mm),
        "hc_mean_difference_mm": float(differences_mm.mean()) if some else None,
        "hc_max_abs_difference_mm": float(absolute_mm.max()) if some else None,
        "hc_mae_change_mm": float(np.mean([change for _, _, change in both])) if some else None,
        "time_ratio": float(np.median([b.seconds / a.seconds for a, b in pairs])),
    }


def _upper_bound(subjects: Sequence[str], values: npt.NDArray[np.float64]) -> float | None:
    """One-sided 95 % bootstrap bound of a mean over subjects; None where there is none."""
    found = bounded(subjects, mean_of(subjects, values.tolist())) if subjects else None
    return None if found is None else found.upper


def rows(results: Sequence[CaseResult]) -> list[dict[str, Any]]:
    """Return the results as JSON values."""
    return [{**asdict(result), "hc_true_mm": result.hc_true_mm, "hc_mm": result.hc_mm} for result in results]
