"""Recipes on graded frames, end to end on exams that are drawn in memory: an abdomen is a bright disc on noise."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from edgefetal_calibration.datasets.labelled import NOT_THE_PLANE, OPTIMAL, SUBOPTIMAL, LabelledSweep
from edgefetal_calibration.datasets.split import Part
from edgefetal_devices.errors import CheckFailedError, DatasetError, InputError, OutputError
from edgefetal_export.teachers.fetalclip import FetalClipConfig
from edgefetal_export.teachers.lora import LoraSettings, lora_targets
from edgefetal_export.teachers.quality_baselines import TABLE
from edgefetal_export.training import run as run_folder
from edgefetal_export.training.quality import encoders as encoders_module
from edgefetal_export.training.quality import segmenter as segmenter_module
from edgefetal_export.training.quality.augment import published_copy, vary
from edgefetal_export.training.quality.classifier import QualityRecipe, QualityTask, quality_recipe
from edgefetal_export.training.quality.decision import Decision, fit_probability, fit_threshold, read_decision
from edgefetal_export.training.quality.encoders import (
    BaselineEncoder,
    Provenance,
    TowerEncoder,
    build_classifier,
    provenance_of,
)
from edgefetal_export.training.quality.frames import FrameSamples, Material, Wishes, draw_split, refuse_ungraded
from edgefetal_export.training.quality.loop import Reporter, make_accelerator
from edgefetal_export.training.quality.sampling import balanced, shuffled
from edgefetal_export.training.quality.scoring import load_scorer
from edgefetal_export.training.quality.segmenter import (
    OPTIMAL_CHANNEL,
    SUBOPTIMAL_CHANNEL,
    covered,
    dice_loss,
    frame_scores,
    mask_target,
    segmentation_recipe,
)
from edgefetal_export.training.quality.whole_run import train_on_frames

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_export.training.quality.segmenter import SegmentationRecipe

HEIGHT, WIDTH, FRAMES = 60, 80, 12
TOWER = FetalClipConfig(image_px=64, patch_px=16, width=16, layers=2, heads=2, projection=8)
TINY_BASELINE = BaselineEncoder(name="densenet121", scale="tiny")


@dataclass(frozen=True)
class DrawnExam:
    """Two sweeps: the first crosses an abdomen, the second does not."""

    name: str
    subject: str
    seed: int
    graded: bool = True
    shows: bool = True

    def digest(self) -> str:
        return hashlib.sha256(f"drawn {self.seed}".encode()).hexdigest()

    def labels_digest(self) -> str:
        return hashlib.sha256(f"labels {self.seed} {self.graded} {self.shows}".encode()).hexdigest()

    def sweeps(self) -> Iterator[LabelledSweep]:
        rng = np.random.default_rng(self.seed)
        yield self._sweep("sweep_1", rng, shows=self.shows)
        yield self._sweep("sweep_2", rng, shows=False)

    def _sweep(self, name: str, rng: np.random.Generator, *, shows: bool) -> LabelledSweep:
        grades = np.full(FRAMES, NOT_THE_PLANE, np.uint8)
        if shows:
            grades[4:8] = OPTIMAL
            grades[[3, 8]] = SUBOPTIMAL
        mask = np.stack([_disc(rng, int(grade)) for grade in grades])
        dark = rng.integers(0, 60, mask.shape, np.uint8)
        pixels = np.where(mask > 0, rng.integers(170, 255, mask.shape, np.uint8), dark)
        return LabelledSweep(name=name, pixels=pixels, masks={"abdomen": mask}, grades=grades if self.graded else None)


def _disc(rng: np.random.Generator, grade: int) -> npt.NDArray[np.uint8]:
    radius = {NOT_THE_PLANE: 0, SUBOPTIMAL: 14, OPTIMAL: 20}[grade]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    row, column = rng.integers(24, 36), rng.integers(30, 50)
    return ((rows - row) ** 2 + (columns - column) ** 2 < radius**2).astype(np.uint8)


EXAMS = [DrawnExam(f"exam-{number}", f"subject-{number}", number) for number in range(10)]

WISHES = Wishes(
    dataset="drawn",
    weights=Provenance(origin="random"),
    as_published=False,
    epochs=3,
    batch_size=8,
    accumulation=1,
    learning_rate=3e-3,
    precision="fp32",
    validation_every=1,
    seed=1,
)


def tower(trains: str, *, as_published: bool = False) -> TowerEncoder:
    lora = LoraSettings(targets=lora_targets(as_published=as_published), rank=4, alpha=8)
    return TowerEncoder(config=TOWER, trains=trains, lora=lora if trains == "adapters" else None)


def segmenter(trains: str, **change: Any) -> SegmentationRecipe:
    return segmentation_recipe(tower(trains), replace(WISHES, **change), filters=2)


RECIPES: dict[str, QualityRecipe | SegmentationRecipe] = {
    "cls": quality_recipe(tower("adapters"), WISHES),
    "cls-whole": quality_recipe(tower("whole"), replace(WISHES, learning_rate=1e-3)),
    "cls-as-published": quality_recipe(
        tower("adapters", as_published=True), replace(WISHES, as_published=True, precision="bf16", epochs=2)
    ),
    "seg": segmenter("adapters", epochs=2),
    "seg-whole": segmenter("whole", epochs=4, learning_rate=1e-2),
    "seg-as-published": segmenter("nothing", as_published=True, epochs=2),
    **{
        f"baseline-{row.name}": quality_recipe(
            BaselineEncoder(name=row.name, scale="tiny"), replace(WISHES, epochs=2, learning_rate=1e-3)
        )
        for row in TABLE
    },
}


class KilledError(Exception):
    """Stands for a kill."""


def trained(run: Path, recipe: QualityRecipe | SegmentationRecipe, **change: Any) -> dict[str, Any]:
    return train_on_frames(run, recipe, [("drawn", EXAMS)], None, **{"resume": False, **change})


def final_state(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoint.pt", weights_only=True)["network"]
    return state


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a small convolutional network."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    trained(run, quality_recipe(TINY_BASELINE, WISHES))
    return run


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_end_to_end(tmp_path: Path, name: str) -> None:
    recipe = RECIPES[name]
    rows: list[dict[str, Any]] = []
    metrics = trained(tmp_path / "run", recipe, reporter=Reporter(on_epoch=rows.append))
    assert [row["epoch"] for row in rows] == list(range(1, recipe.epochs + 1))
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert metrics["best"]["validation_loss"] == min(row["validation_loss"] for row in rows)
    assert metrics["weights"] == {"origin": "random", "sha256": None}
    assert "nothing was pretrained" in metrics["note"]
    assert sum(metrics["subjects"].values()) == len(EXAMS)
    assert 0 < metrics["parameters_trained"] <= metrics["parameters"]
    assert " ".join(sorted(path.name for path in (tmp_path / "run").iterdir())) == (
        "checkpoint.pt curves.png decision.json metrics.json model.safetensors recipe.json split.json"
    )
    decision = read_decision(tmp_path / "run")
    assert decision.fitted is not recipe.as_published
    sweep = next(iter(EXAMS[0].sweeps()))
    scorer = load_scorer(tmp_path / "run")
    scores = scorer.score_sweep(sweep)
    assert scores.shape == (FRAMES,)
    assert ((scores >= 0) & (scores <= 1)).all()
    if scorer.outlines:
        assert scorer.mask(sweep.pixels[5]).shape == (HEIGHT, WIDTH)


def test_network_learns_what_an_abdomen_is(finished: Path) -> None:
    decision = read_decision(finished)
    assert decision.f1 == 1.0
    assert (decision.frames, decision.positives) == (24, 6)
    scorer = load_scorer(finished)
    for exam in EXAMS:
        for sweep in exam.sweeps():
            assert sweep.grades is not None
            assert ((scorer.score_sweep(sweep) >= decision.threshold) == (sweep.grades > 0)).mean() >= 0.9


def test_killed_run_ends_with_the_same_weights(tmp_path: Path, finished: Path) -> None:
    """Within the second epoch and again after it; with other frames in between on the same generator."""
    run, recipe = tmp_path / "run", quality_recipe(TINY_BASELINE, WISHES)

    def kill(epoch: int) -> None:
        if epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        trained(run, recipe, reporter=Reporter(on_step=kill))
    torch.rand(7)

    def kill_after(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KilledError

    with pytest.raises(KilledError):
        trained(run, recipe, resume=True, reporter=Reporter(on_epoch=kill_after))
    trained(run, recipe, resume=True)
    expected, actual = final_state(finished), final_state(run)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    for name in ("model.safetensors", "decision.json"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()


def test_files_are_written_again_from_the_checkpoint(tmp_path: Path, finished: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    expected = {name: (run / name).read_bytes() for name in ("model.safetensors", "decision.json")}
    (run / "model.safetensors").write_bytes(b"torn")
    (run / "decision.json").unlink()
    with pytest.raises(InputError, match="--resume"):
        load_scorer(run)
    trained(run, quality_recipe(TINY_BASELINE, WISHES), resume=True)
    assert {name: (run / name).read_bytes() for name in expected} == expected


def test_finished_run_is_not_trained_again(tmp_path: Path, finished: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    steps: list[int] = []
    recipe = quality_recipe(TINY_BASELINE, WISHES)
    metrics = trained(run, recipe, resume=True, reporter=Reporter(on_step=steps.append))
    assert steps == []
    assert metrics == json.loads((finished / "metrics.json").read_text())
    with pytest.raises(OutputError, match="--resume"):
        trained(run, recipe)
    with pytest.raises(OutputError, match="other settings"):
        trained(run, quality_recipe(TINY_BASELINE, replace(WISHES, learning_rate=1e-4)), resume=True)


def test_step_in_parts_is_nearly_the_step(tmp_path: Path) -> None:
    """VGG has neither batch statistics nor dropout, so that parts differ by rounding only."""
    encoder = BaselineEncoder(name="vgg16", scale="tiny")
    one = quality_recipe(encoder, replace(WISHES, epochs=1, learning_rate=1e-4))
    trained(tmp_path / "one", one)
    steps: list[int] = []
    parts = quality_recipe(encoder, replace(WISHES, epochs=1, learning_rate=1e-4, accumulation=4))
    trained(tmp_path / "parts", parts, reporter=Reporter(on_step=steps.append))
    expected, actual = final_state(tmp_path / "one"), final_state(tmp_path / "parts")
    # AdamW's first steps are as large as the rate wherever a gradient is not nothing.
    assert max(float((expected[name] - actual[name]).abs().max()) for name in expected) < 2e-4
    assert np.mean([float((expected[name] - actual[name]).abs().mean()) for name in expected]) < 1e-5
    assert (
        len(steps)
        == json.loads((tmp_path / "parts" / "metrics.json").read_text())["training_frames"]["optimal"] * 3 // 8
    )


def test_step_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(InputError, match="--batch-size that is a multiple of 3"):
        make_accelerator(quality_recipe(TINY_BASELINE, replace(WISHES, accumulation=3)))


def test_too_few_frames_for_a_step(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--batch-size"):
        trained(tmp_path / "run", quality_recipe(TINY_BASELINE, replace(WISHES, batch_size=512)))


def test_one_person_under_two_names_is_refused(tmp_path: Path) -> None:
    parts = draw_split([("drawn", EXAMS)], RECIPES["cls"]).parts
    first, other = (next(e for e in EXAMS if parts[e.subject] is part) for part in (Part.TRAIN, Part.HELD_OUT))
    twin = DrawnExam("exam-twin", other.subject, first.seed)
    with pytest.raises(DatasetError, match="exam-twin"):
        train_on_frames(tmp_path / "run", RECIPES["cls"], [("drawn", [*EXAMS, twin])], None, resume=False)
    assert not (tmp_path / "run").exists()


def test_subjects_of_two_exams_stay_in_one_part(tmp_path: Path) -> None:
    second = [DrawnExam(f"second-{number}", f"subject-{number}", 100 + number) for number in range(10)]
    recipe = quality_recipe(TINY_BASELINE, replace(WISHES, epochs=1))
    train_on_frames(tmp_path / "run", recipe, [("drawn", [*EXAMS, *second])], None, resume=False)
    split = run_folder.read_split(tmp_path / "run")
    for part in Part:
        names = {exam.name.partition("-")[2] for exam in split.select([*EXAMS, *second], part)}
        assert {f"subject-{name}" for name in names} == {s for s, of in split.parts.items() if of is part}


def test_validation_of_one_kind_is_refused(tmp_path: Path) -> None:
    recipe = quality_recipe(TINY_BASELINE, WISHES)
    trained(tmp_path / "run", recipe)
    parts = run_folder.read_split(tmp_path / "run").parts
    blind = [replace(exam, shows=parts[exam.subject] is not Part.VALIDATION) for exam in EXAMS]
    with pytest.raises(DatasetError, match=r"validation subjects show no abdominal plane.*--seed"):
        train_on_frames(tmp_path / "blind", recipe, [("drawn", blind)], None, resume=False)


def test_ungraded_exams_are_refused() -> None:
    ungraded = [replace(exam, graded=False) for exam in EXAMS]
    with pytest.raises(DatasetError, match="here:there has no grades"):
        refuse_ungraded(ungraded, "here:there", masks=False)
    refuse_ungraded(EXAMS, "here:there", masks=True)


def test_as_published_reads_no_sweep_without_the_plane(tmp_path: Path, finished: Path) -> None:
    recipe = quality_recipe(TINY_BASELINE, replace(WISHES, as_published=True, epochs=1))
    metrics = trained(tmp_path / "run", recipe)
    assert metrics["validation_frames"] == {"optimal": 4, "suboptimal": 2, "without_the_plane": 6}
    assert read_decision(tmp_path / "run").threshold == 0.5
    ours = json.loads((finished / "metrics.json").read_text())
    assert ours["validation_frames"] == {"optimal": 4, "suboptimal": 2, "without_the_plane": 18}


def test_every_second_validation_frame(tmp_path: Path) -> None:
    recipe = quality_recipe(TINY_BASELINE, replace(WISHES, validation_every=2, epochs=1))
    assert sum(trained(tmp_path / "run", recipe)["validation_frames"].values()) == 12


def test_run_of_another_network_is_refused(tmp_path: Path, finished: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["encoder"]["name"] = "vgg16"
    (run / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(InputError, match="another network"):
        load_scorer(run)


def test_mask_lies_where_the_disc_is() -> None:
    """A scorer whose network answers with the grey level outlines what is bright, on the frame's own pixels."""
    from edgefetal_export.training.quality.scoring import FrameScorer

    class Bright(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return 20 * (image - 0.45)

    decision = Decision(score="area", threshold=0.01, fitted=False, frames=0, positives=0, f1=None)
    scorer = FrameScorer(segmenter("nothing", as_published=True), decision, Bright())
    sweep = next(iter(EXAMS[3].sweeps()))
    truth, found = sweep.masks["abdomen"][5], scorer.mask(sweep.pixels[5])
    assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) > 0.95
    shares = scorer.score_sweep(sweep)
    # The picture is padded to a square, which three quarters of it are.
    assert shares[5] == pytest.approx(truth.mean() * 0.75, rel=0.1)
    assert shares[0] == 0


