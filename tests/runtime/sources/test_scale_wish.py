"""What the user says of the pixel size is one thing, holds for one format, and is void where the ruler disagrees."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_devices.errors import ScaleError
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.scale import NOT_GIVEN, NoScale, Scale
from edgefetal_runtime.sources.scale_profile import ScaleProfile
from edgefetal_runtime.sources.scale_wish import NO_WISH, SEARCH_EVERY_FRAMES, ScaleWish, WishedSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

STATED = Scale(0.2, 0.2, "command line")


def _profile(width_px: int, height_px: int, mm_per_px: float = 0.2) -> ScaleProfile:
    return ScaleProfile(
        name="convex",
        probe="C5-2",
        depth_mm=80,
        capture="card",
        width_px=width_px,
        height_px=height_px,
        x_mm_per_px=mm_per_px,
        y_mm_per_px=mm_per_px,
        relative_uncertainty=0.005,
        method="phantom",
        made_on=dt.date(2026, 3, 14),
    )


def _screen(
    period_px: float | None, *, across_px: float | None = None, width_px: int = 300, noise: int = 0
) -> npt.NDArray[np.uint8]:
    """A bright image of 400 rows with marks beside it and under it, or without."""
    picture = np.random.default_rng(noise).integers(0, 8, (440, width_px), dtype=np.uint8)
    picture[20:420, 60:200] = 60
    for number in range(int(400 / period_px) + 1 if period_px else 0):
        row = 20 + round(number * (period_px or 0))
        picture[row : row + 2, 280:286] = 220
    for number in range(int(240 / across_px) + 1 if across_px else 0):
        column = 10 + round(number * (across_px or 0))
        picture[428:434, column : column + 2] = 220
    return picture


@dataclass(frozen=True)
class Pictures:
    """A source of prepared pictures, in one sweep or each in its own."""

    pictures: tuple[npt.NDArray[np.uint8], ...]
    one_sweep: bool = True
    kind: str = "video"

    @property
    def frame_count(self) -> int:
        return len(self.pictures)

    def frames(self) -> Iterator[Frame]:
        for index, picture in enumerate(self.pictures):
            yield Frame(picture, "sweep" if self.one_sweep else f"{index}", index, index / 30, NOT_GIVEN)


def _scales(wish: ScaleWish, *pictures: npt.NDArray[np.uint8], one_sweep: bool = True) -> list[Scale | NoScale]:
    source = WishedSource(Pictures(pictures, one_sweep), wish)
    assert (source.kind, source.frame_count) == ("video", len(pictures))
    return [frame.scale for frame in source.frames()]


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"stated": STATED, "depth_mm": 100.0}, "--mm-per-px and --depth-mm were both given; keep the one"),
        ({"profile": _profile(1, 1), "stated": STATED}, "--mm-per-px and --scale-profile were both given"),
        ({"stated": STATED, "profile": _profile(1, 1), "depth_mm": 100.0}, "were all given"),
        ({"depth_mm": 16.0e3}, "16 cm is 160"),
        ({"depth_mm": 5.0}, "give the depth that the machine shows in mm"),
        ({"depth_mm": float("nan")}, "give the depth"),
        ({"depth_mm": -100.0}, "give the depth"),
    ],
)
def test_contradictions_and_impossible_depths_are_refused(wish: dict[str, Any], says: str) -> None:
    with pytest.raises(ScaleError, match=says):
        ScaleWish(**wish)


def test_a_table_and_a_figure_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(ScaleError, match="--mm-per-px and --scale-csv were both given; keep the one"):
        ScaleWish(stated=STATED, table=tmp_path)


def test_without_a_wish_frames_stay_as_they_are() -> None:
    assert _scales(NO_WISH, _screen(25.0)) == [NOT_GIVEN]


def test_a_figure_without_a_ruler_stands_on_its_own() -> None:
    assert _scales(ScaleWish(stated=STATED), _screen(None), _screen(None)) == [STATED, STATED]


@pytest.mark.parametrize("one_sweep", [False, True])
def test_a_typed_figure_belongs_to_the_format_of_the_first_picture(one_sweep: bool) -> None:  # noqa: FBT001
    first, other = _screen(None), _screen(None, width_px=301)
    kept, void, back = _scales(ScaleWish(stated=STATED), first, other, first, one_sweep=one_sweep)
    assert kept == back == STATED
    assert isinstance(void, NoScale)
    assert "for pictures of 300 x 440, and this one has 301 x 440; run it apart" in void.reason


def test_a_stored_figure_belongs_to_its_own_format_even_where_no_picture_has_it() -> None:
    assert all(_scales(ScaleWish(profile=_profile(300, 440)), _screen(None)))
    (void,) = _scales(ScaleWish(profile=_profile(440, 300)), _screen(None))
    assert isinstance(void, NoScale)
    assert "profile convex" in void.reason
    assert "440 x 300, and this one has 300 x 440" in void.reason


@pytest.mark.parametrize("wish", [ScaleWish(stated=STATED), ScaleWish(profile=_profile(300, 440))])
def test_a_ruler_confirms_a_figure_or_voids_it(wish: ScaleWish) -> None:
    (confirmed,) = _scales(wish, _screen(25.0))
    assert isinstance(confirmed, Scale)
    assert "confirmed down the picture only, by the ruler (5 mm marks" in confirmed.origin
    (void,) = _scales(wish, _screen(29.0))
    assert isinstance(void, NoScale)
    assert "disagree by" in void.reason


@pytest.mark.parametrize("down_px", [50.0, None])
def test_a_ruler_across_the_picture_is_read_too(down_px: float | None) -> None:
    """Pixels that are not square: 0.2 mm is right down the picture, and across it is not."""
    (void,) = _scales(ScaleWish(stated=STATED), _screen(down_px, across_px=37.0))
    assert isinstance(void, NoScale)
    assert "the ruler across the picture (marks 37" in void.reason
    assert "command line" in void.reason
    (confirmed,) = _scales(ScaleWish(stated=STATED), _screen(down_px, across_px=25.0))
    assert isinstance(confirmed, Scale)
    assert "across the picture" in confirmed.origin
    assert ("only" in confirmed.origin) == (down_px is None)


@pytest.mark.parametrize("axis", ["down", "across"])
@pytest.mark.parametrize(("period_px", "right"), [(25.0, True), (29.0, False)])
def test_a_ruler_that_appears_later_confirms_or_voids_from_then_on(axis: str, period_px: float, right: bool) -> None:  # noqa: FBT001 - parametrised
    late = _screen(period_px) if axis == "down" else _screen(None, across_px=period_px)
    scales = _scales(ScaleWish(stated=STATED), _screen(None), *[late] * (SEARCH_EVERY_FRAMES + 2))
    assert scales[:SEARCH_EVERY_FRAMES] == [STATED] * SEARCH_EVERY_FRAMES
    assert [bool(scale) for scale in scales[SEARCH_EVERY_FRAMES:]] == [right] * 3
    for scale in scales[SEARCH_EVERY_FRAMES:]:
        assert f"{axis} the picture" in (scale.reason if isinstance(scale, NoScale) else scale.origin)


def test_what_a_file_states_is_voided_by_a_ruler_that_contradicts_it_and_otherwise_stays() -> None:
    stated = Scale(0.2, 0.2, "DICOM region 1 of a.dcm")

    @dataclass(frozen=True)
    class File(Pictures):
        def frames(self) -> Iterator[Frame]:
            return (replace(frame, scale=stated) for frame in Pictures.frames(self))

    pictures = [_screen(25.0), _screen(None), _screen(29.0), _screen(None), _screen(25.0)]
    kept, vanished, void, still_void, back = (
        frame.scale for frame in WishedSource(File(tuple(pictures)), NO_WISH, stated_by_file=True).frames()
    )
    assert kept == vanished == back == stated
    assert void == still_void
    assert isinstance(void, NoScale)
    assert "the ruler down the picture (marks 29.0" in void.reason
    assert "DICOM region 1 of a.dcm (0.2 mm per px down)" in void.reason


def test_a_ruler_that_changes_within_a_sweep_voids_the_scale_from_there_on() -> None:
    """Somebody turned the depth while the video ran."""
    pictures = [_screen(25.0, noise=1), _screen(25.0, noise=2), _screen(33.0, noise=3), _screen(None, noise=4)]
    scales = _scales(ScaleWish(stated=STATED), *pictures, _screen(25.0, noise=5))
    assert [bool(scale) for scale in scales] == [True, True, False, False, True]
    assert isinstance(scales[3], NoScale)
    assert "changed" in scales[3].reason


def test_a_ruler_that_vanishes_within_a_sweep_voids_the_scale_and_in_another_sweep_does_not() -> None:
    kept, void, still_void = _scales(ScaleWish(stated=STATED), _screen(25.0), _screen(None), _screen(None))
    assert kept
    assert isinstance(void, NoScale)
    assert isinstance(still_void, NoScale)
    assert "the ruler on the picture changed after it was read beside command line" in void.reason
    assert all(_scales(ScaleWish(stated=STATED), _screen(25.0), _screen(None), one_sweep=False))


def test_rulers_are_read_once_while_they_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgefetal_runtime.sources import scale_wish

    reads = []
    read = scale_wish.read_ruler
    monkeypatch.setattr(scale_wish, "read_ruler", lambda *asked: reads.append(asked[1]) or read(*asked))
    assert all(_scales(ScaleWish(stated=STATED), *(_screen(25.0, across_px=25.0, noise=n) for n in range(40))))
    assert reads == ["y", "x"]
    reads.clear()
    assert all(_scales(ScaleWish(stated=STATED), *(_screen(25.0) for _ in range(2 * SEARCH_EVERY_FRAMES + 1))))
    assert reads == ["y", "x", "x", "x"]


def test_depth_and_ruler_give_a_scale_that_follows_the_ruler() -> None:
    kept, same, void = _scales(ScaleWish(depth_mm=80.0), _screen(25.0), _screen(25.0, noise=3), _screen(33.0))
    assert isinstance(kept, Scale)
    assert kept.x_mm_per_px == pytest.approx(0.2, rel=0.005)
    assert same == kept
    assert isinstance(void, NoScale)
