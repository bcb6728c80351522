"""Clips for skill assessment: sweeps in memory at the network's size, tiled for judging, drawn for learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgefetal_devices.errors import DatasetError
from edgefetal_export.training.skill.levels import ClipBatch
from edgefetal_runtime.infer.preprocess import normalise, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledExam, LabelledSweep
    from edgefetal_export.teachers.skill import SkillConfig
    from edgefetal_runtime.infer.preprocess import PreprocessSpec

# A placed mask counts where at least half of a network pixel is inside.
_HALF = 128


@dataclass(frozen=True, eq=False)
class PreparedSweep:
    """A sweep at the network's size. It has no place for an operator's stored skill, so nothing can learn from it.

    Args:
        exam: name of its exam; an exam is one operator's.
        name: of the sweep within the exam.
        pixels: shape (T, h, w), uint8, placed by the recipe's preprocessing.
        masks: shape (structures, T, h, w), uint8, 0 or 1, placed alike.
    """

    exam: str
    name: str
    pixels: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cut:
    """Where a clip is taken, and how it is varied.

    Args:
        sweep: number of its sweep in the list at hand.
        start: its first frame.
        mirrored: left and right are exchanged.
        backwards: the frames run from the last to the first.
    """

    sweep: int
    start: int
    mirrored: bool = False
    backwards: bool = False


def labelled_structures(exams: Sequence[LabelledExam]) -> tuple[str, ...]:
    """Name the structures that the first sweep of the first exam has masks of, in order.

    Raises:
        DatasetError: there is no exam or sweep, or it has no masks.
    """
    sweep = next((sweep for exam in exams[:1] for sweep in exam.sweeps()), None)
    if sweep is None or not sweep.masks:
        raise DatasetError(
            "The first exam has no masks, and skill is learnt from how well masks are drawn; give a dataset with "
            "masks, such as phantom:DIR."
        )
    return tuple(sorted(sweep.masks))


def load_sweeps(
    exams: Sequence[LabelledExam],
    config: SkillConfig,
    spec: PreprocessSpec,
    advance: Callable[[], None] = lambda: None,
) -> list[PreparedSweep]:
    """Read exams into memory, a sweep at a time (1.5 MB for 60 frames of 128 x 96 and one structure).

    Args:
        exams: which.
        config: gives the structures and the length of a clip.
        spec: how frames are placed.
        advance: called after every exam.

    Raises:
        DatasetError: a sweep is shorter than a clip, or has no mask of a structure.
    """
    sweeps = []
    for exam in exams:
        sweeps += [prepared(exam.name, sweep, config, spec) for sweep in exam.sweeps()]
        advance()
    return sweeps


def stored_skills(exams: Sequence[LabelledExam]) -> dict[str, float]:
    """Read the stored skill of every exam's operator, where there is one; only for judging a finished run."""
    return {exam.name: sweep.skill for exam in exams for sweep in exam.sweeps() if sweep.skill is not None}


def prepared(exam: str, sweep: LabelledSweep, config: SkillConfig, spec: PreprocessSpec) -> PreparedSweep:
    """Place the frames and masks of a sweep.

    Raises:
        DatasetError: it is shorter than a clip, or has no mask of a structure.
    """
    if len(sweep.pixels) < config.seq_len:
        raise DatasetError(
            f"{exam}, {sweep.name} has {len(sweep.pixels)} frames and a clip has {config.seq_len}; leave the exam out, "
            "or give --clip-frames."
        )
    lacking = [structure for structure in config.structures if structure not in sweep.masks]
    if lacking:
        raise DatasetError(
            f"{exam}, {sweep.name} has no mask of the {lacking[0]}; give exams that all have one, or name others with "
            "--structures."
        )
    pixels = np.stack([place(frame, spec)[0] for frame in sweep.pixels])
    masks = np.stack(
        [
            np.stack([place(mask * np.uint8(255), spec)[0] >= _HALF for mask in sweep.masks[structure]])
            for structure in config.structures
        ]
    )
    return PreparedSweep(exam, sweep.name, pixels, masks.astype(np.uint8))


def tiles(sweeps: Sequence[PreparedSweep], seq_len: int) -> list[Cut]:
    """Tile sweeps with clips that do not overlap, counted from the end, where the published set has its best plane."""
    cuts = []
    for number, sweep in enumerate(sweeps):
        frames = len(sweep.pixels)
        cuts += [Cut(number, start) for start in range(frames % seq_len, frames, seq_len)]
    return cuts


def drawn_cuts(sweeps: Sequence[PreparedSweep], seq_len: int, rng: np.random.Generator) -> list[Cut]:
    """Draw as many clips of each sweep as tile it, from random starts, half of them mirrored, half backwards, shuffled.

    A plane seen from the other side, or crossed the other way, is as hard to draw.
    """
    cuts = []
    for number, sweep in enumerate(sweeps):
        frames = len(sweep.pixels)
        for _ in range(frames // seq_len):
            start = int(rng.integers(frames - seq_len + 1))
            mirrored, backwards = (bool(flip) for flip in rng.uniform(size=2) < 0.5)  # noqa: PLR2004 - half of them
            cuts.append(Cut(number, start, mirrored, backwards))
    return [cuts[k] for k in rng.permutation(len(cuts))]


def clip_batch(sweeps: Sequence[PreparedSweep], cuts: Sequence[Cut], seq_len: int, spec: PreprocessSpec) -> ClipBatch:
    """Cut clips out of their sweeps."""
    frames, masks = [], []
    for cut in cuts:
        sweep, span = sweeps[cut.sweep], slice(cut.start, cut.start + seq_len)
        in_time, across = slice(None, None, -1 if cut.backwards else 1), slice(None, None, -1 if cut.mirrored else 1)
        frames.append(sweep.pixels[span][in_time, :, across])
        masks.append(sweep.masks[:, span][:, in_time, :, across])
    return ClipBatch(
        torch.from_numpy(normalise(np.stack(frames), spec)), torch.from_numpy(np.stack(masks).astype(np.float32))
    )


def drawn_batches(
    sweeps: Sequence[PreparedSweep], batch_size: int, seq_len: int, spec: PreprocessSpec, rng: np.random.Generator
) -> Iterator[ClipBatch]:
    """Draw the whole batches of one epoch."""
    cuts = drawn_cuts(sweeps, seq_len, rng)
    for first in range(0, len(cuts) - batch_size + 1, batch_size):
        yield clip_batch(sweeps, cuts[first : first + batch_size], seq_len, spec)
