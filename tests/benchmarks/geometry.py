"""Time from a mask to a head's measurements, beside the same steps in scikit-image.

    python tests/benchmarks/geometry.py [--hc18 PATH] [--rounds N]

Both get the network's logits of each picture in turn, interleaved in one run on one thread: the largest region, its
contour at the zero level, an ellipse through it, and its perimeter. Ours also leaves out points at the edge of the fan,
fits robustly, judges the outline and gives four measures or reasons. With HC18 the logits are the starter network's on
its pictures that were not trained on; without, they are drawn. Needs the extra `peers`.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import time
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

# One core, and before the libraries start their threads.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import cv2  # noqa: E402 - after the environment is set
import numpy as np  # noqa: E402

from edgefetal.starter import bundle_folder  # noqa: E402
from edgefetal_calibration.datasets.hc18 import read_hc18  # noqa: E402
from edgefetal_calibration.datasets.split import Part, Split, select_part  # noqa: E402
from edgefetal_export.peers.scikit_image import fit_region  # noqa: E402
from edgefetal_runtime.biometry.field import fan_field, picture_field  # noqa: E402
from edgefetal_runtime.biometry.head import HEAD_SHAPE, measure_head  # noqa: E402
from edgefetal_runtime.biometry.measurement import Measured  # noqa: E402
from edgefetal_runtime.biometry.outline import Outline, outline_round  # noqa: E402
from edgefetal_runtime.biometry.quantities import HC  # noqa: E402
from edgefetal_runtime.infer.bundle import SPLIT, load_bundle  # noqa: E402
from edgefetal_runtime.infer.network import load_network  # noqa: E402
from edgefetal_runtime.infer.preprocess import PreprocessSpec, letterbox  # noqa: E402
from edgefetal_runtime.scale import Scale  # noqa: E402

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgefetal_runtime.infer.preprocess import Letterbox

    Task = tuple[npt.NDArray[np.float32], Letterbox, Scale, npt.NDArray[np.bool_]]


def ours(task: Task) -> float | None:
    """HC in mm by the runtime, or None where it refuses."""
    logits, box, scale, field = task
    outline = outline_round(logits, box, scale, HEAD_SHAPE, field)
    measured = measure_head(outline)[HC] if isinstance(outline, Outline) else None
    return measured.value if isinstance(measured, Measured) else None


def peer(task: Task) -> float | None:
    """HC in mm by scikit-image's ready-made parts, or None where it fits nothing."""
    logits, box, scale, _ = task
    fitted = fit_region(logits, box, scale.x_mm_per_px)
    return None if fitted is None else fitted[1]


def drawn_tasks(count: int = 100) -> list[Task]:
    """Heads of many sizes with a network's roughness."""
    spec = PreprocessSpec(height_px=192, width_px=288, mean=0.15, std=0.2)
    box = letterbox(540, 800, spec)
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: spec.height_px, : spec.width_px]
    tasks: list[Task] = []
    for _ in range(count):
        major, turn = rng.uniform(25, 85), rng.uniform(0, math.pi)
        x, y = columns - 144 - rng.normal(0, 5), rows - 96 - rng.normal(0, 3)
        u = (x * math.cos(turn) + y * math.sin(turn)) / major
        v = (y * math.cos(turn) - x * math.sin(turn)) / (0.78 * major)
        waves = sum(
            rng.normal(0, 0.02) / k * np.cos(k * np.arctan2(v, u) + rng.uniform(0, 2 * math.pi)) for k in range(2, 9)
        )
        logits = (20 * (1 + waves - np.hypot(u, v))).astype(np.float32)
        tasks.append((logits, box, Scale(0.15, 0.15, origin="drawn"), picture_field(box, logits.shape)))
    return tasks


def network_tasks(hc18: Path) -> list[Task]:
    """Answers of the starter network to the pictures that it was not trained on, where it marks anything."""
    bundle = load_bundle(bundle_folder("starter"))
    network = load_network(bundle, threads=1)
    split, cases = Split.model_validate_json(bundle.read(SPLIT)), read_hc18(hc18)
    chosen = [case for part in (Part.VALIDATION, Part.HELD_OUT) for case in select_part(split, cases, part.value)]
    tasks: list[Task] = []
    for case in chosen:
        image, box = network.prepare(case.frame().pixels)
        logits = network.infer(image).mask_logits[0]
        if (logits > 0).any():
            tasks.append((logits, box, case.scale, fan_field(image[0, 0], network.manifest.preprocess, box)))
    return tasks


def main() -> None:
    """Time both on every mask and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--hc18", type=Path, help="HC18 in its official layout; without it, masks are drawn")
    parser.add_argument("--rounds", type=int, default=5, help="times that every mask is measured by both")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    cv2.setNumThreads(1)
    tasks = network_tasks(arguments.hc18) if arguments.hc18 else drawn_tasks()
    for task in tasks[:10]:
        ours(task), peer(task)
    seconds = np.empty((2, arguments.rounds, len(tasks)))
    values: list[list[float | None]] = [[], []]
    for round_number in range(arguments.rounds):
        for number, task in enumerate(tasks):
            # Each goes first every other time, so that neither always finds the map in the cache.
            for which in (0, 1) if (round_number + number) % 2 else (1, 0):
                since = time.perf_counter()
                value = (ours, peer)[which](task)
                seconds[which, round_number, number] = time.perf_counter() - since
                if round_number == 0:
                    values[which].append(value)
    ms = 1e3 * np.median(seconds, axis=1)
    ratios = ms[1] / ms[0]
    rng = np.random.default_rng(0)
    resampled = np.median(ratios[rng.integers(0, len(ratios), (2000, len(ratios)))], axis=1)
    low, high = np.quantile(resampled, (0.025, 0.975))
    pairs = [(a, b) for a, b in zip(*values, strict=True) if a is not None and b is not None]
    difference = np.array([a - b for a, b in pairs])
    packages = ("numpy", "opencv-python-headless", "scikit-image")
    print(f"{len(tasks)} masks of {tasks[0][0].shape}, {arguments.rounds} rounds, one thread")
    print(f"{platform.machine()}, {_processor()}, Python {platform.python_version()}")
    print(", ".join(f"{name} {metadata.version(name)}" for name in packages))
    print(f"edgefetal    {np.median(ms[0]):6.2f} ms median, {np.quantile(ms[0], 0.95):6.2f} ms at 95 %")
    print(f"scikit-image {np.median(ms[1]):6.2f} ms median, {np.quantile(ms[1], 0.95):6.2f} ms at 95 %")
    print(f"ratio, pair by pair: {np.median(ratios):.1f}, 95 % bootstrap interval {low:.1f} to {high:.1f}")
    print(
        f"HC, ours less theirs, {len(pairs)} measured by both ({sum(v is None for v in values[0])} refused by ours): "
        f"median {np.median(difference):+.3f} mm, mean of sizes {np.abs(difference).mean():.3f} mm"
    )


def _processor() -> str:
    """Name of the processor where the system tells."""
    path = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in path.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
