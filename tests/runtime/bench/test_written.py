"""What is written of a record: itself, tables, the page, and the document in the repository."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_devices.errors import InputError
from edgefetal_runtime.bench.document import main, performance_page
from edgefetal_runtime.bench.page import bench_page
from edgefetal_runtime.bench.record import BenchRecord, read_record
from edgefetal_runtime.bench.tables import (
    headline,
    latency_table,
    stage_table,
    start_table,
    throughput_table,
    titled_tables,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., BenchRecord]

DOCS = Path(__file__).parents[3] / "docs"
PAGE = DOCS / "performance.md"
RECORDS = sorted((DOCS / "performance").glob("*.json"))
DISTURBED = {"disturbed": True, "reasons": ["others <worked>"]}


def test_a_record_is_read_as_it_was_written(make_record: Make, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    record = make_record()
    file.write_text(json.dumps(record.model_dump(mode="json")))
    assert read_record(file) == record
    values = json.loads(file.read_text())
    asked = {"stages", "throughput_fps", "bare_inference_fps", "pipeline_over_bare", "latency_ms", "first_result_s",
             "peak_rss_mb", "machine"}  # fmt: skip
    assert asked <= set(values)
    assert {"p50", "p90", "p95", "p99", "max"} <= set(values["latency_ms"])


def test_another_version_or_an_unknown_field_is_refused(make_record: Make, tmp_path: Path) -> None:
    values = make_record().model_dump(mode="json")
    for wrong, where in ((values | {"schema_version": 2}, "schema_version"), (values | {"speed": 1}, "speed")):
        file = tmp_path / "record.json"
        file.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=where):
            read_record(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_record(tmp_path / "none.json")


@given(content=st.binary(max_size=200))
def test_what_is_no_record_is_refused_with_a_reason(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("record") / "record.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match="edgefetal bench"):
        read_record(file)


def test_the_stage_table_ends_with_its_sum(make_record: Make) -> None:
    rows = {row[0]: row[1:] for row in stage_table(make_record()).rows}
    assert rows["infer"][0] == "12.00"
    assert rows["copy in"] == ("-", "-", "-", "none")
    assert rows["sum of the stages"][0] == "20.00"
    assert rows["sum of the stages"][3] == "99.5% of the line below"
    assert rows["glass to result"][:3] == ("20.10", "20.00", "22.00")


def test_tables_say_what_the_record_says(make_record: Make) -> None:
    record = make_record()
    assert latency_table(record).rows[1][:3] == ("live at 30 frames a second", "300", "20.0")
    rows = dict(throughput_table(record).rows)
    assert rows["the one over the other, pair by pair"] == "0.940 (0.930 to 0.950)"
    assert rows["live: dropped, of 301"] == "1 missed, 2 unread"
    assert rows["the same, the network alone"] == "1.900 (1.800 to 2.000)"
    assert dict(start_table(record).rows)["first result of `edgefetal run` in a fresh process, median (s)"] == "1.50"


def test_a_disturbed_run_says_so_first(make_record: Make) -> None:
    assert not headline(make_record())[0].startswith("DISTURBED")
    assert headline(make_record(conditions=DISTURBED))[0] == "DISTURBED: others <worked>."
    assert b"Nothing disturbed this run" in bench_page(make_record())
    page = bench_page(make_record(conditions=DISTURBED)).decode()
    assert "This run was disturbed" in page
    assert page.index("This run was disturbed") < page.index("frames a second")
    assert "others &lt;worked&gt;" in page
    assert "<worked>" not in page
    assert "(disturbed)" in performance_page({"a.json": make_record(conditions=DISTURBED)})


class _Page(HTMLParser):
    """Collects tags, and where things would be loaded from."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "srcset"}]


def test_the_page_needs_nothing_but_itself(make_record: Make) -> None:
    page = _Page()
    text = bench_page(make_record()).decode()
    page.feed(text)
    assert page.loads == []
    assert "script" not in page.tags
    assert page.tags.count("svg") == 2
    assert "Some &lt;Processor&gt;" in text
    assert "Some <Processor>" not in text


