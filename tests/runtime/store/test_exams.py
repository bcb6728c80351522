"""The store in daily use: what is kept, who may open it, what the trail says, and what deletion leaves."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store_faults import BUNDLE, POLICY, RECORD, Clock, pictures, save_one, whole

from edgefetal_devices.errors import InputError, OutputError, StoreError
from edgefetal_runtime.exam.record import SCHEMA_VERSION, Exam
from edgefetal_runtime.store.exams import ExamStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgefetal_runtime.store.envelope import StoredExam

DAY = dt.timedelta(days=1)


@pytest.fixture
def store(memory_path: Path) -> Iterator[ExamStore]:
    with ExamStore.open(memory_path / "s", POLICY, clock=Clock()) as opened:
        yield opened


def _files_with(text: bytes, folder: Path) -> list[str]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "reserve"]
    return [path.name for path in paths if text in path.read_bytes()]


def test_an_exam_comes_back_as_it_was_saved(store: ExamStore) -> None:
    exam = store.begin("KCH/2026 0042 é", "sweep.mp4", BUNDLE)
    assert exam.add_picture(b"\x89PNG1", "sweep 1", 7, 0.5, "plane")
    assert exam.add_picture(b"\xff\xd8\xff2", "sweep 1", None, None, "screen")
    frames = [np.full((3, 5), n, np.uint8) for n in range(4)]
    for n, frame in enumerate(frames):
        assert exam.record_frame(frame, n, n / 30)
    overlays = pictures(1)
    saved = exam.save_record(RECORD, overlays)
    assert store.get(saved.exam_id) == saved
    assert (saved.patient_id, saved.state, saved.record, saved.notes) == ("KCH/2026 0042 é", "saved", RECORD, ())
    assert [(p.name, p.role, p.index, p.timestamp_s) for p in saved.pictures if p.role != "overlay"] == [
        ("plane-001.png", "plane", 7, 0.5),
        ("screen-002.jpg", "screen", None, None),
    ]
    assert {name: store.picture(saved.exam_id, name) for name in overlays} == overlays
    recorded = list(store.recording(saved.exam_id))
    assert [(f.index, f.timestamp_s) for f in recorded] == [(n, n / 30) for n in range(4)]
    assert all((found.pixels == frame).all() for found, frame in zip(recorded, frames, strict=True))
    assert saved.recorded_frames == 4
    with pytest.raises(OutputError, match="has ended; begin a new one"):
        exam.save_record(RECORD, {})


def test_the_pipelines_record_is_kept_as_run_writes_it(store: ExamStore) -> None:
    # Whatever fields it has by now: the store does not look into it.
    exam = Exam.model_construct(schema_version=SCHEMA_VERSION, bundle=BUNDLE, measurements=(), cautions=("look",))
    saved = store.begin(None, "sweep", BUNDLE).save(exam, {})
    assert saved.record == exam.model_dump_json(indent=1) + "\n"


def test_a_recording_cut_short_is_read_to_its_last_whole_frame(store: ExamStore, memory_path: Path) -> None:
    exam = store.begin(None, "sweep", BUNDLE)
    for n in range(3):
        exam.record_frame(np.full((30, 50), n, np.uint8), n, 0.0)
    saved = exam.save_record(RECORD, {})
    path = memory_path / "s" / "recordings" / f"{saved.exam_id}.frames"
    content = path.read_bytes()
    for size, whole_frames in ((len(content) - 1, 2), (len(content) // 3, 1), (20, 0), (0, 0)):
        path.write_bytes(content[:size])
        assert len(list(store.recording(saved.exam_id))) == whole_frames
    path.write_bytes(content[:100] + b"x" + content[101:])
    assert list(store.recording(saved.exam_id)) == []


def test_an_exam_left_open_is_found_interrupted_with_its_last_checkpoint(memory_path: Path) -> None:
    with ExamStore.open(memory_path / "s", POLICY) as store:
        exam = store.begin("patient 1", "sweep", BUNDLE)
        exam.add_picture(b"\x89PNG1", "sweep 1", 7, 0.5, "plane")
        exam.checkpoint('{"at": 1}')
        exam.checkpoint('{"at": 2}')
        early = store.begin("patient 2", "sweep", BUNDLE)
        for call in (lambda: store.get(exam.exam_id), lambda: store.delete_exam(exam.exam_id)):
            with pytest.raises(InputError, match="is still open"):
                call()
    with ExamStore.open(memory_path / "s", POLICY) as store:
        assert set(store.recovery.interrupted) == {exam.exam_id, early.exam_id}
        found = store.get(exam.exam_id)
        assert (found.state, found.record, len(found.pictures)) == ("interrupted", '{"at": 2}', 1)
        store.export(memory_path / "out", exam_id=exam.exam_id)
        # Nobody may take it for a whole exam.
        assert {p.name for p in (memory_path / "out").iterdir()} == {
            "interrupted.json",
            "plane-001.png",
            "manifest.json",
        }
        store.export(memory_path / "empty", exam_id=early.exam_id)
        assert [p.name for p in (memory_path / "empty").iterdir()] == ["manifest.json"]


def test_a_checkpoint_larger_than_the_database_s_cache_comes_back_whole(memory_path: Path) -> None:
    """The cache is small, so that it does not grow with the checkpoints; what it cannot hold is written early."""
    texts = [json.dumps({"at": n, "much": str(n) * 700_000}) for n in range(3)]
    with ExamStore.open(memory_path / "s", POLICY) as store:
        (cache,) = store._vault.connection.execute("PRAGMA cache_size").fetchone()
        assert cache == -256
        exam = store.begin("patient 1", "sweep", BUNDLE)
        for text in texts:
            assert exam.checkpoint(text)
    with ExamStore.open(memory_path / "s", POLICY) as store:
        assert store.get(exam.exam_id).record == texts[-1]
        assert store.check().problems == ()


def test_a_discarded_exam_leaves_nothing(store: ExamStore, memory_path: Path) -> None:
    exam = store.begin("patient by mistake", "sweep", BUNDLE)
    exam.add_picture(b"\x89PNG by mistake", "sweep 1", 7, 0.5, "plane")
    exam.checkpoint('{"at": 1}')
    exam.discard()
    assert store.exams() == ()
    assert _files_with(b"by mistake", memory_path) == []
    assert store.audit_trail()[-1].event == "exam discarded"


def test_an_export_is_laid_out_as_run_writes_it_with_hashes(store: ExamStore, memory_path: Path) -> None:
    mine = [save_one(store, "patient 1", n) for n in (1, 2)]
    save_one(store, "patient 2", 3)
    folders = store.export(memory_path / "out", patient_id="patient 1")
    assert {folder.name for folder in folders} == {exam.exam_id for exam in mine}
    for exam in mine:
        folder = memory_path / "out" / exam.exam_id
        assert (folder / "exam.json").read_text() == RECORD
        files = json.loads((folder / "manifest.json").read_text())["files"]
        assert {*files, "manifest.json"} == {path.name for path in folder.iterdir()}
        for name, sha256 in files.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    for wrong in ({}, {"exam_id": "x", "patient_id": "y"}):
        with pytest.raises(InputError, match="an exam or a patient, and not both"):
            store.export(memory_path / "other", **wrong)
    with pytest.raises(OutputError, match="would spoil"):
        store.export(memory_path / "s" / "inside", exam_id=mine[0].exam_id)
    with pytest.raises(OutputError, match="exists; name another"):
        store.export(memory_path / "out", exam_id=mine[0].exam_id)


def test_deleting_a_patient_removes_every_trace_but_a_salted_hash(store: ExamStore, memory_path: Path) -> None:
    gone = [save_one(store, "Wanjiku-0017", n) for n in (1, 2)]
    others = [save_one(store, "patient 2", 2), save_one(store, None, 4)]
    # More than a page, so that the database has to move things about.
    long = store.begin("Wanjiku-0017", "sweep", BUNDLE)
    long.save_record(json.dumps({"of": "Wanjiku-0017 " * 2000}), {})
    removed = store.delete_patient("Wanjiku-0017")
    assert removed.exams == 3
    assert removed.log_emptied
    assert store.exams("Wanjiku-0017") == ()
    assert _files_with(b"Wanjiku", memory_path) == []
    shared = {p.sha256 for p in others[0].pictures}
    for exam in gone:
        for picture in exam.pictures:
            assert (memory_path / "s" / "blobs" / picture.sha256[:2] / picture.sha256).exists() == (
                picture.sha256 in shared
            )
    assert all(whole(store, exam) for exam in others)
    assert store.check().problems == ()
    deletion = next(entry for entry in store.audit_trail() if entry.event == "patient deleted")
    assert len(deletion.subject) == 64
    assert deletion.subject not in (hashlib.sha256(b"Wanjiku-0017").hexdigest(), "")
    # The trail still tells one patient from another.
    begun = {entry.subject for entry in store.audit_trail() if entry.event == "exam begun"}
    assert len(begun) == 3
    assert deletion.subject in begun
    with pytest.raises(InputError, match="no exam of that patient") as refused:
        store.delete_patient("Wanjiku-0017")
    assert "Wanjiku" not in str(refused.value)


def test_a_patients_id_is_not_in_what_is_logged(store: ExamStore, memory_path: Path) -> None:
    exam = save_one(store, "Wanjiku-0017", 1)
    said = [repr(exam), repr(store.exams()), repr(store.audit_trail()), repr(store.check()), repr(store.recovery)]
    for call in (
        lambda: store.export(memory_path / "s" / "x", patient_id="Wanjiku-0017"),
        lambda: store.export(memory_path / "out", patient_id="Wanjiku-0018"),
        lambda: store.begin("Wanjiku\n0017", "sweep", BUNDLE),
    ):
        with pytest.raises(InputError) as refused:
            call()
        said.append(str(refused.value))
    assert not [text for text in said if "Wanjiku" in text]


@pytest.mark.parametrize("wrong", ["", " x", "x\n", "x\x00y", "x" * 129, "\ud800"])
def test_a_patients_id_that_cannot_be_kept_is_refused(store: ExamStore, wrong: str) -> None:
    with pytest.raises(InputError, match="This patient id cannot be kept; give 1 to 128 printed characters"):
        store.begin(wrong, "sweep", BUNDLE)
    assert store.exams() == ()


@pytest.mark.parametrize("name", ["../x.png", "a/b.png", ".hidden", "", "exam.json", "manifest.json", "plane-001.png"])
def test_a_pictures_name_that_would_harm_an_export_is_refused(store: ExamStore, name: str) -> None:
    exam = store.begin(None, "sweep", BUNDLE)
    exam.add_picture(b"\x89PNG1", "sweep 1", 7, 0.5, "plane")
    with pytest.raises(ValueError, match="cannot name a picture"):
        exam.save_record(RECORD, {name: b"\x89PNG"})


def test_the_trail_names_every_event(memory_path: Path) -> None:
    with ExamStore.open(memory_path / "s", POLICY) as store:
        exam = save_one(store, "patient 1", 1)
        store.get(exam.exam_id)
        store.export(memory_path / "out", exam_id=exam.exam_id)
        store.begin("patient 2", "sweep", BUNDLE)
    with ExamStore.open(memory_path / "s", POLICY) as store:
        store.check()
        store.delete_exam(exam.exam_id)
        assert [entry.event for entry in store.audit_trail()] == [
            "store opened", "exam begun", "exam saved", "exam viewed", "exam exported", "exam begun",
            "exam interrupted", "store opened", "check", "exam deleted",
        ]  # fmt: skip
        assert [entry.seq for entry in store.audit_trail()] == list(range(1, 11))


HOLDER = """
import sys
from pathlib import Path
from edgefetal_runtime.store.exams import ExamStore
with ExamStore.open(Path(sys.argv[1])) as store:
    print("open", flush=True)
    sys.stdin.readline()
