"""A whole examination with a network that answers as it is told: what is measured, or why nothing is."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import threading
from dataclasses import dataclass, replace
from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edgefetal_devices.errors import EdgeFetalError, SourceError
from edgefetal_runtime.exam import pipeline
from edgefetal_runtime.exam.measure import StructureSelector
from edgefetal_runtime.exam.overlay import draw_overlay
from edgefetal_runtime.exam.pipeline import ExamResult, Listener, Seen, Stopwatch, examine
from edgefetal_runtime.exam.record import ALL_SWEEPS, Exam, MeasurementRecord, StructureRecord
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.growth.gestation import parse_age
from edgefetal_runtime.infer.bundle import IntervalBand, Intervals, load_bundle
from edgefetal_runtime.infer.golden import golden_pixels
from edgefetal_runtime.infer.network import Network, load_network
from edgefetal_runtime.scale import NOT_GIVEN, NoScale, Scale
from edgefetal_runtime.sources.still import StillSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_runtime.infer.bundle import Bundle

SHAPE = (270, 400)
SCALE = Scale(0.3, 0.3, origin="test", relative_uncertainty=0.01)
HEAD, NONE = (4.0, -4.0), (-4.0, 4.0)
RATIO = 0.8
NAMES = ("HC", "BPD_outer_outer", "OFD", "cephalic_index")
LENGTHS = NAMES[:3]
# A sweep across the head.
CROSSED_MM = (0.0, 0.0, 110.0, 130.0, 138.0, 142.0, 143.0, 142.0, 139.0, 131.0, 112.0, 0.0, 0.0)
# The five that are kept are the first five, because medians do not see the two small ones.
CONTRADICTING_MM = (175.0, 175.0, 120.0, 175.0, 120.0, 175.0, 175.0)
INTERVALS = Intervals(
    level=0.9,
    dataset="hc18",
    n_subjects=20,
    subjects=(),
    digests=(),
    shared=1.0,
    bands={
        "HC": (IntervalBand(below=150.0, half_width=3.0, n=20), IntervalBand(below=None, half_width=6.0, n=20)),
        "cephalic_index": (IntervalBand(below=None, half_width=0.04, n=20),),
    },
)


def _perimeter(semi_1: float, semi_2: float) -> float:
    t = np.linspace(0, 2 * math.pi, 4096, endpoint=False)
    return float(2 * math.pi * np.hypot(semi_1 * np.sin(t), semi_2 * np.cos(t)).mean())


def _semi_major(hc_mm: float, scale: Scale = SCALE) -> float:
    return hc_mm / _perimeter(1, RATIO) / scale.x_mm_per_px


@dataclass
class Sweeps:
    """A source of black frames: so many of each sweep, with its pixel size."""

    sweeps: Sequence[tuple[str, int, Scale | NoScale]]
    kind: str = "video"
    announced: int | None = None
    shape: tuple[int, int] = SHAPE
    origin_px: tuple[int, int] = (0, 0)

    @property
    def frame_count(self) -> int | None:
        return self.announced

    def frames(self) -> Iterator[Frame]:
        for name, count, scale in self.sweeps:
            for index in range(count):
                yield Frame(np.zeros(self.shape, np.uint8), name, index, index / 25.0, scale, self.origin_px)


@pytest.fixture(scope="session")
def answer(
    intact_bundle: Bundle, head_logits: Callable[..., npt.NDArray[np.float32]]
) -> Callable[..., tuple[npt.NDArray[np.float32], tuple[float, float]]]:
    """What the network says of a head of `hc_mm` in the middle of the frame; of 0 mm it says that there is none."""

    def made(hc_mm: float, plane: tuple[float, float] | None = None, sharpness: float = 100.0) -> Any:
        semi = max(_semi_major(hc_mm), 1e-6)
        head = (200.0, 135.0, semi, RATIO * semi, 0.3)
        return head_logits(head, SHAPE, intact_bundle.manifest.preprocess, sharpness), plane or (
            HEAD if hc_mm else NONE
        )

    return made


def _with_intervals(bundle: Bundle, intervals: Intervals | None) -> Bundle:
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"intervals": intervals}))


@pytest.fixture(scope="session")
def examined(
    intact_bundle: Bundle, scripted_network: Callable[..., Network], answer: Callable[..., Any]
) -> Callable[..., ExamResult]:
    """Examine one sweep of heads of the given circumferences, with a bundle that has the given intervals."""

    def run(
        hcs_mm: Sequence[float],
        scale: Scale | NoScale = SCALE,
        *,
        intervals: Intervals | None = None,
        age: str | None = None,
        origin_px: tuple[int, int] = (0, 0),
        **answer_options: Any,
    ) -> ExamResult:
        network = scripted_network([answer(hc_mm, **answer_options) for hc_mm in hcs_mm])
        source = Sweeps([("sweep.avi", len(hcs_mm), scale)], origin_px=origin_px)
        bundle = _with_intervals(intact_bundle, intervals)
        return examine(source, "sweep.avi", bundle, network, age=None if age is None else parse_age(age))

    return run


def _structure(result: ExamResult) -> StructureRecord:
    """What is written of the only structure of the only sweep."""
    (sweep,) = result.exam.sweeps
    (structure,) = sweep.structures
    return structure


def _between_empty_frames(hcs_mm: Sequence[float]) -> list[float]:
    """A sweep that begins before the head and ends after it, as one must that is to be measured."""
    return [0.0] * 3 + list(hcs_mm) + [0.0] * 3


def _named(result: ExamResult, name: str, sweep: str | None = None) -> MeasurementRecord:
    (found,) = [m for m in result.exam.measurements if m.name == name and sweep in (None, m.sweep)]
    return found


@pytest.mark.parametrize("hc_mm", [60.0, 175.0, 240.0])
def test_a_drawn_head_is_measured_to_half_a_per_cent(examined: Callable[..., ExamResult], hc_mm: float) -> None:
    result = examined([hc_mm])
    hc, index = _named(result, "HC"), _named(result, "cephalic_index")
    assert hc.value == pytest.approx(hc_mm, rel=5e-3)
    assert (hc.unit, hc.sweep, hc.interval, hc.abstained) == ("mm", "sweep.avi", None, None)
    assert "Ramanujan" in hc.method
    for name, semi in (("OFD", 1.0), ("BPD_outer_outer", RATIO)):
        axis = _named(result, name)
        assert axis.value == pytest.approx(2 * semi * hc_mm / _perimeter(1, RATIO), rel=8e-3)
        assert (axis.unit, axis.frames) == ("mm", hc.frames)
        assert "outer to outer" in axis.method
    assert index.value == pytest.approx(RATIO, abs=5e-3)
    assert (index.unit, index.abstained) == ("1", None)
    assert [(f.index, f.timestamp_s) for f in hc.frames] == [(0, 0.0)]
    assert index.frames == hc.frames


def test_the_contour_in_the_record_is_the_drawn_head(examined: Callable[..., ExamResult]) -> None:
    head = _structure(examined([175.0]))
    assert head.structure == "head"
    assert head.contour_px is not None
    points = np.array(head.contour_px) - (200.0, 135.0)
    u = (points[:, 0] * math.cos(0.3) + points[:, 1] * math.sin(0.3)) / _semi_major(175.0)
    v = (points[:, 1] * math.cos(0.3) - points[:, 0] * math.sin(0.3)) / (RATIO * _semi_major(175.0))
    np.testing.assert_allclose(np.hypot(u, v), 1.0, atol=5e-3)


def test_stills_are_measured_with_the_pixel_size_of_each(
    tmp_path: Path, intact_bundle: Bundle, scripted_network: Callable[..., Network], answer: Callable[..., Any]
) -> None:
    pictures = []
    for name, scale in (("a.png", Scale(0.3, 0.3, "a")), ("b.png", Scale(0.15, 0.15, "b")), ("c.png", NOT_GIVEN)):
        cv2.imwrite(str(tmp_path / name), np.zeros(SHAPE, np.uint8))
        pictures.append((tmp_path / name, scale))
    network = scripted_network([answer(175.0)])
    result = examine(StillSource("folder", tuple(pictures)), "scans", intact_bundle, network)
    assert result.exam.frames_announced == 3
    assert result.exam.source_kind == "folder"
    assert _named(result, "HC", "a.png").value == pytest.approx(175.0, rel=5e-3)
    assert _named(result, "HC", "b.png").value == pytest.approx(87.5, rel=5e-3)
    assert _named(result, "HC", "c.png").abstained == NOT_GIVEN.reason
    assert [s.scale.origin if s.scale else None for s in result.exam.sweeps] == ["a", "b", None]


def test_without_a_scale_hc_abstains_with_the_way_out_and_the_rest_is_there(
    examined: Callable[..., ExamResult],
) -> None:
    result = examined([175.0], scale=NOT_GIVEN)
    hc = _named(result, "HC")
    assert (hc.value, hc.abstained) == (None, NOT_GIVEN.reason)
    assert _named(result, "cephalic_index").value == pytest.approx(RATIO, abs=5e-3)
    (sweep,) = result.exam.sweeps
    assert sweep.scale is None
    assert _structure(result).contour_px
    assert set(result.overlays) == {_structure(result).overlay}


def test_a_frame_that_is_not_taken_for_a_head_plane_gives_the_reason(examined: Callable[..., ExamResult]) -> None:
    result = examined([175.0], plane=NONE)
    for measurement in result.exam.measurements:
        assert measurement.value is None
        assert measurement.abstained == "not taken for a plane of the head (probability 0.00); find the head"
        assert measurement.frames == ()
    (sweep,) = result.exam.sweeps
    head = _structure(result)
    assert (sweep.frames_seen, head.frames_outlined, head.contour_px, head.overlay) == (1, 0, None, None)
    assert (head.chosen, head.runs, head.why) == ((), (), result.exam.measurements[0].abstained)
    assert result.overlays == {}


def test_every_measure_is_recorded_whether_measured_or_not(examined: Callable[..., ExamResult]) -> None:
    for result in (examined([175.0]), examined([0.0]), examined([0.0, 0.0]), examined([175.0], scale=NOT_GIVEN)):
        units = [(m.name, m.unit) for m in result.exam.measurements[: len(NAMES)]]
        assert units == [*((name, "mm") for name in LENGTHS), ("cephalic_index", "1")]
        assert all((m.value is None) != (m.abstained is None) for m in result.exam.measurements)


@pytest.mark.parametrize("plane", [(math.nan, math.nan), (math.nan, 1.0), (1.0, math.nan), (math.inf, math.inf)])
# NumPy warns of the sum; in the clinic that is no exception, and here it must not hide what the program does next.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_plane_probability_that_is_no_number_is_never_a_head(
    examined: Callable[..., ExamResult], plane: tuple[float, float]
) -> None:
    assert _named(examined([175.0], plane=plane), "HC").value is None


def test_an_unsure_outline_is_not_measured(examined: Callable[..., ExamResult], intact_bundle: Bundle) -> None:
    hc = _named(examined([175.0], sharpness=2.0), "HC")
    assert intact_bundle.manifest.thresholds.agreement > 0.7
    assert hc.value is None
    assert "the outline is not sure enough (agreement 0." in (hc.abstained or "")


def test_a_tenfold_wrong_scale_abstains_and_says_to_check_it(examined: Callable[..., ExamResult]) -> None:
    for factor in (0.1, 10.0):
        wrong = Scale(SCALE.x_mm_per_px * factor, SCALE.y_mm_per_px * factor, origin="test")
        hc = _named(examined([175.0], scale=wrong), "HC")
        assert hc.value is None
        assert (hc.abstained or "").endswith("check the pixel size")


def test_the_frames_of_a_sweep_are_chosen_by_the_rule(examined: Callable[..., ExamResult]) -> None:
    result = examined([0, 0, 120, 130, 136, 140, 142, 141, 137, 131, 120, 0, 0])
    hc = _named(result, "HC")
    # Medians of five over frames 2 to 10: 120, 130, 136, 140, 140, 140, 137, 131, 120; the five best by size: 4, 8, 5,
    # 7, 6.
    assert [frame.index for frame in hc.frames] == [5, 4, 8, 7, 6]
    assert [frame.timestamp_s for frame in hc.frames] == pytest.approx([0.20, 0.16, 0.32, 0.28, 0.24])
    assert hc.value == pytest.approx(140.0, rel=5e-3)
    (sweep,) = result.exam.sweeps
    head = _structure(result)
    assert (sweep.frames_seen, sweep.frames_missed, head.frames_outlined) == (13, 0, 9)
    assert (head.chosen, head.decided_by) == (hc.frames, "size")
    assert [(run.first, run.last) for run in head.runs] == [(2, 10)]
    assert head.runs[0].best == pytest.approx(_perimeter(1, RATIO) * _semi_major(140.0), rel=5e-3)
    assert head.why == ("frames 2 to 10 show the structure; frame 5 is the middle one by size of the 5 largest")
    assert head.contour_px is not None
    assert np.ptp(np.array(head.contour_px)[:, 0]) == pytest.approx(
        2 * _semi_major(140.0) * math.hypot(math.cos(0.3), RATIO * math.sin(0.3)), rel=0.01
    )


@pytest.mark.parametrize(
    ("hcs_mm", "reason"),
    [
        ([150.0] * 12, "the sweep begins on the head, and its true plane may lie beyond; sweep across all of it"),
        (
            [0.0] * 3 + [150.0] * 12,
            "the sweep ends on the head, and its true plane may lie beyond; sweep across all of it",
        ),
        (
            [0.0] * 3 + [150.0] * 3 + [200.0] * 2 + [0.0] * 3,
            "a larger section of the head flashed by; sweep again, more slowly",
        ),
    ],
)
def test_a_sweep_that_is_not_seen_to_cross_the_head_is_not_measured(
    examined: Callable[..., ExamResult], hcs_mm: list[float], reason: str
) -> None:
    result = examined(hcs_mm)
    assert [m.name for m in result.exam.measurements] == list(NAMES)
    assert {(m.value, m.abstained, m.frames) for m in result.exam.measurements} == {(None, reason, ())}
    head = _structure(result)
    assert (head.why, head.chosen, head.contour_px, head.overlay) == (reason, (), None, None)
    assert result.overlays == {}


def test_a_sweep_without_a_head_says_so(examined: Callable[..., ExamResult]) -> None:
    assert _named(examined([0] * 7), "HC").abstained == "no plane of the head in 7 frames; sweep across the head"


def test_a_head_that_only_flashes_by_is_not_measured(examined: Callable[..., ExamResult]) -> None:
    hc = _named(examined([0, 0, 0, 175, 175, 0, 0, 0]), "HC")
    assert hc.abstained == "the head was outlined in 2 of 8 frames, never for long enough; hold the probe still on it"


# Intervals


def test_intervals_are_the_bundle_s_widened_by_the_scale(examined: Callable[..., ExamResult]) -> None:
    for relative_sd in (0.0, 0.01, 0.03):
        scale = replace(SCALE, relative_uncertainty=relative_sd)
        for hc_mm, half_width_mm in ((120.0, 3.0), (240.0, 6.0)):
            hc = _named(examined([hc_mm], scale=scale, intervals=INTERVALS), "HC")
            assert hc.value is not None
            # 1.645 standard deviations hold 90 % of a normal distribution; independent errors add in squares.
            expected = math.hypot(half_width_mm, 1.644854 * relative_sd * hc.value)
            assert hc.interval == pytest.approx((hc.value - expected, hc.value + expected), abs=1e-4)


def test_a_ratio_owes_nothing_to_the_scale(examined: Callable[..., ExamResult]) -> None:
    for scale in (SCALE, replace(SCALE, relative_uncertainty=0.03)):
        index = _named(examined([175.0], scale=scale, intervals=INTERVALS), "cephalic_index")
        assert index.value is not None
        assert index.interval == pytest.approx((index.value - 0.04, index.value + 0.04))


def test_without_a_scale_a_ratio_has_no_interval_and_says_why(examined: Callable[..., ExamResult]) -> None:
    index = _named(examined([175.0], scale=NOT_GIVEN, intervals=INTERVALS), "cephalic_index")
    assert index.value is not None
    assert index.interval is None
    assert "taken as square" in str(index.no_interval)


def test_a_measure_without_a_table_has_no_interval_and_the_level_is_recorded(
    examined: Callable[..., ExamResult],
) -> None:
    result = examined([175.0], intervals=INTERVALS)
    assert result.exam.interval_level == 0.9
    assert _named(result, "OFD").interval is None
    assert _named(result, "HC").interval is not None
    assert all(m.interval is None for m in examined([0.0], intervals=INTERVALS).exam.measurements)


def test_an_age_has_the_interval_of_what_it_was_read_from(examined: Callable[..., ExamResult]) -> None:
    result = examined([175.0], intervals=INTERVALS)
    hc = _named(result, "HC")
    assert hc.interval is not None
    (hadlock,) = [m for m in result.exam.measurements if m.method.startswith("Hadlock 1984 (HC);")]
    weeks = [8.96 + 0.540 * cm + 0.0003 * cm**3 for cm in (mm / 10 for mm in hc.interval)]
    assert hadlock.interval == pytest.approx(weeks)
    assert (hadlock.unit, hadlock.frames) == ("weeks", hc.frames)


def test_a_whole_sweep_is_worth_no_more_than_one_frame(examined: Callable[..., ExamResult]) -> None:
    """The five kept frames follow one another and share their error, so they narrow nothing."""
    one = _named(examined([175.0], intervals=INTERVALS), "HC").interval
    sweep = _between_empty_frames([175.0] * 12)
    many = _named(examined(sweep, intervals=INTERVALS.model_copy(update={"shared": 0.0})), "HC").interval
    assert one is not None
    assert many == pytest.approx(one, abs=0.01)


# Frames that do not agree


def test_frames_that_contradict_one_another_are_not_measured(examined: Callable[..., ExamResult]) -> None:
    result = examined(_between_empty_frames(CONTRADICTING_MM))
    assert [m.name for m in result.exam.measurements] == list(NAMES)
    for measurement in result.exam.measurements:
        assert measurement.value is None
        assert measurement.abstained == "2 of 5 frames contradict the others; sweep again, slowly"
        assert measurement.frames == ()
    (sweep,) = result.exam.sweeps
    head = _structure(result)
    assert (sweep.frames_seen, head.frames_outlined, head.contour_px, head.overlay) == (13, 7, None, None)
    assert head.chosen == ()
    assert result.overlays == {}
    assert result.exam.growth == ()


def test_one_stray_frame_among_five_does_no_harm(examined: Callable[..., ExamResult]) -> None:
    sweep = _between_empty_frames([150.0, 150.0, 200.0, 150.0, 150.0])
    assert _named(examined(sweep), "HC").value == pytest.approx(150.0, rel=5e-3)


# Where the contour lies


def test_the_contour_is_in_pixels_of_the_whole_picture(examined: Callable[..., ExamResult]) -> None:
    """A DICOM region is cut out of its picture; a reader of the record has the whole picture."""
    whole, cut = (_structure(examined([175.0], origin_px=at)) for at in ((0, 0), (31, 17)))
    assert whole.contour_px is not None
    assert cut.contour_px is not None
    np.testing.assert_allclose(np.subtract(cut.contour_px, whole.contour_px), [(31, 17)] * len(cut.contour_px))
    assert np.mean(whole.contour_px, axis=0) == pytest.approx((200.0, 135.0), abs=0.5)


def test_the_overlay_is_drawn_on_the_frame_that_was_cut_out(examined: Callable[..., ExamResult]) -> None:
    whole, cut = (examined([175.0], origin_px=at).overlays for at in ((0, 0), (31, 17)))
    assert whole == cut


# The age that is known


def test_a_known_age_is_recorded_and_measures_are_read_as_size(examined: Callable[..., ExamResult]) -> None:
    result = examined([175.0], age="20w2d", intervals=INTERVALS)
    exam = result.exam
    assert exam.dating is not None
    assert exam.dating.weeks == pytest.approx(20 + 2 / 7)
    assert exam.dating.basis == "given as 20w2d"
    charted = [row for row in exam.growth if row.measure == "HC" and row.centile is not None]
    assert {row.sweep for row in charted} == {"sweep.avi"}
    assert {"Hadlock 1984", "INTERGROWTH-21st 2014"} <= {row.chart for row in charted}
    for row in charted:
        assert row.value == _named(result, "HC").value
        assert row.centile_interval is not None
        assert row.centile is not None
        assert row.centile_interval[0] < row.centile < row.centile_interval[1]


def test_every_sweep_is_of_the_fetus_whose_age_is_known(
    intact_bundle: Bundle, scripted_network: Callable[..., Network], answer: Callable[..., Any]
) -> None:
    """Sweeps of one subject are charted together, and those of several one by one."""
    sweeps = [("a", 1, SCALE), ("b", 1, SCALE), ("c", 1, NOT_GIVEN)]
    for kind, charted in (("video", {ALL_SWEEPS}), ("folder", {"a", "b"})):
        network = scripted_network([answer(175.0)])
        exam = examine(Sweeps(sweeps, kind), "s", intact_bundle, network, age=parse_age("20w2d")).exam
        assert exam.one_subject == (kind != "folder")
        assert {row.sweep for row in exam.growth} == charted


# Nothing in millimetres without a scale

_QUANTITY = re.compile(r"\d\s*(mm|cm|g|kg|weeks?|w\d+d|days?)\b")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


@pytest.mark.parametrize(
    "hcs_mm",
    [
        [175.0],
        [0.0],
        [150.0] * 6,
        _between_empty_frames([150.0] * 6),
        _between_empty_frames(CONTRADICTING_MM),
        [150.0, 150.0, 150.0, 200.0, 200.0],
        [30.0],
    ],
)
@pytest.mark.parametrize("age", [None, "20w2d"])
@pytest.mark.parametrize("intervals", [None, INTERVALS])
def test_without_a_scale_no_mm_weeks_or_grams_are_anywhere(
    examined: Callable[..., ExamResult], hcs_mm: list[float], age: str | None, intervals: Intervals | None
) -> None:
    exam = examined(hcs_mm, scale=NOT_GIVEN, age=age, intervals=intervals).exam
    fields = json.loads(exam.model_dump_json())
    for measurement in fields["measurements"]:
        # The names of what could not be measured are there, with the reason; figures are of ratios only.
        if measurement["unit"] != "1":
            assert (measurement["value"], measurement["interval"]) == (None, None)
    assert {m["unit"] for m in fields["measurements"]} == {"mm", "1"}
    assert [m["name"] for m in fields["measurements"]] == list(NAMES)
    assert fields["growth"] == []
    assert all(sweep["scale"] is None for sweep in fields["sweeps"])
    # The one age in the record is the one that was typed.
    assert (fields.pop("dating") is None) == (age is None)
    assert not [text for text in _texts(fields) if _QUANTITY.search(text)]


def test_with_a_scale_the_same_search_finds_them(examined: Callable[..., ExamResult]) -> None:
    """The search above is worth something: with a scale and an age it finds what it looks for."""
    fields = json.loads(examined([175.0], age="20w2d").exam.model_dump_json())
    assert any(m["unit"] == "weeks" and m["value"] for m in fields["measurements"])
    assert [text for text in _texts(fields) if _QUANTITY.search(text)]


def test_the_overlay_says_no_mm_without_a_scale(
    examined: Callable[..., ExamResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[tuple[str, ...]] = []

    def keep(pixels: Any, contour_px: Any, lines: tuple[str, ...]) -> Any:
        captions.append(lines)
        return draw_overlay(pixels, contour_px, lines)

    monkeypatch.setattr(pipeline, "draw_overlay", keep)
    examined([175.0], scale=NOT_GIVEN, intervals=INTERVALS)
    examined([175.0], intervals=INTERVALS)
    without, with_scale = (" ".join(caption) for caption in captions)
    assert not _QUANTITY.search(without)
    assert "pixel size unknown" in without
    assert re.search(r"HC 17[456]\.\d mm \(16\d to 18\d\)", with_scale)
    assert "0.3000 x 0.3000 mm/px" in with_scale


# Sweeps and records


def test_sweeps_are_measured_one_by_one_and_their_pictures_numbered(
    intact_bundle: Bundle, scripted_network: Callable[..., Network], answer: Callable[..., Any]
) -> None:
    first = _between_empty_frames([150.0] * 6)
    sweeps = Sweeps([("first", 12, SCALE), ("empty", 5, SCALE), ("third", 1, NOT_GIVEN)], kind="folder", announced=18)
    network = scripted_network([answer(hc_mm) for hc_mm in [*first, *[0.0] * 5, 200.0]])
    result = examine(sweeps, "scans", intact_bundle, network)
    heads = [sweep.structures[0] for sweep in result.exam.sweeps]
    assert [
        (s.name, s.frames_seen, h.frames_outlined, h.overlay) for s, h in zip(result.exam.sweeps, heads, strict=True)
    ] == [
        ("first", 12, 6, "overlay-001-head.png"),
        ("empty", 5, 0, None),
        ("third", 1, 1, "overlay-003-head.png"),
    ]
    assert set(result.overlays) == {"overlay-001-head.png", "overlay-003-head.png"}
    assert [(m.sweep, m.name) for m in result.exam.measurements if m.name in NAMES] == [
        (sweep, name) for sweep in ("first", "empty", "third") for name in NAMES
    ]
    # What is computed from measures is there where they are, and nowhere else.
    assert {m.sweep for m in result.exam.measurements if m.name not in NAMES} == {"first"}
    assert _named(result, "HC", "first").value == pytest.approx(150.0, rel=5e-3)
    assert _named(result, "HC", "empty").value is None
    assert _named(result, "cephalic_index", "third").value == pytest.approx(RATIO, abs=5e-3)
    assert result.exam.frames_announced == 18


def test_the_overlay_shows_the_frame_that_was_measured(
    intact_bundle: Bundle, scripted_network: Callable[..., Network], answer: Callable[..., Any]
) -> None:
    result = examine(Sweeps([("s", 1, SCALE)]), "s", intact_bundle, scripted_network([answer(175.0)]))
    (content,) = result.overlays.values()
    overlay = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert overlay.shape[1:] == (SHAPE[1], 3)
    assert overlay.shape[0] > SHAPE[0]
    rows, columns = np.nonzero(overlay[: SHAPE[0]].any(axis=2))
    centre = (200.0, 135.0)
    reach = np.hypot(columns - centre[0], rows - centre[1])
    assert RATIO * _semi_major(175.0) - 3 < reach.min()
    assert reach.max() < _semi_major(175.0) + 3


def test_the_record_says_what_measured_and_when(examined: Callable[..., ExamResult], intact_bundle: Bundle) -> None:
    before = dt.datetime.now(dt.timezone.utc)
    exam = examined([175.0]).exam
    assert (exam.bundle.name, exam.bundle.sha256) == (intact_bundle.manifest.name, intact_bundle.sha256)
    assert exam.bundle.backend == "scripted"
    assert exam.edgefetal == metadata.version("edgefetal")
    assert (exam.source, exam.source_kind, exam.frames_announced) == ("sweep.avi", "video", None)
    created = dt.datetime.fromisoformat(exam.created_utc)
    assert created.utcoffset() == dt.timedelta(0)
    assert abs((created - before).total_seconds()) < 60
    (sweep,) = exam.sweeps
    assert sweep.scale is not None
    assert sweep.scale.model_dump() == {
        "x_mm_per_px": 0.3,
        "y_mm_per_px": 0.3,
        "origin": "test",
        "relative_uncertainty": 0.01,
    }
    assert "not a medical device" in exam.disclaimer.lower()
    assert (exam.dating, exam.interval_level, exam.growth, exam.ended, exam.one_subject) == (None, None, (), None, True)


@pytest.mark.parametrize("age", [None, "20w2d"])
@pytest.mark.parametrize("hcs_mm", [[175.0], [0.0], CROSSED_MM, [100.0, 110.0, 120.0, 110.0], [0.0] * 4, []])
@pytest.mark.parametrize("scale", [SCALE, NOT_GIVEN])
def test_a_record_comes_back_from_json_as_it_was(
    examined: Callable[..., ExamResult], hcs_mm: list[float], scale: Scale | NoScale, age: str | None
) -> None:
    exam = examined(hcs_mm, scale=scale, age=age, intervals=INTERVALS).exam
    assert Exam.model_validate_json(exam.model_dump_json()) == exam


def test_an_empty_source_gives_an_empty_record(examined: Callable[..., ExamResult]) -> None:
    result = examined([])
    assert (result.exam.sweeps, result.exam.measurements, result.overlays) == ((), (), {})


def test_times_are_those_that_each_stage_took(
    intact_bundle: Bundle,
    scripted_network: Callable[..., Network],
    answer: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stages run beside one another, so each thread has a clock of its own here."""
    clocks = threading.local()

    def now_s() -> float:
        return getattr(clocks, "now_s", 100.0)

    def spend(seconds: float) -> None:
        clocks.now_s = now_s() + seconds

    class Slow(Sweeps):
        def frames(self) -> Iterator[Frame]:
            for frame in super().frames():
                spend(0.005)
                yield frame

    network = scripted_network([answer(150.0)])
    run, prepare, find_all, push = network.backend.run, Network.prepare, pipeline.find_all, StructureSelector.push
    monkeypatch.setattr(network.backend, "run", lambda image: (spend(0.020), run(image))[1])
    monkeypatch.setattr(Network, "prepare", lambda self, pixels: (spend(0.002), prepare(self, pixels))[1])
    monkeypatch.setattr(pipeline, "find_all", lambda *args: (spend(0.003), find_all(*args))[1])
    monkeypatch.setattr(StructureSelector, "push", lambda self, finding: (spend(0.004), push(self, finding))[1])
    monkeypatch.setattr(pipeline, "time", SimpleNamespace(perf_counter=now_s, monotonic=lambda: 0.0))
    monkeypatch.setattr(pipeline, "Stopwatch", lambda: Stopwatch(started_s=now_s() - 0.5))
    result = examine(Slow([("s", 10, SCALE)]), "s", intact_bundle, network, Listener(on_frame=lambda *_: spend(0.001)))
    assert result.exam.timings.model_dump() == pytest.approx(
        {
            "total_s": 0.550,
            "first_result_s": 0.5,
            "read_ms": 5.0,
            "prepare_ms": 2.0,
            "infer_ms": 20.0,
            "find_ms": 3.0,
            "choose_ms": 4.0,
        }
    )


