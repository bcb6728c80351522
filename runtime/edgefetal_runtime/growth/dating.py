"""Gestational age from biometry: Hadlock 1984 in its fifteen combinations, and INTERGROWTH-21st 2016."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.growth.formula import Estimate, Formula
from edgefetal_runtime.growth.gestation import DAYS_PER_WEEK
from edgefetal_runtime.growth.measures import Calipers, Measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefetal_runtime.growth.measures import Biometry

_HC, _BPD, _AC, _FL = Measure.HC, Measure.BPD, Measure.AC, Measure.FL
_MM_PER_CM = 10.0

HADLOCK = "Hadlock 1984"
HADLOCK_CITATION = "Hadlock FP et al., Radiology 1984;152:497-501"
INTERGROWTH_CITATION = "Papageorghiou AT et al., Ultrasound Obstet Gynecol 2016;48:719-726, doi:10.1002/uog.15894"


def _hadlock(measures: tuple[Measure, ...], weeks_from_cm: Callable[..., float]) -> Formula:
    """Make a Hadlock formula from its equation in cm; 361 fetuses of 14 to 42 weeks, BPD outer to inner."""
    return Formula(
        author=HADLOCK,
        measures=measures,
        equation=lambda *mm: weeks_from_cm(*(value / _MM_PER_CM for value in mm)),
        unit="weeks",
        citation=HADLOCK_CITATION,
        lowest=14.0,
        highest=42.0,
        calipers=Calipers.OUTER_INNER,
    )


def _intergrowth(measures: tuple[Measure, ...], log_days_from_mm: Callable[..., float]) -> Formula:
    """Make an INTERGROWTH-21st formula from its equation for ln(days) in mm.

    The paper gives no range of its own; its women were scanned from 14 weeks on, and the charts of the same study end
    at 40 weeks, so these bounds are used.
    """
    return Formula(
        author="INTERGROWTH-21st 2016",
        measures=measures,
        equation=lambda *mm: math.exp(log_days_from_mm(*mm)) / DAYS_PER_WEEK,
        unit="weeks",
        citation=INTERGROWTH_CITATION,
        lowest=14.0,
        highest=40.0,
    )


# In the order in which they are trusted when the age is unknown: the study's own best pair of measures, then the head
# alone, then Hadlock with the most measures first. B, H, A, F are BPD, HC, AC, FL.
DATING = (
    _intergrowth((_HC, _FL), lambda h, f: 0.03243 * math.log(h) ** 2 + 0.001644 * f * math.log(h) + 3.813),
    _intergrowth((_HC,), lambda h: 0.05970 * math.log(h) ** 2 + 0.000000006409 * h**3 + 3.3258),
    _hadlock((_BPD, _HC, _AC, _FL), lambda b, h, a, f: 10.85 + 0.060 * h * f + 0.6700 * b + 0.1680 * a),
    _hadlock((_HC, _AC, _FL), lambda h, a, f: 10.33 + 0.031 * h * f + 0.3610 * h + 0.0298 * a * f),
    _hadlock((_BPD, _AC, _FL), lambda b, a, f: 10.61 + 0.175 * b * f + 0.2970 * a + 0.7100 * f),
    _hadlock((_BPD, _HC, _FL), lambda b, h, f: 11.38 + 0.070 * h * f + 0.9800 * b),
    _hadlock((_BPD, _HC, _AC), lambda b, h, a: 10.58 + 0.005 * h**2 + 0.3635 * a + 0.02864 * b * a),
    _hadlock((_HC, _FL), lambda h, f: 11.19 + 0.070 * h * f + 0.2630 * h),
    _hadlock((_BPD, _FL), lambda b, f: 10.50 + 0.197 * b * f + 0.9500 * f + 0.7300 * b),
    _hadlock((_AC, _FL), lambda a, f: 10.47 + 0.442 * a + 0.3140 * f**2 - 0.0121 * f**3),
    _hadlock((_HC, _AC), lambda h, a: 10.31 + 0.012 * h**2 + 0.3850 * a),
    _hadlock((_BPD, _AC), lambda b, a: 9.57 + 0.524 * a + 0.1220 * b**2),
    _hadlock((_BPD, _HC), lambda b, h: 10.32 + 0.009 * h**2 + 1.3200 * b + 0.00012 * h**3),
    _hadlock((_HC,), lambda h: 8.96 + 0.540 * h + 0.0003 * h**3),
    _hadlock((_FL,), lambda f: 10.35 + 2.460 * f + 0.170 * f**2),
    _hadlock((_BPD,), lambda b: 9.54 + 1.482 * b + 0.1676 * b**2),
    _hadlock((_AC,), lambda a: 8.14 + 0.753 * a + 0.0036 * a**2),
)

# Two standard deviations of Hadlock's age from HC alone, in weeks, up to each HC in mm. The published table leaves gaps
# between its bands; a head in one gets the wider spread.
_HADLOCK_HC_FROM_MM = 68.0
_HADLOCK_HC_TWO_SD = ((144.0, 1.19), (219.0, 1.48), (280.0, 2.06), (325.0, 2.98), (360.0, 3.20))


def hadlock_hc_two_sd_weeks(hc_mm: float) -> float | None:
    """Two standard deviations of Hadlock's age from HC alone, in weeks; None outside the published table."""
    if hc_mm < _HADLOCK_HC_FROM_MM:
        return None
    return next((weeks for up_to_mm, weeks in _HADLOCK_HC_TWO_SD if hc_mm <= up_to_mm), None)


def two_sd_weeks_at(weeks: float) -> float:
    """Two standard deviations of Hadlock's age from HC alone, in weeks, for a fetus of an age.

    The table is by HC; Hadlock's own HC for the age (Radiology 1984;152:497) finds the band.
    """
    hc_mm = _MM_PER_CM * (-11.48 + 1.56 * weeks - 0.0002548 * weeks**3)
    return next((spread for up_to_mm, spread in _HADLOCK_HC_TWO_SD if hc_mm <= up_to_mm), _HADLOCK_HC_TWO_SD[-1][1])


def date_fetus(biometry: Biometry) -> tuple[Estimate, ...]:
    """Apply every dating formula whose measures there are, the most trusted first."""
    given = biometry.given()
    return tuple(_with_spread(f.estimate(biometry), biometry) for f in DATING if all(m in given for m in f.measures))


def _with_spread(estimate: Estimate, biometry: Biometry) -> Estimate:
    """Add the published spread of the formula where it is known."""
    if estimate.formula.author != HADLOCK or estimate.formula.measures != (_HC,) or biometry.hc_mm is None:
        return estimate
    two_sd_weeks = hadlock_hc_two_sd_weeks(biometry.hc_mm)
    if two_sd_weeks is None or isinstance(estimate.value, Abstained):
        return estimate
    return replace(estimate, note=f"the formula's own 2 SD at this HC: {two_sd_weeks:.2f} weeks")
