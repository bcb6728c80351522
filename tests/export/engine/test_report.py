"""What an engine says of its layers is set beside what was asked for, and INT8 that runs in float is refused.

The reports are written after the documents of TensorRT 10 and 11; none was recorded on a device.
"""

from __future__ import annotations

import json

import pytest

from edgefetal_devices.errors import CheckFailedError
from edgefetal_export.engine.network import TypedLayer
from edgefetal_export.engine.report import counted, layer_precisions, require_int8, require_promised
from edgefetal_runtime.infer.bundle import LayerGroup

ASKED = (TypedLayer("a", "int8"), TypedLayer("b", "int8"), TypedLayer("c", "fp16"), TypedLayer("d", "fp32"))


def _of_10(name: str, kind: str, *, weights: str | None = None) -> dict[str, object]:
    entry: dict[str, object] = {
        "Name": f"{name} + relu",
        "LayerType": "CaskConvolution",
        "Metadata": f"[ONNX Layer: {name}]\x1e[ONNX Layer: {name}_relu]",
        "Inputs": [{"Name": "x", "Location": "Device", "Dimensions": [1, 8, 4, 4], "Format/Datatype": kind}],
        "Outputs": [{"Name": "y", "Format/Datatype": "Half"}],
    }
    return entry if weights is None else entry | {"Weights": {"Type": weights, "Count": 9}}


def _of_11(name: str, kind: str) -> dict[str, object]:
    tensor = {"Name": "x", "DataType": kind, "Format": "Row major linear (kLINEAR)"}
    return {"Name": name, "Metadata": f"[ONNX Layer: {name}]", "Inputs": [tensor], "Outputs": [tensor]}


def _inspected(*entries: object) -> str:
    return json.dumps({"Layers": list(entries), "Bindings": ["image", "mask"]})


@pytest.mark.parametrize(
    ("written", "precision"),
    [
        ("Int8", "int8"),
        ("INT8", "int8"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Half", "fp16"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Float", "fp32"),
        ("Row major linear FP32", "fp32"),
        ("Bool", "unknown"),
    ],
)
def test_types_are_read_in_every_spelling(written: str, precision: str) -> None:
    for entry in (_of_10("a", written), _of_11("a", written), _of_10("a", "Float", weights=written)):
        assert layer_precisions(ASKED[:1], _inspected(entry))[0].got == precision


def test_the_weights_tell_more_than_what_goes_in() -> None:
    """A convolution of floating weights may have whole numbers at its input."""
    found = layer_precisions(ASKED[:1], _inspected(_of_10("a", "Int8", weights="Float")))
    with pytest.raises(CheckFailedError, match=r"1 layers .* run in float .*: a \(fp32\).*--precision fp16"):
        require_int8(found)


def test_layers_are_found_in_what_they_were_fused_into_and_counted() -> None:
    fused = _of_10("b", "Int8") | {"Metadata": "[ONNX Layer: b]\x1e[ONNX Layer: c]"}
    found = layer_precisions(ASKED, _inspected(_of_10("a", "Int8"), fused, "only a name", _of_11("d", "Float")))
    assert [layer.got for layer in found] == ["int8", "int8", "int8", "fp32"]
    assert counted(found) == {"int8": 3, "fp32": 1}
    require_int8(found)


def test_what_the_engine_does_not_tell_is_unknown_and_no_refusal() -> None:
    foreign = {"Name": "{ForeignNode[a...d]}", "LayerType": "Myelin", "Inputs": [], "Outputs": []}
    found = layer_precisions(ASKED, _inspected(foreign))
    assert {layer.got for layer in found} == {"unknown"}
    assert counted(found) == {"unknown": 4}
    require_int8(found)


def test_a_layer_whose_inputs_differ_is_unknown() -> None:
    mixed = _of_10("a", "Int8") | {"Inputs": [{"Format/Datatype": "Int8"}, {"Format/Datatype": "Half"}]}
    assert layer_precisions(ASKED[:1], _inspected(mixed))[0].got == "unknown"


@pytest.mark.parametrize("inspected", ["", "[]", "{}", '{"Layers": 3}', '{"Layers": [{}]}', "null"])
def test_another_answer_is_refused(inspected: str) -> None:
    with pytest.raises(CheckFailedError, match="does not say what the engine's layers compute in"):
        layer_precisions(ASKED, inspected)


def test_the_manifests_promise_is_kept() -> None:
    group = LayerGroup(layers=("one", "two"), precision="int8", reason="r")
    others = LayerGroup(layers=("three",), precision="float16", reason="r")
    require_promised(ASKED, (group, others))
    with pytest.raises(CheckFailedError, match="says that 2 layers are INT8, and TensorRT reads 1"):
        require_promised(ASKED[1:], (group, others))
    require_promised(ASKED[2:], (others,))
