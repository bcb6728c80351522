"""What is read from the kernel's files, from made-up roots in the shape of three boards, and from broken ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_devices.power import PowerMode
from edgefetal_devices.telemetry import Clock, Cooling, Rail, Telemetry, Zone, read_telemetry
from edgefetal_runtime.service.governor import Throttling

if TYPE_CHECKING:
    from collections.abc import Callable

MEMINFO = "MemTotal:        8000000 kB\nMemFree: 100 kB\nMemAvailable:    5000000 kB\nHugePages_Total:       0\n"


def written(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


def test_a_jetson_like_board(tmp_path: Path) -> None:
    thermal, cpufreq = "sys/class/thermal", "sys/devices/system/cpu/cpufreq"
    root = written(
        tmp_path,
        {
            f"{thermal}/thermal_zone10/type": "tj-thermal\n",
            f"{thermal}/thermal_zone10/temp": "51031\n",
            f"{thermal}/thermal_zone0/type": "cpu-thermal\n",
            f"{thermal}/thermal_zone0/temp": "48500\n",
            f"{thermal}/thermal_zone0/trip_point_0_type": "critical\n",
            f"{thermal}/thermal_zone0/trip_point_0_temp": "104500\n",
            f"{thermal}/thermal_zone0/trip_point_1_type": "passive\n",
            f"{thermal}/thermal_zone0/trip_point_1_temp": "99000\n",
            f"{thermal}/thermal_zone0/trip_point_2_type": "passive\n",
            f"{thermal}/thermal_zone0/trip_point_2_temp": "0\n",
            f"{thermal}/cooling_device0/type": "pwm-fan\n",
            f"{thermal}/cooling_device0/cur_state": "3\n",
            f"{thermal}/cooling_device1/type": "cpufreq-cpu0\n",
            f"{thermal}/cooling_device1/cur_state": "2\n",
            f"{cpufreq}/policy0/scaling_cur_freq": "729600\n",
            f"{cpufreq}/policy0/scaling_max_freq": "1510400\n",
            f"{cpufreq}/policy0/cpuinfo_max_freq": "1984000\n",
            f"{cpufreq}/policy4/scaling_cur_freq": "<unsupported>\n",
            "proc/meminfo": MEMINFO,
        },
    )
    assert read_telemetry(root) == Telemetry(
        zones=(Zone("cpu-thermal", 48.5, 99.0), Zone("tj-thermal", 51.031, None)),
        coolings=(Cooling("cpufreq-cpu0", 2),),
        clocks=(Clock("policy0", 729_600e3, 1_510_400e3, 1_984_000e3), Clock("policy4", None, None, None)),
        memory_total_bytes=8_192_000_000,
        memory_available_bytes=5_120_000_000,
    )


def test_a_machine_without_any_of_it(tmp_path: Path) -> None:
    assert read_telemetry(tmp_path) == Telemetry((), (), (), None, None)


@pytest.mark.parametrize(
    ("said", "expected_c"),
    [
        ("45000", 45.0),
        ("-5000", -5.0),
        ("0", 0.0),
        ("-274000", None),
        ("256000", None),
        ("", None),
        ("-", None),
        ("--5000", None),
        ("4e4", None),
        ("45000 45000", None),
        ("9" * 30, None),
        ("\u0664\u0665", None),
    ],
)
def test_a_temperature_is_a_figure_of_this_world_or_none(tmp_path: Path, said: str, expected_c: float | None) -> None:
    written(tmp_path, {"sys/class/thermal/thermal_zone0/temp": said, "sys/class/thermal/thermal_zone0/type": "soc"})
    (zone,) = read_telemetry(tmp_path).zones
    assert zone.temperature_c == expected_c


def test_a_sensor_whose_driver_refuses_is_none(tmp_path: Path) -> None:
    """A folder in the file's place fails on reading, as a sensor that is off does."""
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").mkdir(parents=True)
    (zone,) = read_telemetry(tmp_path).zones
    assert zone == Zone("thermal_zone0", None, None)


