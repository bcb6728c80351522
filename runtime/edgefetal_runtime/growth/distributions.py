"""How a measure spreads among fetuses of one age: as a normal curve, as LMS on the logarithm, or as quantile curves."""

from __future__ import annotations

import csv
import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from statistics import NormalDist
from typing import TYPE_CHECKING, Protocol

from edgefetal_runtime.biometry.measurement import Abstained

if TYPE_CHECKING:
    from collections.abc import Callable

    # A curve over gestational age in exact weeks.
    Curve = Callable[[float], float]

_STANDARD = NormalDist()
_PERCENT = 100.0
_SMALLEST_SHOWN = 0.1


@dataclass(frozen=True)
class Reading:
    """Where a value lies among fetuses of its age.

    Args:
        z: standard deviations from the median, or None where the chart defines none.
        centile: 0 to 100, or None where the chart does not reach as far out.
        note: why a figure is missing; empty where none is.
    """

    z: float | None
    centile: float | None
    note: str = ""


class Distribution(Protocol):
    """What a chart knows about fetuses of one age; ages are exact weeks, centiles 0 to 100."""

    def read(self, weeks: float, value: float) -> Reading:
        """Say where a value lies."""

    def value_at(self, weeks: float, centile: float) -> float | Abstained:
        """Return the value at a centile."""

    def value_at_z(self, weeks: float, z: float) -> float | Abstained:
        """Return the value at so many standard deviations."""


@dataclass(frozen=True)
class Normal:
    """A normal curve: z = (value - mean) / sd.

    Args:
        mean: mean over weeks.
        sd: standard deviation over weeks.
    """

    mean: Curve
    sd: Curve

    def read(self, weeks: float, value: float) -> Reading:
        """Say where a value lies."""
        return _reading((value - self.mean(weeks)) / self.sd(weeks))

    def value_at(self, weeks: float, centile: float) -> float | Abstained:
        """Return the value at a centile."""
        return self.value_at_z(weeks, z_of_centile(centile))

    def value_at_z(self, weeks: float, z: float) -> float | Abstained:
        """Return the value at so many standard deviations."""
        return self.mean(weeks) + z * self.sd(weeks)


@dataclass(frozen=True)
class LogLms:
    """Cole's LMS on the natural logarithm of the value: z = ((ln value / M)^L - 1) / (S L).

    Args:
        skewness: L over weeks.
        median: M over weeks, the logarithm of the median value.
        variation: S over weeks.
    """

    skewness: Curve
    median: Curve
    variation: Curve

    def read(self, weeks: float, value: float) -> Reading:
        """Say where a value lies."""
        if value <= 1.0:
            return Reading(None, None, "the chart's curve ends at 1")
        power = self.skewness(weeks)
        stretch = math.log(math.log(value) / self.median(weeks))
        # L passes through 0 near 29 weeks: there the powers go over into logarithms.
        return _reading((math.expm1(power * stretch) / power if power else stretch) / self.variation(weeks))

    def value_at(self, weeks: float, centile: float) -> float | Abstained:
        """Return the value at a centile."""
        return self.value_at_z(weeks, z_of_centile(centile))

    def value_at_z(self, weeks: float, z: float) -> float | Abstained:
        """Return the value at so many standard deviations; far out, where the curve ends, there is none."""
        power = self.skewness(weeks)
        steps = self.variation(weeks) * z
        if power * steps <= -1:
            return Abstained(f"N/A: the chart's curve has no value at {z:g} standard deviations")
        return math.exp(self.median(weeks) * math.exp(math.log1p(power * steps) / power if power else steps))


@dataclass(frozen=True)
class Quantiles:
    """Quantile curves ln(value) = b0 + b1 g + ... + b4 g^4, between which the centile is linear in the value.

    The WHO calculator interpolates the value itself and not its logarithm, and gives no figure beyond its outermost
    curves.

    Args:
        file: table in this package's `data`.
        key: which of its curves.
    """

    file: str
    key: str

    def read(self, weeks: float, value: float) -> Reading:
        """Say where a value lies; this chart gives centiles and no z."""
        centiles, values = self._curves(weeks)
        if value < values[0]:
            return Reading(None, None, f"below the {ordinal(centiles[0])} centile, the chart's lowest")
        if value > values[-1]:
            return Reading(None, None, f"above the {ordinal(centiles[-1])} centile, the chart's highest")
        return Reading(None, _between(value, values, centiles))

    def value_at(self, weeks: float, centile: float) -> float | Abstained:
        """Return the value at a centile."""
        centiles, values = self._curves(weeks)
        if not centiles[0] <= centile <= centiles[-1]:
            return Abstained(
                f"N/A: the chart has no curve at centile {centile:g}, only from {centiles[0]:g} to {centiles[-1]:g}"
            )
        return _between(centile, centiles, values)

    def value_at_z(self, weeks: float, z: float) -> float | Abstained:  # noqa: ARG002 - the protocol's arguments
        """Return why there is no value: these curves are centiles, and define no standard deviation."""
        return Abstained("N/A: the chart gives centiles and no standard deviations")

    def _curves(self, weeks: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the centiles, ascending, and their values at an age."""
        rows = _table(self.file)[self.key]
        values = (math.exp(sum(b * weeks**power for power, b in enumerate(bs))) for _, bs in rows)
        return tuple(_PERCENT * quantile for quantile, _ in rows), tuple(values)


def z_of_centile(centile: float) -> float:
    """Standard deviations at a centile, which lies between 0 and 100 and is neither."""
    return _STANDARD.inv_cdf(centile / _PERCENT)


def ordinal(centile: float) -> str:
    """Write a centile as `1st`, `3rd`, `10th`; one with a fraction as `97.5th`."""
    last, teens = centile % 10, 10 < centile % 100 < 14  # noqa: PLR2004 - 11th to 13th
    ending = {1: "st", 2: "nd", 3: "rd"}.get(int(last), "th") if last == int(last) and not teens else "th"
    return f"{centile:g}{ending}"


def format_centile(centile: float) -> str:
    """Write a centile with one decimal; one that would read 0.0 or 100.0 as `<0.1` or `>99.9`."""
    if centile < _SMALLEST_SHOWN:
        return f"<{_SMALLEST_SHOWN:g}"
    if centile > _PERCENT - _SMALLEST_SHOWN:
        return f">{_PERCENT - _SMALLEST_SHOWN:g}"
    return f"{centile:.1f}"


def _reading(z: float) -> Reading:
    return Reading(z, _PERCENT * _STANDARD.cdf(z))


def _between(x: float, xs: tuple[float, ...], ys: tuple[float, ...]) -> float:
    """Interpolate linearly at x, which lies within xs; where two of xs meet, no step between them is divided by."""
    upper = max(1, bisect_left(xs, x))
    return ys[upper - 1] + (ys[upper] - ys[upper - 1]) * (x - xs[upper - 1]) / (xs[upper] - xs[upper - 1])


@lru_cache
def _table(file: str) -> dict[str, tuple[tuple[float, tuple[float, ...]], ...]]:
    """Read the curves of a table in `data`: by key, each quantile with its coefficients, ascending."""
    text = (resources.files("edgefetal_runtime.growth") / "data" / file).read_text(encoding="utf-8")
    curves: dict[str, list[tuple[float, tuple[float, ...]]]] = {}
    for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        coefficients = tuple(float(row[name]) for name in ("b0", "b1", "b2", "b3", "b4"))
        curves.setdefault(row["key"], []).append((float(row["quantile"]), coefficients))
    return {key: tuple(rows) for key, rows in curves.items()}
