"""Hold a live examination for minutes or hours, and say what became of frames, latency and memory: docs/live.md.

python tests/benchmarks/live_soak.py --minutes 60                      # a simulated probe at 30 frames a second
python tests/benchmarks/live_soak.py --minutes 600 --source v4l2:/dev/video0

The simulated probe plays sweeps across a head, ten seconds each, with the probe in the air for twenty between.
Memory is the anonymous memory of the program and of its capture child, by /proc. What they map of files, such as
libraries, is left out: the kernel counts a page as theirs alone only while no other program maps it, so that figures
with it rise by the size of the libraries when some other program ends.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from edgefetal_calibration.phantom.exam import Exam, ExamPlan
from edgefetal_calibration.phantom.protocol import Protocol

_FPS = 30
_SWEEP_FRAMES, _AIR_FRAMES = 10 * _FPS, 20 * _FPS
_SAMPLE_S = 5.0
_WARM_UP_S = 90.0
# A sweep and the pause behind it.
_CYCLE_S = (_SWEEP_FRAMES + _AIR_FRAMES) / _FPS


def write_probe(path: Path) -> float:
    """Write one sweep across a simulated head and a pause, as a video; return its pixel size in mm."""
    exam = Exam(ExamPlan(Protocol.HEAD, 28.0, 5, skill=0.9, frame_count=_SWEEP_FRAMES))
    writer = None
    for frame in exam.frames(2):
        height, width = frame.picture.shape
        if writer is None:
            codec = cv2.VideoWriter.fourcc(*"FFV1")
            writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, _FPS, (width, height), isColor=False)
        writer.write(frame.picture)
    assert writer is not None
    for _ in range(_AIR_FRAMES):
        writer.write(np.zeros((height, width), np.uint8))
    writer.release()
    return exam.probe_and_fan[1].x_mm_per_px


def family(pid: int) -> list[int]:
    """Return a process and its children."""
    # A child belongs to the thread that started it.
    children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [pid, *(int(child) for of_thread in children for child in of_thread)]


def memory_mb(pid: int) -> float:
    """Anonymous memory of a process, in MB; 0 where it has just gone."""
    try:
        rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    except (OSError, ValueError):
        return 0.0
    return int(rows["Anonymous"].split()[0]) / 1024


def open_files(pid: int) -> int:
    """Count the files that a process has open; 0 where it has just gone."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def _slope_error(at_s: np.ndarray, values: np.ndarray) -> float:
    """Standard error of the slope of a line through values."""
    left = values - np.polyval(np.polyfit(at_s, values, 1), at_s)
    return float(np.sqrt((left @ left) / (len(at_s) - 2) / ((at_s - at_s.mean()) ** 2).sum()))


def main() -> None:
    """Run, sample and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--source", help="any live source; the simulated probe if left out")
    parser.add_argument("--bundle", default="starter")
    parser.add_argument("--threads", default="1")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, scale = asked.source, ["--mm-per-px", "0.2"]
        if source is None:
            scale[1] = str(write_probe(folder / "probe.avi"))
            source = f"simulated:{folder / 'probe.avi'}?fps={_FPS}&loop=1"
        command = [
            sys.executable, "-m", "edgefetal", "run", asked.bundle, source, *scale, "--store", str(folder / "store"),
            "--seconds", str(60 * asked.minutes), "--threads", asked.threads, "--simulated",
            "--json", str(folder / "live.json"),
        ]  # fmt: skip
        started_s = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        samples: list[tuple[float, float, float, int]] = []
        while True:
            try:
                process.wait(_SAMPLE_S)
                break
            except subprocess.TimeoutExpired:
                pids = family(process.pid)
                at_s = time.monotonic() - started_s
                capture_mb = sum(map(memory_mb, pids[1:]))
                samples.append((at_s, memory_mb(pids[0]), capture_mb, sum(map(open_files, pids))))
        report(json.loads((folder / "live.json").read_bytes()), samples, process.returncode)


def report(record: dict[str, object], samples: list[tuple[float, float, float, int]], code: int) -> None:
    """Print what became of it."""
    live, sweeps = record["live"], record["sweeps"]
    assert isinstance(live, dict)
    assert isinstance(sweeps, list)
    uncounted = live["received"] - live["analysed"] - live["dropped"]["unread"] - live["dropped"]["thinned"]
    print(f"exit code {code}; {samples[-1][0] / 60:.1f} minutes, {len(sweeps)} sweeps")
    print(f"frames: {live['received']} came, {live['analysed']} analysed, {uncounted} not counted")
    print(f"dropped: {live['dropped']}")
    print("latency from driver to result, ms:", {key: round(value, 1) for key, value in live["latency_ms"].items()})
    cycles = (np.array(samples)[:, 0] - _WARM_UP_S) // _CYCLE_S
    # Memory rises with a sweep and falls after it, which a line through the samples would take for a slope.
    warm = np.array([np.array(samples)[cycles == cycle].mean(axis=0) for cycle in range(int(cycles[-1]))])
    if len(warm) > 2:
        for column, who in ((1, "program"), (2, "capture")):
            slope = np.polyfit(warm[:, 0], warm[:, column], 1)[0] * 600
            first_mb, last_mb = warm[0, column], warm[-1, column]
            error = _slope_error(warm[:, 0], warm[:, column]) * 600
            print(
                f"memory of the {who}: {first_mb:.1f} MB, at last {last_mb:.1f}, {slope:+.2f} MB in ten minutes "
                f"(standard error {error:.2f}; means of {_CYCLE_S:.0f} s)"
            )
        print(f"open files: {int(warm[0, 3])} at first, {int(warm[-1, 3])} at last")


if __name__ == "__main__":
    main()
