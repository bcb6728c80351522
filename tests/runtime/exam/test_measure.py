"""Measuring a sweep, each structure on frames of its own, and several sweeps together."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_runtime.biometry.femur import Shaft
from edgefetal_runtime.biometry.measurement import Abstained, Measured
from edgefetal_runtime.biometry.outline import Outline
from edgefetal_runtime.biometry.principal import PRINCIPAL, find_structure
from edgefetal_runtime.biometry.quantities import AC, CEPHALIC_INDEX, FL, HC
from edgefetal_runtime.exam.find import Finding
from edgefetal_runtime.exam.measure import (
    MAX_SPREAD,
    QUANTITIES,
    StructureResult,
    StructureSelector,
    join_sweeps,
    size_px,
)
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.infer.bundle import IntervalBand, Intervals
from edgefetal_runtime.infer.preprocess import letterbox
from edgefetal_runtime.scale import NOT_GIVEN, NoScale, Scale

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from edgefetal_runtime.exam.find import Found
    from edgefetal_runtime.infer.bundle import Bundle

SHAPE = (270, 400)
SCALE = Scale(0.3, 0.3, origin="test", relative_uncertainty=0.0)
STRUCTURES = ("head", "abdomen", "femur")
RATIO = 0.9
BANDS = (IntervalBand(below=None, half_width=5.0, n=20),)
INTERVALS = Intervals(
    level=0.9,
    dataset="drawn",
    n_subjects=20,
    subjects=(),
    digests=(),
    shared=0.0,
    bands={"HC": BANDS, "AC": BANDS, "FL": BANDS},
)
ABSENT = Abstained("not taken for a plane of it")


@pytest.fixture(scope="module")
def drawn(intact_bundle: Bundle, head_logits: Callable[..., npt.NDArray[np.float32]]) -> Callable[..., Found]:
    """What is found of a structure of this length in mm (HC, AC or FL), through the real geometry."""
    spec = intact_bundle.manifest.preprocess
    box = letterbox(*SHAPE, spec)

    @cache
    def made(structure: str, length_mm: float, scale: Scale | NoScale = SCALE) -> Found:
        if not length_mm:
            return ABSENT
        if structure == "femur":
            ellipse = (200.0, 135.0, length_mm / SCALE.x_mm_per_px / 2, 6.0, 0.3)
        else:
            t = np.linspace(0, 2 * math.pi, 4096, endpoint=False)
            semi = length_mm / SCALE.x_mm_per_px / float(2 * math.pi * np.hypot(np.sin(t), RATIO * np.cos(t)).mean())
            ellipse = (200.0, 135.0, semi, RATIO * semi, 0.3)
        return find_structure(structure, head_logits(ellipse, SHAPE, spec), box, scale)

    return made


@pytest.fixture(scope="module")
def swept(drawn: Callable[..., Found]) -> Callable[..., StructureResult]:
    """Measure a sweep of these lengths in mm; 0 where nothing is outlined."""

    def run(
        structure: str,
        lengths_mm: Sequence[float],
        *,
        qualities: Sequence[float] | None = None,
        indices: Sequence[int] | None = None,
        scale: Scale | NoScale = SCALE,
        intervals: Intervals | None = INTERVALS,
        only_simulated: bool = False,
    ) -> StructureResult:
        selector = StructureSelector(structure)
        for number, length_mm in enumerate(lengths_mm):
            index = number if indices is None else indices[number]
            frame = Frame(np.zeros(SHAPE, np.uint8), "s", index, index / 25.0, scale)
            quality = None if qualities is None else qualities[number]
            selector.push(Finding(frame, {structure: drawn(structure, length_mm, scale)}, quality))
        return selector.finish(intervals, only_simulated=only_simulated)

    return run


def _crossed(peak_mm: float, count: int = 15) -> list[float]:
    """Lengths of a sweep across the plane, in the proportions of an ellipsoid's sections."""
    places = np.linspace(-0.7, 0.7, count)
    return [0.0, 0.0, *(peak_mm * np.sqrt(1 - places**2)).round(2).tolist(), 0.0, 0.0]


def _value(result: StructureResult, quantity: Any = HC) -> float:
    measured = result.measured[quantity]
    assert isinstance(measured, Measured), measured
    return measured.value


