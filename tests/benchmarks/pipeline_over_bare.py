"""The whole way of a recording beside the network alone on the same frames, in turn; and the memory of `run`.

The figures are in docs/sweeps.md.

python tests/benchmarks/pipeline_over_bare.py BUNDLE exam.mha --sweep-frames 140
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgefetal.starter import bundle_folder
from edgefetal_runtime.exam.pipeline import examine
from edgefetal_runtime.infer.bundle import load_bundle
from edgefetal_runtime.infer.network import load_network
from edgefetal_runtime.sources.source import open_source
from edgefetal_runtime.sources.split import SplitSource


def main() -> None:
    """Print the ratio of frames a second, pair by pair, and the peak memory of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("source", type=Path)
    parser.add_argument("--sweep-frames", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    bundle = load_bundle(bundle_folder(asked.bundle))
    network = load_network(bundle, threads=asked.threads)
    opened = open_source(asked.source)
    source = SplitSource(opened, asked.sweep_frames) if asked.sweep_frames else opened
    images = [network.prepare(frame.pixels)[0] for frame in source.frames()]
    ratios = []
    for _ in range(asked.pairs):
        since_s = time.perf_counter()
        for image in images:
            network.infer(image)
        bare_s = time.perf_counter() - since_s
        since_s = time.perf_counter()
        timings = examine(source, "benchmark", bundle, network, simulated=True).exam.timings
        ratios.append(bare_s / (time.perf_counter() - since_s))
        stages = {key: round(value, 2) for key, value in timings.model_dump().items() if key.endswith("_ms")}
        print(
            f"bare {len(images) / bare_s:.1f} frames a second, whole way {ratios[-1]:.3f} of that; {stages}", flush=True
        )
    low, high = min(ratios), max(ratios)
    print(f"whole way over bare: median {np.median(ratios):.3f}, {low:.3f} to {high:.3f}; {len(images)} frames")
    with tempfile.TemporaryDirectory() as folder:
        split = ["--sweep-frames", str(asked.sweep_frames)] if asked.sweep_frames else []
        since_s = time.perf_counter()
        subprocess.run(
            [
                sys.executable, "-m", "edgefetal", "run", asked.bundle, str(asked.source), "--out", f"{folder}/exam",
                "--simulated", "--threads", str(asked.threads), *split,
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
        peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"edgefetal run: {time.perf_counter() - since_s:.1f} s, peak memory {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
