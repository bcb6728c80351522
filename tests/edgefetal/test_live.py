"""`edgefetal run` on live sources, as a clinic runs it: found sweeps, the store, signals, kills and wrong input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edgefetal_devices.errors import DeviceLostError
from edgefetal_runtime.exam.record import Exam
from edgefetal_runtime.infer import golden
from edgefetal_runtime.infer.network import Network
from edgefetal_runtime.store.exams import ExamStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_runtime.infer.backends import Backend
    from tests.edgefetal.conftest import CommandLine, HeadSweep

DEADLINE_S = 60.0


@pytest.fixture
def moving(tmp_path: Path, sweep: HeadSweep) -> Path:
    """A sweep at 15 frames a second, whole and lossless."""
    path = tmp_path / "moving.avi"
    height, width = sweep.frames.shape[1:]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), 15.0, (width, height), False)  # noqa: FBT003
    for frame in sweep.frames:
        writer.write(np.ascontiguousarray(frame))
    writer.release()
    return path


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Any]:
    """Start `edgefetal run` in a process of its own; whatever is left is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edgefetal", "run", "starter", *map(str, arguments)]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _await_log(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """Read the structured log until an event; a thread ends the process if it never comes."""
    timer = threading.Timer(DEADLINE_S, process.kill)
    timer.start()
    try:
        assert process.stderr is not None
        for line in process.stderr:
            found: dict[str, Any] = json.loads(line)
            if found.get("event") == event:
                return found
    finally:
        timer.cancel()
    raise AssertionError(f"{event} never came")


def _accounted(report: dict[str, Any]) -> None:
    """Every frame that left the driver came out or is counted as dropped."""
    dropped = report["dropped"]
    assert report["received"] == report["analysed"] + dropped["unread"] + dropped["thinned"]


def test_a_live_sweep_is_found_analysed_and_saved(
    edgefetal: CommandLine, moving: Path, sweep: HeadSweep, tmp_path: Path
) -> None:
    record = edgefetal.json(
        "run", "starter", f"simulated:{moving}", "--mm-per-px", sweep.mm_per_px, "--out", "exam", "--store", "store",
        "--patient", "P-17", "--threads", 1,
    )  # fmt: skip
    report = record.pop("live")
    exam = Exam.model_validate(record)
    assert exam == Exam.model_validate_json((tmp_path / "exam" / "exam.json").read_bytes())
    assert (exam.source_kind, exam.one_subject, exam.ended) == ("simulated", True, None)
    assert report["received"] == len(sweep.frames)
    _accounted(report)
    assert len(exam.sweeps) == 1
    assert exam.sweeps[0].hand is not None
    with ExamStore.open_to_read(tmp_path / "store") as store:
        (summary,) = store.exams("P-17")
        assert summary.state == "saved"
        assert Exam.model_validate_json(store.get(summary.exam_id).record or "") == exam


def test_sigterm_drains_and_saves(running: Any, moving: Path, tmp_path: Path) -> None:
    process = running(f"simulated:{moving}?loop=1", "--store", "store", "--port", 0, "--threads", 1)
    port = _await_log(process, "started")["port"]
    _await_log(process, "ready")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S) as answer:
        assert b"edgefetal_frames_received_total" in answer.read()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert "Saved in store as" in out
    with ExamStore.open_to_read(tmp_path / "store") as store:
        assert [exam.state for exam in store.exams()] == ["saved"]


def test_a_kill_leaves_an_exam_that_is_found_interrupted(running: Any, moving: Path, tmp_path: Path) -> None:
    process = running(f"simulated:{moving}?loop=1", "--store", "store", "--threads", 1)
    _await_log(process, "ready")
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    with ExamStore.open(tmp_path / "store") as store:
        assert [exam.state for exam in store.exams()] == ["interrupted"]
        assert store.check().problems == ()


def test_a_source_that_comes_and_goes_is_one_examination(edgefetal: CommandLine) -> None:
    record = edgefetal.json(
        "run", "starter", "drill:frames=20,unplug", "--seconds", 6, "--store", "store", "--threads", 1
    )
    report = record["live"]
    assert report["reopened"] >= 1
    _accounted(report)
    assert record["ended"] is None


class Lost:
    """A back end whose GPU is lost to this process from one frame on."""

    name = "lost"
    lanes = 1

    def __init__(self, backend: Backend, at: int) -> None:
        self._backend, self._left = backend, at

    def run(self, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        if not self._left:
            raise DeviceLostError("The GPU is lost to this process; start it again.")
        self._left -= 1
        return self._backend.run(image)


@pytest.fixture
def lost_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the GPU be lost at a frame of the examination."""
    whole = golden.open_for_clinic

    def lose(at: int) -> None:
        def opened(*args: Any, **options: Any) -> Any:
            bundle, network = whole(*args, **options)
            return bundle, Network(network.manifest, Lost(network.backend, at))

        monkeypatch.setattr(golden, "open_for_clinic", opened)

    return lose


