"""Building an engine: one path for TensorRT 10.3 to 11 and for TensorRT-RTX."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgefetal_devices.errors import CheckFailedError, InputError
from edgefetal_export.engine.monitor import make_monitor, run_cancellable
from edgefetal_export.engine.network import read_graph
from edgefetal_runtime.infer.tensorrt.log import make_logger, said

if TYPE_CHECKING:
    import threading

    from edgefetal_export.engine.network import TypedLayer
    from edgefetal_export.progress import Progress
    from edgefetal_runtime.infer.tensorrt.api import TensorRT

# The runtime hands over one frame at a time.
BATCH = 1


@dataclass(frozen=True)
class EngineWish:
    """How an engine is built.

    Args:
        capabilities: compute capabilities to build for, such as `8.6`, where no such GPU need be present; empty for the
            GPU of this machine. TensorRT-RTX alone can do so.
        workspace_bytes: the most memory that one layer may use beside its inputs and outputs; None for no cap.
        dla_core: core of the deep-learning accelerator, with the GPU for what it cannot do; None for the GPU alone.
        timing_cache: what a former build on this device measured; empty for nothing.
    """

    capabilities: tuple[str, ...] = ()
    workspace_bytes: int | None = None
    dla_core: int | None = None
    timing_cache: bytes = b""


@dataclass(frozen=True)
class BuiltEngine:
    """An engine.

    Args:
        plan: its bytes; no two builds give the same.
        layers: the layers of its graph that multiply, and in what.
        timing_cache: what was measured, for the next build; empty where TensorRT keeps none.
        seconds: what the build took.
    """

    plan: bytes
    layers: tuple[TypedLayer, ...]
    timing_cache: bytes
    seconds: float


def build_engine(graph: bytes, tensorrt: TensorRT, wish: EngineWish, progress: Progress) -> BuiltEngine:
    """Build an engine; Ctrl-C ends the build at its next step.

    Args:
        graph: ONNX with all precisions written in it: QDQ nodes, casts.
        tensorrt: the module.
        wish: how.
        progress: who wants to know how far it is.

    Raises:
        InputError: this TensorRT cannot build for other GPUs, or not for one of that kind.
        CheckFailedError: TensorRT does not take the graph, or cannot build it here; says why.
    """
    return run_cancellable(lambda cancelled: _build(graph, tensorrt, wish, progress, cancelled))


def _build(
    graph: bytes, tensorrt: TensorRT, wish: EngineWish, progress: Progress, cancelled: threading.Event
) -> BuiltEngine:
    started_s = time.perf_counter()
    logger = make_logger(tensorrt)
    logger.errors.clear()
    read = read_graph(tensorrt, logger, graph)
    config = read.builder.create_builder_config()
    _fix_batch(read.builder, read.network, config)
    _choose_device(tensorrt, config, wish)
    # Without this TensorRT multiplies FP32 with ten bits after the point, and does not say so.
    config.clear_flag(tensorrt.module.BuilderFlag.TF32)
    # So that the finished engine tells what each of its layers computes in.
    config.profiling_verbosity = tensorrt.module.ProfilingVerbosity.DETAILED
    if wish.workspace_bytes is not None:
        config.set_memory_pool_limit(tensorrt.module.MemoryPoolType.WORKSPACE, wish.workspace_bytes)
    cache = _use_timing_cache(tensorrt, config, wish.timing_cache)
    # Kept in a name of its own: TensorRT does not keep it alive.
    monitor = make_monitor(tensorrt, progress, cancelled)
    config.progress_monitor = monitor
    plan = read.builder.build_serialized_network(read.network, config)
    if plan is None:
        why = "it was cancelled" if cancelled.is_set() else said(logger)
        message = (
            f"{tensorrt.title} did not build the engine: {why}. Where memory was short, close other "
            "programs, or build the bundle for a smaller precision."
        )
        raise CheckFailedError(message)
    return BuiltEngine(
        plan=bytes(plan),
        layers=read.layers,
        timing_cache=b"" if cache is None else bytes(cache.serialize()),
        seconds=time.perf_counter() - started_s,
    )


def _fix_batch(builder: Any, network: Any, config: Any) -> None:  # noqa: ANN401 - TensorRT has no types
    """Give inputs whose first axis was left open the batch that the runtime uses.

    Raises:
        CheckFailedError: another axis is open.
    """
    profile = None
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        shape = tuple(tensor.shape)
        if all(side > 0 for side in shape):
            continue
        if any(side <= 0 for side in shape[1:]):
            message = f"The graph's input {tensor.name} has no fixed size {shape}; export it for one size of picture."
            raise CheckFailedError(message)
        profile = profile or builder.create_optimization_profile()
        fixed = (BATCH, *shape[1:])
        profile.set_shape(tensor.name, fixed, fixed, fixed)
    if profile is not None:
        config.add_optimization_profile(profile)


def _choose_device(tensorrt: TensorRT, config: Any, wish: EngineWish) -> None:  # noqa: ANN401 - likewise
    module = tensorrt.module
    if wish.capabilities:
        known = getattr(module, "ComputeCapability", None)
        names = [f"SM{capability.replace('.', '')}" for capability in wish.capabilities]
        strangers = [name for name in names if known is None or not hasattr(known, name)]
        if strangers:
            message = (
                f"{tensorrt.title} cannot build for {', '.join(strangers)} on this machine; build on "
                "the device itself by `edgefetal finish`."
            )
            raise InputError(message)
        config.num_compute_capabilities = len(names)
        for place, name in enumerate(names):
            config.set_compute_capability(getattr(known, name), place)
    if wish.dla_core is not None:
        config.default_device_type = module.DeviceType.DLA
        config.DLA_core = wish.dla_core
        config.set_flag(module.BuilderFlag.GPU_FALLBACK)


def _use_timing_cache(tensorrt: TensorRT, config: Any, content: bytes) -> Any:  # noqa: ANN401 - likewise
    """Let the build use what a former one measured; return the cache, or None where TensorRT keeps none."""
    # TensorRT-RTX measures nothing when it builds.
    if tensorrt.is_rtx:
        return None
    cache = config.create_timing_cache(content)
    # Never across devices or versions: what it holds would be another GPU's times. None is made of what is damaged.
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache
