"""A bundle's network, ready for frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_devices.errors import BundleError
from edgefetal_devices.profile import profile_names, read_profile
from edgefetal_runtime.infer.backends import Backend, open_backend
from edgefetal_runtime.infer.bundle import MODEL, Bundle, Manifest
from edgefetal_runtime.infer.preprocess import Letterbox, preprocess

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class NetworkOutput:
    """What the network says of one frame.

    Args:
        mask_logits: shape (structures, h, w), float32; no structures where the network has no such head.
        plane_probability: probability of each plane class; empty where the network has no such head.
        quality: of the frame, 0 to 1, or None where the network has no such head.
        skill: of the operator, 0 to 1, or None where the network has no such head.
    """

    mask_logits: npt.NDArray[np.float32]
    plane_probability: dict[str, float]
    quality: float | None = None
    skill: float | None = None


@dataclass(frozen=True)
class Network:
    """A graph with what its inputs and outputs mean.

    Args:
        manifest: the bundle's manifest.
        backend: the graph, loaded.
    """

    manifest: Manifest
    backend: Backend

    def prepare(self, pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], Letterbox]:
        """Preprocess a frame, shape (H, W), as the bundle says."""
        return preprocess(pixels, self.manifest.preprocess)

    def infer(self, image: npt.NDArray[np.float32]) -> NetworkOutput:
        """Run a prepared frame, shape (1, 1, h, w)."""
        outputs = self.backend.run(image)
        heads = self.manifest.heads
        probability = _softmax(outputs["plane"][0].astype(np.float64)) if heads.plane else np.empty(0)
        return NetworkOutput(
            mask_logits=outputs["mask"][0] if heads.mask else np.empty((0, *image.shape[2:]), np.float32),
            plane_probability=dict(zip(heads.plane, probability.tolist(), strict=True)),
            quality=_sigmoid(outputs["quality"]) if heads.quality else None,
            skill=_sigmoid(outputs["skill"]) if heads.skill else None,
        )


def _sigmoid(logit: npt.NDArray[np.float32]) -> float:
    """Return the probability of an output of one number; what is no number stays none."""
    # Beyond 60 the exponential only overflows; the probability is 0 or 1 all the same.
    return float(1 / (1 + np.exp(-np.clip(logit.astype(np.float64).item(), -60.0, 60.0))))


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max())
    shares: npt.NDArray[np.float64] = powers / powers.sum()
    return shares


def load_network(
    bundle: Bundle, *, backend: str = "auto", file: str = MODEL, threads: int | None = None, lanes: int = 1
) -> Network:
    """Load a bundle's graph and run it once on black, which also warms it up.

    Args:
        bundle: a verified bundle.
        backend: name of the back end, or `auto`.
        file: which graph, `model.onnx` or `reference.onnx`.
        threads: CPU threads, or None for the back end's own choice.
        lanes: frames that are to be run side by side.

    Raises:
        BundleError: the graph was altered, is not accepted, or is not what the manifest says.
        EnvironmentLacksError: no back end can run here.
    """
    device = bundle.manifest.device
    if backend == "auto" and device in profile_names():
        backend = read_profile(device).back_end
    network = Network(bundle.manifest, open_backend(backend, bundle.read(file), threads, lanes))
    spec = bundle.manifest.preprocess
    try:
        answer = network.infer(np.zeros((1, 1, spec.height_px, spec.width_px), np.float32))
    # Each back end has exceptions of its own for an input or output that is not the graph's.
    except Exception as error:
        message = f"{bundle.path}: {file} does not run as the manifest says ({error}); build the bundle anew."
        raise BundleError(message) from error
    if answer.mask_logits.shape != (len(bundle.manifest.heads.mask), spec.height_px, spec.width_px):
        message = f"{bundle.path}: {file} answers in another shape than the manifest says; build the bundle anew."
        raise BundleError(message)
    return network
