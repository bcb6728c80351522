"""The tables of docs/devices.md are those of the data files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgefetal_devices.errors import InputError
from edgefetal_devices.jetpack import read_jetpacks
from edgefetal_devices.profile import profile_names, read_profile
from edgefetal_devices.table import BOARD_COLUMNS, JETPACK_COLUMNS, board_row, facts, jetpack_row, renewed

PAGE = Path(__file__).parents[2] / "docs" / "devices.md"


def test_the_page_is_what_the_data_files_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert renewed(page) == page, "run: python -m edgefetal_devices.table docs/devices.md"


def test_the_page_names_every_target_and_every_jetpack() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for name in (*profile_names(), *(jetpack.name for jetpack in read_jetpacks())):
        assert any(line.startswith(f"| {name} |") for line in lines)


def test_a_stale_page_is_renewed_by_the_command(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    stale = tmp_path / "devices.md"
    stale.write_text(page.replace("204.8", "999"), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "edgefetal_devices.table", str(stale)], check=True)
    assert stale.read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    "page", ["", "no table\n", "<!-- table: animals -->\n<!-- end -->\n", "<!-- table: boards -->\n"]
)
def test_a_page_without_these_tables_is_refused(page: str) -> None:
    with pytest.raises(InputError, match="boards, jetpacks, refusals"):
        renewed(page)


@pytest.mark.parametrize("name", profile_names())
def test_a_row_has_a_cell_for_each_column(name: str) -> None:
    profile = read_profile(name)
    assert len(board_row(profile)) == len(BOARD_COLUMNS)
    told = dict(facts(profile))
    assert told["source"] == profile.source
    assert all(told.values())
    assert all("|" not in cell for cell in (*board_row(profile), *told.values()))


def test_what_was_not_checked_is_a_question_mark() -> None:
    newest = read_jetpacks()[-1]
    row = dict(zip(JETPACK_COLUMNS, jetpack_row(newest), strict=True))
    assert (row["JetPack"], row["TensorRT"], row["Jetson Linux"]) == ("7.2.2", "?", "?")
    told = dict(facts(read_profile("jetson-thor")))
    assert "camera connector" not in told
    assert told["engines on JetPack"] == "7.0, 7.1, 7.2, 7.2.1, 7.2.2"
    assert dict(facts(read_profile("jetson-nano")))["engines on JetPack"] == "none"
