from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefetal_calibration.each import in_order, in_turn
from edgefetal_devices.errors import DatasetError, EdgeFetalError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

NAMES = [f"exam {number}" for number in range(5)]


def backwards(
    function: Callable[[int], int], items: Sequence[int], names: Sequence[str], *, batch: int = 1
) -> Generator[tuple[int, int | EdgeFetalError], None, None]:
    yield from reversed(list(in_turn(function, items, names, batch=batch)))


def test_results_are_in_the_order_of_the_items_whatever_was_done_first() -> None:
    ticks: list[None] = []
    for mapper in (in_turn, backwards):
        squares = in_order(mapper, lambda item: item * item, range(5), NAMES, lambda: ticks.append(None))
        assert squares == [0, 1, 4, 9, 16]
    assert len(ticks) == 10


def test_the_first_that_fails_ends_it() -> None:
    begun: list[int] = []

    def fail_at_two(item: int) -> int:
        begun.append(item)
        if item == 2:
            raise DatasetError("exam 2 is damaged; restore it.")
        return item

    with pytest.raises(DatasetError, match="exam 2 is damaged"):
        in_order(in_turn, fail_at_two, range(5), NAMES, lambda: None)
    assert begun == [0, 1, 2]


def test_one_that_fails_leaves_the_others_to_who_asks_for_them() -> None:
    def fail_at_two(item: int) -> int:
        if item == 2:
            raise DatasetError("no")
        return item

    outcomes = dict(in_turn(fail_at_two, range(5), NAMES))
    assert isinstance(outcomes.pop(2), DatasetError)
    assert outcomes == {0: 0, 1: 1, 3: 3, 4: 4}
