"""A finished run at work: scores of frames, and masks where it makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import torch

from edgefetal_devices.errors import InputError
from edgefetal_export.training.quality.classifier import BASELINE, CLASSIFIER, QualityRecipe, quality_network
from edgefetal_export.training.quality.decision import Decision, read_decision
from edgefetal_export.training.quality.segmenter import (
    SEGMENTER,
    SegmentationRecipe,
    covered,
    frame_scores,
    segmentation_network,
)
from edgefetal_export.training.run import load_finished_weights, read_recipe, recipe_name
from edgefetal_runtime.infer.preprocess import Letterbox, letterbox, normalise, place

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from torch import Tensor, nn

    from edgefetal_calibration.datasets.labelled import LabelledSweep
    from edgefetal_export.training.quality.frames import FrameRecipe

QUALITY_RECIPES: Final = (CLASSIFIER, BASELINE, SEGMENTER)
_BATCH: Final = 16


@dataclass(frozen=True, eq=False)
class FrameScorer:
    """A trained network with its decision.

    Args:
        recipe: how it was trained.
        decision: when a frame is good.
        network: in evaluation mode.
    """

    recipe: FrameRecipe
    decision: Decision
    network: nn.Module

    @property
    def outlines(self) -> bool:
        """Whether it makes masks."""
        return isinstance(self.recipe, SegmentationRecipe)

    def score_sweep(self, sweep: LabelledSweep) -> npt.NDArray[np.float64]:
        """Return the score of each frame, shape (N,), 0 to 1: a probability, or the share of the picture outlined."""
        parts = [sweep.pixels[start : start + _BATCH] for start in range(0, len(sweep.pixels), _BATCH)]
        return np.concatenate([self._scores(self._logits(part)) for part in parts])

    def mask(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Outline the abdomen on one frame.

        Args:
            pixels: shape (H, W).

        Returns:
            Shape (H, W), 0 or 1: where any channel is likelier than not.
        """
        likeliest = torch.sigmoid(self._logits(pixels[None])[0]).amax(0).numpy()
        box = letterbox(pixels.shape[0], pixels.shape[1], self.recipe.preprocess)
        return (_on_frame(likeliest, box, pixels.shape) > 0.5).astype(np.uint8)  # noqa: PLR2004 - a half

    def _logits(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        spec = self.recipe.preprocess
        placed = np.stack([place(frame, spec)[0] for frame in pixels])
        with torch.inference_mode():
            logits: Tensor = self.network(torch.from_numpy(normalise(placed, spec)[:, None]))
        return logits.float()

    def _scores(self, logits: Tensor) -> npt.NDArray[np.float64]:
        if isinstance(self.recipe, SegmentationRecipe):
            areas = covered(logits).double().mean((2, 3)).numpy()
            return frame_scores(areas, self.recipe.decoder.structures)
        return self.decision.probability(logits[:, 0].double().numpy())


def _on_frame(values: npt.NDArray[np.float32], box: Letterbox, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Bring a map in network pixels to the frame that it was made from, between pixels bilinearly."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(values, box.matrix_to_network(), (shape[1], shape[0]), flags=flags), np.float32)


def load_scorer(run: Path, *, threads: int | None = None) -> FrameScorer:
    """Read a finished run of `fetalclip-cls`, `fetalclip-seg` or `baseline`.

    Args:
        run: its folder.
        threads: CPU threads, or None for torch's choice.

    Raises:
        InputError: it is none, is not finished, or a file of it is missing or damaged.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    recipe: FrameRecipe
    network: nn.Module
    if recipe_name(run) == SEGMENTER:
        recipe = read_recipe(run, SegmentationRecipe)
        network = segmentation_network(recipe, None)
    else:
        recipe = read_recipe(run, QualityRecipe)
        network = quality_network(recipe, None)
    weights = load_finished_weights(run, recipe)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{run} holds weights of another network than its recipe says; train it anew.") from error
    return FrameScorer(recipe, read_decision(run), network.eval())
