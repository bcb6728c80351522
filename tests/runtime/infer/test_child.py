"""A graph in a process of its own answers as in this one, and whatever happens to that process is told."""

from __future__ import annotations

import gc
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_devices.errors import BundleError, CheckFailedError, EnvironmentLacksError
from edgefetal_runtime.infer import backends
from edgefetal_runtime.infer import child as child_module
from edgefetal_runtime.infer.backends import BackendEntry, open_backend
from edgefetal_runtime.infer.bundle import MODEL, Bundle
from edgefetal_runtime.infer.child import open_in_child
from edgefetal_runtime.infer.latency import time_networks
from edgefetal_runtime.infer.network import Network
from edgefetal_runtime.infer.preprocess import preprocess

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

ORT = "edgefetal_runtime.infer.onnxruntime_backend"


@pytest.fixture(scope="module")
def image(intact_bundle: Bundle) -> npt.NDArray[np.float32]:
    frame = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
    return preprocess(frame, intact_bundle.manifest.preprocess)[0]


def test_a_child_answers_to_the_bit_as_this_process_does(intact_bundle: Bundle, image: npt.NDArray[np.float32]) -> None:
    model = intact_bundle.read(MODEL)
    child, here = open_in_child("onnxruntime", ORT, model, 1), open_backend("onnxruntime", model, 1)
    assert (child.name, child.last_s) == ("onnxruntime", 0.0)
    for scale in (1.0, 0.5):
        found, expected = child.run(scale * image), here.run(scale * image)
        assert found.keys() == expected.keys()
        for name, answer in expected.items():
            np.testing.assert_array_equal(found[name], answer)


def test_what_is_timed_is_the_graph_and_not_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starter: Bundle
) -> None:
    """The graph waits 20 ms; the two processes may take any time to hear of each other."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), *sys.path)))
    (tmp_path / "waits.py").write_text(
        "import time\nimport numpy as np\nclass Graph:\n    def run(self, image):\n        time.sleep(0.02)\n"
        "        return {'mask': image, 'plane': np.zeros((1, 2), np.float32)}\n"
        "def open_graph(model, threads):\n    return Graph()\n"
    )
    child = open_in_child("other", "waits", b"graph", None)
    write, waited = child_module._write, []

    def slowly(*arguments: Any) -> None:
        waited.append(None)
        time.sleep(0.2)
        write(*arguments)

    monkeypatch.setattr(child_module, "_write", slowly)
    frame = np.zeros((90, 120), np.uint8)
    _, seconds = time_networks({"net": Network(starter.manifest, child)}, frame, rounds=2, warm_up=0)
    assert len(waited) == 2
    assert (seconds["net"] >= 0.02).all()
    assert (seconds["net"] < 0.2).all()


def test_what_is_refused_there_is_refused_here() -> None:
    with pytest.raises(BundleError, match="does not accept the bundle's graph"):
        open_in_child("onnxruntime", ORT, b"garbage", None)
    with pytest.raises(ImportError, match="package_that_nobody_has"):
        open_in_child("other", "package_that_nobody_has", b"", None)


def test_an_input_that_does_not_run_is_told_and_the_next_runs(
    intact_bundle: Bundle, image: npt.NDArray[np.float32]
) -> None:
    child = open_in_child("onnxruntime", ORT, intact_bundle.read(MODEL), 1)
    with pytest.raises(CheckFailedError, match="does not run on onnxruntime"):
        child.run(image[:, :, :-3])
    assert set(child.run(image)) == {"mask", "plane"}


def test_a_child_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once while it loads the graph, and once while it runs it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), *sys.path)))
    (tmp_path / "dies_at_once.py").write_text("import os\nos._exit(3)\n")
    with pytest.raises(EnvironmentLacksError, match=r"ended \(code 3\)"):
        open_in_child("other", "dies_at_once", b"graph", None)
    (tmp_path / "dies_later.py").write_text(
        "import os\nclass Graph:\n    def run(self, image):\n        os._exit(4)\n"
        "def open_graph(model, threads):\n    return Graph()\n"
    )
    child = open_in_child("other", "dies_later", b"graph", None)
    for _ in range(2):
        with pytest.raises(CheckFailedError, match=r"ended \(code 4\)"):
            child.run(np.zeros((1, 1, 4, 4), np.float32))


def test_a_child_that_prints_is_understood_and_ends_with_its_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), *sys.path)))
    (tmp_path / "prints.py").write_text(
        "print('welcome')\nclass Graph:\n    def run(self, image):\n        print('hello')\n"
        "        return {'twice': 2 * image}\ndef open_graph(model, threads):\n    return Graph()\n"
    )
    child = open_in_child("other", "prints", b"graph", None)
    ones = np.ones((1, 1, 4, 4), np.float32)
    np.testing.assert_array_equal(child.run(ones)["twice"], 2 * ones)
    process = child._process
    assert process.poll() is None
    del child
    gc.collect()
    assert process.returncode == 0


def test_only_what_must_not_share_a_process_with_torch_gets_its_own(
    intact_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(backends, "open_in_child", lambda name, *_: opened.append(name))
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: object() if name == "torch" else None)
    alone = BackendEntry("alone", ORT, "", without_torch=True)
    monkeypatch.setattr(backends, "TABLE", (alone, BackendEntry("beside", ORT, "")))
    model = intact_bundle.read(MODEL)
    open_backend("beside", model)
    assert opened == []
    open_backend("alone", model)
    assert opened == ["alone"]
    # In a clinic there is no torch.
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda _: None)
    open_backend("alone", model)
    assert opened == ["alone"]
