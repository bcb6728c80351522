"""Other quantisers of the bundle's float graph, in the place of ours."""

from __future__ import annotations

import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from edgefetal_calibration.datasets.masks import ellipse_mask, place_mask
from edgefetal_calibration.evaluate import dice
from edgefetal_devices.errors import CheckFailedError, EnvironmentLacksError
from edgefetal_export.peers.in_place import how_it_ran, in_place
from edgefetal_runtime.infer.backends import open_backend
from edgefetal_runtime.infer.bundle import HEAD, REFERENCE, load_bundle
from edgefetal_runtime.infer.cores import lanes_for_files
from edgefetal_runtime.infer.preprocess import preprocess

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt
    import openvino

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_export.peers.in_place import InPlace
    from edgefetal_export.peers.peer import Job
    from edgefetal_runtime.infer.bundle import Manifest

    Array = npt.NDArray[np.float32]
    _Labelled = tuple[Array, npt.NDArray[np.bool_]]

# What NNCF takes ranges from unless it is told otherwise; its documentation calls 300 enough.
_SUBSET: Final = 300
# NNCF's own default: Dice may fall by one part in a hundred.
_MAX_DROP: Final = 0.01
# Of a network's pixel, in 255 parts.
_HALF: Final = 127


def open_default_int8(job: Job, _argument: str | None) -> InPlace:
    """Quantise the float graph by onnxruntime's `quantize_static`, after its own preparation, with no option at all."""
    from onnxruntime.quantization import quantize_static  # noqa: PLC0415 - this peer's process alone
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415 - likewise

    bundle = load_bundle(job.bundle)
    images = iter([{"image": image} for image in _images(bundle.manifest, job.training)])

    class _Reader:
        def get_next(self) -> dict[str, Array] | None:
            return next(images, None)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "float.onnx").write_bytes(bundle.read(REFERENCE))
        quant_pre_process(folder / "float.onnx", folder / "prepared.onnx")
        quantize_static(folder / "prepared.onnx", folder / "int8.onnx", _Reader())
        graph = (folder / "int8.onnx").read_bytes()
    backend = open_backend("onnxruntime", graph, job.threads, lanes_for_files(job.threads))
    settings = (
        f"INT8 by onnxruntime {metadata.version('onnxruntime')}, {min(_SUBSET, len(job.training))} pictures, min-max, "
        f"run by onnxruntime, {how_it_ran(job, backend)}"
    )
    return in_place(bundle, bundle.manifest, backend, settings)


def open_nncf(job: Job, _argument: str | None) -> InPlace:
    """Quantise the float graph by NNCF in OpenVINO, which puts layers back until Dice has lost no more than a point."""
    import nncf  # noqa: PLC0415 - this peer's process alone
    import openvino  # noqa: PLC0415 - likewise

    from edgefetal_export.peers.openvino_graphs import compile_as_it_comes  # noqa: PLC0415 - likewise

    bundle = load_bundle(job.bundle)
    manifest = bundle.manifest
    model = openvino.Core().read_model(bundle.read(REFERENCE))

    def judge(compiled: openvino.CompiledModel, items: Iterable[_Labelled]) -> tuple[float, list[float]]:
        output = _mask_output(compiled)
        head = manifest.heads.mask.index(HEAD)
        scores = [dice(compiled([image])[output][0, head] > 0, truth) for image, truth in items]
        return float(np.mean(scores)), scores

    nncf.set_log_level("ERROR")
    quantised = nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset(list(_images(manifest, job.training))),
        validation_dataset=nncf.Dataset(_labelled(manifest, job.validation), lambda item: item[0]),
        validation_fn=judge,
        max_drop=_MAX_DROP,
        subset_size=_SUBSET,
    )
    graph, used = compile_as_it_comes(quantised, job)
    settings = (
        f"INT8 by NNCF {metadata.version('nncf')}, {min(_SUBSET, len(job.training))} pictures, Dice of "
        f"{len(job.validation)} may fall by {_MAX_DROP:g}, {used}"
    )
    return in_place(bundle, manifest, graph, settings)


def _mask_output(compiled: openvino.CompiledModel) -> int:
    """Return the place of the outlines among the outputs."""
    names = [output.get_any_name() for output in compiled.outputs]
    if "mask" not in names:
        raise CheckFailedError("NNCF changed the names of the outputs; compare without it.")
    return names.index("mask")


def _images(manifest: Manifest, cases: Iterable[HeadCase], most: int | None = _SUBSET) -> Iterator[Array]:
    """Prepare pictures for a quantiser, evenly taken where there are more than it wants.

    Raises:
        EnvironmentLacksError: there is none.
    """
    cases = list(cases)
    if not cases:
        raise EnvironmentLacksError("There are no labelled pictures to take ranges from; give --dataset hc18:PATH.")
    count = len(cases) if most is None else min(most, len(cases))
    for number in np.linspace(0, len(cases) - 1, count).round().astype(int):
        yield preprocess(cases[number].frame().pixels, manifest.preprocess)[0]


def _labelled(manifest: Manifest, cases: Sequence[HeadCase]) -> list[_Labelled]:
    """Prepare pictures and their annotated heads, each of shape (h, w), both in the network's grid."""
    labelled = []
    for case, image in zip(cases, _images(manifest, cases, most=None), strict=True):
        height_px, width_px = case.frame().pixels.shape
        head = ellipse_mask(case.head_px(), (height_px, width_px)).astype(np.uint8)
        labelled.append((image, place_mask(head, manifest.preprocess) > _HALF))
    return labelled
