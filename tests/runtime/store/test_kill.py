"""A process killed at any step of its work: what had been said to be saved is whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from store_faults import POLICY, whole

from edgefetal_runtime.store.envelope import StoredExam
from edgefetal_runtime.store.exams import ExamStore

if TYPE_CHECKING:
    from collections.abc import Callable

CHILDREN = Path(__file__).parent / "kill_children.py"


def _examined(folder: Path) -> tuple[int, int]:
    """Open the store that a killed child left; return how many exams it had been told were saved, and how many are."""
    said = (folder / "said").read_text().splitlines() if (folder / "said").exists() else []
    saved = [StoredExam.model_validate_json(line.partition(" ")[2]) for line in said if line.startswith("saved ")]
    promised = [e for e in saved if e.patient_id != "patient 1" or "deleting patient 1" not in said]
    with ExamStore.open(folder / "store", POLICY) as store:
        assert store.recovery.problems == ()
        for exam in promised:
            assert whole(store, exam), folder
        if "deleted patient 1" in said:
            assert store.exams("patient 1") == ()
        assert store.check().problems == (), folder
        assert list((folder / "store").rglob("*.partial")) == []
        return len(promised), len(store.exams())


def _killed_at_every(step: int, folder: Path, show: Callable[[str], None]) -> int:
    command = [sys.executable, str(CHILDREN), str(folder), "0", str(step), "100000"]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    effects = int((folder / "effects").read_text())
    stores = [path for path in folder.iterdir() if path.is_dir()]
    # Each step up to the last effect, and the child beyond it, which ends by itself. Exams' numbers are random, and
    # with them how many folders of blobs are new: a few effects more or less.
    assert abs(len(stores) - (effects / step + 1)) <= 8
    outcomes = [_examined(path) for path in stores]
    assert {promised for promised, _ in outcomes} >= {0, 1, 2}
    show(f"kill -9: {len(outcomes) - 1} children at {effects} effects, every exam said to be saved whole")
    return len(outcomes)


@pytest.mark.usefixtures("shimmed")
def test_exams_said_to_be_saved_outlast_kills(memory_path: Path, show: Callable[[str], None]) -> None:
    assert _killed_at_every(9, memory_path, show) > 20


@pytest.mark.slow
@pytest.mark.usefixtures("shimmed")
def test_exams_said_to_be_saved_outlast_a_kill_at_every_effect(memory_path: Path, show: Callable[[str], None]) -> None:
    assert _killed_at_every(1, memory_path, show) > 200
