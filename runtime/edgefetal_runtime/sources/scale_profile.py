"""Stored pixel sizes: a TOML file with one entry for each probe, depth and capture format of a clinic.

An entry is made once, on a phantom or by the ruler on the picture, and holds only for frames of exactly its size.
`probe`, `depth_mm` and `capture` are notes for people: nothing on a picture tells whether they are true of it.

    [[profile]]
    name = "convex-16cm"
    probe = "C5-2"
    depth_mm = 160
    capture = "HDMI card 3, full screen"
    width_px = 1280
    height_px = 720
    x_mm_per_px = 0.241
    y_mm_per_px = 0.241
    relative_uncertainty = 0.008
    method = "phantom"
    made_on = 2026-03-14
"""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgefetal_devices.errors import ScaleError
from edgefetal_runtime.scale import Scale

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pathlib import Path

# Two marks set on a screen to a pixel each (0.29 px, uniform over one) and 400 px apart: sqrt(2) x 0.29 / 400. Nothing
# that is measured on a screen is better known, whatever its entry says.
MIN_RELATIVE_SD = 0.001


class ScaleProfile(BaseModel):
    """One probe at one depth through one capture.

    Args:
        name: its name on the command line.
        probe: the probe, in the clinic's words.
        depth_mm: depth that the machine shows, mm.
        capture: card, cable or export through which the pictures come; a note for people, not checked.
        width_px: columns of a frame.
        height_px: rows of a frame.
        x_mm_per_px: width of a pixel in mm.
        y_mm_per_px: height of a pixel in mm.
        relative_uncertainty: one standard deviation of the pixel size, relative; taken as `MIN_RELATIVE_SD` at least.
        method: how it was measured.
        made_on: when; not in the future where it is read from a file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    probe: str = Field(min_length=1)
    depth_mm: float = Field(gt=0, lt=500)
    capture: str = Field(min_length=1)
    width_px: int = Field(gt=0, strict=True)
    height_px: int = Field(gt=0, strict=True)
    x_mm_per_px: float
    y_mm_per_px: float
    relative_uncertainty: float
    method: Literal["phantom", "ruler"]
    made_on: dt.date

    def scale(self) -> Scale:
        """Return its pixel size.

        Raises:
            ScaleError: it cannot be one.
        """
        origin = f"profile {self.name} ({self.probe}, {self.depth_mm:g} mm deep, by {self.method} on {self.made_on})"
        scale = Scale(self.x_mm_per_px, self.y_mm_per_px, origin, self.relative_uncertainty)
        return replace(scale, relative_uncertainty=max(scale.relative_uncertainty, MIN_RELATIVE_SD))


class _ProfileFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: tuple[ScaleProfile, ...] = Field(min_length=1)


def read_scale_profile(path: Path, name: str | None) -> ScaleProfile:
    """Read one entry of a file of stored pixel sizes.

    Args:
        path: the file.
        name: which entry; None where the file has only one.

    Raises:
        ScaleError: the file is missing or malformed, has no such entry, has two of one name, or has several and no name
            was given; or the entry is of a day to come, or its pixel size cannot be one.
    """
    try:
        profiles = _ProfileFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).profile
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = f"{path}: {place}: {first['msg']}; mend the entry (see docs/scale.md)."
        raise ScaleError(message) from error
    except (OSError, ValueError, RecursionError) as error:
        message = f"{path} cannot be read as TOML ({error}); give a file of scale profiles (see docs/scale.md)."
        raise ScaleError(message) from error
    names = [profile.name for profile in profiles]
    if len(set(names)) < len(names):
        message = f"{path} has two profiles of one name; give each its own."
        raise ScaleError(message)
    if name is None and len(profiles) > 1:
        message = f"{path} has several profiles; choose one of {', '.join(names)} with --profile."
        raise ScaleError(message)
    chosen = profiles[0] if name is None else next((profile for profile in profiles if profile.name == name), None)
    if chosen is None:
        message = f"{path} has no profile {name!r}; choose one of {', '.join(names)}."
        raise ScaleError(message)
    if chosen.made_on > dt.datetime.now().astimezone().date():
        message = (
            f"{path}: profile {chosen.name} was made on {chosen.made_on}, which is still to come; mend made_on, or set "
            "this computer's clock."
        )
        raise ScaleError(message)
    chosen.scale()
    return chosen
