"""The accuracy budget as a YAML file."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import yaml
from pydantic import ValidationError

from edgefetal_calibration.budget import AccuracyBudget, BudgetLine
from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_BUDGET: Final = "default_budget.yaml"
_MAX_BUDGET_BYTES: Final = 100_000


class _UniqueKeyLoader(yaml.SafeLoader):
    """Reads YAML, and refuses a key that stands twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's own signature
        """Read a mapping.

        Raises:
            yaml.constructor.ConstructorError: a key stands twice.
        """
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            keys = [str(key.value) for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), "?")
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return mapping


def read_budget(path: Path | None = None) -> AccuracyBudget:
    """Read a budget; what a file does not name is as in the default one.

    Args:
        path: a YAML file, or None for the default budget.

    Raises:
        InputError: the file cannot be read or is no YAML, or a key or a value of it is wrong; the message names it.
    """
    default_file = resources.files("edgefetal_calibration") / DEFAULT_BUDGET
    lines = _parse(default_file.read_text(encoding="utf-8"), DEFAULT_BUDGET)
    if path is None:
        return _checked(lines, DEFAULT_BUDGET)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BUDGET_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"The budget {path} cannot be read ({error}); give a text file in YAML.") from error
    if len(content) > _MAX_BUDGET_BYTES:
        raise InputError(f"The budget {path} is larger than any budget; give a text file in YAML.")
    for key, line in _parse(text, str(path)).items():
        both_are_lines = isinstance(line, dict) and isinstance(lines.get(key), dict)
        lines[key] = {**lines[key], **line} if both_are_lines else line
    return _checked(lines, str(path))


def _parse(text: str, where: str) -> dict[Any, Any]:
    try:
        lines = yaml.load(text, _UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"The budget {where} is no YAML that can be read ({error}); mend it.") from error
    if lines is None:
        return {}
    if not isinstance(lines, dict):
        raise InputError(f"The budget {where} holds no lines; write them as `hc: {{limit: 0.1}}`.")
    return lines


def _checked(lines: dict[Any, Any], where: str) -> AccuracyBudget:
    try:
        return AccuracyBudget.model_validate(lines)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        known = BudgetLine.model_fields if len(first["loc"]) > 1 else AccuracyBudget.model_fields
        advice = f"choose one of {', '.join(known)}" if first["type"] == "extra_forbidden" else "mend it"
        what = f"{key!r}: {first['msg']}" if key else str(first["msg"])
        raise InputError(f"The budget {where} is not valid at {what}; {advice}.") from error
