"""Each fault that doctor looks for, on a board that has it and on one that has it not."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edgefetal_devices import doctor
from edgefetal_devices.detect import detect
from edgefetal_devices.doctor import CHECKS, Finding, Host, TensorRTFound, diagnose

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GIB = 1 << 30
NOW_S = 1_800_000_000.0
LOADS = TensorRTFound((10, 3, 0, 30))
ORIN = "jetson-orin-nano-8gb"


def of(root: Path, **changes: Any) -> Host:
    host = Host(
        root=root,
        board=detect(root),
        tensorrt=LOADS,
        environment=None,
        free_disk_bytes=50 * GIB,
        now_s=NOW_S,
        may_open=lambda _: True,
        groups=frozenset({"video"}),
    )
    return replace(host, **changes)


def found(host: Host, check: str) -> Finding | None:
    return next((finding for finding in diagnose(host) if finding.check == check), None)


def state(host: Host, check: str) -> str | None:
    finding = found(host, check)
    return None if finding is None else finding.state


def written(root: Path, name: str, content: str) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content)
    return root


def test_a_plain_machine_hears_of_its_memory_and_its_disk_alone(tmp_path: Path) -> None:
    written(
        tmp_path, "proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\nCmaTotal: 10 kB\nCmaFree: 0 kB\n"
    )
    written(tmp_path, "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq", "1\n")
    written(tmp_path, "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq", "2\n")
    host = of(tmp_path, tensorrt=TensorRTFound(None, reason="it is not installed"), environment=tmp_path)
    assert [(finding.check, finding.state) for finding in diagnose(host)] == [("memory", "ok"), ("disk", "ok")]


def test_a_sound_board_has_no_fault(board: str, tree: Callable[[Any], Path]) -> None:
    host = of(tree(board))
    faults = [finding.check for finding in diagnose(host) if finding.state == "fault"]
    assert faults == ([] if "orin" in board or "thor" in board else ["board"])


def test_what_is_wrong_has_a_remedy_and_what_is_right_has_none(board: str, tree: Callable[[Any], Path]) -> None:
    root = tree(board)
    written(root, "dev/nvmap", "")
    broken = of(
        root,
        tensorrt=TensorRTFound(None, reason="it is not installed"),
        environment=root,
        free_disk_bytes=0,
        now_s=0.0,
        may_open=lambda _: False,
    )
    for finding in (*diagnose(broken), *diagnose(of(root))):
        assert (finding.remedy is None) == (finding.state == "ok")
        assert finding.found.strip()


def test_a_board_that_cannot_have_an_engine_says_why(tree: Callable[[Any], Path]) -> None:
    finding = found(of(tree("jetson-xavier-nx"), tensorrt=TensorRTFound(None)), "board")
    assert finding is not None
    assert finding.state == "fault"
    assert "JetPack 5.1.2 has TensorRT 8.5.2" in finding.found


def test_a_tensorrt_that_is_not_made_for_the_board(tree: Callable[[Any], Path]) -> None:
    host = of(tree(ORIN), tensorrt=TensorRTFound((11, 4, 1)))
    assert state(host, "board") == "fault"
    assert state(of(tree(ORIN)), "board") == "ok"


def test_a_jetson_that_is_not_known(tree: Callable[[Any], Path], kinds: dict[str, Any]) -> None:
    unknown = replace(kinds[ORIN], compatible=("nvidia,p9999-0000", "nvidia,tegra234"))
    host = of(tree(unknown))
    assert state(host, "board") == "warning"
    assert state(host, "TensorRT") == "ok"


@pytest.mark.parametrize(
    ("config", "loads", "expected"),
    [
        ("include-system-site-packages = false\n", False, "fault"),
        ("home = /usr/bin\nInclude-System-Site-Packages = FALSE\n", False, "fault"),
        ("", False, "fault"),
        ("include-system-site-packages = true\n", False, "ok"),
        # TensorRT came with pip: nothing of the system is needed.
        ("include-system-site-packages = false\n", True, "ok"),
    ],
)
def test_an_environment_that_hides_tensorrt(
    tree: Callable[[Any], Path],
    config: str,
    loads: bool,  # noqa: FBT001
    expected: str,
) -> None:
    root = tree(ORIN)
    written(root, "venv/pyvenv.cfg", config)
    tensorrt = LOADS if loads else TensorRTFound(None, reason="it is not installed")
    host = of(root, environment=root / "venv", tensorrt=tensorrt)
    assert state(host, "environment") == expected
    assert state(replace(host, environment=None), "environment") is None


def test_a_tensorrt_that_does_not_load_says_why(tree: Callable[[Any], Path]) -> None:
    finding = found(of(tree(ORIN), tensorrt=TensorRTFound(None, reason="libnvdla_compiler.so is missing")), "TensorRT")
    assert finding is not None
    assert (finding.state, finding.found) == ("fault", "libnvdla_compiler.so is missing")
    assert finding.remedy is not None
    assert "python3-libnvinfer" in finding.remedy


def test_a_desktop_without_tensorrt_is_warned_only(tmp_path: Path) -> None:
    written(tmp_path, "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.10  Tue\n")
    written(tmp_path, "proc/driver/nvidia/gpus/0/information", "Model: NVIDIA GeForce RTX 3090\n")
    host = of(tmp_path, tensorrt=TensorRTFound(None, reason="it is not installed"))
    assert state(host, "TensorRT") == "warning"
    assert state(of(tmp_path, tensorrt=TensorRTFound((1, 5), is_rtx=True)), "board") == "ok"
    assert state(of(tmp_path, tensorrt=TensorRTFound((1, 5), is_rtx=True)), "TensorRT") == "ok"


@pytest.mark.parametrize(("number", "expected"), [(0, "warning"), (1, "warning"), (2, "ok"), (7, None)])
def test_a_power_mode_that_holds_the_gpu_back(tree: Callable[[Any], Path], number: int, expected: str | None) -> None:
    root = tree(ORIN)
    written(root, "var/lib/nvpmodel/status", f"pmode:000{number}")
    finding = found(of(root), "power mode")
    assert (None if finding is None else finding.state) == expected
    if expected == "warning":
        assert finding is not None
        assert finding.remedy == "sudo nvpmodel -m 2"
        assert "MAXN_SUPER" in finding.found


def test_clocks_that_follow_the_load(tree: Callable[[Any], Path]) -> None:
    root = tree(ORIN)
    finding = found(of(root), "clocks")
    assert finding is not None
    assert (finding.state, finding.remedy) == ("warning", "sudo jetson_clocks")
    assert "17000000.gpu" in finding.found
    written(root, "sys/class/devfreq/17000000.gpu/min_freq", "918000000\n")
    assert state(of(root), "clocks") == "ok"
    written(root, "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq", "729600\n")
    written(root, "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq", "1510400\n")
    assert state(of(root), "clocks") == "warning"


def test_a_power_supply_that_is_too_weak(tree: Callable[[Any], Path]) -> None:
    root = tree(ORIN)
    finding = found(of(root), "power supply")
    assert finding is not None
    assert finding.state == "warning"
    assert "37 times" in finding.found
    written(root, "sys/class/hwmon/hwmon3/oc3_event_cnt", "0\n")
    assert state(of(root), "power supply") == "ok"


@pytest.mark.parametrize(("free_kb", "expected"), [(32 * 1024, "ok"), (32 * 1024 - 1, "warning"), (0, "warning")])
def test_contiguous_memory(tree: Callable[[Any], Path], free_kb: int, expected: str) -> None:
    root = written(tree(ORIN), "proc/meminfo", f"MemTotal: 7802000 kB\nCmaTotal: 262144 kB\nCmaFree: {free_kb} kB\n")
    assert state(of(root), "contiguous memory") == expected


@pytest.mark.parametrize(
    ("available_mib", "expected"), [(1024, "ok"), (1023, "warning"), (512, "warning"), (511, "fault"), (0, "fault")]
)
def test_memory(tree: Callable[[Any], Path], available_mib: int, expected: str) -> None:
    root = written(tree(ORIN), "proc/meminfo", f"MemTotal: 7802000 kB\nMemAvailable: {available_mib * 1024} kB\n")
    assert state(of(root), "memory") == expected


@pytest.mark.parametrize(("free_mib", "expected"), [(2048, "ok"), (2047, "warning"), (256, "warning"), (255, "fault")])
def test_disk(tmp_path: Path, free_mib: int, expected: str) -> None:
    assert state(of(tmp_path, free_disk_bytes=free_mib << 20), "disk") == expected


def test_swap_is_told_and_no_fault(tree: Callable[[Any], Path]) -> None:
    root = tree(ORIN)
    assert "No swap" in (found(of(root), "swap") or Finding("", "ok", "")).found
    written(root, "proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 634428 0 5\n")
    finding = found(of(root), "swap")
    assert finding is not None
    assert finding.state == "ok"
    assert "/dev/zram0" in finding.found


def test_a_clock_before_this_version_was_made(tmp_path: Path) -> None:
    assert state(of(tmp_path, now_s=1_767_225_599.0), "time") == "fault"
    assert state(of(tmp_path, now_s=1_767_225_600.0), "time") is None


def test_a_clock_that_went_back_or_was_never_set(tmp_path: Path) -> None:
    last = "var/lib/systemd/timesync/clock"
    written(tmp_path, last, "")
    os.utime(tmp_path / last, (NOW_S, NOW_S))
    assert state(of(tmp_path), "time") == "warning"
    assert state(of(tmp_path, now_s=NOW_S - 3600.0), "time") == "fault"
    written(tmp_path, "run/systemd/timesync/synchronized", "")
    assert state(of(tmp_path), "time") == "ok"
    assert state(of(tmp_path, now_s=NOW_S - 3600.0), "time") == "fault"


def test_devices_that_this_user_may_not_open(tmp_path: Path) -> None:
    assert state(of(tmp_path), "devices") is None
    for name in ("nvmap", "nvhost-dbg-gpu", "video0", "video10", "videodev"):
        written(tmp_path, f"dev/{name}", "")
    assert state(of(tmp_path), "devices") == "ok"
    # What only a debugger needs is not asked for.
    finding = found(of(tmp_path, may_open=lambda node: node.name not in {"nvhost-dbg-gpu", "videodev"}), "devices")
    assert finding is not None
    assert finding.state == "ok"
    cameras = found(of(tmp_path, may_open=lambda node: node.name != "video10"), "devices")
    assert cameras is not None
    assert cameras.state == "warning"
    assert "/dev/video10" in cameras.found
    assert cameras.remedy == "sudo usermod -aG render $USER, and log in again"
    gpu = found(of(tmp_path, may_open=lambda _: False, groups=frozenset({"video", "render"})), "devices")
    assert gpu is not None
    assert gpu.state == "fault"
    assert "ls -l" in (gpu.remedy or "")


def test_every_check_is_in_the_list() -> None:
    assert {check.__name__ for check in CHECKS} == {name for name in vars(doctor) if name.startswith("check_")}
