from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_calibration.datasets.choice import all_frames, as_published_frames, quality_frames
from edgefetal_calibration.datasets.labelled import LabelledSweep
from edgefetal_calibration.datasets.masks import ellipse_mask, place_mask
from edgefetal_calibration.datasets.prepared import INDEX, JOURNAL, MASKS, PICTURES, prepare
from edgefetal_devices.errors import DatasetError, InputError, OutputError
from edgefetal_runtime.biometry.ellipse import Ellipse
from edgefetal_runtime.infer.preprocess import PreprocessSpec, letterbox, place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPEC = PreprocessSpec(height_px=32, width_px=40, mean=0.5, std=0.25)


@dataclass(frozen=True)
class Exam:
    name: str
    shape: tuple[int, int] = (90, 120)
    labels: str = "as drawn"
    read: list[str] = field(default_factory=list)

    @property
    def subject(self) -> str:
        return f"test/{self.name}"

    def digest(self) -> str:
        return f"digest of {self.name}"

    def labels_digest(self) -> str:
        return self.labels

    def sweeps(self) -> Iterator[LabelledSweep]:
        self.read.append(self.name)
        rng = np.random.default_rng(list(self.name.encode()))
        for number in (1, 2):
            pixels = rng.integers(0, 256, (20, *self.shape), dtype=np.uint8)
            grades = np.zeros(20, np.uint8)
            mask = np.zeros(pixels.shape, np.uint8)
            if number == 1:
                grades[5:8] = (2, 1, 2)
                mask[5:8, 20:60, 30:80] = 1
            yield LabelledSweep(f"sweep_{number}", pixels, {"abdomen": mask}, planes=("none",) * 20, grades=grades)


@dataclass(frozen=True)
class Broken(Exam):
    """An exam whose second sweep cannot be read."""

    def sweeps(self) -> Iterator[LabelledSweep]:
        yield next(super().sweeps())
        raise DatasetError("broken")