def test_balanced_order_shows_every_rare_frame_once_and_others_anew() -> None:
    positive = np.arange(40) % 10 == 0
    first, second = balanced(positive, 3, 0), balanced(positive, 3, 1)
    assert len(first) == len(second) == 8
    assert {i for i in first if positive[i]} == {0, 10, 20, 30} == {i for i in second if positive[i]}
    assert {i for i in first if not positive[i]} != {i for i in second if not positive[i]}
    assert balanced(positive, 3, 0) == first != balanced(positive, 4, 0)
    assert balanced(~positive, 3, 0) == first
    assert sorted(shuffled(9, 3, 0)) == list(range(9))
    assert shuffled(9, 3, 0) == shuffled(9, 3, 0) != shuffled(9, 3, 1)


@pytest.mark.parametrize("way", [vary, published_copy])
def test_picture_and_mask_move_together(way: Any) -> None:
    sweep = next(iter(EXAMS[1].sweeps()))
    picture, mask = sweep.pixels[5], sweep.masks["abdomen"][5:6] * np.uint8(255)
    for seed in range(5):
        moved, moved_mask = way(picture, mask, np.random.default_rng(seed))
        inside = moved_mask[0] > 200
        assert moved.shape == picture.shape
        assert inside.any()
        assert moved[inside].mean() > 2 * moved[(moved_mask[0] == 0)].mean()
        again = way(picture, mask, np.random.default_rng(seed))
        assert np.array_equal(moved, again[0])
    assert way(picture, mask[:0], np.random.default_rng(0))[1].shape == (0, HEIGHT, WIDTH)