def test_real_times_are_positive_and_no_stage_takes_longer_than_all(examined: Callable[..., ExamResult]) -> None:
    timings = examined([150.0] * 12).exam.timings
    stages_ms = (timings.read_ms, timings.prepare_ms, timings.infer_ms, timings.find_ms, timings.choose_ms)
    assert min(stages_ms) > 0
    assert 0 < timings.first_result_s < timings.total_s < 60
    # Stages overlap, so that only each for itself is bounded.
    assert 12e-3 * max(stages_ms) <= timings.total_s


@pytest.mark.parametrize("lanes", [2, 3])
def test_frames_side_by_side_give_the_same_examination(intact_bundle: Bundle, lanes: int) -> None:
    """The plain path, one frame behind another, is what the other has to equal to the last digit."""
    shown = golden_pixels(intact_bundle)

    class Golden:
        kind, frame_count = "video", None

        def frames(self) -> Iterator[Frame]:
            for index in range(24):
                # Single pictures, which are measured each, and then a sweep.
                name, place = (f"picture {index}", 0) if index < 12 else ("sweep", index - 12)
                yield Frame(shown[index % len(shown)], name, place, place / 25.0, SCALE)

    def record(network: Network) -> dict[str, Any]:
        result = examine(Golden(), "golden", intact_bundle, network, simulated=True)
        return result.exam.model_dump(mode="json", exclude={"created_utc", "timings"})

    wanted = record(load_network(intact_bundle, backend="onnxruntime", threads=1))
    network = load_network(intact_bundle, backend="onnxruntime", threads=lanes, lanes=lanes)
    assert network.backend.lanes == lanes
    assert any(measured["value"] for measured in wanted["measurements"])
    assert record(network) == wanted


