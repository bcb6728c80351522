"""`edgefetal growth`: gestational age, weight and size for age from measures in mm."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar

import typer

from edgefetal.cli.age import EddOption, ExamDateOption, GaOption, LmpOption, known_age
from edgefetal.cli.options import JsonOption
from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    from edgefetal_runtime.biometry.measurement import Abstained
    from edgefetal_runtime.growth.assess import GrowthReport
    from edgefetal_runtime.growth.formula import Estimate

DISCLAIMER = (
    "Research software; not a medical device. A figure here is a published formula applied to the measures as typed; "
    "whoever measured judges it."
)

_Kind = TypeVar("_Kind", bound=Enum)


def growth(
    ga: GaOption = None,
    lmp: LmpOption = None,
    edd: EddOption = None,
    exam_date: ExamDateOption = None,
    hc: Annotated[Optional[float], typer.Option("--hc", metavar="MM", help="Head circumference, outer edge.")] = None,
    bpd: Annotated[
        Optional[float], typer.Option("--bpd", metavar="MM", help="Biparietal diameter; needs --bpd-calipers.")
    ] = None,
    bpd_calipers: Annotated[
        Optional[str],
        typer.Option("--bpd-calipers", metavar="HOW", help="outer-outer or outer-inner: how --bpd was taken."),
    ] = None,
    ofd: Annotated[Optional[float], typer.Option("--ofd", metavar="MM", help="Occipito-frontal diameter.")] = None,
    ac: Annotated[Optional[float], typer.Option("--ac", metavar="MM", help="Abdominal circumference.")] = None,
    fl: Annotated[Optional[float], typer.Option("--fl", metavar="MM", help="Femur length.")] = None,
    sex: Annotated[
        Optional[str], typer.Option("--sex", metavar="SEX", help="female or male: adds the charts drawn by sex.")
    ] = None,
    chart_file: Annotated[
        Optional[Path], typer.Option("--chart", metavar="FILE.svg", help="Draw the fetus on its growth charts.")
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Date, weigh and chart a fetus from its measures in mm, by published formulae.

    With a known age (--ga, --lmp or --edd) the measures are read as size for age. Without one they date the fetus, and
    no size for age is read from them.
    """
    from edgefetal.cli import terminal
    from edgefetal_runtime.atomic import write_file
    from edgefetal_runtime.growth.assess import assess
    from edgefetal_runtime.growth.measures import Biometry, Calipers, Sex
    from edgefetal_runtime.growth.picture import draw_growth

    terminal.check_svg_target(chart_file)
    terminal.check_json_target(json_file, chart_file)
    age = known_age(ga, lmp, edd, exam_date)
    biometry = Biometry(
        hc_mm=hc,
        bpd_mm=bpd,
        bpd_calipers=None if bpd_calipers is None else _choice(Calipers, "--bpd-calipers", bpd_calipers),
        ofd_mm=ofd,
        ac_mm=ac,
        fl_mm=fl,
    )
    report = assess(biometry, age, None if sex is None else _choice(Sex, "--sex", sex))
    terminal.write_json(json_file, _json_value(report))
    _show(report)
    # Last, because where no chart reaches the report must be there all the same.
    if chart_file is not None:
        write_file(chart_file, draw_growth(report).encode())


def _choice(kind: type[_Kind], option: str, text: str) -> _Kind:
    """Return the member of an enumeration that was typed."""
    try:
        return kind(text)
    except ValueError:
        names = " or ".join(str(member.value) for member in kind)
        message = f"{option} is {text!r}; choose {names}."
        raise InputError(message) from None


def _json_value(report: GrowthReport) -> dict[str, Any]:
    from edgefetal_runtime.growth.measures import WONG_CITATION

    estimates = (*report.dating, *report.weights)
    return {
        "disclaimer": DISCLAIMER,
        "measures_mm": {measure.value: value_mm for measure, value_mm in report.biometry.given().items()},
        "bpd_calipers": report.biometry.bpd_calipers and report.biometry.bpd_calipers.value,
        "gestational_age_weeks": _number(report.age_weeks),
        "dating": {
            "known": report.age_known,
            "basis": report.basis,
            "reason": _reason(report.age_weeks),
            "estimates": [
                {"formula": e.formula.name, "weeks": _number(e.value), "note": _note(e)} for e in report.dating
            ],
        },
        "efw_g": {e.formula.name: _number(e.value) for e in report.weights},
        "efw_notes": {e.formula.name: _note(e) for e in report.weights if _note(e)},
        "centiles": [
            {
                "measure": row.chart.measure.value,
                "chart": row.chart.name,
                "value": row.value,
                "z": row.z,
                "centile": row.centile,
                "note": row.note,
            }
            for row in report.rows
        ],
        "citations": {e.formula.name: e.formula.citation for e in estimates}
        | {row.chart.name: row.chart.citation for row in report.rows}
        | ({"Wong 2018": WONG_CITATION} if report.biometry.bpd_mm else {}),
    }


def _number(value: float | Abstained) -> float | None:
    return value if isinstance(value, (int, float)) else None


def _reason(value: float | Abstained) -> str | None:
    return None if isinstance(value, (int, float)) else value.reason


def _note(estimate: Estimate) -> str:
    return _reason(estimate.value) or estimate.note


def _show(report: GrowthReport) -> None:
    from edgefetal.cli import terminal
    from edgefetal_runtime.growth.gestation import format_weeks

    def age(value: float | Abstained) -> str:
        weeks = _number(value)
        return "-" if weeks is None else format_weeks(weeks)

    terminal.say(f"Gestational age {age(report.age_weeks)} ({report.basis}).")
    reason = _reason(report.age_weeks)
    if reason is not None:
        terminal.say(reason)
    if report.dating:
        terminal.show_table(
            "Size as an age; the known age stands" if report.age_known else "Age from the measures",
            ("formula", "age", "weeks", "note"),
            [(e.formula.name, age(e.value), terminal.figure(_number(e.value)), _note(e)) for e in report.dating],
        )
    terminal.show_table(
        "Estimated fetal weight",
        ("formula", "g", "note"),
        [(e.formula.name, terminal.figure(_number(e.value), 0), _note(e)) for e in report.weights],
    )
    if report.age_known:
        _show_sizes(report)
    else:
        terminal.say(f"Size for gestational age: {report.rows[0].note}.")
    terminal.say(DISCLAIMER)


def _show_sizes(report: GrowthReport) -> None:
    from edgefetal.cli import terminal
    from edgefetal_runtime.growth.distributions import format_centile

    terminal.show_table(
        "Size for gestational age",
        ("measure", "chart", "value", "z", "centile", "note"),
        [
            (
                row.chart.measure.value,
                row.chart.name,
                "-" if row.value is None else f"{row.value:.{0 if row.chart.measure.unit == 'g' else 1}f}",
                terminal.figure(row.z),
                "-" if row.centile is None else format_centile(row.centile),
                row.note,
            )
            for row in report.rows
        ],
    )
