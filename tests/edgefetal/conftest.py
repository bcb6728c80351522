"""Running the command line as a user does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import pytest
from typer.testing import CliRunner

from edgefetal.cli import app
from edgefetal_calibration.phantom.head_clip import HeadClip, simulate_head_clip, write_clip

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    exit_code: int
    out: str
    err: str


@dataclass(frozen=True)
class CommandLine:
    """Runs `edgefetal` in this process, in a folder of its own."""

    folder: Path

    def __call__(self, *arguments: object) -> Outcome:
        result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "TERM": "dumb"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    def json(self, *arguments: object) -> dict[str, Any]:
        """Run a command that must succeed, with `--json`; return what it wrote."""
        target = self.folder / "out.json"
        outcome = self(*arguments, "--json", target)
        assert outcome.exit_code == 0, outcome.err
        value: dict[str, Any] = json.loads(target.read_text())
        return value


@pytest.fixture
def edgefetal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    return CommandLine(tmp_path)


@pytest.fixture(scope="session")
def clip() -> HeadClip:
    """A simulated sweep across a head of 190 mm."""
    return simulate_head_clip(hc_mm=190, seed=3, frame_count=24)


@pytest.fixture(scope="session")
def clip_video(clip: HeadClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "sweep.avi"
    write_clip(clip, path)
    return path


@pytest.fixture(scope="session")
def head_png(clip: HeadClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The standard plane of the clip as a picture."""
    path = tmp_path_factory.mktemp("still") / "head.png"
    cv2.imwrite(str(path), clip.frames[clip.standard_plane_index])
    return path