def test_each_frame_is_told_of_once_and_asked_of_the_network_once(
    intact_bundle: Bundle, scripted_network: Callable[..., Network], answer: Callable[..., Any]
) -> None:
    network = scripted_network([answer(150.0)])
    told: list[tuple[str, int, int]] = []

    def keep(seen: Seen, _: object) -> None:
        told.append((seen.finding.frame.sweep, seen.finding.frame.index, len(network.backend.images)))

    examine(Sweeps([("a", 40, SCALE), ("b", 3, SCALE)]), "s", intact_bundle, network, Listener(on_frame=keep))
    assert [(sweep, index) for sweep, index, _ in told] == [
        *(("a", i) for i in range(40)),
        ("b", 0),
        ("b", 1),
        ("b", 2),
    ]
    assert len(network.backend.images) == 43
    # The network runs ahead of whoever is told, but only by what the two queues behind it hold, with a frame in the
    # hands of each stage.
    assert all(0 <= asked - number <= 6 for number, (_, _, asked) in enumerate(told, start=1))


def test_a_source_that_breaks_off_is_a_user_error(
    intact_bundle: Bundle, scripted_network: Callable[..., Network], answer: Callable[..., Any]
) -> None:
    class Broken(Sweeps):
        def frames(self) -> Iterator[Frame]:
            yield from super().frames()
            raise SourceError("the probe was unplugged")

    with pytest.raises(SourceError, match="unplugged"):
        examine(Broken([("s", 3, SCALE)]), "s", intact_bundle, scripted_network([answer(150.0)]))


