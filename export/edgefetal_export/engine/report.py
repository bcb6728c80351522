"""What an engine's layers really compute in, beside what the graph asks for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgefetal_devices.errors import CheckFailedError
from edgefetal_export.engine.network import FP16, FP32, INT8, onnx_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgefetal_export.engine.network import TypedLayer
    from edgefetal_runtime.infer.bundle import LayerGroup

UNKNOWN: Final = "unknown"
# How TensorRT's inspector writes types: `Int8`, `Half` or `FP16`, `Float` or `FP32`, alone or within a format's name.
_WRITTEN: Final = (
    (INT8, re.compile("int8", re.IGNORECASE)),
    (FP16, re.compile("half|fp16", re.IGNORECASE)),
    (FP32, re.compile("float|fp32", re.IGNORECASE)),
)
# The type of a tensor: 10.x writes it with the format, 11.x by itself.
_TYPE_KEYS: Final = ("DataType", "Format/Datatype")


@dataclass(frozen=True)
class LayerPrecision:
    """A layer of the graph, asked for and got.

    Args:
        name: of its node.
        asked: `int8`, `fp16` or `fp32`, by the graph.
        got: likewise, by the engine; `unknown` where TensorRT fused it into something that does not say.
    """

    name: str
    asked: str
    got: str


def require_promised(layers: Sequence[TypedLayer], groups: Sequence[LayerGroup]) -> None:
    """Check that a graph quantises as many layers as its bundle's manifest says.

    Args:
        layers: the layers that multiply, as TensorRT read them.
        groups: of the manifest.

    Raises:
        CheckFailedError: it does not.
    """
    promised = sum(len(group.layers) for group in groups if group.precision == INT8)
    found = sum(layer.precision == INT8 for layer in layers)
    if found != promised:
        message = (
            f"The manifest says that {promised} layers are INT8, and TensorRT reads {found} as such; build the bundle "
            "anew."
        )
        raise CheckFailedError(message)


def layer_precisions(layers: Sequence[TypedLayer], inspected: str) -> tuple[LayerPrecision, ...]:
    """Set what the engine does beside what the graph asks for.

    Args:
        layers: the layers that multiply, as TensorRT read them.
        inspected: what the engine's inspector says, as JSON, of an engine that was built with detailed verbosity.

    Raises:
        CheckFailedError: the inspector's answer is not what TensorRT 10 or 11 writes.
    """
    try:
        entries = json.loads(inspected)["Layers"]
        got: dict[str, str] = {}
        for entry in entries:
            # Without detail it is no more than a name.
            if isinstance(entry, dict):
                got |= dict.fromkeys(_named(entry), _computes_in(entry))
    except (ValueError, KeyError, TypeError) as error:
        message = (
            "TensorRT does not say what the engine's layers compute in, so INT8 cannot be proven; use another version."
        )
        raise CheckFailedError(message) from error
    return tuple(LayerPrecision(layer.name, layer.precision, got.get(layer.name, UNKNOWN)) for layer in layers)


def require_int8(layers: Sequence[LayerPrecision]) -> None:
    """Refuse an engine of which a layer runs in float that was to run in INT8.

    Raises:
        CheckFailedError: one does.
    """
    floating = [f"{layer.name} ({layer.got})" for layer in layers if layer.asked == INT8 and layer.got in (FP16, FP32)]
    if floating:
        message = (
            f"{len(floating)} layers that the bundle quantises run in float in this engine: {', '.join(floating)}. It "
            "would be neither as fast nor as the budget was judged; build the bundle with --precision fp16."
        )
        raise CheckFailedError(message)


def counted(layers: Sequence[LayerPrecision]) -> dict[str, int]:
    """Count layers by what the engine computes them in."""
    got = [layer.got for layer in layers]
    return {precision: got.count(precision) for precision in (INT8, FP16, FP32, UNKNOWN) if precision in got}


def _named(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the nodes that an engine's layer does the work of."""
    return onnx_names(str(entry.get("Metadata", ""))) or (str(entry["Name"]),)


def _computes_in(entry: Mapping[str, Any]) -> str:
    """Say what a layer multiplies in: by its weights where it tells, else by what goes in."""
    weights = entry.get("Weights")
    if isinstance(weights, dict) and "Type" in weights:
        return _read_type(str(weights["Type"]))
    inputs = entry.get("Inputs") or []
    types = {_read_type(str(tensor[key])) for tensor in inputs for key in _TYPE_KEYS if key in tensor}
    return types.pop() if len(types) == 1 else UNKNOWN


def _read_type(text: str) -> str:
    return next((precision for precision, written in _WRITTEN if written.search(text)), UNKNOWN)
