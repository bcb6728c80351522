"""`edgefetal phantom`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

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


def test_resume_keeps_what_is_there(edgefetal: CommandLine, tmp_path: Path) -> None:
    arguments = ("phantom", "--protocol", "femur", "--frames", 2, "--out", "set")
    first = Path(edgefetal.json(*arguments)["exams"][0])
    before = (tmp_path / first).stat().st_mtime_ns
    value = edgefetal.json(*arguments, "--exams", 2, "--resume")
    assert (tmp_path / first).stat().st_mtime_ns == before
    assert all((tmp_path / path).is_file() for path in value["exams"])
