"""What edgefetal knows of a board, read from a data file."""

from __future__ import annotations

import platform
import sys
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from edgefetal_devices.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Which profile `cpu` stands for, by what `platform.machine()` calls the processor.
_CPU_PROFILES = {"x86_64": "cpu-x86", "AMD64": "cpu-x86", "aarch64": "cpu-arm", "arm64": "cpu-arm"}
# The folders of data files in this package.
_PROFILES, _INT8 = "profiles", "int8"


class Int8Recipe(BaseModel):
    """How a network is quantised for a target; the wrong recipe runs slower than float.

    Args:
        name: its name in a profile.
        reason: why this recipe suits the target.
        activations: `uint8` or `int8`.
        weights: `int8`.
        per_channel: one scale for each output channel of a weight.
        symmetric_activations: zero point in the middle of the range.
        seven_bit_weights: weights use half of their range, so that sums of two products fit 16 bits.
        float_operators: operators that compute in float, by their ONNX names.
        float_results: operators whose answer is not quantised; their inputs are.
        float_outputs: whether the last layer before each output of the graph stays float.
        quantised_bias: whether biases become 32-bit whole numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    reason: str
    activations: Literal["uint8", "int8"]
    weights: Literal["int8"]
    per_channel: bool
    symmetric_activations: bool
    seven_bit_weights: bool
    float_operators: tuple[str, ...]
    float_results: tuple[str, ...]
    float_outputs: bool
    quantised_bias: bool


class Profile(BaseModel):
    """A target that a bundle can be built for.

    Args:
        name: its name on the command line.
        title: what it is, in words.
        machines: what `platform.machine()` calls its processors.
        back_end: back end that runs its bundles.
        int8: its quantisation recipe, which the data file names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    machines: tuple[str, ...]
    back_end: str
    int8: Int8Recipe


def profile_names() -> list[str]:
    """List the names of all profiles."""
    return _names(_PROFILES)


def int8_recipe_names() -> list[str]:
    """List the names of all INT8 recipes."""
    return _names(_INT8)


def read_profile(name: str) -> Profile:
    """Read a profile with its INT8 recipe; `cpu` stands for this machine's processor.

    Raises:
        InputError: there is no such profile.
    """
    if name == "cpu":
        name = _CPU_PROFILES.get(platform.machine(), f"cpu-{platform.machine()}")
    if name not in profile_names():
        message = f"There is no device profile {name!r}; choose one of cpu, {', '.join(profile_names())}."
        raise InputError(message)
    fields = _read(_PROFILES, name)
    return Profile.model_validate(fields | {"int8": read_int8_recipe(fields["int8"])})


def is_this_machine(profile: Profile) -> bool:
    """Say whether this machine's processor is the one that a profile is of."""
    return platform.machine() in profile.machines


def read_int8_recipe(name: str) -> Int8Recipe:
    """Read an INT8 recipe.

    Raises:
        InputError: there is no such recipe.
    """
    if name not in int8_recipe_names():
        message = f"There is no INT8 recipe {name!r}; choose one of {', '.join(int8_recipe_names())}."
        raise InputError(message)
    return Int8Recipe.model_validate(_read(_INT8, name))


def _names(folder: str) -> list[str]:
    files = (resources.files("edgefetal_devices") / folder).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def _read(folder: str, name: str) -> dict[str, Any]:
    file = resources.files("edgefetal_devices") / folder / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))
