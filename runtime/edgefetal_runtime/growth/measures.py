"""What was measured on one fetus, in mm, and how the calipers lay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from edgefetal_devices.errors import InputError
from edgefetal_runtime.biometry.quantities import AC, BPD, FL, HC, OFD


class Measure(Enum):
    """A measure that a formula reads or a chart judges; all in mm, but the weight in g."""

    HC = "HC"
    BPD = "BPD"
    OFD = "OFD"
    AC = "AC"
    FL = "FL"
    EFW = "EFW"

    @property
    def unit(self) -> str:
        """Unit of the measure."""
        return "g" if self is Measure.EFW else "mm"


class Calipers(Enum):
    """Which edges of the skull a biparietal diameter spans, from the near to the far parietal bone."""

    OUTER_OUTER = "outer-outer"
    OUTER_INNER = "outer-inner"


class Sex(Enum):
    """Sex of the fetus, for the charts that are drawn by sex."""

    FEMALE = "female"
    MALE = "male"


NAMES = {
    Measure.HC: "head circumference",
    Measure.BPD: "biparietal diameter",
    Measure.OFD: "occipito-frontal diameter",
    Measure.AC: "abdominal circumference",
    Measure.FL: "femur length",
    Measure.EFW: "estimated fetal weight",
}

_QUANTITIES = {Measure.HC: HC, Measure.BPD: BPD, Measure.OFD: OFD, Measure.AC: AC, Measure.FL: FL}
WONG_CITATION = "Wong L et al., Australas J Ultrasound Med 2018;21:161-168, doi:10.1002/ajum.12091"
# Intercept in mm and slope of each regression, from 543 fetuses of 14 to 40 weeks. They are two regressions and not
# inverses: there and back moves a diameter by up to 0.12 mm.
_WONG_2018 = {
    Calipers.OUTER_OUTER: (0.555934, 1.027318),
    Calipers.OUTER_INNER: (-0.403458, 0.9714153),
}


@dataclass(frozen=True)
class Biometry:
    """Measures of one fetus at one examination; None is what was not measured.

    Args:
        hc_mm: head circumference on the outer edge of the skull, in mm.
        bpd_mm: biparietal diameter, in mm.
        bpd_calipers: how the calipers of `bpd_mm` lay; needed with it.
        ofd_mm: occipito-frontal diameter, outer to outer, in mm.
        ac_mm: abdominal circumference at the skin line, in mm.
        fl_mm: length of the ossified femoral shaft, in mm.

    Raises:
        InputError: there is no measure at all, a figure is not finite or not positive or of no fetus, or a biparietal
            diameter comes without its calipers.
    """

    hc_mm: float | None = None
    bpd_mm: float | None = None
    bpd_calipers: Calipers | None = None
    ofd_mm: float | None = None
    ac_mm: float | None = None
    fl_mm: float | None = None

    def __post_init__(self) -> None:
        """Refuse measures that cannot be those of a fetus."""
        given = self.given()
        if not given:
            message = "There is no measure; give at least one of HC, BPD, OFD, AC and FL in mm."
            raise InputError(message)
        for measure, value_mm in given.items():
            _refuse_implausible(measure, value_mm)
        if (self.bpd_mm is None) != (self.bpd_calipers is None):
            message = (
                "A BPD and its calipers go together, because 2 mm lie between the conventions; say whether it was "
                "taken outer-outer or outer-inner."
            )
            raise InputError(message)

    def given(self) -> dict[Measure, float]:
        """Return the measures that there are, in mm."""
        fields = (
            (Measure.HC, self.hc_mm),
            (Measure.BPD, self.bpd_mm),
            (Measure.OFD, self.ofd_mm),
            (Measure.AC, self.ac_mm),
            (Measure.FL, self.fl_mm),
        )
        return {measure: value_mm for measure, value_mm in fields if value_mm is not None}

    def as_read_by(self, measure: Measure, value_mm: float, wanted: Calipers | None) -> float:
        """Bring a figure of this fetus into a formula's or chart's convention.

        Args:
            measure: which measure the figure is of.
            value_mm: the figure, taken as this fetus was measured: its own value, or an end of its interval.
            wanted: calipers of the reader's biparietal diameter; None where it reads none.
        """
        if measure is not Measure.BPD or self.bpd_calipers is None or wanted is None:
            return value_mm
        return convert_bpd(value_mm, self.bpd_calipers, wanted)

    def conversion_note(self, wanted: Calipers | None) -> str:
        """Say how the biparietal diameter was brought into another convention; empty where it was not."""
        if self.bpd_mm is None or self.bpd_calipers is None or wanted in (None, self.bpd_calipers):
            return ""
        converted_mm = self.as_read_by(Measure.BPD, self.bpd_mm, wanted)
        return (
            f"BPD {self.bpd_mm:.1f} mm {self.bpd_calipers.value} read as {converted_mm:.1f} mm {wanted.value} "
            "(Wong 2018)"
        )


def convert_bpd(bpd_mm: float, measured: Calipers, wanted: Calipers) -> float:
    """Convert a biparietal diameter, in mm, between caliper conventions by the regressions of Wong et al. (2018)."""
    if measured is wanted:
        return bpd_mm
    intercept_mm, slope = _WONG_2018[wanted]
    return intercept_mm + slope * bpd_mm


def _refuse_implausible(measure: Measure, value_mm: float) -> None:
    if not math.isfinite(value_mm) or value_mm <= 0:
        message = f"{measure.value} is {value_mm:g}; give a positive number of mm."
        raise InputError(message)
    quantity = _QUANTITIES[measure]
    if not quantity.least <= value_mm <= quantity.most:
        message = (
            f"{measure.value} of {value_mm:g} mm is outside {quantity.least:g} to {quantity.most:g} mm; check the "
            "figure, and that it is in mm and not in cm."
        )
        raise InputError(message)
