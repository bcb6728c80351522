"""What networks say of labelled frames of any kind: plane, length, outline and quality, frame by frame."""

from __future__ import annotations

import hashlib
import heapq
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefetal_calibration.datasets import hc18
from edgefetal_calibration.datasets.labelled import NOT_THE_PLANE
from edgefetal_calibration.datasets.split import kind_in_name
from edgefetal_calibration.each import in_order, in_turn
from edgefetal_calibration.evaluate import dice, mask_in_frame
from edgefetal_devices.errors import InputError
from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.biometry.principal import PRINCIPAL, principal_length
from edgefetal_runtime.exam.find import find
from edgefetal_runtime.infer.bundle import NO_PLANE
from edgefetal_runtime.scale import NOT_GIVEN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledExam, LabelledSweep
    from edgefetal_calibration.each import Mapper
    from edgefetal_runtime.infer.network import Network, NetworkOutput
    from edgefetal_runtime.infer.preprocess import Letterbox
    from edgefetal_runtime.scale import Scale


@dataclass(frozen=True)
class FrameResult:
    """One frame's outcome.

    Args:
        name: of the frame: that of its exam, and of its sweep and its number there where the exam has several.
        subject: whose it is.
        source: kind of the dataset, which stands for the scanner.
        plane: the plane that it shows, in the words of the network: a plane that it has no class for is none to it.
            None where nobody said so.
        named: the plane that the network names, or None where it has no such head.
        probability: the network's probability of the named plane, or None likewise.
        measure: `HC`, `AC` or `FL`, where the frame shows a structure that the network outlines, or None.
        reference_mm: reference of that measure in mm, or None where there is none or no pixel size.
        measured_mm: what was measured in mm, or None.
        abstained: why it was not measured, or None.
        dice: overlap of the network's mask of that structure with the label, 0 to 1, or None where nobody outlined it.
        good: whether the frame was graded as one that shows its plane, or None where nobody graded.
        quality: the network's probability of that, or None where it has no such head.
        called: whether that reaches the bundle's threshold, so that the network calls the frame good; None likewise.
        seconds: preparing, running and measuring; reading the file is not in it.
    """

    name: str
    subject: str
    source: str
    plane: str | None
    named: str | None
    probability: float | None
    measure: str | None
    reference_mm: float | None
    measured_mm: float | None
    abstained: str | None
    dice: float | None
    good: bool | None
    quality: float | None
    called: bool | None
    seconds: float


@dataclass(frozen=True, eq=False)
class ChosenFrame:
    """A labelled frame in memory.

    Args:
        name: its name, which its results carry.
        pixels: shape (H, W), uint8.
        plane: the plane that it shows, or None where nobody said so.
        mask: its plane's structure, shape (H, W), bool, or None where nobody outlined it.
        scale: pixel size, or None.
        length_mm: reference of its plane's principal measure, or None.
        good: whether it was graded as showing its plane, or None.
    """

    name: str
    pixels: npt.NDArray[np.uint8]
    plane: str | None
    mask: npt.NDArray[np.bool_] | None
    scale: Scale | None
    length_mm: float | None
    good: bool | None


def evaluate_frames(
    networks: Mapping[str, Network],
    exams: Sequence[LabelledExam],
    frames_per_exam: int,
    on_exam: Callable[[], None] = lambda: None,
    mapper: Mapper = in_turn,
) -> dict[str, list[FrameResult]]:
    """Run every network on the very same frames, in an order that alternates, so their times compare.

    Heads go through the clinic's own path with the bundle's thresholds. A sweep is in memory at a time.

    Args:
        networks: networks by name.
        exams: labelled exams of any kind.
        frames_per_exam: at most so many frames of each exam are taken, the same ones whenever it is asked for; half of
            them, where it can be, show a plane.
        on_exam: called after every exam.
        mapper: who does it.

    Returns:
        For each network, one result a frame, in the order of the exams.

    Raises:
        InputError: `frames_per_exam` is not positive.
        DatasetError: an exam cannot be read.
    """
    if frames_per_exam < 1:
        raise InputError(f"{frames_per_exam} frames an exam leave nothing to judge; ask for 1 or more.")
    one = partial(_evaluate_exam, networks, frames_per_exam)
    found = in_order(mapper, one, list(enumerate(exams)), [exam.name for exam in exams], on_exam)
    return {name: [result for of_exam in found for result in of_exam[name]] for name in networks}


