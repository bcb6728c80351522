"""Run the starter, or another bundle, on simulated head sweeps beside their truth: the table of docs/measurements.md.

edgefetal phantom --protocol head --ga 18w0d..36w0d --exams 20 --frames 30 --seed 3 --out heads
python tests/benchmarks/starter_on_simulated_heads.py heads [BUNDLE]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def measured_head(bundle: str, sweep: Path, out: Path) -> tuple[float, tuple[float, float], int] | None:
    """Run a bundle on a sweep as a clinic would; return HC in mm, its interval and the frame it was taken on."""
    subprocess.run(
        [sys.executable, "-m", "edgefetal", "run", bundle, str(sweep), "--out", str(out)],
        check=True,
        capture_output=True,
    )
    exam = json.loads((out / "exam.json").read_bytes())
    head = next(m for m in exam["measurements"] if m["name"] == "HC")
    if head["value"] is None:
        return None
    low, high = head["interval"]
    # The first frame is the one that was measured; the others agreed with it.
    return head["value"], (low, high), head["frames"][0]["index"]


def figures(errors: list[float]) -> str:
    """Write bias, mean absolute and largest error."""
    array = np.array(errors)
    return f"{array.mean():+.1f}, {np.abs(array).mean():.1f}, {np.abs(array).max():.1f} (n = {len(array)})"


def main() -> None:
    """Print the table of one series."""
    of_fetus, of_cut, held, n = [], [], 0, 0
    bundle = sys.argv[2] if len(sys.argv) > 2 else "starter"
    for truth_path in sorted(Path(sys.argv[1]).glob("*/truth.json")):
        truth = json.loads(truth_path.read_bytes())
        n += 1
        with tempfile.TemporaryDirectory() as folder:
            found = measured_head(bundle, truth_path.parent / "sweep_1.mha", Path(folder) / "exam")
        if found is None:
            continue
        value, (low, high), index = found
        of_fetus.append(value - truth["hc_mm"])
        held += low <= truth["hc_mm"] <= high
        cut_mm = truth["frames"][index]["hc_mm"]
        if cut_mm is not None:
            of_cut.append(value - cut_mm)
    print(f"measured {len(of_fetus)} of {n}; interval holds the truth {held} of {len(of_fetus)}")
    print(f"HC against the fetus (mm), bias, mean absolute, largest: {figures(of_fetus)}")
    print(f"HC against the cut measured (mm): {figures(of_cut)}")


if __name__ == "__main__":
    main()
