"""Stages that overlap: order, errors, early ends and bounds, whatever the threads' schedule."""

from __future__ import annotations

import gc
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from edgefetal_runtime.exam.stages import Channel, in_lanes, overlapped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

# Whatever is waited for comes in milliseconds; a test that waits as long as this hangs.
DEADLINE_S = 20.0


class _InjectedError(Exception):
    pass


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("stage ")}


def _gone(threads: set[threading.Thread]) -> bool:
    """Whether these threads end within the deadline."""
    until_s = time.monotonic() + DEADLINE_S
    for thread in threads:
        thread.join(max(0.0, until_s - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = _threads()
    yield
    gc.collect()
    assert _gone(_threads() - before)


def _count_up() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def _within_deadline(work: Callable[[], None]) -> None:
    """Run work in a thread of its own; fail if it hangs, and raise what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), "it hangs"
    if raised:
        raise raised[0]


@pytest.mark.parametrize("steps", [0, 1, 3, 6])
@pytest.mark.parametrize("ahead", [1, 2, 7])
def test_items_come_out_once_and_in_order(steps: int, ahead: int) -> None:
    rng = random.Random(steps)  # noqa: S311 - a schedule, no secret

    def step(item: int) -> int:
        if rng.random() < 0.1:
            threading.Event().wait(1e-4)
        return item + 1

    assert list(overlapped(iter(range(300)), *[step] * steps, ahead=ahead)) == list(range(steps, 300 + steps))


def test_nothing_comes_of_nothing() -> None:
    assert list(overlapped([], lambda item: item)) == []


def test_two_stages_work_at_the_same_time() -> None:
    """Each waits for the other to have begun the item before or after: one after the other they would wait for ever."""
    begun = [[threading.Event() for _ in range(20)] for _ in range(2)]

    def first(item: int) -> int:
        begun[0][item].set()
        # The item before is with the second stage now.
        assert item == 0 or begun[1][item - 1].wait(DEADLINE_S)
        return item

    def second(item: int) -> int:
        begun[1][item].set()
        # The first stage goes on to the next one before this one is done.
        assert item == 19 or begun[0][item + 1].wait(DEADLINE_S)
        return item

    assert list(overlapped(range(20), first, second)) == list(range(20))


def test_the_source_is_read_while_a_stage_works() -> None:
    read = [threading.Event() for _ in range(10)]

    def source() -> Iterator[int]:
        for number, event in enumerate(read):
            event.set()
            yield number

    def step(item: int) -> int:
        assert item == 9 or read[item + 1].wait(DEADLINE_S)
        return item

    assert list(overlapped(source(), step)) == list(range(10))


@pytest.mark.parametrize("at", [0, 1, 5, 50])
@pytest.mark.parametrize("where", ["source", 0, 1, 2])
def test_an_error_arrives_after_all_items_before_it_and_none_after(at: int, where: str | int) -> None:
    def source() -> Iterator[int]:
        for number in range(100):
            if where == "source" and number == at:
                raise _InjectedError(number)
            yield number

    def make(stage: int) -> Callable[[int], int]:
        def step(item: int) -> int:
            if stage == where and item == at:
                raise _InjectedError(item)
            return item

        return step

    seen: list[int] = []
    with pytest.raises(_InjectedError, match=f"^{at}$"):
        # What was taken before the error stays.
        seen.extend(overlapped(source(), *map(make, range(3))))
    assert seen == list(range(at))


def test_the_earlier_of_two_errors_is_the_one_that_arrives() -> None:
    """A later stage fails at an earlier item, though the first stage may have failed by then."""

    def fails_at(bad: int, message: str) -> Callable[[int], int]:
        def step(item: int) -> int:
            if item == bad:
                raise _InjectedError(message)
            return item

        return step

    for _ in range(50):
        with pytest.raises(_InjectedError, match="late"):
            list(overlapped(range(20), fails_at(8, "early"), fails_at(7, "late")))


def test_an_interruption_from_the_keyboard_in_a_stage_is_not_swallowed() -> None:
    def step(_: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(overlapped(range(5), step))


@pytest.mark.parametrize("lanes", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 300])
def test_lanes_give_items_once_and_in_order(lanes: int, count: int) -> None:
    rng = random.Random(lanes)  # noqa: S311 - a schedule, no secret

    def step(item: int) -> int:
        if rng.random() < 0.1:
            threading.Event().wait(1e-4)
        return item + 1

    assert list(in_lanes(iter(range(count)), step, lanes)) == list(range(1, count + 1))


def test_lanes_work_side_by_side() -> None:
    """Every item waits for the one beside it to have begun; one after the other they would wait for ever."""
    begun = [threading.Event() for _ in range(20)]

    def step(item: int) -> int:
        begun[item].set()
        assert begun[item ^ 1].wait(DEADLINE_S)
        return item

    assert list(in_lanes(range(20), step, 2)) == list(range(20))


@pytest.mark.parametrize("lanes", [2, 3])
@pytest.mark.parametrize("at", [0, 1, 2, 5, 50])
@pytest.mark.parametrize("where", ["source", "step"])
def test_an_error_in_lanes_arrives_after_all_items_before_it_and_none_after(lanes: int, at: int, where: str) -> None:
    def source() -> Iterator[int]:
        for number in range(100):
            if where == "source" and number == at:
                raise _InjectedError(number)
            yield number

    def step(item: int) -> int:
        # Those behind fail too, some of them earlier by the clock.
        if where == "step" and item >= at:
            raise _InjectedError(item)
        return item

    seen: list[int] = []
    with pytest.raises(_InjectedError, match=f"^{at}$"):
        seen.extend(in_lanes(source(), step, lanes))
    assert seen == list(range(at))


@pytest.mark.parametrize("taken", [1, 2, 10])
@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda source: overlapped(source, *[lambda item: item] * 3), id="stages"),
        pytest.param(lambda source: in_lanes(source, lambda item: item, 3), id="lanes"),
    ],
)
def test_closing_early_stops_every_thread_and_closes_the_source(
    taken: int, work: Callable[[Iterator[int]], Generator[int]]
) -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from _count_up()
        finally:
            closed.set()

    before = _threads()
    items = work(source())
    for _ in range(taken):
        next(items)
    started = _threads() - before
    assert len(started) == 4
    _within_deadline(items.close)
    # When it returns, only the first may still be on its way out of the source.
    assert {thread.name for thread in started if thread.is_alive()} <= {"stage 0"}
    assert closed.wait(DEADLINE_S)
    assert _gone(started)


def test_closing_does_not_wait_for_a_source_that_waits() -> None:
    more = threading.Event()

    def source() -> Iterator[int]:
        yield 0
        more.wait(DEADLINE_S)
        yield 1

    items = overlapped(source(), lambda item: item)
    assert next(items) == 0
    _within_deadline(items.close)
    assert not more.is_set()
    more.set()


def test_what_is_never_begun_starts_no_thread() -> None:
    before = _threads()
    overlapped(_count_up(), lambda item: item)
    assert _threads() == before


def test_a_consumer_that_raises_hangs_nothing_and_leaves_nothing() -> None:
    def consume() -> None:
        for item in overlapped(_count_up(), *[lambda item: item] * 3):
            if item == 7:
                raise _InjectedError

    before = _threads()
    # The traceback holds the iterator; with it go the threads.
    with pytest.raises(_InjectedError):
        _within_deadline(consume)
    gc.collect()
    assert _gone(_threads() - before)


@pytest.mark.parametrize(("steps", "ahead"), [(0, 1), (1, 1), (3, 2), (2, 5)])
def test_a_source_is_never_ahead_by_more_than_the_queues_hold(steps: int, ahead: int) -> None:
    """A queue after the source and each step, and an item in the hands of each."""
    read = 0

    def source() -> Iterator[int]:
        nonlocal read
        for number in range(200):
            read = number + 1
            yield number

    most = 0
    for taken, _ in enumerate(overlapped(source(), *[lambda item: item] * steps, ahead=ahead), start=1):
        if taken % 20 == 1:
            # Let the threads fill whatever they can.
            threading.Event().wait(0.005)
        most = max(most, read - taken)
    assert ahead <= most <= (steps + 1) * (ahead + 1)


def test_what_is_queued_is_still_read_after_the_end_but_not_after_it_was_abandoned() -> None:
    ended, abandoned = Channel[int](3), Channel[int](3)
    for channel in (ended, abandoned):
        channel.put(1)
        channel.put(2)
        channel.end(_InjectedError())
    abandoned.abandon()
    assert list(abandoned) == []
    items = iter(ended)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(_InjectedError):
        next(items)


def _random_schedule(seed: int) -> str:  # noqa: C901 - one schedule, told in order
    """Run stages with random pauses, an error at a random place or none, and a consumer that may leave; say how."""
    rng = random.Random(seed)  # noqa: S311 - a schedule, no secret
    steps, length, ahead = rng.randint(1, 4), rng.randint(1, 40), rng.randint(1, 3)
    where = rng.choice(["nowhere", "consumer", "source", *range(steps)])
    at = rng.randrange(length)
    leaves_at = rng.randrange(length) if rng.random() < 0.3 else None
    pauses = [random.Random(rng.random()) for _ in range(steps + 2)]  # noqa: S311 - a schedule, no secret

    def pause(stage: int) -> None:
        if pauses[stage].random() < 0.1:
            threading.Event().wait(pauses[stage].uniform(0, 1e-3))

    def source() -> Iterator[int]:
        for number in range(length):
            pause(0)
            if where == "source" and number == at:
                raise _InjectedError(number)
            yield number

    def make(stage: int) -> Callable[[int], int]:
        def step(item: int) -> int:
            pause(stage + 1)
            if stage == where and item == at:
                raise _InjectedError(item)
            return item

        return step

    seen: list[int] = []
    error: _InjectedError | None = None
    items = overlapped(source(), *map(make, range(steps)), ahead=ahead)
    try:
        for item in items:
            pause(-1)
            if item == leaves_at:
                break
            if where == "consumer" and item == at:
                raise _InjectedError(item)  # noqa: TRY301 - the consumer's own error
            seen.append(item)
    except _InjectedError as raised:
        error = raised
    finally:
        items.close()
    stop = min([length, *([at] if where != "nowhere" else []), *([leaves_at] if leaves_at is not None else [])])
    assert seen == list(range(stop)), seed
    left = leaves_at is not None and (where == "nowhere" or leaves_at < at or (leaves_at == at and where == "consumer"))
    assert (error is not None) == (where != "nowhere" and not left), seed
    if error is not None:
        assert error.args == (at,), seed
    return "left" if left else str("error" if error else "end")


def test_random_schedules_with_errors_anywhere_end_as_they_must() -> None:
    n = 200
    outcomes: dict[str, int] = {"left": 0, "error": 0, "end": 0}

    def work() -> None:
        for seed in range(n):
            outcomes[_random_schedule(seed)] += 1

    before = _threads()
    _within_deadline(work)
    assert _gone(_threads() - before)
    print(f"{n} random schedules: {outcomes}")  # noqa: T201 - shown by the CI
    assert sum(outcomes.values()) == n
    assert min(outcomes.values()) >= 20


@pytest.mark.slow
def test_many_more_random_schedules_end_as_they_must() -> None:
    n = 3000
    for seed in range(1000, 1000 + n):
        _within_deadline(lambda seed=seed: _random_schedule(seed) and None)
    print(f"{n} random schedules")  # noqa: T201 - shown by the CI
