"""A disk that is full, failing or read-only: measurements first, and nothing lost without a word."""

from __future__ import annotations

import collections
import errno
import os
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from store_faults import BUNDLE, POLICY, RECORD, Fault, WatchedDisk, fresh_folder, pictures, save_one, watched, whole

from edgefetal_devices.errors import EdgeFetalError, OutputError
from edgefetal_runtime.store.envelope import StoredExam
from edgefetal_runtime.store.exams import ExamStore
from edgefetal_runtime.store.policy import MIB, Policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _saved_with_fault(folder: Path, fault: Fault) -> tuple[StoredExam, StoredExam | EdgeFetalError]:
    """Save an exam on a good disk and begin another; then let the disk fail while that one is saved."""
    store_folder = fresh_folder(folder) / "store"
    ready = Fault(None)
    effect = ready

    def current(kind: str, path: Path, *what: object) -> int:
        return effect(kind, path, *what)

    with watched(current) as disk, ExamStore.open(store_folder, POLICY, disk=disk) as store:
        good = save_one(store, "patient 1", 1)
        exam = store.begin("patient 2", "second.mp4", BUNDLE)
        exam.add_picture(b"\x89PNGplane", "sweep", 3, 0.25, "plane")
        effect = fault
        try:
            second: StoredExam | EdgeFetalError = exam.save_record(RECORD, pictures(2))
        except EdgeFetalError as error:
            second = error
        effect = ready
    return good, second


def _at_every_effect(
    folder: Path, number: int, *, lasting: bool, step: int, show: Callable[[str], None]
) -> collections.Counter[str]:
    _, unharmed = _saved_with_fault(folder, counting := Fault(None))
    assert isinstance(unharmed, StoredExam)
    outcomes: collections.Counter[str] = collections.Counter()
    for at in range(0, counting.count, step):
        good, second = _saved_with_fault(folder, Fault(at, number, lasting=lasting))
        with ExamStore.open(folder / "store", POLICY) as store:
            assert store.recovery.problems == ()
            assert whole(store, good), at
            assert store.check().problems == (), at
            if isinstance(second, StoredExam):
                assert whole(store, second), at
                assert second.record == RECORD
                assert bool(second.notes) == (len(second.pictures) < 6)
                outcomes["saved whole" if not second.notes else "saved without a picture"] += 1
            else:
                assert isinstance(second, OutputError), at
                assert "What was said to be saved is kept" in str(second) or "close the store" in str(second)
                # Refused, and not lost: what was known is there, or the whole record.
                kept = store.get(store.exams("patient 2")[0].exam_id)
                assert kept.state == "interrupted" or kept.record == RECORD
                outcomes["refused"] += 1
    when = "from" if lasting else "once at"
    show(f"{errno.errorcode[number]} {when} every {step} of {counting.count} effects: {dict(outcomes)}")
    return outcomes


def _full(folder: Path, step: int, show: Callable[[str], None], *, lasting: bool) -> None:
    outcomes = _at_every_effect(folder, errno.ENOSPC, lasting=lasting, step=step, show=show)
    assert outcomes["saved whole"] > 0
    assert lasting == (outcomes["saved without a picture"] == 0)
    assert lasting == (outcomes["refused"] > 0)


def _failing(folder: Path, number: int, step: int, show: Callable[[str], None], *, lasting: bool) -> None:
    outcomes = _at_every_effect(folder, number, lasting=lasting, step=step, show=show)
    assert outcomes["refused"] > 2
    assert lasting == (outcomes["saved without a picture"] == 0)


@pytest.mark.usefixtures("shimmed")
@pytest.mark.parametrize("lasting", [False, True])
def test_a_full_disk_never_costs_the_measurement_while_the_reserve_lasts(
    memory_path: Path, show: Callable[[str], None], *, lasting: bool
) -> None:
    """A disk that is full once is never a refusal; one where even the reserve frees nothing refuses, and says so."""
    _full(memory_path / "disk", 4, show, lasting=lasting)


@pytest.mark.usefixtures("shimmed")
@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
@pytest.mark.parametrize("lasting", [False, True])
def test_a_failing_disk_is_said_and_costs_nothing_that_was_saved(
    memory_path: Path, number: int, show: Callable[[str], None], *, lasting: bool
) -> None:
    _failing(memory_path / "disk", number, 5, show, lasting=lasting)


