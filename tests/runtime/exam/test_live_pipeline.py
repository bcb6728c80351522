"""An examination of a live source: several sweeps and structures, gaps, and whatever may break on the way."""

from __future__ import annotations

import gc
import itertools
import threading
import tracemalloc
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_devices.errors import DeviceLostError, SourceError
from edgefetal_runtime.exam import pipeline
from edgefetal_runtime.exam.pipeline import ExamResult, Listener, examine
from edgefetal_runtime.exam.record import ALL_SWEEPS
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.growth.gestation import parse_age
from edgefetal_runtime.infer.bundle import Bundle, Heads
from edgefetal_runtime.infer.network import Network
from edgefetal_runtime.scale import Scale
from edgefetal_runtime.sweep.finder import SweepFinder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from edgefetal_runtime.exam.record import Exam

SHAPE = (270, 400)
SCALE = Scale(0.3, 0.3, origin="test", relative_uncertainty=0.01)
STRUCTURES = ("head", "abdomen", "femur")
# Semi-axes in px of what the frames show by structure, and of every sweep the frame where its section is largest.
SEMIS_PX = {"head": (120.0, 100.0), "abdomen": (105.0, 96.0), "femur": (72.0, 7.0)}
CROSSING = [0.0, 0.0, *np.sqrt(1 - np.linspace(-0.6, 0.6, 11) ** 2).round(3).tolist(), 0.0, 0.0]
LENGTH = len(CROSSING)


