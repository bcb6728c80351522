from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from edgefetal.cli import app
from edgefetal_calibration.phantom.ages import Ages
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.series import SeriesPlan, write_exam

if TYPE_CHECKING:
    from pathlib import Path

SMALL = (
    "--clip-frames", "4", "--width", "32", "--height", "32", "--features", "2", "--batch-size", "2", "--threads", "1",
)  # fmt: skip


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven simulated operators, a sweep of eight frames each."""
    out = tmp_path_factory.mktemp("phantom") / "heads"
    out.mkdir()
    plan = SeriesPlan(Protocol.HEAD, Ages(20, 30), exams=7, seed=4, frame_count=8)
    for number in range(plan.exams):
        write_exam(plan, number, out)
    return out


def test_both_variants_are_trained_and_shown_in_one_table(tmp_path: Path, heads: Path) -> None:
    first, second, result = tmp_path / "alternating", tmp_path / "unrolled", tmp_path / "result.json"
    code, output = invoke("train", "skill", "--data", f"phantom:{heads}", "--out", first, "--epochs", 1, *SMALL)
    assert code == 0, output
    code, output = invoke(
        "train", "skill", "--data", f"phantom:{heads}", "--out", second, "--epochs", 1, "--unrolled",
        "--beside", first, "--json", result, *SMALL,
    )  # fmt: skip
    assert code == 0, output
    assert all(word in output for word in ("alternating", "unrolled", "rank", "minmax"))
    metrics = json.loads(result.read_text())
    assert metrics["held_out"]["exams"] == 2
    assert all(0 <= exam["skill"] <= 1 for exam in metrics["held_out"]["by_exam"])
    assert metrics == json.loads((second / "metrics.json").read_text())


def test_wrong_use_is_refused(tmp_path: Path, heads: Path) -> None:
    code, output = invoke("train", "skill", "--data", f"phantom:{heads}", "--out", tmp_path / "a", "--width", 50)
    assert code != 0
    code, output = invoke(
        "train", "skill", "--data", f"phantom:{heads}", "--out", tmp_path / "a", "--unrolled", "--normalisation", "rank"
    )
    assert code != 0
    assert not (tmp_path / "a").exists(), output
