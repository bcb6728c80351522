"""Tables of pixel sizes: HC18's layout, its common variants, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_devices.errors import EdgeFetalError, ScaleError
from edgefetal_runtime.scale import MAX_MM_PER_PX, MIN_MM_PER_PX
from edgefetal_runtime.sources.scale_table import has_scale_columns, read_scale_table

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "filename,pixel size(mm),head circumference (mm)"
SHORT_HEAD = "filename,pixel size(mm)"


def _table(folder: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path = folder / "sizes.csv"
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def test_sizes_and_references_are_read_by_name(tmp_path: Path) -> None:
    path = _table(tmp_path, HEAD, "000_HC.png,0.069136,44.3", "001_HC.png,0.089659,56.81")
    table = read_scale_table(path)
    assert list(table) == ["000_HC.png", "001_HC.png"]
    row = table["001_HC.png"]
    assert (row.scale.x_mm_per_px, row.scale.y_mm_per_px, row.hc_mm) == (0.089659, 0.089659, 56.81)
    assert row.scale.origin == "sizes.csv, row 3"


def test_a_table_without_references_has_none(tmp_path: Path) -> None:
    assert read_scale_table(_table(tmp_path, SHORT_HEAD, "a.png,0.1"))["a.png"].hc_mm is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(
    "lines",
    [
        ("filename,pixel size(mm)", "a é.png,0.1"),
        (" Filename , Pixel Size(mm) ", "  a é.png  , 0.1 "),
        ("pixel size(mm),note,filename", "0.1,seen twice,a é.png"),
        ('"filename","pixel size(mm)"', '"a é.png","0.1"'),
        ("filename,pixel size(mm)\r", "a é.png,0.1\r"),
        ("filename,pixel size(mm)", "", "a é.png,0.1", "", ""),
        ("filename,pixel size(mm)", "a é.png,0.1", "a é.png,0.10"),
    ],
    ids=["plain", "spaces", "other order", "quoted", "CRLF", "blank lines", "same row twice"],
)
def test_common_variants_are_read_and_recognised(tmp_path: Path, lines: tuple[str, ...], encoding: str) -> None:
    path = _table(tmp_path, *lines, encoding=encoding)
    table = read_scale_table(path)
    assert list(table) == ["a é.png"]
    assert table["a é.png"].scale.x_mm_per_px == 0.1
    assert has_scale_columns(path)


def test_a_row_is_named_by_its_line_in_the_file(tmp_path: Path) -> None:
    path = _table(tmp_path, SHORT_HEAD, "", "a.png,0.1", "b.png,none")
    with pytest.raises(ScaleError, match=r"row 4: 'pixel size\(mm\)' is 'none', not a number; mend the row"):
        read_scale_table(path)


@pytest.mark.parametrize("size", ["", "none", "0.1 mm", "0,1", "-0.1", "0", "nan", "inf", "0.0012", "69"])
def test_a_row_without_a_plausible_size_is_refused_and_named(tmp_path: Path, size: str) -> None:
    with pytest.raises(ScaleError, match=r"sizes\.csv, row 3"):
        read_scale_table(_table(tmp_path, SHORT_HEAD, "a.png,0.1", f"b.png,{size}"))


@pytest.mark.parametrize("hc_mm", ["about 175", "nan", "inf", "-175", "0"])
def test_a_row_whose_reference_is_no_length_is_refused_and_named(tmp_path: Path, hc_mm: str) -> None:
    # A reference that is no number would make every error against it none as well.
    with pytest.raises(ScaleError, match=r"sizes\.csv, row 2"):
        read_scale_table(_table(tmp_path, HEAD, f"a.png,0.1,{hc_mm}"))


def test_a_row_that_ends_early_is_refused_and_named(tmp_path: Path) -> None:
    with pytest.raises(ScaleError, match=r"row 2: 'pixel size\(mm\)' is None, not a number"):
        read_scale_table(_table(tmp_path, SHORT_HEAD, "a.png"))


@pytest.mark.parametrize("second", ["a.png,0.2,175", "a.png,0.1,176"])
def test_two_different_rows_for_a_picture_are_refused(tmp_path: Path, second: str) -> None:
    with pytest.raises(ScaleError, match=r"row 3: a\.png stands twice with different figures; keep one row"):
        read_scale_table(_table(tmp_path, HEAD, "a.png,0.1,175", second))


@pytest.mark.parametrize(
    "head", ["", "filename", "pixel size(mm)", "filename;pixel size(mm)", "filename,pixel size(cm)", "a.png,0.1"]
)
def test_a_table_without_the_columns_is_refused_and_not_recognised(tmp_path: Path, head: str) -> None:
    path = _table(tmp_path, head, "a.png,0.1")
    assert not has_scale_columns(path)
    with pytest.raises(ScaleError, match=r"sizes\.csv lacks the columns 'filename' and 'pixel size\(mm\)'"):
        read_scale_table(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x00filename", b"\x89PNG\r\n\x1a\n\xde\xad"], ids=["utf-16", "png"])
def test_a_file_that_is_no_text_is_refused_and_not_recognised(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sizes.csv"
    path.write_bytes(content)
    assert not has_scale_columns(path)
    with pytest.raises(ScaleError, match=r"sizes\.csv cannot be read as a table .*give a CSV with the columns"):
        read_scale_table(path)


def test_a_missing_file_is_refused_and_not_recognised(tmp_path: Path) -> None:
    assert not has_scale_columns(tmp_path / "sizes.csv")
    with pytest.raises(ScaleError, match="cannot be read as a table"):
        read_scale_table(tmp_path / "sizes.csv")


@pytest.fixture(scope="module")
def random_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables") / "random.csv"


_CELLS = st.text(max_size=8) | st.sampled_from(["0.1", "a.png", "", "nan", '"', "1e999", "filename", "pixel size(mm)"])
_ROWS = st.lists(st.lists(_CELLS, max_size=5).map(",".join), max_size=6).map("\n".join)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    content=st.binary(max_size=200)
    | _ROWS.map(lambda text: text.encode("utf-8", "replace"))
    | _ROWS.map(lambda text: f"{HEAD}\n{text}".encode("utf-8", "replace"))
    | _ROWS.map(lambda text: f"{SHORT_HEAD}\n{text}".encode("utf-8", "replace"))
)
def test_any_file_is_a_table_of_plausible_sizes_or_a_user_error(random_path: Path, content: bytes) -> None:
    random_path.write_bytes(content)
    recognised = has_scale_columns(random_path)
    assert recognised in (True, False)
    try:
        table = read_scale_table(random_path)
    except EdgeFetalError:
        return
    assert all(MIN_MM_PER_PX <= row.scale.x_mm_per_px <= MAX_MM_PER_PX for row in table.values())