"""


def test_one_process_owns_the_store_and_others_read(memory_path: Path) -> None:
    folder = memory_path / "s"
    with ExamStore.open(folder, POLICY) as store:
        exam = save_one(store, "patient 1", 1)
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as p:
        assert p.stdin is not None
        assert p.stdout is not None
        assert p.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match=rf"in use by another process \(number {p.pid}\); close that one first"):
            ExamStore.open(folder, POLICY)
        with ExamStore.open_to_read(folder) as reader:
            assert whole(reader, exam)
            assert reader.check().problems == ()
            with pytest.raises(OutputError, match="opened for reading only"):
                reader.begin(None, "sweep", BUNDLE)
            with pytest.raises(OutputError, match="opened for reading only"):
                reader.delete_exam(exam.exam_id)
        p.kill()
    # A process that was killed holds nothing.
    with ExamStore.open(folder, POLICY) as store:
        assert whole(store, exam)


def test_a_reader_sees_what_the_owner_saves(store: ExamStore, memory_path: Path) -> None:
    with ExamStore.open_to_read(memory_path / "s") as reader:
        assert reader.exams() == ()
        exam = save_one(store, "patient 1", 1)
        assert whole(reader, exam)
        store.delete_exam(exam.exam_id)
        assert reader.exams() == ()


def test_what_is_no_store_cannot_be_read(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(StoreError, match="is not an exam store; name the folder"):
            ExamStore.open_to_read(folder)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be made"):
        ExamStore.open(tmp_path / "file" / "s", POLICY)


def test_threads_share_a_store(store: ExamStore) -> None:
    """The live loop saves while the page looks."""
    failures: list[BaseException] = []
    done = threading.Event()

    def look() -> None:
        try:
            while not done.is_set():
                for exam in store.exams():
                    if exam.state == "saved":
                        store.get(exam.exam_id)
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    saved = [save_one(store, f"patient {n}", n) for n in range(8)]
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(whole(store, exam) for exam in saved)
    assert store.check().problems == ()


# --- clocks and retention -------------------------------------------------------------------------------------------

KEEPING = replace(POLICY, keep_exams_days=365, keep_recordings_days=30)


def test_exams_and_recordings_go_by_age(store: ExamStore) -> None:
    clock = store._vault.clock
    assert isinstance(clock, Clock)
    old = save_one(store, "patient 1", 1)
    for _ in range(8):
        clock.now += 40 * DAY
        store.check()
    young = save_one(store, "patient 2", 2)
    preview = store.apply_retention(KEEPING, dry_run=True)
    assert (preview.exams, preview.recordings, preview.refused) == ((), (old.exam_id,), None)
    assert len(list(store.recording(old.exam_id))) == 1
    assert store.apply_retention(KEEPING) == preview
    assert list(store.recording(old.exam_id)) == []
    assert whole(store, old)
    clock.now += 50 * DAY
    assert store.apply_retention(KEEPING).exams == (old.exam_id,)
    assert [exam.exam_id for exam in store.exams()] == [young.exam_id]
    assert store.check().problems == ()
    events = [entry.event for entry in store.audit_trail() if entry.event.startswith("retention")]
    assert events == ["retention of recordings", "retention of recordings", "retention"]
    # A store that keeps everything removes nothing.
    clock.now += 50 * DAY
    assert store.apply_retention().exams == ()


def test_a_clock_that_jumps_forward_deletes_nothing_until_it_is_confirmed(store: ExamStore) -> None:
    clock = store._vault.clock
    assert isinstance(clock, Clock)
    exam = save_one(store, "patient 1", 1)
    clock.now += 5000 * DAY
    for _ in range(2):
        report = store.apply_retention(KEEPING)
        assert report.refused == "the clock jumped forward; confirm that it is right"
        assert whole(store, exam)
        clock.now += DAY
    assert any("clock_stepped_forward_s" in entry.details for entry in store.audit_trail())
    store.confirm_clock()
    assert store.apply_retention(KEEPING).exams == (exam.exam_id,)


def test_an_exam_saved_while_the_clock_was_lost_is_not_taken_for_an_old_one(store: ExamStore) -> None:
    clock = store._vault.clock
    assert isinstance(clock, Clock)
    save_one(store, "patient 1", 1)
    right = clock.now
    clock.now = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
    lost = save_one(store, "patient 2", 2)
    assert lost.ended_utc.startswith("1970")
    assert lost.kept_from_utc.startswith("2026")
    assert store.apply_retention(KEEPING).refused == "the clock is behind what it was; set it"
    clock.now = right + DAY
    store.confirm_clock()
    assert store.apply_retention(KEEPING).exams == ()
    assert whole(store, lost)
    assert store.check().problems == ()
    trail = store.audit_trail()
    assert any("clock_stepped_back_s" in entry.details for entry in trail)
    assert [entry.seq for entry in trail] == list(range(1, len(trail) + 1))


# --- any order of anything ------------------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """The store beside a plain dictionary."""

    folder: Path
    patients = st.sampled_from(["ann-patient", "bea-patient", None])

    def __init__(self) -> None:
        super().__init__()
        self.saved: dict[str, StoredExam] = {}
        self.open: dict[str, Any] = {}
        self.clock = Clock()
        self.run = 0

    @initialize()
    def start(self) -> None:
        type(self).count += 1
        self.path = self.folder / str(type(self).count)
        self.store = ExamStore.open(self.path, POLICY, clock=self.clock)

    count = 0

    @rule(patient=patients)
    def begin(self, patient: str | None) -> None:
        exam = self.store.begin(patient, "sweep", BUNDLE)
        self.open[exam.exam_id] = exam

    @precondition(lambda self: self.open)
    @rule(data=st.data(), text=st.text("abc", max_size=3))
    def checkpoint(self, data: st.DataObject, text: str) -> None:
        exam = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        assert exam.checkpoint(json.dumps(text))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), seed=st.integers(0, 2), n=st.integers(0, 3))
    def save(self, data: st.DataObject, seed: int, n: int) -> None:
        exam = self.open.pop(data.draw(st.sampled_from(sorted(self.open))))
        self.saved[exam.exam_id] = exam.save_record(RECORD, pictures(seed, n))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        self.open.pop(data.draw(st.sampled_from(sorted(self.open)))).discard()

    @precondition(lambda self: self.saved)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        exam_id = data.draw(st.sampled_from(sorted(self.saved)))
        self.store.delete_exam(exam_id)
        del self.saved[exam_id]

    @rule(patient=patients.filter(bool))
    def delete_patient(self, patient: str) -> None:
        theirs = {key for key, exam in self.saved.items() if exam.patient_id == patient}
        if not theirs or any(exam._exam.patient_id == patient for exam in self.open.values()):
            with pytest.raises(InputError):
                self.store.delete_patient(patient)
            return
        self.store.delete_patient(patient)
        for key in theirs:
            del self.saved[key]
        assert _files_with(patient.encode(), self.path) == []

    @precondition(lambda self: self.saved)
    @rule(data=st.data())
    def export(self, data: st.DataObject) -> None:
        exam = self.saved[data.draw(st.sampled_from(sorted(self.saved)))]
        self.run += 1
        out = self.path.with_name(f"{self.path.name}-out-{self.run}")
        (folder,) = self.store.export(out, exam_id=exam.exam_id)
        found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
        assert {**exam.files(), "manifest.json": found["manifest.json"]} == found

    @rule(hours=st.integers(-50, 50))
    def clock_moves(self, hours: int) -> None:
        self.clock.now += dt.timedelta(hours=hours)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = ExamStore.open(self.path, POLICY, clock=self.clock)
        assert set(self.store.recovery.interrupted) == set(self.open)
        for exam_id in self.open:
            found = self.store.get(exam_id)
            assert found.state == "interrupted"
            self.saved[exam_id] = found
        self.open = {}

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        assert {exam.exam_id for exam in self.store.exams()} == {*self.saved, *self.open}
        assert all(whole(self.store, exam) for exam in self.saved.values())
        assert self.store.check().problems == ()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


def _in_any_order(folder: Path, examples: int, steps: int, show: Callable[[str], None]) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("InFolder", (AnyOrder,), {"folder": folder, "count": 0})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    show(f"any order: {machine.count} stores, up to {steps} steps each, compared after every step")  # type: ignore[attr-defined]
    assert machine.count >= examples  # type: ignore[attr-defined]


def test_any_order_of_anything_agrees_with_a_dictionary(memory_path: Path, show: Callable[[str], None]) -> None:
    _in_any_order(memory_path, 12, 15, show)


@pytest.mark.slow
def test_any_long_order_of_anything_agrees_with_a_dictionary(memory_path: Path, show: Callable[[str], None]) -> None:
    _in_any_order(memory_path, 150, 30, show)
