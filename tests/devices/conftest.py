"""Roots in the shape of six boards, written after the documents of their files; none was recorded on a board."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NVPMODEL = """# < POWER_MODEL ID=9 NAME=COMMENT >
< PARAM TYPE=CLOCK NAME=GPU >
MAX_FREQ /sys/devices/17000000.ga10b/devfreq/17000000.ga10b/max_freq
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
GPU MIN_FREQ 0
GPU MAX_FREQ 612000000
EMC MAX_FREQ 2133000000
< POWER_MODEL ID=1 NAME=25W >
GPU MAX_FREQ 918000000
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
GPU MAX_FREQ -1
EMC MAX_FREQ -1
# mandatory section to configure the default power mode
< PM_CONFIG DEFAULT=1 >
"""


@dataclass(frozen=True)
class Kind:
    """What differs between boards.

    Args:
        model: of the device tree.
        compatible: of the device tree.
        memory_kb: MemTotal.
        release: of /etc/nv_tegra_release, release and revision.
        gpu: folder of its GPU in devfreq.
        files: anything else.
    """

    model: str
    compatible: tuple[str, ...]
    memory_kb: int
    release: tuple[str, str] | None
    gpu: str | None
    files: dict[str, str] = field(default_factory=dict)


RAILS = {
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "5040\n",
    "sys/class/hwmon/hwmon1/curr1_input": "1200\n",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/class/hwmon/hwmon1/in2_input": "5032\n",
    "sys/class/hwmon/hwmon1/in3_label": "NC\n",
    "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages\n",
    "sys/class/hwmon/hwmon1/in7_input": "9\n",
    "sys/class/hwmon/hwmon0/name": "pwmfan\n",
    "sys/class/hwmon/hwmon0/in1_label": "not a rail\n",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "37\n",
    "sys/class/hwmon/hwmon3/oc3_throt_en": "1\n",
}
IIO_RAILS = {
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0": "POM_5V_IN\n",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_voltage0_input": "5000\n",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_current0_input": "700\n",
    "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input": "3500\n",
}
KINDS = {
    "jetson-orin-nano-8gb": Kind(
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        ("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"),
        7_802_000,
        ("36", "4.3"),
        "17000000.gpu",
        RAILS | {"etc/nvpmodel.conf": NVPMODEL, "var/lib/nvpmodel/status": "pmode:0001 fmode:quiet\n"},
    ),
    "jetson-orin-nano-4gb": Kind(
        "NVIDIA Jetson Orin Nano Developer Kit",
        ("nvidia,p3768-0000+p3767-0004", "nvidia,p3767-0004", "nvidia,tegra234"),
        3_508_000,
        ("36", "4.7"),
        "17000000.ga10b",
    ),
    "jetson-agx-orin-64gb": Kind(
        "NVIDIA Jetson AGX Orin Developer Kit",
        ("nvidia,p3737-0000+p3701-0005", "nvidia,tegra234"),
        64_345_000,
        ("39", "2.0"),
        "17000000.gpu",
    ),
    "jetson-xavier-nx": Kind(
        "NVIDIA Jetson Xavier NX Developer Kit",
        ("nvidia,p3509-0000+p3668-0000", "nvidia,tegra194"),
        7_100_000,
        ("35", "4.1"),
        "17000000.gv11b",
    ),
    "jetson-nano-4gb": Kind(
        "NVIDIA Jetson Nano Developer Kit",
        ("nvidia,jetson-nano", "nvidia,tegra210"),
        4_059_000,
        ("32", "7.4"),
        "57000000.gpu",
        IIO_RAILS | {"proc/device-tree/nvidia,dtsfilename": "/dvs/git/tegra210-p3448-0000-p3449-0000-b00.dts\0"},
    ),
    "jetson-thor": Kind(
        "NVIDIA Jetson AGX Thor Developer Kit",
        ("nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"),
        128_790_092,
        ("38", "4.0"),
        "gpu-gpc-0",
        {"sys/class/devfreq/gpu-nvd-0/cur_freq": "1\n"},
    ),
}


def write_tree(root: Path, kind: Kind) -> Path:
    files = dict(kind.files)
    files["proc/device-tree/model"] = f"{kind.model}\0"
    files["proc/device-tree/compatible"] = "".join(f"{name}\0" for name in kind.compatible)
    files["proc/meminfo"] = (
        f"MemTotal: {kind.memory_kb} kB\nMemAvailable: {kind.memory_kb // 2} kB\n"
        "CmaTotal: 262144 kB\nCmaFree: 131072 kB\n"
    )
    files["proc/sys/kernel/osrelease"] = "5.15.148-tegra\n"
    if kind.release is not None:
        files["etc/nv_tegra_release"] = (
            f"# R{kind.release[0]} (release), REVISION: {kind.release[1]}, GCID: 1, BOARD: generic, EABI: aarch64\n"
        )
    if kind.gpu is not None:
        clock = f"sys/class/devfreq/{kind.gpu}"
        files |= {
            f"{clock}/cur_freq": "306000000\n",
            f"{clock}/min_freq": "306000000\n",
            f"{clock}/max_freq": "918000000\n",
            f"{clock}/available_frequencies": "306000000 612000000 1020000000 918000000\n",
        }
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


@pytest.fixture(params=sorted(KINDS))
def board(request: pytest.FixtureRequest) -> str:
    """Name each of the boards in turn."""
    name: str = request.param
    return name


@pytest.fixture
def kinds() -> dict[str, Kind]:
    return KINDS


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str | Kind], Path]:
    def written(kind: str | Kind) -> Path:
        return write_tree(tmp_path, KINDS[kind] if isinstance(kind, str) else kind)

    return written
