"""The worst cases as pictures, for those who may see the validation data: never a part of the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from edgefetal_calibration.evaluate import mask_in_frame
from edgefetal_calibration.frames import chosen_frames
from edgefetal_devices.errors import OutputError
from edgefetal_export.evidence import CasePicture, WorstCase, worst_cases, write_cases_page
from edgefetal_export.ship import frames_per_exam
from edgefetal_runtime.atomic import require_new_folder, write_folder
from edgefetal_runtime.biometry.principal import PRINCIPAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_calibration.frames import ChosenFrame
    from edgefetal_runtime.infer.network import Network

CASES_PAGE: Final = "worst_cases.html"
# Outlines in the order in which they are drawn, each colour as its share of blue, green and red.
_COLOURS: Final = {"truth": (115, 158, 0), "reference": (233, 180, 86), "shipped": (0, 94, 213)}
_KEY: Final = "truth green, float blue, shipped orange"
# A line of one pixel hides what it is drawn on unless the picture is about so wide.
_WIDTH_PX: Final = 800


def require_place_for_cases(folder: Path, bundle: Path) -> None:
    """Refuse a folder for the page before the work that it comes from.

    Args:
        folder: where the page goes; must not exist.
        bundle: where the bundle goes, which must not hold the page, nor lie beside it.

    Raises:
        OutputError: it exists, cannot be written, or one of the two lies in the other.
    """
    if folder.resolve() == bundle.resolve():
        raise OutputError(f"{folder} is where the bundle goes, which must hold no patient's picture; name another.")
    require_new_folder(folder, outside=bundle)
    require_new_folder(bundle, outside=folder)


def write_worst_cases(
    folder: Path,
    name: str,
    networks: Mapping[str, Network],
    exams: Sequence[LabelledExam],
    frames: Mapping[str, Sequence[Mapping[str, Any]]],
) -> int:
    """Write the page: the worst frames with the outlines of both graphs, and of the label where there is one.

    Args:
        folder: where; must not exist.
        name: of the bundle.
        networks: `shipped` and `reference`.
        exams: those that the frames are of.
        frames: the results of both graphs, as `frame_rows` returns them.

    Returns:
        How many pictures it holds.

    Raises:
        DatasetError: an exam cannot be read.
        OutputError: the folder exists or cannot be written.
    """
    worst = worst_cases(frames)
    names = {str(case.shipped["name"]) for case in worst}
    count = frames_per_exam(networks["shipped"].manifest.heads)
    # A frame is named after its exam, and by its place where the exam has several.
    wanted = [exam for exam in exams if any(given == exam.name or given.startswith(f"{exam.name}/") for given in names)]
    shown = {frame.name: frame for exam in wanted for frame in chosen_frames(exam, count) if frame.name in names}
    pictures = [_picture(case, shown[str(case.shipped["name"])], networks) for case in worst]
    write_folder(folder, {CASES_PAGE: write_cases_page(name, frames, pictures)})
    return len(pictures)


def _picture(case: WorstCase, frame: ChosenFrame, networks: Mapping[str, Network]) -> CasePicture:
    """Draw a frame with its outlines, and say what was found in it."""
    heads = networks["shipped"].manifest.heads
    factor = max(1, round(_WIDTH_PX / frame.pixels.shape[1]))
    grey = cv2.resize(frame.pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    canvas = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
    caption = _said(case)
    if case.shipped["measure"] is not None:
        (structure,) = (s for s in heads.mask if PRINCIPAL[s].name == case.shipped["measure"])
        outlined = {
            graph: _mask(network, frame.pixels, heads.mask.index(structure)) for graph, network in networks.items()
        }
        masks = outlined if frame.mask is None else outlined | {"truth": frame.mask}
        for of, colour in _COLOURS.items():
            if of in masks:
                _outline(canvas, masks[of], factor, colour)
        caption = f"{caption} Outlines: {_KEY if frame.mask is not None else _KEY.partition(', ')[2]}."
    ok, png = cv2.imencode(".png", canvas)
    assert ok  # noqa: S101 - OpenCV encodes every 8-bit picture
    return CasePicture(caption, png.tobytes())


def _mask(network: Network, pixels: npt.NDArray[np.uint8], channel: int) -> npt.NDArray[np.bool_]:
    """Outline a structure in a frame, shape (H, W)."""
    image, box = network.prepare(pixels)
    logits = network.infer(image).mask_logits[channel]
    return mask_in_frame(logits, box, (pixels.shape[0], pixels.shape[1]))


def _outline(
    canvas: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], factor: int, colour: tuple[int, int, int]
) -> None:
    """Draw the edges of a mask on a picture that is larger by a factor."""
    large = np.repeat(np.repeat(mask.astype(np.uint8), factor, axis=0), factor, axis=1)
    edges, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, edges, -1, colour, 1)


def _said(case: WorstCase) -> str:
    """Say what both graphs found in a frame."""
    ours, theirs = case.shipped, case.reference
    where = f"{ours['name']} ({ours['source']})"
    if ours["measure"] is None:
        grade = "good" if ours["good"] else "not good"
        return (
            f"{where}: graded {grade}; float {theirs['quality']:.3f} ({_call(theirs)}), shipped {ours['quality']:.3f} "
            f"({_call(ours)})."
        )
    found = f"lost ({ours['abstained']})" if ours["measured_mm"] is None else f"{ours['measured_mm']:.1f} mm"
    return (
        f"{where}: {ours['measure']} {ours['reference_mm']:.1f} mm, float {theirs['measured_mm']:.1f} mm, shipped "
        f"{found}."
    )


def _call(row: Mapping[str, Any]) -> str:
    return "called good" if row["called"] else "called not good"
