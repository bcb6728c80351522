"""`edgefetal exams`, as a clinic uses it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgefetal_runtime.exam.record import BundleRecord
from edgefetal_runtime.store.exams import ExamStore
from edgefetal_runtime.store.policy import MIB, Policy

if TYPE_CHECKING:
    from edgefetal_runtime.store.envelope import StoredExam
    from tests.edgefetal.conftest import CommandLine, HeadSweep

BUNDLE = BundleRecord(name="starter", sha256="0" * 64, backend="onnxruntime")


@pytest.fixture
def saved(edgefetal: CommandLine, head_png: Path, sweep: HeadSweep, tmp_path: Path) -> list[StoredExam]:
    """Three exams in a store: two of one patient with the record of a real run, and one that was interrupted."""
    edgefetal.json("run", "starter", head_png, "--mm-per-px", sweep.mm_per_px, "--out", "run")
    record = (tmp_path / "run" / "exam.json").read_text()
    overlay = {"overlay-001-head.png": next((tmp_path / "run").glob("overlay-*.png")).read_bytes()}
    with ExamStore.open(tmp_path / "store", Policy(reserve_bytes=MIB)) as store:
        exams = [store.begin("0042", "head.png", BUNDLE).save_record(record, overlay) for _ in range(2)]
        store.begin("0043", "left.png", BUNDLE).checkpoint("{}")
    with ExamStore.open(tmp_path / "store", Policy(reserve_bytes=MIB)) as store:
        return [*exams, store.get(store.recovery.interrupted[0])]


def test_exams_list_show_and_check(edgefetal: CommandLine, saved: list[StoredExam]) -> None:
    listed = edgefetal("exams", "list", "store")
    assert listed.exit_code == 0
    assert all(exam.exam_id in listed.out for exam in saved)
    assert "interrupted" in listed.out
    report = edgefetal.json("exams", "list", "store", "--patient", "0042")
    assert {exam["exam_id"] for exam in report["exams"]} == {saved[0].exam_id, saved[1].exam_id}

    shown = edgefetal("exams", "show", "store", saved[0].exam_id)
    assert shown.exit_code == 0, shown.err
    assert "HC" in shown.out
    assert "0042" in shown.out
    assert edgefetal.json("exams", "show", "store", saved[0].exam_id)["record"] == saved[0].record
    partial = edgefetal("exams", "show", "store", saved[2].exam_id)
    assert "its last checkpoint is no result" in partial.out

    checked = edgefetal("exams", "check", "store")
    assert checked.exit_code == 0, checked.err
    assert "Everything is as it was written." in checked.out
    report = edgefetal.json("exams", "check", "store")
    assert (report["exams"], report["problems"]) == (3, [])
    with ExamStore.open_to_read(Path("store")) as store:
        events = [entry.event for entry in store.audit_trail()]
    assert events.count("exam viewed") == 4
    assert events.count("check") == 2


def test_exams_show_works_beside_the_process_that_owns_the_store(
    edgefetal: CommandLine, saved: list[StoredExam]
) -> None:
    with ExamStore.open(Path("store"), Policy(reserve_bytes=MIB)):
        shown = edgefetal("exams", "show", "store", saved[0].exam_id)
        assert shown.exit_code == 0
        assert "Not in the audit trail" in shown.out
        refused = edgefetal("exams", "delete", "store", "--exam", saved[0].exam_id, "--yes")
        assert refused.exit_code == 2
        assert "in use by another process" in refused.err


def test_exams_export(edgefetal: CommandLine, saved: list[StoredExam], tmp_path: Path) -> None:
    report = edgefetal.json("exams", "export", "store", "--patient", "0042", "--out", "out")
    assert len(report["folders"]) == 2
    folder = tmp_path / "out" / saved[0].exam_id
    for name, sha256 in json.loads((folder / "manifest.json").read_text())["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    # As `run` wrote it, to the byte.
    for name in ("exam.json", "overlay-001-head.png"):
        assert (folder / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    again = edgefetal("exams", "export", "store", "--exam", saved[0].exam_id, "--out", "out")
    assert again.exit_code == 2
    assert "out exists; name another" in again.err


def test_exams_delete_asks_for_yes(edgefetal: CommandLine, saved: list[StoredExam]) -> None:
    asked = edgefetal("exams", "delete", "store", "--patient", "0042")
    assert asked.exit_code == 2
    assert saved[0].exam_id in asked.out
    assert "Nothing was deleted. These 2 exams will be, and cannot be brought back, with --yes." in asked.err
    assert len(edgefetal.json("exams", "list", "store")["exams"]) == 3
    report = edgefetal.json("exams", "delete", "store", "--patient", "0042", "--yes")
    assert report["exams"] == 2
    assert [exam["exam_id"] for exam in edgefetal.json("exams", "list", "store")["exams"]] == [saved[2].exam_id]
    both = edgefetal("exams", "delete", "store", "--patient", "0042", "--exam", "x", "--yes")
    assert both.exit_code == 2
    assert "not both" in both.err


def test_exams_check_names_damage_and_rescue_gets_the_rest_out(
    edgefetal: CommandLine, saved: list[StoredExam], tmp_path: Path
) -> None:
    picture = saved[0].pictures[0]
    (tmp_path / "store" / "blobs" / picture.sha256[:2] / picture.sha256).write_bytes(b"hurt")
    checked = edgefetal("exams", "check", "store", "--json", "check.json")
    assert checked.exit_code == 1
    assert "restore what is damaged from a copy" in checked.err
    assert picture.sha256 in json.loads((tmp_path / "check.json").read_text())["problems"][0]
    (tmp_path / "store" / "exams.sqlite").write_bytes(b"hurt" * 999)
    for command in (("list", "store"), ("check", "store"), ("show", "store", saved[0].exam_id)):
        outcome = edgefetal("exams", *command)
        assert outcome.exit_code == 2
        assert "edgefetal exams rescue store --out FOLDER" in outcome.err
    rescued = edgefetal("exams", "rescue", "store", "--out", "rescued", "--json", "rescued.json")
    assert rescued.exit_code == 1
    assert "Exams exported to rescued: 3." in rescued.out
    assert set(json.loads((tmp_path / "rescued.json").read_text())["exams"]) == {exam.exam_id for exam in saved}
    assert (tmp_path / "rescued" / saved[1].exam_id / "exam.json").read_text() == saved[1].record


@pytest.mark.parametrize(
    "command",
    [("list",), ("show", "x"), ("check",), ("delete", "--exam", "x", "--yes"), ("export", "--exam", "x", "--out", "o")],
)
def test_exams_makes_no_store_where_none_is(edgefetal: CommandLine, tmp_path: Path, command: tuple[str, ...]) -> None:
    outcome = edgefetal("exams", command[0], "mistyped", *command[1:])
    assert outcome.exit_code == 2
    assert "mistyped is not an exam store" in outcome.err
    assert list(tmp_path.iterdir()) == []
