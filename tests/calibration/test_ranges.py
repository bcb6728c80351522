from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.datasets.labelled import LabelledSweep
from edgefetal_calibration.datasets.split import Part, Split, split_by_subject
from edgefetal_calibration.ranges import (
    UNLABELLED,
    _refuse_leaks,
    draw_range_frames,
    frame_sha256,
)
from edgefetal_devices.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt


def test_frames_are_of_training_subjects_only(tiny_hc18: Path) -> None:
    cases = read_hc18(tiny_hc18)
    split = split_by_subject(cases, dataset="hc18", seed=3, validation=0.2, held_out=0.2)
    chosen = draw_range_frames(cases, split, 16, least=8)
    assert len(chosen.frames) == 16
    assert {split.parts[frame.subject] for frame in chosen.frames} == {Part.TRAIN}
    contents = {case.digest(): case.frame().pixels for case in cases}
    assert all(np.array_equal(frame.pixels(), contents[frame.sha256]) for frame in chosen.frames)


def test_choice_depends_on_content_and_not_on_order(tiny_hc18: Path) -> None:
    cases = read_hc18(tiny_hc18)
    split = split_by_subject(cases, dataset="hc18", seed=3, validation=0.1, held_out=0.1)
    drawn, backwards, more = (
        draw_range_frames(exams, split, count, least=8)
        for exams, count in ((cases, 16), (cases[::-1], 16), (cases, 17))
    )
    assert drawn.sha256 == backwards.sha256 != more.sha256


def test_other_data_are_refused(tiny_hc18: Path) -> None:
    cases = read_hc18(tiny_hc18)
    split = split_by_subject(cases, dataset="hc18", seed=3, validation=0.1, held_out=0.1)
    stranger = split.model_copy(update={"digests": {"0" * 64: "000"}})
    with pytest.raises(DatasetError, match="no pictures of the subjects that the network was trained on"):
        draw_range_frames(cases, stranger, 16)


@dataclass(frozen=True)
class Drawn:
    """An exam in memory."""

    name: str
    subject: str
    sweeps_of: tuple[LabelledSweep, ...]

    def digest(self) -> str:
        """Of a picture on its own its content, as every reader has it; of more, of all of them."""
        contents = [frame_sha256(pixels) for sweep in self.sweeps_of for pixels in sweep.pixels]
        return contents[0] if len(contents) == 1 else hashlib.sha256("".join(contents).encode()).hexdigest()

    def labels_digest(self) -> str:
        return ""

    def sweeps(self) -> Iterator[LabelledSweep]:
        yield from self.sweeps_of


def _picture(seed: int, *, size: tuple[int, int] = (60, 80), grey: float = 60.0) -> npt.NDArray[np.uint8]:
    """Smooth blobs, which is what noise is not."""
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    blobs = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.asarray(np.clip(grey + 20 * blobs / blobs.std(), 0, 255), np.uint8)


def _exam(number: int, pixels: npt.NDArray[np.uint8], plane: str | None = None, kind: str = "") -> Drawn:
    stack = pixels if pixels.ndim == 3 else pixels[None]
    name = f"{number:03d}.png"
    sweep = LabelledSweep(name=name, pixels=stack, planes=None if plane is None else (plane,) * len(stack))
    return Drawn(name, f"{kind}{number:03d}", (sweep,))


def _split(exams: Sequence[Drawn], *, held_out: Sequence[int] = (), validation: Sequence[int] = ()) -> Split:
    parts = dict.fromkeys((exam.subject for exam in exams), Part.TRAIN)
    parts |= {exams[k].subject: Part.HELD_OUT for k in held_out}
    parts |= {exams[k].subject: Part.VALIDATION for k in validation}
    known = {exam.digest(): exam.subject for exam in exams if parts[exam.subject] is not Part.HELD_OUT}
    return Split(dataset="hc18", seed=0, parts=parts, digests=known)


def test_drawn_frames_are_of_training_subjects_and_say_where_they_are_from() -> None:
    exams = [_exam(k, _picture(k), "head") for k in range(50)]
    chosen = draw_range_frames(exams, _split(exams, held_out=range(5), validation=range(5, 10)), 36)
    assert len(chosen.frames) == 36
    assert {frame.subject for frame in chosen.frames} <= {f"{k:03d}" for k in range(10, 50)}
    record = chosen.frames[0].record()
    exam = next(exam for exam in exams if exam.name == record["name"])
    pixels = exam.sweeps_of[0].pixels[0]
    assert record["sha256"] == frame_sha256(pixels) == exam.digest()
    assert (record["plane"], record["kind"], record["width_px"], record["height_px"]) == ("head", "hc18", 80, 60)
    assert record["mean_grey"] == pytest.approx(pixels.mean(), abs=0.01)
    np.testing.assert_array_equal(chosen.frames[0].pixels(), pixels)
    assert "training subjects only" in chosen.rule


def test_the_draw_depends_on_contents_alone() -> None:
    exams = [_exam(k, _picture(k)) for k in range(40)]
    renamed = [_exam(100 + k, _picture(k)) for k in range(40)][::-1]
    first = draw_range_frames(exams, _split(exams), 33)
    assert draw_range_frames(renamed, _split(renamed), 33).sha256 == first.sha256
    assert draw_range_frames(exams, _split(exams), 34).sha256 != first.sha256


