"""Doing one thing for each of many exams: here in turn, or by `cluster` on several processes and machines."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol, TypeVar

from edgefetal_devices.errors import EdgeFetalError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Mapper(Protocol):
    """Calls a function for each of many exams."""

    def __call__(
        self, function: Callable[[ItemT], ResultT], items: Sequence[ItemT], names: Sequence[str], *, batch: int = 1
    ) -> Generator[tuple[int, ResultT | EdgeFetalError], None, None]:
        """Call a function for each item, once for each result, and yield the results as they come.

        Closing the generator gives up what was not begun.

        Args:
            function: depends on nothing but its item, and changes nothing.
            items: what it is called with.
            names: of the exams that these are, for messages.
            batch: items that may be handed over at a time, where handing over takes as long as the work itself.

        Yields:
            The number of the item, and what the function returned or why it could not.
        """


def in_turn(
    function: Callable[[ItemT], ResultT],
    items: Sequence[ItemT],
    names: Sequence[str],  # noqa: ARG001 - the messages of this process name their exams themselves
    *,
    batch: int = 1,  # noqa: ARG001 - nothing is handed over
) -> Generator[tuple[int, ResultT | EdgeFetalError], None, None]:
    """Call a function in this process, one item after the other."""
    for index, item in enumerate(items):
        try:
            outcome: ResultT | EdgeFetalError = function(item)
        except EdgeFetalError as error:
            outcome = error
        yield index, outcome


def in_order(
    mapper: Mapper,
    function: Callable[[ItemT], ResultT],
    items: Sequence[ItemT],
    names: Sequence[str],
    on_done: Callable[[], None],
    *,
    batch: int = 1,
) -> list[ResultT]:
    """Return what a function gives for each item, in the order of the items, whatever order they were done in.

    Args:
        mapper: who calls it.
        function: as `Mapper` says.
        items: what it is called with.
        names: of the exams that these are.
        on_done: called after each.
        batch: as `Mapper` says.

    Raises:
        EdgeFetalError: the function could not for one of them; the others are given up.
    """
    results: dict[int, ResultT] = {}
    with contextlib.closing(mapper(function, items, names, batch=batch)) as outcomes:
        for index, outcome in outcomes:
            if isinstance(outcome, EdgeFetalError):
                raise outcome
            results[index] = outcome
            on_done()
    return [results[index] for index in range(len(items))]
