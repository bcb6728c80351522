"""What cannot be: a precision, a JetPack, a TensorRT or a DLA that a target has not, said with its reason.

Every function here is pure and answers from the data files. `None` stands for what is not known, and what is not known
is not refused, except for the DLA, which needs all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgefetal_devices.errors import InputError
from edgefetal_devices.jetpack import read_jetpacks
from edgefetal_devices.versions import written

if TYPE_CHECKING:
    from edgefetal_devices.jetpack import JetPack
    from edgefetal_devices.profile import Profile

# What a graph can be built in; `auto` chooses among these.
PRECISIONS: Final = ("fp32", "fp16", "int8")
_AUTO: Final = "auto"
# From here on a network may be strongly typed and its layers quantised by explicit nodes alone, as in every later one.
OLDEST_TENSORRT: Final = (10, 3)
# The package's own floor; pyproject.toml says it to installers.
OLDEST_PYTHON: Final = (3, 10)
# From here on weak typing is gone, and JetPack takes it as a separate installation alone.
_TENSORRT_11: Final = (11,)
_LAST_IMPLICIT_DLA: Final = (10, 7)
_DLA_PRECISIONS: Final = ("fp16", "int8", _AUTO)
_NO_DLA: Final = "Leave the DLA out; the GPU runs all of the network."


def require_possible(
    profile: Profile, *, precision: str, jetpack: JetPack | None, tensorrt: tuple[int, ...] | None, dla: bool
) -> None:
    """Refuse what `why_not` has a reason against.

    Raises:
        InputError: it cannot be; says why, and what to choose instead.
    """
    reason = why_not(profile, precision=precision, jetpack=jetpack, tensorrt=tensorrt, dla=dla)
    if reason is not None:
        raise InputError(reason)


def why_not(
    profile: Profile, *, precision: str, jetpack: JetPack | None, tensorrt: tuple[int, ...] | None, dla: bool
) -> str | None:
    """Say why a target cannot run a network so, and what to choose instead; None where nothing speaks against it.

    Args:
        profile: the target.
        precision: `fp32`, `fp16`, `int8`, or `auto`.
        jetpack: its JetPack; None where it is not known.
        tensorrt: the version of its TensorRT; None for the one that its JetPack brings, or where it is not known. The
            versions of TensorRT-RTX count from 1 and are not looked at.
        dla: whether the Deep Learning Accelerator is to run what it can.
    """
    return (
        why_not_precision(profile, precision)
        or _why_not_jetpack(profile, jetpack)
        or _why_not_tensorrt(profile, jetpack, tensorrt)
        or (_why_not_dla(profile, precision, jetpack, tensorrt) if dla else None)
    )


def why_not_precision(profile: Profile, precision: str) -> str | None:
    """Say why a target does not compute in a precision; None where it does."""
    if precision not in (*PRECISIONS, _AUTO):
        return f"edgefetal builds no {precision}; choose one of {', '.join(PRECISIONS)} or {_AUTO}."
    if precision == _AUTO or precision in profile.precisions:
        return None
    built = [name for name in PRECISIONS if name in profile.precisions]
    if profile.gpu is None:
        return f"{profile.title} does not compute in {precision.upper()}; choose {' or '.join(built)}."
    capability = profile.gpu.compute_capabilities[0]
    usable = not profile.is_jetson or sufficient_jetpacks(profile)
    instead = (
        f"Choose {' or '.join(reversed(built))}."
        if usable
        else f"And no engine can be finished on it. {_instead(profile)}"
    )
    return (
        f"The GPU of {profile.title} (compute capability {capability}) has no {precision.upper()}: {built[-1].upper()} "
        f"is the least it computes in. {instead}"
    )


def sufficient_jetpacks(profile: Profile) -> list[JetPack]:
    """List the releases on which an engine can be finished on a board, oldest first."""
    return [jetpack for jetpack in read_jetpacks() if profile.name in jetpack.boards and _too_old(jetpack) is None]


def _too_old(jetpack: JetPack) -> str | None:
    """Say what of a release is too old; None where it suffices, or where its TensorRT is not known."""
    lacks = []
    if jetpack.tensorrt is not None and jetpack.tensorrt < OLDEST_TENSORRT:
        lacks.append(f"TensorRT {written(jetpack.tensorrt)} ({written(OLDEST_TENSORRT)} is needed)")
    if jetpack.python < OLDEST_PYTHON:
        lacks.append(f"Python {written(jetpack.python)} ({written(OLDEST_PYTHON)} is needed)")
    return f"JetPack {jetpack.name} has {' and '.join(lacks)}" if lacks else None


def _why_not_jetpack(profile: Profile, jetpack: JetPack | None) -> str | None:
    if profile.gpu is None:
        return None if jetpack is None else _why_not_on_processor(profile, jetpack)
    if not profile.is_jetson:
        return None if jetpack is None else f"{profile.title} is no Jetson and has no JetPack; leave it out."
    if jetpack is None:
        return None if sufficient_jetpacks(profile) else _no_jetpack_suffices(profile)
    if profile.name not in jetpack.boards:
        return f"JetPack {jetpack.name} is not made for {profile.title}. {_instead(profile)}"
    too_old = _too_old(jetpack)
    return None if too_old is None else f"No engine can be finished on {profile.title}: {too_old}. {_instead(profile)}"


def _why_not_on_processor(profile: Profile, jetpack: JetPack) -> str | None:
    """Say why a JetPack does not let the processor run a network: it needs nothing of it but Python."""
    if "aarch64" not in profile.machines:
        return f"{profile.title} is in no Jetson and has no JetPack; leave it out."
    if jetpack.python < OLDEST_PYTHON:
        return (
            f"JetPack {jetpack.name} has Python {written(jetpack.python)}, and {written(OLDEST_PYTHON)} is needed. "
            "Install a newer Python beside it, and leave the JetPack out."
        )
    return None


def _no_jetpack_suffices(profile: Profile) -> str:
    newest = [jetpack for jetpack in read_jetpacks() if profile.name in jetpack.boards][-1]
    return (
        f"No engine can be finished on {profile.title}: {_too_old(newest)}, and no later one is made for it. "
        f"{_instead(profile)}"
    )


def _instead(profile: Profile) -> str:
    names = [jetpack.name for jetpack in sufficient_jetpacks(profile)]
    if names:
        return f"Choose JetPack {_listed(names)}."
    return (
        "Choose a Jetson Orin or Thor, or build for cpu-arm, which needs a Python of "
        f"{written(OLDEST_PYTHON)} or later installed on the board."
    )


def _why_not_tensorrt(profile: Profile, jetpack: JetPack | None, tensorrt: tuple[int, ...] | None) -> str | None:
    if tensorrt is None or profile.gpu is None or profile.gpu.tensorrt == "tensorrt-rtx":
        return None
    if tensorrt < OLDEST_TENSORRT:
        return (
            f"TensorRT {written(tensorrt)} is older than {written(OLDEST_TENSORRT)}, the first that types a network "
            f"strongly. {_instead(profile)}"
        )
    if tensorrt < _TENSORRT_11 or not profile.is_jetson:
        return None
    takers = [
        taker for taker in read_jetpacks() if taker.separate is not None and profile.name in taker.separate.boards
    ]
    asked = [taker for taker in takers if jetpack is None or taker.name == jetpack.name]
    # `takers` are made of those that have a separate one; mypy does not see it.
    if any(taker.separate is not None and tensorrt >= taker.separate.first for taker in asked):
        return None
    on = profile.title if jetpack is None else f"{profile.title} with JetPack {jetpack.name}"
    allowed = [
        f"{written(taker.separate.first)} or later on JetPack {taker.name}" for taker in takers if taker.separate
    ]
    return (
        f"TensorRT {written(tensorrt)} is not made for {on}. Stay with the TensorRT that its JetPack brings"
        f"{''.join(f', or take {way}' for way in allowed)}."
    )


def _why_not_dla(
    profile: Profile, precision: str, jetpack: JetPack | None, tensorrt: tuple[int, ...] | None
) -> str | None:
    if profile.gpu is None or profile.gpu.dla_cores == 0:
        return f"{profile.title} has no DLA. {_NO_DLA}"
    if precision not in _DLA_PRECISIONS:
        return (
            f"A DLA computes in FP16 and INT8 alone, so nothing of an {precision.upper()} network runs on it. {_NO_DLA}"
        )
    takers = {
        jetpack.name: jetpack.separate.first
        for jetpack in read_jetpacks()
        if jetpack.separate is not None and profile.name in jetpack.separate.dla_boards
    }
    if not takers:
        return (
            f"{profile.title} has a DLA, but no TensorRT uses it for what edgefetal writes: up to "
            f"{written(_LAST_IMPLICIT_DLA)} it wants a calibration table in place of explicit nodes, later 10.x have "
            f"no DLA, and the documents of 11.4.1 name Jetson AGX Orin alone. {_NO_DLA}"
        )
    found = tensorrt or (None if jetpack is None else jetpack.tensorrt)
    return _why_not_with_dla(profile, takers, None if jetpack is None else jetpack.name, found)


def _why_not_with_dla(
    profile: Profile, takers: dict[str, tuple[int, ...]], jetpack: str | None, tensorrt: tuple[int, ...] | None
) -> str | None:
    """Say why a JetPack and a TensorRT cannot use a DLA, given the first TensorRT that can, by JetPack."""
    first = min(takers.values())
    needs = f"The DLA of {profile.title} needs JetPack {min(takers)} and TensorRT {written(first)}, or later ones"
    if tensorrt is not None and tensorrt < first:
        return f"{_why_without_dla(tensorrt)} {needs}. {_NO_DLA}"
    if jetpack is None:
        return f"{needs}; say which JetPack it has (--jetpack), or leave the DLA out."
    if jetpack not in takers:
        return f"{needs}, and this is JetPack {jetpack}. {_NO_DLA}"
    if tensorrt is None:
        return f"{needs}; say which TensorRT it has (--tensorrt), or leave the DLA out."
    return None


def _why_without_dla(tensorrt: tuple[int, ...]) -> str:
    if tensorrt[:2] <= _LAST_IMPLICIT_DLA:
        return (
            f"TensorRT {written(tensorrt)} runs INT8 on a DLA from a calibration table alone, which edgefetal does not "
            "write: its graphs carry explicit nodes."
        )
    return f"TensorRT {written(tensorrt)} has no DLA."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