def _evaluate_exam(
    networks: Mapping[str, Network], frames_per_exam: int, numbered: tuple[int, LabelledExam]
) -> dict[str, list[FrameResult]]:
    """Run every network on frames of one exam; `numbered` is the exam with its number, which says who comes first."""
    first, exam = numbered
    results: dict[str, list[FrameResult]] = {name: [] for name in networks}
    source = kind_in_name(exam.subject) or hc18.KIND
    for number, frame in enumerate(chosen_frames(exam, frames_per_exam), first):
        for name in list(networks)[:: -1 if number % 2 else 1]:
            results[name].append(_run_frame(networks[name], frame, exam.subject, source))
    return results


def summarise_frames(results: Sequence[FrameResult]) -> dict[str, Any]:
    """Summarise one network's results, lengths by measure, as JSON values; figures over nothing are null.

    Args:
        results: at least one frame.
    """
    named = [
        result.named == result.plane for result in results if result.named is not None and result.plane is not None
    ]
    return {
        "n": len(results),
        "n_subjects": len({result.subject for result in results}),
        "plane_accuracy": float(np.mean(named)) if named else None,
        "seconds_per_frame": float(np.median([result.seconds for result in results])),
        "lengths": {
            measure: _length_summary([result for result in results if result.measure == measure])
            for measure in sorted({result.measure for result in results if result.measure is not None})
        },
        "calls": _call_summary(results),
    }


def _call_summary(results: Sequence[FrameResult]) -> dict[str, Any] | None:
    """Summarise how well graded frames are called good or not; None where there are none, or no calls."""
    pairs = [(result.good, result.called) for result in results if None not in {result.good, result.called}]
    if not pairs:
        return None
    hits, misses, alarms = (pairs.count(pair) for pair in ((True, True), (True, False), (False, True)))
    return {
        "n": len(pairs),
        "n_good": hits + misses,
        "n_called": hits + alarms,
        "n_right": len(pairs) - misses - alarms,
        "f1": 2 * hits / (2 * hits + misses + alarms) if hits + misses + alarms else None,
    }


def _length_summary(results: Sequence[FrameResult]) -> dict[str, Any]:
    pairs = [(result.measured_mm, result.reference_mm) for result in results if result.reference_mm is not None]
    errors_mm = np.array([measured - true for measured, true in pairs if measured is not None])
    dices = [result.dice for result in results if result.dice is not None]
    some = len(errors_mm) > 0
    return {
        "n": len(pairs),
        "n_measured": len(errors_mm),
        "mae_mm": float(np.abs(errors_mm).mean()) if some else None,
        "bias_mm": float(errors_mm.mean()) if some else None,
        "max_mm": float(np.abs(errors_mm).max()) if some else None,
        "dice_mean": float(np.mean(dices)) if dices else None,
    }


def frame_rows(results: Sequence[FrameResult]) -> list[dict[str, Any]]:
    """Return the results as JSON values."""
    return [asdict(result) for result in results]


