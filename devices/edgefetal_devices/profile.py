"""What edgefetal knows of a board, read from a data file."""

from __future__ import annotations

import platform
import sys
from importlib import resources

from pydantic import BaseModel, ConfigDict

from edgefetal_devices.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What `platform.machine()` calls the processors that have a profile of their own.
_CPU_PROFILES = {"x86_64": "cpu-x86", "AMD64": "cpu-x86", "aarch64": "cpu-arm", "arm64": "cpu-arm"}


class Int8Recipe(BaseModel):
    """How a network is quantised for a target; the wrong recipe runs slower than float.

    Args:
        activations: `uint8` or `int8`.
        weights: `int8`.
        per_channel: one scale for each output channel of a weight.
        symmetric_activations: zero point in the middle of the range.
        seven_bit_weights: weights use half of their range, so that sums of two products fit 16 bits.
        reason: why this recipe suits the target.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    activations: str
    weights: str
    per_channel: bool
    symmetric_activations: bool
    seven_bit_weights: bool
    reason: str


class Profile(BaseModel):
    """A target that a bundle can be built for.

    Args:
        name: its name on the command line.
        title: what it is, in words.
        back_end: back end that runs its bundles.
        int8: its quantisation recipe.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    back_end: str
    int8: Int8Recipe


def profile_names() -> list[str]:
    """List the names of all profiles."""
    folder = resources.files("edgefetal_devices") / "profiles"
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def read_profile(name: str) -> Profile:
    """Read a profile; `cpu` stands for this machine's processor.

    Raises:
        InputError: there is no such profile.
    """
    if name == "cpu":
        name = _CPU_PROFILES.get(platform.machine(), f"cpu-{platform.machine()}")
    if name not in profile_names():
        message = f"There is no device profile {name!r}; choose one of cpu, {', '.join(profile_names())}."
        raise InputError(message)
    content = (resources.files("edgefetal_devices") / "profiles" / f"{name}.toml").read_text(encoding="utf-8")
    return Profile.model_validate(tomllib.loads(content))
