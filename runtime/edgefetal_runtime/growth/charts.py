"""Size for gestational age: the published charts, each by its name, with the weeks in which it holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.growth.dating import HADLOCK_CITATION
from edgefetal_runtime.growth.distributions import LogLms, Normal, Quantiles
from edgefetal_runtime.growth.gestation import format_weeks
from edgefetal_runtime.growth.measures import Calipers, Measure, Sex
from edgefetal_runtime.growth.weight import HADLOCK_HC_AC_FL, INTERGROWTH_AC_HC

if TYPE_CHECKING:
    from edgefetal_runtime.growth.distributions import Distribution, Reading
    from edgefetal_runtime.growth.formula import Formula

_MM_PER_CM = 10.0


@dataclass(frozen=True)
class GrowthChart:
    """One measure over gestational age.

    Args:
        name: author and year.
        measure: what it judges, in mm or g.
        from_weeks: first exact week at which it holds.
        to_weeks: last one.
        distribution: how the measure spreads at an age.
        citation: where it was published.
        calipers: convention of a chart of the biparietal diameter; None for other measures, and where it is not known.
        weight_formula: the formula whose weight a chart of the weight was made for.
        sex: the sex that it was drawn for; None for both together.
        remark: what a reader of the figure should know.
    """

    name: str
    measure: Measure
    from_weeks: float
    to_weeks: float
    distribution: Distribution
    citation: str
    calipers: Calipers | None = None
    weight_formula: Formula | None = None
    sex: Sex | None = None
    remark: str = ""

    def read(self, weeks: float, value: float) -> Reading | Abstained:
        """Say where a value, in mm or g, lies among fetuses of an age; `Abstained` outside the chart's weeks."""
        return self.distribution.read(weeks, value) if self.covers(weeks) else self._abstention(weeks)

    def value_at(self, weeks: float, centile: float) -> float | Abstained:
        """Return the value, in mm or g, at a centile between 0 and 100."""
        return self.distribution.value_at(weeks, centile) if self.covers(weeks) else self._abstention(weeks)

    def value_at_z(self, weeks: float, z: float) -> float | Abstained:
        """Return the value, in mm or g, at so many standard deviations from the median."""
        return self.distribution.value_at_z(weeks, z) if self.covers(weeks) else self._abstention(weeks)

    def covers(self, weeks: float) -> bool:
        """Say whether the chart holds at an age."""
        return self.from_weeks <= weeks <= self.to_weeks

    def _abstention(self, weeks: float) -> Abstained:
        return Abstained(
            f"N/A: {format_weeks(weeks)} is outside the chart's {format_weeks(self.from_weeks)} to "
            f"{format_weeks(self.to_weeks)}"
        )


def _intergrowth(measure: Measure, distribution: Normal) -> GrowthChart:
    return GrowthChart(
        name="INTERGROWTH-21st 2014",
        measure=measure,
        from_weeks=14.0,
        to_weeks=40.0,
        distribution=distribution,
        citation="Papageorghiou AT et al., Lancet 2014;384:869-879, doi:10.1016/S0140-6736(14)61490-2",
        calipers=Calipers.OUTER_OUTER if measure is Measure.BPD else None,
    )


def _hadlock(measure: Measure, b0: float, b1: float, b2: float, b3: float, sd_cm: float) -> GrowthChart:
    """Make a Hadlock chart from its mean in cm, a polynomial of the weeks, and its constant SD in cm."""
    return GrowthChart(
        name="Hadlock 1984",
        measure=measure,
        from_weeks=14.0,
        to_weeks=42.0,
        distribution=Normal(
            mean=lambda g: _MM_PER_CM * (b0 + b1 * g + b2 * g**2 + b3 * g**3),
            sd=lambda _: _MM_PER_CM * sd_cm,
        ),
        citation=HADLOCK_CITATION,
        calipers=Calipers.OUTER_INNER if measure is Measure.BPD else None,
    )


def _who(measure: Measure, sex: Sex | None) -> GrowthChart:
    """Make a WHO chart; its paper as it could be consulted does not say how the calipers of the BPD lay."""
    return GrowthChart(
        name={None: "WHO 2017", Sex.FEMALE: "WHO 2017, girls", Sex.MALE: "WHO 2017, boys"}[sex],
        measure=measure,
        from_weeks=14.0,
        to_weeks=40.0,
        distribution={
            None: Quantiles("who-2017.csv", measure.value),
            Sex.FEMALE: Quantiles("who-2017-efw-by-sex.csv", "F"),
            Sex.MALE: Quantiles("who-2017-efw-by-sex.csv", "M"),
        }[sex],
        citation="Kiserud T et al., PLoS Med 2017;14:e1002220, corrected 2017 and 2021, "
        "doi:10.1371/journal.pmed.1002220",
        weight_formula=HADLOCK_HC_AC_FL if measure is Measure.EFW else None,
        sex=sex,
    )


def _hadlock_1991_g(g: float) -> float:
    """Mean weight in g at exact weeks."""
    return math.exp(0.578 + 0.332 * g - 0.00354 * g**2)


