"""Millimetres per pixel, and where that figure came from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edgefetal_devices.errors import ScaleError

# HC18's pictures have 0.05 to 0.4 mm per pixel. A figure outside these wider bounds is no ultrasound picture's in mm;
# one in centimetres that still falls inside is caught by the plausible range of the measurement.
MIN_MM_PER_PX = 0.02
MAX_MM_PER_PX = 3.0
# Vendors state their calipers to within 2 % (SonoSite M-Turbo's manual does); read as two standard deviations. A scale
# whose own source states no uncertainty is taken to be as good as that, and no better.
CALIPER_RELATIVE_SD = 0.01
# A 4:3 picture squeezed into 16:9 makes pixels of 4:3, coarse scan lines more; beyond this it is a slip of the hand.
MAX_PIXEL_RATIO = 4.0
# 2 % shifts the age of a 32-week fetus by more than five days; a scale much worse than that is none.
MAX_RELATIVE_SD = 0.03


@dataclass(frozen=True)
class Scale:
    """Physical size of a frame's pixels.

    Args:
        x_mm_per_px: width of a pixel in mm.
        y_mm_per_px: height of a pixel in mm.
        origin: where the figure came from, in words for the exam record.
        relative_uncertainty: one standard deviation of the scale, relative (0.01 = 1 %).

    Raises:
        ScaleError: a pixel size is not finite, not positive, or outside `MIN_MM_PER_PX` to `MAX_MM_PER_PX`, the two
            differ by more than `MAX_PIXEL_RATIO`, or the uncertainty is negative or over `MAX_RELATIVE_SD`.
    """

    x_mm_per_px: float
    y_mm_per_px: float
    origin: str
    relative_uncertainty: float = CALIPER_RELATIVE_SD

    def __post_init__(self) -> None:
        """Refuse a pixel size that cannot be one."""
        for axis, value in (("x", self.x_mm_per_px), ("y", self.y_mm_per_px)):
            if not math.isfinite(value) or value <= 0:
                message = f"Pixel size in {axis} is {value} ({self.origin}); give a positive number of mm per pixel."
                raise ScaleError(message)
            if not MIN_MM_PER_PX <= value <= MAX_MM_PER_PX:
                message = (
                    f"Pixel size in {axis} is {value:g} mm ({self.origin}), outside {MIN_MM_PER_PX:g} to "
                    f"{MAX_MM_PER_PX:g} mm; check that it is in mm per pixel and not in cm or micrometres."
                )
                raise ScaleError(message)
        ratio = self.x_mm_per_px / self.y_mm_per_px
        if not 1 / MAX_PIXEL_RATIO <= ratio <= MAX_PIXEL_RATIO:
            message = (
                f"Pixels of {self.x_mm_per_px:g} x {self.y_mm_per_px:g} mm ({self.origin}) are stretched more than any "
                f"capture does ({MAX_PIXEL_RATIO:g} times); check X and Y."
            )
            raise ScaleError(message)
        if not 0 <= self.relative_uncertainty <= MAX_RELATIVE_SD:
            message = (
                f"The pixel size is uncertain by {self.relative_uncertainty:.1%} ({self.origin}), more than "
                f"{MAX_RELATIVE_SD:.0%}; measure it again on a phantom or a ruler."
            )
            raise ScaleError(message)


@dataclass(frozen=True)
class NoScale:
    """The pixel size is not known, because; falsy, so that `if scale:` reads as it should.

    Nothing in mm may be said of such a frame: contours, planes and ratios only.

    Args:
        reason: one sentence for the operator, with what to do next.
    """

    reason: str

    def __bool__(self) -> Literal[False]:
        """Return False: there is no scale here."""
        return False


NOT_GIVEN = NoScale(
    "the pixel size is unknown; to have millimetres, give --mm-per-px, a table with --scale-csv, a stored "
    "--scale-profile, or --depth-mm where the picture shows a ruler"
)

# Two evidences of one pixel size agree, or do not, within this: the budget of the whole scale.
MAX_DISAGREEMENT = 0.01


def disagreement(a: Scale, b: Scale) -> float:
    """Return the larger relative difference of two scales, in x or in y."""
    return max(abs(a.x_mm_per_px / b.x_mm_per_px - 1), abs(a.y_mm_per_px / b.y_mm_per_px - 1))


def refuse_conflict(a: Scale, b: Scale) -> None:
    """Refuse two scales for one picture that differ by more than `MAX_DISAGREEMENT`.

    Raises:
        ScaleError: they do; the message names both.
    """
    if disagreement(a, b) > MAX_DISAGREEMENT:
        message = (
            f"The pixel size is {a.x_mm_per_px:g} x {a.y_mm_per_px:g} mm by {a.origin} and {b.x_mm_per_px:g} x "
            f"{b.y_mm_per_px:g} mm by {b.origin}; find out which is right and give only that one."
        )
        raise ScaleError(message)


def parse_mm_per_px(text: str) -> Scale:
    """Read `X` or `X,Y` in mm per pixel as typed on the command line.

    Raises:
        ScaleError: the text is not one or two numbers, or a number cannot be a pixel size.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 2):
        message = f"--mm-per-px is {text!r}; give one number, or two as X,Y, such as 0.12 or 0.12,0.13."
        raise ScaleError(message)
    return Scale(values[0], values[-1], origin="command line")
