"""Damaged files: said clearly, with the way out; what can be read is got out; nothing is lost without a word."""

from __future__ import annotations

import collections
import hashlib
import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from store_faults import POLICY, RECORD, fresh_folder, save_one, seeded, whole

from edgefetal_devices.errors import EdgeFetalError, InputError, StoreError
from edgefetal_runtime.store.exams import ExamStore
from edgefetal_runtime.store.export import rescue
from edgefetal_runtime.store.schema import DATABASE

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from edgefetal_runtime.store.envelope import StoredExam


def _zeroed(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    content[start : start + 512] = bytes(len(content[start : start + 512]))


def _flipped(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 9)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _shortened(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def _overwritten(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    content[start : start + 4096] = rng.randbytes(len(content[start : start + 4096]))


DAMAGES = (_flipped, _zeroed, _shortened, _overwritten)


@pytest.fixture
def saved(memory_path: Path) -> list[StoredExam]:
    with ExamStore.open(memory_path / "whole", POLICY) as store:
        return [save_one(store, f"patient {n}", n) for n in range(4)]


def _shown(store: ExamStore, exam: StoredExam) -> bool:
    """Say whether an exam is shown; if it is, it is whole."""
    try:
        is_whole = whole(store, exam)
    except EdgeFetalError:
        return False
    assert is_whole
    return True


def _survey(folder: Path, saved: list[StoredExam]) -> str:
    """Open a damaged store; whatever it shows must be true, and whatever is missing must be said."""
    try:
        store = ExamStore.open(folder, POLICY)
    except StoreError as error:
        said = str(error)
        store = None
    if store is None:
        assert f"edgefetal exams rescue {folder}" in said
        assert not re.search(r"patient \d", said)
        return "said when opened"
    with store:
        shown = [exam for exam in saved if _shown(store, exam)]
        try:
            listed = {exam.exam_id: exam.patient_id for exam in store.exams()}
            report = store.check()
        except StoreError:
            return "said when looked at"
        # Never another patient's.
        assert all(listed.get(exam.exam_id, exam.patient_id) == exam.patient_id for exam in saved)
        if len(shown) == len(saved) and not report.problems and not store.recovery.problems:
            return "nothing lost"
        assert report.problems
        return "said by the check"


def _damaged_in_every_way(
    folder: Path, saved: list[StoredExam], seeds: int, show: Callable[[str], None]
) -> collections.Counter[str]:
    outcomes: collections.Counter[str] = collections.Counter()
    database = (folder / "whole" / DATABASE).read_bytes()
    for damage in DAMAGES:
        for seed in range(seeds):
            content = bytearray(database)
            damage(content, seeded(seed))
            shutil.rmtree(folder / "hurt", ignore_errors=True)
            shutil.copytree(folder / "whole", folder / "hurt")
            (folder / "hurt" / DATABASE).write_bytes(content)
            # First, because opening may mend the store.
            shutil.rmtree(folder / "out", ignore_errors=True)
            rescued = rescue(folder / "hurt", folder / "out")
            assert set(rescued.exams) == {exam.exam_id for exam in saved}
            assert rescued.problems == ()
            outcomes[_survey(folder / "hurt", saved)] += 1
            blobs = {path.name for path in (folder / "hurt" / "blobs").glob("*/*")}
            for exam in saved:
                assert {p.sha256 for p in exam.pictures} <= blobs, (damage.__name__, seed)
    show(f"damaged databases: {sum(outcomes.values())}, all exams rescued from each: {dict(outcomes)}")
    return outcomes


def test_a_damaged_database_is_said_or_costs_nothing(
    memory_path: Path, saved: list[StoredExam], show: Callable[[str], None]
) -> None:
    outcomes = _damaged_in_every_way(memory_path, saved, 15, show)
    assert outcomes["said when opened"] > 10
    assert outcomes["nothing lost"] > 0


@pytest.mark.slow
def test_a_database_damaged_in_hundreds_of_ways_is_said_or_costs_nothing(
    memory_path: Path, saved: list[StoredExam], show: Callable[[str], None]
) -> None:
    outcomes = _damaged_in_every_way(memory_path, saved, 250, show)
    assert outcomes["said when opened"] > 100


@pytest.mark.parametrize("how", ["removed", "emptied"])
def test_a_database_that_vanished_is_never_begun_anew(memory_path: Path, saved: list[StoredExam], how: str) -> None:
    database = memory_path / "whole" / DATABASE
    if how == "removed":
        database.unlink()
    else:
        database.write_bytes(b"")
    with pytest.raises(StoreError, match=r"exams\.sqlite is missing or empty.*rescue"):
        ExamStore.open(memory_path / "whole", POLICY)
    assert len(rescue(memory_path / "whole", memory_path / "out").exams) == len(saved)


def test_rescued_exams_are_those_that_were_saved(memory_path: Path, saved: list[StoredExam]) -> None:
    (memory_path / "whole" / DATABASE).write_bytes(b"not a database, for hundreds of bytes" * 99)
    lost = saved[0].pictures[0]
    (memory_path / "whole" / "blobs" / lost.sha256[:2] / lost.sha256).write_bytes(b"hurt")
    rescued = rescue(memory_path / "whole", memory_path / "out")
    assert len(rescued.problems) == 2
    assert f"exam {saved[0].exam_id} lacks {lost.name}" in rescued.problems
    for exam in saved:
        folder = memory_path / "out" / exam.exam_id
        assert (folder / "exam.json").read_text() == RECORD
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["patient_id"] == exam.patient_id
        for name, sha256 in manifest["files"].items():
            if (exam.exam_id, name) == (saved[0].exam_id, lost.name):
                assert not (folder / name).exists()
            else:
                assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256


def test_rescue_refuses_a_folder_that_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no folder `blobs`"):
        rescue(tmp_path, tmp_path / "out")


def test_a_lost_row_is_found_again_by_its_blob(memory_path: Path, saved: list[StoredExam]) -> None:
    with ExamStore.open(memory_path / "whole", POLICY) as store:
        store._vault.connection.execute("DELETE FROM exam WHERE exam_id = ?", (saved[1].exam_id,))
    with ExamStore.open(memory_path / "whole", POLICY) as store:
        assert store.recovery.found_again == (saved[1].exam_id,)
        assert all(whole(store, exam) for exam in saved)
        assert store.check().problems == ()


def test_an_exam_whose_two_copies_differ_is_read_from_the_good_one(memory_path: Path, saved: list[StoredExam]) -> None:
    with ExamStore.open(memory_path / "whole", POLICY) as store:
        store._vault.connection.execute(
            "UPDATE exam SET body = replace(body, '265.5', '365.5') WHERE exam_id = ?", (saved[0].exam_id,)
        )
        envelope = store.exams()[0].envelope_sha256
        assert envelope is not None
        store._vault.blobs.path(envelope).write_bytes(b"hurt")
        assert all(whole(store, exam) for exam in saved)
        problems = "\n".join(store.check().problems)
        assert f"the record of exam {saved[0].exam_id} in the database was altered; its blob is used" in problems
        assert f"{envelope} is not what was written; restore it from a copy" in problems


def test_an_exam_that_was_given_to_another_patient_is_refused(memory_path: Path, saved: list[StoredExam]) -> None:
    with ExamStore.open(memory_path / "whole", POLICY) as store:
        store._vault.connection.execute(
            "UPDATE exam SET patient_id = 'patient 2' WHERE exam_id = ?", (saved[0].exam_id,)
        )
        for look in (lambda: store.get(saved[0].exam_id), lambda: store.exams("patient 2")):
            with pytest.raises(StoreError, match=f"row of exam {saved[0].exam_id} was altered"):
                look()
        assert whole(store, saved[1])
        assert any("was altered" in problem for problem in store.check().problems)


@pytest.mark.parametrize("hurt", ["removed", "altered"])
def test_a_damaged_picture_is_named_and_the_rest_is_shown(
    memory_path: Path, saved: list[StoredExam], hurt: str
) -> None:
    picture = saved[2].pictures[1]
    path = memory_path / "whole" / "blobs" / picture.sha256[:2] / picture.sha256
    path.unlink() if hurt == "removed" else path.write_bytes(path.read_bytes()[:-1])
    with ExamStore.open(memory_path / "whole", POLICY) as store:
        assert store.get(saved[2].exam_id) == saved[2]
        with pytest.raises(StoreError, match=f"{picture.sha256}.*restore it from a copy"):
            store.picture(saved[2].exam_id, picture.name)
        with pytest.raises(StoreError, match="restore it from a copy"):
            store.export(memory_path / "out", exam_id=saved[2].exam_id)
        assert not (memory_path / "out").exists()
        assert [problem for problem in store.check().problems if picture.sha256 in problem or picture.name in problem]
        # The same picture, saved again, mends it.
        again = save_one(store, "patient 2", 2)
        assert whole(store, again)
        assert whole(store, saved[2])
        assert store.check().problems == ()


def test_another_programs_database_and_a_newer_one_are_refused(tmp_path: Path) -> None:
    import sqlite3

    fresh_folder(tmp_path / "other")
    for statement, says in (
        ("CREATE TABLE mine (x)", "is not an exam store's database; name another"),
        ("PRAGMA user_version = 99", "is not an exam store's database"),
    ):
        connection = sqlite3.connect(tmp_path / "other" / DATABASE)
        connection.execute(statement)
        connection.commit()
        connection.close()
        with pytest.raises(StoreError, match=says):
            ExamStore.open(tmp_path / "other", POLICY)
    with ExamStore.open(tmp_path / "s", POLICY) as store:
        store._vault.connection.execute("PRAGMA user_version = 99")
    for opened in (lambda: ExamStore.open(tmp_path / "s", POLICY), lambda: ExamStore.open_to_read(tmp_path / "s")):
        with pytest.raises(StoreError, match=r"newer edgefetal \(layout 99, this one knows 1\); update edgefetal"):
            opened()


def _cut_off(store: ExamStore) -> None:
    store._vault.connection.execute("DROP TRIGGER audit_grows")
    store._vault.connection.execute("DELETE FROM audit WHERE seq >= 5")


def _altered(store: ExamStore) -> None:
    store._vault.connection.execute("DROP TRIGGER audit_stays")
    store._vault.connection.execute("UPDATE audit SET event = 'nothing' WHERE seq = 3")


def _taken_out(store: ExamStore) -> None:
    store._vault.connection.execute("DROP TRIGGER audit_grows")
    store._vault.connection.execute("DELETE FROM audit WHERE seq = 3")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_cut_off, r"audit entry 10 was written and is missing; the last one is 4"),
        (_altered, r"audit entry 3 \(nothing\) was altered"),
        (_taken_out, "audit entry 3 is missing"),
    ],
)
@pytest.mark.usefixtures("saved")
def test_a_trail_that_was_tampered_with_is_said_for_ever(
    memory_path: Path, harm: Callable[[ExamStore], None], says: str
) -> None:
    with ExamStore.open(memory_path / "whole", POLICY) as store:
        assert len(store.audit_trail()) == 10
        harm(store)
    with ExamStore.open_to_read(memory_path / "whole") as store:
        assert [problem for problem in store.check().problems if re.search(says, problem)]
    for _ in range(2):
        with ExamStore.open(memory_path / "whole", POLICY) as store:
            assert store.check().problems != ()


@pytest.mark.usefixtures("saved")
def test_audit_entries_cannot_be_changed_by_mistake(memory_path: Path) -> None:
    import sqlite3

    with ExamStore.open(memory_path / "whole", POLICY) as store:
        for statement in ("DELETE FROM audit", "UPDATE audit SET event = ''"):
            with pytest.raises(sqlite3.IntegrityError, match="audit entries stay"):
                store._vault.connection.execute(statement)
        assert store.check().problems == ()


def test_an_old_copy_of_the_database_is_noticed_and_its_newer_exams_are_found(
    memory_path: Path, saved: list[StoredExam]
) -> None:
    shutil.copy(memory_path / "whole" / DATABASE, memory_path / "old")
    with ExamStore.open(memory_path / "whole", POLICY) as store:
        newer = save_one(store, "patient 9", 9)
    shutil.copy(memory_path / "old", memory_path / "whole" / DATABASE)
    with ExamStore.open(memory_path / "whole", POLICY) as store:
        assert "somebody altered the audit trail, or an old copy was put back" in store.recovery.problems[0]
        assert store.recovery.found_again == (newer.exam_id,)
        assert all(whole(store, exam) for exam in (*saved, newer))
        assert any("audit entry" in problem for problem in store.check().problems)