def material() -> Material:
    sweep = next(iter(EXAMS[1].sweeps()))
    assert sweep.grades is not None
    recipe = RECIPES["seg"]
    return Material(recipe.preprocess, sweep.pixels, sweep.masks["abdomen"][:, None] * np.uint8(255), sweep.grades)


def test_published_copies_are_the_same_in_every_epoch_and_ours_never() -> None:
    def pictures(recipe: Any, epoch: int) -> list[torch.Tensor]:
        samples = FrameSamples(material(), recipe, lambda grade, _: torch.tensor(grade), augment=True)
        return [samples[epoch, index][0] for index in range(len(samples))]

    theirs, ours = RECIPES["cls-as-published"], RECIPES["cls"]
    first, second = pictures(theirs, 0), pictures(theirs, 1)
    assert len(first) == 3 * FRAMES
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[FRAMES])
    assert not torch.equal(first[FRAMES], first[2 * FRAMES])
    varied, other = pictures(ours, 0), pictures(ours, 1)
    assert len(varied) == FRAMES
    assert not any(torch.equal(a, b) for a, b in zip(varied, other, strict=True))


def test_grades_have_channels_of_their_own() -> None:
    mask = np.full((1, 2, 2), 255, np.uint8)
    both = mask_target((OPTIMAL_CHANNEL, SUBOPTIMAL_CHANNEL))
    assert both(OPTIMAL, mask).mean((1, 2)).tolist() == [1, 0]
    assert both(SUBOPTIMAL, mask).mean((1, 2)).tolist() == [0, 1]
    assert both(NOT_THE_PLANE, mask * 0).mean((1, 2)).tolist() == [0, 0]
    one = mask_target(("abdomen",))
    assert one(OPTIMAL, mask).mean((1, 2)).tolist() == one(SUBOPTIMAL, mask).mean((1, 2)).tolist() == [1]


