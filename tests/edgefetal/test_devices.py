"""`devices` and `doctor`, through the front door."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgefetal.cli import doctor as command
from edgefetal_devices.detect import Board
from edgefetal_devices.doctor import Host, TensorRTFound
from edgefetal_devices.errors import EnvironmentLacksError
from edgefetal_devices.jetpack import read_jetpacks
from edgefetal_devices.profile import profile_names
from edgefetal_runtime.infer.tensorrt.api import TensorRT

if TYPE_CHECKING:
    from tests.edgefetal.conftest import CommandLine

NANO = Board(
    profile="jetson-orin-nano-8gb",
    model="NVIDIA Jetson Orin Nano Developer Kit",
    parts=("p3767-0005",),
    is_jetson=True,
    l4t=(36, 4, 3),
    jetpack="6.2",
    kernel="5.15.148-tegra",
    driver=None,
    gpus=(),
    power_mode=None,
    power_modes=(),
    memory_bytes=7_989_248_000,
)


def test_devices_lists_every_target(edgefetal: CommandLine) -> None:
    report = edgefetal.json("devices")
    assert [of["name"] for of in report["devices"]] == profile_names()
    assert [of["name"] for of in report["jetpacks"]] == [jetpack.name for jetpack in read_jetpacks()]
    assert report["jetpacks"][-1]["separate"]["first"] == "11.4.1"
    assert {"profile", "l4t", "power_modes"} <= report["here"].keys()
    outcome = edgefetal("devices")
    assert "Targets" in outcome.out
    assert "JetPacks" in outcome.out


def test_devices_shows_one_by_its_alias(edgefetal: CommandLine) -> None:
    report = edgefetal.json("devices", "jetson-nano")
    (nano,) = report["devices"]
    assert (nano["name"], nano["gpu"]["compute_capabilities"]) == ("jetson-nano-4gb", ["5.3"])
    outcome = edgefetal("devices", "jetson-nano")
    assert "Maxwell" in outcome.out
    assert "can be had" not in outcome.out


def test_devices_says_where_it_is(edgefetal: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefetal_devices.detect.detect", lambda: NANO)
    assert "This machine is jetson-orin-nano-8gb, JetPack 6.2." in edgefetal("devices").out
    assert edgefetal.json("devices")["here"]["l4t"] == "36.4.3"
    monkeypatch.setattr("edgefetal_devices.detect.detect", lambda: replace(NANO, profile=None))
    assert "none of the boards (NVIDIA Jetson Orin Nano Developer Kit)" in edgefetal("devices").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("jetson-nano", "--precision", "int8"), "FP16 is the least"),
        (("jetson-orin-nx-8gb", "--precision", "int4"), "builds no int4"),
        (("jetson-orin-nx-8gb", "--jetpack", "6.0"), "TensorRT 8.6.2 (10.3 is needed)"),
        (("jetson-orin-nx-8gb", "--jetpack", "7.0"), "is not made for"),
        (("jetson-orin-nx-8gb", "--jetpack", "9.9"), "There is no JetPack '9.9'"),
        (("jetson-orin-nx-8gb", "--tensorrt", "ten"), "'ten' is no version"),
        (("jetson-orin-nx-8gb", "--tensorrt", "11.4.1", "--jetpack", "7.2.2"), "is not made for"),
        (("jetson-orin-nano-8gb", "--dla"), "has no DLA"),
        (("jetson-agx-orin-64gb", "--dla", "--jetpack", "7.2"), "TensorRT 10.16.2 has no DLA"),
        (("--precision", "int8"), "Name the board"),
        (("jetson-tk1",), "There is no device profile 'jetson-tk1'"),
    ],
)
def test_devices_refuses_with_the_reason(edgefetal: CommandLine, arguments: tuple[str, ...], says: str) -> None:
    outcome = edgefetal("devices", *arguments, "--json", "out.json")
    assert outcome.exit_code == 2
    assert says in outcome.err
    assert not Path("out.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("jetson-orin-nano-8gb-super", "--precision", "int8", "--jetpack", "6.2"),
        ("jetson-agx-orin-64gb", "--dla", "--jetpack", "7.2.2", "--tensorrt", "11.4.1"),
        ("cpu-arm", "--precision", "int8"),
    ],
)
def test_devices_says_that_a_wish_can_be_had(edgefetal: CommandLine, arguments: tuple[str, ...]) -> None:
    outcome = edgefetal("devices", *arguments)
    assert outcome.exit_code == 0, outcome.err
    assert "can be had" in outcome.out


def host(root: Path, *, loads: bool) -> Host:
    return Host(
        root=root,
        board=NANO,
        tensorrt=TensorRTFound((10, 3)) if loads else TensorRTFound(None, reason="libnvinfer.so.10 is missing"),
        environment=None,
        free_disk_bytes=1 << 40,
        now_s=1.8e9,
        may_open=lambda _: True,
        groups=frozenset(),
    )


def test_doctor_finds_a_fault_and_says_what_mends_it(
    edgefetal: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "this_host", lambda: host(tmp_path, loads=False))
    outcome = edgefetal("doctor", "--json", "doctor.json")
    assert outcome.exit_code == 1
    assert "At fault: TensorRT." in outcome.err
    report = json.loads((tmp_path / "doctor.json").read_text())
    (fault,) = [finding for finding in report["findings"] if finding["state"] == "fault"]
    assert (fault["check"], fault["found"]) == ("TensorRT", "libnvinfer.so.10 is missing")
    assert "apt-get" in fault["remedy"]
    assert report["board"]["profile"] == "jetson-orin-nano-8gb"


def test_doctor_without_a_fault(edgefetal: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "this_host", lambda: host(tmp_path, loads=True))
    outcome = edgefetal("doctor")
    assert outcome.exit_code == 0, outcome.err
    assert "JetPack 6.2" in outcome.out


def test_doctor_on_this_machine_looks_and_changes_nothing(edgefetal: CommandLine, tmp_path: Path) -> None:
    outcome = edgefetal("doctor", "--json", "doctor.json")
    assert outcome.exit_code in {0, 1}
    checks = [finding["check"] for finding in json.loads((tmp_path / "doctor.json").read_text())["findings"]]
    assert {"memory", "disk"} <= set(checks)
    assert [file.name for file in tmp_path.iterdir()] == ["doctor.json"]


def test_doctor_asks_the_runtime_for_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "edgefetal_runtime.infer.tensorrt.api.load_tensorrt"
    monkeypatch.setattr(name, lambda: TensorRT(object(), "tensorrt_rtx", "1.5.0.114"))
    assert command.this_host().tensorrt == TensorRTFound((1, 5, 0, 114), is_rtx=True)

    def lacks() -> TensorRT:
        raise EnvironmentLacksError("it does not load")

    monkeypatch.setattr(name, lacks)
    assert command.this_host().tensorrt == TensorRTFound(None, reason="it does not load")
