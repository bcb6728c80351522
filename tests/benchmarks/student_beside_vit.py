"""The shipped student beside the teacher's size of network, in one interleaved run on this machine.

    python tests/benchmarks/student_beside_vit.py [BUNDLE] [--threads N] [--rounds N] [--backend NAME]

FetalCLIP's tower, ViT-L/14 at 224 with 304 million numbers, has random weights here: they take as long as any. It runs
in PyTorch as the published code does; the student in the back end of its bundle, or in the one named.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from edgefetal.starter import bundle_folder
from edgefetal_export.build import golden_frames
from edgefetal_export.teachers.fetalclip import FetalClipConfig, fetalclip_tower
from edgefetal_runtime.infer.bundle import load_bundle
from edgefetal_runtime.infer.latency import speed_ratio
from edgefetal_runtime.infer.network import load_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="starter")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--backend", default="auto")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bundle = load_bundle(bundle_folder(arguments.bundle))
    student = load_network(bundle, backend=arguments.backend, threads=arguments.threads)
    image, _ = student.prepare(golden_frames()[-1])
    tower = fetalclip_tower(FetalClipConfig()).eval()
    picture = torch.zeros(1, 3, 224, 224)
    tower_s, student_s = [], []
    with torch.inference_mode():
        for number in range(-2, arguments.rounds):
            started_s = time.perf_counter()
            tower(picture)
            between_s = time.perf_counter()
            student.infer(image)
            ended_s = time.perf_counter()
            if number >= 0:
                tower_s.append(between_s - started_s)
                student_s.append(ended_s - between_s)
    ratio = speed_ratio(tower_s, student_s)
    print(
        f"ViT-L/14 {1e3 * np.median(tower_s):.0f} ms, {bundle.manifest.name} {1e3 * np.median(student_s):.1f} ms; "
        f"{ratio.median:.0f} times as fast (95 % interval {ratio.low:.0f} to {ratio.high:.0f}, "
        f"{arguments.rounds} pairs, {arguments.threads} thread(s), {student.backend.name})"
    )


if __name__ == "__main__":
    main()
