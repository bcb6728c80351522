"""What the board says of itself: temperatures, clocks, cooling, power and memory, from the kernel's own files.

    /sys/class/thermal/thermal_zone*/          type, temp, trip_point_*_type, trip_point_*_temp
    /sys/class/thermal/cooling_device*/        type, cur_state, max_state
    /sys/devices/system/cpu/cpufreq/policy*/   scaling_cur_freq, scaling_{min,max}_freq, cpuinfo_max_freq
    /sys/class/devfreq/*/                      cur_freq, {min,max}_freq, available_frequencies; a Jetson's GPU is
                                               17000000.gpu, .ga10b, .gv11b, .gp10b, 57000000.gpu or gpu-gpc-0
    /sys/class/hwmon/hwmon*/                   name; of an ina3221 {in,curr}[1-3]_input, in[1-3]_label; of soctherm_oc
                                               oc*_event_cnt
    /sys/bus/i2c/drivers/ina3221x/*/iio:device*/   rail_name_*, in_{voltage,current,power}*_input, on older kernels
    /proc/meminfo                              MemTotal, MemAvailable, CmaTotal, CmaFree

as Documentation/ABI/testing/sysfs-class-thermal, sysfs-class-devfreq, sysfs-devices-system-cpu, hwmon/ina3221 and
proc_meminfo(5) describe them. What a board does not have, or does not want to say now, is None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgefetal_devices.files import entries, numbered, read_text, whole
from edgefetal_devices.power import PowerMode, read_power_mode, read_power_modes

_THERMAL = Path("sys/class/thermal")
_CPUFREQ = Path("sys/devices/system/cpu/cpufreq")
_DEVFREQ = Path("sys/class/devfreq")
_HWMON = Path("sys/class/hwmon")
_INA3221X = Path("sys/bus/i2c/drivers/ina3221x")
_MEMINFO = Path("proc/meminfo")
# The graphics clock; the other clocks of a Thor's GPU (gpu-nvd-0) are those of its video engines.
_GPU_CLOCK = re.compile(r"[0-9a-f]+\.(gpu|gm20b|gp10b|gv11b|ga10b)|gpu-gpc-[0-9]+")
_EVENT_COUNT = re.compile(r"oc[0-9]+_event_cnt")
_CHANNELS = (1, 2, 3)
# Sensors that are off answer with figures such as -274 or 256 degrees.
_COLDEST_C, _HOTTEST_C = -60.0, 200.0
# Kinds of cooling that slow a processor down; a fan does not.
_SLOWED = ("-throttle-alert", "hot-surface-alert")
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
    """The clock of a group of cores, or of a GPU, in Hz.

    Args:
        name: the kernel's name for the group.
        now_hz: current rate; low in an idle core, which is no throttling.
        limit_hz: the highest that is allowed now; throttling and power modes lower it.
        max_hz: the highest that the core can do.
        least_hz: the lowest that is allowed now; the same as `limit_hz` where the clock is locked.
    """

    name: str
    now_hz: float | None
    limit_hz: float | None
    max_hz: float | None
    least_hz: float | None = None


@dataclass(frozen=True)
class Rail:
    """A power rail and what flows through it.

    Args:
        name: the board's name for it; VDD_IN, where there is one, is all that the module takes.
        volts: voltage; None where it is not measured now.
        amperes: current, likewise.
        watts: power, likewise.
    """

    name: str
    volts: float | None
    amperes: float | None
    watts: float | None


@dataclass(frozen=True)
class Telemetry:
    """What the board said at one moment.

    Args:
        zones: its sensors.
        coolings: what slows its processors down.
        clocks: its groups of cores.
        memory_total_bytes: all memory.
        memory_available_bytes: what programs can still have.
        gpus: the GPU's clocks, where the kernel scales them itself.
        rails: its measured power rails.
        power_mode: the power mode in force.
        over_currents: how often since the start too much current or too little voltage has throttled it.
        cma_total_bytes: memory that is kept for contiguous blocks.
        cma_free_bytes: what is left of it.
    """

    zones: tuple[Zone, ...]
    coolings: tuple[Cooling, ...]
    clocks: tuple[Clock, ...]
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    gpus: tuple[Clock, ...] = ()
    rails: tuple[Rail, ...] = ()
    power_mode: PowerMode | None = None
    over_currents: int | None = None
    cma_total_bytes: int | None = None
    cma_free_bytes: int | None = None


def read_telemetry(root: Path = Path("/")) -> Telemetry:
    """Read what the board says now.

    Args:
        root: the folder that holds `sys`, `proc`, `etc` and `var`.
    """
    coolings = (_cooling(folder) for folder in numbered(root / _THERMAL, "cooling_device"))
    memory = read_meminfo(root)
    return Telemetry(
        zones=tuple(_zone(folder) for folder in numbered(root / _THERMAL, "thermal_zone")),
        coolings=tuple(
            cooling for cooling in coolings if cooling.name.startswith(_SLOWING) or cooling.name.endswith(_SLOWED)
        ),
        clocks=tuple(_clock(folder) for folder in numbered(root / _CPUFREQ, "policy")),
        memory_total_bytes=memory.get("MemTotal"),
        memory_available_bytes=memory.get("MemAvailable"),
        gpus=tuple(_gpu_clock(folder) for folder in entries(root / _DEVFREQ) if _GPU_CLOCK.fullmatch(folder.name)),
        rails=(*_hwmon_rails(root / _HWMON), *_iio_rails(root / _INA3221X)),
        power_mode=_mode_in_force(root),
        over_currents=_over_currents(root / _HWMON),
        cma_total_bytes=memory.get("CmaTotal"),
        cma_free_bytes=memory.get("CmaFree"),
    )


def _zone(folder: Path) -> Zone:
    passive_c = [
        _degrees(file.with_name(file.name.replace("_type", "_temp")))
        for file in folder.glob("trip_point_*_type")
        if read_text(file) == "passive"
    ]
    return Zone(
        name=read_text(folder / "type") or folder.name,
        temperature_c=_degrees(folder / "temp"),
        # A trip at zero or below is one that was not set.
        passive_c=min((trip_c for trip_c in passive_c if trip_c is not None and trip_c > 0.0), default=None),
    )


def _cooling(folder: Path) -> Cooling:
    return Cooling(name=read_text(folder / "type") or "", step=whole(read_text(folder / "cur_state")))


def _clock(folder: Path) -> Clock:
    now, limit, most, least = (
        whole(read_text(folder / name))
        for name in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq", "scaling_min_freq")
    )
    return Clock(folder.name, _hertz(now), _hertz(limit), _hertz(most), _hertz(least))


def _gpu_clock(folder: Path) -> Clock:
    """Read a clock of devfreq, which counts in Hz where cpufreq counts in kHz."""
    now, limit, least = (whole(read_text(folder / name)) for name in ("cur_freq", "max_freq", "min_freq"))
    steps = [whole(step) for step in (read_text(folder / "available_frequencies") or "").split()]
    most = max((step for step in steps if step is not None), default=None)
    now_hz, limit_hz, max_hz, least_hz = (None if hz is None else float(hz) for hz in (now, limit, most, least))
    return Clock(folder.name, now_hz, limit_hz, max_hz, least_hz)


def _hwmon_rails(hwmon: Path) -> list[Rail]:
    chips = [chip for chip in numbered(hwmon, "hwmon") if read_text(chip / "name") == "ina3221"]
    # A channel that is not wired to anything has no label, or the label NC.
    labels = {(chip, n): read_text(chip / f"in{n}_label") for chip in chips for n in _CHANNELS}
    return [
        _rail(label, read_text(chip / f"in{n}_input"), read_text(chip / f"curr{n}_input"))
        for (chip, n), label in labels.items()
        if label and label != "NC"
    ]


def _iio_rails(driver: Path) -> list[Rail]:
    chips = [chip for bus in entries(driver) for chip in entries(bus) if chip.name.startswith("iio:device")]
    files = [(chip, name) for chip in chips for name in numbered(chip, "rail_name_")]
    numbers = [(chip, name.name.removeprefix("rail_name_"), read_text(name)) for chip, name in files]
    return [
        _rail(
            label,
            read_text(chip / f"in_voltage{n}_input"),
            read_text(chip / f"in_current{n}_input"),
            read_text(chip / f"in_power{n}_input"),
        )
        for chip, n, label in numbers
        if label and label != "NC"
    ]


def _rail(name: str, millivolts: str | None, milliamperes: str | None, milliwatts: str | None = None) -> Rail:
    volts, amperes, watts = (_thousandths(text) for text in (millivolts, milliamperes, milliwatts))
    if watts is None and volts is not None and amperes is not None:
        watts = volts * amperes
    return Rail(name, volts, amperes, watts)


def _thousandths(text: str | None) -> float | None:
    number = whole(text)
    return None if number is None else number / 1e3


def _over_currents(hwmon: Path) -> int | None:
    chips = [chip for chip in numbered(hwmon, "hwmon") if read_text(chip / "name") == "soctherm_oc"]
    files = [file for chip in chips for file in entries(chip) if _EVENT_COUNT.fullmatch(file.name)]
    counts = [count for file in files if (count := whole(read_text(file))) is not None]
    return sum(counts) if counts else None


def _mode_in_force(root: Path) -> PowerMode | None:
    number = read_power_mode(root)
    return next((mode for mode in read_power_modes(root) if mode.number == number), None)


def _hertz(kilohertz: int | None) -> float | None:
    return None if kilohertz is None else 1e3 * kilohertz


def _degrees(file: Path) -> float | None:
    text = read_text(file)
    negative = text is not None and text.startswith("-")
    thousandths = whole(text[1:] if text is not None and negative else text)
    if thousandths is None:
        return None
    degrees_c = (-thousandths if negative else thousandths) / 1e3
    return degrees_c if _COLDEST_C <= degrees_c <= _HOTTEST_C else None


def read_meminfo(root: Path) -> dict[str, int]:
    """Read /proc/meminfo: bytes by name, of the lines that are in kB."""
    found = {}
    for line in (read_text(root / _MEMINFO) or "").splitlines():
        name, _, rest = line.partition(":")
        amount = whole(rest.strip().removesuffix(" kB"))
        if amount is not None and rest.endswith(" kB"):
            found[name] = 1024 * amount
    return found
