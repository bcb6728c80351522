"""What is wrong with this machine, and the command that mends it.

Each check is a function of `Host`, which is what the command line found out; what a check cannot know, or what does not
apply to the machine, it leaves out. Nothing here is mended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from edgefetal_devices.files import entries, numbered, read_text
from edgefetal_devices.jetpack import read_jetpack
from edgefetal_devices.possible import why_not
from edgefetal_devices.profile import read_profile
from edgefetal_devices.telemetry import read_telemetry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefetal_devices.detect import Board
    from edgefetal_devices.telemetry import Clock

State = Literal["ok", "warning", "fault"]

_MIB: Final = 1 << 20
# `edgefetal run` takes at most 503 MB (docs/sweeps.md); an engine's build takes more.
_LEAST_MEMORY_BYTES: Final = 512 * _MIB
_ENOUGH_MEMORY_BYTES: Final = 1024 * _MIB
# Where the store leaves out pictures, and where it stops recording (docs/store.md).
_LEAST_DISK_BYTES: Final = 256 * _MIB
_ENOUGH_DISK_BYTES: Final = 2048 * _MIB
# A camera's buffers and the GPU's own are taken from it; 32 MiB is a few frames in full HD.
_LEAST_CMA_BYTES: Final = 32 * _MIB
# This version was made in this year (seconds since 1970): a clock before it is wrong.
_MADE_S: Final = 1_767_225_600
# What every program needs that uses the GPU; others, such as a debugger's, are not for every user.
_GPU_NODES: Final = ("nvhost-ctrl", "nvhost-ctrl-gpu", "nvhost-gpu", "nvidia0", "nvidiactl", "nvmap")
_SYNCHRONISED: Final = "run/systemd/timesync/synchronized"
_CLOCK: Final = "var/lib/systemd/timesync/clock"


@dataclass(frozen=True)
class TensorRTFound:
    """Whether TensorRT loads.

    Args:
        version: its version; None where it does not load.
        is_rtx: whether it is TensorRT-RTX.
        reason: why it does not load; None where it does.
    """

    version: tuple[int, ...] | None
    is_rtx: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class Host:
    """What the checks look at.

    Args:
        root: the folder that holds `sys`, `proc`, `dev`, `etc`, `run` and `var`.
        board: what the machine is.
        tensorrt: whether TensorRT loads in this Python.
        environment: folder of the virtual environment that runs this; None outside one.
        free_disk_bytes: what is free where results go.
        now_s: the clock, in seconds since 1970.
        may_open: whether this user may read and write a device node.
        groups: names of the user's groups.
    """

    root: Path
    board: Board
    tensorrt: TensorRTFound
    environment: Path | None
    free_disk_bytes: int
    now_s: float
    may_open: Callable[[Path], bool]
    groups: frozenset[str]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Args:
        check: its name.
        state: `ok`, `warning`, or `fault` where edgefetal does not run or its results are in danger.
        found: what is so.
        remedy: what mends it; None where nothing must be.
    """

    check: str
    state: State
    found: str
    remedy: str | None = None


def diagnose(host: Host) -> tuple[Finding, ...]:
    """Run every check; those that do not apply to this machine say nothing."""
    findings = (check(host) for check in CHECKS)
    return tuple(finding for finding in findings if finding is not None)


def check_board(host: Host) -> Finding | None:
    """Say whether an engine can be finished on this board with its JetPack."""
    board = host.board
    if board.profile is None:
        if not board.is_jetson:
            return None
        return Finding(
            "board",
            "warning",
            f"This Jetson ({board.model or 'no model in its device tree'}) is none that edgefetal knows.",
            "Build for cpu-arm, or compare `edgefetal devices` with the part number on the module.",
        )
    profile = read_profile(board.profile)
    jetpack = None if board.jetpack is None else read_jetpack(board.jetpack)
    version = None if host.tensorrt.is_rtx else host.tensorrt.version
    reason = why_not(profile, precision="auto", jetpack=jetpack, tensorrt=version, dla=False)
    if reason is not None:
        return Finding("board", "fault", reason, "Flash another JetPack, or run a bundle for the processor.")
    release = "" if board.l4t is None else f", Jetson Linux {'.'.join(map(str, board.l4t))}"
    system = "" if board.jetpack is None else f", JetPack {board.jetpack}"
    return Finding("board", "ok", f"{profile.title}{system}{release}.")