def _reasons(result: StructureResult) -> set[str]:
    """Why nothing is measured; empty where something is."""
    return {value.reason for value in result.measured.values() if isinstance(value, Abstained)}


LENGTHS_MM = {"head": 200.0, "abdomen": 180.0, "femur": 40.0}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_each_structure_is_measured_by_its_own_measures_near_its_largest_section(
    swept: Callable[..., StructureResult], structure: str
) -> None:
    length_mm = LENGTHS_MM[structure]
    result = swept(structure, _crossed(length_mm))
    assert (result.structure, tuple(result.measured)) == (structure, QUANTITIES[structure])
    still_mm = _value(swept(structure, [length_mm]), PRINCIPAL[structure])
    assert still_mm == pytest.approx(length_mm, rel=0.03 if structure == "femur" else 5e-3)
    assert _value(result, PRINCIPAL[structure]) == pytest.approx(still_mm, rel=0.02)
    assert isinstance(result.outline, Shaft if structure == "femur" else Outline)
    assert result.frame is not None
    assert result.frames[0] is result.frame
    assert len({frame.index for frame in result.frames}) == 5
    chosen = f"frame {result.frame.index} is the middle one by size of the 5 largest"
    assert result.why == f"frames 2 to 16 show the structure; {chosen}"


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_still_is_measured_without_asking_how_it_was_found(
    swept: Callable[..., StructureResult], structure: str
) -> None:
    result = swept(structure, [LENGTHS_MM[structure]])
    assert (result.why, len(result.frames)) == ("the only frame", 1)
    assert isinstance(result.measured[PRINCIPAL[structure]], Measured)


@pytest.mark.parametrize(
    ("lengths_mm", "reason"),
    [
        ([0.0], ABSENT.reason),
        ([0.0] * 7, "no plane of the head in 7 frames; sweep across the head"),
        (
            [0.0, 0.0, 0.0, 200.0, 200.0, 0.0, 0.0],
            "the head was outlined in 2 of 7 frames, never for long enough; hold the probe still on it",
        ),
        ([200.0] * 9, "the sweep begins on the head, and its true plane may lie beyond; sweep across all of it"),
        (
            [0.0] * 3 + [175.0, 175.0, 120.0, 175.0, 120.0, 175.0, 175.0] + [0.0] * 3,
            "2 of 5 frames contradict the others; sweep again, slowly",
        ),
    ],
    ids=["not on a still", "nowhere", "flash", "not crossed", "contradiction"],
)
def test_where_nothing_is_measured_the_reason_is_said_everywhere(
    swept: Callable[..., StructureResult], lengths_mm: list[float], reason: str
) -> None:
    result = swept("head", lengths_mm)
    assert _reasons(result) == {reason}
    assert result.why == reason
    assert (result.frame, result.outline, result.frames) == (None, None, ())
    assert result.choice.seen == sum(length > 0 for length in lengths_mm)


def test_nothing_pushed_gives_nothing() -> None:
    result = StructureSelector("head").finish(None, only_simulated=False)
    assert _reasons(result) == {"no plane of the head in 0 frames; sweep across the head"}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_quality_chooses_among_abdomens_alone(swept: Callable[..., StructureResult], structure: str) -> None:
    """Graded best where the section is far from its largest."""
    lengths_mm = _crossed(LENGTHS_MM[structure])
    qualities = [0.9 if 3 <= number <= 7 else 0.1 for number in range(len(lengths_mm))]
    result = swept(structure, lengths_mm, qualities=qualities)
    assert result.frame is not None
    assert result.choice.graded == (structure == "abdomen")
    assert (result.frame.index in range(3, 8)) == (structure == "abdomen")
    assert ("graded best" in result.why) == (structure == "abdomen")


def test_without_grades_abdomens_go_by_size(swept: Callable[..., StructureResult]) -> None:
    assert not swept("abdomen", _crossed(180.0)).choice.graded


def test_a_quality_that_is_no_number_is_no_good_grade(swept: Callable[..., StructureResult]) -> None:
    lengths_mm = _crossed(180.0)
    qualities = [math.nan if number < 9 else 0.5 for number in range(len(lengths_mm))]
    result = swept("abdomen", lengths_mm, qualities=qualities)
    assert {frame.index for frame in result.frames} <= set(range(9, 17))
    assert math.isfinite(result.choice.runs[0].best)


