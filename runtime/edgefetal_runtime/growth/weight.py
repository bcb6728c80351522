"""Estimated fetal weight in g: Hadlock 1985 by its parameters, and INTERGROWTH-21st 2017."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.growth.formula import Estimate, Formula
from edgefetal_runtime.growth.measures import Calipers, Measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefetal_runtime.growth.measures import Biometry

_HC, _BPD, _AC, _FL = Measure.HC, Measure.BPD, Measure.AC, Measure.FL
_MM_PER_CM = 10.0


def _hadlock(measures: tuple[Measure, ...], log10_g_from_cm: Callable[..., float]) -> Formula:
    """Make a Hadlock formula from its equation for log10(g) in cm, BPD outer to inner."""
    return Formula(
        author="Hadlock 1985",
        measures=measures,
        equation=lambda *mm: 10 ** log10_g_from_cm(*(value / _MM_PER_CM for value in mm)),
        unit="g",
        citation="Hadlock FP et al., Am J Obstet Gynecol 1985;151:333-337",
        calipers=Calipers.OUTER_INNER,
    )


def _intergrowth_g(ac_mm: float, hc_mm: float) -> float:
    """Weight in g; the paper's equation takes hundreds of cm."""
    a, h = ac_mm / (100 * _MM_PER_CM), hc_mm / (100 * _MM_PER_CM)
    return math.exp(5.084820 - 54.06633 * a**3 - 95.80076 * a**3 * math.log(a) + 3.136370 * h)


HADLOCK_AC_FL = _hadlock((_AC, _FL), lambda a, f: 1.304 + 0.05281 * a + 0.1938 * f - 0.004 * a * f)
HADLOCK_BPD_AC_FL = _hadlock(
    (_BPD, _AC, _FL), lambda b, a, f: 1.335 - 0.0034 * a * f + 0.0316 * b + 0.0457 * a + 0.1623 * f
)
HADLOCK_HC_AC_FL = _hadlock(
    (_HC, _AC, _FL), lambda h, a, f: 1.326 - 0.00326 * a * f + 0.0107 * h + 0.0438 * a + 0.158 * f
)
HADLOCK_BPD_HC_AC_FL = _hadlock(
    (_BPD, _HC, _AC, _FL),
    lambda b, h, a, f: 1.3596 - 0.00386 * a * f + 0.0064 * h + 0.00061 * b * a + 0.0424 * a + 0.174 * f,
)
INTERGROWTH_AC_HC = Formula(
    author="INTERGROWTH-21st 2017",
    measures=(_AC, _HC),
    equation=_intergrowth_g,
    unit="g",
    citation="Stirnemann J et al., Ultrasound Obstet Gynecol 2017;49:478-486, doi:10.1002/uog.17347",
    # Its own chart begins at 22 weeks; of the median measures of 18 weeks it makes 342 g, where WHO's median is 222 g.
    lowest=400.0,
    # Where the derivative by AC, -a^2 (3 * 54.06633 + 95.80076 + 3 * 95.80076 ln a) with a in m, changes its sign.
    ac_ceiling_mm=1000 * math.exp(-(3 * 54.06633 + 95.80076) / (3 * 95.80076)),
)

WEIGHTS = (HADLOCK_HC_AC_FL, HADLOCK_BPD_HC_AC_FL, HADLOCK_BPD_AC_FL, HADLOCK_AC_FL, INTERGROWTH_AC_HC)


# Third centile at 22 weeks, where the chart of that formula begins.
_INTERGROWTH_FROM_G = 463.0


def weigh_fetus(biometry: Biometry) -> tuple[Estimate, ...]:
    """Apply every weight formula; one whose measures are missing abstains and says which."""
    return tuple(_with_range(formula.estimate(biometry)) for formula in WEIGHTS)


def _with_range(estimate: Estimate) -> Estimate:
    """Say of a small INTERGROWTH-21st weight that it is lighter than its chart begins."""
    if estimate.formula is not INTERGROWTH_AC_HC or isinstance(estimate.value, Abstained):
        return estimate
    if estimate.value >= _INTERGROWTH_FROM_G:
        return estimate
    return replace(estimate, note="before 22 weeks, where its chart begins, this formula says too much")
