"""A fresh process: how long from its start to its first result, and how much memory it takes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgefetal_devices.errors import CheckFailedError
from edgefetal_devices.files import read_text
from edgefetal_runtime.bench.record import ColdStartRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LAST_WORDS: Final = 300
# The kernel keeps the highest mark itself, so that only the growth since the last look is missed.
_LOOK_S: Final = 0.01
_HIGH_WATER: Final = re.compile(r"^VmHWM:\s*([0-9]+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Process:
    """A process that ended well.

    Args:
        wall_s: from its start to its end.
        cpu_s: processor seconds, with those of its children that it waited for.
        peak_rss_mb: the most memory that it had, without its children; 0 where the kernel does not say.
    """

    wall_s: float
    cpu_s: float
    peak_rss_mb: float


class _Memory:
    """Follows how much memory a process had at most.

    What the kernel adds up for `wait4` will not do: it begins with the memory of whoever started the process.
    """

    def __init__(self, process: int) -> None:
        self.peak_mb = 0.0
        self._status = Path(f"/proc/{process}/status")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="memory", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(_LOOK_S):
            found = _HIGH_WATER.search(read_text(self._status) or "")
            self.peak_mb = max(self.peak_mb, 0.0 if found is None else int(found[1]) * 1024 / 1e6)


def run_process(command: Sequence[str], folder: Path) -> Process:
    """Run a command in a folder until it ends.

    Raises:
        CheckFailedError: it ended with another code than 0.
    """
    with tempfile.TemporaryFile() as said:
        since_s = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - our own command line
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
        )
        memory = _Memory(process.pid)
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - since_s
        memory.end()
        # So that it is not waited for again.
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            words = " ".join(said.read().decode(errors="replace").split())[-_LAST_WORDS:]
            message = f"{' '.join(command[1:4])} ended with {process.returncode}: {words or 'it said nothing.'}"
            raise CheckFailedError(message)
    return Process(wall_s, used.ru_utime + used.ru_stime, memory.peak_mb)


def first_result_s(process: Process, exam_json: bytes) -> float:
    """Return the time from a process's start to its first result, at most.

    What passed between the first result and the last is taken off; what it took to write and to end is not.

    Args:
        process: `edgefetal run`.
        exam_json: the record that it wrote.
    """
    timings = json.loads(exam_json)["timings"]
    return process.wall_s - (float(timings["total_s"]) - float(timings["first_result_s"]))


def time_cold_start(
    run: Sequence[str], help_command: Sequence[str], runs: int, on_run: Callable[[], None] = lambda: None
) -> tuple[ColdStartRecord, float]:
    """Start `edgefetal run` and `edgefetal --help` in fresh processes.

    The first of each is not counted: it reads from the disk what the others find in memory.

    Args:
        run: the command, without `--out` and `--json`; its paths are absolute.
        help_command: likewise.
        runs: of each, counted.
        on_run: called after each.

    Returns:
        The figures, and the most memory in MB that any of the runs had.

    Raises:
        CheckFailedError: one of them failed.
    """
    results: list[tuple[float, float]] = []
    helps: list[Process] = []
    peak_rss_mb = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(runs + 1):
            target = folder / f"{number}.json"
            process = run_process([*run, "--out", str(folder / str(number)), "--json", str(target)], folder)
            shown = run_process(help_command, folder)
            if number:
                results.append((first_result_s(process, target.read_bytes()), process.cpu_s))
                helps.append(shown)
            peak_rss_mb = max(peak_rss_mb, process.peak_rss_mb)
            on_run()
    firsts, cpus = zip(*results, strict=True)
    record = ColdStartRecord(
        runs=runs,
        first_result_s=firsts,
        cpu_s=cpus,
        help_s=tuple(one.wall_s for one in helps),
        help_cpu_s=tuple(one.cpu_s for one in helps),
    )
    return record, peak_rss_mb