def test_frames_are_named_as_the_source_numbers_them(swept: Callable[..., StructureResult]) -> None:
    """A live source began long before the sweep, and drops frames."""
    lengths_mm = _crossed(200.0)
    indices = [1000 + 3 * number for number in range(len(lengths_mm))]
    result = swept("head", lengths_mm, indices=indices)
    (run,) = result.choice.runs
    assert (run.first, run.last) == (1006, 1048)
    assert result.choice.chosen == run
    assert result.frame is not None
    assert result.frame.index in indices
    assert result.why.startswith("frames 1006 to 1048 show")
    assert f"frame {result.frame.index} is the middle one" in result.why


def test_several_runs_are_mentioned(swept: Callable[..., StructureResult]) -> None:
    result = swept("head", [0.0] * 3 + [150.0] * 4 + [0.0] * 3 + _crossed(200.0))
    assert len(result.choice.runs) == 2
    assert result.why.startswith("frames 12 to 26, of 2 runs the best, show the structure")


@pytest.mark.parametrize("structure", STRUCTURES)
def test_what_was_learnt_from_simulations_alone_is_outlined_and_not_measured(
    swept: Callable[..., StructureResult], structure: str
) -> None:
    lengths_mm = _crossed(LENGTHS_MM[structure])
    shown, hidden = (swept(structure, lengths_mm, only_simulated=only) for only in (False, True))
    (reason,) = _reasons(hidden)
    assert f"learnt the {structure} from simulated pictures alone" in reason
    assert "--simulated" in reason
    assert set(hidden.measured) == set(shown.measured)
    assert not any(isinstance(value, Measured) for value in hidden.measured.values())
    assert shown.outline is not None
    assert hidden.outline is shown.outline
    assert [frame.index for frame in hidden.frames] == [frame.index for frame in shown.frames]


def test_without_a_scale_there_is_an_outline_and_no_length(swept: Callable[..., StructureResult]) -> None:
    result = swept("head", _crossed(200.0), scale=NOT_GIVEN)
    assert result.measured[HC] == Abstained(NOT_GIVEN.reason)
    assert isinstance(result.measured[CEPHALIC_INDEX], Measured)
    assert result.outline is not None


def test_sizes_for_the_choice_need_no_scale(drawn: Callable[..., Found]) -> None:
    for structure in STRUCTURES:
        with_scale, without = (drawn(structure, LENGTHS_MM[structure], scale) for scale in (SCALE, NOT_GIVEN))
        assert size_px(without) == pytest.approx(size_px(with_scale))
        assert size_px(without) == pytest.approx(LENGTHS_MM[structure] / SCALE.x_mm_per_px, rel=0.03)
    assert size_px(ABSENT) == 0


# Several sweeps


@pytest.fixture(scope="module")
def joined(swept: Callable[..., StructureResult]) -> Callable[..., StructureResult]:
    """What sweeps that measured these circumferences say together; 0 where one found nothing."""

    def run(*hcs_mm: float, only_simulated: bool = False) -> StructureResult:
        sweeps = [swept("head", [hc_mm], only_simulated=only_simulated) for hc_mm in hcs_mm]
        return join_sweeps(sweeps, INTERVALS)

    return run


def _half_width(result: StructureResult) -> float:
    measured = result.measured[HC]
    assert isinstance(measured, Measured)
    assert measured.interval is not None
    return (measured.interval[1] - measured.interval[0]) / 2


@pytest.mark.parametrize(
    ("hcs_mm", "middle_mm"),
    [
        ((200.0,), 200.0),
        ((202.0, 200.0), 200.0),
        ((200.0, 204.0, 202.0), 202.0),
        ((200.0, 0.0, 204.0, 202.0), 202.0),
        ((0.0, 200.0), 200.0),
        ((200.0, 209.0, 218.0), 209.0),
    ],
)
def test_sweeps_that_agree_are_spoken_for_by_the_one_in_the_middle(
    joined: Callable[..., StructureResult], hcs_mm: tuple[float, ...], middle_mm: float
) -> None:
    result = joined(*hcs_mm)
    assert _value(result) == pytest.approx(middle_mm, rel=5e-3)
    assert isinstance(result.outline, Outline)
    assert size_px(result.outline) * SCALE.x_mm_per_px == pytest.approx(middle_mm, rel=5e-3), "its own picture"
    measured = sum(hc_mm > 0 for hc_mm in hcs_mm)
    assert result.why == f"of {measured} sweeps that measured it, the one in the middle"


