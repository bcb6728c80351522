"""Time to save an exam of five pictures so that it outlasts a power cut, and to open and check a store.

    python tests/benchmarks/exam_store.py [--folder DIR] [--exams N]

Each exam has a record of 20 kB and five pictures of 300 kB of noise, which nothing can compress or share. DIR should be
on the disk that the clinic's store is on; what is made there is removed again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from edgefetal_runtime.exam.record import BundleRecord
from edgefetal_runtime.store.exams import ExamStore

BUNDLE = BundleRecord(name="starter", sha256="0" * 64, backend="onnxruntime")
RECORD = json.dumps({"contour_px": [[n / 7, n / 3] for n in range(500)]}, indent=1)


def main() -> None:
    """Save the exams, then open, list and check the store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--exams", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        seconds: dict[str, list[float]] = {"save": [], "checkpoint": [], "picture": []}
        with ExamStore.open(Path(folder) / "store") as store:
            for number in range(options.exams):
                overlays = {f"overlay-{n:03d}.png": os.urandom(300_000) for n in range(5)}
                exam = store.begin(f"patient {number}", "sweep.mp4", BUNDLE)
                for name, step in (
                    ("checkpoint", lambda exam=exam: exam.checkpoint(RECORD)),
                    ("picture", lambda exam=exam: exam.add_picture(os.urandom(300_000), "sweep", 0, 0.0, "plane")),
                    ("save", lambda exam=exam, overlays=overlays: exam.save_record(RECORD, overlays)),
                ):
                    started_s = time.perf_counter()
                    if not step():
                        message = f"{name} was left out; name a folder on a disk with more room"
                        raise SystemExit(message)
                    seconds[name].append(time.perf_counter() - started_s)
        started_s = time.perf_counter()
        with ExamStore.open(Path(folder) / "store") as store:
            opened_s = time.perf_counter() - started_s
            started_s = time.perf_counter()
            report = store.check()
            checked_s = time.perf_counter() - started_s
    for name, values in seconds.items():
        ranked = sorted(values)
        print(f"{name}: median {1e3 * statistics.median(ranked):.0f} ms, slowest {1e3 * ranked[-1]:.0f} ms")
    print(f"open {1e3 * opened_s:.0f} ms, check {1e3 * checked_s:.0f} ms: {report.exams} exams, {report.blobs} blobs")


if __name__ == "__main__":
    main()