def test_pixel_counts_in_the_likelier_channel_only() -> None:
    logits = torch.tensor([[[[3.0, 1.0, -1.0, 2.0]], [[2.0, 4.0, -2.0, -5.0]]]])
    assert covered(logits)[0, :, 0].int().tolist() == [[1, 0, 0, 1], [0, 1, 0, 0]]
    areas = covered(logits).double().mean((2, 3)).numpy()
    assert frame_scores(areas, (OPTIMAL_CHANNEL, SUBOPTIMAL_CHANNEL)) == pytest.approx([0.5 + 0.6 * 0.25])


def test_dice_of_hand_worked_masks() -> None:
    target = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]]])
    right = torch.where(target > 0, 50.0, -50.0)
    half = torch.tensor([[[[50.0, -50.0, -50.0, -50.0]], [[-50.0, -50.0, -50.0, -50.0]]]])
    # 2 * 1 / 3 of the first channel; the second is in nobody's mask.
    assert float(dice_loss(half, target, as_published=True)) == pytest.approx((1 / 3 + 0) / 2)
    assert float(dice_loss(right, target, as_published=True)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(half, target, as_published=False)) == pytest.approx((1 - 3 / 4) / 2)
    false_alarm = torch.tensor([[[[50.0, 50.0, -50.0, -50.0]], [[50.0, -50.0, -50.0, -50.0]]]])
    assert float(dice_loss(false_alarm, target, as_published=True)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(false_alarm, target, as_published=False)) == pytest.approx((1 - 1 / 2) / 2)


