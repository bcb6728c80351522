"""The table of back ends: what is chosen, and what is said when nothing can be."""

from __future__ import annotations

import importlib.util
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_devices.errors import BundleError, EnvironmentLacksError, InputError
from edgefetal_runtime.infer import backends, onnxruntime_backend
from edgefetal_runtime.infer.backends import TABLE, BackendEntry, open_backend
from edgefetal_runtime.infer.bundle import MODEL, REFERENCE, Bundle
from edgefetal_runtime.infer.golden import MAX_MASK_DISAGREEMENT, MAX_PLANE_DIFFERENCE, check_network
from edgefetal_runtime.infer.network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEEDS_OPENVINO = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed; pip install 'edgefetal[openvino]'"
)
# TensorRT runs no graph, but engines: tests/runtime/infer/tensorrt.
INSTALLED = [
    pytest.param(entry.name, marks=NEEDS_OPENVINO if entry.name == "openvino" else ())
    for entry in TABLE
    if entry.name != "tensorrt"
]

WORKS = "def open_graph(model, threads, lanes=1):\n    return (__name__, model, threads)\n"
LACKS_PACKAGE = "import package_that_nobody_has\n"
LACKS_DRIVER = "raise OSError('libcuda.so.1: cannot open shared object file')\n"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A table of two back ends that lack something and two that work."""
    codes = {"nopackage": LACKS_PACKAGE, "nodriver": LACKS_DRIVER, "first": WORKS, "second": WORKS}
    for name, code in codes.items():
        (tmp_path / f"fake_backend_{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    entries = tuple(BackendEntry(name, f"fake_backend_{name}", f"get {name}") for name in codes)
    monkeypatch.setattr(backends, "TABLE", entries)
    yield
    for name in codes:
        sys.modules.pop(f"fake_backend_{name}", None)


@pytest.mark.usefixtures("table")
def test_auto_takes_the_first_of_the_table_that_is_available() -> None:
    assert open_backend("auto", b"graph", 3) == ("fake_backend_first", b"graph", 3)
    # Later ones are not even imported.
    assert "fake_backend_second" not in sys.modules


@pytest.mark.usefixtures("table")
def test_a_name_takes_that_one_and_no_other() -> None:
    assert open_backend("second", b"graph") == ("fake_backend_second", b"graph", None)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("name", "reason"), [("nopackage", "package_that_nobody_has"), ("nodriver", r"libcuda\.so\.1: cannot open")]
)
def test_an_unavailable_one_says_why_and_what_it_needs_and_no_other_steps_in(name: str, reason: str) -> None:
    with pytest.raises(EnvironmentLacksError, match=rf"{name}: .*{reason}.*; get {name}"):
        open_backend(name, b"graph")


@pytest.mark.usefixtures("table")
def test_where_none_is_available_auto_gives_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "TABLE", backends.TABLE[:2])
    with pytest.raises(EnvironmentLacksError) as caught:
        open_backend("auto", b"graph")
    for part in ("No back end can run here", "package_that_nobody_has", "get nopackage", "libcuda", "get nodriver"):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["", "AUTO", "tensorrrt", "onnxruntime "])
def test_an_unknown_name_is_refused_and_the_known_ones_offered(name: str) -> None:
    with pytest.raises(InputError) as caught:
        open_backend(name, b"graph")
    assert repr(name) in str(caught.value)
    assert all(known in str(caught.value) for known in ("auto", *(entry.name for entry in TABLE)))


@pytest.mark.parametrize("name", INSTALLED)
def test_garbage_is_no_graph(name: str, intact_bundle: Bundle) -> None:
    whole = intact_bundle.read(MODEL)
    for graph in (b"", b"no graph", bytes(range(256)) * 10, whole[: len(whole) // 2]):
        with pytest.raises(BundleError, match=r"does not accept the bundle's graph .*; build the bundle anew"):
            open_backend(name, graph)


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("threads", [None, 1, 2])
def test_a_graph_answers_alike_with_any_number_of_threads(
    intact_bundle: Bundle, name: str, threads: int | None
) -> None:
    spec = intact_bundle.manifest.preprocess
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 1, spec.height_px, spec.width_px)).astype(np.float32)
    graph = open_backend(name, intact_bundle.read(MODEL), threads)
    outputs = graph.run(image)
    assert graph.name == name
    assert outputs["mask"].shape == (1, len(intact_bundle.manifest.heads.mask), spec.height_px, spec.width_px)
    assert outputs["plane"].shape == (1, len(intact_bundle.manifest.heads.plane))
    for output, value in open_backend(name, intact_bundle.read(MODEL), 1).run(image).items():
        np.testing.assert_allclose(outputs[output], value, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", INSTALLED)
def test_an_answer_is_not_overwritten_by_the_next(intact_bundle: Bundle, name: str) -> None:
    spec = intact_bundle.manifest.preprocess
    graph = open_backend(name, intact_bundle.read(REFERENCE), 1)
    first = graph.run(np.zeros((1, 1, spec.height_px, spec.width_px), np.float32))
    kept = {output: value.copy() for output, value in first.items()}
    graph.run(np.ones((1, 1, spec.height_px, spec.width_px), np.float32))
    for output, value in first.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, kept[output])


@pytest.mark.parametrize("name", INSTALLED)
def test_a_float_graph_is_computed_in_float_everywhere(intact_bundle: Bundle, name: str) -> None:
    """Sixteen bits, which a back end may take for quicker, are off by a hundred times more than this."""
    spec = intact_bundle.manifest.preprocess
    image = np.random.default_rng(0).normal(size=(1, 1, spec.height_px, spec.width_px)).astype(np.float32)
    ours, plain = (open_backend(be, intact_bundle.read(REFERENCE), 1).run(image) for be in (name, "onnxruntime"))
    for output, value in plain.items():
        np.testing.assert_allclose(ours[output], value, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", INSTALLED)
def test_golden_frames_hold_on_every_back_end(intact_bundle: Bundle, name: str) -> None:
    report = check_network(
        intact_bundle, Network(intact_bundle.manifest, open_backend(name, intact_bundle.read(MODEL), 1))
    )
    assert report.frames >= 3
    assert report.mask_disagreement <= MAX_MASK_DISAGREEMENT
    assert report.plane_difference <= MAX_PLANE_DIFFERENCE


@pytest.mark.parametrize(("machine", "takes"), [("x86_64", "first"), ("AMD64", "first"), ("aarch64", "second")])
@pytest.mark.usefixtures("table")
def test_auto_passes_over_what_is_meant_for_other_processors(
    machine: str, takes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    first, second = backends.TABLE[2:]
    meant = BackendEntry(first.name, first.module, first.needs, auto_on=("x86_64", "AMD64"))
    monkeypatch.setattr(backends, "TABLE", (meant, second))
    assert open_backend("auto", b"graph") == (f"fake_backend_{takes}", b"graph", None)
    # By its name it is taken anywhere.
    assert open_backend("first", b"graph") == ("fake_backend_first", b"graph", None)


def test_tensorrt_says_how_an_engine_is_made(intact_bundle: Bundle) -> None:
    with pytest.raises(EnvironmentLacksError, match=r"`edgefetal finish BUNDLE`.*--backend onnxruntime"):
        open_backend("tensorrt", intact_bundle.read(MODEL))


def test_onnxruntime_is_taken_everywhere_and_the_others_by_their_names_alone() -> None:
    assert [(entry.name, entry.auto_on) for entry in TABLE] == [
        ("tensorrt", ()),
        ("openvino", ()),
        ("onnxruntime", None),
        ("onnxruntime-as-written", ()),
    ]


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("lanes", [2, 3])
def test_side_by_side_every_lane_gets_its_own_answer(intact_bundle: Bundle, name: str, lanes: int) -> None:
    """One that cannot says that it has one lane."""
    spec = intact_bundle.manifest.preprocess
    rng = np.random.default_rng(1)
    images = rng.normal(size=(12, 1, 1, spec.height_px, spec.width_px)).astype(np.float32)
    plain = open_backend(name, intact_bundle.read(MODEL), 1)
    expected = [plain.run(image) for image in images]
    graph = open_backend(name, intact_bundle.read(MODEL), lanes, lanes)
    assert graph.lanes in ({lanes} if name.startswith("onnxruntime") else {1, lanes})
    with ThreadPoolExecutor(graph.lanes) as pool:
        outputs = list(pool.map(graph.run, images))
    for output, value in zip(outputs, expected, strict=True):
        for of, wanted in value.items():
            np.testing.assert_allclose(output[of], wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("threads", "lanes", "cores", "pool"),
    [(None, 1, 8, 0), (1, 1, 8, 1), (None, 2, 2, 1), (None, 4, 6, 3), (None, 4, 8, 5), (5, 4, 8, 2), (2, 4, 8, 1)],
)
def test_lanes_and_their_common_pool_use_every_core_once(
    intact_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, threads: int | None, lanes: int, cores: int, pool: int
) -> None:
    """A session's pool has one thread fewer than its number, because the one that asks works too; 0 is its choice."""
    asked: list[int] = []
    session = onnxruntime_backend.onnxruntime.InferenceSession

    def spy(model: bytes, options: Any, **rest: Any) -> Any:
        asked.append(options.intra_op_num_threads)
        return session(model, options, **rest)

    monkeypatch.setattr(onnxruntime_backend.onnxruntime, "InferenceSession", spy)
    monkeypatch.setattr(onnxruntime_backend, "usable_cores", lambda: cores)
    onnxruntime_backend.open_graph(intact_bundle.read(MODEL), threads, lanes)
    assert asked == [pool]
