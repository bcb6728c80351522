"""What the terminal shows of a live examination."""

from __future__ import annotations

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console

from edgefetal.cli.live_view import live_table, shown
from edgefetal_runtime.service.session import LiveView
from edgefetal_runtime.sources.live.status import Dropped, LiveState, LiveStatus
from edgefetal_runtime.sweep.hand import Hand, Light

STATUS = LiveStatus(LiveState.LIVE, "", received=900, delivered=890, dropped=Dropped(1, 2, 7), fps=29.94)
HAND = Hand(
    Light.AMBER, "fast in places", "go a little more slowly", 1.0, 0.1, turned_back=False, duration_s=9.0, skill=None
)
VIEW = LiveView(
    status=STATUS,
    analysed=885,
    thinned=5,
    latency_ms=(24.4, 41.2),
    sweep="sweep 3",
    hand=HAND,
    seen=("head",),
    best={"HC": (261.34, (251.2, 271.0))},
    scale="command line",
    notes=(),
)


def _text(view: LiveView) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(live_table(view))
    return console.export_text()


def test_all_that_a_midwife_needs_is_there() -> None:
    text = _text(VIEW)
    for part in (
        "LIVE",
        "29.9 a second, 885 analysed, 15 dropped",
        "24 ms, 99 % within 41 ms",
        "command line",
        "sweep 3",
        "AMBER: fast in places; go a little more slowly",
        "261.3 mm (251 to 271)",
    ):
        assert part in text


@pytest.mark.parametrize("state", [LiveState.LOST, LiveState.NO_SIGNAL, LiveState.FROZEN_BY_MACHINE])
def test_what_is_not_of_now_does_not_pass_for_now(state: LiveState) -> None:
    old = replace(STATUS, state=state, reason="Plug the cable in.", last_frame_s=time.monotonic() - 42)
    text = _text(replace(VIEW, status=old))
    assert state.value.upper() in text
    assert "Plug the cable in." in text
    assert "42 s ago" in text
    assert "sweep 3" not in text


def test_what_was_left_out_is_said() -> None:
    assert "only 3 MiB are free" in _text(replace(VIEW, notes=("a picture was left out, because only 3 MiB are free",)))


def test_before_the_first_frame_there_is_nothing_to_claim() -> None:
    empty = LiveView(LiveStatus(LiveState.OPENING, "Nothing yet."), 0, 0, None, None, None, (), {}, "", ())
    text = _text(empty)
    assert "OPENING" in text
    assert "mm" not in text
    assert "latency" not in text


def test_nothing_is_drawn_where_there_is_no_terminal() -> None:
    asked = []

    def view() -> LiveView:
        asked.append(1)
        return VIEW

    with shown(Console(force_terminal=False), view):
        pass
    assert asked == []
