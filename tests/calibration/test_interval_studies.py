"""Whether intervals hold on the average of many divisions of the held-out subjects; `-s` prints the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.datasets.split import Part, Split
from edgefetal_calibration.evaluate import evaluate_heads
from edgefetal_calibration.intervals import BAND_EDGES, LEVEL, fit_intervals
from edgefetal_runtime.biometry.interval import frame_half_width
from edgefetal_runtime.infer.bundle import SPLIT
from edgefetal_runtime.infer.network import load_network

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_runtime.infer.bundle import Bundle

DIVISIONS = 300


@pytest.mark.slow
def test_intervals_hold_on_the_average_of_many_divisions(hc18_root: Path, starter: Bundle) -> None:
    split = Split.model_validate_json(starter.read(SPLIT))
    cases = split.select(read_hc18(hc18_root), Part.HELD_OUT)
    results = evaluate_heads({"shipped": load_network(starter)}, cases)["shipped"]
    subjects = sorted({r.subject for r in results})
    rng = np.random.default_rng(0)
    shares: dict[str, list[float]] = {name: [] for name in BAND_EDGES}
    for _ in range(DIVISIONS):
        fitting = set(rng.permutation(subjects)[: len(subjects) // 2])
        tables = fit_intervals([r for r in results if r.subject in fitting], [], dataset="hc18")
        assert tables is not None
        for name, of_measure in shares.items():
            held = [
                abs(r.measured[name] - r.truth[name]) <= (frame_half_width(tables, name, r.measured[name]) or 0.0)
                for r in results
                if name in r.measured and r.subject not in fitting
            ]
            of_measure.append(float(np.mean(held)))
    for name, of_measure in shares.items():
        low, high = np.percentile(of_measure, (2.5, 97.5))
        print(f"{name:16} {np.mean(of_measure):.3f} of the truths held; 95 % of divisions {low:.3f} to {high:.3f}")  # noqa: T201
        # Subjects with several pictures and bands with few values leave some slack on either side.
        assert LEVEL - 0.02 <= np.mean(of_measure) <= LEVEL + 0.04
