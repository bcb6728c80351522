from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import SimpleITK

from edgefetal_calibration.challenge import (
    NO_FRAME,
    Answer,
    CaseTruth,
    acouslic_field,
    closest_annotated,
    dice,
    ellipse_perimeter_px,
    hausdorff_px,
    normalised_error,
    read_case,
    read_field,
    score_case,
    score_exams,
    selection_score,
    summarise_challenge,
)
from edgefetal_calibration.datasets.labelled import LabelledSweep
from edgefetal_calibration.datasets.masks import ellipse_mask
from edgefetal_devices.errors import DatasetError, InputError
from edgefetal_runtime.biometry.ellipse import Ellipse
from edgefetal_runtime.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHAPE = (80, 100)
FIELD = np.ones(SHAPE, np.bool_)
# Two sweeps of 40 frames.
SWEEP = 40
MM = 0.5


def square(left: int, side: int = 20, top: int = 30) -> np.ndarray:
    mask = np.zeros(SHAPE, np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


def disc(radius: float, x: float = 50.0, y: float = 40.0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return ellipse_mask(Ellipse(x, y, radius, radius, 0.0), shape)


def case(
    annotated: dict[int, tuple[int, np.ndarray]], acs: tuple[float | None, float | None] = (100.0, None)
) -> CaseTruth:
    """An exam with these annotated frames: grade and mask by number."""
    grades = np.zeros(2 * SWEEP, np.uint8)
    for frame, (grade, _) in annotated.items():
        grades[frame] = grade
    packed = {frame: np.packbits(mask) for frame, (_, mask) in annotated.items()}
    return CaseTruth("exam", "someone", (SWEEP, SWEEP), grades, SHAPE, MM, acs, packed)


def test_optimal_frame_chosen_and_outlined_exactly() -> None:
    mask = disc(25)
    truth = case({10: (1, mask), 11: (2, mask)}, (math.pi * 25, None))
    score = score_case(truth, Answer(10, mask), FIELD)
    assert (score.wfss, score.dice, score.soft_dice, score.hausdorff_px, score.compared_frame) == (
        1.0,
        1.0,
        1.0,
        0.0,
        10,
    )
    # The outline runs through the outermost pixels' middles, half a pixel inside the edge: 49 to 50 across, in mm 25.
    assert score.ac_mm == pytest.approx(math.pi * 25, rel=0.025)
    assert score.reference_ac_mm == math.pi * 25
    assert score.nae_ac == pytest.approx(abs(score.ac_mm - math.pi * 25) / (math.pi * 25))
    assert score.total == pytest.approx(0.5 * (1 - score.nae_ac) + 0.25 + 0.25)


def test_suboptimal_chosen_though_optimal_exists() -> None:
    mask = disc(25)
    # Even where the optimal one is in another sweep.
    score = score_case(case({10: (2, mask), 70: (1, mask)}), Answer(10, mask), FIELD)
    assert (score.wfss, score.soft_dice) == (0.6, 1.0)


def test_suboptimal_chosen_where_none_is_optimal() -> None:
    mask = disc(25)
    assert score_case(case({10: (2, mask), 70: (2, mask)}), Answer(70, mask), FIELD).wfss == 1.0


def test_half_overlap_by_hand() -> None:
    # 20 x 20 against 20 x 20 that lies 10 to its right: 200 of 400 pixels shared, and 10 from edge to edge.
    score = score_case(case({10: (1, square(30))}), Answer(10, square(40)), FIELD)
    assert score.soft_dice == score.dice == pytest.approx(0.5)
    assert score.hausdorff_px == pytest.approx(10)


def test_unannotated_frame_far_from_any() -> None:
    truth = case({10: (1, square(30)), 45: (1, square(30))})
    score = score_case(truth, Answer(26, square(30)), FIELD)
    assert (score.wfss, score.dice, score.soft_dice, score.compared_frame) == (0.0, 0.0, 0.0, None)
    # There is nothing to compare with: the picture's width times 15.
    assert score.hausdorff_px == 1500
    # The circumference is compared with the sweep's all the same.
    assert score.reference_ac_mm == 100.0
    assert score.nae_ac < 1


@pytest.mark.parametrize(("distance", "soft"), [(1, 14 / 15), (14, 1 / 15), (15, 0.0), (16, 0.0)])
@pytest.mark.parametrize("side", [-1, 1])
def test_distance_to_the_annotated_frame(distance: int, soft: float, side: int) -> None:
    truth = case({20: (1, square(30))})
    score = score_case(truth, Answer(20 + side * distance, square(30)), FIELD)
    assert score.wfss == 0.0
    assert score.dice == 0.0
    assert score.soft_dice == pytest.approx(soft)
    assert score.compared_frame == (20 if distance <= 15 else None)
    assert score.hausdorff_px == (0.0 if distance <= 15 else 1500.0)


def test_annotated_frame_of_the_next_sweep_is_not_close() -> None:
    truth = case({SWEEP: (1, square(30))})
    assert closest_annotated(truth, SWEEP - 1) is None
    assert closest_annotated(truth, SWEEP + 1) == SWEEP
    assert score_case(truth, Answer(SWEEP - 1, square(30)), FIELD).soft_dice == 0.0


def test_closest_frame_is_the_closest_and_officially_the_one_before() -> None:
    truth = case({10: (1, square(30)), 20: (1, square(40))})
    assert closest_annotated(truth, 19) == 20
    assert closest_annotated(truth, 19, as_official=True) == 10
    assert closest_annotated(truth, 15) == 10
    assert closest_annotated(truth, 9, as_official=True) == 10
    ours, theirs = (score_case(truth, Answer(19, square(40)), FIELD, as_official=flag) for flag in (False, True))
    assert ours.soft_dice == pytest.approx(1 - 1 / 15)
    assert theirs.soft_dice == pytest.approx(0.5 * (1 - 9 / 15))
    assert ours.hausdorff_px == 0.0
    # Ten pixels off, nine frames before: theirs is below zero.
    assert theirs.hausdorff_px == pytest.approx(-90)


def test_hausdorff_distance_of_another_frame_grows_with_the_frames_between() -> None:
    truth = case({20: (1, square(30))})
    assert score_case(truth, Answer(23, square(40)), FIELD).hausdorff_px == pytest.approx(30)
    assert score_case(truth, Answer(17, square(40)), FIELD).hausdorff_px == pytest.approx(30)
    assert score_case(truth, Answer(17, square(40)), FIELD, as_official=True).hausdorff_px == pytest.approx(30)


@pytest.mark.parametrize("annotated", [True, False])
def test_no_frame_chosen(*, annotated: bool) -> None:
    truth = case({10: (1, square(30))} if annotated else {})
    score = score_case(truth, Answer(NO_FRAME, np.zeros((1, 1), np.bool_)), FIELD)
    assert (score.wfss, score.dice, score.soft_dice, score.nae_ac, score.total) == (0.0, 0.0, 0.0, 1.0, 0.0)
    assert (score.ac_mm, score.reference_ac_mm, score.compared_frame) == (None, None, None)
    assert score.hausdorff_px == 1500


def test_no_frame_is_officially_the_last_one() -> None:
    nothing = Answer(NO_FRAME, np.zeros(SHAPE, np.bool_))
    last = score_case(case({2 * SWEEP - 1: (1, square(30))}), nothing, FIELD, as_official=True)
    assert (last.dice, last.soft_dice, last.wfss, last.nae_ac) == (0.0, 0.0, 0.0, 1.0)
    assert last.hausdorff_px == 744 * 15
    # Where the last one has no annotation, two empty masks are compared.
    other = score_case(case({10: (1, square(30))}), nothing, FIELD, as_official=True)
    assert other.soft_dice == math.inf
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    empty = SimpleITK.GetImageFromArray(np.zeros(SHAPE, np.uint8))
    overlap.Execute(empty, empty)
    assert overlap.GetDiceCoefficient() == math.inf


def test_missing_reference_of_the_chosen_sweep() -> None:
    mask = disc(25)
    score = score_case(case({50: (1, mask)}), Answer(50, mask), FIELD)
    assert score.reference_ac_mm is None
    assert score.ac_mm is not None
    assert (score.nae_ac, score.wfss, score.total) == (1.0, 1.0, 0.5)


def test_empty_prediction() -> None:
    truth = case({10: (1, square(30))})
    empty = np.zeros(SHAPE, np.bool_)
    score = score_case(truth, Answer(10, empty), FIELD)
    assert (score.wfss, score.dice, score.soft_dice, score.nae_ac, score.hausdorff_px) == (1.0, 0.0, 0.0, 1.0, 1500)
    official = score_case(truth, Answer(10, empty), FIELD, as_official=True)
    assert (official.soft_dice, official.hausdorff_px) == (0.0, 744 * 15)
    assert score_case(truth, Answer(30, empty), FIELD).soft_dice == 0.0
    assert score_case(truth, Answer(30, empty), FIELD, as_official=True).soft_dice == math.inf


def test_both_masks_are_cut_to_the_field() -> None:
    field = np.zeros(SHAPE, np.bool_)
    field[:, :40] = True
    truth = case({10: (1, square(30))})
    # Both are cut to columns 30 to 39, in which they agree.
    wide = square(30, side=20) | square(60)
    assert score_case(truth, Answer(10, wide), field).soft_dice == 1.0
    assert score_case(truth, Answer(12, wide), field).soft_dice == pytest.approx(13 / 15)
    # The evaluator cuts ours, and not the other frame's: 200 of 400 pixels.
    assert score_case(truth, Answer(12, wide), field, as_official=True).soft_dice == pytest.approx(2 / 3 * 13 / 15)
    assert score_case(truth, Answer(10, square(60)), field).soft_dice == 0.0


@pytest.mark.parametrize(
    ("ours", "theirs", "nae"),
    [
        (90.0, 100.0, 0.1),
        (100.0, 90.0, 0.1),
        (100.0, 100.0, 0.0),
        (None, 100.0, 1.0),
        (100.0, None, 1.0),
        (0.0, 5.0, 1.0),
    ],
)
def test_normalised_error(ours: float | None, theirs: float | None, nae: float) -> None:
    assert normalised_error(ours, theirs) == pytest.approx(nae)


@pytest.mark.parametrize(
    ("grades", "frame", "score"),
    [
        ([0, 1, 2], 1, 1.0),
        ([0, 1, 2], 2, 0.6),
        ([0, 1, 2], 0, 0.0),
        ([0, 2, 2], 2, 1.0),
        ([0, 0], 1, 0.0),
        ([1], -1, 0.0),
    ],
)
def test_selection_score(grades: list[int], frame: int, score: float) -> None:
    assert selection_score(np.array(grades, np.uint8), frame) == score


@pytest.mark.parametrize("seed", range(5))
def test_dice_and_hausdorff_distance_are_simpleitk_s(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (
        disc(*rng.uniform((8, 35, 30), (20, 65, 50))) | disc(*rng.uniform((2, 10, 10), (6, 90, 70))) for _ in range(2)
    )
    images = [SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in (a, b)]
    overlap, far = SimpleITK.LabelOverlapMeasuresImageFilter(), SimpleITK.HausdorffDistanceImageFilter()
    overlap.Execute(*images)
    far.Execute(*images)
    assert dice(a, b) == pytest.approx(overlap.GetDiceCoefficient())
    assert hausdorff_px(a, b) == pytest.approx(far.GetHausdorffDistance(), abs=1e-4)


@pytest.mark.parametrize("axes", [(30.0, 30.0), (35.0, 22.0)])
def test_perimeter_of_a_whole_ellipse(axes: tuple[float, float]) -> None:
    drawn = Ellipse(50, 40, *axes, 0.4)
    found = ellipse_perimeter_px(ellipse_mask(drawn, SHAPE), FIELD)
    # The outline runs through the middles of the outermost pixels.
    assert found == pytest.approx(drawn.grown(-0.4).circumference(), rel=0.015)


def test_a_cut_ellipse_is_completed_and_not_closed_along_the_edge_of_the_field() -> None:
    field = np.zeros(SHAPE, np.bool_)
    field[:50] = True
    drawn = Ellipse(50, 40, 30, 25, 0.0)
    cut = ellipse_mask(drawn, SHAPE) & field
    completed = ellipse_perimeter_px(cut, field)
    assert completed == pytest.approx(drawn.grown(-0.4).circumference(), rel=0.03)
    # Without the rule the flat bottom is taken for the abdomen's.
    flattened = ellipse_perimeter_px(cut, FIELD)
    assert flattened is not None
    assert completed is not None
    assert flattened < completed * 0.95


def test_an_outline_all_along_the_edge_or_too_short_gives_no_ellipse() -> None:
    field = square(30)
    assert ellipse_perimeter_px(square(30), field) is None
    dot = np.zeros(SHAPE, np.bool_)
    dot[40, 50:52] = True
    assert ellipse_perimeter_px(dot, FIELD) is None
    assert ellipse_perimeter_px(np.zeros(SHAPE, np.bool_), FIELD) is None


def test_the_larger_of_two_pieces_is_measured() -> None:
    both = disc(20, x=30) | disc(6, x=80)
    assert ellipse_perimeter_px(both, FIELD) == ellipse_perimeter_px(disc(20, x=30), FIELD)


def test_other_sizes_and_frames_are_refused() -> None:
    truth = case({})
    with pytest.raises(InputError, match="frame 80 was chosen, and the exam has 80"):
        score_case(truth, Answer(80, FIELD), FIELD)
    with pytest.raises(InputError, match="frame -2"):
        score_case(truth, Answer(-2, FIELD), FIELD)
    with pytest.raises(InputError, match=r"the mask is \(2, 2\)"):
        score_case(truth, Answer(1, np.ones((2, 2), np.bool_)), FIELD)
    with pytest.raises(InputError, match=r"field of view is \(2, 2\)"):
        score_case(truth, Answer(1, FIELD), np.ones((2, 2), np.bool_))


def test_summary_and_the_official_standard_deviation() -> None:
    mask = disc(25)
    truth = case({10: (1, mask), 20: (2, mask)})
    scores = [
        replace(score_case(truth, Answer(frame, mask), FIELD), nae_ac=nae) for frame, nae in ((10, 0.1), (20, 0.3))
    ]
    ours = summarise_challenge(scores)
    assert ours["wfss"] == {"mean": pytest.approx(0.8), "sd": pytest.approx(0.2)}
    assert ours["nae_ac"] == {"mean": pytest.approx(0.2), "sd": pytest.approx(0.1)}
    # Totals 0.95 and 0.75.
    assert ours["total"] == {"mean": pytest.approx(0.85), "sd": pytest.approx(0.1)}
    official = summarise_challenge(scores, as_official=True)
    assert official["total"] == {"mean": pytest.approx(0.85), "sd": pytest.approx(0.5 * 0.9 + 0.25 * 0.2)}


def test_an_infinite_dice_is_counted_and_still_json() -> None:
    nothing = Answer(NO_FRAME, np.zeros(SHAPE, np.bool_))
    scores = [score_case(case({}), nothing, FIELD, as_official=True)]
    summary = summarise_challenge(scores, as_official=True)
    assert summary["n_infinite_dice"] == 1
    assert summary["total"] == {"mean": None, "sd": None}
    json.dumps(summary, allow_nan=False)


@dataclass(frozen=True)
class InMemory:
    held: tuple[LabelledSweep, ...]
    name: str = "exam"
    subject: str = "someone"

    def digest(self) -> str:
        return self.name

    def labels_digest(self) -> str:
        return self.name

    def sweeps(self) -> Iterator[LabelledSweep]:
        yield from self.held


def sweep(grades: list[int], acs: list[float], scale: Scale | None = None) -> LabelledSweep:
    masks = np.stack([square(30) if grade else np.zeros(SHAPE, np.bool_) for grade in grades]).astype(np.uint8)
    return LabelledSweep(
        "sweep",
        np.zeros((len(grades), *SHAPE), np.uint8),
        masks={"abdomen": masks},
        grades=np.array(grades, np.uint8),
        scale=scale or Scale(MM, MM, "test"),
        lengths_mm={"AC": np.array(acs)},
    )


def test_truth_of_an_exam_is_read_sweep_by_sweep() -> None:
    nan = math.nan
    truth = read_case(
        InMemory(
            (sweep([0, 2, 1], [nan, 90.0, 110.0]), sweep([2, 0, 2], [90.0, nan, 94.0]), sweep([0, 0, 0], [nan] * 3))
        )
    )
    assert truth.grades.tolist() == [0, 2, 1, 2, 0, 2, 0, 0, 0]
    assert sorted(truth.packed) == [1, 2, 3, 5]
    assert np.array_equal(truth.mask(2), square(30))
    assert not truth.mask(0).any()
    # Of simulated sweeps, whose frames each have their own, the optimal frames' median; else that of all.
    assert truth.sweep_ac_mm == (110.0, 92.0, None)
    assert [truth.sweep_of(frame) for frame in (0, 2, 3, 8)] == [(0, 0, 3), (0, 0, 3), (1, 3, 6), (2, 6, 9)]
    assert truth.mm_per_px == MM


def test_exams_that_cannot_be_scored_are_refused() -> None:
    plain = LabelledSweep("sweep", np.zeros((1, *SHAPE), np.uint8))
    with pytest.raises(DatasetError, match="not outlined and graded"):
        read_case(InMemory((plain,)))
    with pytest.raises(DatasetError, match="not square"):
        read_case(InMemory((sweep([1], [90.0], Scale(0.5, 0.6, "test")),)))


def test_exams_are_scored_one_after_another() -> None:
    exams = [InMemory((sweep([0, 1], [math.nan, 90.0]),), name=f"exam {k}") for k in range(2)]
    ticks: list[None] = []
    scores = score_exams(exams, lambda _: Answer(1, square(30)), FIELD, advance=lambda: ticks.append(None))
    assert [(score.name, score.wfss, score.soft_dice) for score in scores] == [("exam 0", 1, 1), ("exam 1", 1, 1)]
    assert len(ticks) == 2


def test_the_drawn_field_serves_as_the_official_one(shared_data: Path) -> None:
    path = shared_data / "acouslic" / "fov_mask.mha"
    if not path.is_file():
        pytest.skip(f"the field of view is not at {path}")
    official = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)) != 0
    ours = acouslic_field()
    assert dice(official, ours) > 0.999
    # An abdomen that the field cuts is measured alike.
    for x in (370.0, 160.0):
        mask = disc(130, x, 330.0, ours.shape)
        a, b = ellipse_perimeter_px(mask, official), ellipse_perimeter_px(mask, ours)
        assert a is not None
        assert a == pytest.approx(b, rel=0.01)
        assert a == pytest.approx(2 * math.pi * 129.6, rel=0.01)


def test_official_field_is_that_of_the_simulated_probe(shared_data: Path) -> None:
    path = shared_data / "acouslic" / "fov_mask.mha"
    if not path.is_file():
        pytest.skip(f"no field of view at {path}")
    field = read_field(path)
    assert field.shape == (562, 744)
    assert dice(field, acouslic_field()) > 0.999


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_field_is_read_from_any_plain_numbers(tmp_path: Path, kind: type) -> None:
    drawn = disc(20)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(drawn.astype(kind)), str(tmp_path / "field.mha"))
    assert np.array_equal(read_field(tmp_path / "field.mha"), drawn)


@pytest.mark.parametrize(
    ("shape", "compressed", "said"),
    [((3, 20, 30), False, "one plane"), ((20, 30), True, "one plane"), ((20, 30), False, "copy it again")],
)
def test_what_is_no_field_is_refused(tmp_path: Path, shape: tuple[int, ...], *, compressed: bool, said: str) -> None:
    path = tmp_path / "field.mha"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones(shape, np.float32)), str(path), compressed)
    if "copy" in said:
        path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=said):
        read_field(path)
