"""The table of back ends: what is chosen, and what is said when nothing can be."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_devices.errors import BundleError, EnvironmentLacksError, InputError
from edgefetal_runtime.infer import backends
from edgefetal_runtime.infer.backends import TABLE, BackendEntry, open_backend
from edgefetal_runtime.infer.bundle import MODEL, Bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKS = "def open_graph(model, threads):\n    return (__name__, model, threads)\n"
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


@pytest.mark.parametrize("name", [entry.name for entry in TABLE])
def test_garbage_is_no_graph(name: str, intact_bundle: Bundle) -> None:
    whole = intact_bundle.read(MODEL)
    for graph in (b"", b"no graph", bytes(range(256)) * 10, whole[: len(whole) // 2]):
        with pytest.raises(BundleError, match=r"does not accept the bundle's graph .*; build the bundle anew"):
            open_backend(name, graph)


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_a_graph_answers_alike_with_any_number_of_threads(intact_bundle: Bundle, threads: int | None) -> None:
    spec = intact_bundle.manifest.preprocess
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 1, spec.height_px, spec.width_px)).astype(np.float32)
    graph = open_backend("onnxruntime", intact_bundle.read(MODEL), threads)
    outputs = graph.run(image)
    assert graph.name == "onnxruntime"
    assert outputs["mask"].shape == (1, len(intact_bundle.manifest.heads.mask), spec.height_px, spec.width_px)
    assert outputs["plane"].shape == (1, len(intact_bundle.manifest.heads.plane))
    for name, value in open_backend("auto", intact_bundle.read(MODEL), 1).run(image).items():
        np.testing.assert_allclose(outputs[name], value, rtol=0, atol=1e-3)