def test_more_sweeps_that_agree_narrow_the_interval_and_a_missing_one_does_not(
    joined: Callable[..., StructureResult],
) -> None:
    one, two, four = joined(200.0), joined(200.0, 201.0), joined(200.0, 201.0, 200.5, 200.7)
    assert _half_width(two) == pytest.approx(_half_width(one) / math.sqrt(2), rel=0.02)
    assert _half_width(four) == pytest.approx(_half_width(one) / 2, rel=0.02)
    assert _half_width(joined(200.0, 0.0)) == pytest.approx(_half_width(one))


@pytest.mark.parametrize(
    "hcs_mm",
    [(150.0, 170.0), (200.0, 170.0, 0.0), (150.0, 170.0, 190.0), (110.0, 170.0, 230.0), (150.0, 150.0, 190.0, 190.0)],
)
def test_sweeps_that_do_not_agree_give_nothing(
    joined: Callable[..., StructureResult], hcs_mm: tuple[float, ...]
) -> None:
    """Of two nobody knows which is wrong, and of several that lie far apart likewise."""
    result = joined(*hcs_mm)
    said = ", ".join(f"{hc_mm:.0f}" for hc_mm in sorted(hcs_mm) if hc_mm)
    (reason,) = _reasons(result)
    assert reason.startswith("the sweeps do not agree (HC ")
    assert reason.endswith(" mm); sweep again")
    figures = [float(figure) for figure in reason.partition("(HC ")[2].partition(" mm)")[0].split(", ")]
    assert figures == pytest.approx([float(figure) for figure in said.split(", ")], abs=1)
    assert (result.frame, result.outline, result.frames, result.why) == (None, None, (), reason)


@pytest.mark.parametrize("outlier_mm", [140.0, 260.0])
def test_an_outlier_among_three_is_left_out(joined: Callable[..., StructureResult], outlier_mm: float) -> None:
    result = joined(200.0, outlier_mm, 201.0)
    assert 199 < _value(result) < 202.5
    assert _half_width(result) == pytest.approx(_half_width(joined(200.0, 201.0)), rel=0.01), "it narrows nothing"


def test_two_sweeps_are_allowed_the_published_spread_and_no_more(joined: Callable[..., StructureResult]) -> None:
    assert not _reasons(joined(200.0, 200.0 * (1 + MAX_SPREAD - 0.01)))
    assert _reasons(joined(200.0, 200.0 * (1 + MAX_SPREAD + 0.01)))


def test_where_no_sweep_measured_anything_the_best_one_gives_the_reason(
    swept: Callable[..., StructureResult],
) -> None:
    sweeps = [swept("head", lengths_mm) for lengths_mm in ([0.0] * 5, [200.0] * 9, [0.0] * 4)]
    assert join_sweeps(sweeps, INTERVALS) is sweeps[1]


def test_hidden_values_stay_hidden_when_sweeps_are_joined(joined: Callable[..., StructureResult]) -> None:
    result = joined(200.0, 201.0, only_simulated=True)
    assert not any(isinstance(value, Measured) for value in result.measured.values())
    assert result.outline is not None


@pytest.mark.parametrize(("structure", "quantity"), [("abdomen", AC), ("femur", FL)])
def test_other_structures_are_joined_by_their_own_length(
    swept: Callable[..., StructureResult], structure: str, quantity: Any
) -> None:
    length_mm = LENGTHS_MM[structure]
    agreeing = join_sweeps([swept(structure, [times * length_mm]) for times in (1.0, 1.02, 1.01)], INTERVALS)
    assert _value(agreeing, quantity) == pytest.approx(_value(swept(structure, [1.01 * length_mm]), quantity))
    apart = join_sweeps([swept(structure, [times * length_mm]) for times in (1.0, 1.3)], INTERVALS)
    assert all(reason.startswith(f"the sweeps do not agree ({quantity.name} ") for reason in _reasons(apart))
