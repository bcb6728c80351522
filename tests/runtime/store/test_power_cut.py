"""Power cuts, replayed from a log of every write of the store and of SQLite: what was said to be saved is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from store_faults import BUNDLE, POLICY, Clock, Log, PowerCut, fresh_folder, pictures, save_one, seeded, watched, whole

from edgefetal_runtime.store.envelope import StoredExam
from edgefetal_runtime.store.exams import ExamStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHARED = {"overlay-000.png": pictures(2)["overlay-000.png"]}


def _a_day(root: Path) -> Log:
    """Two sessions: three exams saved, one of which shares a picture, one left open, one deleted."""
    log = Log(root)
    clock = Clock()
    with watched(log) as disk:
        with ExamStore.open(root / "store", POLICY, disk=disk, clock=clock) as store:
            log.say("saved", save_one(store, "patient 1", 1))
            log.say("saved", save_one(store, "patient 2", 2))
            left = store.begin("patient 3", "left.mp4", BUNDLE)
            log.say("begun", left.exam_id)
            left.add_picture(b"\x89PNGleft", "sweep", 1, 0.1, "plane")
            left.checkpoint('{"at": 1}')
            log.say("checkpoint", (left.exam_id, '{"at": 1}'))
            left.checkpoint('{"at": 2}')
            log.say("checkpoint", (left.exam_id, '{"at": 2}'))
        with ExamStore.open(root / "store", POLICY, disk=disk, clock=clock) as store:
            assert store.recovery.interrupted == (left.exam_id,)
            sharing = store.begin("patient 4", "shared.mp4", BUNDLE)
            log.say("saved", sharing.save_record("{}", SHARED))
            log.say("deleting", "patient 2")
            store.delete_patient("patient 2")
            log.say("deleted", "patient 2")
            log.say("saved", save_one(store, None, 5, n=2))
            assert store.check().problems == ()
    return log


def _naming(text: bytes, folder: Path) -> list[Path]:
    files = [path for path in (folder / "store").rglob("*") if path.is_file() and path.name != "reserve"]
    return [path for path in files if text in path.read_bytes()]


def _examined(folder: Path, said: list[tuple[object, ...]]) -> None:
    """Open what a power cut left, and compare it with what had been said until then."""
    deleting = {what[1] for what in said if what[0] == "deleting"}
    saved = [what[1] for what in said if what[0] == "saved"]
    points = dict(what[1] for what in said if what[0] == "checkpoint")  # type: ignore[misc]
    if any(what[0] == "deleted" for what in said):
        # Not even for somebody who reads the disk before the store is opened.
        assert _naming(b"patient 2", folder) == []
    with ExamStore.open(folder / "store", POLICY) as store:
        assert store.recovery.problems == ()
        for exam in saved:
            assert isinstance(exam, StoredExam)
            assert exam.patient_id in deleting or whole(store, exam)
        states = {exam.exam_id: exam.state for exam in store.exams()}
        for what in said:
            if what[0] == "begun":
                assert states[str(what[1])] == "interrupted"
        for exam_id, record in points.items():
            assert int(store.get(exam_id).record[-2]) >= int(record[-2])
        if any(what[0] == "deleted" for what in said):
            assert store.exams("patient 2") == ()
            assert _naming(b"patient 2", folder) == []
        assert store.check().problems == ()
        # And it goes on.
        assert whole(store, save_one(store, "next", 9, n=1))


def _replayed(folder: Path, every: int, mixed: int, show: Callable[[str], None]) -> int:
    """Cut the power before every so many events, each in several ways; return how many cuts."""
    log = _a_day(fresh_folder(folder / "real"))
    disk = PowerCut()
    said: list[tuple[object, ...]] = []
    cuts = 0
    for number, event in enumerate([*log.events, ("end", "")]):
        if number % every == 0:
            for how in ("dropped", "kept", *["mixed"] * mixed):
                rng = seeded((number, cuts))
                found = fresh_folder(folder / "found")
                disk.after(how, rng, found)
                try:
                    _examined(found, said)
                except BaseException as error:
                    error.args = (f"cut before event {number} {event[:2]}, {how}: {error}",)
                    raise
                cuts += 1
        disk.apply(event)
        if event[0] in ("saved", "begun", "checkpoint", "deleting", "deleted"):
            said.append(event)
    show(f"power cuts: {cuts} replayed at {len(log.events)} events, every exam said to be saved whole")
    return cuts


@pytest.mark.usefixtures("shimmed")
def test_the_log_alone_builds_the_disk_as_it_is(memory_path: Path) -> None:
    """The replay is worth something only if its log misses no write."""
    real = fresh_folder(memory_path / "real")
    log = _a_day(real)
    disk = PowerCut()
    for event in log.events:
        disk.apply(event)
    found = fresh_folder(memory_path / "found")
    disk.after("kept", seeded(0), found)
    unlogged = ("lock", "reserve", "exams.sqlite-shm")
    files = {p.relative_to(real): p.read_bytes() for p in real.rglob("*") if p.is_file() and p.name not in unlogged}
    assert {p.relative_to(found): p.read_bytes() for p in found.rglob("*") if p.is_file()} == files
    assert len(files) > 10


@pytest.mark.usefixtures("shimmed")
def test_exams_said_to_be_saved_outlast_power_cuts(memory_path: Path, show: Callable[[str], None]) -> None:
    assert _replayed(memory_path, 10, 1, show) > 100


@pytest.mark.slow
@pytest.mark.usefixtures("shimmed")
def test_exams_said_to_be_saved_outlast_a_power_cut_at_every_write(
    memory_path: Path, show: Callable[[str], None]
) -> None:
    assert _replayed(memory_path, 1, 4, show) > 2000
