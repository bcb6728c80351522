"""What a clinic installs: small, quick, without torch, and whole."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import edgefetal
import edgefetal_devices
import edgefetal_runtime

WORKSTATION = ("torch", "monai", "onnx", "onnxscript", "safetensors", "matplotlib", "sympy.core")
COMMANDS = (
    "demo", "train", "build", "calibrate", "verify", "keys", "run", "evaluate", "growth", "phantom", "bench", "exams",
    "devices", "doctor", "finish",
)  # fmt: skip
MAX_STARTER_BYTES = 10_000_000


@pytest.fixture(scope="session")
def clinic_python() -> str:
    """Python of an environment that holds the wheel and its base dependencies only."""
    path = os.environ.get("EDGEFETAL_CLINIC_PYTHON")
    if not path:
        pytest.skip("no clinic environment; `make test` makes one")
    return path


def run_python(python: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_"))}
    return subprocess.run([python, *arguments], cwd=cwd, env=clean, capture_output=True, text=True, check=False)


def test_clinic_has_no_torch(clinic_python: str, tmp_path: Path) -> None:
    for package in ("torch", "onnx", "matplotlib", "monai"):
        assert run_python(clinic_python, "-c", f"import {package}", cwd=tmp_path).returncode != 0


@pytest.mark.parametrize("command", [(), *((c,) for c in COMMANDS), ("train", "multitask-unet")])
def test_help_in_the_clinic(clinic_python: str, tmp_path: Path, command: tuple[str, ...]) -> None:
    result = run_python(clinic_python, "-m", "edgefetal", *command, "--help", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout
    if command:
        assert "Example:" in result.stdout


def test_whole_job_in_the_clinic(clinic_python: str, tmp_path: Path) -> None:
    """Demo, run and verify from the wheel, then proof that nothing of the workstation was imported."""
    demo = run_python(clinic_python, "-m", "edgefetal", "demo", "--json", "demo.json", cwd=tmp_path)
    assert demo.returncode == 0, demo.stderr
    record = json.loads((tmp_path / "demo.json").read_text())
    assert record["hc_measured_mm"] == pytest.approx(record["hc_true_mm"], rel=0.05)
    run = run_python(
        clinic_python,
        "-m",
        "edgefetal",
        "run",
        "starter",
        "demo-exam/sweep.avi",
        "--mm-per-px",
        str(record["mm_per_px"][0]),
        "--out",
        "e",
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    verify = run_python(clinic_python, "-m", "edgefetal", "verify", "starter", "--run", cwd=tmp_path)
    assert verify.returncode == 0, verify.stderr


def test_workstation_command_in_the_clinic_says_what_to_install(
    clinic_python: str, tmp_path: Path, tiny_hc18: Path
) -> None:
    result = run_python(
        clinic_python,
        "-m",
        "edgefetal",
        "train",
        "multitask-unet",
        "--data",
        f"hc18:{tiny_hc18}",
        "--out",
        "run",
        cwd=tmp_path,
    )
    assert result.returncode == 3
    assert "pip install 'edgefetal[build]'" in result.stderr
    assert not (tmp_path / "run").exists()


def test_finishing_needs_nothing_of_the_workstation(tmp_path: Path) -> None:
    """A board finishes its bundles with what a clinic installs."""
    script = (
        "import sys, edgefetal_export.engine.finish, edgefetal_export.engine.install;"
        f"print(sorted(set({(*WORKSTATION, 'yaml')!r}) & set(sys.modules)))"
    )
    result = run_python(sys.executable, "-c", script, cwd=tmp_path)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


def test_wheel_installs_the_five_packages_and_nothing_generic(clinic_python: str, tmp_path: Path) -> None:
    script = (
        "import importlib.metadata as m, json;"
        "print(json.dumps(sorted({f.parts[0] for f in m.files('edgefetal') if not str(f).startswith('..')})))"
    )
    names = json.loads(run_python(clinic_python, "-c", script, cwd=tmp_path).stdout)
    packages = [name for name in names if not name.endswith(".dist-info")]
    assert packages == [
        "edgefetal", "edgefetal_calibration", "edgefetal_devices", "edgefetal_export", "edgefetal_runtime",
    ]  # fmt: skip


def test_runtime_imports_nothing_of_the_workstation(tmp_path: Path) -> None:
    """Import every module of the clinic's packages in a fresh interpreter and look at what came along."""
    modules = [
        module.name
        for package in (edgefetal_runtime, edgefetal_devices)
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        # The one back end whose package is an extra.
        if not module.name.endswith("openvino_backend")
    ]
    assert len(modules) > 25
    script = f"import sys, importlib; [importlib.import_module(m) for m in {modules!r}]; print(*sys.modules)"
    result = run_python(sys.executable, "-c", script, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert not set(WORKSTATION) & set(result.stdout.split())


def test_help_is_quick(tmp_path: Path) -> None:
    """The promise is 0.5 s; the median of five leaves out a busy moment of the machine."""
    seconds = []
    for _ in range(5):
        started_s = time.perf_counter()
        assert run_python(sys.executable, "-m", "edgefetal", "--help", cwd=tmp_path).returncode == 0
        seconds.append(time.perf_counter() - started_s)
    assert statistics.median(seconds) < 0.5


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    result = run_python(sys.executable, "-c", "import sys, edgefetal.cli; print(*sys.modules)", cwd=tmp_path)
    assert not {"numpy", "cv2", "onnxruntime", "pydantic", "cryptography", *WORKSTATION} & set(result.stdout.split())


def test_public_names_are_all_there() -> None:
    assert sorted(edgefetal.__all__) == edgefetal.__all__
    for name in edgefetal.__all__:
        assert getattr(edgefetal, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        edgefetal.nothing  # noqa: B018 - looking it up is the test


def test_every_package_is_typed() -> None:
    for name in ("edgefetal", "edgefetal_export", "edgefetal_calibration", "edgefetal_runtime", "edgefetal_devices"):
        assert (Path(str(importlib.import_module(name).__file__)).parent / "py.typed").is_file()


def test_starter_is_small_enough() -> None:
    folder = edgefetal.bundle_folder("starter")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MAX_STARTER_BYTES


def test_own_folder_called_starter_is_reached_by_its_path() -> None:
    assert edgefetal.bundle_folder("./starter") == Path("./starter")
