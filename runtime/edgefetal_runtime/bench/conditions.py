"""What the machine was doing while it was benched, and whether that disturbed the figures.

    /proc/stat                       ticks of all cores: user nice system idle iowait irq softirq steal
    /proc/loadavg                    load averages of 1, 5 and 15 minutes
    /proc/self/task/*/children       processes that this one started
    /proc/<pid>/stat                 their ticks, utime and stime

as proc_stat(5), proc_loadavg(5), proc_pid_task(5) and proc_pid_stat(5) describe them. What is busy and is neither ours
nor our children's is others'.
"""

from __future__ import annotations

import itertools
import os
import resource
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from edgefetal_devices.files import entries, read_text, whole
from edgefetal_devices.telemetry import Telemetry, read_telemetry
from edgefetal_runtime.bench.record import ConditionsRecord

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

# In a second in which others use more than this share of the cores, frames wait for them.
_BUSY_SHARE: Final = 0.10
# So many of the seconds may be like that: the 95th percentile of the latencies is then still ours.
_BUSY_SECONDS: Final = 0.05
_MAX_STEAL: Final = 0.01
_MODULE_RAIL: Final = "VDD_IN"
_BEFORE, _DURING, _AFTER, PIPELINE = "before", "during", "after", "pipeline"
_IDLE_FIELDS: Final = (3, 4)
_STEAL_FIELD: Final = 7
_STAT_FIELDS: Final = 8
_MAX_STAT_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class Sample:
    """The machine at one moment.

    Args:
        at_s: monotonic seconds.
        phase: `before`, `during`, `pipeline` (which is during too) or `after`: the phase that ended here.
        busy_s: seconds in which any core did something, all cores together, since the machine started.
        steal_s: seconds that a hypervisor gave to others, likewise.
        own_s: of `busy_s`, what this process and its children used.
        telemetry: what the board said.
    """

    at_s: float
    phase: str
    busy_s: float
    steal_s: float
    own_s: float
    telemetry: Telemetry


def read_busy(root: Path = Path("/")) -> tuple[float, float]:
    """Read for how long the cores were busy, and for how long others had them: seconds since the start.

    Args:
        root: the folder that holds `proc`.

    Returns:
        Both 0 where the kernel does not say.
    """
    line = (read_text(root / "proc/stat", _MAX_STAT_BYTES) or "").partition("\n")[0].split()
    ticks = [whole(text) for text in line[1 : 1 + _STAT_FIELDS]]
    if line[:1] != ["cpu"] or len(ticks) < _STAT_FIELDS:
        return 0.0, 0.0
    known = [tick or 0 for tick in ticks]
    busy = sum(tick for field, tick in enumerate(known) if field not in {*_IDLE_FIELDS, _STEAL_FIELD})
    return busy / _ticks_per_s(), known[_STEAL_FIELD] / _ticks_per_s()


def read_own(root: Path = Path("/")) -> float:
    """Read the processor seconds of this process, of its children that ended, and of those that still run.

    Args:
        root: the folder that holds `proc`.
    """
    spent = os.times()
    ended_s = spent.user + spent.system + spent.children_user + spent.children_system
    return ended_s + sum(_spent_s(root, child) for child in _children(root))


def _children(root: Path) -> list[int]:
    """List the processes that this one started; threads start them, so each thread has its own."""
    texts = [read_text(task / "children") or "" for task in entries(root / "proc/self/task")]
    return [child for text in texts for word in text.split() if (child := whole(word)) is not None]


def _spent_s(root: Path, process: int) -> float:
    # The name, in brackets, may hold blanks and brackets.
    fields = (read_text(root / f"proc/{process}/stat") or "").rpartition(")")[2].split()
    ticks = [whole(text) or 0 for text in fields[11:13]]
    return sum(ticks) / _ticks_per_s()


def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK")


def read_load(root: Path = Path("/")) -> float | None:
    """Read the load average of one minute; None where the kernel does not say."""
    try:
        return float((read_text(root / "proc/loadavg") or "").split()[0])
    except (IndexError, ValueError):
        return None


