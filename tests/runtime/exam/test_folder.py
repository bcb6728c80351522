"""An examination on disk: the record and its pictures, all or none."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from edgefetal_devices.errors import OutputError
from edgefetal_runtime.exam.folder import RECORD, write_exam
from edgefetal_runtime.exam.pipeline import ExamResult
from edgefetal_runtime.exam.record import SCHEMA_VERSION, BundleRecord, Exam, Timings


@pytest.fixture
def result() -> ExamResult:
    exam = Exam(
        schema_version=SCHEMA_VERSION,
        edgefetal="0.1.0",
        created_utc="2026-01-02T03:04:05+00:00",
        bundle=BundleRecord(name="starter", sha256="0" * 64, backend="onnxruntime"),
        source="Übung.avi",
        source_kind="video",
        one_subject=True,
        frames_announced=3,
        dating=None,
        interval_level=None,
        measurements=(),
        growth=(),
        sweeps=(),
        ended=None,
        cautions=(),
        timings=Timings(
            total_s=1.0, first_result_s=0.1, read_ms=1.0, prepare_ms=2.0, infer_ms=3.0, find_ms=0.5, choose_ms=0.25
        ),
    )
    rng = np.random.default_rng(0)
    overlays = {f"overlay-{n:03d}-head.png": rng.bytes(500) for n in (1, 3)}
    return ExamResult(exam, overlays)


def test_record_and_pictures_are_written_and_come_back(result: ExamResult, tmp_path: Path) -> None:
    folder = tmp_path / "exams" / "one"
    write_exam(result, folder)
    assert {file.name for file in folder.iterdir()} == {RECORD, "overlay-001-head.png", "overlay-003-head.png"}
    content = (folder / RECORD).read_bytes()
    assert Exam.model_validate_json(content) == result.exam
    assert content.endswith(b"}\n")
    assert "Übung.avi" in content.decode("utf-8")
    for name, picture in result.overlays.items():
        assert (folder / name).read_bytes() == picture


def test_files_beside_the_record_are_written_with_it(result: ExamResult, tmp_path: Path) -> None:
    write_exam(result, tmp_path / "one", beside={"sweep.avi": b"frames"})
    assert (tmp_path / "one" / "sweep.avi").read_bytes() == b"frames"
    assert (tmp_path / "one" / RECORD).is_file()


def test_an_earlier_examination_is_never_written_over(result: ExamResult, tmp_path: Path) -> None:
    write_exam(result, tmp_path / "one")
    before = (tmp_path / "one" / RECORD).read_bytes()
    other = ExamResult(result.exam.model_copy(update={"source": "other.avi"}), {})
    with pytest.raises(OutputError, match=r"one exists; name another"):
        write_exam(other, tmp_path / "one")
    assert (tmp_path / "one" / RECORD).read_bytes() == before


def test_a_full_disk_half_way_leaves_nothing(
    result: ExamResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Path.write_bytes

    def full_for_pictures(path: Path, content: bytes) -> int:
        if path.suffix == ".png":
            raise OSError(errno.ENOSPC, "No space left on device")
        return good(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_for_pictures)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\); check the folder, space"):
        write_exam(result, tmp_path / "one")
    assert list(tmp_path.iterdir()) == []
