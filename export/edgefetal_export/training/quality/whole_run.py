"""A whole run on graded frames: split, frames, network, loop; the same for every process of `accelerate launch`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from edgefetal_calibration.datasets.split import Part
from edgefetal_devices.errors import InputError
from edgefetal_export.training import run as run_folder
from edgefetal_export.training.quality.classifier import QualityRecipe, QualityTask, quality_network
from edgefetal_export.training.quality.decision import read_decision
from edgefetal_export.training.quality.frames import (
    Material,
    draw_split,
    prepare_material,
    remove_prepared,
)
from edgefetal_export.training.quality.loop import LoopRecipe, make_accelerator, on_main_process, train
from edgefetal_export.training.quality.segmenter import SegmentationRecipe, SegmentationTask, segmentation_network
from edgefetal_runtime.infer.bundle import ABDOMEN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgefetal_export.training.quality.frames import Graded
    from edgefetal_export.training.quality.loop import Reporter, Task


def train_on_frames(
    run: Path,
    recipe: QualityRecipe | SegmentationRecipe,
    datasets: Sequence[Graded],
    weights: Path | None,
    *,
    resume: bool,
    threads: int = 1,
    workers: int = 0,
    reporter: Reporter | None = None,
    on_exam: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train, or go on training, and keep the best weights by validation loss.

    Args:
        run: the run's folder.
        recipe: what to do.
        datasets: graded exams by kind; the split is drawn from them by subject.
        weights: what the encoder begins with, or None for random weights.
        resume: go on with a folder that exists.
        threads: CPU threads of each process; the same number gives the same weights on the same machine.
        workers: processes that prepare pictures ahead.
        reporter: told of progress in the main process.
        on_exam: called in the main process after every exam that was read.

    Returns:
        What `metrics.json` holds.

    Raises:
        DatasetError: there are too few subjects, or frames of one kind only.
        InputError: the weights are not those that were said, or a step cannot be shared out.
        OutputError: the folder belongs to another run.
    """
    torch.set_num_threads(threads)
    accelerator = make_accelerator(recipe)
    split = draw_split(datasets, recipe)
    exams = [exam for _, of_set in datasets for exam in of_set]
    parts = {part: split.select(exams, part) for part in (Part.TRAIN, Part.VALIDATION)}
    structures = (ABDOMEN,) if isinstance(recipe, SegmentationRecipe) else ()
    on_main_process(accelerator, lambda: run_folder.open_run(run, recipe, split, resume=resume))
    if (metrics := _finished(run, recipe)) is not None:
        return metrics

    def prepare_both() -> None:
        for part, of_part in parts.items():
            prepare_material(run, of_part, recipe, part, structures, on_exam)

    on_main_process(accelerator, prepare_both)
    training, validation = (prepare_material(run, of_part, recipe, part, structures) for part, of_part in parts.items())
    task = _task(recipe, weights, training, validation)
    metrics = train(accelerator, run, recipe, split, task, workers=workers, reporter=reporter)
    on_main_process(accelerator, lambda: remove_prepared(run))
    accelerator.end_training()
    return metrics


def _task(
    recipe: QualityRecipe | SegmentationRecipe, weights: Path | None, training: Material, validation: Material
) -> Task:
    if isinstance(recipe, SegmentationRecipe):
        return SegmentationTask(segmentation_network(recipe, weights), recipe, training, validation)
    return QualityTask(quality_network(recipe, weights), recipe, training, validation)


def _finished(run: Path, recipe: LoopRecipe) -> dict[str, Any] | None:
    """Return the metrics of a run that has all its epochs and all its files, or None."""
    try:
        run_folder.load_finished_weights(run, recipe)
        read_decision(run)
        metrics: dict[str, Any] = json.loads((run / run_folder.METRICS).read_bytes())
    except InputError:
        return None
    return metrics
