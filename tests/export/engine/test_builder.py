"""A real TensorRT parser and builder take our graphs, for GPUs that are not here, and say what they do not take."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from onnx import TensorProto, helper

from edgefetal_devices.errors import CheckFailedError, InputError
from edgefetal_export.engine.builder import BuiltEngine, EngineWish, build_engine
from edgefetal_export.engine.monitor import run_cancellable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefetal_runtime.infer.tensorrt.api import TensorRT
    from tests.export.engine.conftest import Bars

AMPERE_AND_ADA = EngineWish(capabilities=("8.6", "8.9"))


def _model(nodes: Sequence[Any], shape: Sequence[int | str] = (1, 1, 8, 8)) -> bytes:
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, shape)],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("ours", 1)]
    content: bytes = helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()
    return content


def _relu(shape: Sequence[int | str] = (1, 1, 8, 8)) -> bytes:
    return _model([helper.make_node("Relu", ["image"], ["mask"], name="only")], shape)


@pytest.mark.parametrize("network", ["starter", "ViT"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_graph_compiles_for_ampere_and_ada_without_a_gpu(
    tensorrt: TensorRT, graphs: dict[str, bytes], bars: Bars, network: str, precision: str
) -> None:
    built = build_engine(graphs[f"{network} {precision}"], tensorrt, AMPERE_AND_ADA, bars)
    assert len(built.plan) > 10_000
    asked = [layer.precision for layer in built.layers]
    if precision == "int8":
        # Of a transformer the products of two activations stay out, and of every network the last layers.
        assert {"int8", "fp16"} == set(asked)
        assert asked.count("int8") > asked.count("fp16") or network == "ViT"
    else:
        assert set(asked) == {precision}
    assert "TensorRT: Building engine" in bars.done
    assert all(done == total for done, total in bars.done.values())


def test_layers_have_the_names_of_the_graphs_nodes(tensorrt: TensorRT, graphs: dict[str, bytes], bars: Bars) -> None:
    import onnx

    nodes = {node.name for node in onnx.load_from_string(graphs["starter int8"]).graph.node}
    layers = build_engine(graphs["starter int8"], tensorrt, AMPERE_AND_ADA, bars).layers
    assert {layer.name for layer in layers} <= nodes
    assert len({layer.name for layer in layers}) == len(layers)


def test_an_unknown_operator_is_reported_by_name_and_node(tensorrt: TensorRT, bars: Bars) -> None:
    nodes = [
        helper.make_node("Relu", ["image"], ["a"], name="fine"),
        helper.make_node("Fancy", ["a"], ["mask"], name="the_fancy_one", domain="ours"),
    ]
    with pytest.raises(CheckFailedError, match="operator Fancy of node 'the_fancy_one'"):
        build_engine(_model(nodes), tensorrt, AMPERE_AND_ADA, bars)


def test_a_standard_operator_that_tensorrt_lacks_is_reported_too(tensorrt: TensorRT, bars: Bars) -> None:
    nodes = [helper.make_node("Unique", ["image"], ["mask"], name="sorter")]
    with pytest.raises(CheckFailedError, match="operator Unique of node 'sorter'"):
        build_engine(_model(nodes), tensorrt, AMPERE_AND_ADA, bars)


@pytest.mark.parametrize("graph", [b"", b"no graph", bytes(range(256)) * 8])
def test_what_is_no_graph_is_refused(tensorrt: TensorRT, bars: Bars, graph: bytes) -> None:
    with pytest.raises(CheckFailedError, match="build the bundle anew"):
        build_engine(graph, tensorrt, AMPERE_AND_ADA, bars)


@pytest.mark.parametrize("capability", ["8.7", "5.3", "99.9", "x"])
def test_a_gpu_that_it_cannot_build_for_is_refused_by_name(tensorrt: TensorRT, bars: Bars, capability: str) -> None:
    with pytest.raises(InputError, match=rf"cannot build for SM{capability.replace('.', '')} .*`edgefetal finish`"):
        build_engine(_relu(), tensorrt, EngineWish(capabilities=("8.6", capability)), bars)


def test_an_open_batch_gets_the_runtimes(tensorrt: TensorRT, bars: Bars) -> None:
    assert build_engine(_relu(("batch", 1, 8, 8)), tensorrt, AMPERE_AND_ADA, bars).plan


def test_an_open_size_is_refused(tensorrt: TensorRT, bars: Bars) -> None:
    with pytest.raises(CheckFailedError, match=r"input image has no fixed size \(1, 1, -1, 8\)"):
        build_engine(_relu((1, 1, "height", 8)), tensorrt, AMPERE_AND_ADA, bars)


class _Recorder:
    """A module that notes what its configuration is given, over a real one."""

    def __init__(self, tensorrt: TensorRT, noted: list[tuple[str, object]]) -> None:
        self._module, self._noted = tensorrt.module, noted

    def __getattr__(self, name: str) -> object:
        if name != "Builder":
            return getattr(self._module, name)
        return lambda logger: _RecordingBuilder(self._module.Builder(logger), self._noted)


class _RecordingBuilder:
    def __init__(self, builder: Any, noted: list[tuple[str, object]]) -> None:
        self._builder, self._noted = builder, noted

    def __getattr__(self, name: str) -> object:
        return getattr(self._builder, name)

    def create_builder_config(self) -> _RecordingConfig:
        return _RecordingConfig(self._builder.create_builder_config(), self._noted)

    def build_serialized_network(self, network: object, config: _RecordingConfig) -> object:
        return self._builder.build_serialized_network(network, config.real)


class _RecordingConfig:
    def __init__(self, config: Any, noted: list[tuple[str, object]]) -> None:
        object.__setattr__(self, "real", config)
        object.__setattr__(self, "_noted", noted)

    def __getattr__(self, name: str) -> object:
        value = getattr(self.real, name)
        if not callable(value):
            return value

        def call(*arguments: object, **named: object) -> object:
            self._noted.append((name, (*arguments, *named.values())))
            return value(*arguments, **named)

        return call

    def __setattr__(self, name: str, value: object) -> None:
        self._noted.append((name, value))
        setattr(self.real, name, value)


def _recorded(tensorrt: TensorRT, wish: EngineWish, bars: Bars) -> tuple[BuiltEngine, list[tuple[str, object]]]:
    from dataclasses import replace

    noted: list[tuple[str, object]] = []
    return build_engine(_relu(), replace(tensorrt, module=_Recorder(tensorrt, noted)), wish, bars), noted


def test_float_means_float_and_the_engine_will_tell_of_its_layers(tensorrt: TensorRT, bars: Bars) -> None:
    module = tensorrt.module
    _, noted = _recorded(tensorrt, AMPERE_AND_ADA, bars)
    assert ("clear_flag", (module.BuilderFlag.TF32,)) in noted
    assert ("profiling_verbosity", module.ProfilingVerbosity.DETAILED) in noted
    assert not [name for name, _ in noted if name in ("set_memory_pool_limit", "DLA_core")]


def test_the_workspace_is_capped(tensorrt: TensorRT, bars: Bars) -> None:
    _, noted = _recorded(tensorrt, EngineWish(capabilities=("8.6",), workspace_bytes=2**28), bars)
    assert ("set_memory_pool_limit", (tensorrt.module.MemoryPoolType.WORKSPACE, 2**28)) in noted


def test_ctrl_c_cancels_the_build_at_its_next_step_and_is_heard(
    tensorrt: TensorRT, graphs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event is set from inside the first step, as Ctrl-C in the waiting thread sets it."""
    from edgefetal_export.engine import builder

    seen: list[str] = []

    def at_once(work: Callable[[threading.Event], BuiltEngine]) -> BuiltEngine:
        event = threading.Event()

        class Cancelling:
            def step(self, title: str, total: int | None) -> Callable[[], None]:
                assert total is None or total > 0
                seen.append(title)
                return event.set

        monkeypatch.setattr(builder, "make_monitor", lambda trt, _, e: make(trt, Cancelling(), e))
        return work(event)

    make = builder.make_monitor
    monkeypatch.setattr(builder, "run_cancellable", at_once)
    with pytest.raises(CheckFailedError, match="it was cancelled"):
        build_engine(graphs["starter fp32"], tensorrt, AMPERE_AND_ADA, Cancelled())
    assert 1 <= len(seen) < 4


class Cancelled:
    """Nobody."""

    def step(self, title: str, total: int | None) -> Callable[[], None]:
        raise AssertionError((title, total))


def test_an_interrupt_ends_the_work_and_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import Future

    ended = threading.Event()
    result = Future.result

    def interrupted(_: Future[None]) -> None:
        monkeypatch.setattr(Future, "result", result)
        raise KeyboardInterrupt

    def work(cancelled: threading.Event) -> None:
        assert cancelled.wait(30)
        ended.set()

    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_cancellable(work)
    assert ended.is_set()