def chosen_frames(exam: LabelledExam, count: int) -> list[ChosenFrame]:
    """Draw frames of an exam by its name; those of which nothing is known are left out.

    Args:
        exam: of any kind.
        count: at most so many frames.

    Raises:
        DatasetError: the exam cannot be read.
    """
    seed = int.from_bytes(hashlib.sha256(exam.name.encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    # Whether a frame is taken is known only when all sweeps were seen, so as many as may be needed of either sort are
    # kept: (drawn key, place in the exam, frame).
    kept: dict[bool, list[tuple[float, int, ChosenFrame]]] = {True: [], False: []}
    before = 0
    for sweep in exam.sweeps():
        keys = rng.random(len(sweep.pixels)).tolist()
        planes = [_plane_of(sweep, index) for index in range(len(sweep.pixels))]
        for shows, frames in kept.items():
            indices = [
                index
                for index, plane in enumerate(planes)
                if (plane in PRINCIPAL) == shows and (plane is not None or sweep.grades is not None)
            ]
            frames += [
                (keys[index], before + index, _frame(exam.name, sweep, index, planes[index]))
                for index in heapq.nsmallest(count, indices, key=keys.__getitem__)
            ]
            frames.sort(key=lambda drawn: drawn[:2])
            del frames[count:]
        before += len(planes)
    with_plane = max(min(len(kept[True]), (count + 1) // 2), count - len(kept[False]))
    taken = (*kept[True][:with_plane], *kept[False][: count - min(with_plane, len(kept[True]))])
    return [frame for _, _, frame in sorted(taken, key=lambda drawn: drawn[1])]


def _plane_of(sweep: LabelledSweep, index: int) -> str | None:
    """Return the plane that a frame shows: as was said, or that of the structure which was outlined in it."""
    if sweep.planes is not None:
        return sweep.planes[index]
    return next((structure for structure, mask in sweep.masks.items() if mask[index].any()), None)


def _frame(exam: str, sweep: LabelledSweep, index: int, plane: str | None) -> ChosenFrame:
    """Take a frame out of its sweep, so that the sweep need not stay in memory."""
    outlined = None if plane is None else sweep.masks.get(plane)
    lengths_mm = sweep.lengths_mm.get(PRINCIPAL[plane].name) if plane in PRINCIPAL else None
    length_mm = None if lengths_mm is None or np.isnan(lengths_mm[index]) else float(lengths_mm[index])
    return ChosenFrame(
        name=exam if sweep.name == exam else f"{exam}/{sweep.name}/{index}",
        pixels=sweep.pixels[index].copy(),
        plane=plane,
        mask=None if outlined is None else outlined[index].astype(bool),
        scale=sweep.scale,
        length_mm=length_mm,
        good=None if sweep.grades is None else bool(sweep.grades[index] != NOT_THE_PLANE),
    )


def _run_frame(network: Network, frame: ChosenFrame, subject: str, source: str) -> FrameResult:
    heads = network.manifest.heads
    structure = frame.plane if frame.plane in PRINCIPAL and frame.plane in heads.mask else None
    started_s = time.perf_counter()
    image, box = network.prepare(frame.pixels)
    output = network.infer(image)
    length = None if structure is None else _length(network, structure, image, output, box, frame.scale)
    seconds = time.perf_counter() - started_s
    named = max(output.plane_probability, key=output.plane_probability.__getitem__, default=None)
    overlap = None
    if structure is not None and frame.mask is not None:
        logits = output.mask_logits[heads.mask.index(structure)]
        overlap = dice(mask_in_frame(logits, box, (frame.mask.shape[0], frame.mask.shape[1])), frame.mask)
    return FrameResult(
        name=frame.name,
        subject=subject,
        source=source,
        plane=_in_words_of(heads.plane, frame.plane),
        named=named,
        probability=None if named is None else output.plane_probability[named],
        measure=None if structure is None else PRINCIPAL[structure].name,
        reference_mm=frame.length_mm if structure is not None and frame.scale is not None else None,
        measured_mm=length.value if isinstance(length, Measured) else None,
        abstained=length.reason if isinstance(length, Abstained) else None,
        dice=overlap,
        good=frame.good,
        quality=output.quality,
        called=None if output.quality is None else output.quality >= network.manifest.thresholds.quality,
        seconds=seconds,
    )


def _in_words_of(planes: Sequence[str], plane: str | None) -> str | None:
    """Return a plane as one of a network's classes; None where it is unknown, or where no class fits it."""
    if plane is None or not planes or plane in planes:
        return plane
    return NO_PLANE if NO_PLANE in planes else None


def _length(
    network: Network,
    structure: str,
    image: npt.NDArray[np.float32],
    output: NetworkOutput,
    box: Letterbox,
    scale: Scale | None,
) -> Measured | Abstained:
    """Measure a structure in the network's answer for a frame that shows it."""
    return principal_length(find(network.manifest, structure, image, output, box, scale or NOT_GIVEN), structure)
