"""`edgefetal growth`, as a user runs it."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.edgefetal.conftest import CommandLine

ROOT = Path(__file__).parents[2]
THREE = ("--hc", 265, "--ac", 240, "--fl", 53)


def test_with_a_known_age_the_measures_are_size(edgefetal: CommandLine) -> None:
    value = edgefetal.json("growth", "--ga", "28w3d", *THREE)
    assert value["gestational_age_weeks"] == pytest.approx(199 / 7)
    assert value["dating"]["known"] is True
    assert value["dating"]["basis"] == "given as 28w3d"
    assert {e["formula"]: e["weeks"] for e in value["dating"]["estimates"]}["Hadlock 1984 (HC)"] == pytest.approx(
        28.853, abs=0.001
    )
    assert list(value["efw_g"]) == [
        "Hadlock 1985 (HC, AC, FL)",
        "Hadlock 1985 (BPD, HC, AC, FL)",
        "Hadlock 1985 (BPD, AC, FL)",
        "Hadlock 1985 (AC, FL)",
        "INTERGROWTH-21st 2017 (AC, HC)",
    ]
    assert value["efw_g"]["Hadlock 1985 (HC, AC, FL)"] == pytest.approx(1212, abs=0.5)
    assert value["efw_g"]["Hadlock 1985 (BPD, AC, FL)"] is None
    assert value["efw_notes"]["Hadlock 1985 (BPD, AC, FL)"] == "N/A: BPD not measured"
    for row in value["centiles"]:
        assert set(row) == {"measure", "chart", "value", "z", "centile", "note"}
        assert 0 < row["centile"] < 100
        assert (row["z"] is None) == row["chart"].startswith("WHO")
        assert row["chart"] in value["citations"]
    assert "not a medical device" in value["disclaimer"]


def test_a_last_period_gives_the_age(edgefetal: CommandLine) -> None:
    value = edgefetal.json("growth", "--lmp", "2026-01-01", "--exam-date", "2026-07-19", *THREE)
    assert value["gestational_age_weeks"] == pytest.approx(199 / 7)
    assert "last menstrual period 2026-01-01" in value["dating"]["basis"]


def test_a_due_date_gives_the_age(edgefetal: CommandLine) -> None:
    value = edgefetal.json("growth", "--edd", "2026-10-08", "--exam-date", "2026-07-19", *THREE)
    assert value["gestational_age_weeks"] == pytest.approx(199 / 7)


def test_the_examination_is_today_unless_told(edgefetal: CommandLine) -> None:
    """A day more or less, should midnight pass between."""
    lmp = date.today() - timedelta(days=199)  # noqa: DTZ011 - the clinic's own calendar
    value = edgefetal.json("growth", "--lmp", lmp.isoformat(), *THREE)
    assert value["gestational_age_weeks"] * 7 == pytest.approx(199.5, abs=0.51)


def test_without_a_known_age_the_measures_date_and_give_no_centile(edgefetal: CommandLine) -> None:
    value = edgefetal.json("growth", *THREE)
    assert value["gestational_age_weeks"] == pytest.approx(28.87, abs=0.005)
    assert value["dating"]["known"] is False
    assert value["dating"]["basis"] == "the measures, by INTERGROWTH-21st 2016 (HC, FL)"
    assert value["centiles"]
    for row in value["centiles"]:
        assert row["z"] is None
        assert row["centile"] is None
        assert "the age was read from these measures" in row["note"]
    out = edgefetal("growth", *THREE).out
    assert "the age was read from these measures" in out
    assert "centile" not in out


def test_an_age_outside_every_range_is_null_with_its_reason(edgefetal: CommandLine) -> None:
    value = edgefetal.json("growth", "--hc", 390)
    assert value["gestational_age_weeks"] is None
    assert value["dating"]["reason"].startswith("N/A: above the formula's range")
    assert all(e["weeks"] is None and e["note"].startswith("N/A") for e in value["dating"]["estimates"])
    assert "N/A: above" in edgefetal("growth", "--hc", 390).out


def test_outside_a_charts_weeks_there_is_no_centile(edgefetal: CommandLine) -> None:
    value = edgefetal.json("growth", "--ga", "43w0d", *THREE)
    assert all(row["centile"] is None and "outside the chart's" in row["note"] for row in value["centiles"])


def test_a_converted_diameter_is_said_to_be_one(edgefetal: CommandLine) -> None:
    out = edgefetal("growth", "--ga", "28w3d", "--bpd", 70, "--bpd-calipers", "outer-inner").out
    assert "read as 72.5 mm outer-outer (Wong 2018)" in " ".join(out.split())
    value = edgefetal.json("growth", "--ga", "28w3d", "--bpd", 70, "--bpd-calipers", "outer-inner")
    assert "Wong 2018" in value["citations"]
    assert "Wong 2018" not in edgefetal.json("growth", "--ga", "28w3d", *THREE)["citations"]


def test_sex_adds_its_chart(edgefetal: CommandLine) -> None:
    for sex, chart in (("female", "WHO 2017, girls"), ("male", "WHO 2017, boys")):
        value = edgefetal.json("growth", "--ga", "28w3d", *THREE, "--sex", sex)
        assert [row["chart"] for row in value["centiles"] if "WHO 2017, " in row["chart"]] == [chart]


def test_the_terminal_shows_figures_and_the_disclaimer(edgefetal: CommandLine) -> None:
    out = edgefetal("growth", "--ga", "28w3d", *THREE).out
    assert "Gestational age 28w3d (given as 28w3d)." in out
    assert "Hadlock 1985 (HC, AC, FL)" in out
    assert "1212" in out
    assert "2.06 weeks" in out
    assert "not a medical device" in out


def test_the_chart_is_drawn_and_an_older_one_replaced(edgefetal: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "fetus.svg").write_text("old")
    (tmp_path / "out.json").write_text("old")
    edgefetal.json("growth", "--ga", "28w3d", *THREE, "--chart", "fetus.svg")
    assert (tmp_path / "fetus.svg").read_text().startswith("<svg ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fetus.svg", "out.json"]


def test_the_picture_in_the_documentation_is_what_the_command_draws(edgefetal: CommandLine, tmp_path: Path) -> None:
    edgefetal("growth", "--ga", "28w3d", *THREE, "--chart", "a.svg")
    assert (tmp_path / "a.svg").read_text() == (ROOT / "docs" / "growth-chart.svg").read_text()


def test_the_same_measures_write_the_same_files(edgefetal: CommandLine, tmp_path: Path) -> None:
    edgefetal.json("growth", "--ga", "28w3d", *THREE, "--chart", "a.svg")
    first = (tmp_path / "a.svg").read_bytes(), (tmp_path / "out.json").read_bytes()
    edgefetal.json("growth", "--ga", "28w3d", *THREE, "--chart", "a.svg")
    assert first == ((tmp_path / "a.svg").read_bytes(), (tmp_path / "out.json").read_bytes())
    json.loads(first[1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--ga", "50w0d", "--hc", "265"], "outside 0 to 45"),
        (["--ga", "28w9d", "--hc", "265"], "give 0 to 6 days"),
        (["--ga", "28.4", "--hc", "265"], "28w3d or 28+3"),
        (["--ga", "-28w3d", "--hc", "265"], "28w3d or 28+3"),
        (["--ga", "28w3d"], "give at least one of HC"),
        (["--lmp", "2026-01-01", "--exam-date", "2026-07-20"], "give at least one of HC"),
        ([], "give at least one of HC"),
        (["--hc", "26.5"], "in mm and not in cm"),
        (["--ac", "24"], "in mm and not in cm"),
        (["--fl", "5.3"], "in mm and not in cm"),
        (["--bpd", "7.0", "--bpd-calipers", "outer-inner"], "in mm and not in cm"),
        (["--ofd", "9.3"], "in mm and not in cm"),
        (["--hc", "2650"], "outside 40 to 400 mm"),
        (["--hc", "nan"], "positive number of mm"),
        (["--ac", "inf"], "positive number of mm"),
        (["--fl", "-53"], "positive number of mm"),
        (["--hc", "0"], "positive number of mm"),
        (["--bpd", "70"], "outer-outer or outer-inner"),
        (["--bpd-calipers", "outer-inner", "--hc", "265"], "go together"),
        (["--bpd", "70", "--bpd-calipers", "inner-inner"], "choose outer-outer or outer-inner"),
        (["--hc", "265", "--sex", "unknown"], "choose female or male"),
        (["--ga", "28w3d", "--lmp", "2026-01-01", "--hc", "265"], "--ga and --lmp each give an age"),
        (["--ga", "28w3d", "--lmp", "2026-01-01", "--edd", "2026-10-08", "--hc", "265"], "each give an age"),
        (["--exam-date", "2026-07-20", "--hc", "265"], "give it with --lmp or --edd"),
        (["--ga", "28w3d", "--exam-date", "2026-07-20", "--hc", "265"], "give it with --lmp or --edd"),
        (["--lmp", "01.01.2026", "--hc", "265"], "give year, month and day"),
        (["--lmp", "2026-02-30", "--hc", "265"], "give year, month and day"),
        (["--lmp", "2026-01-01", "--exam-date", "soon", "--hc", "265"], "give year, month and day"),
        (["--lmp", "2026-07-21", "--exam-date", "2026-07-20", "--hc", "265"], "check both dates"),
        (["--lmp", "2025-01-01", "--exam-date", "2026-07-20", "--hc", "265"], "more than 45 weeks"),
        (["--edd", "2028-01-01", "--exam-date", "2026-07-20", "--hc", "265"], "check both dates"),
        (["--ga", "28w3d", "--hc", "265", "--chart", "no/such/fetus.svg"], "cannot be written"),
        (["--ga", "28w3d", "--hc", "265", "--chart", "out.json"], "ends in .svg"),
    ],
)
def test_growth_refuses(edgefetal: CommandLine, tmp_path: Path, arguments: list[str], says: str) -> None:
    outcome = edgefetal("growth", *arguments, "--json", "out.json")
    assert outcome.exit_code == 2, outcome
    assert outcome.err.startswith("Error: ")
    assert says in outcome.err
    assert outcome.err.strip().count("\n") == 0, "one sentence, no traceback"
    assert list(tmp_path.iterdir()) == [], "nothing was written"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--hc", "265", "--chart", "fetus.svg"], "known beforehand"),
        (["--ga", "43w0d", "--hc", "265", "--chart", "fetus.svg"], "holds at 43w0d"),
    ],
)
def test_where_no_chart_reaches_the_report_is_there_all_the_same(
    edgefetal: CommandLine, tmp_path: Path, arguments: list[str], says: str
) -> None:
    outcome = edgefetal("growth", *arguments, "--json", "out.json")
    assert outcome.exit_code == 2
    assert says in outcome.err
    assert "Hadlock 1984 (HC)" in outcome.out
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]


def test_a_word_for_a_number_is_wrong_usage(edgefetal: CommandLine, tmp_path: Path) -> None:
    assert edgefetal("growth", "--hc", "big", "--json", "out.json").exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_json_into_nowhere_is_refused(edgefetal: CommandLine, tmp_path: Path) -> None:
    outcome = edgefetal("growth", "--ga", "28w3d", *THREE, "--json", "no/such/out.json", "--chart", "fetus.svg")
    assert outcome.exit_code == 2
    assert "cannot be written" in outcome.err
    assert list(tmp_path.iterdir()) == []
