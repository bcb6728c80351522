"""Which board a root is of; what is not known stays so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefetal_devices.detect import Board, detect, parse_l4t
from edgefetal_devices.power import PowerMode, parse_power_modes
from edgefetal_devices.profile import profile_names

if TYPE_CHECKING:
    from collections.abc import Callable

JETPACKS = {
    "jetson-orin-nano-8gb": "6.2",
    "jetson-orin-nano-4gb": "6.2.1",
    "jetson-agx-orin-64gb": "7.2",
    "jetson-xavier-nx": "5.1.2",
    "jetson-nano-4gb": "4.6.4",
    "jetson-thor": "7.1",
}
NOTHING = Board(
    None,
    None,
    (),
    is_jetson=False,
    l4t=None,
    jetpack=None,
    kernel=None,
    driver=None,
    gpus=(),
    power_mode=None,
    power_modes=(),
    memory_bytes=None,
)


def test_each_board_is_found_with_its_jetpack(board: str, tree: Callable[[Any], Path]) -> None:
    found = detect(tree(board))
    assert (found.profile, found.jetpack, found.is_jetson) == (board, JETPACKS[board], True)
    assert found.model is not None
    assert "\0" not in found.model
    assert found.kernel == "5.15.148-tegra"


def test_the_power_mode_in_force_and_the_others(tree: Callable[[Any], Path]) -> None:
    found = detect(tree("jetson-orin-nano-8gb"))
    assert found.parts == ("p3768-0000", "p3767-0005")
    assert found.l4t == (36, 4, 3)
    assert found.power_modes == (
        PowerMode(0, "15W", 612e6, gpu_unlimited=False, is_default=False),
        PowerMode(1, "25W", 918e6, gpu_unlimited=False, is_default=True),
        PowerMode(2, "MAXN_SUPER", None, gpu_unlimited=True, is_default=False),
    )
    assert found.power_mode == found.power_modes[1]


@pytest.mark.parametrize("status", ["", "pmode:0009", "pmode:", "mode 1", "pmode:99999"])
def test_a_power_mode_that_is_not_in_the_file_is_none(tree: Callable[[Any], Path], status: str) -> None:
    root = tree("jetson-orin-nano-8gb")
    (root / "var/lib/nvpmodel/status").write_text(status)
    assert detect(root).power_mode is None


def test_an_empty_root_is_nothing(tmp_path: Path) -> None:
    assert detect(tmp_path) == NOTHING


@pytest.mark.parametrize(
    "change",
    [
        {"compatible": ("nvidia,p3768-0000+p9999-0005", "nvidia,tegra234")},
        {"compatible": ("nvidia,tegra234",)},
        # A TX2 NX, of which there is no profile, in the carrier of a Xavier NX.
        {"compatible": ("nvidia,p3509-0000+p3636-0001", "nvidia,tegra186"), "memory_kb": 3_900_000},
        # Firmware for one module on another: the memory gives it away.
        {"memory_kb": 3_508_000},
        {"memory_kb": 15_800_000},
        {"compatible": ("nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0000", "nvidia,tegra234"), "memory_kb": 0},
    ],
    ids=["other module", "no module", "TX2 NX", "4 GB", "16 GB", "two modules"],
)
def test_an_unknown_board_is_none_and_never_the_nearest(
    tree: Callable[[Any], Path], kinds: dict[str, Any], change: dict[str, Any]
) -> None:
    found = detect(tree(replace(kinds["jetson-orin-nano-8gb"], **change)))
    assert found.profile is None
    assert found.is_jetson


def test_of_two_modules_that_nothing_tells_apart_none_is_taken(
    tree: Callable[[Any], Path], kinds: dict[str, Any]
) -> None:
    compatible = ("nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0000", "nvidia,tegra234")
    root = tree(replace(kinds["jetson-orin-nano-8gb"], compatible=compatible))
    assert detect(root).profile == "jetson-orin-nano-8gb"
    (root / "proc/meminfo").unlink()
    assert detect(root).profile is None


@pytest.mark.parametrize(
    ("memory_kb", "profile"),
    [(31_000_000, "jetson-agx-orin-32gb"), (64_345_000, None), (15_000_000, None)],
)
def test_the_first_developer_kit_is_told_by_its_memory(
    tree: Callable[[Any], Path], kinds: dict[str, Any], memory_kb: int, profile: str | None
) -> None:
    compatible = ("nvidia,p3737-0000+p3701-0000", "nvidia,tegra234")
    kit = replace(kinds["jetson-agx-orin-64gb"], compatible=compatible, memory_kb=memory_kb)
    assert detect(tree(kit)).profile == profile


@pytest.mark.parametrize(("part", "profile"), [("p3834-0008", "jetson-thor"), ("p3834-0000", None)])
def test_a_thor_of_128_gb_is_no_t4000(
    tree: Callable[[Any], Path], kinds: dict[str, Any], part: str, profile: str | None
) -> None:
    thor = replace(kinds["jetson-thor"], compatible=(f"nvidia,p4071-0000+{part}", "nvidia,tegra264"))
    assert detect(tree(thor)).profile == profile


@pytest.mark.parametrize(
    ("text", "l4t"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed", (36, 4, 3)),
        ("# R39 (release), REVISION: 2.0\n# KERNEL_VARIANT: oot\n", (39, 2, 0)),
        ("# R36 (release), REVISION: 5, GCID: 1", (36, 5, 0)),
        ("R32 (release), REVISION: 7.1", (32, 7, 1)),
        ("", None),
        ("# R36 (release)", None),
        ("# R36 (release), REVISION: x", None),
        ("# R9999 (release), REVISION: 1.0", None),
    ],
)
def test_the_release_of_jetson_linux(text: str, l4t: tuple[int, ...] | None) -> None:
    assert parse_l4t(text) == l4t


DRIVER = "NVRM version: NVIDIA UNIX {} Kernel Module{}  570.86.10  Tue Jan 14\nGCC version: gcc 13\n"


@pytest.mark.parametrize(
    ("driver", "gpu", "profile"),
    [
        (DRIVER.format("x86_64", ""), "NVIDIA GeForce RTX 3090", "rtx-desktop"),
        (DRIVER.format("Open", " for x86_64"), "NVIDIA RTX A2000", "rtx-desktop"),
        (DRIVER.format("x86_64", ""), "Quadro RTX 4000", "rtx-desktop"),
        (DRIVER.format("x86_64", ""), "NVIDIA H200", None),
        (DRIVER.format("x86_64", ""), "NVIDIA GeForce GTX 1080", None),
        (DRIVER.format("aarch64", ""), "NVIDIA GeForce RTX 3090", None),
    ],
)
def test_a_desktop_is_known_by_its_driver_and_card(tmp_path: Path, driver: str, gpu: str, profile: str | None) -> None:
    card = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0/information"
    card.parent.mkdir(parents=True)
    card.write_text(f"Model: \t\t {gpu}\nIRQ:   \t\t 16\n")
    (tmp_path / "proc/driver/nvidia/version").write_text(driver)
    found = detect(tmp_path)
    assert (found.profile, found.driver, found.gpus) == (profile, "570.86.10", (gpu,))
    assert not found.is_jetson


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="not a Linux machine")
def test_this_machine_is_a_board_of_the_profiles_or_none() -> None:
    found = detect()
    assert found.profile is None or found.profile in profile_names()
    assert found.kernel is not None


FILES = (
    "proc/device-tree/compatible",
    "proc/device-tree/model",
    "etc/nv_tegra_release",
    "etc/nvpmodel.conf",
    "var/lib/nvpmodel/status",
    "proc/meminfo",
    "proc/driver/nvidia/version",
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(content=st.one_of(st.binary(max_size=300), st.text(alphabet="p3767-0005,R()<> =NAMEIDrelase:.", max_size=200)))
def test_any_content_gives_a_board_or_none(tmp_path_factory: pytest.TempPathFactory, content: bytes | str) -> None:
    root = tmp_path_factory.mktemp("any")
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = detect(root)
    assert found.profile is None or found.profile in profile_names()


@given(st.text(max_size=300))
def test_any_text_gives_power_modes_or_none(text: str) -> None:
    assert all(mode.number >= 0 for mode in parse_power_modes(text))


def test_of_two_power_modes_with_one_number_the_first_counts() -> None:
    modes = parse_power_modes(
        "< POWER_MODEL ID=0 NAME=A >\nGPU MAX_FREQ 5\n< POWER_MODEL ID=0 NAME=B >\nGPU MAX_FREQ 9\n"
        "< POWER_MODEL ID=1 NAME=C >\nCPU MAX_FREQ 7\n< PM_CONFIG DEFAULT=0 >\nGPU MAX_FREQ 8\n"
    )
    assert [(mode.number, mode.name, mode.gpu_limit_hz, mode.gpu_unlimited) for mode in modes] == [
        (0, "A", 5.0, False),
        (1, "C", None, False),
    ]