def check_environment(host: Host) -> Finding | None:
    """Say whether a virtual environment hides JetPack's own TensorRT."""
    if not host.board.is_jetson or host.environment is None:
        return None
    if host.tensorrt.version is not None or _sees_system_packages(host.environment):
        return Finding("environment", "ok", f"{host.environment} sees what it needs.")
    return Finding(
        "environment",
        "fault",
        f"{host.environment} does not see the system's packages, and JetPack's TensorRT is one of them.",
        f"python3 -m venv --system-site-packages {host.environment}",
    )


def _sees_system_packages(environment: Path) -> bool:
    lines = (read_text(environment / "pyvenv.cfg") or "").splitlines()
    settings = {key.strip().lower(): value.strip().lower() for key, _, value in (line.partition("=") for line in lines)}
    return settings.get("include-system-site-packages") == "true"


def check_tensorrt(host: Host) -> Finding | None:
    """Say whether TensorRT loads where the board's profile runs on it."""
    if host.board.profile is None and not host.board.is_jetson:
        return None
    found = host.tensorrt
    if found.version is not None:
        name = "TensorRT-RTX" if found.is_rtx else "TensorRT"
        return Finding("TensorRT", "ok", f"{name} {'.'.join(map(str, found.version))} loads.")
    reason = found.reason or "It does not load."
    if host.board.is_jetson:
        remedy = "sudo apt-get install python3-libnvinfer; a container is started with --runtime nvidia"
        return Finding("TensorRT", "fault", reason, remedy)
    wheels = "tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings"
    return Finding("TensorRT", "warning", reason, f"pip install {wheels}, or run a bundle for the processor")


def check_power_mode(host: Host) -> Finding | None:
    """Say whether the power mode holds the GPU back while another of the board's modes would not."""
    mode = host.board.power_mode
    if mode is None:
        return None
    free = [other for other in host.board.power_modes if other.gpu_unlimited]
    if mode.gpu_limit_hz is None or not free:
        return Finding("power mode", "ok", f"Power mode {mode.number}, {mode.name}.")
    return Finding(
        "power mode",
        "warning",
        f"Power mode {mode.number}, {mode.name}, holds the GPU at {mode.gpu_limit_hz / 1e6:.0f} MHz; {free[0].name} "
        "does not, if power supply and cooling bear it.",
        f"sudo nvpmodel -m {free[0].number}",
    )


def check_clocks(host: Host) -> Finding | None:
    """Say whether a Jetson's clocks are locked, without which timings vary from run to run."""
    if not host.board.is_jetson:
        return None
    telemetry = read_telemetry(host.root)
    clocks = [clock for clock in (*telemetry.gpus, *telemetry.clocks) if None not in (clock.least_hz, clock.limit_hz)]
    loose = [clock.name for clock in clocks if not _is_locked(clock)]
    if not clocks:
        return None
    if not loose:
        return Finding("clocks", "ok", "The clocks are locked.")
    return Finding(
        "clocks",
        "warning",
        f"Not locked: {', '.join(loose)}. They follow the load, so the first frames after a pause are slower.",
        "sudo jetson_clocks",
    )


def _is_locked(clock: Clock) -> bool:
    return clock.least_hz == clock.limit_hz


def check_power_supply(host: Host) -> Finding | None:
    """Say whether too much current or too little voltage has slowed the board down."""
    count = read_telemetry(host.root).over_currents
    if count is None:
        return None
    if count == 0:
        return Finding("power supply", "ok", "It was never throttled for its current since it started.")
    return Finding(
        "power supply",
        "warning",
        f"It was throttled {count} times for its current or voltage since it started.",
        "Use the power supply that belongs to the board, or choose a lower power mode.",
    )


