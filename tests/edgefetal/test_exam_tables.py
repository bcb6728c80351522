"""An exam as people read it: several sweeps, several structures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from edgefetal.cli import terminal
from edgefetal.cli.exam_tables import show_exam
from edgefetal_runtime.exam.record import (
    ALL_SWEEPS,
    BundleRecord,
    Exam,
    FrameRecord,
    HandRecord,
    MeasurementRecord,
    StructureRecord,
    SweepRecord,
    Timings,
)

if TYPE_CHECKING:
    import pytest

FRAME = FrameRecord(index=12, timestamp_s=0.4)


def _structure(name: str, outlined: int) -> StructureRecord:
    return StructureRecord(
        structure=name,
        frames_outlined=outlined,
        runs=(),
        decided_by="size",
        chosen=(),
        why="",
        contour_px=None,
        overlay=None,
    )


def _sweep(name: str, light: str, **outlined: int) -> SweepRecord:
    hand = HandRecord(
        light=light,
        reason="too fast",
        action="repeat it more slowly",
        contact=1.0,
        too_fast=0.5,
        turned_back=False,
        duration_s=5.0,
        skill=None,
    )
    structures = tuple(_structure(structure, count) for structure, count in outlined.items())
    return SweepRecord(
        name=name, frames_seen=140, frames_missed=0, size_px=(744, 562), scale=None, hand=hand, structures=structures
    )


def _measure(sweep: str, name: str, value: float | None, why: str | None = None) -> MeasurementRecord:
    return MeasurementRecord(
        sweep=sweep,
        name=name,
        method="by hand",
        value=value,
        unit="mm",
        interval=None if value is None else (value - 5, value + 5),
        no_interval=None,
        frames=() if value is None else (FRAME,),
        abstained=why,
    )


def test_each_sweep_has_a_row_and_all_together_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_console", Console(width=200))
    exam = Exam(
        schema_version=3,
        edgefetal="0.1.0",
        created_utc="2026-01-02T03:04:05+00:00",
        bundle=BundleRecord(name="b", sha256="0" * 64, backend="onnxruntime"),
        source="blind.mha",
        source_kind="metaimage",
        one_subject=True,
        frames_announced=280,
        dating=None,
        interval_level=0.9,
        measurements=(
            _measure("sweep 1", "HC", None, "no plane of the head in 140 frames"),
            _measure("sweep 1", "AC", None, "no plane of the abdomen in 140 frames"),
            _measure("sweep 2", "HC", None, "the head never lasted"),
            _measure("sweep 2", "AC", 213.5),
            _measure(ALL_SWEEPS, "AC", 213.5),
        ),
        growth=(),
        sweeps=(_sweep("sweep 1", "green", head=0, abdomen=0), _sweep("sweep 2", "red", head=2, abdomen=20)),
        ended="the camera was unplugged",
        cautions=("Look at the picture",),
        timings=Timings(
            total_s=1.0, first_result_s=0.1, read_ms=1.0, prepare_ms=1.0, infer_ms=1.0, find_ms=1.0, choose_ms=1.0
        ),
    )
    show_exam(exam)
    said = " ".join(capsys.readouterr().out.split())
    for part in ("head, abdomen", "AC 213.5 (208 to 218)", "sweep 2: too fast; repeat it more slowly.", ALL_SWEEPS):
        assert part in said
    assert "sweep 1: too fast" not in said, "its light is green"
    assert "The exam ended early: the camera was unplugged" in said
    assert "Look at the picture." in said