@dataclass
class Backend:
    """Answers frame by frame, and breaks at one of them."""

    answers: Sequence[dict[str, npt.NDArray[np.float32]]]
    breaks_at: int | None = None
    name: str = "scripted"
    lanes: int = 1
    count: int = 0
    error: Exception = field(default_factory=lambda: RuntimeError("the engine is gone"))

    def run(self, _: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        self.count += 1
        if self.count - 1 == self.breaks_at:
            raise self.error
        return self.answers[(self.count - 1) % len(self.answers)]


@dataclass
class Live:
    """A live source: its frames have no sweep of their own, and it may break."""

    count: int
    breaks_at: int | None = None
    indices: Sequence[int] | None = None
    segments: Sequence[int] | None = None
    kind: str = "camera"
    frame_count: int | None = None

    def frames(self) -> Iterator[Frame]:
        for number in range(self.count):
            if number == self.breaks_at:
                raise SourceError("The camera was unplugged; plug it in again.")
            index = number if self.indices is None else self.indices[number]
            segment = 0 if self.segments is None else self.segments[number]
            yield Frame(np.zeros(SHAPE, np.uint8), "live", index, index / 25.0, SCALE, segment=segment)


@pytest.fixture(scope="session")
def bundle(intact_bundle: Bundle) -> Bundle:
    """A bundle of all structures, without quality."""
    heads = Heads(mask=STRUCTURES, plane=(*STRUCTURES, "none"))
    return replace(intact_bundle, manifest=intact_bundle.manifest.model_copy(update={"heads": heads}))


@pytest.fixture(scope="session")
def answers(
    bundle: Bundle, head_logits: Callable[..., npt.NDArray[np.float32]]
) -> Callable[..., list[dict[str, npt.NDArray[np.float32]]]]:
    """What the network says along one sweep across the plane of a structure, of which it shows so many times more."""

    def made(structure: str, times: float = 1.0) -> list[dict[str, npt.NDArray[np.float32]]]:
        spec = bundle.manifest.preprocess
        along = []
        for share in CROSSING:
            mask = np.full((len(STRUCTURES), spec.height_px, spec.width_px), -20.0, np.float32)
            if share:
                semi_1, semi_2 = (times * share * semi for semi in SEMIS_PX[structure])
                shape = (200.0, 135.0, semi_1, semi_2, 0.3)
                mask[STRUCTURES.index(structure)] = head_logits(shape, SHAPE, spec)
            shown = structure if share else "none"
            plane = np.array([[8.0 * (name == shown) for name in bundle.manifest.heads.plane]], np.float32)
            along.append({"mask": mask[None], "plane": plane})
        return along

    return made


def _finder() -> SweepFinder:
    """One sweep from the first frame on, until the source is interrupted."""
    finder = SweepFinder(commanded=True)
    finder.command()
    return finder


def _values(result: ExamResult, sweep: str) -> dict[str, float | None]:
    return {m.name: m.value for m in result.exam.measurements if m.sweep == sweep and m.name in ("HC", "AC", "FL")}


# What breaks

BREAKS_AT = 14


def _raise(*_: Any) -> Any:
    raise ValueError("a bug")


def _breaking(
    stage: str, bundle: Bundle, answers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[Live, Network, str]:
    """A source and a network of which one stage breaks at one frame, and what is said of it."""
    source, backend = Live(40), Backend(answers)
    counter = itertools.count()
    if stage == "read":
        return replace(source, breaks_at=BREAKS_AT), Network(bundle.manifest, backend), "The camera was unplugged"
    if stage == "infer":
        return (
            source,
            Network(bundle.manifest, replace(backend, breaks_at=BREAKS_AT)),
            "RuntimeError: the engine is gone",
        )
    of, name = {"glance": (pipeline, "glance"), "prepare": (Network, "prepare"), "find": (pipeline, "find_all")}[stage]
    good = getattr(of, name)
    monkeypatch.setattr(of, name, lambda *args: (_raise if next(counter) == BREAKS_AT else good)(*args))  # noqa: PLW0108 - counts each call
    return source, Network(bundle.manifest, backend), "ValueError: a bug"


STAGES = ("read", "glance", "prepare", "infer", "find")


@pytest.mark.parametrize("stage", STAGES)
def test_whatever_breaks_a_live_examination_what_was_seen_is_measured_and_the_reason_said(
    bundle: Bundle, answers: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    source, network, says = _breaking(stage, bundle, answers("head"), monkeypatch)
    told: list[int] = []
    swept: list[pipeline.SweepResult] = []
    listener = Listener(lambda seen, _: told.append(seen.finding.frame.index), lambda sweep, _: swept.append(sweep))
    result = examine(source, "camera", bundle, network, listener, finder=_finder())
    assert told == list(range(BREAKS_AT)), "every frame before it, and none after"
    exam = result.exam
    assert exam.ended is not None
    assert says in exam.ended
    (sweep,) = exam.sweeps
    assert [result.record for result in swept] == [sweep]
    assert (sweep.name, sweep.frames_seen) == ("sweep 1", BREAKS_AT)
    assert sweep.hand is not None
    assert (sweep.hand.light, sweep.hand.reason, sweep.hand.action) == ("red", exam.ended, "repeat this sweep")
    # The whole head had been crossed by then.
    assert _values(result, "sweep 1")["HC"] is not None
    assert set(result.overlays) == {"overlay-001-head.png"}


@pytest.mark.parametrize("stage", STAGES)
def test_whatever_breaks_the_analysis_of_a_file_is_raised(
    bundle: Bundle, answers: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    source, network, says = _breaking(stage, bundle, answers("head"), monkeypatch)
    with pytest.raises((SourceError, RuntimeError, ValueError), match=says.rpartition(": ")[2]):
        examine(source, "file", bundle, network)


def test_a_source_that_breaks_at_once_leaves_an_empty_record_that_says_why(
    bundle: Bundle, answers: Callable[..., Any]
) -> None:
    network = Network(bundle.manifest, Backend(answers("head")))
    exam = examine(Live(9, breaks_at=0), "camera", bundle, network, finder=_finder()).exam
    assert (exam.sweeps, exam.measurements) == ((), ())
    assert exam.ended == "The camera was unplugged; plug it in again."


@pytest.mark.parametrize(("error", "lost"), [(DeviceLostError("start it again"), True), (SourceError("gone"), False)])
def test_a_lost_gpu_is_told_from_what_another_try_may_mend(
    bundle: Bundle, answers: Callable[..., Any], error: Exception, *, lost: bool
) -> None:
    network = Network(bundle.manifest, Backend(answers("head"), BREAKS_AT, error=error))
    result = examine(Live(40), "camera", bundle, network, finder=_finder())
    assert (result.exam.ended, result.device_lost) == (str(error), lost)
    assert _values(result, "sweep 1")["HC"] is not None


def test_an_examination_that_nobody_broke_ended_by_itself(bundle: Bundle, answers: Callable[..., Any]) -> None:
    network = Network(bundle.manifest, Backend(answers("head")))
    exam = examine(Live(LENGTH), "camera", bundle, network, finder=_finder()).exam
    assert exam.ended is None
    assert exam.sweeps[0].hand is not None
    assert exam.sweeps[0].hand.reason != ""


@pytest.mark.parametrize("when", ["frame", "sweep"])
def test_a_listener_that_raises_ends_everything(bundle: Bundle, answers: Callable[..., Any], when: str) -> None:
    listener = Listener(on_frame=_raise) if when == "frame" else Listener(on_sweep=_raise)
    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="a bug"):
        examine(Live(30), "s", bundle, Network(bundle.manifest, Backend(answers("head"))), listener)
    gc.collect()
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(20)
    assert not any(thread.is_alive() for thread in left)


# Sweeps


def _interrupted(between: int = 3) -> list[int]:
    """Segments of three sweeps: a commanded one ends at each interruption."""
    return [number // (LENGTH + between) for number in range(3 * (LENGTH + between))]


@dataclass
class _Pressing:
    """Presses for a new sweep a few frames after the picture came back."""

    finder: SweepFinder
    pressed: int = 0

    def on_frame(self, seen: pipeline.Seen, _: object) -> None:
        if seen.finding.frame.segment > self.pressed:
            self.pressed = seen.finding.frame.segment
            self.finder.command()


def test_an_interrupted_sweep_is_marked_and_the_others_are_kept(bundle: Bundle, answers: Callable[..., Any]) -> None:
    pause = [{**answers("head")[0]}] * 3
    network = Network(bundle.manifest, Backend([*answers("head"), *pause]))
    finder = _finder()
    pressing = _Pressing(finder)
    swept: list[tuple[str, int]] = []

    def on_sweep(sweep: pipeline.SweepResult, record: Callable[[], Exam]) -> None:
        assert {m.sweep for m in sweep.records} == {sweep.record.name}
        assert record().ended is not None
        swept.append((sweep.record.name, len(sweep.records)))

    source = Live(3 * (LENGTH + 3), segments=_interrupted())
    result = examine(source, "s", bundle, network, Listener(pressing.on_frame, on_sweep), finder=finder)
    assert [sweep.name for sweep in result.exam.sweeps] == ["sweep 1", "sweep 2", "sweep 3"]
    assert swept == [(name, 8) for name in ("sweep 1", "sweep 2", "sweep 3")]
    reasons = [sweep.hand.reason for sweep in result.exam.sweeps if sweep.hand is not None]
    assert reasons[:2] == ["the picture was interrupted"] * 2
    assert reasons[2] != reasons[0], "the last one ended with the source"
    assert result.exam.ended is None


def test_frames_that_the_source_counted_and_that_never_came_are_missed(
    bundle: Bundle, answers: Callable[..., Any]
) -> None:
    indices = [500 + number + (4 if number > 5 else 0) + (2 if number > 9 else 0) for number in range(LENGTH)]
    network = Network(bundle.manifest, Backend(answers("head")))
    result = examine(Live(LENGTH, indices=indices), "s", bundle, network, finder=_finder())
    (sweep,) = result.exam.sweeps
    assert (sweep.frames_seen, sweep.frames_missed) == (LENGTH, 6)
    head = sweep.structures[0]
    assert {frame.index for frame in head.chosen} <= set(indices)
    assert [(run.first, run.last) for run in head.runs] == [(indices[2], indices[12])]
    assert f"frame {head.chosen[0].index} " in head.why


@pytest.mark.parametrize(("structure", "measure"), [("head", "HC"), ("abdomen", "AC"), ("femur", "FL")])
def test_a_sweep_shows_one_structure_and_has_a_picture_of_it_alone(
    bundle: Bundle, answers: Callable[..., Any], structure: str, measure: str
) -> None:
    network = Network(bundle.manifest, Backend(answers(structure)))
    result = examine(Live(LENGTH), "s", bundle, network, finder=_finder())
    (sweep,) = result.exam.sweeps
    assert [s.structure for s in sweep.structures] == list(STRUCTURES)
    assert {s.structure for s in sweep.structures if s.frames_outlined} == {structure}
    assert {s.structure for s in sweep.structures if s.overlay} == {structure}
    assert set(result.overlays) == {f"overlay-001-{structure}.png"}
    assert {name for name, value in _values(result, "sweep 1").items() if value is not None} == {measure}
    missing = [m for m in result.exam.measurements if m.value is None and m.name in ("HC", "AC", "FL")]
    assert len(missing) == 2
    for m in missing:
        assert (m.abstained or "").startswith("no plane of the ")


@dataclass
class Recorded:
    """Files of one subject: sweeps by name, as long as a scripted one."""

    names: Sequence[str]
    kind: str = "dicom"
    frame_count: int | None = None

    def frames(self) -> Iterator[Frame]:
        for name in self.names:
            for index in range(LENGTH):
                yield Frame(np.zeros(SHAPE, np.uint8), name, index, index / 25.0, SCALE)


def test_sweeps_of_one_subject_are_dated_and_charted_together(bundle: Bundle, answers: Callable[..., Any]) -> None:
    """Head, abdomen and femur from sweeps of their own give one weight, which no sweep alone does."""
    played = [*answers("head"), *answers("abdomen"), *answers("femur"), *answers("head", 1.02)]
    network = Network(bundle.manifest, Backend(played))
    names = ("a", "b", "c", "d")
    result = examine(Recorded(names), "s", bundle, network, age=parse_age("24w2d"))
    exam = result.exam
    assert exam.one_subject
    assert [sweep.name for sweep in exam.sweeps] == list(names)
    assert exam.measurements[0].sweep == ALL_SWEEPS, "what they say together comes first"
    together = _values(result, ALL_SWEEPS)
    assert all(value is not None for value in together.values())
    assert together["HC"] == _values(result, "a")["HC"], "the middle of two is the lower"
    assert together["AC"] == _values(result, "b")["AC"]
    assert together["FL"] == _values(result, "c")["FL"]
    frames = {(m.sweep, m.name): m.frames for m in exam.measurements}
    assert frames[ALL_SWEEPS, "HC"] == frames["a", "HC"] != ()
    assert frames[ALL_SWEEPS, "FL"] == frames["c", "FL"] != ()
    assert {m.sweep for m in exam.measurements if m.unit in ("weeks", "g")} == {ALL_SWEEPS}
    assert any(m.name == "EFW" and m.value for m in exam.measurements)
    assert {row.sweep for row in exam.growth} == {ALL_SWEEPS}
    assert set(result.overlays) == {
        "overlay-001-head.png", "overlay-002-abdomen.png", "overlay-003-femur.png", "overlay-004-head.png",
    }  # fmt: skip


def test_sweeps_of_one_subject_that_contradict_one_another_give_no_age(
    bundle: Bundle, answers: Callable[..., Any]
) -> None:
    network = Network(bundle.manifest, Backend([*answers("head"), *answers("head", 0.8)]))
    result = examine(Recorded(("a", "b")), "s", bundle, network)
    assert _values(result, ALL_SWEEPS)["HC"] is None
    assert all(_values(result, sweep)["HC"] for sweep in ("a", "b")), "each is shown, to be looked at"
    assert not any(m.unit in ("weeks", "g") for m in result.exam.measurements)


def test_pictures_of_a_folder_are_of_nobody_in_particular_and_stay_apart(
    bundle: Bundle, answers: Callable[..., Any]
) -> None:
    network = Network(bundle.manifest, Backend([*answers("head"), *answers("head", 1.02)]))
    exam = examine(Recorded(("a", "b"), kind="folder"), "s", bundle, network).exam
    assert not exam.one_subject
    assert {m.sweep for m in exam.measurements} == {"a", "b"}
    assert {m.sweep for m in exam.measurements if m.unit == "weeks"} == {"a", "b"}


@pytest.mark.parametrize("simulated", [True, False])
def test_what_is_known_from_simulations_alone_is_measured_on_them_alone(
    bundle: Bundle,
    answers: Callable[..., Any],
    simulated: bool,  # noqa: FBT001 - a parameter
) -> None:
    learnt = replace(bundle, manifest=bundle.manifest.model_copy(update={"simulated": ("abdomen", "femur")}))
    network = Network(learnt.manifest, Backend([*answers("head"), *answers("abdomen"), *answers("femur")]))
    result = examine(Recorded(("a", "b", "c")), "s", learnt, network, simulated=simulated)
    values = _values(result, ALL_SWEEPS)
    assert values["HC"] is not None
    assert (values["AC"] is not None) == (values["FL"] is not None) == simulated
    # What was outlined is shown either way, without a length.
    assert {"overlay-002-abdomen.png", "overlay-003-femur.png"} <= set(result.overlays)
    abdomen = result.exam.sweeps[1].structures[1]
    assert abdomen.contour_px is not None
    assert any("simulated" in caution for caution in result.exam.cautions) == simulated
    if not simulated:
        reason = next(m.abstained for m in result.exam.measurements if m.name == "AC")
        assert reason is not None
        assert reason.startswith("the bundle learnt the abdomen from simulated pictures alone")


# What an examination holds until its end


def test_all_that_rests_on_a_sweep_s_frames_shares_their_records(bundle: Bundle, answers: Callable[..., Any]) -> None:
    result = examine(Live(LENGTH), "s", bundle, Network(bundle.manifest, Backend(answers("head"))), finder=_finder())
    head = result.exam.sweeps[0].structures[0]
    heads = [m for m in result.sweeps[0].records if m.frames]
    assert len(heads) == 4
    assert len(head.chosen) == 5
    for measurement in heads:
        assert all(mine is theirs for mine, theirs in zip(measurement.frames, head.chosen, strict=True))


def test_a_sweep_that_is_over_holds_little_memory(bundle: Bundle, answers: Callable[..., Any]) -> None:
    """A live examination has hundreds, needed to its end. Of three structures each held 48 kB; now it is 27 kB."""
    count = 8
    network = Network(bundle.manifest, Backend(answers("head")))
    source = Recorded([f"sweep {number}" for number in range(count)])
    tracemalloc.start()
    try:
        result = examine(source, "s", bundle, network, Listener(take_picture=lambda *_: None))
        assert all(sweep.record.structures[0].contour_px for sweep in result.sweeps)
        sweeps = result.sweeps
        del result
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        del sweeps
        gc.collect()
        held_bytes = before - tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 4_000 < held_bytes / count < 34_000
