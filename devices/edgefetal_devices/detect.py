"""Which board is this: read from files alone, and None where they do not say.

    /proc/device-tree/compatible          nvidia,p3768-0000+p3767-0005 NUL nvidia,p3767-0005 NUL nvidia,tegra234 NUL
    /proc/device-tree/model               NVIDIA Jetson Orin Nano Developer Kit NUL
    /proc/device-tree/nvidia,dtsfilename  on older kernels, .../tegra210-p3448-0000-p3449-0000-b00.dts
    /proc/device-tree/serial-number       1421022099999 NUL
    /etc/nv_tegra_release                 # R36 (release), REVISION: 4.3, GCID: ...
    /proc/sys/kernel/osrelease            5.15.148-tegra
    /proc/driver/nvidia/version           NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86 ...
    /proc/driver/nvidia/gpus/*/information    Model: NVIDIA GeForce RTX 3090

An unknown board is no board of the profiles, never the nearest of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgefetal_devices.files import entries, read_text
from edgefetal_devices.jetpack import jetpack_of
from edgefetal_devices.power import PowerMode, read_power_mode, read_power_modes
from edgefetal_devices.profile import read_profiles
from edgefetal_devices.telemetry import read_meminfo

if TYPE_CHECKING:
    from edgefetal_devices.profile import Profile

_TREE: Final = Path("proc/device-tree")
_RELEASE: Final = Path("etc/nv_tegra_release")
_KERNEL: Final = Path("proc/sys/kernel/osrelease")
_DRIVER: Final = Path("proc/driver/nvidia")
_PART: Final = re.compile(r"p[0-9]{4}-[0-9]{4}")
_L4T: Final = re.compile(r"#?\s*R([0-9]{1,3}) \(release\), REVISION: ([0-9]{1,3}(?:\.[0-9]{1,3})*)\b")
_NVRM: Final = re.compile(r"Kernel Module(?: for \S+)?\s+([0-9]+(?:\.[0-9]+)+)")
_GPU_MODEL: Final = re.compile(r"^Model:\s*(.+?)\s*$", re.MULTILINE)
_RTX: Final = re.compile(r"\b(GeForce RTX|NVIDIA RTX|Quadro RTX)\b")
_RTX_PROFILE: Final = "rtx-desktop"
_GIB: Final = 1 << 30
# What firmware keeps for itself is not in the kernel's total: 3.3 GiB of 4 have been seen, and 122 of 128.
_LEAST_OF_MEMORY: Final = 0.75


@dataclass(frozen=True)
class Board:
    """What a machine's files say of it; None is what they do not say.

    Args:
        profile: name of its profile.
        model: what the device tree calls it.
        parts: NVIDIA's part numbers in the device tree, of module and carrier.
        is_jetson: whether it is one of NVIDIA's modules, known or not.
        l4t: release of Jetson Linux, as (36, 4, 3).
        jetpack: the JetPack that stands on it.
        kernel: release of the kernel.
        driver: version of NVIDIA's driver for cards.
        gpus: what the driver calls its cards.
        power_mode: the power mode in force.
        power_modes: those that the board offers.
        memory_bytes: memory that the kernel has.
    """

    profile: str | None
    model: str | None
    parts: tuple[str, ...]
    is_jetson: bool
    l4t: tuple[int, ...] | None
    jetpack: str | None
    kernel: str | None
    driver: str | None
    gpus: tuple[str, ...]
    power_mode: PowerMode | None
    power_modes: tuple[PowerMode, ...]
    memory_bytes: int | None


def detect(root: Path = Path("/")) -> Board:
    """Read what this machine is.

    Args:
        root: the folder that holds `proc`, `etc` and `var`.
    """
    tree = [read_text(root / _TREE / name) or "" for name in ("compatible", "nvidia,dtsfilename")]
    parts = tuple(dict.fromkeys(_PART.findall("\n".join(tree).lower())))
    kernel = read_text(root / _KERNEL) or None
    l4t = parse_l4t(read_text(root / _RELEASE) or "")
    jetpack = None if l4t is None else jetpack_of(l4t)
    memory_bytes = read_meminfo(root).get("MemTotal")
    driver_text = read_text(root / _DRIVER / "version") or ""
    driver = _NVRM.search(driver_text)
    gpus = _cards(root / _DRIVER / "gpus")
    modes = read_power_modes(root)
    number = read_power_mode(root)
    is_jetson = "nvidia,tegra" in tree[0] or l4t is not None or (kernel or "").endswith("-tegra")
    on_a_desk = not is_jetson and "x86_64" in driver_text
    return Board(
        profile=_module(parts, memory_bytes) if is_jetson else (_desktop(gpus) if on_a_desk else None),
        model=read_text(root / _TREE / "model") or None,
        parts=parts,
        is_jetson=is_jetson,
        l4t=l4t,
        jetpack=None if jetpack is None else jetpack.name,
        kernel=kernel,
        driver=None if driver is None else driver[1],
        gpus=gpus,
        power_mode=next((mode for mode in modes if mode.number == number), None),
        power_modes=modes,
        memory_bytes=memory_bytes,
    )


def read_serial(root: Path = Path("/")) -> str | None:
    """Read the board's own number, which no other board has; None where its device tree does not say one.

    Args:
        root: the folder that holds `proc`.
    """
    return read_text(root / _TREE / "serial-number") or None


def parse_l4t(text: str) -> tuple[int, ...] | None:
    """Read the release of Jetson Linux, as (36, 4, 3), from the text of /etc/nv_tegra_release."""
    found = _L4T.match(text)
    if found is None:
        return None
    revision = tuple(int(part) for part in found[2].split("."))
    # A third number of 0 is left out of no file, and out of some tables.
    return (int(found[1]), *revision, *([0] * (2 - len(revision))))


def _module(parts: tuple[str, ...], memory_bytes: int | None) -> str | None:
    """Return the one profile of which a module is here and the memory is right."""
    named = [
        profile for profile in read_profiles() if profile.gpu is not None and set(parts) & set(profile.gpu.modules)
    ]
    fitting = [profile for profile in named if memory_bytes is None or _has_memory(profile, memory_bytes)]
    return fitting[0].name if len(fitting) == 1 else None


def _has_memory(profile: Profile, memory_bytes: int) -> bool:
    sizes = () if profile.gpu is None else profile.gpu.memory_gib
    return any(_LEAST_OF_MEMORY * size * _GIB <= memory_bytes <= size * _GIB for size in sizes)


def _cards(folder: Path) -> tuple[str, ...]:
    texts = [read_text(card / "information") or "" for card in entries(folder)]
    return tuple(found[1] for text in texts if (found := _GPU_MODEL.search(text)) is not None)


def _desktop(gpus: tuple[str, ...]) -> str | None:
    return _RTX_PROFILE if any(_RTX.search(gpu) for gpu in gpus) else None