def test_a_lost_gpu_ends_the_examination_saved_and_asks_for_a_new_process(
    edgefetal: CommandLine, moving: Path, tmp_path: Path, lost_at: Any
) -> None:
    lost_at(8)
    outcome = edgefetal(
        "run", "starter", f"simulated:{moving}", "--out", "exam", "--store", "store", "--json", "e.json", "--threads", 1
    )
    assert outcome.exit_code == 3, "which is what the supervisor starts it again for"
    assert "what was measured until then is kept: The GPU is lost" in outcome.err
    exam = Exam.model_validate_json((tmp_path / "exam" / "exam.json").read_bytes())
    assert exam.ended == "The GPU is lost to this process; start it again."
    assert sum(found.frames_seen for found in exam.sweeps) <= 8
    assert json.loads((tmp_path / "e.json").read_text())["live"]["analysed"] == 8
    with ExamStore.open_to_read(tmp_path / "store") as store:
        assert [kept.state for kept in store.exams()] == ["saved"]


def test_a_gpu_that_was_lost_before_the_first_frame_ends_it_at_once(
    edgefetal: CommandLine, moving: Path, head_png: Path, lost_at: Any
) -> None:
    lost_at(0)
    for source in (f"simulated:{moving}", str(head_png)):
        outcome = edgefetal("run", "starter", source, "--out", "exam", "--threads", 1)
        assert outcome.exit_code == 3
        assert "The GPU is lost" in outcome.err or "DeviceLostError" in outcome.err


def test_a_source_that_never_comes_is_said(edgefetal: CommandLine) -> None:
    outcome = edgefetal("run", "starter", "v4l2:/dev/video-none", "--seconds", 1.5, "--store", "store")
    assert outcome.exit_code == 1
    assert "No frame came from v4l2:/dev/video-none" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("simulated:sweep.avi",), "does not exist"),
        (("v4l2:",), "is no live source"),
        (("drill:frames=3", "--answer", "a"), "--answer is for recordings"),
        (("drill:frames=3", "--sweep-frames", "3"), "--sweep-frames is for recordings"),
        (("drill:frames=3", "--record"), "give --store DIR too"),
        (("drill:frames=3", "--scale-csv", "t.csv"), "names pictures"),
    ],
)
def test_wrong_wishes_are_refused_and_leave_nothing(
    edgefetal: CommandLine, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    outcome = edgefetal("run", "starter", *arguments, "--out", "exam")
    assert outcome.exit_code == 2
    assert said in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seconds", "3", "--out", "exam"), "--seconds is for live sources"),
        (("--port", "0", "--out", "exam"), "--port is for live sources"),
        (("--sweeps", "commanded", "--out", "exam"), "--sweeps is for live sources"),
        ((), "give --out EXAM, --store DIR"),
        (("--out", "exam", "--patient", "17"), "give --store DIR too"),
    ],
)
def test_what_is_for_live_sources_is_refused_for_files(
    edgefetal: CommandLine, head_png: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    outcome = edgefetal("run", "starter", head_png, *arguments)
    assert outcome.exit_code == 2
    assert said in outcome.err
    assert not (tmp_path / "exam").exists()