def test_the_waterfall_begins_each_bar_where_the_last_one_ends(make_record: Make) -> None:
    class Bars(HTMLParser):
        found: list[tuple[float, float]]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag == "rect" and len(self.found) < 5:
                of = dict(attrs)
                self.found.append((float(of["x"] or 0), float(of["width"] or 0)))

    bars = Bars()
    bars.found = []
    bars.feed(bench_page(make_record()).decode())
    for (left, width), (following, _) in zip(bars.found, bars.found[1:], strict=False):
        assert following == pytest.approx(left + width, abs=0.2)
    # 2, 1, 12, 4 and 1 of 20 ms.
    total = sum(width for _, width in bars.found)
    assert [width / total for _, width in bars.found] == pytest.approx([0.1, 0.05, 0.6, 0.2, 0.05], abs=0.002)


ROW = {"title": "another <tool>", "settings": "1.0, two threads"}
PEERS = {
    "frames": 40,
    "recordings": 8,
    "repeated": False,
    "simulated": True,
    "pictures": "131 held-out pictures of hc18",
    "rows": [
        {"name": "edgefetal", "title": "edgefetal", "settings": "ours", "prepare_s": 0.4, "exams_per_minute": 110.0,
         "peak_rss_mb": 190.0, "recordings": {"n": 8, "measured": 7, "mae_mm": 4.9, "max_mm": 8.04}},
        {"name": "quick", **ROW, "prepare_s": 1.0, "exams_per_minute": 220.0, "peak_rss_mb": None,
         "ours_times_as_fast": {"median": 0.5, "low": 0.45, "high": 0.55, "level": 0.99, "n": 8},
         "pictures": {"n": 131, "measured": 0, "mae_mm": None, "max_mm": None}, "verdict": "behind"},
        {"name": "absent", **ROW, "settings": None, "unavailable": "not | installed"},
    ],
}  # fmt: skip


def test_other_tools_stand_beside_ours_with_errors_beside_speed(make_record: Make) -> None:
    record = make_record(peers=PEERS)
    tables = titled_tables(record)
    assert set(tables) - set(titled_tables(make_record())) == {"Beside other tools", "How"}
    ours, quick, absent = tables["Beside other tools"].rows
    assert ours == ("edgefetal", "110.0", "-", "190", "4.90, 8.0 (7 of 8)", "-", "what is benched")
    assert quick == ("quick", "220.0", "0.50 (0.45 to 0.55)", "-", "-", "-, - (0 of 131)", "behind")
    assert absent == ("absent", "-", "-", "-", "-", "-", "not compared: not | installed")
    assert "8 simulated sweeps of 40 frames, and 131 held-out pictures of hc18" in tables["Beside other tools"].note
    again = titled_tables(make_record(peers=PEERS | {"repeated": True}))["Beside other tools"].note
    assert "one simulated recording of 40 frames, 8 times, and" in again
    page, document = bench_page(record).decode(), performance_page({"a.json": record})
    assert "another &lt;tool&gt;" in page
    assert "another <tool>" not in page
    assert "not \\| installed" in document
    assert tables["Beside other tools"].note in document
    assert read_back(record) == record


def read_back(record: BenchRecord) -> BenchRecord:
    return BenchRecord.model_validate_json(record.model_dump_json())


def test_the_document_names_its_records(make_record: Make) -> None:
    assert "[a.json](a.json)" in performance_page({"a.json": make_record()})
    with pytest.raises(InputError, match="make bench"):
        performance_page({})


def test_the_document_is_written_from_files(
    make_record: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    file, page = tmp_path / "in" / "a.json", tmp_path / "page.md"
    file.write_text(make_record().model_dump_json())
    assert main([str(page), str(file)]) == 0
    assert page.read_text() == performance_page({"in/a.json": make_record()})
    assert main([str(tmp_path / "in" / "page.md"), str(page)]) == 2
    assert "beside" in capsys.readouterr().err
    file.write_text("{}")
    assert main([str(page), str(file)]) == 2
    assert main([str(page)]) == 2


def test_the_page_in_the_repository_is_what_its_records_say() -> None:
    assert RECORDS
    records = {file.relative_to(DOCS).as_posix(): read_record(file) for file in RECORDS}
    assert PAGE.read_text() == performance_page(records)
