"""The power modes of a Jetson, and the one in force, as nvpmodel keeps them.

    /etc/nvpmodel.conf            < POWER_MODEL ID=2 NAME=MAXN_SUPER >, GPU MAX_FREQ -1, < PM_CONFIG DEFAULT=1 >
    /var/lib/nvpmodel/status      pmode:0002

The first explains its own format in its head: -1 is no limit. Both can be read without being root, and the number of a
mode says nothing of its speed: 0 is the slowest but one on an Orin Nano with Super modes, and the fastest on others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefetal_devices.files import read_text

if TYPE_CHECKING:
    from pathlib import Path

_CONF = "etc/nvpmodel.conf"
_STATUS = "var/lib/nvpmodel/status"
# Those of NVIDIA have at most 15 kB.
_MAX_CONF_BYTES = 1 << 18
_MODE = re.compile(r"<\s*POWER_MODEL\s+ID\s*=\s*([0-9]{1,4})\s+NAME\s*=\s*([^\s>]+)\s*>")
_DEFAULT = re.compile(r"<\s*PM_CONFIG\s+DEFAULT\s*=\s*([0-9]{1,4})\s*>")
_GPU_MAX = re.compile(r"GPU\s+MAX_FREQ\s+(-1|[0-9]{1,12})\s*")
_STATUS_MODE = re.compile(r"\bpmode:([0-9]{1,4})\b")


@dataclass(frozen=True)
class PowerMode:
    """A power mode, as the board's own file defines it.

    Args:
        number: by which nvpmodel is told.
        name: its name.
        gpu_limit_hz: the highest clock of the GPU in it; None where the file sets none or does not say.
        gpu_unlimited: whether the file says that the GPU has no limit in it.
        is_default: whether the board starts with it when none was chosen.
    """

    number: int
    name: str
    gpu_limit_hz: float | None
    gpu_unlimited: bool
    is_default: bool


def read_power_modes(root: Path) -> tuple[PowerMode, ...]:
    """List the power modes that the board offers, in the order of its file; none where it has no such file."""
    return parse_power_modes(read_text(root / _CONF, _MAX_CONF_BYTES) or "")


def read_power_mode(root: Path) -> int | None:
    """Return the number of the mode that was chosen last, which is the one in force; None where nobody says."""
    found = _STATUS_MODE.search(read_text(root / _STATUS) or "")
    return None if found is None else int(found[1])


def parse_power_modes(text: str) -> tuple[PowerMode, ...]:
    """Read the modes in the text of an nvpmodel.conf; of two with one number the first counts."""
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    default = next((int(found[1]) for line in lines if (found := _DEFAULT.fullmatch(line))), None)
    names: dict[int, str] = {}
    limits: dict[int, int] = {}
    number: int | None = None
    for line in lines:
        if begun := _MODE.fullmatch(line):
            number = int(begun[1])
            number = None if number in names else number
            if number is not None:
                names[number] = begun[2]
        elif line.startswith("<"):
            number = None
        elif number is not None and (limit := _GPU_MAX.fullmatch(line)):
            limits[number] = int(limit[1])
    return tuple(
        PowerMode(
            number=number,
            name=name,
            gpu_limit_hz=float(limits[number]) if limits.get(number, 0) > 0 else None,
            gpu_unlimited=limits.get(number) == -1,
            is_default=number == default,
        )
        for number, name in names.items()
    )
