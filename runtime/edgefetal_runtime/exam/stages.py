"""Work on several cores: stages that overlap, or lanes in each of which a whole item is worked on. Both keep the order.

Reading, preprocessing, the network and geometry release Python's lock for most of their time, so on two cores they run
beside one another. Stages hand an item on as soon as the next one is free, which is quickest for one item; lanes wait
for nobody, which is quickest for many. Whatever ends first ends all: the source, an error, or whoever consumes the
results.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")


class _Closed(Exception):  # noqa: N818 - a signal between the threads of this module, never seen outside
    """The other side has gone."""


class Channel(Generic[T]):
    """A short queue between two threads that either may close at any time, whatever the other one waits for."""

    def __init__(self, capacity: int) -> None:
        """Open it for so many items."""
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._abandoned = False

    def put(self, item: T) -> None:
        """Add an item; wait while the queue is full.

        Raises:
            _Closed: the reader has gone.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or len(self._items) < self._capacity)
            if self._abandoned:
                raise _Closed
            self._items.append(item)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Say that nothing more comes, and why, if it is an error; what is queued is still read, and once is enough."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def abandon(self) -> None:
        """Say that nobody reads any more."""
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Yield the items until the end; then raise the writer's error, if there was one."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended or self._abandoned)
                if self._abandoned:
                    return
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


def overlapped(source: Iterable[T], *steps: Callable[[T], T], ahead: int = 2) -> Iterator[T]:
    """Pass items through steps that run beside one another, and yield them in order.

    Closing the iterator stops every thread before it returns, except one that waits inside the source, which is told to
    stop by whoever made the source.

    Args:
        source: read in a thread of its own.
        steps: each in a thread of its own.
        ahead: items that may wait between two stages.

    Raises:
        BaseException: what the source or a step raised, after all items before it.
    """
    channels: list[Channel[T]] = [Channel(ahead) for _ in range(len(steps) + 1)]
    feeds: list[Iterable[T]] = [source, *channels]
    threads = [
        threading.Thread(target=_pump, args=(feed, step, channel), name=f"stage {number}", daemon=True)
        for number, (feed, step, channel) in enumerate(zip(feeds, (None, *steps), channels, strict=False))
    ]
    yield from _running(threads, channels, channels[-1])


def in_lanes(source: Iterable[T], step: Callable[[T], T], lanes: int, ahead: int = 2) -> Iterator[T]:
    """Pass items through one step, several of them at a time, and yield them in order.

    Closing the iterator stops every thread, as with `overlapped`.

    Args:
        source: read in a thread of its own.
        step: called in as many threads as there are lanes.
        lanes: items that are worked on side by side; the first goes to the first lane, the next to the next.
        ahead: items that may wait before a lane, and behind it.

    Raises:
        BaseException: what the source or the step raised, after all items before it.
    """
    feeds: list[Channel[T]] = [Channel(ahead) for _ in range(lanes)]
    done: list[Channel[T]] = [Channel(ahead) for _ in range(lanes)]
    threads = [threading.Thread(target=_deal, args=(source, feeds), name="stage 0", daemon=True)]
    for number, (feed, channel) in enumerate(zip(feeds, done, strict=True)):
        threads.append(
            threading.Thread(target=_pump, args=(feed, step, channel), name=f"stage lane {number}", daemon=True)
        )
    yield from _running(threads, [*feeds, *done], _in_turn(done))


def _running(threads: Sequence[threading.Thread], channels: Sequence[Channel[T]], results: Iterable[T]) -> Iterator[T]:
    """Yield results while threads make them, the first of which reads the source."""
    for thread in threads:
        thread.start()
    try:
        yield from results
    finally:
        for channel in channels:
            channel.abandon()
        # The first thread may wait inside a source; the others only wait on channels.
        for thread in threads[1:]:
            thread.join()


def _in_turn(channels: Sequence[Channel[T]]) -> Iterator[T]:
    """Yield one item of each channel after the other, until the one whose turn it is has ended."""
    nothing = object()
    for items in itertools.cycle([iter(channel) for channel in channels]):
        item = next(items, nothing)
        if item is nothing:
            return
        yield cast("T", item)


def _deal(source: Iterable[T], feeds: Sequence[Channel[T]]) -> None:
    """Read items and hand one to each lane after the other; an error goes to the lane whose turn it is."""
    turn = 0
    try:
        for item in source:
            feeds[turn].put(item)
            turn = (turn + 1) % len(feeds)
    except _Closed:
        pass
    except BaseException as error:  # noqa: BLE001 - raised again where the results are read
        feeds[turn].end(error)
    finally:
        for feed in feeds:
            feed.end()
        if (close := getattr(source, "close", None)) is not None:
            close()


def _pump(feed: Iterable[T], step: Callable[[T], T] | None, out: Channel[T]) -> None:
    """Read items, apply a step, and hand them on; an error goes the same way."""
    try:
        for item in feed:
            out.put(item if step is None else step(item))
    except _Closed:
        pass
    except BaseException as error:  # noqa: BLE001 - raised again where the results are read
        out.end(error)
    else:
        out.end()
    finally:
        if isinstance(feed, Channel):
            feed.abandon()
        elif (close := getattr(feed, "close", None)) is not None:
            close()