def test_frames_are_placed_as_the_runtime_places_them(tmp_path: Path) -> None:
    exams = [Exam("a"), Exam("b", (64, 200))]
    prepared = prepare(exams, SPEC, ["abdomen", "femur"], tmp_path / "kept", choose=all_frames)
    assert prepared.pictures.shape == (80, 32, 40)
    assert prepared.masks.shape == (80, 2, 32, 40)
    sweeps = [sweep for exam in exams for sweep in exam.sweeps()]
    for k, row in enumerate(prepared.rows):
        sweep = sweeps[k // 20]
        assert (row.exam, row.subject) == (exams[k // 40].name, exams[k // 40].subject)
        assert (row.sweep, row.index, row.plane) == (sweep.name, k % 20, "none")
        assert sweep.grades is not None
        assert row.grade == sweep.grades[k % 20]
        assert np.array_equal(prepared.pictures[k], place(sweep.pixels[k % 20], SPEC)[0])
        assert np.array_equal(prepared.masks[k, 0], place_mask(sweep.masks["abdomen"][k % 20], SPEC))
        # The femur was never labelled: its mask is black, and the row says that this means nothing.
        assert not prepared.masks[k, 1].any()
        assert row.labelled == ("abdomen",)
    assert prepared.masks[6, 0].max() == 255


def test_no_structures(tmp_path: Path) -> None:
    prepared = prepare([Exam("a")], SPEC, (), tmp_path / "kept", choose=all_frames)
    assert prepared.masks.shape == (40, 0, 32, 40)
    assert prepare([Exam("a")], SPEC, (), tmp_path / "kept", choose=all_frames).masks.shape == (40, 0, 32, 40)


def test_an_equal_wish_is_served_from_disk(tmp_path: Path) -> None:
    exams = [Exam("a"), Exam("b")]
    first = prepare(exams, SPEC, ["abdomen"], tmp_path / "kept", choose=all_frames)
    read = [len(exam.read) for exam in exams]
    ticks: list[None] = []
    again = prepare(exams, SPEC, ["abdomen"], tmp_path / "kept", choose=all_frames, advance=lambda: ticks.append(None))
    assert [len(exam.read) for exam in exams] == read
    assert len(ticks) == 2
    assert again.rows == first.rows
    assert np.array_equal(again.pictures, first.pictures)
    assert not again.pictures.flags.writeable
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [INDEX, MASKS, PICTURES]


@pytest.mark.parametrize(
    "wish",
    [
        ([Exam("a"), Exam("c")], SPEC, ["abdomen"], all_frames),
        ([Exam("b"), Exam("a")], SPEC, ["abdomen"], all_frames),
        ([Exam("a"), Exam("b", labels="redrawn")], SPEC, ["abdomen"], all_frames),
        ([Exam("a"), Exam("b")], SPEC.model_copy(update={"mean": 0.4}), ["abdomen"], all_frames),
        ([Exam("a"), Exam("b")], SPEC, ["head"], all_frames),
        ([Exam("a"), Exam("b")], SPEC, ["abdomen"], quality_frames(2, 1)),
        ([Exam("a"), Exam("b")], SPEC, ["abdomen"], quality_frames(2, 2)),
    ],
)
def test_another_wish_is_refused_and_nothing_is_lost(tmp_path: Path, wish: tuple) -> None:  # type: ignore[type-arg]
    exams, spec, structures, choose = wish
    folder = tmp_path / "kept"
    prepare([Exam("a"), Exam("b")], SPEC, ["abdomen"], folder, choose=quality_frames(2, 3))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DatasetError, match="other exams, labels or settings; name another folder"):
        prepare(exams, spec, structures, folder, choose=choose)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_killed_run_is_gone_on_with_exam_by_exam(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    exams = [Exam("a"), Exam("b"), Exam("c")]
    whole = prepare(exams, SPEC, ["abdomen"], tmp_path / "whole", choose=all_frames)
    with pytest.raises(DatasetError, match="broken"):
        prepare([exams[0], Broken("b"), exams[2]], SPEC, ["abdomen"], folder, choose=all_frames)
    assert not (folder / INDEX).exists()
    # The frames of the first sweep of b are there, and count for nothing.
    assert (folder / PICTURES).stat().st_size == 60 * 32 * 40
    (folder / JOURNAL).write_bytes((folder / JOURNAL).read_bytes() + b'{"key": "cut sho')
    read = [len(exam.read) for exam in exams]
    resumed = prepare(exams, SPEC, ["abdomen"], folder, choose=all_frames)
    assert [len(exam.read) - before for exam, before in zip(exams, read, strict=True)] == [0, 1, 1]
    assert resumed.rows == whole.rows
    assert np.array_equal(resumed.pictures, whole.pictures)
    assert np.array_equal(resumed.masks, whole.masks)


def test_an_unfinished_folder_of_another_wish_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with pytest.raises(DatasetError, match="broken"):
        prepare([Exam("a"), Broken("b")], SPEC, ["abdomen"], folder, choose=all_frames)
    with pytest.raises(DatasetError, match="other exams, labels or settings"):
        prepare([Exam("c"), Exam("b")], SPEC, ["abdomen"], folder, choose=all_frames)


@pytest.mark.parametrize("name", [PICTURES, MASKS])
@pytest.mark.parametrize("damage", ["cut", "altered", "gone"])
def test_damage_is_found(tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "kept"
    prepare([Exam("a")], SPEC, ["abdomen"], folder, choose=all_frames)
    content = bytearray((folder / name).read_bytes())
    content[1000] ^= 1
    (folder / name).unlink()
    if damage != "gone":
        (folder / name).write_bytes(content[:-1] if damage == "cut" else content)
    with pytest.raises(DatasetError, match="is damaged; remove it"):
        prepare([Exam("a")], SPEC, ["abdomen"], folder, choose=all_frames)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff"])
def test_a_damaged_index_or_journal_is_found(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "kept"
    prepare([Exam("a")], SPEC, ["abdomen"], folder, choose=all_frames)
    (folder / INDEX).write_bytes(content)
    with pytest.raises(DatasetError, match="is damaged; remove it"):
        prepare([Exam("a")], SPEC, ["abdomen"], folder, choose=all_frames)
    (folder / INDEX).unlink()
    (folder / JOURNAL).write_bytes(content + b"\n")
    with pytest.raises(DatasetError, match="is damaged; remove it"):
        prepare([Exam("a")], SPEC, ["abdomen"], folder, choose=all_frames)


def test_pictures_that_the_journal_tells_of_and_are_gone(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with pytest.raises(DatasetError, match="broken"):
        prepare([Exam("a"), Broken("b")], SPEC, ["abdomen"], folder, choose=all_frames)
    (folder / PICTURES).write_bytes(b"")
    with pytest.raises(DatasetError, match="is damaged; remove it"):
        prepare([Exam("a"), Exam("b")], SPEC, ["abdomen"], folder, choose=all_frames)


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DatasetError, match=r"holds 'thesis\.txt'"):
        prepare([Exam("a")], SPEC, ["abdomen"], tmp_path, choose=all_frames)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(OutputError, match="cannot be used"):
        prepare([Exam("a")], SPEC, ["abdomen"], tmp_path / "thesis.txt", choose=all_frames)


def test_nothing_chosen(tmp_path: Path) -> None:
    nothing = replace(all_frames, pick=lambda _: np.empty(0, np.intp))
    with pytest.raises(DatasetError, match="No frame"):
        prepare([Exam("a")], SPEC, ["abdomen"], tmp_path / "kept", choose=nothing)


def test_the_index_names_no_pixels_and_is_json(tmp_path: Path) -> None:
    prepare([Exam("a")], SPEC, ["abdomen"], tmp_path / "kept", choose=quality_frames(1, 0))
    index = json.loads((tmp_path / "kept" / INDEX).read_bytes())
    assert set(index) == {"key", "sums", "rows"}
    assert len(index["rows"]) == 3 + 3 + 4


def test_every_graded_frame_and_some_others_of_every_sweep() -> None:
    with_plane, without = Exam("a").sweeps()
    for ratio, expected in ((0, (4, 1)), (0.5, (3 + 2, 2)), (3, (3 + 9, 12)), (100, (20, 20))):
        chosen = [quality_frames(ratio, 1)(sweep) for sweep in (with_plane, without)]
        assert tuple(map(len, chosen)) == expected
        assert {5, 6, 7} <= set(chosen[0].tolist())
        assert all(np.array_equal(np.unique(one), one) for one in chosen)


def test_choice_depends_on_the_seed_and_the_sweep_only() -> None:
    sweep = next(Exam("a").sweeps())
    other = replace(sweep, pixels=next(Exam("b").sweeps()).pixels)
    first = quality_frames(2, 1)(sweep).tolist()
    assert quality_frames(2, 1)(sweep).tolist() == first
    assert quality_frames(2, 2)(sweep).tolist() != first
    assert quality_frames(2, 1)(other).tolist() != first


def test_ungraded_sweeps_have_others_only() -> None:
    sweep = replace(next(Exam("a").sweeps()), grades=None)
    assert len(quality_frames(1, 0)(sweep)) == 4
    assert len(as_published_frames(sweep)) == 0


def test_as_published_leaves_out_sweeps_without_the_plane() -> None:
    assert [len(as_published_frames(sweep)) for sweep in Exam("a").sweeps()] == [20, 0]


@pytest.mark.parametrize(("ratio", "seed"), [(-1, 0), (float("nan"), 0), (float("inf"), 0), (1, -1)])
def test_choices_that_cannot_be(ratio: float, seed: int) -> None:
    with pytest.raises(InputError, match="cannot be"):
        quality_frames(ratio, seed)


@pytest.mark.parametrize("shape", [(562, 744), (90, 120), (20, 24), (61, 333)])
def test_masks_lie_where_the_pictures_do(shape: tuple[int, int]) -> None:
    """A white ellipse and its mask, each brought to the network's size by its own way, agree to a part of a pixel."""
    spec = PreprocessSpec(height_px=112, width_px=128, mean=0.5, std=0.25)
    drawn = Ellipse(shape[1] * 0.45, shape[0] * 0.55, min(shape) * 0.35, min(shape) * 0.3, 0.5)
    mask = ellipse_mask(drawn, shape).astype(np.uint8)
    picture, _ = place(mask * 255, spec)
    placed = place_mask(mask, spec)
    middles = []
    for grid in (picture, placed):
        weights = grid.astype(float)
        y, x = np.mgrid[:112, :128]
        middles.append([(weights * x).sum() / weights.sum(), (weights * y).sum() / weights.sum()])
    assert middles[1] == pytest.approx(middles[0], abs=0.06)
    assert placed.sum() == pytest.approx(float(picture.sum()), rel=0.01)
    box = letterbox(*shape, spec)
    rows, columns = np.nonzero(mask)
    exact = box.to_network(np.array([[columns.mean(), rows.mean()]]))[0]
    assert middles[1] == pytest.approx(exact.tolist(), abs=0.03)


def test_placed_masks_are_exact_averages() -> None:
    # Two frame pixels to a network pixel, and no halving: a column of the frame is half of a network column.
    spec = PreprocessSpec(height_px=20, width_px=20, mean=0.5, std=0.25)
    mask = np.zeros((38, 38), np.uint8)
    mask[:, 5] = 1
    box = letterbox(38, 38, spec)
    placed = place_mask(mask, spec)
    assert box.halvings == 0
    assert placed.sum(axis=1) == pytest.approx(255 / box.x.step, abs=1)
    full = place_mask(np.ones((38, 38), np.uint8), spec)
    assert full.min() == 255
    assert not place_mask(np.zeros((38, 38), np.uint8), spec).any()


def test_the_border_that_place_leaves_black_holds_no_mask() -> None:
    spec = PreprocessSpec(height_px=64, width_px=64, mean=0.5, std=0.25)
    box = letterbox(300, 601, spec)
    placed = place_mask(np.ones((300, 601), np.uint8), spec)
    assert not placed[: box.top_px].any()
    assert not placed[box.top_px + box.content_height_px :].any()
    assert placed[box.top_px : box.top_px + box.content_height_px].min() == 255