# The published table of 10 to 40 weeks (3rd, 10th, 50th, 90th, 97th centile) is the mean times .75, .83, 1, 1.17 and
# 1.25, which this spread reproduces to 2 g. The abstract's 12.7 % and a spread of 0.12 on the logarithm do not: they
# put the 10th centile at 40 weeks at 3030 g and 3103 g, where the table has 3004 g.
HADLOCK_1991_RELATIVE_SD = 0.1327

CHARTS = (
    _intergrowth(
        Measure.HC,
        Normal(
            mean=lambda g: -28.2849 + 1.69267 * g**2 - 0.397485 * g**2 * math.log(g),
            sd=lambda g: (
                1.98735 + 0.0136772 * g**3 - 0.00726264 * g**3 * math.log(g) + 0.000976253 * g**3 * math.log(g) ** 2
            ),
        ),
    ),
    _intergrowth(
        Measure.BPD,
        Normal(
            mean=lambda g: 5.60878 + 0.158369 * g**2 - 0.00256379 * g**3,
            sd=lambda g: math.exp(
                0.101242 + 0.00150557 * g**3 - 0.000771535 * g**3 * math.log(g) + 0.0000999638 * g**3 * math.log(g) ** 2
            ),
        ),
    ),
    _intergrowth(
        Measure.OFD,
        Normal(
            mean=lambda g: -12.4097 + 0.626342 * g**2 - 0.148075 * g**2 * math.log(g),
            sd=lambda g: math.exp(
                -0.880034 + 0.0631165 * g**2 - 0.0317136 * g**2 * math.log(g) + 0.00408302 * g**2 * math.log(g) ** 2
            ),
        ),
    ),
    _intergrowth(
        Measure.AC,
        Normal(
            mean=lambda g: -81.3243 + 11.6772 * g - 0.000561865 * g**3,
            sd=lambda g: -4.36302 + 0.121445 * g**2 - 0.0130256 * g**3 + 0.00282143 * g**3 * math.log(g),
        ),
    ),
    _intergrowth(
        Measure.FL,
        Normal(
            mean=lambda g: -39.9616 + 4.32298 * g - 0.0380156 * g**2,
            sd=lambda g: math.exp(0.605843 - 42.0014 * g**-2 + 0.00000917972 * g**3),
        ),
    ),
    _hadlock(Measure.HC, -11.48, 1.56, 0.0, -0.0002548, 1.00),
    _hadlock(Measure.BPD, -3.08, 0.41, 0.0, -0.000061, 0.30),
    _hadlock(Measure.AC, -13.3, 1.61, -0.00998, 0.0, 1.34),
    _hadlock(Measure.FL, -3.91, 0.427, -0.0034, 0.0, 0.30),
    _who(Measure.HC, None),
    _who(Measure.BPD, None),
    _who(Measure.AC, None),
    _who(Measure.FL, None),
    GrowthChart(
        name="INTERGROWTH-21st 2017",
        measure=Measure.EFW,
        from_weeks=22.0,
        to_weeks=40.0,
        distribution=LogLms(
            skewness=lambda g: -4.257629 - 2162.234 * g**-2 + 0.0002301829 * g**3,
            median=lambda g: 4.956737 + 0.0005019687 * g**3 - 0.0001227065 * g**3 * math.log(g),
            variation=lambda g: 1e-4 * (-6.997171 + 0.057559 * g**3 - 0.01493946 * g**3 * math.log(g)),
        ),
        citation="Stirnemann J et al., Ultrasound Obstet Gynecol 2017;49:478-486, doi:10.1002/uog.17347",
        weight_formula=INTERGROWTH_AC_HC,
    ),
    GrowthChart(
        name="INTERGROWTH-21st 2020",
        measure=Measure.EFW,
        from_weeks=18.0,
        to_weeks=41.0,
        distribution=LogLms(
            skewness=lambda g: 9.43643 + 9.41579 * (g / 10) ** -2 - 83.54220 * math.log(g / 10) * (g / 10) ** -2,
            median=lambda g: -2.42272 + 1.86478 * math.sqrt(g) - 1.93299e-5 * g**3,
            variation=lambda g: 0.0193557 + 0.0310716 * (g / 10) ** -2 - 0.0657587 * math.log(g / 10) * (g / 10) ** -2,
        ),
        citation="Stirnemann J et al., Ultrasound Obstet Gynecol 2020;56:946-948, doi:10.1002/uog.22000",
        weight_formula=HADLOCK_HC_AC_FL,
    ),
    GrowthChart(
        name="Hadlock 1991",
        measure=Measure.EFW,
        from_weeks=10.0,
        to_weeks=40.0,
        distribution=Normal(mean=_hadlock_1991_g, sd=lambda g: HADLOCK_1991_RELATIVE_SD * _hadlock_1991_g(g)),
        citation="Hadlock FP et al., Radiology 1991;181:129-133",
        weight_formula=HADLOCK_HC_AC_FL,
        remark="SD 13.27 % of the mean, which reproduces the published table",
    ),
    _who(Measure.EFW, None),
    _who(Measure.EFW, Sex.FEMALE),
    _who(Measure.EFW, Sex.MALE),
)


def find_chart(name: str, measure: Measure) -> GrowthChart:
    """Return the chart of that name for a measure.

    Raises:
        KeyError: there is none.
    """
    for chart in CHARTS:
        if chart.name == name and chart.measure is measure:
            return chart
    raise KeyError(name, measure.value)
