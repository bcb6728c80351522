"""The rounds: every peer measures every picture and examines every recording, each in turn with ours."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from edgefetal_calibration.bootstrap import bounded, mean_of
from edgefetal_calibration.datasets.split import Part, parse_split
from edgefetal_devices.errors import EdgeFetalError, InputError
from edgefetal_export.peers.process import PeerProcess
from edgefetal_export.peers.table import OURS, RUN, PeerChoice
from edgefetal_runtime.bench.record import AccuracyRecord, PeerRecord
from edgefetal_runtime.bench.statistics import median_interval
from edgefetal_runtime.bench.versus import ratio_record
from edgefetal_runtime.infer.bundle import SPLIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_export.peers.peer import Job, Recording
    from edgefetal_export.peers.process import Examined
    from edgefetal_export.progress import Progress
    from edgefetal_runtime.bench.statistics import Interval

# Threads of the tool that was just busy spin for a moment in the hope of more, and would take the next one's cores.
_SETTLE_S: Final = 0.25
# What the accuracy budget lets INT8 add to the error of a head circumference counts as no difference here either.
EQUAL_WITHIN_MM: Final = 0.1


@dataclass
class _Row:
    """A peer and what it did so far; `failed` says what it could not."""

    choice: PeerChoice
    process: PeerProcess | None = None
    failed: str | None = None
    examined: list[Examined] = field(default_factory=list)
    measured: list[float | None] = field(default_factory=list)
    peak_mb: float | None = None

    def fail(self, error: EdgeFetalError) -> None:
        """Take it out of the rounds."""
        self.failed = str(error)
        if self.process is not None:
            self.process.close()


def compare_peers(
    job: Job,
    choices: Sequence[PeerChoice],
    recordings: Sequence[Recording],
    pictures: Sequence[HeadCase],
    progress: Progress,
) -> tuple[PeerRecord, ...]:
    """Have every peer, and ours first of all, do the same work in turns.

    A peer that is not installed, or fails at anything, is left out from there on, and its row says why.

    Args:
        job: the bundle, and what quantisers may see.
        choices: the peers.
        recordings: each is examined by all in a round; their order turns from round to round.
        pictures: each is measured by all, before the rounds, which warms them up.
        progress: who wants to know how far it is.

    Raises:
        EdgeFetalError: ours cannot do it.
    """
    ours = PeerChoice(OURS, None)
    rows = [_Row(choice) for choice in (ours, *choices)]
    with ExitStack() as stack:
        advance = progress.step("make the peers ready", len(rows))
        for row in rows:
            try:
                row.process = stack.enter_context(PeerProcess(row.choice, job))
            except EdgeFetalError as error:
                _leave_out(row, error)
            advance()
        advance = progress.step("pictures, by each", len(pictures) * len(rows))
        for case in pictures:
            for row in rows:
                _measure(row, case)
                advance()
        advance = progress.step("recordings, by each in turn", (len(recordings) + 1) * len(rows))
        # The first round counts for nothing: who had no pictures is warm after it.
        for number, recording in enumerate((recordings[0], *recordings)):
            for row in _turned(rows, number):
                _examine(row, recording, counts=number > 0)
                advance()
        for row in rows:
            _look_at_memory(row)
    return tuple(_record(row, rows[0], recordings, pictures) for row in rows)


def _turned(rows: Sequence[_Row], number: int) -> Sequence[_Row]:
    """Return the rows in the order of a round: each begins in its turn, forwards and backwards."""
    turn = number // 2 % len(rows)
    order = (*rows[turn:], *rows[:turn])
    return order[::-1] if number % 2 else order


def _look_at_memory(row: _Row) -> None:
    if row.process is None or row.failed is not None:
        return
    try:
        row.peak_mb = row.process.peak_mb()
    except EdgeFetalError as error:
        _leave_out(row, error)


def refuse_learnt(choices: Sequence[PeerChoice], pictures: Sequence[HeadCase]) -> None:
    """Refuse training runs that have learnt pictures which they would be judged on.

    Raises:
        InputError: one has, or is no run.
    """
    for choice in choices:
        if choice.entry.argument != RUN or choice.argument is None:
            continue
        file = Path(choice.argument) / SPLIT
        try:
            split = parse_split(file.read_bytes(), file)
        except OSError as error:
            raise InputError(
                f"{choice.argument} is no training run ({file.name}: {error.strerror}); give one."
            ) from error
        if len(split.select(pictures, Part.HELD_OUT)) < len(pictures):
            raise InputError(
                f"{choice.argument} has learnt pictures of this set that it would be judged on; give another."
            )


def _leave_out(row: _Row, error: EdgeFetalError) -> None:
    """Leave a peer out from here on; without ours there is nothing to compare with.

    Raises:
        EdgeFetalError: it is ours.
    """
    if row.choice == PeerChoice(OURS, None):
        raise error
    row.fail(error)


def _measure(row: _Row, case: HeadCase) -> None:
    if row.process is None or row.failed is not None:
        return
    try:
        row.measured.append(row.process.measure(case))
    except EdgeFetalError as error:
        _leave_out(row, error)


def _examine(row: _Row, recording: Recording, *, counts: bool) -> None:
    if row.process is None or row.failed is not None:
        return
    time.sleep(_SETTLE_S)
    try:
        examined = row.process.examine(recording)
    except EdgeFetalError as error:
        _leave_out(row, error)
        return
    if counts:
        row.examined.append(examined)


def _record(row: _Row, ours: _Row, recordings: Sequence[Recording], pictures: Sequence[HeadCase]) -> PeerRecord:
    """Write a row down; one that failed has no figures."""
    entry = row.choice.entry
    if row.process is None or row.failed is not None:
        return PeerRecord(name=row.choice.name, title=entry.title, settings=None, unavailable=row.failed or "")
    ratio = None
    if row is not ours:
        ratio = median_interval(
            [theirs.seconds / mine.seconds for theirs, mine in zip(row.examined, ours.examined, strict=True)]
        )
    truths = [recording.truth_mm for recording in recordings]
    worse = _error_difference(ours.measured, row.measured, pictures)
    on_pictures = _accuracy(row.measured, [case.hc_mm for case in pictures])
    return PeerRecord(
        name=row.choice.name,
        title=entry.title,
        settings=row.process.settings,
        prepare_s=row.process.prepare_s,
        exams_per_minute=60 / float(np.median([examined.seconds for examined in row.examined])),
        ours_times_as_fast=None if ratio is None else ratio_record(ratio),
        peak_rss_mb=row.peak_mb,
        recordings=_accuracy([examined.value_mm for examined in row.examined], truths),
        pictures=on_pictures,
        ours_worse_mm=worse,
        verdict=None if ratio is None else _verdict(ratio, worse),
    )


def _accuracy(values_mm: Sequence[float | None], truths_mm: Sequence[float | None]) -> AccuracyRecord | None:
    """Compare values with their truth; None where there is none."""
    known = [(value, truth) for value, truth in zip(values_mm, truths_mm, strict=True) if truth is not None]
    if not known:
        return None
    errors = [abs(value - truth) for value, truth in known if value is not None]
    return AccuracyRecord(
        n=len(known),
        measured=len(errors),
        mae_mm=float(np.mean(errors)) if errors else None,
        max_mm=max(errors, default=None),
    )


def _error_difference(
    ours_mm: Sequence[float | None], theirs_mm: Sequence[float | None], pictures: Sequence[HeadCase]
) -> tuple[float, float] | None:
    """Return by how much our error is larger than theirs on pictures that both measured, and its one-sided bound."""
    both = [
        (case.subject, abs(mine - case.hc_mm) - abs(other - case.hc_mm))
        for case, mine, other in zip(pictures, ours_mm, theirs_mm, strict=True)
        if mine is not None and other is not None
    ]
    if not both:
        return None
    subjects = [subject for subject, _ in both]
    found = bounded(subjects, mean_of(subjects, [difference for _, difference in both]))
    return None if found is None else (found.estimate, found.upper)


def _verdict(ratio: Interval, worse: tuple[float, float] | None) -> str:
    """Say whether ours is ahead, and whether its error is as small as theirs."""
    if ratio.low is None:
        return "too few recordings to tell"
    speed = {1: "ahead", 0: "level", -1: "behind"}[ratio.side()]
    if worse is None:
        return speed
    _, upper = worse
    return f"{speed}, error {'no larger' if upper <= EQUAL_WITHIN_MM else 'not shown to be as small'}"
