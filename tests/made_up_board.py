"""A board that is not there, and a small bundle for it: what the tests of finishing share.

The bundle's network takes what is bright for a head, and the pictures show a bright ellipse, so everything is quick and
its truth is known. TensorRT is stood in for by onnxruntime, which computes the graph that an engine's plan holds.
"""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefetal.starter import bundle_folder
from edgefetal_calibration.budget_file import read_budget
from edgefetal_calibration.datasets.labelled import LabelledSweep
from edgefetal_devices.detect import Board
from edgefetal_devices.errors import DeviceLostError, EnvironmentLacksError
from edgefetal_devices.power import PowerMode
from edgefetal_export.engine.builder import BuiltEngine, EngineWish
from edgefetal_export.engine.finish import FinishWish, Here, finish
from edgefetal_export.engine.network import FP16, INT8, TypedLayer
from edgefetal_export.package import write_bundle
from edgefetal_export.quantise.half import in_half
from edgefetal_export.quantise.qdq import prepared
from edgefetal_runtime.biometry.ellipse import Ellipse
from edgefetal_runtime.infer import bundle as layout
from edgefetal_runtime.infer.backends import AS_WRITTEN, open_backend
from edgefetal_runtime.infer.bundle import Heads, LayerGroup, Thresholds, load_bundle
from edgefetal_runtime.infer.golden import make_golden
from edgefetal_runtime.infer.keys import read_signing_key, write_new_keys
from edgefetal_runtime.infer.preprocess import PreprocessSpec
from edgefetal_runtime.infer.tensorrt.api import TensorRT
from edgefetal_runtime.infer.tensorrt.cuda import DeviceFacts
from edgefetal_runtime.infer.trust import Trust
from edgefetal_runtime.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import pytest
    from typing_extensions import Self

    from edgefetal_runtime.infer.finished import Finished
    from edgefetal_runtime.infer.keys import NamedKey, SigningKey

    Answers = dict[str, npt.NDArray[np.float32]]

NANO = "jetson-orin-nano-8gb"
SPEC = PreprocessSpec(height_px=64, width_px=96, mean=0.25, std=0.2)
MM_PER_PX = 1.0
FRAME_PX = (128, 192)
FACTS = DeviceFacts("Orin", (8, 7), "GPU-1", 8 << 30, 6 << 30, "12.6", "12.6", "made up")
TENSORRT = TensorRT(None, "tensorrt", "10.3.0.30")
_TISSUE, _HEAD = 40, 220
_THRESHOLD = (130 / 255 - SPEC.mean) / SPEC.std