@pytest.mark.slow
@pytest.mark.usefixtures("shimmed")
@pytest.mark.parametrize("lasting", [False, True])
def test_a_disk_that_fails_at_any_effect_costs_nothing_that_was_saved(
    memory_path: Path, show: Callable[[str], None], *, lasting: bool
) -> None:
    _full(memory_path / "disk", 1, show, lasting=lasting)
    for number in (errno.EIO, errno.EROFS):
        _failing(memory_path / "disk", number, 1, show, lasting=lasting)


class Filling:
    """A disk with so much left: every write takes of it, every removal gives back."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes

    def __call__(self, kind: str, path: Path, *what: object) -> int:
        size = path.stat().st_size if path.is_file() else 0
        first = what[0] if what else None
        if kind in ("replace", "append") and isinstance(first, bytes):
            grows = len(first) - (size if kind == "replace" else 0)
        elif kind == "write":
            assert isinstance(what[1], bytes)
            grows = max(0, int(str(first)) + len(what[1]) - size)
        elif kind == "allocate":
            grows = int(str(first))
        elif kind == "truncate":
            grows = min(0, int(str(first)) - size)
        else:
            grows = -size if kind == "unlink" else 0
        if grows > self.free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        self.free_bytes -= grows
        return 0


@dataclass
class FillingDisk(WatchedDisk):
    """A disk whose free space is counted."""

    filling: Filling

    def __post_init__(self) -> None:
        super().__init__(self.filling)

    def free_bytes(self, folder: Path) -> int:
        assert folder.is_dir()
        return self.filling.free_bytes


@pytest.mark.usefixtures("shimmed")
def test_as_a_disk_fills_recording_stops_first_then_pictures_then_new_exams(memory_path: Path) -> None:
    filling = Filling(20 * MIB)
    policy = replace(POLICY, stop_recording_below_bytes=8 * MIB, leave_out_pictures_below_bytes=4 * MIB)
    frame = np.zeros((8, 8), np.uint8)
    with watched(filling), ExamStore.open(memory_path / "s", policy, disk=FillingDisk(filling)) as store:
        exam = store.begin("patient 1", "sweep", BUNDLE)
        assert exam.record_frame(frame, 0, 0.0)
        assert exam.add_picture(b"\x89PNG0", "sweep", 0, 0.0, "plane")

        filling.free_bytes = 6 * MIB
        stopped = exam.record_frame(frame, 1, 0.1)
        assert not stopped
        assert exam.add_picture(b"\x89PNG1", "sweep", 1, 0.1, "plane")

        filling.free_bytes = 3 * MIB
        assert not exam.add_picture(b"\x89PNG2", "sweep", 2, 0.2, "plane")
        assert exam.checkpoint("{}")

        filling.free_bytes = 0
        assert not exam.checkpoint("{}" * 9000)
        assert (memory_path / "s" / "reserve").exists()
        saved = exam.save_record(RECORD, pictures(1))
        assert saved.record == RECORD
        assert [p.name for p in saved.pictures] == ["plane-001.png", "plane-002.png"]
        assert saved.notes[:2] == (
            "video after 1 frames was left out, because only 6 MiB are free",
            "picture plane-003.png was left out, because only 3 MiB are free",
        )
        assert len(saved.notes) == 7
        assert not (memory_path / "s" / "reserve").exists()
        assert "left_out" in store.audit_trail()[-1].details
        # Recording does not begin again in the middle of an exam, and no exam begins without a reserve.
        filling.free_bytes = 0
        with pytest.raises(
            OutputError, match=r"is full: 0 MiB are free, and a new exam needs 1 MiB in reserve.*delete"
        ):
            store.begin("patient 2", "sweep", BUNDLE)
        # It can be seen, and deleted, which gives the reserve back.
        assert whole(store, saved)
        filling.free_bytes = 2 * MIB
        store.delete_exam(saved.exam_id)
        assert (memory_path / "s" / "reserve").stat().st_size == policy.reserve_bytes
        assert store.begin("patient 2", "sweep", BUNDLE)


@pytest.mark.usefixtures("shimmed")
def test_whatever_is_left_when_the_disk_fills_the_measurement_is_saved(
    memory_path: Path, show: Callable[[str], None]
) -> None:
    """Others fill the disk while an exam is under way; 41 levels of what they leave."""
    left_out = collections.Counter[int]()
    for free in (0, *range(100, 20_000, 500)):
        filling = Filling(20 * MIB)
        folder = fresh_folder(memory_path / "disk") / "s"
        with watched(filling), ExamStore.open(folder, POLICY, disk=FillingDisk(filling)) as store:
            exam = store.begin("patient 1", "sweep", BUNDLE)
            filling.free_bytes = free
            saved = exam.save_record(RECORD, pictures(1))
            assert len(saved.notes) + len(saved.pictures) == 5
            left_out[len(saved.notes)] += 1
        with ExamStore.open(folder, POLICY) as store:
            assert whole(store, saved)
            assert store.check().problems == ()
    show(f"disk full at 41 levels: every measurement saved; pictures left out in each: {dict(left_out)}")
    assert left_out[5] > 0
    assert left_out[0] > 0


@pytest.mark.usefixtures("shimmed")
def test_a_full_disk_can_be_looked_at_and_emptied(memory_path: Path) -> None:
    """The reserve that the last exam left is enough to delete by; a store that opens full still opens."""
    filling = Filling(20 * MIB)
    with watched(filling):
        with ExamStore.open(memory_path / "s", POLICY, disk=FillingDisk(filling)) as store:
            saved = [save_one(store, f"patient {n}", n) for n in range(3)]
            filling.free_bytes = 0
        with ExamStore.open(memory_path / "s", POLICY, disk=FillingDisk(filling)) as store:
            assert all(whole(store, exam) for exam in saved)
            filling.free_bytes = 0
            assert store.delete_patient("patient 1").exams == 1
            assert store.check().problems == ()
            assert "entries_lost_before" in "".join(entry.details for entry in store.audit_trail())


def test_a_store_on_a_read_only_disk_opens_for_reading(tmp_path: Path) -> None:
    with ExamStore.open(tmp_path / "s", POLICY) as store:
        saved = save_one(store, "patient 1", 1)
    disk = WatchedDisk(Fault(0, errno.EROFS, lasting=True))
    with ExamStore.open(tmp_path / "s", POLICY, disk=disk) as store:
        assert store.reading_only is not None
        assert whole(store, saved)
        assert store.check().problems == ()
        assert store.export(tmp_path / "out", exam_id=saved.exam_id) == (tmp_path / "out",)
        for write in (
            lambda: store.begin(None, "sweep", BUNDLE),
            lambda: store.delete_exam(saved.exam_id),
            store.confirm_clock,
            lambda: store.apply_retention(replace(POLICY, keep_exams_days=1e-9)),
        ):
            with pytest.raises(OutputError, match="its disk is read-only"):
                write()


def test_a_store_on_a_disk_mounted_read_only_after_a_crash_shows_its_last_exam(tmp_path: Path) -> None:
    """The last exam may stand in the write-ahead log only, which a read-only disk does not let SQLite finish."""
    store = ExamStore.open(tmp_path / "s", POLICY)
    saved = save_one(store, "patient 1", 1)
    crashed, mount = tmp_path / "crashed", tmp_path / "mount"
    subprocess.run(["/bin/cp", "-r", tmp_path / "s", crashed], check=True)
    store.close()
    (crashed / "exams.sqlite-shm").unlink()
    assert (crashed / "exams.sqlite-wal").stat().st_size > 0
    mount.mkdir()
    bound = subprocess.run(["/bin/mount", "--bind", crashed, mount], capture_output=True, check=False).returncode == 0
    try:
        read_only = ["/bin/mount", "-o", "remount,ro,bind", mount]
        if not bound or subprocess.run(read_only, capture_output=True, check=False).returncode:
            pytest.skip("this machine lets us mount nothing")
        with ExamStore.open(mount, POLICY) as found:
            assert "read-only" in str(found.reading_only).lower()
            assert whole(found, saved)
            with pytest.raises(OutputError, match="read-only"):
                found.begin(None, "sweep", BUNDLE)
    finally:
        if bound:
            subprocess.run(["/bin/umount", mount], check=True)


def test_a_policy_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="recording must stop before"):
        Policy(stop_recording_below_bytes=1, leave_out_pictures_below_bytes=2)
    with pytest.raises(ValueError, match="at least one MiB"):
        Policy(reserve_bytes=10)
    with pytest.raises(ValueError, match="days"):
        Policy(keep_exams_days=float("nan"))