class Watch:
    """Watches the machine within a `with` block, from a thread of its own.

        with Watch() as watch:
            ...
        watch.conditions(warm_up_stable=True)

    Entering and leaving each take `quiet_s`, in which this process does nothing: what then works is others.

    Args:
        every_s: between two looks.
        quiet_s: how long to look before and after.
        root: the folder that holds `sys` and `proc`.
    """

    def __init__(self, every_s: float = 1.0, quiet_s: float = 1.0, root: Path = Path("/")) -> None:
        """Look at nothing yet."""
        self._every_s, self._quiet_s, self._root = every_s, quiet_s, root
        self._phase = _BEFORE
        self._samples: list[Sample] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="conditions", daemon=True)

    def __enter__(self) -> Self:
        """Look before, then begin."""
        self._load = read_load(self._root)
        self._look()
        time.sleep(self._quiet_s)
        self._look()
        self._preempted = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        self._phase = _DURING
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; look after, if all went well."""
        self._ended.set()
        self._thread.join()
        self._look()
        self._preempted = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - self._preempted
        if error is None:
            self._phase = _AFTER
            time.sleep(self._quiet_s)
            self._look()

    def phase(self, name: str = _DURING) -> None:
        """Say what runs from here on: `PIPELINE`, or without a name anything else."""
        self._phase = name

    def conditions(self, *, warm_up_stable: bool) -> ConditionsRecord:
        """Judge, after the block.

        Args:
            warm_up_stable: whether the warm-up ended by its rule.
        """
        return judge(
            self._samples,
            os.cpu_count() or 1,
            load_before=self._load,
            preempted=self._preempted,
            nice=os.nice(0),
            warm_up_stable=warm_up_stable,
        )

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        busy_s, steal_s = read_busy(self._root)
        own_s = read_own(self._root)
        self._samples.append(Sample(time.monotonic(), self._phase, busy_s, steal_s, own_s, read_telemetry(self._root)))


def judge(
    samples: Sequence[Sample],
    cores: int,
    *,
    load_before: float | None,
    preempted: int,
    nice: int,
    warm_up_stable: bool,
) -> ConditionsRecord:
    """Judge what the machine was doing.

    Args:
        samples: in order: two before, at least one during and one after.
        cores: that the machine has.
        load_before: load average of one minute before the run.
        preempted: how often this process was taken off a core during it.
        nice: its niceness.
        warm_up_stable: whether the warm-up ended by its rule.
    """
    start, end = samples[1], next(s for s in reversed(samples) if s.phase != _AFTER)
    seconds = max(end.at_s - start.at_s, 1e-9)
    before, during, after = (
        _others(samples[0], start),
        _others(start, end),
        _others(end, samples[-1]),
    )
    running = samples[1 : samples.index(end) + 1]
    windows = [_others(a, b) for a, b in itertools.pairwise(running)] or [during]
    busy_share = float(np.mean([others > _BUSY_SHARE * cores for others in windows]))
    steal = (end.steal_s - start.steal_s) / (seconds * cores)
    reasons = [
        f"{when} the run other processes used {others:.2f} of {cores} cores"
        for when, others in (("before", before), ("after", after))
        if others > _BUSY_SHARE * cores
    ]
    if busy_share > _BUSY_SECONDS:
        reasons.append(
            f"during {busy_share:.0%} of the run other processes used more than {_BUSY_SHARE:.0%} of the cores, "
            f"{during:.2f} of {cores} on average"
        )
    if steal > _MAX_STEAL:
        reasons.append(f"a hypervisor gave {steal:.1%} of the cores' time to others")
    throttling = throttles([sample.telemetry for sample in samples])
    reasons += throttling
    if not warm_up_stable:
        reasons.append("the warm-up reached its cap before the times were stable")
    hottest = [heat for sample in samples if (heat := _hottest_c(sample.telemetry)) is not None]
    return ConditionsRecord(
        disturbed=bool(reasons),
        reasons=tuple(reasons),
        seconds=seconds,
        others_before_cores=before,
        others_during_cores=during,
        others_after_cores=after,
        busy_seconds_share=busy_share,
        steal_share=steal,
        load_before=load_before,
        preempted_per_s=preempted / seconds,
        nice=nice,
        temperature_max_c=max(hottest, default=None),
        temperature_rise_c=hottest[-1] - hottest[0] if hottest else None,
        throttled=bool(throttling),
        power_w=_power_w([sample.telemetry for sample in samples if sample.phase == PIPELINE]),
    )


def _others(first: Sample, last: Sample) -> float:
    """Return how many cores other processes used between two moments; ticks are coarse, so it is never negative."""
    others_s = (last.busy_s - first.busy_s) - (last.own_s - first.own_s)
    return max(others_s, 0.0) / max(last.at_s - first.at_s, 1e-9)


def throttles(seen: Sequence[Telemetry]) -> list[str]:
    """Say how the machine slowed its processors down.

    Args:
        seen: what the board said, in order, at least once.
    """
    reasons = []
    slowed = sorted({cooling.name for said in seen for cooling in said.coolings if cooling.step})
    if slowed:
        reasons.append(f"the kernel slowed processors down to cool them ({', '.join(slowed)})")
    hot = sorted({zone.name for said in seen for zone in said.zones if _too_hot(zone.temperature_c, zone.passive_c)})
    if hot and not slowed:
        reasons.append(f"{', '.join(hot)} reached the temperature from which on the kernel slows processors down")
    if (seen[-1].over_currents or 0) > (seen[0].over_currents or 0):
        reasons.append("too much current or too little voltage throttled the module")
    limits = [{c.name: c.limit_hz for c in (*said.clocks, *said.gpus)} for said in seen]
    changed = sorted(name for name, limit in limits[0].items() if any(said.get(name) != limit for said in limits))
    if changed:
        reasons.append(f"the highest clock that is allowed changed on the way ({', '.join(changed)})")
    if any(said.power_mode != seen[0].power_mode for said in seen):
        reasons.append("the power mode was changed on the way")
    return reasons


def _too_hot(temperature_c: float | None, passive_c: float | None) -> bool:
    return temperature_c is not None and passive_c is not None and temperature_c >= passive_c


def _hottest_c(telemetry: Telemetry) -> float | None:
    return max((zone.temperature_c for zone in telemetry.zones if zone.temperature_c is not None), default=None)


def _power_w(seen: Sequence[Telemetry]) -> float | None:
    """Return the mean of what the module took; only one rail is known to be all of it."""
    watts = [rail.watts for said in seen for rail in said.rails if rail.name == _MODULE_RAIL and rail.watts is not None]
    return float(np.mean(watts)) if watts else None
