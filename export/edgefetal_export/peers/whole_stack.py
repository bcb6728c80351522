"""A whole stack at once, as ACOUSLIC-AI's public baseline works; its network is replaced by ours.

The stack is read into one array, the probabilities of all frames are kept at the frames' size, those under a half are
dropped, the largest region in three dimensions stays, and the frame with the largest area is the answer
(DIAGNijmegen/ACOUSLIC-AI-baseline).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Final

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own short name

from edgefetal_calibration.evaluate import logits_in_frame
from edgefetal_devices.errors import InputError
from edgefetal_export.peers.fitting import fit_largest, mm_per_px
from edgefetal_export.peers.in_place import how_it_ran, load_shipped
from edgefetal_runtime.infer.bundle import HEAD

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_export.peers.peer import Job, Recording
    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.infer.network import Network

NO_FRAME: Final = -1
_LEAST_PROBABILITY: Final = 0.5


@dataclass(frozen=True, eq=False)
class StackAnswer:
    """What the challenge asks for.

    Args:
        frame: number of the chosen frame, or -1.
        circumference_mm: of the ellipse through its outline, or None.
        mask: of that frame, shape (H, W); empty where there is none.
    """

    frame: int
    circumference_mm: float | None
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class WholeStack:
    """A stack in memory.

    Args:
        network: the network.
        settings: versions.
        structure: what is outlined.
    """

    network: Network
    settings: str
    structure: str = HEAD

    def examine(self, recording: Recording) -> float | None:
        """Answer a recording; return HC in mm, or None.

        Raises:
            InputError: there is no stack.
        """
        if recording.stack is None:
            raise InputError("it reads MetaImage stacks alone; give one")
        return self.answer(recording.stack).circumference_mm

    def answer(self, stack: Path) -> StackAnswer:
        """Read all of a stack, run it, keep it, and take the frame with the largest outline."""
        picture = sitk.ReadImage(str(stack))
        probability = np.stack([self._probability(pixels) for pixels in sitk.GetArrayFromImage(picture)])
        probability[probability < _LEAST_PROBABILITY] = 0
        parts = sitk.ConnectedComponent(sitk.GetImageFromArray((probability > 0).astype(np.uint8)))
        kept = sitk.GetArrayFromImage(sitk.RelabelComponent(parts, sortByObjectSize=True)) == 1
        index = int(kept.sum(axis=(1, 2)).argmax())
        fitted = fit_largest(kept[index])
        if not kept[index].any():
            return StackAnswer(NO_FRAME, None, kept[index])
        return StackAnswer(index, None if fitted is None else fitted[1] * picture.GetSpacing()[0], kept[index])

    def measure(self, frame: Frame) -> float | None:
        """Measure one picture; return HC in mm, or None."""
        fitted = fit_largest(self._probability(frame.pixels) >= _LEAST_PROBABILITY)
        return None if fitted is None else fitted[1] * mm_per_px(frame)

    def _probability(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the probability of the structure in every pixel of a frame, shape (H, W)."""
        image, box = self.network.prepare(pixels)
        logits = self.network.infer(image).mask_logits[self.network.manifest.heads.mask.index(self.structure)]
        in_frame = logits_in_frame(logits, box, (pixels.shape[0], pixels.shape[1]))
        return np.asarray(1 / (1 + np.exp(-in_frame)), np.float32)


def open_whole_stack(job: Job, _argument: str | None) -> WholeStack:
    """Load the bundle's graph as we do; the stack is read by SimpleITK."""
    network = load_shipped(job)
    version = metadata.version("SimpleITK")
    settings = f"the graph that ships, {network.backend.name}, SimpleITK {version}, {how_it_ran(job, network.backend)}"
    return WholeStack(network, settings)
