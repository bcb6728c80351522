"""What holds for the repository as a whole: layers, folder READMEs, links, versions."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
FOLDERS = ("edgefetal", "export", "calibration", "runtime", "devices")
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *(ROOT / f / "README.md" for f in (*FOLDERS, "tests"))]
)


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    paths = ":".join(str(root / part) for part in (".", "export", "calibration", "runtime", "devices"))
    return subprocess.run(
        [str(LINT_IMPORTS), "--no-cache"],
        cwd=root,
        env={"PYTHONPATH": paths, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "bundle"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_layers_hold(copy: Path) -> None:
    result = lint_imports(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("runtime/edgefetal_runtime/scale.py", "import edgefetal_calibration.budget"),
        ("devices/edgefetal_devices/profile.py", "import edgefetal_runtime.scale"),
        ("calibration/edgefetal_calibration/ranges.py", "import edgefetal_export.package"),
        ("export/edgefetal_export/package.py", "import edgefetal.starter"),
        ("runtime/edgefetal_runtime/infer/network.py", "import torch"),
        ("runtime/edgefetal_runtime/biometry/ellipse.py", "import edgefetal_runtime.exam.pipeline"),
        ("runtime/edgefetal_runtime/biometry/quantities.py", "import edgefetal_runtime.growth.assess"),
        ("runtime/edgefetal_runtime/growth/formula.py", "import edgefetal_runtime.exam.interpretation"),
        ("runtime/edgefetal_runtime/exam/record.py", "import edgefetal_runtime.store.exams"),
        ("runtime/edgefetal_runtime/exam/folder.py", "import edgefetal_runtime.service.pulse"),
        ("runtime/edgefetal_runtime/service/health.py", "import edgefetal_runtime.bench.record"),
    ],
)
def test_planted_violation_is_found(copy: Path, file: str, line: str) -> None:
    with (copy / file).open("a") as stream:
        stream.write(f"\n{line}\n")
    result = lint_imports(copy)
    assert result.returncode == 1
    assert "BROKEN" in result.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
    missing = [target for target in targets if target and not (document.parent / target).exists()]
    assert not missing


def test_every_folder_says_what_it_is_for() -> None:
    for folder in (*FOLDERS, "tests"):
        assert len((ROOT / folder / "README.md").read_text().splitlines()) <= 12


def test_commands_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", (ROOT / "README.md").read_text()))
    assert {"demo", "test"} <= named <= targets


def test_changelog_has_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
