"""Golden frames: proof that this machine prepares and runs frames as the machine did that built the bundle.

The archive holds, for each frame, its pixels, the SHA-256 of the prepared tensor, and the answers of the shipped graph.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from edgefetal_devices.errors import CheckFailedError
from edgefetal_runtime.infer.bundle import GOLDEN, load_bundle, require_fit_for_clinic
from edgefetal_runtime.infer.network import load_network
from edgefetal_runtime.infer.preprocess import preprocess
from edgefetal_runtime.infer.trust import Demand

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from numpy.lib.npyio import NpzFile as Archive

    from edgefetal_runtime.infer.backends import Backend
    from edgefetal_runtime.infer.bundle import Bundle, Manifest
    from edgefetal_runtime.infer.network import Network
    from edgefetal_runtime.infer.preprocess import PreprocessSpec
    from edgefetal_runtime.infer.trust import Trust

# INT8 kernels of other processors round otherwise; more disagreement than this means that something is broken, such as
# the saturating 8-bit products of x86 without VNNI.
MAX_MASK_DISAGREEMENT = 0.002
MAX_PLANE_DIFFERENCE = MAX_SCORE_DIFFERENCE = 0.5
_ANEW: Final = "build the bundle anew"
_FOR_THIS: Final = "build the bundle for this device"


@dataclass(frozen=True)
class GoldenReport:
    """How this machine's answers compare with the builder's.

    Args:
        frames: number of golden frames.
        mask_disagreement: largest share of mask pixels that fall on the other side of the decision.
        plane_difference: largest difference of a plane logit.
        score_difference: largest difference of a quality or skill logit.
    """

    frames: int
    mask_disagreement: float
    plane_difference: float
    score_difference: float


def _digest(tensor: npt.NDArray[np.float32]) -> str:
    return hashlib.sha256(tensor.astype("<f4").tobytes()).hexdigest()


def make_golden(frames: Sequence[npt.NDArray[np.uint8]], spec: PreprocessSpec, backend: Backend) -> bytes:
    """Write the archive for frames, each (H, W) uint8, with the answers of a back end."""
    arrays: dict[str, npt.NDArray[np.generic]] = {"count": np.array(len(frames))}
    for number, frame in enumerate(frames):
        tensor, _ = preprocess(frame, spec)
        arrays[f"frame_{number}"] = frame
        arrays[f"tensor_sha256_{number}"] = np.array(_digest(tensor))
        for name, value in backend.run(tensor).items():
            arrays[f"{name}_{number}"] = value.astype(np.float16)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def golden_pixels(bundle: Bundle) -> list[npt.NDArray[np.uint8]]:
    """Return the golden frames of a bundle, each (H, W) uint8."""
    with _archive(bundle.read(GOLDEN)) as archive:
        return [archive[f"frame_{number}"] for number in range(int(archive["count"]))]


def _archive(content: bytes) -> Archive:
    return np.load(io.BytesIO(content), allow_pickle=False)  # type: ignore[no-any-return]  # it is one, not an array


def _prepared(
    content: bytes, manifest: Manifest, advice: str
) -> Iterator[tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.float16]]]]:
    """Yield each golden frame's tensor with the answers that are expected of the network's heads.

    Raises:
        CheckFailedError: a tensor differs from the builder's.
    """
    heads = manifest.heads
    has = {"mask": bool(heads.mask), "plane": bool(heads.plane), "quality": heads.quality, "skill": heads.skill}
    with _archive(content) as archive:
        if int(archive["count"]) < 1:
            message = f"{manifest.name} holds no golden frame, so nothing can be proven; {advice}."
            raise CheckFailedError(message)
        for number in range(int(archive["count"])):
            tensor, _ = preprocess(archive[f"frame_{number}"], manifest.preprocess)
            if _digest(tensor) != str(archive[f"tensor_sha256_{number}"]):
                message = (
                    f"Golden frame {number} is not prepared here as it was when the bundle was built; "
                    "install the OpenCV and NumPy versions that its manifest names."
                )
                raise CheckFailedError(message)
            yield tensor, {name: archive[f"{name}_{number}"] for name, present in has.items() if present}


def check_preprocessing(bundle: Bundle) -> int:
    """Prepare the golden frames and compare bit for bit; return how many there are.

    Raises:
        CheckFailedError: a tensor differs.
    """
    return sum(1 for _ in _prepared(bundle.read(GOLDEN), bundle.manifest, _ANEW))


def check_network(bundle: Bundle, network: Network) -> GoldenReport:
    """Run the golden frames and compare with the builder's answers.

    Raises:
        CheckFailedError: a tensor differs, or an answer differs by more than rounding.
    """
    return check_answers(bundle.read(GOLDEN), bundle.manifest, network, _FOR_THIS)


def check_answers(content: bytes, manifest: Manifest, network: Network, advice: str) -> GoldenReport:
    """Run golden frames and compare with the answers that are kept with them.

    Args:
        content: an archive as `make_golden` writes it.
        manifest: of the bundle.
        network: to be compared.
        advice: what to do where they differ, as the end of a sentence.

    Raises:
        CheckFailedError: a tensor differs, or an answer is of another shape, is no number, or differs by more than
            rounding.
    """
    frames = 0
    found: dict[str, list[float]] = {"mask": [0.0], "plane": [0.0], "quality": [0.0], "skill": [0.0]}
    for tensor, expected in _prepared(content, manifest, advice):
        outputs = network.backend.run(tensor)
        for name, answer in expected.items():
            output = _numbers(name, outputs, answer.shape, advice)
            if name == "mask":
                found[name].append(float(((output > 0) != (answer > 0)).mean()))
            else:
                found[name].append(float(np.abs(output - answer).max()))
        frames += 1
    # NumPy's maximum keeps a NaN, which `max` may drop.
    report = GoldenReport(
        frames=frames,
        mask_disagreement=float(np.max(found["mask"])),
        plane_difference=float(np.max(found["plane"])),
        score_difference=float(np.max([*found["quality"], *found["skill"]])),
    )
    if not (
        report.mask_disagreement <= MAX_MASK_DISAGREEMENT
        and report.plane_difference <= MAX_PLANE_DIFFERENCE
        and report.score_difference <= MAX_SCORE_DIFFERENCE
    ):
        message = (
            f"The network answers otherwise here than it should ({report.mask_disagreement:.2%} of the mask, "
            f"{report.plane_difference:.2f} of a plane logit, {report.score_difference:.2f} of a quality or skill "
            f"logit); {advice}."
        )
        raise CheckFailedError(message)
    return report


def _numbers(
    name: str, outputs: dict[str, npt.NDArray[np.float32]], shape: tuple[int, ...], advice: str
) -> npt.NDArray[np.float32]:
    """Return an answer that has its shape and holds numbers alone.

    A mask that is no number is above zero nowhere, and would agree with a frame that shows nothing.

    Raises:
        CheckFailedError: it does not.
    """
    output = outputs.get(name)
    if output is None or output.shape != shape or not np.isfinite(output).all():
        what = "no answer" if output is None else f"an answer of shape {output.shape}"
        message = (
            f"The network answers otherwise here than it should ({what} called {name}, where numbers of shape {shape} "
            f"are due); {advice}."
        )
        raise CheckFailedError(message)
    return output


def open_for_clinic(
    folder: Path, *, backend: str = "auto", threads: int | None = None, lanes: int = 1, trust: Trust | None = None
) -> tuple[Bundle, Network]:
    """Load a bundle to measure with: of known origin, whole, within its accuracy budget, and answering as it should.

    On a machine that trusts some key, nothing of a bundle that no trusted key signed is parsed; see `trust`.

    Args:
        folder: the bundle.
        backend: name of the back end, or `auto`.
        threads: CPU threads, or None for the back end's own choice.
        lanes: frames that are to be run side by side.
        trust: whom to trust; None for whom this machine trusts.

    Raises:
        BundleError: it is no bundle, is altered, its signature is bad or not of a trusted key, or it did not pass its
            budget.
        KeyFileError: the folder of the trusted keys cannot be used as it is.
        EnvironmentLacksError: no back end can run here.
        CheckFailedError: the golden frames are prepared or answered otherwise here.
    """
    bundle = load_bundle(folder, trust, demand=Demand.CLINIC)
    require_fit_for_clinic(bundle)
    network = load_network(bundle, backend=backend, threads=threads, lanes=lanes)
    check_network(bundle, network)
    return bundle, network
