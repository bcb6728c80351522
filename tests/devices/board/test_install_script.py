"""`install.sh` against the files of boards that are not here: it says what it would do, or why it will not."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

BOARD = Path(__file__).parents[3] / "devices" / "board"
INSTALL = BOARD / "install.sh"
# As flashed boards say it.
RELEASES = {
    "5.1.3": "# R35 (release), REVISION: 5.0, GCID: 35550185, BOARD: t186ref, EABI: aarch64, DATE: Tue Feb 20 2024",
    "6.0": "# R36 (release), REVISION: 3.0, GCID: 36191598, BOARD: generic, EABI: aarch64, DATE: Mon May 6 2024",
    "6.2": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan 8 2025",
    "7.2": "# R39 (release), REVISION: 2.0, GCID: 45755727, BOARD: generic, EABI: aarch64, DATE: Mon Jun 1 2026",
}
NO_TENSORRT = "ModuleNotFoundError: No module named 'tensorrt'"


@dataclass(frozen=True)
class Board:
    """A folder that looks like a board's `/`, and a folder of wheels for it."""

    root: Path
    wheels: Path

    def write(self, path: str, text: str = "", mode: int = 0o644) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def python(self, version: str, tensorrt: str) -> None:
        """Put an interpreter there that answers what the script asks of it."""
        self.write(
            "usr/bin/python3",
            f'#!/bin/sh\ncase "$*" in *tensorrt*) echo "{tensorrt}" ;; *) echo {version} ;; esac\n',
            0o755,
        )

    def install(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        asked = ("--wheels", str(self.wheels), *arguments) if "--wheels" not in arguments else arguments
        return subprocess.run(
            [str(INSTALL), *asked, "--dry-run"],
            env={"PATH": os.environ["PATH"], "EDGEFETAL_ROOT": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
        )


def fill(folder: Path, tag: str, *more: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("edgefetal-0.1.0-py3-none-any.whl", "pip-26.0-py3-none-any.whl", *more):
        (folder / name).touch()
    (folder / f"numpy-1.26.4-{tag}-{tag}-manylinux_2_17_aarch64.whl").touch()
    (folder / f"cuda_bindings-12.9.10-{tag}-{tag}-manylinux_2_24_aarch64.whl").touch()


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """An Orin with JetPack 6.2, as it is flashed, with everything that building PyCUDA needs."""
    board = Board(tmp_path / "root", tmp_path / "wheels")
    board.write("etc/nv_tegra_release", RELEASES["6.2"] + "\n# KERNEL_VARIANT: oot\n")
    board.write("etc/group", "root:x:0:\nvideo:x:44:\nrender:x:104:\n")
    board.write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
    board.python("3.10", "version 10.3.0")
    for path in ("usr/local/cuda/bin/nvcc", "usr/bin/g++"):
        board.write(path, mode=0o755)
    for path in ("usr/local/cuda/include/curand.h", "usr/include/python3.10/Python.h"):
        board.write(path)
    fill(board.wheels, "cp310", "pycuda-2026.1.tar.gz")
    return board


def test_an_orin_with_jetpack_6_2(board: Board) -> None:
    before = sorted(board.root.rglob("*"))
    result = board.install()
    assert result.returncode == 0, result.stderr
    assert "JetPack 6.2 (L4T 36.4.3)." in result.stdout
    assert "TensorRT 10.3.0." in result.stdout
    assert "-m venv --system-site-packages --without-pip /opt/edgefetal" in result.stdout
    assert "--no-index --find-links" in result.stdout
    assert r"numpy\<2" in result.stdout
    assert "Way to the GPU: pycuda." in result.stdout
    assert "useradd --system --home-dir /var/lib/edgefetal" in result.stdout
    assert "SupplementaryGroups=video render" in result.stdout
    assert "would write: /etc/edgefetal/service.env" in result.stdout
    # Doctor sees what the service's user sees, and comes last.
    lines = result.stdout.splitlines()
    doctor = next(n for n, line in enumerate(lines) if line.endswith("doctor"))
    assert "runuser -u edgefetal" in lines[doctor]
    assert not any(line.startswith("would") for line in lines[doctor + 1 :])
    following = "\n".join(lines[doctor:])
    assert following.index("keys trust") < following.index("finish BUNDLE") < following.index("run active")
    assert sorted(board.root.rglob("*")) == before


def test_an_orin_with_jetpack_7_2(board: Board) -> None:
    board.write("etc/nv_tegra_release", RELEASES["7.2"])
    board.python("3.12", "version 10.16.2.10")
    fill(board.wheels, "cp312")
    result = board.install()
    assert result.returncode == 0, result.stderr
    assert "JetPack 7.2 (L4T 39.2.0)." in result.stdout
    assert "numpy" not in result.stdout
    # The headers are another Python's here.
    assert "PyCUDA cannot be built here (lacks python3-dev)" in result.stdout
    assert "Way to the GPU: cuda-python." in result.stdout


@pytest.mark.parametrize(
    ("release", "python", "tensorrt", "says"),
    [
        ("5.1.3", "3.8", "version 8.5.2", "L4T 35.5.0 is JetPack 5 or older"),
        ("6.0", "3.10", "version 8.6.2", "TensorRT is 8.6.2"),
        ("6.2", "3.9", "version 10.3.0", "is Python 3.9"),
        ("6.2", "3.10", NO_TENSORRT, "apt-get install python3-libnvinfer"),
        ("6.2", "3.10", "ImportError: libnvdla_compiler.so: cannot open", "does not load (ImportError: libnvdla"),
        # Numbers are compared, and not texts: 10.16 is newer than 10.3, and 9 older.
        ("7.2", "3.12", "version 9.9.0", "TensorRT is 9.9.0"),
    ],
)
def test_a_board_that_is_not_fit_is_refused(board: Board, release: str, python: str, tensorrt: str, says: str) -> None:
    board.write("etc/nv_tegra_release", RELEASES[release])
    board.python(python, tensorrt)
    result = board.install()
    assert result.returncode == 3
    assert says in result.stderr
    assert "Flash JetPack 6.2 or 7.2" in result.stderr or "apt-get install" in result.stderr
    assert "would" not in result.stdout


@pytest.mark.parametrize("text", [None, "", "Debian"])
def test_what_is_no_jetson_is_refused(board: Board, text: str | None) -> None:
    (board.root / "etc/nv_tegra_release").unlink()
    if text is not None:
        board.write("etc/nv_tegra_release", text)
    result = board.install()
    assert result.returncode == 3
    assert ("this is no Jetson" if text is None else "cannot be read") in result.stderr
    assert "would" not in result.stdout


@pytest.mark.parametrize(
    ("remove", "says"),
    [
        ("edgefetal-*", "no wheel of edgefetal"),
        ("pip-*", "no wheel of pip"),
        ("numpy-*", "for another board than this one with Python 3.10"),
        ("*", "no wheel of edgefetal"),
    ],
)
def test_an_incomplete_folder_of_wheels_is_refused(board: Board, remove: str, says: str) -> None:
    for file in board.wheels.glob(remove):
        file.unlink()
    result = board.install()
    assert result.returncode == 2
    assert says in result.stderr
    assert "wheels.py --jetpack 6.2" in result.stderr


def test_wheels_are_looked_for_beside_the_script(board: Board) -> None:
    stick = board.root.parent / "stick"
    stick.mkdir()
    shutil.copy(INSTALL, stick)
    shutil.copytree(board.wheels, stick / "wheels")
    command = [str(stick / "install.sh"), "--dry-run"]
    environment = {"PATH": os.environ["PATH"], "EDGEFETAL_ROOT": str(board.root)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"Wheels: {stick / 'wheels'}." in result.stdout
    assert board.install("--wheels", str(stick / "nowhere")).returncode == 2


def test_no_way_to_the_gpu_is_refused(board: Board) -> None:
    (board.root / "usr/local/cuda/include/curand.h").unlink()
    for file in board.wheels.glob("cuda_bindings-*"):
        file.unlink()
    result = board.install()
    assert result.returncode == 3
    assert "lacks CUDA's headers" in result.stderr
    assert "no cuda-python for Python 3.10" in result.stderr


def test_a_wheel_of_pycuda_needs_no_compiler(board: Board) -> None:
    (board.root / "usr/local/cuda/bin/nvcc").unlink()
    (board.wheels / "pycuda-2026.1-cp310-cp310-linux_aarch64.whl").touch()
    assert "Way to the GPU: pycuda." in board.install().stdout


def test_what_is_there_is_kept(board: Board) -> None:
    board.write("opt/edgefetal/pyvenv.cfg", "home = /usr/bin\nversion = 3.10.12\n")
    board.write("opt/edgefetal/bin/python", mode=0o755)
    board.write("etc/passwd", "edgefetal:x:998:998::/var/lib/edgefetal:/usr/sbin/nologin\n")
    board.write("etc/edgefetal/service.env", "BUNDLE=active\n")
    result = board.install()
    assert result.returncode == 0, result.stderr
    for undone in ("-m venv", "useradd", "service.env\n"):
        assert undone not in result.stdout
    assert "--force-reinstall --no-deps edgefetal" in result.stdout


def test_a_program_of_another_python_is_not_built_upon(board: Board) -> None:
    board.write("opt/edgefetal/pyvenv.cfg", "version = 3.1.2\n")
    result = board.install()
    assert result.returncode == 3
    assert "installed with another Python than 3.10" in result.stderr


def test_a_board_without_a_group_for_rendering(board: Board) -> None:
    board.write("etc/group", "root:x:0:\nvideo:x:44:\n")
    result = board.install()
    assert "SupplementaryGroups=video)" in result.stdout
    assert "--groups video edgefetal" in result.stdout


@pytest.mark.parametrize("arguments", [("--wheels",), ("--wheel", "x"), ("wheels",)])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = subprocess.run([str(INSTALL), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "see --help" in result.stderr


def test_help_shows_how_it_is_called() -> None:
    result = subprocess.run([str(INSTALL), "--help"], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "sudo ./install.sh [--wheels DIR] [--dry-run]" in result.stdout
    assert "set -" not in result.stdout


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    result = subprocess.run(
        [str(shutil.which("shellcheck")), str(INSTALL)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
