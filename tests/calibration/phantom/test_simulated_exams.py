"""Simulated exams: planes come and go, skill shows, and the same seed draws the same bytes."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_calibration.phantom.ages import Ages
from edgefetal_calibration.phantom.exam import Exam, ExamPlan, simulate_exam, sweep_acs
from edgefetal_calibration.phantom.exam_files import FileFormat
from edgefetal_calibration.phantom.gesture import Gesture, draw_gesture
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.scene import PlaneName
from edgefetal_calibration.phantom.series import SeriesPlan, write_series
from edgefetal_devices.errors import InputError, OutputError

if TYPE_CHECKING:
    from pathlib import Path

TARGETED = (Protocol.HEAD, Protocol.ABDOMEN, Protocol.FEMUR)


def _digest(plan: ExamPlan, threads: int = 1) -> str:
    digest = hashlib.sha256()
    for frame in simulate_exam(plan, threads):
        for array in (frame.picture, frame.head, frame.abdomen, frame.femur):
            digest.update(array.tobytes())
        digest.update(json.dumps(frame.truth.to_json()).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("protocol", list(Protocol))
def test_the_same_plan_draws_the_same_bytes(protocol: Protocol) -> None:
    plan = ExamPlan(protocol, 26.0, seed=4, skill=0.6, frame_count=3)
    first = _digest(plan)
    assert _digest(plan) == first
    assert _digest(plan, threads=3) == first
    assert _digest(ExamPlan(protocol, 26.0, seed=5, skill=0.6, frame_count=3)) != first


@pytest.mark.parametrize("protocol", TARGETED)
def test_the_target_comes_and_goes(protocol: Protocol) -> None:
    for seed in range(5):
        exam = Exam(ExamPlan(protocol, 24.0, seed=seed, skill=1.0))
        truths = [exam.truth(0, index) for index in range(60)]
        shown = [t.plane is protocol.target for t in truths]
        assert not shown[0]
        assert not shown[-1]
        assert 5 <= sum(shown) <= 55
        best = max(truths, key=lambda t: t.quality)
        assert best.quality > 0.5
        assert 15 <= best.index <= 44


def test_blind_sweeps_show_the_abdomen_in_short_runs() -> None:
    """In the public set 5 to 20 frames of a sweep are annotated, and not in every sweep."""
    runs, sweeps, optimal = [], 0, 0
    for seed in range(6):
        exam = Exam(ExamPlan(Protocol.ACOUSLIC, 28.0, seed=seed, skill=0.8))
        truths = [exam.truth(s, k) for s in range(6) for k in range(140)]
        counts = [sum(t.plane is PlaneName.ABDOMEN for t in truths if t.sweep == s) for s in range(6)]
        runs += [count for count in counts if count]
        sweeps += sum(ac is not None for ac in sweep_acs(truths, 6))
        optimal += any(t.optimal for t in truths)
    assert 1 <= sweeps / 6 <= 4
    assert 5 <= np.median(runs) <= 40
    assert 2 <= optimal <= 6


def test_masks_belong_to_the_named_plane() -> None:
    exam = Exam(ExamPlan(Protocol.ACOUSLIC, 28.0, seed=0, skill=0.9))
    truths = [exam.truth(s, k) for s in range(6) for k in range(140)]
    shown = [t for t in truths if t.plane is PlaneName.ABDOMEN]
    for wanted in (True, False):
        truth = next(t for t in shown if t.optimal is wanted)
        frame = exam.frame(truth.sweep, truth.index)
        assert frame.picture.shape == frame.abdomen.shape == (562, 744)
        assert set(np.unique(frame.abdomen)) == {0, 1 if wanted else 2}
        assert not frame.head.any()
        assert truth.ac_mm is not None
        assert truth.ac_mm == pytest.approx(exam.scene.fetus.size.ac_mm, rel=0.15)
        np.testing.assert_array_equal(frame.abdomen, exam.mask(truth.sweep, truth.index))
    none = next(t for t in truths if t.plane is PlaneName.NONE)
    assert not exam.mask(none.sweep, none.index).any()


def test_some_exams_never_reach_the_abdomen() -> None:
    stopped = 0
    for number in range(80):
        exam = Exam(ExamPlan(Protocol.ACOUSLIC, 30.0, seed=2, number=number, skill=0.9, frame_count=30))
        if exam.stopped_short:
            stopped += 1
            names = [exam.truth(s, k).plane for s in range(6) for k in range(30)]
            assert PlaneName.ABDOMEN not in names
    assert 1 <= stopped <= 12


def test_a_femur_lies_about_level_where_it_is_measured() -> None:
    slopes = []
    for seed in range(30):
        exam = Exam(ExamPlan(Protocol.FEMUR, 18.0 + seed / 2, seed=seed, skill=1.0))
        best = max((exam.truth(0, index) for index in range(60)), key=lambda t: t.quality)
        ends = exam.scene.truth(exam.planes[0][best.index]).femur
        assert ends is not None
        across, down = np.abs(ends[1] - ends[0])
        slopes.append(math.degrees(math.atan2(down, across)))
    assert np.median(slopes) < 15
    assert np.mean(np.array(slopes) < 30) > 0.85


@pytest.mark.parametrize("protocol", TARGETED)
def test_the_depth_is_set_for_the_whole_target_and_little_more(protocol: Protocol) -> None:
    for number in range(24):
        exam = Exam(ExamPlan(protocol, 16.0 + number, seed=number, skill=1.0))
        truths = [exam.truth(0, index) for index in range(60)]
        best = max(truths, key=lambda t: (t.plane is protocol.target, t.quality))
        assert best.plane is protocol.target
        points = exam.scene.truth(exam.planes[0][best.index]).outline(protocol.target)
        probe, _ = exam.probe_and_fan
        from_apex = points[:, 1] + probe.face_radius_mm
        deep = np.hypot(points[:, 0], from_apex) - probe.face_radius_mm
        aside = np.abs(np.arctan2(points[:, 0], from_apex)) < probe.sector_rad / 2
        assert np.mean(aside & (deep < probe.depth_mm)) > 0.95
        assert probe.depth_mm % 10 == 0
        assert probe.depth_mm <= max(80.0, deep.max() + 60)


def _restlessness(gesture: Gesture) -> float:
    return float(np.abs(np.diff(gesture.progress, 2)).mean())


def test_skill_shows_in_the_hand() -> None:
    drawn = {skill: [draw_gesture(skill, 140, np.random.default_rng(k)) for k in range(40)] for skill in (0, 0.5, 1)}
    for what in (
        _restlessness,
        lambda g: float(np.abs(g.tilt_rad).mean()),
        lambda g: float(g.lost.mean()),
        lambda g: 1 - float(np.ptp(g.progress)),
    ):
        novice, middling, expert = (np.mean([what(g) for g in drawn[skill]]) for skill in (0, 0.5, 1))
        assert novice > middling > expert
    assert any(g.wrong_way for g in drawn[0])
    assert not any(g.wrong_way for g in drawn[1])


def test_a_lifted_probe_shows_nothing() -> None:
    for seed in range(40):
        exam = Exam(ExamPlan(Protocol.ACOUSLIC, 28.0, seed=seed, skill=0.0))
        for sweep, gesture in enumerate(exam.gestures):
            gone = np.flatnonzero(gesture.lost.sum(axis=1) > 0.9)
            if len(gone):
                index = int(gone[0])
                frame = exam.frame(sweep, index)
                assert frame.truth.plane is PlaneName.NONE
                assert frame.truth.contact < 0.1
                held = int(np.flatnonzero(gesture.lost.sum(axis=1) == 0)[0])
                assert frame.picture.mean() < 0.6 * exam.frame(sweep, held).picture.mean()
                return
    pytest.fail("no novice lifted the probe")


@pytest.mark.parametrize(
    "change",
    [{"weeks": 60.0}, {"weeks": 13.0}, {"skill": 1.2}, {"skill": float("nan")}, {"seed": -1}, {"frame_count": 0}],
)
def test_a_plan_that_cannot_be_drawn_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError):
        ExamPlan(**{"protocol": Protocol.HEAD, "weeks": 28.0, "seed": 1, **change})  # type: ignore[arg-type]


def test_no_exams_and_no_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 exams"):
        SeriesPlan(Protocol.HEAD, Ages.of(28.0), exams=0)
    with pytest.raises(InputError, match="0 workers"):
        write_series(SeriesPlan(Protocol.HEAD, Ages.of(28.0), exams=1, frame_count=2), tmp_path / "out", workers=0)


def _contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_files_do_not_depend_on_the_processes(tmp_path: Path) -> None:
    plan = SeriesPlan(Protocol.HEAD, Ages.of(24.0), exams=2, seed=3, frame_count=2)
    write_series(plan, tmp_path / "one")
    write_series(plan, tmp_path / "two", workers=2)
    assert _contents(tmp_path / "one") == _contents(tmp_path / "two")


def test_a_run_that_was_ended_goes_on(tmp_path: Path) -> None:
    plan = SeriesPlan(Protocol.ACOUSLIC, Ages.of(24.0), exams=2, seed=3, frame_count=1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    write_series(plan, whole)

    class KilledError(Exception):
        pass

    drawn = 0

    def kill() -> None:
        nonlocal drawn
        drawn += 1
        if drawn == 9:
            raise KilledError

    with pytest.raises(KilledError):
        write_series(plan, broken, on_frame=kill)
    assert len(list((broken / "images/stacked_fetal_ultrasound").glob("*.mha"))) == 1
    assert len(list((broken / "truth").glob("*.json"))) == 1
    with pytest.raises(OutputError, match="exists"):
        write_series(plan, broken)
    write_series(plan, broken, resume=True)
    assert _contents(broken) == _contents(whole)
    with pytest.raises(OutputError, match="another series"):
        write_series(SeriesPlan(Protocol.ACOUSLIC, Ages.of(25.0), exams=2, seed=3, frame_count=1), broken, resume=True)


@pytest.mark.parametrize("file_format", list(FileFormat))
def test_every_format_has_its_sweep_mask_and_truth(tmp_path: Path, file_format: FileFormat) -> None:
    plan = SeriesPlan(Protocol.HEAD, Ages.of(24.0), exams=1, seed=1, frame_count=5, skill=1.0, file_format=file_format)
    (truth,) = write_series(plan, tmp_path / "out")
    record = json.loads(truth.read_text())
    assert record["simulated"] is True
    assert len(record["frames"]) == 5
    names = {path.name for path in truth.parent.iterdir()}
    suffix = {"mha": ".mha", "mp4": ".mp4", "dicom": ".dcm", "png": ""}[file_format.value]
    assert f"sweep_1{suffix}" in names
    assert ("sweep_1_mask" if file_format is FileFormat.PNG else "sweep_1_mask.mha") in names
    assert not [name for name in names if name.startswith(".")]
