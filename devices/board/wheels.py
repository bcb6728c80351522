# ruff: noqa: INP001 - a program beside the package and in none
"""Fill a folder with all that a board needs to install edgefetal, on a workstation that has internet.

    python devices/board/wheels.py --jetpack 6.2 --out wheels

`install.sh --wheels DIR` installs from that folder alone. Needs pip and `packaging`, which edgefetal brings.

`pip download` for another Python reads conditions such as `python_version < "3.11"` as if they were asked of the
workstation (pypa/pip issue 6117), so what only the board needs is left out without a word. Here every wheel's own
list of needs is read again with the board's answers, and what is missing is fetched, until nothing is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CHECKOUT = Path(__file__).resolve().parents[2]
# JetPack 6 is Ubuntu 22.04 with glibc 2.35, JetPack 7 is 24.04 with 2.39; wheels for older ones run on both.
PLATFORMS = ("manylinux_2_35_aarch64", "manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64")
# A round fetches what the last one's wheels ask for; chains of conditional needs are short.
MAX_ROUNDS = 10


@dataclass(frozen=True)
class Board:
    """What a release of JetPack asks of wheels.

    Args:
        python: its Python, as `3.10`.
        requirements: what is fetched beside edgefetal, or bounds what it brings.
    """

    python: str
    requirements: tuple[str, ...]

    def environment(self) -> dict[str, str]:
        """Return the board's answers to the conditions of requirements."""
        return {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": "aarch64",
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


BOARDS = {
    # JetPack 6 was built beside NumPy 1, and modules of that time break under NumPy 2.
    "6.2": Board("3.10", ("numpy<2", "cuda-python>=12.6,<13")),
    "7.2": Board("3.12", ("cuda-python>=13,<14",)),
}
# `install.sh` runs pip out of its own wheel, because a board may lack Debian's package with a copy of it.
INSTALLER = "pip>=23.1"
# PyCUDA comes as source only. The board compiles it with its own CUDA headers, and needs these to do so.
PYCUDA = ("pycuda>=2026.1",)
PYCUDA_NEEDS = ("setuptools", "wheel", "pytools>=2011.2", "platformdirs>=2.2.0", "mako")


def needs(wheel: Path, board: Board) -> list[Requirement]:
    """List what a wheel asks for on a board, without its extras.

    Raises:
        ValueError: the file is no wheel.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA") and name.count("/") == 1]
        if len(names) != 1:
            message = f"{wheel} is no wheel: it holds {len(names)} METADATA files."
            raise ValueError(message)
        metadata = HeaderParser().parsestr(archive.read(names[0]).decode())
    wanted = [Requirement(text) for text in metadata.get_all("Requires-Dist") or []]
    answers = board.environment() | {"extra": ""}
    return [need for need in wanted if need.marker is None or need.marker.evaluate(answers)]


def missing(wheels: Iterable[Path], board: Board) -> list[str]:
    """List the requirements of wheels that no wheel among them meets on a board, in order and each once."""
    wheels = list(wheels)
    versions: dict[str, list[str]] = {}
    for wheel in wheels:
        name, version, *_ = parse_wheel_filename(wheel.name)
        versions.setdefault(name, []).append(str(version))
    found = set()
    for wheel in wheels:
        for need in needs(wheel, board):
            at_hand = versions.get(canonicalize_name(need.name), [])
            if not any(need.specifier.contains(version, prereleases=True) for version in at_hand):
                found.add(f"{need.name}{need.specifier}")
    return sorted(found)


def download_command(requirements: Sequence[str], board: Board, folder: Path) -> list[str]:
    """Return the pip command that fetches requirements as wheels for a board."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    return [
        *_pip("download"), "--dest", str(folder), "--only-binary=:all:", "--implementation", "cp",
        "--python-version", board.python, *platforms, "--find-links", str(folder), *requirements,
    ]  # fmt: skip


def fill(folder: Path, board: Board, edgefetal: str, *, pycuda: bool) -> list[Path]:
    """Fetch edgefetal and all that it needs on a board; return the files of the folder.

    Args:
        folder: where to; made where it is missing.
        board: the board.
        edgefetal: a wheel, a checkout to build one of, or a requirement such as `edgefetal==0.1.0`.
        pycuda: whether to fetch PyCUDA's source too, and what building it needs.

    Raises:
        CalledProcessError: pip failed; it has said why.
        ValueError: needs of needs go on for more rounds than is plausible.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = edgefetal
    if (Path(edgefetal) / "pyproject.toml").is_file():
        for old in folder.glob("edgefetal-*.whl"):
            old.unlink()
        _run([*_pip("wheel"), "--no-deps", "--wheel-dir", str(folder), edgefetal])
        program = str(next(folder.glob("edgefetal-*.whl")))
    _run(download_command([program, INSTALLER, *board.requirements], board, folder))
    if pycuda:
        bounds = [text for text in board.requirements if text.startswith("numpy")]
        _run([*_pip("download"), "--dest", str(folder), "--no-deps", "--no-binary=pycuda", *PYCUDA])
        _run(download_command([*PYCUDA_NEEDS, *bounds], board, folder))
    for _ in range(MAX_ROUNDS):
        lacking = missing(folder.glob("*.whl"), board)
        if not lacking:
            return sorted(folder.iterdir())
        print(f"Only the board needs: {', '.join(lacking)}", flush=True)  # noqa: T201 - a program for the terminal
        _run([*download_command(lacking, board, folder), "--no-deps"])
    message = f"After {MAX_ROUNDS} rounds there are still needs; look at {folder}."
    raise ValueError(message)


def _pip(verb: str) -> list[str]:
    return [sys.executable, "-m", "pip", verb, "--quiet", "--disable-pip-version-check"]


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)  # noqa: S603 - pip, with what the user typed


def main() -> None:
    """Fill the folder and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jetpack", choices=BOARDS, required=True, help="release that the board runs")
    parser.add_argument("--out", type=Path, required=True, help="folder to fill")
    parser.add_argument(
        "--edgefetal", default=str(CHECKOUT), help="a wheel, a checkout or a requirement [default: this checkout]"
    )
    parser.add_argument("--no-pycuda", action="store_true", help="leave out PyCUDA's source and what builds it")
    asked = parser.parse_args()
    try:
        files = fill(asked.out, BOARDS[asked.jetpack], asked.edgefetal, pycuda=not asked.no_pycuda)
    except (subprocess.CalledProcessError, ValueError) as error:
        sys.exit(f"Error: {error}")
    size_mb = sum(file.stat().st_size for file in files) / 1e6
    print(  # noqa: T201 - a program for the terminal
        f"{asked.out}: {len(files)} files, {size_mb:.0f} MB, for JetPack {asked.jetpack} "
        f"(Python {BOARDS[asked.jetpack].python}). Copy the folder, and on the board: "
        "sudo ./install.sh --wheels FOLDER"
    )


if __name__ == "__main__":
    main()
