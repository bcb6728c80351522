"""Points of outlines: packed in memory, and in JSON what they were as tuples of numbers."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from edgefetal_runtime.exam.points import Points

PAIRS = ((1.5, 2.25), (-0.0, 4.0), (300.01, 0.1))
_NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
_CONTOURS = st.lists(st.tuples(_NUMBERS, _NUMBERS), max_size=30).map(tuple)


class Packed(BaseModel):
    """A record as it is."""

    model_config = ConfigDict(frozen=True)
    contour_px: Points | None


class Tuples(BaseModel):
    """The same as it was while records held tuples."""

    contour_px: tuple[tuple[float, float], ...] | None


@given(_CONTOURS | _CONTOURS.map(lambda pairs: tuple((round(x, 2), round(y, 2)) for x, y in pairs)) | st.none())
def test_the_json_is_byte_by_byte_that_of_tuples(pairs: tuple[tuple[float, float], ...] | None) -> None:
    before, now = Tuples(contour_px=pairs), Packed.model_validate({"contour_px": pairs})
    for indent in (None, 1):
        assert now.model_dump_json(indent=indent) == before.model_dump_json(indent=indent)
    assert now.model_dump(mode="json") == before.model_dump(mode="json")
    assert now.model_dump() == before.model_dump()
    # Old files are read, and nothing is rounded on the way.
    again = Packed.model_validate_json(before.model_dump_json())
    assert again == now
    assert again.model_dump_json() == before.model_dump_json()
    assert Packed.model_validate(json.loads(before.model_dump_json())) == now


def test_they_are_a_sequence_of_pairs() -> None:
    points = Points.of(PAIRS)
    assert isinstance(points, Sequence)
    assert (len(points), tuple(points), points[0], points[-1]) == (3, PAIRS, PAIRS[0], PAIRS[2])
    assert points[1:] == Points.of(PAIRS[1:])
    assert (PAIRS[2] in points, (2.25, 1.5) in points, points.index(PAIRS[2])) == (True, False, 2)
    np.testing.assert_array_equal(np.array(points), np.array(PAIRS))
    with pytest.raises(IndexError):
        points[3]
    assert not Points.of(())


def test_they_are_equal_by_what_they_hold_and_cannot_be_changed() -> None:
    points = Points.of(PAIRS)
    assert points == Points.of(PAIRS)
    assert hash(points) == hash(Points.of(list(PAIRS)))
    assert points != Points.of(PAIRS[::-1])
    assert points != Points.of(PAIRS[:2])
    assert pickle.loads(pickle.dumps(points)) == points  # noqa: S301 - our own
    with pytest.raises(AttributeError):
        points.packed = b""  # type: ignore[misc]


def test_a_record_takes_packed_points_as_they_are() -> None:
    points = Points.of(PAIRS)
    assert Packed(contour_px=points).contour_px is points


@pytest.mark.parametrize("wrong", ["[[1, 2], [3]]", "[[1, 2, 3]]", "[1, 2]", '"12"', '{"packed": ""}', '[["a", 1]]'])
def test_what_is_no_list_of_pairs_is_refused(wrong: str) -> None:
    adapter = TypeAdapter(Points)
    with pytest.raises(ValidationError):
        adapter.validate_json(wrong)
    with pytest.raises(ValidationError):
        adapter.validate_python(json.loads(wrong))


def test_an_outline_takes_sixteen_bytes_a_point() -> None:
    points = Points.of((float(n), float(-n)) for n in range(128))
    assert sys.getsizeof(points) + sys.getsizeof(points.packed) < 128 * 16 + 150
