"""The releases of JetPack, NVIDIA's system for Jetsons: what each brings and which boards it is for."""

from __future__ import annotations

import functools
import sys
from importlib import resources

from pydantic import BaseModel, ConfigDict, Field

from edgefetal_devices.errors import InputError
from edgefetal_devices.versions import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FOLDER = "jetpacks"


class SeparateTensorRT(BaseModel):
    """A TensorRT that can be installed on a JetPack in place of the one that it brings.

    Args:
        first: the first version of which its own documents say so.
        boards: profiles of the boards that they name.
        dla_boards: those of them on which it uses the DLA.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: Version
    boards: tuple[str, ...]
    dla_boards: tuple[str, ...]


class _Stack(BaseModel):
    """What several releases have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tensorrt: Version | None = None
    cuda: Version | None = None
    cudnn: Version | None = None
    python: Version
    ubuntu: str
    boards: tuple[str, ...] = Field(min_length=1)
    separate: SeparateTensorRT | None = None
    source: str = Field(min_length=1)


class JetPack(_Stack):
    """A release of JetPack.

    Args:
        name: its number, as `6.2.1`.
        l4t: the releases of Jetson Linux that it stands on; none where that could not be checked.
        tensorrt: the TensorRT that it brings; None where that could not be checked.
        cuda: its CUDA, likewise.
        cudnn: its cuDNN, likewise.
        python: its Python.
        ubuntu: its Ubuntu.
        boards: profiles of the boards that it is for.
        separate: a newer TensorRT that it takes; None for none.
        source: where these facts are from.
    """

    name: str
    l4t: tuple[Version, ...]


class _File(_Stack):
    """A data file: what several releases have in common, and Jetson Linux by the name of each."""

    releases: dict[str, tuple[Version, ...]] = Field(min_length=1)


@functools.cache
def read_jetpacks() -> tuple[JetPack, ...]:
    """Read all releases, oldest first."""
    folder = resources.files("edgefetal_devices") / _FOLDER
    files = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    stacks = [_File.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))) for file in files]
    found = [_release(stack, name, l4t) for stack in stacks for name, l4t in stack.releases.items()]
    return tuple(sorted(found, key=lambda jetpack: [int(part) for part in jetpack.name.split(".")]))


def _release(stack: _File, name: str, l4t: tuple[tuple[int, ...], ...]) -> JetPack:
    return JetPack(
        name=name,
        l4t=l4t,
        tensorrt=stack.tensorrt,
        cuda=stack.cuda,
        cudnn=stack.cudnn,
        python=stack.python,
        ubuntu=stack.ubuntu,
        boards=stack.boards,
        separate=stack.separate,
        source=stack.source,
    )


def read_jetpack(name: str) -> JetPack:
    """Read a release by its number.

    Raises:
        InputError: there is no such release.
    """
    jetpacks = read_jetpacks()
    found = next((jetpack for jetpack in jetpacks if jetpack.name == name), None)
    if found is None:
        names = ", ".join(jetpack.name for jetpack in jetpacks)
        message = f"There is no JetPack {name!r} in the table; choose one of {names}."
        raise InputError(message)
    return found


def jetpack_of(l4t: tuple[int, ...]) -> JetPack | None:
    """Return the release that stands on a release of Jetson Linux; None where the table does not have it."""
    return next((jetpack for jetpack in read_jetpacks() if l4t in jetpack.l4t), None)
