"""What edgefetal knows of a board, read from a data file."""

from __future__ import annotations

import platform
import sys
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgefetal_devices.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Which profile `cpu` stands for, by what `platform.machine()` calls the processor.
_CPU_PROFILES = {"x86_64": "cpu-x86", "AMD64": "cpu-x86", "aarch64": "cpu-arm", "arm64": "cpu-arm"}
# The folders of data files in this package.
_PROFILES, _INT8 = "profiles", "int8"

# In what a network can compute: `fp8` is told of a board and never built.
Precision = Literal["fp32", "fp16", "int8", "fp8"]


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


class ModeFact(BaseModel):
    """A power mode, as NVIDIA's file for the module defines it; what the board itself has is in its own file.

    Args:
        number: by which nvpmodel is told.
        name: its name.
        gpu_mhz: the GPU's highest clock in it; 0 where it is not limited, None where that was not checked.
        table: `standard`, or `super` where it is one of those that came with JetPack 6.2 for the same module.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=0)
    name: str = Field(min_length=1)
    gpu_mhz: int | None = Field(default=None, ge=0)
    table: Literal["standard", "super"] = "standard"


class Gpu(BaseModel):
    """What is known of a target's GPU.

    Args:
        architecture: NVIDIA's name for its generation.
        compute_capabilities: of the GPUs that the profile is of, as `8.7`.
        memory_shared: whether it shares its memory with the processor.
        memory_gib: memory of the module, in GiB; several where it is sold so; none where it depends on the card.
        memory_gb_per_s: bandwidth of the memory in 10^9 bytes a second; None where no source says so.
        dla_cores: Deep Learning Accelerators beside it.
        tensorrt: which TensorRT makes its engines; the versions of TensorRT-RTX count from 1.
        workspace_bytes: what TensorRT may take to try a layer while it builds an engine; None for its own choice.
        modules: NVIDIA's part numbers of the module, as the device tree gives them.
        csi: whether cameras can be wired to it; None where that was not checked. USB capture works on all.
        decoder: whether it decodes video in hardware; None where it depends on the card.
        encoder: whether it encodes video in hardware; likewise.
        power_modes: its power modes, of those that could be checked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = Field(min_length=1)
    compute_capabilities: tuple[Annotated[str, Field(pattern=r"^[0-9]{1,2}\.[0-9]$")], ...] = Field(min_length=1)
    memory_shared: bool
    memory_gib: tuple[Annotated[int, Field(gt=0)], ...]
    memory_gb_per_s: float | None = Field(default=None, gt=0)
    dla_cores: int = Field(ge=0, le=2)
    tensorrt: Literal["tensorrt", "tensorrt-rtx"]
    workspace_bytes: int | None = Field(default=None, gt=0)
    modules: tuple[Annotated[str, Field(pattern=r"^p[0-9]{4}-[0-9]{4}$")], ...] = ()
    csi: bool | None = None
    decoder: bool | None = None
    encoder: bool | None = None
    power_modes: tuple[ModeFact, ...] = ()


class Profile(BaseModel):
    """A target that a bundle can be built for.

    Args:
        name: its name on the command line.
        aliases: other names that it answers to.
        title: what it is, in words.
        machines: what `platform.machine()` calls its processors.
        back_end: back end that runs its bundles.
        precisions: what it computes in; `fp8` is only told.
        int8: its quantisation recipe, which the data file names.
        gpu: its GPU; None where the processor runs the network.
        source: where these facts are from.
        notes: what a table does not say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    aliases: tuple[str, ...] = ()
    title: str
    machines: tuple[str, ...]
    back_end: str
    precisions: tuple[Precision, ...] = Field(min_length=1)
    int8: Int8Recipe
    gpu: Gpu | None = None
    source: str = Field(min_length=1)
    notes: str = ""

    @property
    def is_jetson(self) -> bool:
        """Whether it is one of NVIDIA's modules, which have a JetPack."""
        return self.gpu is not None and bool(self.gpu.modules)


def profile_names() -> list[str]:
    """List the names of all profiles."""
    return _names(_PROFILES)


def int8_recipe_names() -> list[str]:
    """List the names of all INT8 recipes."""
    return _names(_INT8)


def read_profile(name: str) -> Profile:
    """Read a profile with its INT8 recipe; `cpu` stands for this machine's processor.

    Args:
        name: a profile's name, or one of its aliases.

    Raises:
        InputError: there is no such profile.
    """
    if name == "cpu":
        name = _CPU_PROFILES.get(platform.machine(), f"cpu-{platform.machine()}")
    if name not in profile_names():
        name = _with_alias(name)
    fields = _read(_PROFILES, name)
    return Profile.model_validate(fields | {"int8": read_int8_recipe(fields["int8"])})


def read_profiles() -> list[Profile]:
    """Read all profiles, in the order of their names."""
    return [read_profile(name) for name in profile_names()]


def _with_alias(alias: str) -> str:
    found = [name for name in profile_names() if alias in _read(_PROFILES, name).get("aliases", ())]
    if not found:
        message = f"There is no device profile {alias!r}; choose one of cpu, {', '.join(profile_names())}."
        raise InputError(message)
    return found[0]


def is_this_machine(profile: Profile) -> bool:
    """Say whether this machine's processor is the one that a profile is of.

    A profile with a GPU is never this machine's processor; `edgefetal_devices.detect` tells which board this is.
    """
    return profile.gpu is None and platform.machine() in profile.machines


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
