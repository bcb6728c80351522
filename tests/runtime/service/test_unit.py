"""The unit file: what systemd knows, and what the service relies on."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgefetal_runtime.service.unit import UNIT, unit_text

# `systemd --dump-configuration-items` of systemd 252, the sections of a service.
DOCUMENTED = set((Path(__file__).parent / "systemd-252.txt").read_text().splitlines())
SYSTEMD = Path("/lib/systemd/systemd")
ANALYZE = shutil.which("systemd-analyze")


def assignments(text: str) -> list[tuple[str, str, str]]:
    section, found = "", []
    for line in text.splitlines():
        if line.startswith("["):
            section = line
        elif line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            assert equals, line
            found.append((section, name, value))
    return found


def value_of(name: str) -> str:
    (value,) = [value for _, given, value in assignments(unit_text()) if given == name]
    return value


def test_every_directive_is_documented_for_its_section() -> None:
    used = {f"{section} {name}" for section, name, _ in assignments(unit_text())}
    assert len(used) > 35
    assert not used - DOCUMENTED


@pytest.mark.skipif(not SYSTEMD.is_file(), reason="no systemd here")
def test_the_systemd_of_this_machine_knows_them_too() -> None:
    dump = subprocess.run([str(SYSTEMD), "--dump-configuration-items"], capture_output=True, text=True, check=True)
    section, known = "", set()
    for line in dump.stdout.splitlines():
        section = line if line.startswith("[") else section
        known.add((section, line.partition("=")[0]))
    assert not {(section, name) for section, name, _ in assignments(unit_text())} - known


def verified(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    file = folder / UNIT
    # Verification wants the program to be there.
    file.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", text, flags=re.MULTILINE))
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, "verify", "--man=no", str(file)], capture_output=True, text=True, check=False)


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze here")
def test_systemd_itself_finds_no_fault(tmp_path: Path) -> None:
    result = verified(tmp_path, unit_text())
    assert result.returncode == 0, result.stderr
    assert UNIT not in result.stderr


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze here")
def test_the_verification_would_find_one(tmp_path: Path) -> None:
    result = verified(tmp_path, unit_text().replace("WatchdogSec=30", "WatchdogSecs=30"))
    assert "WatchdogSecs" in result.stderr


def test_a_hang_is_restarted_for_ever_and_leaves_no_memory_on_the_disk() -> None:
    assert value_of("Type") == "notify"
    assert value_of("WatchdogSec") == "30"
    assert value_of("Restart") == "on-failure"
    assert value_of("StartLimitIntervalSec") == "0"
    assert value_of("LimitCORE") == "0"


def test_the_first_signal_reaches_the_main_process_alone() -> None:
    assert value_of("KillMode") == "mixed"


def test_nothing_that_hides_the_capture_card_is_set() -> None:
    names = {name for _, name, _ in assignments(unit_text())}
    assert not names & {"PrivateDevices", "ProtectClock", "DeviceAllow", "DevicePolicy", "MemoryDenyWriteExecute"}


def test_the_module_prints_the_file() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "edgefetal_runtime.service.unit"], capture_output=True, text=True, check=True
    )
    assert result.stdout == unit_text()
