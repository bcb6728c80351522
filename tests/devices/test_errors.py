"""The error tree: its exit codes, and the drawing of it in the module's docstring."""

from __future__ import annotations

import re

import pytest

from edgefetal_devices import errors
from edgefetal_devices.errors import (
    BundleError,
    CheckFailedError,
    DatasetError,
    DeviceLostError,
    EdgeFetalError,
    EnvironmentLacksError,
    InputError,
    KeyFileError,
    OutputError,
    ScaleError,
    SourceError,
    StoreError,
)

CLASSES = {name: value for name, value in vars(errors).items() if isinstance(value, type)}


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (InputError, 2),
        (SourceError, 2),
        (ScaleError, 2),
        (DatasetError, 2),
        (BundleError, 2),
        (KeyFileError, 2),
        (StoreError, 2),
        (OutputError, 2),
        (EnvironmentLacksError, 3),
        (DeviceLostError, 3),
        (CheckFailedError, 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: type[EdgeFetalError], exit_code: int) -> None:
    assert error("any").exit_code == exit_code


def _drawn_parents() -> dict[str, str]:
    """Read the tree in the docstring: the parent of every class by the column at which its branch begins."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        drawn = re.match(r"(?P<branch> {4,}(?:[|`\- ]*))(?P<name>\w+Error)\b", line)
        if drawn is None:
            continue
        column = len(drawn["branch"])
        above = [(start, name) for start, name in above if start < column]
        parents[drawn["name"]] = above[-1][1] if above else "Exception"
        above.append((column, drawn["name"]))
    return parents


def test_the_docstring_draws_the_tree_that_the_classes_form() -> None:
    assert _drawn_parents() == {name: error.__base__.__name__ for name, error in CLASSES.items()}


def test_the_docstring_states_the_exit_codes() -> None:
    stated = dict(re.findall(r"(\w+Error) .*\(exit code (\d)\)", errors.__doc__ or ""))
    assert stated == {name: str(error.exit_code) for name, error in CLASSES.items() if error.__base__ is EdgeFetalError}


def test_a_class_keeps_the_exit_code_of_its_branch() -> None:
    branches = {InputError, EnvironmentLacksError, CheckFailedError}
    for error in set(CLASSES.values()) - {EdgeFetalError}:
        (branch,) = branches & set(error.__mro__)
        assert error.exit_code == branch.exit_code
