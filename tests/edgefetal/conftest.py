"""Running the command line as a user does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edgefetal.cli import app
from edgefetal_calibration.phantom.cine import Cine
from edgefetal_calibration.phantom.exam import Exam, ExamPlan
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.writers import write_mha, write_video

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


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
        result = CliRunner().invoke(app, [str(a) for a in arguments])
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


@dataclass(frozen=True, eq=False)
class HeadSweep:
    """A simulated sweep across a head, with its truth.

    Args:
        frames: shape (T, H, W), uint8.
        frames_per_s: frame rate.
        mm_per_px: size of a pixel, the same in x and y.
        standard_plane_index: the frame nearest the head's standard plane.
        hc_mm: true head circumference in that frame.
        cephalic_index: true width over length of the head in that frame.
    """

    frames: npt.NDArray[np.uint8]
    frames_per_s: float
    mm_per_px: float
    standard_plane_index: int
    hc_mm: float
    cephalic_index: float


@pytest.fixture(scope="session")
def sweep() -> HeadSweep:
    """A sweep by a practised hand across the head of a fetus of 28 weeks, from one side of it to the other."""
    exam = Exam(ExamPlan(Protocol.HEAD, weeks=28.0, seed=3, skill=1.0, frame_count=20))
    frames = list(exam.frames())
    plane = max(range(len(frames)), key=lambda index: frames[index].truth.quality)
    outline = exam.scene.head_section(exam.planes[0][plane])
    assert outline is not None
    return HeadSweep(
        frames=np.stack([frame.picture for frame in frames]),
        frames_per_s=20.0,
        mm_per_px=exam.probe_and_fan[1].x_mm_per_px,
        standard_plane_index=plane,
        hc_mm=outline.circumference(),
        cephalic_index=outline.semi_minor / outline.semi_major,
    )


@pytest.fixture(scope="session")
def sweep_video(sweep: HeadSweep, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "sweep.avi"
    write_video(Cine(sweep.frames, sweep.frames_per_s, sweep.mm_per_px, sweep.mm_per_px), path)
    return path


@pytest.fixture(scope="session")
def sweep_stack(sweep: HeadSweep, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a MetaImage, which says how large its pixels are."""
    path = tmp_path_factory.mktemp("sweep") / "sweep.mha"
    write_mha(Cine(sweep.frames, sweep.frames_per_s, sweep.mm_per_px, sweep.mm_per_px), path)
    return path


@pytest.fixture(scope="session")
def head_png(sweep: HeadSweep, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The standard plane of the sweep as a picture."""
    path = tmp_path_factory.mktemp("still") / "head.png"
    cv2.imwrite(str(path), sweep.frames[sweep.standard_plane_index])
    return path
