from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgefetal_calibration.evaluate import CaseResult
from edgefetal_calibration.thresholds import LOST_SHARE, fit_thresholds

HEAD = CaseResult("x.png", "a", 200.0, 201.0, None, plane_probability=1.0, agreement=0.95, dice=0.9, seconds=0.02)


def test_each_threshold_costs_its_share_of_heads() -> None:
    rng = np.random.default_rng(0)
    heads = [
        dataclasses.replace(HEAD, plane_probability=p, agreement=a)
        for p, a in zip(rng.uniform(0.8, 1, 500), rng.uniform(0.7, 1, 500), strict=True)
    ]
    fitted = fit_thresholds(heads)
    assert np.mean([h.plane_probability < fitted.plane_probability for h in heads]) == pytest.approx(
        LOST_SHARE, abs=0.002
    )
    assert np.mean([h.agreement < fitted.agreement for h in heads if h.agreement]) == pytest.approx(
        LOST_SHARE, abs=0.002
    )


def test_unsure_network_gets_no_lower_bar() -> None:
    fitted = fit_thresholds([dataclasses.replace(HEAD, plane_probability=0.1, agreement=0.2)] * 20)
    assert fitted.plane_probability == 0.5
    assert fitted.agreement == 0.5


def test_network_that_outlines_nothing_passes_nothing() -> None:
    assert fit_thresholds([dataclasses.replace(HEAD, agreement=None)] * 20).agreement == 1.0
