"""What records of different runs can tell, and what they cannot."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_devices.errors import InputError
from edgefetal_runtime.bench.compare import _cut, compare, read_side

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefetal_runtime.bench.record import BenchRecord

    Make = Callable[..., BenchRecord]


def side(make: Make, p50_ms: list[float], **changes: Any) -> list[BenchRecord]:
    return [make(latency_ms={"p50": ms}, **changes) for ms in p50_ms]


BEFORE = [20.0, 20.2, 19.9, 20.1, 20.3]


def test_a_change_beyond_the_scatter_is_real(make_record: Make) -> None:
    found = compare(side(make_record, BEFORE), side(make_record, [ms / 1.05 for ms in BEFORE]))
    first = found.figures[0]
    assert (found.real, found.doubts, found.changed) == (True, (), ())
    assert first.ratio == pytest.approx(1.05)
    assert first.low is not None
    assert 1.0 < first.low < 1.05
    assert first.verdict == "faster"
    assert {of.verdict for of in found.figures[1:]} == {"no difference is shown"}


def test_the_other_way_round_it_is_slower(make_record: Make) -> None:
    found = compare(side(make_record, BEFORE), side(make_record, [ms * 1.05 for ms in BEFORE]))
    assert found.real
    assert found.figures[0].verdict == "slower"
    assert found.figures[0].ratio == pytest.approx(1 / 1.05)


def test_what_lies_within_the_scatter_is_none(make_record: Make) -> None:
    found = compare(side(make_record, BEFORE), side(make_record, [19.8, 20.4, 20.0, 20.1, 20.2]))
    assert found.real is False
    assert found.figures[0].verdict == "no difference is shown"


def test_one_record_each_cannot_tell_whatever_it_says(make_record: Make) -> None:
    found = compare(side(make_record, [20.0]), side(make_record, [10.0]))
    assert found.real is None
    assert found.figures[0].ratio == pytest.approx(2.0)
    assert found.figures[0].low is None
    assert found.figures[0].verdict == "cannot be told"
    assert "take at least 5 runs" in found.doubts[0]


def test_a_disturbed_run_cannot_tell(make_record: Make) -> None:
    disturbed = {"disturbed": True, "reasons": ["others worked"]}
    found = compare(side(make_record, BEFORE), side(make_record, [ms / 2 for ms in BEFORE], conditions=disturbed))
    assert found.real is None
    assert found.doubts == ("5 of the second side's records were disturbed (others worked)",)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"machine": {"processor": "Another"}}, "different machines"),
        ({"machine": {"cores": 4}}, "different machines"),
        ({"machine": {"power_mode": "15W"}}, "different power modes"),
        (
            {"machine": {"clocks": [{"name": "policy0", "limit_mhz": 1.0, "max_mhz": 2.0, "locked": False}]}},
            "different limits of clocks",
        ),
        ({"source": {"sha256": "0" * 64}}, "different frames"),
    ],
)
def test_what_cannot_be_compared_is_refused(make_record: Make, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        compare([make_record()], [make_record(**changes)])


def test_one_side_holds_one_thing(make_record: Make) -> None:
    mixed = [make_record(), make_record(subject={"threads": 2})]
    with pytest.raises(InputError, match="of one side"):
        compare(mixed, [make_record()])


def test_what_else_changed_is_named(make_record: Make) -> None:
    other = make_record(
        subject={"backend": "openvino"},
        machine={"versions": {"python": "3.11.7", "onnxruntime": "1.30", "openvino": "2"}},
    )
    assert compare([make_record()], [other]).changed == (
        "backend onnxruntime became openvino",
        "onnxruntime 1.31.1 became 1.30",
        "openvino none became 2",
    )


def test_a_figure_that_one_side_lacks_is_left_out(make_record: Make) -> None:
    found = compare([make_record(first_result_s=None)], [make_record()])
    assert "first result (s)" not in [of.figure for of in found.figures]
    assert "first result (s)" in [of.figure for of in compare([make_record()], [make_record()]).figures]


@pytest.mark.parametrize(("first", "second"), [(5, 5), (5, 7), (6, 6)])
def test_the_interval_is_as_wide_as_counting_all_orders_says(first: int, second: int) -> None:
    """Of all ways in which two samples of one thing may mix, so many lie outside."""
    ranks = range(first + second)
    pairs = []
    for chosen in combinations(ranks, first):
        others = [rank for rank in ranks if rank not in chosen]
        pairs.append(sum(other < one for one in chosen for other in others))
    cut = _cut(first, second, 0.99)
    assert 2 * np.mean(np.array(pairs) <= cut) <= 0.01
    assert 2 * np.mean(np.array(pairs) <= cut + 1) > 0.01


def test_a_folder_holds_repeats(make_record: Make, tmp_path: Path) -> None:
    for name in ("1.json", "2.json"):
        (tmp_path / name).write_text(make_record().model_dump_json())
    assert len(read_side(tmp_path)) == 2
    assert read_side(tmp_path / "1.json") == (make_record(),)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no record"):
        read_side(tmp_path / "none")
