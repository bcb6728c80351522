"""The terminal: this file and `live_view` are the only ones that know rich."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from edgefetal_devices.errors import OutputError
from edgefetal_runtime.atomic import json_bytes, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from edgefetal_runtime.service.session import LiveView

_console = Console()


class Steps:
    """Progress bars, one below another."""

    def __init__(self, progress: Progress) -> None:
        """Wrap a running display."""
        self._progress = progress

    def step(self, title: str, total: int | None) -> Callable[[], None]:
        """Add a bar; return what to call after each of its parts."""
        task = self._progress.add_task(title, total=total)
        return lambda: self._progress.advance(task)

    def resumable_step(self, title: str, total: int, done: int) -> Callable[[str], None]:
        """Add a bar of which a part is done; return what to call, with a new title, after each further part."""
        task = self._progress.add_task(title, total=total, completed=done)
        return lambda new_title: self._progress.update(task, advance=1, description=new_title)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def steps() -> Iterator[Steps]:
    """Show progress bars with the time left while the body runs."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console) as progress:
        yield Steps(progress)


@contextmanager
def live(view: Callable[[], LiveView], on_enter: Callable[[], None] | None = None) -> Iterator[None]:
    """Show a live examination while the body runs.

    Args:
        view: gives what is shown; called from another thread.
        on_enter: called whenever Enter is pressed, from another thread; None where the key does nothing.
    """
    from edgefetal.cli.live_view import shown

    if on_enter is not None:
        threading.Thread(target=_follow_enter, args=(on_enter,), name="keyboard", daemon=True).start()
    with shown(_console, view):
        yield


def _follow_enter(on_enter: Callable[[], None]) -> None:
    for _ in sys.stdin:
        on_enter()


def silence() -> None:
    """Print nothing from here on: of several processes that do one thing together, one speaks."""
    _console.quiet = True


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    _console.print(table)


def show_coverage(table: Mapping[str, Mapping[str, Any]]) -> None:
    """Print how many truths the intervals hold, by measure; nothing where there are no intervals."""
    rows = [
        (
            measure,
            f"{of['covered']} of {of['n']} ({of['share']:.1%})",
            f"{of['expected'][0]} to {of['expected'][1]}",
            figure(of["mean_width"], 2),
        )
        for measure, of in table.items()
    ]
    if rows:
        level = next(iter(table.values()))["level"]
        columns = ("measure", "truths held", f"a true {level:.0%} would hold", "mean width")
        show_table("Intervals, on subjects that they were not fitted on", columns, rows)


def say(text: str) -> None:
    """Print a line."""
    _console.print(text, highlight=False, soft_wrap=True, markup=False)


def figure(value: float | None, digits: int = 2) -> str:
    """Write a figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def check_json_target(path: Path | None, *others: Path | None) -> None:
    """Refuse a JSON file that cannot be written or would harm something, before the work is done.

    Args:
        path: the file, or None where none was asked for.
        others: what the command reads and writes; the file may be none of these, nor lie in one.

    Raises:
        OutputError: the file is a folder, its folder does not exist or cannot be written to, or it is one of `others`.
    """
    if path is None:
        return
    target = path.absolute()
    # `os.path` answers False for a name that no disk takes; `Path` raises.
    if os.path.isdir(target) or not os.path.isdir(target.parent) or not os.access(target.parent, os.W_OK):  # noqa: PTH112
        message = f"{path} cannot be written: it is a folder, or its folder is missing or protected. Name another file."
        raise OutputError(message)
    harmed = [other for other in others if other is not None and other.absolute() in (target, *target.parents)]
    if harmed:
        message = f"{path} would overwrite or alter {harmed[0]}; name another file."
        raise OutputError(message)


def check_svg_target(path: Path | None, *others: Path | None) -> None:
    """Refuse a picture's file that is not named as one, or as `check_json_target` does.

    Raises:
        OutputError: its name does not end in .svg, or it cannot be written or would harm something.
    """
    check_json_target(path, *others)
    if path is not None and path.suffix.lower() != ".svg":
        message = f"{path} would hold an SVG picture; name a file that ends in .svg."
        raise OutputError(message)


def write_json(path: Path | None, value: object) -> None:
    """Write JSON for machines, if a file was asked for."""
    if path is not None:
        write_file(path, json_bytes(value))
