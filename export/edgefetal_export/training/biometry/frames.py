"""What a network that outlines learns from: labelled frames in memory, and an epoch of varied samples of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from edgefetal_calibration.challenge import PARTIAL_WFSS
from edgefetal_calibration.datasets.hc18 import HeadCase
from edgefetal_calibration.datasets.labelled import NOT_THE_PLANE, OPTIMAL, SUBOPTIMAL
from edgefetal_devices.errors import DatasetError
from edgefetal_export.training.biometry.augment import (
    augmented_frame,
    augmented_head,
    chained,
    outline_in_network,
    soft_mask,
    without_head,
)
from edgefetal_runtime.biometry.principal import PRINCIPAL
from edgefetal_runtime.infer.bundle import HEAD, NO_PLANE
from edgefetal_runtime.infer.preprocess import place, preprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledExam, LabelledSweep
    from edgefetal_export.training.biometry.loop import BiometryRecipe
    from edgefetal_runtime.biometry.ellipse import Ellipse
    from edgefetal_runtime.infer.preprocess import PreprocessSpec
    from edgefetal_runtime.scale import Scale

# The seed of a sample is (seed, epoch, index): any epoch can be made again without the ones before it.
VALIDATION_EPOCH = 1_000_000
_DRAW = 2_000_000_000
# What a frame of each grade is worth: as much as ACOUSLIC-AI's score gives for choosing it.
WORTH = {NOT_THE_PLANE: 0.0, SUBOPTIMAL: PARTIAL_WFSS, OPTIMAL: 1.0}
# `plane` of a sample of which nobody said what it shows.
UNKNOWN_PLANE = -1

Sample = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class TrainingFrame:
    """A frame in memory with its label; of the structures it shows the one of its plane, or none.

    Args:
        pixels: shape (H, W), uint8.
        plane: the plane that it shows, or None where nobody said so.
        outline_px: the structure's outline in pixels, where it was drawn as an ellipse.
        mask: the structure, 0 or 255, shape (H, W), uint8, where it was labelled pixel by pixel.
        scale: pixel size, or None where it is unknown.
        length_mm: reference of the plane's principal length in mm, or None where it has none.
        worth: how good it is to measure, 0 to 1 by its grade, or None where nobody graded.
    """

    pixels: npt.NDArray[np.uint8]
    plane: str | None
    outline_px: Ellipse | None = None
    mask: npt.NDArray[np.uint8] | None = None
    scale: Scale | None = None
    length_mm: float | None = None
    worth: float | None = None


def load_frames(
    exams: Sequence[LabelledExam], advance: Callable[[], None], *, labelled: bool = True
) -> list[list[TrainingFrame]]:
    """Read the frames of every exam into memory (0.5 MB a frame, twice that with a mask).

    Of labelled exams, frames whose plane shows a structure that the dataset does not outline are left out.

    Args:
        exams: which.
        advance: called after every exam.
        labelled: read the labels; otherwise all frames, without any.

    Raises:
        DatasetError: a labelled exam does not say which plane its frames show.
    """
    loaded = []
    for exam in exams:
        if not labelled:
            loaded.append([TrainingFrame(pixels, None) for sweep in exam.sweeps() for pixels in sweep.pixels])
        elif isinstance(exam, HeadCase):
            frame = exam.frame()
            loaded.append([TrainingFrame(frame.pixels, HEAD, exam.head_px(), None, exam.scale, exam.hc_mm)])
        else:
            loaded.append([frame for sweep in exam.sweeps() for frame in _frames_of(exam.name, sweep)])
        advance()
    return loaded


def _frames_of(exam: str, sweep: LabelledSweep) -> list[TrainingFrame]:
    """Return the frames of a sweep that are wholly labelled."""
    if sweep.planes is None:
        message = f"{exam}, {sweep.name}: nobody said which plane its frames show; give data that name planes."
        raise DatasetError(message)
    frames = []
    for index, plane in enumerate(sweep.planes):
        worth = None if sweep.grades is None else WORTH[int(sweep.grades[index])]
        if plane == NO_PLANE:
            frames.append(TrainingFrame(sweep.pixels[index], plane, scale=sweep.scale, worth=worth))
        elif plane in sweep.masks:
            lengths_mm = sweep.lengths_mm.get(PRINCIPAL[plane].name) if plane in PRINCIPAL else None
            length_mm = np.nan if lengths_mm is None else float(lengths_mm[index])
            frames.append(
                TrainingFrame(
                    pixels=sweep.pixels[index],
                    plane=plane,
                    mask=sweep.masks[plane][index] * np.uint8(255),
                    scale=sweep.scale,
                    length_mm=None if np.isnan(length_mm) else length_mm,
                    worth=worth,
                )
            )
    return frames


def require_labels(exams: Sequence[Sequence[TrainingFrame]], structures: Sequence[str]) -> None:
    """Refuse to train a mask channel that no frame teaches.

    Raises:
        DatasetError: a structure is nowhere outlined, or another one is.
    """
    outlined = {frame.plane for exam in exams for frame in exam if frame.plane not in (NO_PLANE, None)}
    if lacking := [structure for structure in structures if structure not in outlined]:
        message = f"No training frame outlines the {lacking[0]}; add data that do, or leave it out of --structures."
        raise DatasetError(message)
    if beyond := sorted(filter(None, outlined.difference(structures))):
        message = f"The data outline the {beyond[0]} too; add it to --structures, or leave these data out."
        raise DatasetError(message)


def require_references(frames: Sequence[TrainingFrame], structures: Sequence[str]) -> None:
    """Refuse to choose a checkpoint by lengths that no validation frame has.

    Raises:
        DatasetError: no frame has a reference length of a structure.
    """
    known = {frame.plane for frame in frames if frame.length_mm is not None and frame.scale is not None}
    if lacking := [structure for structure in structures if structure not in known]:
        message = (
            f"No validation frame has a {PRINCIPAL[lacking[0]].name} to choose a checkpoint by; give more exams of the "
            f"{lacking[0]} with pixel size and length, or another --seed."
        )
        raise DatasetError(message)


def drawn_frames(
    exams: Sequence[Sequence[TrainingFrame]], frames_per_exam: int, seed: tuple[int, int]
) -> list[TrainingFrame]:
    """Draw some frames of each exam, and all where it has no more; half of them, where it can be, show a plane.

    Neighbouring frames of a sweep are alike, so other ones are drawn in each epoch.
    """
    rng = np.random.default_rng((*seed, _DRAW))
    frames: list[TrainingFrame] = []
    for exam in exams:
        if len(exam) <= frames_per_exam:
            frames.extend(exam)
            continue
        shows = np.array([frame.plane != NO_PLANE for frame in exam])
        order = rng.permutation(len(exam))
        with_plane, without = order[shows[order]], order[~shows[order]]
        count = max(min(len(with_plane), (frames_per_exam + 1) // 2), frames_per_exam - len(without))
        chosen = (*with_plane[:count], *without[: frames_per_exam - count])
        frames.extend(exam[index] for index in sorted(chosen))
    return frames


class EpochSamples(Dataset[Sample]):
    """One epoch of varied frames, and of pictures made from annotated heads by taking the head away.

    A sample holds `image`, shape (1, h, w), the soft `masks`, shape (structures, h, w), and `plane`, its plane's
    number, or `UNKNOWN_PLANE`, where its masks say nothing either.
    """

    def __init__(self, exams: Sequence[Sequence[TrainingFrame]], recipe: BiometryRecipe, epoch: int) -> None:
        """Set up the epoch; nothing is computed before a sample is asked for."""
        self._frames = drawn_frames(exams, recipe.frames_per_exam, (recipe.seed, epoch))
        self._heads = [(f.pixels, f.outline_px) for f in self._frames if f.outline_px is not None]
        self._recipe, self._epoch = recipe, epoch

    def __len__(self) -> int:
        """Count the samples: every frame once, and the recipe's share of pictures without a head."""
        return len(self._frames) + round(self._recipe.no_head_share * len(self._heads))

    def __getitem__(self, index: int) -> Sample:
        """Make sample `index`, the same one whenever it is asked for."""
        return self.made(index)[0]

    def made(self, index: int) -> tuple[Sample, Varied | None]:
        """Make sample `index`; return the frame that it was varied from too, unless its head was taken away."""
        recipe = self._recipe
        rng = np.random.default_rng((recipe.seed, self._epoch, index))
        spec, network = recipe.preprocess, recipe.network
        masks = np.zeros((len(network.structures), spec.height_px, spec.width_px), np.float32)
        if index < len(self._frames):
            frame = self._frames[index]
            image, mask, to_network = _varied(frame, spec, rng)
            if frame.plane in network.structures and mask is not None:
                masks[network.structures.index(frame.plane)] = mask
            plane = UNKNOWN_PLANE if frame.plane is None else network.planes.index(frame.plane)
            varied = Varied(frame, to_network)
        else:
            pixels, outline_px = self._heads[int(rng.integers(len(self._heads)))]
            image, _ = preprocess(without_head(pixels, outline_px, rng), spec)
            plane, varied = network.planes.index(NO_PLANE), None
        sample = {"image": torch.from_numpy(image[0]), "masks": torch.from_numpy(masks), "plane": torch.tensor(plane)}
        return sample, varied


@dataclass(frozen=True, eq=False)
class Varied:
    """Where a sample came from.

    Args:
        frame: the frame.
        to_network: from its pixels to those of the network's input, shape (2, 3).
    """

    frame: TrainingFrame
    to_network: npt.NDArray[np.float64]


def _varied(
    frame: TrainingFrame, spec: PreprocessSpec, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None, npt.NDArray[np.float64]]:
    """Vary a frame.

    Returns:
        Its image, shape (1, 1, h, w), the soft mask of its structure, shape (h, w), and where its pixels went, (2, 3).
    """
    if frame.outline_px is not None:
        pixels, outline_px, moved_by = augmented_head(frame.pixels, frame.outline_px, rng)
        image, box = preprocess(pixels, spec)
        outline = outline_in_network(outline_px, box)
        return image, None if outline is None else soft_mask(outline, spec), chained(moved_by, box.matrix_to_network())
    pixels, mask, moved_by = augmented_frame(frame.pixels, frame.mask, rng)
    image, box = preprocess(pixels, spec)
    soft = None if mask is None else (place(mask, spec)[0] / 255).astype(np.float32)
    return image, soft, chained(moved_by, box.matrix_to_network())