def test_decision_recovers_the_odds_and_the_temperature() -> None:
    """Logits of a network that was trained on even odds and is twice too sure."""
    rng = np.random.default_rng(1)
    signal = rng.normal(0, 2, 60_000)
    truths = rng.random(60_000) < 1 / (1 + np.exp(-(signal - 2.0)))
    share = truths.mean()
    logits = 2 * (signal - 2.0) - np.log(share / (1 - share))
    decision = fit_probability(logits, truths, training_odds=1.0)
    assert decision.offset == pytest.approx(np.log(share / (1 - share)))
    assert decision.temperature == pytest.approx(2.0, rel=0.05)
    probability = decision.probability(logits)
    assert probability.mean() == pytest.approx(share, abs=0.01)
    called = probability >= decision.threshold
    f1 = 2 * (called & truths).sum() / (called.sum() + truths.sum())
    assert decision.f1 == pytest.approx(f1)
    fixed = 2 * ((logits > 0) & truths).sum() / ((logits > 0).sum() + truths.sum())
    assert f1 >= fixed


def test_frame_without_an_outline_is_never_good() -> None:
    truths = np.array([True, True, True, False])
    assert fit_threshold("area", np.array([0.0, 0.0, 0.2, 0.0]), truths).threshold == 0.2
    with pytest.raises(CheckFailedError, match="outlines nothing"):
        fit_threshold("area", np.zeros(4), truths)


