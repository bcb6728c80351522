"""`wheels.py` finds what a board needs that the workstation's pip leaves out."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

if TYPE_CHECKING:
    from types import ModuleType

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]


def wheel(folder: Path, name: str, *needs: str, tag: str = "py3-none-any") -> Path:
    """Write a wheel that holds its metadata only."""
    path = folder / f"{name}-{tag}.whl"
    lines = ["Metadata-Version: 2.1", f"Name: {name.partition('-')[0]}", *(f"Requires-Dist: {need}" for need in needs)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            f"{name}.dist-info/METADATA", "\n".join(lines) + "\n\nThe description.\nRequires-Dist: nothing\n"
        )
        # As setuptools carries copies of others.
        archive.writestr("copies/other-1.0.dist-info/METADATA", "Requires-Dist: nothing-either\n")
    return path


def test_conditions_are_asked_of_the_board(tmp_path: Path, wheels: ModuleType) -> None:
    files = [
        wheel(
            tmp_path,
            "edgefetal-0.1.0",
            "numpy>=1.23",
            'tomli>=2; python_version < "3.11"',
            'colorama; sys_platform == "win32"',
            'x86-only; platform_machine == "x86_64"',
            'torch; extra == "build"',
        ),
        wheel(tmp_path, "numpy-1.26.4", tag="cp310-cp310-manylinux_2_17_aarch64"),
    ]
    assert wheels.missing(files, wheels.BOARDS["6.2"]) == ["tomli>=2"]
    assert wheels.missing(files, wheels.BOARDS["7.2"]) == []


def test_version_that_is_too_old_or_spelt_otherwise(tmp_path: Path, wheels: ModuleType) -> None:
    files = [
        wheel(tmp_path, "edgefetal-0.1.0", "Typing_Extensions>=4.0", "numpy<2,>=1.23"),
        wheel(tmp_path, "typing_extensions-4.16.0"),
        wheel(tmp_path, "numpy-2.4.6"),
    ]
    assert wheels.missing(files, wheels.BOARDS["6.2"]) == ["numpy<2,>=1.23"]
    # One of several will do, and a first look at a newer release is a version too.
    files.append(wheel(tmp_path, "numpy-1.27.0rc1"))
    assert wheels.missing(files, wheels.BOARDS["6.2"]) == []


def test_file_that_is_no_wheel_is_named(tmp_path: Path, wheels: ModuleType) -> None:
    path = tmp_path / "edgefetal-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("edgefetal/__init__.py", "")
    with pytest.raises(ValueError, match="is no wheel: it holds 0 METADATA"):
        wheels.missing([path], wheels.BOARDS["6.2"])


def test_pip_is_asked_for_the_boards_wheels_only(tmp_path: Path, wheels: ModuleType) -> None:
    command = wheels.download_command(["numpy<2"], wheels.BOARDS["6.2"], tmp_path)
    assert command[command.index("--python-version") + 1] == "3.10"
    assert "--only-binary=:all:" in command
    platforms = [command[n + 1] for n, word in enumerate(command) if word == "--platform"]
    assert platforms
    assert all(platform.startswith("manylinux_2_") and platform.endswith("_aarch64") for platform in platforms)
    assert "manylinux_2_39_aarch64" not in platforms


def test_rounds_go_on_until_nothing_is_missing(
    tmp_path: Path, wheels: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pip is played: what only the board needs comes when it is asked for, and asks for more."""
    asked: list[list[str]] = []
    commands: list[list[str]] = []
    needs = {"edgefetal": ('tomli; python_version < "3.11"',), "tomli": ('deeper; python_version < "3.11"',)}

    def pip(command: list[str]) -> None:
        wanted = [word for word in command if word in {"edgefetal", "tomli", "deeper"}]
        asked.append(wanted)
        commands.append(command)
        for name in wanted:
            wheel(tmp_path, f"{name}-1.0", *needs.get(name, ()))

    monkeypatch.setattr(wheels, "_run", pip)
    files = wheels.fill(tmp_path, wheels.BOARDS["6.2"], "edgefetal", pycuda=False)
    assert asked == [["edgefetal"], ["tomli"], ["deeper"]]
    # What brings the rest in, and what JetPack 6 can bear.
    assert any(word.startswith("pip>") for word in commands[0])
    assert "numpy<2" in commands[0]
    assert [file.name.partition("-")[0] for file in files] == ["deeper", "edgefetal", "tomli"]
    assert "Only the board needs: tomli" in capsys.readouterr().out


def test_needs_without_an_end_are_given_up(tmp_path: Path, wheels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "_run", lambda _: None)
    wheel(tmp_path, "edgefetal-0.1.0", "never-there")
    with pytest.raises(ValueError, match="there are still needs"):
        wheels.fill(tmp_path, wheels.BOARDS["6.2"], "edgefetal", pycuda=False)


def test_every_board_is_one_that_edgefetal_runs_on(wheels: ModuleType) -> None:
    oldest = Requirement(f"python{PROJECT['requires-python']}").specifier
    for board in wheels.BOARDS.values():
        assert oldest.contains(board.python)
    # The board of which pip forgets this is the reason for the rounds.
    answers = wheels.BOARDS["6.2"].environment()
    conditional = [Requirement(text) for text in PROJECT["dependencies"] if ";" in text]
    assert [need.name for need in conditional if need.marker and need.marker.evaluate(answers)] == ["tomli"]
