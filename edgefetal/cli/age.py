"""The gestational age that is known before anything is measured, as several commands take it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    from edgefetal_runtime.growth.gestation import GestationalAge

GaOption = Annotated[Optional[str], typer.Option("--ga", metavar="AGE", help="Known gestational age, such as 28w3d.")]
LmpOption = Annotated[
    Optional[str], typer.Option("--lmp", metavar="DATE", help="First day of the last menstrual period.")
]
EddOption = Annotated[Optional[str], typer.Option("--edd", metavar="DATE", help="Expected date of delivery.")]
ExamDateOption = Annotated[
    Optional[str],
    typer.Option(
        "--exam-date",
        metavar="DATE",
        help="Day of the examination, with --lmp or --edd. [default: today]",
        show_default=False,
    ),
]


def known_age(ga: str | None, lmp: str | None, edd: str | None, exam_date: str | None) -> GestationalAge | None:
    """Return the age that the options give, or None where they give none.

    Raises:
        InputError: several were given, one cannot be read, or a day without a date to count from.
    """
    from datetime import datetime, timezone

    from edgefetal_runtime.growth.gestation import age_from_edd, age_from_lmp, parse_age, parse_date

    given = [name for name, text in (("--ga", ga), ("--lmp", lmp), ("--edd", edd)) if text is not None]
    if len(given) > 1:
        message = f"{' and '.join(given)} each give an age; keep the one that is right."
        raise InputError(message)
    if exam_date is not None and lmp is None and edd is None:
        message = "--exam-date counts from a date; give it with --lmp or --edd, or leave it out."
        raise InputError(message)
    if ga is not None:
        return parse_age(ga)
    exam = datetime.now(tz=timezone.utc).astimezone().date() if exam_date is None else parse_date(exam_date)
    if lmp is not None:
        return age_from_lmp(parse_date(lmp), exam)
    return None if edd is None else age_from_edd(parse_date(edd), exam)
