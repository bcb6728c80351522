"""Versions of software as numbers that can be compared."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer


def parsed_version(text: str) -> tuple[int, ...] | None:
    """Read a version's leading numbers, as (10, 3, 0, 30) of `10.3.0.30`; None where it begins with none."""
    numbers = []
    for part in text.split("."):
        if not (part.isascii() and part.isdecimal() and len(part) <= 9):  # noqa: PLR2004 - no version has more digits
            break
        numbers.append(int(part))
    return tuple(numbers) or None


def written(version: tuple[int, ...]) -> str:
    """Write a version with dots."""
    return ".".join(map(str, version))


def _checked(value: object) -> object:
    """Read a version that a data file gives as text; anything else is for pydantic to judge."""
    if not isinstance(value, str):
        return value
    version = parsed_version(value)
    if version is None or written(version) != value:
        raise ValueError("a version is numbers with dots between them")
    return version


# A field of a data file: `"10.3.0"` there, (10, 3, 0) in the value, and text again in JSON.
Version = Annotated[tuple[int, ...], BeforeValidator(_checked), PlainSerializer(written)]
