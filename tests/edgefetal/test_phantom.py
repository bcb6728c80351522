"""`edgefetal phantom`, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_calibration.datasets.phantom import read_phantom
from edgefetal_runtime.sources.scale_wish import ScaleWish
from edgefetal_runtime.sources.source import open_source

if TYPE_CHECKING:
    from tests.edgefetal.conftest import CommandLine


def test_blind_sweeps_have_the_public_sets_layout(edgefetal: CommandLine, tmp_path: Path) -> None:
    value = edgefetal.json("phantom", "--ga", "28w0d", "--frames", 2, "--skill", 0.8, "--out", "set")
    assert value["simulated"] is True
    record = json.loads(Path(value["exams"][0]).read_text())
    name = record["uuid"]
    for stack in ("images/stacked_fetal_ultrasound", "masks/stacked_fetal_abdomen"):
        source = open_source(tmp_path / "set" / stack / f"{name}.mha", ScaleWish())
        assert source.frame_count == 12
    table = (tmp_path / "set/circumferences/fetal_abdominal_circumferences_per_sweep.csv").read_text().splitlines()
    assert table[0] == "uuid,subject_id," + ",".join(f"sweep_{k}_ac_mm" for k in range(1, 7))
    assert table[1].startswith(f"{name},")
    assert record["simulated"] is True
    assert record["weeks"] == 28.0
    assert record["skill"] == 0.8
    assert {f["sweep"] for f in record["frames"]} == {1, 2, 3, 4, 5, 6}
    for key in ("hc_mm", "bpd_mm", "ofd_mm", "ac_mm", "fl_mm", "seed"):
        assert record[key] > 0


def test_a_head_sweep_is_a_video(edgefetal: CommandLine, tmp_path: Path) -> None:
    value = edgefetal.json(
        "phantom", "--protocol", "head", "--ga", "22w3d", "--format", "mp4", "--frames", 5, "--out", "heads"
    )
    video = Path(value["exams"][0]).parent / "sweep_1.mp4"
    source = open_source(tmp_path / video, ScaleWish())
    assert source.frame_count == 5
    assert any(np.any(frame.pixels) for frame in source.frames())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--ga", "60w0d"), "outside 0 to 45"),
        (("--ga", "41w0d"), "14w0d to 40w0d"),
        (("--ga", "13w6d"), "14w0d to 40w0d"),
        (("--exams", "0"), "0 exams"),
        (("--frames", "0"), "0 frames"),
        (("--skill", "2"), "skill of 2"),
        (("--seed", "-1"), "seed -1"),
        (("--workers", "0"), "0 workers"),
        (("--ga", "36w0d..18w0d"), "write 18w0d..36w0d"),
        (("--ga", "18w0d.."), "18w0d..36w0d"),
        (("--ruler",), "ACOUSLIC-AI's layout"),
        (("--protocol", "head", "--rescale", "1280"), "1280x720"),
        (("--protocol", "head", "--rescale", "9000x720"), "4096"),
        (("--protocol", "head", "--crop", "1,2,3"), "100,50,700,550"),
        (("--protocol", "head", "--crop", "0,0,801,600"), "800 x 600"),
        (("--protocol", "head", "--crop", "0,0,301,300", "--format", "mp4"), "even sides"),
        (("--protocol", "head", "--freeze", "3"), "30:12"),
        (("--protocol", "head", "--freeze", "60:1"), "Frame 60"),
        (("--protocol", "head", "--freeze", "1:99999"), "10000"),
        (("--protocol", "head", "--drop", "1.5"), "0 to 1"),
        (("--protocol", "head", "--text", "gr\u00f6\u00dfer"), "ASCII"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    edgefetal: CommandLine, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    outcome = edgefetal("phantom", *arguments, "--out", "set")
    assert outcome.exit_code == 2
    assert says in outcome.err
    assert not (tmp_path / "set").exists()


def test_a_folder_that_exists_or_cannot_be_made_is_refused(edgefetal: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").touch()
    for out in ("taken", "file/set"):
        outcome = edgefetal("phantom", "--frames", 1, "--out", out)
        assert outcome.exit_code == 2
        assert outcome.err.startswith("Error: ")


def test_an_abdomen_sweep_goes_through_a_capture_card(edgefetal: CommandLine, tmp_path: Path) -> None:
    value = edgefetal.json(
        *("phantom", "--protocol", "abdomen", "--ga", "20w0d..34w0d", "--format", "mp4", "--frames", 4, "--skill", 1),
        *(
            "--rescale",
            "640x480",
            "--crop",
            "20,0,620,480",
            "--freeze",
            "1:2",
            "--text",
            "GA",
            "--ruler",
            "--out",
            "set",
        ),
    )
    assert (value["low_weeks"], value["high_weeks"]) == (20.0, 34.0)
    truth = tmp_path / value["exams"][0]
    record = json.loads(truth.read_text())
    assert 20 <= record["weeks"] <= 34
    assert [frame["shows"] for frame in record["frames"]] == [0, 1, 1, 1, 2, 3]
    frames = list(open_source(truth.parent / "sweep_1.mp4", ScaleWish()).frames())
    assert [frame.pixels.shape for frame in frames] == [(480, 600)] * 6


def test_resume_keeps_what_is_there(edgefetal: CommandLine, tmp_path: Path) -> None:
    arguments = ("phantom", "--protocol", "femur", "--frames", 2, "--out", "set")
    first = Path(edgefetal.json(*arguments)["exams"][0])
    before = (tmp_path / first).stat().st_mtime_ns
    value = edgefetal.json(*arguments, "--exams", 2, "--resume")
    assert (tmp_path / first).stat().st_mtime_ns == before
    assert all((tmp_path / path).is_file() for path in value["exams"])


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("options", "truths"),
    [
        (("--protocol", "acouslic", "--frames", "1"), "truth/*.json"),
        (("--protocol", "femur", "--frames", "3", "--format", "png", "--workers", "2"), "*/truth.json"),
    ],
    ids=["stacks", "folders"],
)
def test_a_killed_run_leaves_whole_exams_only_and_is_resumed_to_the_same_bytes(
    edgefetal: CommandLine, tmp_path: Path, options: tuple[str, ...], truths: str
) -> None:
    arguments = ("phantom", *options, "--exams", "6", "--out")
    killed = tmp_path / "killed"
    # In a session of its own, so that the drawing processes are killed with it.
    with subprocess.Popen(
        [sys.executable, "-m", "edgefetal", *arguments, str(killed)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:
        while not _finished(killed, truths):
            assert run.poll() is None, "the run ended before any exam was finished"
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    finished = _finished(killed, truths)
    assert 1 <= len(finished) < 6
    # The reader takes the finished exams and nothing else, and all of their frames are there.
    exams = read_phantom(killed)
    assert {exam.truth for exam in exams} == finished
    for exam in exams:
        frames = json.loads(exam.truth.read_text())["frames"]
        assert sum(len(sweep.pixels) for sweep in exam.sweeps()) == len(frames)
    edgefetal.json(*arguments, "killed", "--resume")
    edgefetal.json(*arguments, "whole")
    assert _contents(killed) == _contents(tmp_path / "whole")


def _finished(folder: Path, truths: str) -> set[Path]:
    """Truths of the exams that are there; what has a hidden name is not."""
    return {path for path in folder.glob(truths) if not any(p.startswith(".") for p in path.relative_to(folder).parts)}
