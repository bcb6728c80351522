"""How a live source judges its capture child, counts, and starts it anew; with a child and a clock that are made up."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from edgefetal_devices.errors import EnvironmentLacksError
from edgefetal_runtime.scale import Scale
from edgefetal_runtime.sources.live.address import parse_address
from edgefetal_runtime.sources.live.camera import PictureFormat
from edgefetal_runtime.sources.live.child import Recorder, capture
from edgefetal_runtime.sources.live.drill import DrillCamera
from edgefetal_runtime.sources.live.live import LiveCapture, LiveSource
from edgefetal_runtime.sources.live.ring import Board, Newest, Stage
from edgefetal_runtime.sources.live.status import LiveState, LiveTiming, judge
from edgefetal_runtime.sources.scale_wish import ScaleWish

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from edgefetal_runtime.sources.live.address import Address

FORMAT = PictureFormat(64, 48, "GREY", 30.0)
DRILL = parse_address("drill:frames=1")
PERIOD_S = 1 / 30


@dataclass
class Clock:
    """Time that passes only when somebody waits."""

    now_s: float = 100.0
    slept_s: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float, /) -> None:
        self.now_s += seconds
        self.slept_s.append(seconds)


@dataclass
class Link:
    """A child that does as it is told: what it shows after each wait is prepared."""

    clock: Clock
    boards: list[Board]
    closed: bool = False
    lives: bool = True

    def wait(self, timeout_s: float) -> bool:
        self.clock.now_s += timeout_s
        if len(self.boards) > 1:
            self.boards.pop(0)
        return self.lives

    def board(self) -> Board:
        return self.boards[0]

    def fetch(self, after: int) -> tuple[Board, npt.NDArray[np.uint8] | None]:
        board = self.boards[0]
        shape = (board.newest.height_px, board.newest.width_px)
        return board, None if board.captured <= after else np.full(shape, board.captured % 256, np.uint8)

    def close(self) -> Board:
        self.closed = True
        return self.boards[0]


def _shown(captured: int, arrived_s: float, **changes: Any) -> Board:
    """The board of a child that captured so many frames, the last of them at that time."""
    new = Newest(0, 64, 48, captured - 1, 0, arrived_s, arrived_s, arrived_s)
    new = replace(new, **{key: changes.pop(key) for key in list(changes) if hasattr(new, key)})
    board = Board(Stage.OPEN, captured, opened_s=99.0, beat_s=arrived_s, format=FORMAT, newest=new)
    return replace(board, **changes)


def _judged(board: Board, now_s: float) -> LiveState:
    return judge(board, "card", started_s=99.0, now_s=now_s, timing=LiveTiming())[0]


@pytest.mark.parametrize(
    ("board", "now_s", "state"),
    [
        (Board(), 100.0, LiveState.OPENING),
        (Board(), 109.1, LiveState.LOST),
        (_shown(3, 100.0), 100.0, LiveState.LIVE),
        (_shown(3, 100.0), 101.0, LiveState.LIVE),
        (_shown(3, 100.0), 101.01, LiveState.LOST),
        # The beat of a child that is at work is no frame.
        (_shown(3, 100.0, beat_s=101.0), 101.01, LiveState.LOST),
        (_shown(90, 100.0, same_since_s=99.51), 100.0, LiveState.LIVE),
        (_shown(90, 100.0, same_since_s=99.5), 100.0, LiveState.FROZEN_BY_MACHINE),
        # What stands still because nothing comes is lost, not frozen.
        (_shown(90, 100.0, same_since_s=99.0), 101.01, LiveState.LOST),
        # At 2 frames a second one repeat is no freeze, and a second without a frame no loss.
        (_shown(9, 100.0, same_since_s=99.5, format=replace(FORMAT, fps=2.0)), 101.4, LiveState.LIVE),
        (_shown(9, 100.0, same_since_s=98.5, format=replace(FORMAT, fps=2.0)), 101.4, LiveState.FROZEN_BY_MACHINE),
        (_shown(9, 100.0, format=replace(FORMAT, fps=2.0)), 101.6, LiveState.LOST),
        (_shown(3, 100.0, stage=Stage.NO_SIGNAL), 109.0, LiveState.NO_SIGNAL),
        (_shown(3, 100.0, stage=Stage.NO_SIGNAL), 110.1, LiveState.LOST),
        # Opened again for another format: no frame has come since.
        (_shown(3, 100.0, stage=Stage.OPENING, beat_s=103.0), 112.9, LiveState.OPENING),
        (_shown(3, 100.0, opened_s=103.0), 112.9, LiveState.OPENING),
        (_shown(3, 100.0, opened_s=103.0), 113.1, LiveState.LOST),
        (Board(Stage.FAILED, reason="is unplugged"), 100.0, LiveState.LOST),
        (Board(Stage.ENDED), 100.0, LiveState.ENDED),
    ],
)
def test_a_child_is_judged_by_the_frames_that_it_delivers(board: Board, now_s: float, state: LiveState) -> None:
    assert _judged(board, now_s) is state


def test_every_state_but_live_says_what_to_do() -> None:
    reasons = {
        state: reason
        for board, now_s in ((Board(), 100.0), (Board(), 200.0), (_shown(3, 100.0, stage=Stage.NO_SIGNAL), 101.0))
        for state, reason in [judge(board, "card", started_s=99.0, now_s=now_s, timing=LiveTiming())]
    }
    assert set(reasons) == {LiveState.OPENING, LiveState.LOST, LiveState.NO_SIGNAL}
    assert "wait" in reasons[LiveState.OPENING]
    assert "plug it in again" in reasons[LiveState.LOST]
    assert "check the cable" in reasons[LiveState.NO_SIGNAL]


def test_the_wait_before_the_next_try_doubles_up_to_five_seconds() -> None:
    waits = [LiveTiming().backoff_s(failures) for failures in range(1, 10)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])
    assert LiveTiming().backoff_s(10**9) == 5.0


def _source(
    clock: Clock, boards: Callable[[int], list[Board]], *, lives: bool = True
) -> tuple[LiveCapture, list[Link]]:
    """A source whose n-th child shows `boards(n)`, one after each wait, the last for ever."""
    links: list[Link] = []

    def start(_: Address) -> Link:
        links.append(Link(clock, boards(len(links)), lives=lives))
        return links[-1]

    return LiveCapture(DRILL, clock=clock, start=start), links


def test_a_device_that_never_opens_is_tried_for_ever_and_ever_more_slowly() -> None:
    clock = Clock()
    source, links = _source(clock, lambda _: [Board(Stage.FAILED, reason="It is not there.")])
    sleep = clock.sleep

    def stop_after_a_minute(seconds: float, /) -> None:
        sleep(seconds)
        if clock.now_s >= 160:
            source.stop()

    clock.sleep = stop_after_a_minute  # type: ignore[method-assign]
    assert list(source.frames()) == []
    # Seven within 0.1 + 0.2 + ... + 3.2 = 6.3 s, and then one every 5 s.
    assert len(links) == 7 + 10
    assert all(link.closed for link in links)


def test_a_stall_is_noticed_within_a_second_and_the_child_is_closed_first() -> None:
    clock = Clock()
    source, links = _source(clock, lambda _: [_shown(1, clock.now_s)])
    frames = source.frames()
    first = next(frames)
    began_s = clock.now_s
    second = next(frames)
    assert len(links) == 2
    assert links[0].closed
    assert not links[1].closed
    # 1 s, one look, and the first wait.
    assert clock.now_s - began_s <= 1.0 + 0.05 + 0.1 + 1e-6
    assert (first.segment, second.segment) == (0, 1)
    assert second.timestamp_s - first.timestamp_s == pytest.approx(clock.now_s - began_s)
    assert source.status.reopened == 1
    frames.close()
    assert links[1].closed


def test_while_it_is_tried_again_it_is_lost_and_not_being_opened() -> None:
    clock = Clock()
    source, _ = _source(clock, lambda n: [_shown(1, clock.now_s)] if n == 0 else [Board()])
    assert source.status.state is LiveState.OPENING
    frames = source.frames()
    next(frames)
    states = []
    sleep = clock.sleep

    def look(seconds: float, /) -> None:
        sleep(seconds)
        states.append(source.status)
        if len(states) == 20:
            source.stop()

    clock.sleep = look  # type: ignore[method-assign]
    assert list(frames) == []
    assert {status.state for status in states} == {LiveState.LOST}
    assert all("check its cable" in s.reason or "unplug it" in s.reason for s in states)
    assert states[-1].last_frame_s == 100.0
    assert source.status.state is LiveState.ENDED


def test_a_child_that_dies_is_noticed_at_once_and_its_last_frame_is_kept() -> None:
    clock = Clock()
    source, links = _source(clock, lambda _: [_shown(1, clock.now_s), _shown(2, clock.now_s)], lives=False)
    began_s = clock.now_s
    frames = list(itertools.islice(source.frames(), 3))
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.segment for frame in frames] == [0, 0, 1]
    assert len(links) == 2
    assert clock.now_s - began_s < 0.3


def test_two_frames_of_a_second_apart_do_not_begin_the_waits_anew() -> None:
    """A card that dies after every first frame must not be started ten times a second for ever."""
    clock = Clock()
    source, links = _source(clock, lambda _: [_shown(1, clock.now_s)], lives=False)
    list(itertools.islice(source.frames(), 12))
    assert len(links) == 12
    assert max(clock.slept_s) == pytest.approx(0.05)
    assert clock.now_s - 100.0 > 0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 5 * 5.0


def test_index_counts_what_was_dropped_and_the_counts_add_up() -> None:
    clock = Clock()
    boards = [
        _shown(1, 100.00),
        _shown(5, 100.05, number=4),
        # Two numbers were missing and one frame was torn.
        _shown(6, 100.10, number=8, missed=2, torn=1),
        _shown(6, 100.10, number=8, missed=2, torn=1, stage=Stage.ENDED),
    ]
    source, _ = _source(clock, lambda _: boards.copy())
    frames = list(source.frames())
    status = source.status
    assert [frame.index for frame in frames] == [0, 4, 8]
    assert (status.received, status.delivered) == (6, 3)
    assert (status.dropped.missed, status.dropped.torn, status.dropped.unread) == (2, 1, 3)
    assert status.received == status.delivered + status.dropped.unread
    assert frames[-1].index + 1 == status.received + status.dropped.missed + status.dropped.torn
    assert status.state is LiveState.ENDED


def test_frames_that_a_dead_child_took_along_are_counted() -> None:
    """Killed for a stall between two looks, with a frame that nobody read."""
    clock = Clock()
    source, links = _source(clock, lambda _: [_shown(1, clock.now_s)])
    frames = source.frames()
    next(frames)
    links[0].boards = [_shown(1, 100.0), _shown(1, 100.0)]
    close = links[0].close

    def captured_while_it_was_killed() -> Board:
        close()
        return _shown(3, clock.now_s)

    links[0].close = captured_while_it_was_killed  # type: ignore[method-assign]
    second = next(frames)
    status = source.status
    assert (status.received, status.delivered, status.dropped.unread) == (4, 2, 2)
    assert second.index == 3


def test_a_change_of_format_is_a_new_segment_and_is_counted_over_children_too() -> None:
    clock = Clock()
    other = replace(FORMAT, width_px=32)

    def boards(child: int) -> list[Board]:
        if child == 0:
            return [
                _shown(1, clock.now_s),
                _shown(2, clock.now_s + 0.05, epoch=1, format_changes=1, format=other, width_px=32),
            ]
        return [_shown(1, clock.now_s), _shown(1, clock.now_s, stage=Stage.ENDED)]

    source, _ = _source(clock, boards)
    frames = list(source.frames())
    assert [(frame.segment, frame.pixels.shape[1]) for frame in frames] == [(0, 64), (1, 32), (2, 64)]
    assert source.status.format_changes == 2
    assert source.status.format == FORMAT


def test_a_typed_pixel_size_is_void_on_frames_of_another_format() -> None:
    clock = Clock()
    boards = [
        _shown(1, 100.0),
        _shown(2, 100.05, epoch=1, width_px=32, format_changes=1),
        _shown(2, 100.05, epoch=1, width_px=32, stage=Stage.ENDED),
    ]
    capture_, _ = _source(clock, lambda _: boards.copy())
    source = LiveSource(capture_, ScaleWish(stated=Scale(0.2, 0.2, origin="--mm-per-px")))
    first, second = source.frames()
    assert first.scale
    assert not second.scale
    assert "64 x 48, and this one has 32 x 48" in str(second.scale)
    assert (first.arrived_s, second.arrived_s, second.segment) == (100.0, 100.05, 1)
    assert source.status.delivered == 2


def test_times_come_from_the_device_and_never_go_back() -> None:
    clock = Clock()
    boards = [
        _shown(1, 100.00, device_s=7.0),
        _shown(2, 100.06, device_s=7.033),
        _shown(3, 100.07, device_s=7.0),
        _shown(3, 100.07, device_s=7.0, stage=Stage.ENDED),
    ]
    source, _ = _source(clock, lambda _: boards.copy())
    assert [frame.timestamp_s for frame in source.frames()] == pytest.approx([0.0, 0.033, 0.033])


def test_a_machine_that_can_start_no_child_says_so_at_once_and_one_that_could_is_tried_on() -> None:
    clock = Clock()
    works = [False]

    def start(_: Address) -> Link:
        if not works[0]:
            message = "no memory"
            raise EnvironmentLacksError(message)
        return Link(clock, [_shown(1, clock.now_s)], lives=False)

    with pytest.raises(EnvironmentLacksError):
        next(LiveCapture(DRILL, clock=clock, start=start).frames())
    works[0] = True
    source = LiveCapture(DRILL, clock=clock, start=start)
    frames = source.frames()
    next(frames)
    works[0] = False
    sleep = clock.sleep

    def mend(seconds: float, /) -> None:
        sleep(seconds)
        works[0] = clock.now_s > 103

    clock.sleep = mend  # type: ignore[method-assign]
    assert next(frames).segment == 1
    assert clock.now_s > 103


class _Refused:
    """The time of day, which nobody may ask for."""

    NAMES: ClassVar = ("time", "time_ns", "localtime", "gmtime")

    def __call__(self, *_: Any) -> float:
        message = "the time of day was asked for"
        raise AssertionError(message)


class _Kept:
    """A ring that keeps boards in a list."""

    def __init__(self) -> None:
        self.boards: list[Board] = []
        self.frames: list[npt.NDArray[np.uint8]] = []

    def shows_newest(self, pixels: npt.NDArray[np.uint8]) -> bool:
        return bool(self.frames) and np.array_equal(self.frames[-1], pixels)

    def post(self, board: Board) -> None:
        self.boards.append(board)

    def publish(self, pixels: npt.NDArray[np.uint8], board: Board) -> None:
        self.frames.append(pixels)
        self.boards.append(board)


def _drilled(steps: str) -> _Kept:
    """Run the child's loop on a drill, with a clock for the drill that does not wait."""
    clock, kept = Clock(), _Kept()
    address = parse_address(f"drill:size=64x48,{steps}")
    camera = DrillCamera(address, clock.monotonic, clock.sleep)  # type: ignore[arg-type]
    capture(camera, Recorder(kept, lambda: None), clock.sleep)  # type: ignore[arg-type]
    return kept


