"""Draw the size of the head along simulated sweeps, with what was chosen or why nothing was: docs/crossing.svg.

edgefetal phantom --protocol head --ga 18w0d..36w0d --exams 20 --frames 30 --seed 3 --out heads
python tests/benchmarks/crossing_picture.py heads docs/crossing.svg 2 12
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import matplotlib as mpl

from edgefetal.starter import bundle_folder
from edgefetal_runtime.biometry.measurement import Measured
from edgefetal_runtime.biometry.principal import principal_length
from edgefetal_runtime.exam.find import find_all
from edgefetal_runtime.exam.measure import StructureSelector
from edgefetal_runtime.infer.bundle import HEAD, load_bundle
from edgefetal_runtime.infer.network import load_network
from edgefetal_runtime.sources.source import open_source

mpl.use("svg")
# The same picture gives the same bytes.
mpl.rcParams["svg.hashsalt"] = "edgefetal"

from matplotlib import pyplot as plt  # noqa: E402 - after the back end was chosen


def main() -> None:
    """Draw the sweeps of these numbers side by side."""
    folder, out, *numbers = sys.argv[1:]
    network = load_network(load_bundle(bundle_folder("starter")), threads=1)
    truths = {}
    for path in Path(folder).glob("*/truth.json"):
        truth = json.loads(path.read_bytes())
        truths[str(truth["number"])] = (truth, path.parent / "sweep_1.mha")
    figure, axes = plt.subplots(1, len(numbers), figsize=(5 * len(numbers), 3.4), squeeze=False)
    for axis, number in zip(axes[0], numbers, strict=True):
        truth, sweep = truths[number]
        selector = StructureSelector(HEAD)
        lengths: dict[int, float] = {}
        for frame in open_source(sweep).frames():
            image, box = network.prepare(frame.pixels)
            finding = find_all(network.manifest, frame, image, network.infer(image), box)
            selector.push(finding)
            length = principal_length(finding.found[HEAD], HEAD)
            if isinstance(length, Measured):
                lengths[frame.index] = length.value
        result = selector.finish(None, only_simulated=False)
        axis.axhline(truth["hc_mm"], color="0.6", lw=1, label="true HC of the fetus")
        axis.plot(list(lengths), list(lengths.values()), "o", ms=4, color="#1f77b4", label="outlined in a frame")
        chosen = [frame.index for frame in result.frames]
        axis.plot(chosen, [lengths[k] for k in chosen], "s", ms=8, mfc="none", color="#d62728", label="chosen")
        said = f"measured on frame {chosen[0]}: {lengths[chosen[0]]:.0f} mm" if chosen else f"refused: {result.why}"
        axis.set_title("\n".join(textwrap.wrap(said, 48)), fontsize=9, loc="left")
        axis.set_xlabel("frame of the sweep")
        axis.set_ylabel("HC (mm)")
        axis.legend(fontsize=7, loc="lower center")
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
