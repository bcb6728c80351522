"""Compiling a graph where its device is not: a real parser and builder take it, for a GPU of the same kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from edgefetal_devices.errors import EnvironmentLacksError
from edgefetal_export.engine.builder import EngineWish, build_engine
from edgefetal_export.engine.report import require_promised
from edgefetal_runtime.infer.tensorrt.api import load_tensorrt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefetal_export.progress import Progress
    from edgefetal_runtime.infer.bundle import LayerGroup


# GPUs that no TensorRT builds for elsewhere, and the nearest that one does.
_STAND_INS: Final = {"8.7": "8.6", "11.0": "12.0"}


@dataclass(frozen=True)
class DryRun:
    """What came of it.

    Args:
        tensorrt: the module and its version; None where there was none that can build for other GPUs.
        capabilities: compute capabilities that it was compiled for.
        layers: how many of the layers that multiply are in each precision.
        plan_bytes: size of the engine, which is thrown away.
        seconds: what it took.
        reason: why nothing was compiled; None where it was.
    """

    tensorrt: str | None
    capabilities: tuple[str, ...]
    layers: dict[str, int]
    plan_bytes: int
    seconds: float
    reason: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"told": self.told}

    @property
    def told(self) -> str:
        """Say it in a sentence."""
        if self.reason is not None:
            return f"Not compiled by TensorRT here: {self.reason}"
        layers = ", ".join(f"{count} in {precision}" for precision, count in self.layers.items())
        return (
            f"{self.tensorrt} compiles it for compute capability {', '.join(self.capabilities)} ({layers}); the device "
            "itself builds and proves its own engine by `edgefetal finish`."
        )


def stand_ins(capabilities: Sequence[str]) -> tuple[str, ...]:
    """Return for which GPUs a graph is compiled where those of a target cannot be compiled for."""
    return tuple(dict.fromkeys(_STAND_INS.get(capability, capability) for capability in capabilities))


def dry_run(graph: bytes, groups: Sequence[LayerGroup], capabilities: tuple[str, ...], progress: Progress) -> DryRun:
    """Compile a graph for GPUs that are not here, if a TensorRT is installed that can.

    Args:
        graph: what ships.
        groups: what the manifest says of its layers.
        capabilities: of GPUs like the device's, of those that TensorRT-RTX builds for.
        progress: who wants to know how far it is.

    Raises:
        CheckFailedError: TensorRT does not take the graph, or reads other layers as INT8 than the manifest says.
    """
    try:
        tensorrt = load_tensorrt()
    except EnvironmentLacksError as error:
        return _none(str(error))
    if not tensorrt.is_rtx:
        return _none(f"{tensorrt.title} builds for the GPU of its own machine alone.")
    built = build_engine(graph, tensorrt, EngineWish(capabilities=capabilities), progress)
    require_promised(built.layers, groups)
    return DryRun(
        tensorrt=tensorrt.title,
        capabilities=capabilities,
        layers=dict(sorted(Counter(layer.precision for layer in built.layers).items())),
        plan_bytes=len(built.plan),
        seconds=built.seconds,
        reason=None,
    )


def _none(reason: str) -> DryRun:
    return DryRun(None, (), {}, 0, 0.0, reason)