def test_what_is_no_numbered_folder_is_passed_over(tmp_path: Path) -> None:
    for name in ("thermal_zone", "thermal_zoneX", "7", "thermal_zone-1", "other3"):
        (tmp_path / "sys/class/thermal" / name).mkdir(parents=True)
    assert read_telemetry(tmp_path).zones == ()


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="not a Linux machine")
def test_this_machine_says_how_much_memory_it_has() -> None:
    telemetry = read_telemetry()
    assert telemetry.memory_total_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert telemetry.memory_available_bytes is not None
    assert 0 < telemetry.memory_available_bytes <= telemetry.memory_total_bytes


@given(content=st.binary(max_size=200))
def test_any_content_gives_figures_or_none(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.mktemp("any")
    names = (
        "sys/class/thermal/thermal_zone0/temp",
        "sys/class/thermal/thermal_zone0/type",
        "sys/class/thermal/cooling_device0/cur_state",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq",
        "proc/meminfo",
    )
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    telemetry = read_telemetry(root)
    assert all(zone.temperature_c is None or -60 <= zone.temperature_c <= 200 for zone in telemetry.zones)
    assert all(clock.limit_hz is None or clock.limit_hz >= 0 for clock in telemetry.clocks)
    assert telemetry.memory_total_bytes is None or telemetry.memory_total_bytes >= 0


def test_a_jetsons_gpu_clock_is_found_by_each_of_its_names(
    board: str, tree: Callable[[Any], Path], kinds: dict[str, Any]
) -> None:
    telemetry = read_telemetry(tree(board))
    # The clock of a Thor's video engines is beside it, and is none.
    assert telemetry.gpus == (Clock(kinds[board].gpu, 306e6, 918e6, 1020e6, 306e6),)
    assert (telemetry.cma_total_bytes, telemetry.cma_free_bytes) == (256 << 20, 128 << 20)


def test_power_rails_of_a_new_kernel(tree: Callable[[Any], Path]) -> None:
    telemetry = read_telemetry(tree("jetson-orin-nano-8gb"))
    assert telemetry.rails == (
        Rail("VDD_IN", 5.04, 1.2, pytest.approx(6.048)),
        Rail("VDD_CPU_GPU_CV", 5.032, None, None),
    )
    assert telemetry.over_currents == 37
    assert telemetry.power_mode == PowerMode(1, "25W", 918e6, gpu_unlimited=False, is_default=True)


def test_power_rails_of_an_old_kernel(tree: Callable[[Any], Path]) -> None:
    telemetry = read_telemetry(tree("jetson-nano-4gb"))
    assert telemetry.rails == (Rail("POM_5V_IN", 5.0, 0.7, 3.5),)
    assert telemetry.over_currents is None
    assert telemetry.power_mode is None


def test_an_alert_that_slows_a_jetson_down_is_a_cooling(tmp_path: Path) -> None:
    kinds = ("gpu-throttle-alert", "hot-surface-alert", "pwm-fan", "cpufreq-cpu0")
    for number, kind in enumerate(kinds):
        folder = f"sys/class/thermal/cooling_device{number}"
        written(tmp_path, {f"{folder}/type": f"{kind}\n", f"{folder}/cur_state": "1\n"})
    names = [cooling.name for cooling in read_telemetry(tmp_path).coolings]
    assert names == ["gpu-throttle-alert", "hot-surface-alert", "cpufreq-cpu0"]
    assert Throttling().seen(read_telemetry(tmp_path))


def test_a_locked_clock_has_the_same_least_and_highest_rate(tmp_path: Path) -> None:
    folder = "sys/devices/system/cpu/cpufreq/policy0"
    written(tmp_path, {f"{folder}/scaling_min_freq": "1510400\n", f"{folder}/scaling_max_freq": "1510400\n"})
    (clock,) = read_telemetry(tmp_path).clocks
    assert clock.least_hz == clock.limit_hz == 1_510_400e3
