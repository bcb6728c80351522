"""An exam as people read it in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefetal_runtime.exam.record import Exam, MeasurementRecord

_MAX_ROWS = 40
_PRINCIPAL = ("HC", "AC", "FL")
# Digits after the point by unit; a ratio gets two.
_DIGITS = {"mm": 1, "g": 0}


def show_exam(exam: Exam) -> None:
    """Print an exam: all values of a single sweep, or a row a sweep."""
    from edgefetal.cli import terminal
    from edgefetal_runtime.exam.record import ALL_SWEEPS
    from edgefetal_runtime.growth.gestation import format_weeks

    if len(exam.sweeps) == 1:
        _show_values(exam, exam.sweeps[0].name)
    else:
        _show_sweeps(exam)
    if exam.one_subject and len(exam.sweeps) > 1:
        _show_values(exam, ALL_SWEEPS)
    for sweep in exam.sweeps:
        if sweep.hand is not None and sweep.hand.light != "green":
            terminal.say(f"{sweep.name}: {sweep.hand.reason}; {sweep.hand.action}.")
    if exam.ended is not None:
        terminal.say(f"The exam ended early: {exam.ended}")
    if exam.dating is not None:
        terminal.say(f"The known age stands: {format_weeks(exam.dating.weeks)} ({exam.dating.basis}).")
    if exam.growth:
        _show_growth(exam)
    for caution in exam.cautions:
        terminal.say(f"{caution}.")
    terminal.say(exam.disclaimer)


def _show_values(exam: Exam, sweep: str) -> None:
    """Print all values of one sweep, or of all together."""
    from edgefetal.cli import terminal

    of_sweep = [m for m in exam.measurements if m.sweep == sweep]
    measured = [(m, m.value) for m in of_sweep if m.value is not None]
    if measured:
        level = "interval" if exam.interval_level is None else f"{exam.interval_level:.0%} interval"
        terminal.show_table(
            sweep,
            ("measure", "value", "unit", level, "frame", "how"),
            [
                (
                    m.name,
                    _written(value, m.unit),
                    "" if m.unit in ("1", "weeks") else m.unit,
                    "-" if m.interval is None else " to ".join(_written(end, m.unit) for end in m.interval),
                    str(m.frames[0].index) if m.frames else "-",
                    m.method,
                )
                for m, value in measured
            ],
        )
        terminal.say(
            "Intervals of ages and weights carry the measurement's error only; the formula's own comes on top."
        )
    for reason in dict.fromkeys(m.no_interval for m in of_sweep if m.no_interval):
        without = [m for m in of_sweep if m.no_interval == reason]
        terminal.say(f"{_names(without)}: no interval, because {reason}.")
    for reason in dict.fromkeys(m.abstained for m in of_sweep if m.abstained):
        missing = [m for m in of_sweep if m.abstained == reason]
        terminal.say(f"{_names(missing)}: none, because {reason}.")


def _names(measurements: Sequence[MeasurementRecord]) -> str:
    """Name measurements; of ages and weights also the formula."""
    names = [f"{m.name} by {m.method.partition(';')[0]}" if m.unit in ("weeks", "g") else m.name for m in measurements]
    return ", ".join(dict.fromkeys(names))


def _show_growth(exam: Exam) -> None:
    from edgefetal.cli import terminal
    from edgefetal_runtime.growth.distributions import format_centile

    terminal.show_table(
        "Size for the known age",
        ("sweep", "measure", "chart", "value", "z", "centile", "note"),
        [
            (
                g.sweep,
                g.measure,
                g.chart,
                "-" if g.value is None else _written(g.value, "g" if g.measure == "EFW" else "mm"),
                terminal.figure(g.z),
                "-" if g.centile is None else format_centile(g.centile),
                g.note,
            )
            for g in exam.growth[:_MAX_ROWS]
        ],
    )


def _written(value: float, unit: str) -> str:
    """Write a figure as people read it: an age in weeks and days."""
    from edgefetal_runtime.growth.gestation import format_weeks

    return format_weeks(value) if unit == "weeks" else f"{value:.{_DIGITS.get(unit, 2)}f}"


def _show_sweeps(exam: Exam) -> None:
    """Print a row a sweep: how it was done, and what was measured of the structure it shows."""
    from edgefetal.cli import terminal

    rows = []
    for sweep in exam.sweeps[:_MAX_ROWS]:
        of_sweep = [m for m in exam.measurements if m.sweep == sweep.name]
        shown = [m for m in of_sweep if m.name in _PRINCIPAL]
        value = ", ".join(_with_interval(m) for m in shown if m.value is not None)
        frames = ", ".join(str(m.frames[0].index) for m in shown if m.frames)
        # The first age is the most trusted; where it abstains, so does this column.
        age = next((m for m in of_sweep if m.name == "GA"), None)
        written = "-" if age is None or age.value is None else f"{_written(age.value, 'weeks')} by {age.method}"
        reasons = dict.fromkeys(m.abstained for m in (*shown, *([age] if age else [])) if m.abstained)
        if len(reasons) > 1 and not any(part.frames_outlined for part in sweep.structures):
            # The same said of each structure would fill the table.
            reasons = {f"no plane of {', '.join(part.structure for part in sweep.structures)}": None}
        light = "-" if sweep.hand is None else sweep.hand.light
        rows.append((sweep.name, light, value or "-", written, frames or "-", "; ".join(reasons)))
    terminal.show_table("Sweeps", ("sweep", "light", "mm", "age", "frame", "why there is none"), rows)
    if len(exam.sweeps) > _MAX_ROWS:
        terminal.say(f"... and {len(exam.sweeps) - _MAX_ROWS} more sweeps in the record.")


def _with_interval(measurement: MeasurementRecord) -> str:
    value = f"{measurement.name} {_written(measurement.value or 0.0, measurement.unit)}"
    interval = measurement.interval
    return value if interval is None else f"{value} ({interval[0]:.0f} to {interval[1]:.0f})"
