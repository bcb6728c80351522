"""The rounds, with peers whose times and answers are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgefetal_calibration.datasets.split import Part
from edgefetal_devices.errors import CheckFailedError, InputError
from edgefetal_export.peers import beside
from edgefetal_export.peers.beside import compare_peers, refuse_learnt
from edgefetal_export.peers.peer import Job, Recording
from edgefetal_export.peers.process import Examined
from edgefetal_export.peers.table import TABLE, PeerChoice, PeerEntry
from edgefetal_runtime.infer.bundle import SPLIT
from edgefetal_runtime.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_runtime.bench.record import PeerRecord

JOB = Job(Path("bundle"), "auto", None)
SCALE = Scale(0.2, 0.2, origin="test")
RECORDINGS = [
    Recording(Path(f"{n}.avi"), None, SCALE, states_scale=True, truth_mm=100.0, simulated=True) for n in range(8)
]
# Seconds of a recording, its HC, and how far its pictures are off.
BEHAVIOUR: dict[str, tuple[float, float | None, float | None]] = {
    "edgefetal": (2.0, 101.0, 1.0),
    "slow": (6.0, 104.0, 1.05),
    "quick": (1.0, 101.0, 3.0),
    "exact": (4.0, None, 0.5),
    "blind": (2.0, 101.0, None),
}


class _Silent:
    def step(self, title: str, total: int | None) -> Callable[[], None]:  # noqa: ARG002 - as `Progress` says
        return lambda: None


class FakeProcess:
    """A peer that answers as its name says."""

    log: list[tuple[str, str]]
    closed: list[str]

    def __init__(self, choice: PeerChoice, job: Job) -> None:
        assert job is JOB
        self.name, self.settings, self.prepare_s = choice.name, f"{choice.name} 1.0", 3.0
        if self.name == "absent":
            raise CheckFailedError("it is not here")

    def examine(self, recording: Recording) -> Examined:
        self.log.append((self.name, recording.path.name))
        if self.name == "breaks" and len([1 for name, _ in self.log if name == "breaks"]) == 3:
            raise CheckFailedError("it broke")
        seconds, value_mm, _ = BEHAVIOUR.get(self.name, (1.0, 100.0, 0.0))
        return Examined(seconds * (1 + int(recording.path.stem) / 10), value_mm)

    def measure(self, case: HeadCase) -> float | None:
        off = BEHAVIOUR.get(self.name, (1.0, 100.0, 0.0))[2]
        return None if off is None else case.hc_mm + off

    def peak_mb(self) -> float:
        return 150.0

    def close(self) -> None:
        self.closed.append(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture(autouse=True)
def _processes(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeProcess.log, FakeProcess.closed = [], []
    monkeypatch.setattr(beside, "PeerProcess", FakeProcess)
    monkeypatch.setattr(beside, "_SETTLE_S", 0.0)


def _choice(name: str) -> PeerChoice:
    return PeerChoice(PeerEntry(name, f"the {name} one", "none", "opens"), None)


def _rows(
    names: list[str], pictures: list[HeadCase], recordings: list[Recording] = RECORDINGS
) -> dict[str, PeerRecord]:
    rows = compare_peers(JOB, [_choice(name) for name in names], recordings, pictures, _Silent())
    assert [row.name for row in rows] == ["edgefetal", *names]
    return {row.name: row for row in rows}


def test_speed_is_compared_recording_by_recording(pictures: list[HeadCase]) -> None:
    rows = _rows(["slow", "quick"], pictures)
    ours = rows["edgefetal"]
    assert (ours.ours_times_as_fast, ours.verdict) == (None, None)
    # Recordings take 2.0 to 3.4 s, in the middle 2.7.
    assert ours.exams_per_minute == pytest.approx(60 / 2.7)
    for name, times in (("slow", 3.0), ("quick", 0.5)):
        ratio = rows[name].ours_times_as_fast
        assert ratio is not None
        assert (ratio.median, ratio.low, ratio.high, ratio.n) == (pytest.approx(times),) * 3 + (8,)
    assert rows["slow"].peak_rss_mb == 150.0
    assert rows["slow"].settings == "slow 1.0"


@pytest.mark.parametrize("names", [["slow"], ["slow", "quick"], ["slow", "quick", "exact"]], ids=len)
def test_every_recording_is_examined_by_all_in_turn_after_a_round_that_does_not_count(
    pictures: list[HeadCase], names: list[str]
) -> None:
    _rows(names, pictures)
    every = {"edgefetal", *names}
    rounds = [FakeProcess.log[at : at + len(every)] for at in range(0, len(FakeProcess.log), len(every))]
    assert [{file for _, file in of} for of in rounds] == [{"0.avi"}, *({f"{n}.avi"} for n in range(8))]
    assert all({name for name, _ in of} == every for of in rounds)
    # Each goes first, and each goes last; ours and any other come in both orders.
    assert {of[0][0] for of in rounds} == {of[-1][0] for of in rounds} == every
    places = [[name for name, _ in of] for of in rounds]
    for name in names:
        assert {of.index("edgefetal") < of.index(name) for of in places} == {True, False}


def test_accuracy_stands_beside_speed(pictures: list[HeadCase]) -> None:
    rows = _rows(["slow", "quick", "exact", "blind"], pictures)
    ours = rows["edgefetal"]
    assert ours.recordings is not None
    assert (ours.recordings.n, ours.recordings.measured, ours.recordings.mae_mm) == (8, 8, pytest.approx(1.0))
    assert rows["exact"].recordings is not None
    assert (rows["exact"].recordings.measured, rows["exact"].recordings.mae_mm) == (0, None)
    assert rows["slow"].pictures is not None
    assert rows["slow"].pictures.mae_mm == pytest.approx(1.05)
    assert rows["slow"].ours_worse_mm == (pytest.approx(-0.05), pytest.approx(-0.05))
    assert rows["slow"].verdict == "ahead, error no larger"
    assert rows["quick"].verdict == "behind, error no larger"
    # 0.5 mm worse is more than the budget allows.
    assert rows["exact"].verdict == "ahead, error not shown to be as small"
    assert rows["blind"].ours_worse_mm is None
    assert rows["blind"].verdict == "level"


def test_without_truth_or_pictures_there_is_no_accuracy() -> None:
    recordings = [replace(recording, truth_mm=None) for recording in RECORDINGS]
    rows = _rows(["slow"], [], recordings)
    assert (rows["slow"].recordings, rows["slow"].pictures, rows["slow"].ours_worse_mm) == (None, None, None)
    assert rows["slow"].verdict == "ahead"
    assert _rows(["slow"], [], RECORDINGS[:3])["slow"].verdict == "too few recordings to tell"


def test_one_that_fails_is_left_out_with_its_reason_and_the_others_go_on(pictures: list[HeadCase]) -> None:
    rows = _rows(["absent", "breaks", "slow"], pictures)
    assert rows["absent"].unavailable == "it is not here"
    assert rows["breaks"].unavailable == "it broke"
    assert rows["breaks"].exams_per_minute is None
    assert "breaks" in FakeProcess.closed
    assert [name for name, _ in FakeProcess.log].count("breaks") == 3
    assert rows["slow"].verdict == "ahead, error no larger"


def test_one_that_ends_after_its_work_is_left_out_too(
    pictures: list[HeadCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: FakeProcess) -> float:
        if self.name == "slow":
            raise CheckFailedError("it ended")
        return 150.0

    monkeypatch.setattr(FakeProcess, "peak_mb", fails)
    assert _rows(["slow", "quick"], pictures)["slow"].unavailable == "it ended"


def test_without_ours_there_is_nothing_to_compare(pictures: list[HeadCase], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> float:
        raise CheckFailedError("ours broke")

    monkeypatch.setattr(FakeProcess, "measure", fails)
    with pytest.raises(CheckFailedError, match="ours broke"):
        _rows(["slow"], pictures)


def test_a_run_that_has_learnt_what_it_would_be_judged_on_is_refused(
    tiny_run: Path, tiny_cases: list[HeadCase], tmp_path: Path
) -> None:
    entry = next(entry for entry in TABLE if entry.name == "torch")
    parts = json.loads((tiny_run / SPLIT).read_text())["parts"]
    unseen = [case for case in tiny_cases if parts[case.subject] == Part.HELD_OUT.value]
    assert 0 < len(unseen) < len(tiny_cases)
    refuse_learnt([PeerChoice(entry, str(tiny_run)), _choice("slow")], unseen)
    with pytest.raises(InputError, match="has learnt pictures of this set"):
        refuse_learnt([PeerChoice(entry, str(tiny_run))], tiny_cases)
    with pytest.raises(InputError, match="is no training run"):
        refuse_learnt([PeerChoice(entry, str(tmp_path))], unseen)
