"""What the machine is, for the head of every record."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgefetal_devices.detect import detect
from edgefetal_devices.files import read_text
from edgefetal_devices.telemetry import read_telemetry
from edgefetal_runtime.bench.record import ClockRecord, MachineRecord

if TYPE_CHECKING:
    from edgefetal_devices.telemetry import Clock

# What does the work, and what may be there to do it.
_LIBRARIES: Final = ("edgefetal", "numpy", "opencv-python-headless", "onnxruntime", "openvino", "tensorrt", "pycuda")
_CPUINFO: Final = Path("proc/cpuinfo")
_MAX_CPUINFO_BYTES: Final = 1 << 20


def read_machine(root: Path = Path("/")) -> MachineRecord:
    """Read what this machine is.

    Args:
        root: the folder that holds `sys`, `proc`, `etc` and `var`.
    """
    board, telemetry = detect(root), read_telemetry(root)
    return MachineRecord(
        board=board.model,
        profile=board.profile,
        processor=_processor(root) or platform.machine(),
        architecture=platform.machine(),
        cores=own_cores(),
        memory_mb=None if board.memory_bytes is None else board.memory_bytes / 1e6,
        gpus=board.gpus,
        kernel=board.kernel,
        jetpack=board.jetpack,
        driver=board.driver,
        power_mode=None if board.power_mode is None else board.power_mode.name,
        clocks=tuple(_clock(clock) for clock in (*telemetry.clocks, *telemetry.gpus)),
        versions={"python": platform.python_version(), **_versions()},
    )


def own_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # noqa: PERF203 - a handful
            continue
    return found


def _processor(root: Path) -> str | None:
    """Return what the kernel calls the processor; Arm's gives a number of the core's design instead."""
    lines = (read_text(root / _CPUINFO, _MAX_CPUINFO_BYTES) or "").splitlines()
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    return said.get("model name") or (f"Arm core {said['CPU part']}" if "CPU part" in said else None)


def _clock(clock: Clock) -> ClockRecord:
    return ClockRecord(
        name=clock.name,
        limit_mhz=None if clock.limit_hz is None else clock.limit_hz / 1e6,
        max_mhz=None if clock.max_hz is None else clock.max_hz / 1e6,
        locked=clock.limit_hz is not None and clock.limit_hz == clock.least_hz,
    )