def check_contiguous_memory(host: Host) -> Finding | None:
    """Say whether the memory for contiguous blocks is used up."""
    telemetry = read_telemetry(host.root)
    total, free = telemetry.cma_total_bytes, telemetry.cma_free_bytes
    if not host.board.is_jetson or free is None or not total:
        return None
    found = f"{free // _MIB} of {total // _MIB} MiB of contiguous memory (CMA) are free."
    if free >= _LEAST_CMA_BYTES:
        return Finding("contiguous memory", "ok", found)
    return Finding(
        "contiguous memory",
        "warning",
        f"{found} Cameras and engines may fail to start.",
        "Add cma=512M to the line APPEND in /boot/extlinux/extlinux.conf, and restart.",
    )


def check_memory(host: Host) -> Finding | None:
    """Say whether there is memory for a run, which on a Jetson the GPU shares."""
    available = read_telemetry(host.root).memory_available_bytes
    if available is None:
        return None
    found = f"{available // _MIB} MiB of memory are free."
    if available >= _ENOUGH_MEMORY_BYTES:
        return Finding("memory", "ok", found)
    remedy = "Close other programs."
    if host.board.is_jetson:
        remedy = "sudo systemctl set-default multi-user.target, and restart: the desktop takes what the GPU needs."
    return Finding("memory", "fault" if available < _LEAST_MEMORY_BYTES else "warning", found, remedy)


def check_swap(host: Host) -> Finding | None:
    """Tell a Jetson's swap, which holds programs and never what the GPU works on."""
    if not host.board.is_jetson:
        return None
    lines = (read_text(host.root / "proc/swaps") or "").splitlines()[1:]
    names = [line.split()[0] for line in lines if line.split()]
    found = f"Swap on {', '.join(names)}" if names else "No swap"
    return Finding("swap", "ok", f"{found}; what the GPU works on is never in it.")


def check_disk(host: Host) -> Finding:
    """Say whether there is room for results where they go."""
    found = f"{host.free_disk_bytes // _MIB} MiB are free on the disk."
    if host.free_disk_bytes >= _ENOUGH_DISK_BYTES:
        return Finding("disk", "ok", found)
    state: State = "fault" if host.free_disk_bytes < _LEAST_DISK_BYTES else "warning"
    return Finding("disk", state, found, "edgefetal exams export, then edgefetal exams delete; or a larger disk.")


def check_time(host: Host) -> Finding | None:
    """Say whether the clock can be right: an examination carries its date, and ages are counted from it."""
    by_hand = "sudo timedatectl set-time 'YYYY-MM-DD hh:mm:ss'"
    if host.now_s < _MADE_S:
        return Finding("time", "fault", "The clock is before the year in which this version was made.", by_hand)
    last_s = _changed_s(host.root / _CLOCK)
    if last_s is not None and host.now_s < last_s - 60.0:
        return Finding("time", "fault", "The clock is behind what it was when it was last known to be right.", by_hand)
    if (host.root / _SYNCHRONISED).exists():
        return Finding("time", "ok", "The clock is synchronised.")
    if last_s is None:
        return None
    return Finding(
        "time",
        "warning",
        "The clock was not synchronised since the start, so it is as right as the board's own clock.",
        f"Connect the network once, or {by_hand}",
    )


def _changed_s(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:
        return None


def check_devices(host: Host) -> Finding | None:
    """Say whether this user may open the GPU and the cameras."""
    nodes = [node for node in entries(host.root / "dev") if node.name in _GPU_NODES]
    videos = numbered(host.root / "dev", "video")
    if not nodes and not videos:
        return None
    shut = [node for node in (*nodes, *videos) if not host.may_open(node)]
    if not shut:
        return Finding("devices", "ok", f"All {len(nodes) + len(videos)} of GPU and cameras can be opened.")
    missing = [group for group in ("video", "render") if group not in host.groups]
    remedy = (
        f"sudo usermod -aG {','.join(missing)} $USER, and log in again"
        if missing
        else "Look at the owner of these with ls -l; in a container, pass them with --device."
    )
    gpu = any(node in nodes for node in shut)
    names = ", ".join(f"/dev/{node.name}" for node in shut[:4])
    return Finding("devices", "fault" if gpu else "warning", f"This user may not open {names}.", remedy)


# In the order in which they are told.
CHECKS: Final = (
    check_board,
    check_environment,
    check_tensorrt,
    check_power_mode,
    check_clocks,
    check_power_supply,
    check_contiguous_memory,
    check_memory,
    check_swap,
    check_disk,
    check_time,
    check_devices,
)
