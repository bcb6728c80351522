"""A live examination in the terminal: state, rate, drops, latency, sweep, light and the current values."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from edgefetal_runtime.service.session import LiveView

_PER_S = 4
_STYLES = {"green": "bold green", "amber": "bold yellow", "red": "bold red", "live": "bold green"}


def live_table(view: LiveView) -> Table:
    """Lay out what a screen shows."""
    table = Table(title="Live examination", title_justify="left", show_header=False)
    status, dropped = view.status, view.status.dropped
    state = status.state.value
    lost = dropped.missed + dropped.torn + dropped.unread + view.thinned
    rows = [
        ("source", Text(state.upper(), _STYLES.get(state, "bold red"))),
        ("", Text(status.reason)),
        ("frames", Text(f"{status.fps:.1f} a second, {view.analysed} analysed, {lost} dropped")),
    ]
    if view.latency_ms is not None:
        rows.append(("latency", Text(f"{view.latency_ms[0]:.0f} ms, 99 % within {view.latency_ms[1]:.0f} ms")))
    rows.append(("pixel size", Text(view.scale or "-")))
    if state == "live":
        rows.append(("sweep", Text(view.sweep or "none runs; put the probe on and move it")))
    elif status.last_frame_s is not None:
        # What is shown below is of then, and must not pass for now.
        rows.append(("last frame", Text(f"{time.monotonic() - status.last_frame_s:.0f} s ago", "bold red")))
    if view.hand is not None:
        light = view.hand.light.value
        rows.append(("light", Text(f"{light.upper()}: {view.hand.reason}; {view.hand.action}", _STYLES[light])))
    rows.append(("in view", Text(", ".join(view.seen) or "-")))
    for name, (value, interval) in view.best.items():
        bounds = "" if interval is None else f" ({interval[0]:.0f} to {interval[1]:.0f})"
        rows.append((name, Text(f"{value:.1f} mm{bounds}")))
    rows.extend(("left out", Text(note)) for note in view.notes)
    for name, text in rows:
        table.add_row(name, text)
    return table


@contextlib.contextmanager
def shown(console: Console, view: Callable[[], LiveView]) -> Iterator[None]:
    """Show a live examination while the body runs; nothing moves where the output is no terminal."""
    if not console.is_terminal:
        yield
        return
    with Live(get_renderable=lambda: live_table(view()), console=console, refresh_per_second=_PER_S, transient=True):
        yield