def test_a_frame_too_small_to_measure_is_a_user_error(
    intact_bundle: Bundle, scripted_network: Callable[..., Network], answer: Callable[..., Any]
) -> None:
    source = Sweeps([("s", 1, SCALE)], shape=(10, 10))
    with pytest.raises(SourceError, match="needs at least 16 a side"):
        examine(source, "s", intact_bundle, scripted_network([answer(150.0)]))


def test_a_bundle_without_a_head_in_its_mask_is_a_user_error_or_abstains(
    bundle_copy: Path,
    edit_manifest: Callable[..., None],
    scripted_network: Callable[..., Network],
    answer: Callable[..., Any],
) -> None:
    edit_manifest(bundle_copy, heads={"mask": ["abdomen"], "plane": ["head", "none"]})
    try:
        bundle = load_bundle(bundle_copy)
        result = examine(Sweeps([("s", 1, SCALE)]), "s", bundle, scripted_network([answer(150.0)], bundle.manifest))
    except EdgeFetalError:
        return
    assert all(m.value is None and m.abstained for m in result.exam.measurements)


def test_the_starter_finds_no_head_in_black_or_in_noise(intact_bundle: Bundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = []
    for name, frame in (("black.png", np.zeros(SHAPE)), ("noise.png", rng.integers(0, 256, SHAPE))):
        cv2.imwrite(str(tmp_path / name), frame.astype(np.uint8))
        pictures.append((tmp_path / name, SCALE))
    network = load_network(intact_bundle, threads=1)
    result = examine(StillSource("folder", tuple(pictures)), "scans", intact_bundle, network)
    assert [m.value for m in result.exam.measurements] == [None] * 2 * len(NAMES)
    assert all(m.abstained for m in result.exam.measurements)
