"""Bundles for boards with a GPU: INT8 and FP16 in the graph, judged as written, compiled by a real TensorRT here."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import onnx
import pytest

from edgefetal_calibration.budget_file import read_budget
from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.datasets.split import split_by_subject
from edgefetal_devices.errors import CheckFailedError, EnvironmentLacksError, InputError
from edgefetal_devices.profile import read_profile
from edgefetal_export import build as build_module
from edgefetal_export.build import BuildResult, Source, build, source_of_bundle
from edgefetal_export.ship import Precision
from edgefetal_runtime.infer.backends import AS_WRITTEN
from edgefetal_runtime.infer.bundle import HALF, MODEL, REFERENCE, Bundle, load_bundle
from edgefetal_runtime.infer.golden import check_network
from edgefetal_runtime.infer.network import load_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefetal_export.engine.dry_run import DryRun

ORIN = "jetson-orin-nano-8gb"


class Bars:
    """Nobody who looks."""

    def step(self, title: str, total: int | None) -> Callable[[], None]:
        assert title
        assert total is None or total >= 0
        return lambda: None


@pytest.fixture(scope="module")
def source(simulated_bundle: tuple[Path, dict[str, list[int]]], simulated_hc18: Path) -> Source:
    """The float graph of a bundle, as if it had been trained on half of the simulated heads."""
    from dataclasses import replace

    split = split_by_subject(read_hc18(simulated_hc18), dataset="hc18", seed=1, validation=0.3, held_out=0.2)
    return replace(source_of_bundle(load_bundle(simulated_bundle[0])), split=split)


Build = partial[BuildResult]


@pytest.fixture(scope="module")
def building(source: Source, simulated_hc18: Path, lenient_budget: Path) -> Build:
    return partial(
        build,
        lambda: source,
        read_profile(ORIN),
        read_hc18(simulated_hc18),
        name="board",
        budget=read_budget(lenient_budget),
        least_range_frames=8,
        progress=Bars(),
    )


@pytest.fixture(scope="module")
def board(building: Build, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, BuildResult]:
    out = tmp_path_factory.mktemp("boards") / "board"
    result = building(out)
    return load_bundle(out), result


def test_the_bundle_leaves_the_choice_between_int8_and_fp16_to_the_board(board: tuple[Bundle, BuildResult]) -> None:
    bundle, result = board
    assert bundle.manifest.device == ORIN
    assert result.parity is None
    assert result.evidence["precision"] == "INT8"
    assert HALF in bundle.manifest.files
    outcomes = {step["step"]: step["outcome"] for step in result.evidence["mending"]}
    assert outcomes["FP16"] == "within the budget"
    assert "`edgefetal finish` measures it on the device beside FP16" in outcomes["speed of INT8"]
    assert result.evidence["latency"] is None


def test_the_manifest_says_what_stands_in_the_graph(board: tuple[Bundle, BuildResult]) -> None:
    bundle, _ = board
    by_precision: dict[str, int] = {}
    for group in bundle.manifest.layers:
        by_precision[group.precision] = by_precision.get(group.precision, 0) + len(group.layers)
    graph = onnx.load_from_string(bundle.read(MODEL)).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    whole = [name for name, kind in types.items() if kind == onnx.TensorProto.INT8 and "weight" in name]
    assert len([name for name in whole if "zero" not in name]) == by_precision["int8"] > 10
    assert by_precision["float16"] >= 2
    halves = onnx.load_from_string(bundle.read(HALF)).graph
    assert not [node for node in halves.node if node.op_type == "QuantizeLinear"]
    assert {t.data_type for t in halves.initializer if "weight" in t.name} == {onnx.TensorProto.FLOAT16}


def test_it_was_judged_as_it_is_written_and_says_so(board: tuple[Bundle, BuildResult]) -> None:
    bundle, result = board
    assert result.evidence["judged_on"] == AS_WRITTEN
    page = bundle.read("evidence.html").decode()
    assert f"judged by <code>{AS_WRITTEN}</code>" in page
    report = check_network(bundle, load_network(bundle, backend=AS_WRITTEN))
    assert report.mask_disagreement == 0


def test_auto_does_not_run_it_before_it_is_finished(board: tuple[Bundle, BuildResult]) -> None:
    with pytest.raises(EnvironmentLacksError, match=rf"edgefetal finish BUNDLE.*--backend {AS_WRITTEN}"):
        load_network(board[0])


def test_tensorrt_compiled_both_graphs_or_the_evidence_says_why_not(board: tuple[Bundle, BuildResult]) -> None:
    bundle, result = board
    assert set(result.dry_runs) == {MODEL, HALF} == set(result.evidence["dry_runs"])
    page = bundle.read("evidence.html").decode()
    for file, run in result.dry_runs.items():
        assert f"<code>{file}</code>" in page
        if run.reason is None:
            assert run.capabilities == ("8.6",)
            assert run.plan_bytes > 100_000
            assert set(run.layers) == ({"int8", "fp16"} if file == MODEL else {"fp16"})
        else:
            assert "TensorRT cannot be used here" in run.reason


@pytest.mark.parametrize(
    ("precision", "said", "weights"),
    [(Precision.FP16, "FP16", onnx.TensorProto.FLOAT16), (Precision.FP32, "float", onnx.TensorProto.FLOAT)],
)
def test_one_precision_and_nothing_else(
    building: Build, tmp_path: Path, precision: Precision, said: str, weights: int
) -> None:
    result = building(tmp_path / "out", precision=precision)
    bundle = load_bundle(tmp_path / "out")
    assert result.evidence["precision"] == said
    assert HALF not in bundle.manifest.files
    graph = onnx.load_from_string(bundle.read(MODEL)).graph
    assert {tensor.data_type for tensor in graph.initializer if "weight" in tensor.name} == {weights}
    assert (bundle.read(MODEL) == bundle.read(REFERENCE)) == (precision is Precision.FP32)
    by_precision = {group.precision: group.layers for group in bundle.manifest.layers}
    if precision is Precision.FP16:
        assert len(by_precision["float16"]) > 10
        assert by_precision["float32"] == ("ReduceMean",)
    else:
        assert set(by_precision) == {"float32"}


@pytest.mark.parametrize(
    ("device", "precision", "reason"),
    [
        ("jetson-nano", Precision.INT8, "FP16 is the least it computes in"),
        ("jetson-tx2", Precision.INT8, "FP16 is the least it computes in"),
        ("jetson-nano", Precision.FP16, "TensorRT 8"),
        ("jetson-agx-xavier", Precision.AUTO, "Python 3.8"),
        ("cpu-x86", Precision.FP16, "does not compute in FP16"),
    ],
)
def test_what_a_board_cannot_do_is_refused_before_anything_is_read(
    building: Build, tmp_path: Path, device: str, precision: Precision, reason: str
) -> None:
    def unread() -> Source:
        raise AssertionError

    with pytest.raises(InputError, match=reason):
        build(unread, read_profile(device), [], tmp_path / "out", precision=precision, **building.keywords)
    assert not (tmp_path / "out").exists()


def test_a_graph_that_tensorrt_does_not_take_is_refused_at_once(
    building: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> DryRun:
        raise CheckFailedError("tensorrt does not take operator Fancy of node 'x'.")

    def unreached(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(build_module, "dry_run", refuse)
    monkeypatch.setattr(build_module, "judge_for", unreached)
    with pytest.raises(CheckFailedError, match="operator Fancy of node 'x'"):
        building(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_reason_why_nothing_was_compiled_is_told(
    building: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgefetal_export.engine import dry_run as module

    def lacking() -> None:
        raise EnvironmentLacksError("TensorRT cannot be used here: it is not installed.")

    monkeypatch.setattr(module, "load_tensorrt", lacking)
    result = building(tmp_path / "out", precision=Precision.FP16)
    assert result.dry_runs[MODEL].told.startswith("Not compiled by TensorRT here: TensorRT cannot be used here")
    evidence = json.loads(load_bundle(tmp_path / "out").read("evidence.json"))
    assert evidence["dry_runs"][MODEL]["tensorrt"] is None
