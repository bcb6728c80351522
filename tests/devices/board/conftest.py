"""The programs of `devices/board`, which is in no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

BOARD = Path(__file__).parents[3] / "devices" / "board"


@pytest.fixture(scope="session")
def wheels() -> ModuleType:
    """`devices/board/wheels.py` as a module."""
    spec = importlib.util.spec_from_file_location("board_wheels", BOARD / "wheels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