def draw(semi_axes_px: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    """Draw grey tissue, with a bright ellipse in its middle or without."""
    height, width = FRAME_PX
    y, x = np.mgrid[:height, :width].astype(np.float64)
    picture = np.full(FRAME_PX, float(_TISSUE))
    if semi_axes_px is not None:
        a, b = semi_axes_px
        distance = np.hypot((x - width / 2) / a, (y - height / 2) / b)
        # As soft as a pixel or two, so that the edge can be found to a part of one.
        inside = 1 / (1 + np.exp((distance - 1) * min(a, b)))
        picture += inside * (_HEAD - _TISSUE)
    return np.clip(picture, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class DrawnHead:
    """An exam of two frames: a head, and none."""

    number: int

    @property
    def name(self) -> str:
        return f"head {self.number}"

    @property
    def subject(self) -> str:
        return f"phantom/1-{self.number}"

    def digest(self) -> str:
        return self.name

    def labels_digest(self) -> str:
        return self.name

    def sweeps(self) -> Iterator[LabelledSweep]:
        return iter((_sweep(self.number),))


@functools.cache
def _sweep(number: int) -> LabelledSweep:
    a, b = 40.0 + 2 * number, 30.0 + number
    frames = np.stack([draw((a, b)), draw(None)])
    mask = (frames > (_TISSUE + _HEAD) // 2).astype(np.uint8)
    length_mm = Ellipse(0, 0, a, b, 0).circumference() * MM_PER_PX
    return LabelledSweep(
        name="sweep_1",
        pixels=frames,
        masks={"head": mask},
        planes=("head", "none"),
        scale=Scale(MM_PER_PX, MM_PER_PX, origin="drawn", relative_uncertainty=0.0),
        lengths_mm={"HC": np.array([length_mm, np.nan])},
    )


HEADS = tuple(DrawnHead(number) for number in range(12))


def graph_of(gain: float) -> bytes:
    """Make a network that takes what is bright for a head."""
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, values: object) -> object:
        return numpy_helper.from_array(np.array(values, np.float32), name)

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 1, SPEC.height_px, SPEC.width_px))
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, (1, 1, SPEC.height_px, SPEC.width_px))
    plane = helper.make_tensor_value_info("plane", TensorProto.FLOAT, (1, 2))
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["mask"], name="outline", kernel_shape=[1, 1]),
        helper.make_node("GlobalMaxPool", ["mask"], ["brightest"], name="brightest"),
        helper.make_node("Flatten", ["brightest"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "p", "q"], ["plane"], name="plane_head"),
    ]
    weights = [
        constant("w", [[[[gain]]]]),
        constant("b", [-gain * _THRESHOLD]),
        constant("p", [[0.5, -0.5]]),
        constant("q", [0.0, 0.0]),
    ]
    graph = helper.make_graph(nodes, "bright", [image], [mask, plane], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


@functools.cache
def bundle_files() -> dict[str, bytes]:
    """Return what the bundle holds beside its manifest."""
    reference = graph_of(4.0)
    shipped = graph_of(4.004)
    thresholds = Thresholds(plane_probability=0.5, agreement=0.0)
    written = open_backend(AS_WRITTEN, shipped)
    golden = make_golden([draw((50, 40)), draw(None), draw((70, 45))], SPEC, written)
    evidence = {"thresholds": thresholds.model_dump(), "judgement": {"budget": read_budget().model_dump()}}
    return {
        layout.MODEL: shipped,
        layout.REFERENCE: reference,
        layout.HALF: in_half(prepared(reference)),
        layout.GOLDEN: golden,
        layout.EVIDENCE: json.dumps(evidence).encode(),
        layout.SPLIT: b"{}",
        layout.RECIPE: b"{}",
        layout.MODEL_CARD: b"made up",
    }


@functools.cache
def _manifest() -> layout.Manifest:
    return load_bundle(bundle_folder("starter"), Trust()).manifest.model_copy(
        update={
            "name": "bright",
            "device": NANO,
            "heads": Heads(mask=("head",), plane=("head", "none")),
            "preprocess": SPEC,
            "thresholds": Thresholds(plane_probability=0.5, agreement=0.0),
            "intervals": None,
            "layers": (LayerGroup(layers=("outline",), precision=INT8, reason="made up"),),
        }
    )


@dataclass(frozen=True)
class Maker:
    """Who signs bundles."""

    key: SigningKey
    public: NamedKey

    @property
    def trust(self) -> Trust:
        """A machine that trusts them alone."""
        return Trust((self.public,))

    def make(self, folder: Path, *, files: dict[str, bytes] | None = None, signed: bool = True, **changes: Any) -> Path:
        """Write a bundle for the board.

        Args:
            folder: where.
            files: in place of those of the same name.
            signed: whether it is.
            changes: fields of the manifest.
        """
        contents = bundle_files() | (files or {})
        if changes.get("device", NANO) != NANO:
            contents = {name: content for name, content in contents.items() if name != layout.HALF}
        write_bundle(folder, contents, _manifest().model_copy(update=changes), self.key if signed else None)
        return folder


def new_maker(folder: Path) -> Maker:
    """Make somebody with a pair of keys."""
    private, public = write_new_keys("maker", folder)
    return Maker(read_signing_key(private), public)


class Bars:
    """Somebody to tell how far the work is."""

    def step(self, title: str, total: int | None) -> Callable[[], None]:  # noqa: ARG002 - the protocol's
        return lambda: None


@functools.cache
def _session(graph: bytes) -> Any:
    return open_backend(AS_WRITTEN, graph, 1)


@dataclass
class MadeUpBoard:
    """A Jetson with a TensorRT, as finishing and running see it.

    Args:
        facts: what its GPU says of itself.
        serial: its own number.
        tensorrt: the module.
        computes_in: what its engines say that a layer computes in, by what the graph asks for.
        layers: what TensorRT reads in the shipped graph.
        inspected: what the inspector says in place of that.
        alter: changes answers; is given the graph and them.
        lost_at: run in which the GPU is lost, from 0; None for never.
        seconds: what a run takes, by the file of the graph.
        build_error: raised by the n-th build.
        load_error: raised when TensorRT is looked for.
        wishes: builds that were asked for.
        engines: all that were opened.
        runs: of all engines.
    """

    facts: DeviceFacts = FACTS
    serial: str | None = "1421"
    tensorrt: TensorRT = TENSORRT
    computes_in: dict[str, str] = field(default_factory=lambda: {INT8: "Int8", FP16: "Half"})
    layers: tuple[TypedLayer, ...] = (TypedLayer("outline", INT8), TypedLayer("plane_head", FP16))
    inspected: str | None = None
    alter: Callable[[bytes, Answers], Answers] = lambda _, answers: answers
    lost_at: int | None = None
    seconds: dict[str, float] = field(default_factory=lambda: {layout.MODEL: 0.004, layout.HALF: 0.004})
    build_error: tuple[int, Exception] | None = None
    load_error: EnvironmentLacksError | None = None
    wishes: list[EngineWish] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    runs: int = 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let it stand in for this machine, where finishing and running look things up."""
        for name in ("build_engine", "open_plan", "read_facts"):
            patch.setattr(f"edgefetal_export.engine.finish.{name}", getattr(self, name))
        for name in ("load_tensorrt", "load_cuda", "open_plan", "read_serial"):
            patch.setattr(f"edgefetal_runtime.infer.finished.{name}", getattr(self, name))
        patch.setattr("edgefetal_export.engine.prove.time_networks", self.time_networks)

    def here(self, **changes: Any) -> Here:
        """Return what finishing is told of it."""
        mode = PowerMode(2, "MAXN_SUPER", None, gpu_unlimited=True, is_default=False)
        board = Board(
            profile=NANO,
            model="Made-up Orin Nano",
            parts=("p3767-0005",),
            is_jetson=True,
            l4t=(36, 4),
            jetpack="6.1",
            kernel="5.15.148-tegra",
            driver=None,
            gpus=(),
            power_mode=mode,
            power_modes=(mode,),
            memory_bytes=8 << 30,
        )
        here = Here(
            board=board,
            serial=self.serial,
            machine="aarch64",
            available_bytes=4 << 30,
            cautions=("The clocks change.",),
            load_tensorrt=self.load_tensorrt,
            load_cuda=self.load_cuda,
        )
        return replace(here, **changes)

    @property
    def open_engines(self) -> list[Engine]:
        """Engines that nobody closed."""
        return [engine for engine in self.engines if engine.is_open]

    def load_tensorrt(self) -> TensorRT:
        if self.load_error is not None:
            raise self.load_error
        return self.tensorrt

    def load_cuda(self) -> Any:
        return self

    def read_serial(self) -> str | None:
        return self.serial

    def read_facts(self, cuda: object) -> DeviceFacts:
        assert cuda is self
        return self.facts

    def build_engine(self, graph: bytes, tensorrt: TensorRT, wish: EngineWish, progress: Bars) -> BuiltEngine:
        assert tensorrt is self.tensorrt
        assert progress is not None
        number = len(self.wishes)
        self.wishes.append(wish)
        if self.build_error is not None and self.build_error[0] == number:
            raise self.build_error[1]
        shipped = graph == bundle_files()[layout.MODEL]
        layers = self.layers if shipped else tuple(TypedLayer(layer.name, FP16) for layer in self.layers)
        # No two builds give the same.
        plan = f"plan {next(_builds)} {int(shipped)}\n".encode() + graph
        return BuiltEngine(plan, layers, f"measured {number}".encode(), 12.5)

    def open_plan(self, plan: bytes, tensorrt: TensorRT, cuda: object, *, use_graph: bool) -> Engine:
        assert (tensorrt, cuda, use_graph) == (self.tensorrt, self, True)
        engine = Engine(self, plan)
        self.engines.append(engine)
        return engine

    def time_networks(self, networks: dict[str, Any], _pixels: object, *, rounds: int, **_: object) -> tuple[None, Any]:
        noise = 1 + 0.01 * np.sin(np.arange(rounds))
        return None, {name: self.seconds.get(name.split()[0], 0.02) * noise for name in networks}

    def finish(
        self, bundle: Path, home: Path, trust: Trust | None, wish: FinishWish | None = None, **here: Any
    ) -> Finished:
        """Finish a bundle on it."""
        return finish(bundle, home, self.here(**here), wish or FinishWish(), progress=Bars(), trust=trust, exams=HEADS)


_builds = itertools.count()


class Engine:
    """An engine that was opened."""

    name = "tensorrt"
    lanes = 1

    def __init__(self, board: MadeUpBoard, plan: bytes) -> None:
        head, self.graph = plan.split(b"\n", 1)
        self._asked = INT8 if head.endswith(b"1") else FP16
        self._board = board
        self.facts = board.facts
        self.is_open = True

    def run(self, image: npt.NDArray[np.float32]) -> Answers:
        assert self.is_open
        board = self._board
        board.runs += 1
        if board.lost_at is not None and board.runs > board.lost_at:
            raise DeviceLostError("The GPU is lost; start the program again.")
        return board.alter(self.graph, dict(_session(self.graph).run(image)))

    def inspect(self) -> str:
        if self._board.inspected is not None:
            return self._board.inspected
        layers = [
            {
                "Name": f"fused {layer.name}",
                "Metadata": f"[ONNX Layer: {layer.name}]",
                "Weights": {"Type": self._board.computes_in[layer.precision]},
            }
            for layer in self._layers
        ]
        return json.dumps({"Layers": layers})

    @property
    def _layers(self) -> Sequence[TypedLayer]:
        if self._asked == INT8:
            return self._board.layers
        return [TypedLayer(layer.name, FP16) for layer in self._board.layers]

    def close(self) -> None:
        self.is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
