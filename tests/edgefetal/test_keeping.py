"""Where an examination goes while it runs: what is kept of it until its end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edgefetal.cli.keeping import keeping
from edgefetal_runtime.exam.points import Points
from edgefetal_runtime.exam.record import (
    SCHEMA_VERSION,
    BundleRecord,
    Exam,
    StructureRecord,
    SweepRecord,
    Timings,
)
from edgefetal_runtime.store.exams import ExamStore

if TYPE_CHECKING:
    from pathlib import Path

BUNDLE = BundleRecord(name="starter", sha256="0" * 64, backend="onnxruntime")
HEAD = StructureRecord(
    structure="head",
    frames_outlined=6,
    runs=(),
    decided_by="size",
    chosen=(),
    why="the only frame é",
    contour_px=Points.of([(1.5, 2.25), (-0.0, 4.01)] * 64),
    overlay=None,
)
EXAM = Exam(
    schema_version=SCHEMA_VERSION,
    edgefetal="0.1.0",
    created_utc="2026-01-02T03:04:05+00:00",
    bundle=BUNDLE,
    source="v4l2:/dev/video0",
    source_kind="v4l2",
    one_subject=True,
    frames_announced=None,
    dating=None,
    interval_level=None,
    measurements=(),
    growth=(),
    sweeps=(
        SweepRecord(
            name="sweep 1", frames_seen=9, frames_missed=0, size_px=(4, 3), scale=None, hand=None, structures=(HEAD,)
        ),
    ),
    ended="the examination was still running when this was written",
    cautions=(),
    timings=Timings(
        total_s=1.0, first_result_s=0.1, read_ms=1.0, prepare_ms=2.0, infer_ms=3.0, find_ms=0.5, choose_ms=0.25
    ),
)


def test_a_checkpoint_says_all_and_is_not_laid_out_for_people(tmp_path: Path) -> None:
    """It is written anew after every sweep, with all sweeps before."""
    with keeping(None, tmp_path / "store", None, "v4l2:/dev/video0", BUNDLE) as kept:
        kept.checkpoint(EXAM)
    with ExamStore.open(tmp_path / "store") as store:
        (summary,) = store.exams()
        assert summary.state == "interrupted"
        text = store.get(summary.exam_id).record
    assert Exam.model_validate_json(text) == EXAM
    assert json.loads(text) == json.loads(EXAM.model_dump_json(indent=1))
    assert len(text) < 0.6 * len(EXAM.model_dump_json(indent=1))


def test_what_is_saved_is_laid_out_for_people_in_the_folder_and_the_store(tmp_path: Path) -> None:
    with keeping(tmp_path / "exam", tmp_path / "store", None, "v4l2:/dev/video0", BUNDLE) as kept:
        exam_id = kept.save(EXAM)
    assert exam_id is not None
    expected = EXAM.model_dump_json(indent=1) + "\n"
    assert (tmp_path / "exam" / "exam.json").read_text() == expected
    with ExamStore.open_to_read(tmp_path / "store") as store:
        assert store.get(exam_id).record == expected
