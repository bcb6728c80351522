"""What the board says of itself: temperatures, clocks, cooling and memory, read from the kernel's own files.

    /sys/class/thermal/thermal_zone*/          type, temp, trip_point_*_type, trip_point_*_temp
    /sys/class/thermal/cooling_device*/        type, cur_state, max_state
    /sys/devices/system/cpu/cpufreq/policy*/   scaling_cur_freq, scaling_max_freq, cpuinfo_max_freq
    /proc/meminfo                              MemTotal, MemAvailable

as Documentation/ABI/testing/sysfs-class-thermal, sysfs-devices-system-cpu and proc_meminfo(5) describe them. What a
board does not have, or does not want to say now, is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_THERMAL = Path("sys/class/thermal")
_CPUFREQ = Path("sys/devices/system/cpu/cpufreq")
_MEMINFO = Path("proc/meminfo")
# Sensors that are off answer with figures such as -274 or 256 degrees.
_COLDEST_C, _HOTTEST_C = -60.0, 200.0
# A file of sysfs is at most a page.
_MAX_BYTES = 4096
# Kinds of cooling that slow a processor down; a fan does not.
_SLOWING = ("cpufreq-", "thermal-cpufreq-", "devfreq-", "thermal-devfreq-", "cpu-balanced", "gpu-balanced", "Processor")


@dataclass(frozen=True)
class Zone:
    """A temperature sensor.

    Args:
        name: the kernel's name for its kind.
        temperature_c: degrees Celsius; None where it is off.
        passive_c: from where on the kernel slows processors down for it; None where it does not.
    """

    name: str
    temperature_c: float | None
    passive_c: float | None


@dataclass(frozen=True)
class Cooling:
    """A means of cooling by slowing a processor down.

    Args:
        name: the kernel's name for its kind.
        step: how far it is in force, from 0, which is not at all.
    """

    name: str
    step: int | None


@dataclass(frozen=True)
class Clock:
    """The clock of a group of cores, in Hz.

    Args:
        name: the kernel's name for the group.
        now_hz: current rate; low in an idle core, which is no throttling.
        limit_hz: the highest that is allowed now; throttling and power modes lower it.
        max_hz: the highest that the core can do.
    """

    name: str
    now_hz: float | None
    limit_hz: float | None
    max_hz: float | None


@dataclass(frozen=True)
class Telemetry:
    """What the board said at one moment.

    Args:
        zones: its sensors.
        coolings: what slows its processors down.
        clocks: its groups of cores.
        memory_total_bytes: all memory.
        memory_available_bytes: what programs can still have.
    """

    zones: tuple[Zone, ...]
    coolings: tuple[Cooling, ...]
    clocks: tuple[Clock, ...]
    memory_total_bytes: int | None
    memory_available_bytes: int | None


def read_telemetry(root: Path = Path("/")) -> Telemetry:
    """Read what the board says now.

    Args:
        root: the folder that holds `sys` and `proc`.
    """
    coolings = (_cooling(folder) for folder in _folders(root / _THERMAL, "cooling_device"))
    memory = _meminfo(root / _MEMINFO)
    return Telemetry(
        zones=tuple(_zone(folder) for folder in _folders(root / _THERMAL, "thermal_zone")),
        coolings=tuple(cooling for cooling in coolings if cooling.name.startswith(_SLOWING)),
        clocks=tuple(_clock(folder) for folder in _folders(root / _CPUFREQ, "policy")),
        memory_total_bytes=memory.get("MemTotal"),
        memory_available_bytes=memory.get("MemAvailable"),
    )


def _folders(parent: Path, prefix: str) -> list[Path]:
    """List numbered folders in the order of their numbers."""
    try:
        numbers = {path: _whole(path.name.removeprefix(prefix)) for path in parent.iterdir()}
    except OSError:
        return []
    found = [(number, path) for path, number in numbers.items() if path.name.startswith(prefix) and number is not None]
    return [path for _, path in sorted(found)]


def _zone(folder: Path) -> Zone:
    passive_c = [
        _degrees(file.with_name(file.name.replace("_type", "_temp")))
        for file in folder.glob("trip_point_*_type")
        if _read(file) == "passive"
    ]
    return Zone(
        name=_read(folder / "type") or folder.name,
        temperature_c=_degrees(folder / "temp"),
        # A trip at zero or below is one that was not set.
        passive_c=min((trip_c for trip_c in passive_c if trip_c is not None and trip_c > 0.0), default=None),
    )


def _cooling(folder: Path) -> Cooling:
    return Cooling(name=_read(folder / "type") or "", step=_whole(_read(folder / "cur_state")))


def _clock(folder: Path) -> Clock:
    now, limit, most = (
        _whole(_read(folder / name)) for name in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq")
    )
    return Clock(folder.name, _hertz(now), _hertz(limit), _hertz(most))


def _hertz(kilohertz: int | None) -> float | None:
    return None if kilohertz is None else 1e3 * kilohertz


def _degrees(file: Path) -> float | None:
    text = _read(file)
    negative = text is not None and text.startswith("-")
    thousandths = _whole(text[1:] if text is not None and negative else text)
    if thousandths is None:
        return None
    degrees_c = (-thousandths if negative else thousandths) / 1e3
    return degrees_c if _COLDEST_C <= degrees_c <= _HOTTEST_C else None


def _meminfo(file: Path) -> dict[str, int]:
    """Read /proc/meminfo: bytes by name, of the lines that are in kB."""
    found = {}
    for line in (_read(file) or "").splitlines():
        name, _, rest = line.partition(":")
        amount = _whole(rest.strip().removesuffix(" kB"))
        if amount is not None and rest.endswith(" kB"):
            found[name] = 1024 * amount
    return found


def _whole(text: str | None) -> int | None:
    """Read a whole number from 0; None for anything else."""
    if text is None or not (text.isascii() and text.isdecimal() and len(text) <= 18):  # noqa: PLR2004 - fits 64 bits
        return None
    return int(text)


def _read(file: Path) -> str | None:
    """Read a small file; None where it is not there or its driver refuses."""
    try:
        with file.open("rb", buffering=0) as stream:
            content = stream.read(_MAX_BYTES)
    except OSError:
        return None
    return (content or b"").decode(errors="replace").strip()