def test_only_the_last_epoch_must_outline_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(segmenter_module, "covered", torch.zeros_like)
    rows: list[dict[str, Any]] = []
    with pytest.raises(CheckFailedError, match="outlines nothing"):
        trained(run, segmenter("nothing", epochs=2), reporter=Reporter(on_epoch=rows.append))
    assert len(rows) == 1
    assert len(json.loads((run / "metrics.json").read_text())["epochs"]) == 2
    assert not (run / "decision.json").exists()


@pytest.mark.parametrize("which", ["training", "validation"])
def test_loss_that_is_no_number_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    run, rows = tmp_path / "run", list[dict[str, Any]]()
    steps: list[int] = []
    loss, judge = QualityTask.loss, QualityTask.judge

    def broken_loss(task: QualityTask, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return loss(task, logits, target) * (torch.nan if rows and which == "training" else 1.0)

    def broken_judge(task: QualityTask, statistics: npt.NDArray[np.float32]) -> dict[str, float | None]:
        return {"validation_loss": np.inf} if rows and which == "validation" else judge(task, statistics)

    monkeypatch.setattr(QualityTask, "loss", broken_loss)
    monkeypatch.setattr(QualityTask, "judge", broken_judge)
    reporter = Reporter(on_step=steps.append, on_epoch=rows.append)
    with pytest.raises(CheckFailedError, match=f"{which} loss of epoch 2 is not finite.*lower --learning-rate"):
        trained(run, quality_recipe(TINY_BASELINE, WISHES), reporter=reporter)
    assert (2 in steps) is (which == "validation")
    assert len(torch.load(run / "checkpoint.pt", weights_only=True)["rows"]) == 1


def test_released_file_is_known_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.pt"
    file.write_bytes(b"weights")
    assert provenance_of(file, released=False).origin == "given"
    monkeypatch.setattr(encoders_module, "RELEASED_SHA256", hashlib.sha256(b"weights").hexdigest())
    assert provenance_of(file, released=False).origin == "released"


def test_provenance_says_what_it_is() -> None:
    assert "RANDOM" in Provenance(origin="random").sentence()
    assert "abc" in Provenance(origin="given", sha256="abc").sentence()
    with pytest.raises(ValueError, match="sha256"):
        Provenance(origin="given")
    with pytest.raises(ValueError, match="sha256"):
        Provenance(origin="random", sha256="abc")


def test_network_with_a_configuration_of_its_own_is_built_again() -> None:
    """OpenAI's CLIP has another activation than the table's, and its run must keep it."""
    plain = BaselineEncoder(name="clip-vit-large", scale="tiny")
    table = build_classifier(plain, None, Provenance(origin="random"))
    config = {**table.encoder.config.to_diff_dict(), "hidden_act": "quick_gelu"}  # type: ignore[union-attr, operator]
    other = build_classifier(plain.model_copy(update={"config": config}), None, Provenance(origin="random"))
    assert other.encoder.config.hidden_act == "quick_gelu"  # type: ignore[union-attr]
    assert other.state_dict().keys() == table.state_dict().keys()