def test_rare_planes_kinds_sizes_and_gains_get_their_share() -> None:
    common = [_exam(k, _picture(k), "head") for k in range(60)]
    rare = [
        *(_exam(k, _picture(k), "femur") for k in range(60, 64)),
        *(_exam(k, _picture(k), "head", kind="acouslic/") for k in range(64, 68)),
        *(_exam(k, _picture(k, size=(240, 320)), "head") for k in range(68, 72)),
        *(_exam(k, _picture(k, grey=190.0), "head") for k in range(72, 76)),
    ]
    frames = draw_range_frames([*common, *rare], _split([*common, *rare]), 32).frames
    assert sum(frame.plane == "femur" for frame in frames) == 4
    assert sum(frame.kind == "acouslic" for frame in frames) == 4
    assert sum(frame.width_px == 320 for frame in frames) == 4
    assert sum(frame.mean_grey > 150 for frame in frames) >= 1


def test_a_sweep_gives_a_few_frames_and_none_of_those_before_the_probe_touches() -> None:
    dark = np.zeros((5, 60, 80), np.uint8)
    sweeps = [
        _exam(k, np.concatenate([dark, [_picture(100 * k + j) for j in range(10)]]), kind="phantom/") for k in range(9)
    ]
    frames = draw_range_frames(sweeps, _split(sweeps), 60).frames
    assert len(frames) == 9 * 4
    assert {frame.plane for frame in frames} == {UNLABELLED}
    assert min(frame.mean_grey for frame in frames) > 30
    assert frames[0].name.count("/") == 2
    assert all(frame_sha256(frame.pixels()) == frame.sha256 for frame in frames)


def test_pictures_that_changed_after_the_draw_are_noticed() -> None:
    exams = [_exam(k, _picture(k)) for k in range(32)]
    chosen = draw_range_frames(exams, _split(exams), 32)
    exam = next(exam for exam in exams if exam.name == chosen.frames[0].name)
    exam.sweeps_of[0].pixels[0, 0, 0] ^= 1
    with pytest.raises(DatasetError, match="has changed since it was chosen; start again"):
        chosen.frames[0].pixels()


def test_simulated_heads_are_fit(tiny_hc18: Path) -> None:
    cases = read_hc18(tiny_hc18)
    split = split_by_subject(cases, dataset="hc18", seed=3, validation=0.1, held_out=0.1)
    assert len(draw_range_frames(cases, split, 20, least=16).frames) == 20
    with pytest.raises(DatasetError, match=r"hold 2\d frames .* and 32 are needed"):
        draw_range_frames(cases, split, 20)


def _noise(seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (60, 80), dtype=np.uint8)


GOOD = [_exam(k, _picture(k)) for k in range(40)]
REFUSALS: dict[str, tuple[list[Drawn], str]] = {
    "none": ([], r"no pictures of the subjects .*; give the dataset that it was trained on"),
    "too few": (GOOD[:31], r"hold 31 frames .* and 32 are needed .*; give the whole dataset"),
    "one picture many times": (
        [*GOOD[:20], *(_exam(k, _picture(3)) for k in range(20, 60))],
        r"Of the 60 calibration frames only 20 are different pictures, .*; remove the copies",
    ),
    "a blank one": ([*GOOD, _exam(50, np.full((60, 80), 90, np.uint8))], r"050\.png is blank .*; remove it"),
    "noise": ([_exam(k, _noise(k)) for k in range(40)], r"png looks like noise .*; give ultrasound frames"),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_what_would_give_wrong_ranges_is_refused(why: str) -> None:
    exams, says = REFUSALS[why]
    with pytest.raises(DatasetError, match=says):
        draw_range_frames(exams, _split(exams), 100)


def test_a_stranger_to_the_split_is_no_training_subject() -> None:
    strangers = [_exam(k, _picture(1000 + k)) for k in range(40)]
    with pytest.raises(DatasetError, match="no pictures of the subjects"):
        draw_range_frames(strangers, _split(GOOD), 32)


def test_a_picture_that_is_also_of_a_held_out_subject_is_refused() -> None:
    exams = [*GOOD, _exam(50, _picture(7))]
    split = _split(GOOD)
    split = split.model_copy(update={"parts": split.parts | {"050": Part.HELD_OUT}})
    with pytest.raises(DatasetError, match=r"050\.png is of subject 050, who is in the held-out part"):
        draw_range_frames(exams, split, 40)


def test_a_frame_of_a_held_out_sweep_is_refused_as_a_picture() -> None:
    """The sweep has another digest than the picture, so only the frame itself gives it away."""
    sweep = _exam(60, np.stack([_picture(500), _picture(7), _picture(501)]))
    split = _split(GOOD)
    split = split.model_copy(update={"parts": split.parts | {"060": Part.HELD_OUT}})
    with pytest.raises(DatasetError, match=r"007\.png is the same picture as 060\.png, which is not of the training"):
        draw_range_frames([*GOOD, sweep], split, 40)


def test_frames_whose_subject_or_content_the_run_judged_on_are_refused() -> None:
    frames = draw_range_frames(GOOD, _split(GOOD), 32).frames
    with pytest.raises(DatasetError, match="is in the validation part; leave that subject out"):
        _refuse_leaks(frames, _split(GOOD, validation=range(40)), [])
    renamed = [replace(frame, subject="nobody") for frame in frames]
    with pytest.raises(DatasetError, match="the same picture as a picture that the training run judged on"):
        _refuse_leaks(renamed, _split(GOOD, validation=range(40)), [])
