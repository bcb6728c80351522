"""The loop that tutorials show: OpenCV reads, resizes and fits, onnxruntime runs the graph, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnxruntime

from edgefetal_devices.errors import InputError
from edgefetal_export.peers.fitting import fit_largest, largest, mm_per_px
from edgefetal_runtime.infer.bundle import HEAD, MODEL, load_bundle

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgefetal_export.peers.peer import Job, Recording
    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.infer.bundle import Manifest


@dataclass(frozen=True, eq=False)
class Notebook:
    """The loop, with one session for all frames.

    Args:
        manifest: says how frames are prepared.
        session: the graph.
        settings: versions.
    """

    manifest: Manifest
    session: onnxruntime.InferenceSession
    settings: str

    def examine(self, recording: Recording) -> float | None:
        """Read frame by frame, and take the frame with the largest outline; return HC in mm, or None.

        Raises:
            InputError: OpenCV cannot read the file.
        """
        video = cv2.VideoCapture(str(recording.path))
        if not video.isOpened():
            raise InputError(f"OpenCV reads no {recording.path.suffix} file; give a video")
        found = []
        while True:
            there, picture = video.read()
            if not there:
                break
            fitted = fit_largest(self._mask(np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)))
            if fitted is not None:
                found.append(fitted)
        video.release()
        circumference_px = largest(found)
        return None if circumference_px is None else circumference_px * recording.scale.x_mm_per_px

    def measure(self, frame: Frame) -> float | None:
        """Measure one picture; return HC in mm, or None."""
        fitted = fit_largest(self._mask(frame.pixels))
        return None if fitted is None else fitted[1] * mm_per_px(frame)

    def _mask(self, grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Outline the head in a frame of shape (H, W)."""
        spec = self.manifest.preprocess
        height, width = grey.shape
        ratio = min(spec.height_px / height, spec.width_px / width)
        small = cv2.resize(grey, (round(width * ratio), round(height * ratio)), interpolation=cv2.INTER_AREA)
        rows, columns = small.shape
        top, left = (spec.height_px - rows) // 2, (spec.width_px - columns) // 2
        placed = np.zeros((spec.height_px, spec.width_px), np.float32)
        placed[top : top + rows, left : left + columns] = small
        image = ((placed / 255 - spec.mean) / spec.std)[None, None].astype(np.float32)
        (mask,) = self.session.run(["mask"], {"image": image})
        logits = np.asarray(mask)[0, self.manifest.heads.mask.index(HEAD)]
        return np.asarray(cv2.resize(logits[top : top + rows, left : left + columns], (width, height)) > 0)


def open_notebook(job: Job, _argument: str | None) -> Notebook:
    """Load the graph that ships into a plain session."""
    bundle = load_bundle(job.bundle)
    options = onnxruntime.SessionOptions()
    if job.threads is not None:
        options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(bundle.read(MODEL), options, providers=["CPUExecutionProvider"])
    settings = (
        f"the graph that ships, OpenCV {cv2.__version__}, onnxruntime {onnxruntime.__version__}, one frame at a time"
    )
    return Notebook(bundle.manifest, session, settings)
