"""From a PyTorch network to an ONNX graph that is proven to answer alike."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgefetal_devices.errors import CheckFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import nn

    from edgefetal_runtime.infer.backends import Backend
    from edgefetal_runtime.infer.preprocess import PreprocessSpec

# LayerNormalization and Resize are whole operators from 17 and 18 on, and every TensorRT from 10 on reads 18.
OPSET = 18
INPUT, OUTPUTS = "image", ("mask", "plane")
# What the other networks answer with, as `outputs` of the functions below.
QUALITY, MASK = ("quality",), ("mask",)
# Float rounding over some twenty convolutions, relative to logits of a few units.
MAX_LOGIT_DIFFERENCE = 2e-3


def onnx_from_network(network: nn.Module, spec: PreprocessSpec, outputs: Sequence[str] = OUTPUTS) -> bytes:
    """Export a network for batches of one with torch's dynamo exporter; batch normalisation folds into convolutions.

    Args:
        network: in evaluation mode; adapters merged. Takes (1, 1, h, w) and returns a tensor or a tuple of them.
        spec: gives the input's size.
        outputs: what the tensors are called in the graph.

    Returns:
        The graph with its weights, which one file can hold up to 2 GB of.
    """
    return exported(network, torch.zeros(1, 1, spec.height_px, spec.width_px), INPUT, outputs)


def exported(network: nn.Module, example: torch.Tensor, name: str, outputs: Sequence[str]) -> bytes:
    """Export a network for inputs of the example's shape.

    Args:
        network: in evaluation mode.
        example: its input.
        name: what the input is called in the graph.
        outputs: what the tensors that it returns are called in the graph.
    """
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    # The exporter mentions every optional package that it does without.
    exporter_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (example,),
                input_names=[name],
                output_names=list(outputs),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        exporter_log.setLevel(level)
    assert program is not None  # noqa: S101 - torch returns None only when it writes a file itself
    model = program.model_proto
    # The exporter notes in every node from which file and line it came; that is this machine's business.
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del noted.metadata_props[:]
        noted.ClearField("doc_string")
    content: bytes = model.SerializeToString()
    return content


def check_parity(
    network: nn.Module,
    backend: Backend,
    images: Sequence[npt.NDArray[np.float32]],
    outputs: Sequence[str] = OUTPUTS,
) -> float:
    """Compare a graph with the network that it was exported from.

    Args:
        network: in evaluation mode.
        backend: the graph, loaded.
        images: prepared frames, each (1, 1, h, w).
        outputs: as for `onnx_from_network`.

    Returns:
        The largest absolute difference of any logit.

    Raises:
        CheckFailedError: they differ by more than rounding.
    """
    differences = []
    with torch.inference_mode():
        for image in images:
            answer = network(torch.from_numpy(image))
            expected = (answer,) if isinstance(answer, torch.Tensor) else answer
            found = backend.run(image)
            pairs = zip(outputs, expected, strict=True)
            differences += [float(np.abs(found[name] - tensor.numpy()).max()) for name, tensor in pairs]
    # NumPy's maximum keeps a NaN, which `max` may drop.
    largest = float(np.max(differences))
    if not largest <= MAX_LOGIT_DIFFERENCE:
        message = (
            f"The ONNX graph differs from the network by {largest:.2g} in a logit (allowed {MAX_LOGIT_DIFFERENCE:g}); "
            "use the versions of torch and onnxscript in constraints.txt."
        )
        raise CheckFailedError(message)
    return largest