def test_the_time_of_day_is_never_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _Refused.NAMES:
        monkeypatch.setattr(time, name, _Refused())
    assert len(_drilled("frames=5,torn=1,frames=5").frames) == 10
    clock = Clock()
    source, _ = _source(clock, lambda _: [_shown(1, clock.now_s)])
    assert len(list(itertools.islice(source.frames(), 3))) == 3
    assert source.status.delivered == 3


def test_the_child_counts_gaps_and_torn_frames_into_the_number() -> None:
    last = _drilled("frames=2,gap=3,frames=1,torn=2,frames=2").boards[-1]
    assert (last.stage, last.captured, last.missed, last.torn) == (Stage.ENDED, 5, 3, 2)
    assert last.newest.number + 1 == 5 + 3 + 2


def test_the_child_marks_what_interrupts_the_picture() -> None:
    kept = _drilled("frames=2,size=32x24,frames=2,no-signal=1,frames=1,unplug")
    epochs = [board.newest.epoch for board in kept.boards if board.captured]
    assert sorted(set(epochs)) == [0, 1, 2]
    assert [frame.shape for frame in kept.frames] == [(48, 64)] * 2 + [(24, 32)] * 3
    assert Stage.NO_SIGNAL in {board.stage for board in kept.boards}
    last = kept.boards[-1]
    assert (last.stage, last.format_changes) == (Stage.FAILED, 1)
    assert "comes back by itself" in last.reason


def test_the_child_knows_since_when_the_picture_is_the_same() -> None:
    kept = _drilled("frames=3,freeze=4,frames=1")
    same = [b.newest.arrived_s > b.newest.same_since_s for b in kept.boards if b.captured and b.stage is Stage.OPEN]
    assert same[-1] is False
    assert sum(same) == 4


def test_pictures_larger_than_there_is_room_for_are_refused_with_the_largest() -> None:
    kept = _drilled("frames=1,size=9999x9999,frames=1")
    assert kept.boards[-1].stage is Stage.FAILED
    assert "set the device to 4096 x 2304 at most" in kept.boards[-1].reason
