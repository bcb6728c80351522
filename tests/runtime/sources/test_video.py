"""Videos: every frame in order, and nothing but user errors from files that are none."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal_devices.errors import EdgeFetalError, SourceError
from edgefetal_runtime.scale import NOT_GIVEN
from edgefetal_runtime.sources.video import VideoSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

FRAMES_PER_S = 25.0
LEVELS = (10, 30, 200, 70, 90, 110, 130, 150)


def _write(path: Path, frames: Sequence[npt.NDArray[np.uint8]], codec: str = "FFV1") -> Path:
    height, width = frames[0].shape
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), FRAMES_PER_S, (width, height), isColor=False)
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def _plain(levels: Sequence[int] = LEVELS) -> list[npt.NDArray[np.uint8]]:
    return [np.full((48, 64), level, np.uint8) for level in levels]


def _levels(source: VideoSource) -> list[int]:
    return [round(float(frame.pixels.mean())) for frame in source.frames()]


def test_frames_come_bit_for_bit_in_order_with_their_times(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written = [rng.integers(0, 256, (48, 64), dtype=np.uint8) for _ in range(6)]
    frames = list(VideoSource(_write(tmp_path / "sweep.avi", written)).frames())
    assert len(frames) == len(written)
    for index, (frame, pixels) in enumerate(zip(frames, written, strict=True)):
        np.testing.assert_array_equal(frame.pixels, pixels)
        assert frame.pixels.dtype == np.uint8
        assert (frame.sweep, frame.index, frame.scale) == ("sweep.avi", index, NOT_GIVEN)
        assert frame.timestamp_s == pytest.approx(index / FRAMES_PER_S)


@pytest.mark.parametrize("codec", ["FFV1", "MJPG"])
def test_all_frames_are_announced_and_read(tmp_path: Path, codec: str) -> None:
    source = VideoSource(_write(tmp_path / "sweep.avi", _plain(), codec))
    assert source.kind == "video"
    assert source.frame_count == len(LEVELS)
    np.testing.assert_allclose(_levels(source), LEVELS, atol=1)


def test_a_video_can_be_read_twice(tmp_path: Path) -> None:
    source = VideoSource(_write(tmp_path / "sweep.avi", _plain()))
    assert _levels(source) == _levels(source) == list(LEVELS)


@pytest.mark.parametrize(
    "name", ["100%.avi", "sweep%03d.avi", "a b#é?.avi", "-i.avi", "file:x.avi", "http:x.avi", "concat:a|b.avi"]
)
def test_a_name_is_a_file_name_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = _write(tmp_path / "plain.avi", _plain()).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for given in (path, path.relative_to(tmp_path)):
        assert _levels(VideoSource(given)) == list(LEVELS)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sweep.avi"
    path.touch()
    source = VideoSource(path)
    with pytest.raises(SourceError, match=r"sweep\.avi is empty \(0 bytes\); copy the video again"):
        _ = source.frame_count
    with pytest.raises(SourceError, match="is empty"):
        next(source.frames())


@pytest.mark.parametrize("content", [b"HC is 175 mm\n" * 50, np.random.default_rng(0).bytes(5000), b"RIFF" + bytes(99)])
def test_a_file_that_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sweep.avi"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"sweep\.avi is not a video that can be read; export it as AVI or MP4"):
        next(VideoSource(path).frames())


def test_a_name_is_no_pattern_of_picture_files(tmp_path: Path) -> None:
    for number in range(3):
        picture = cv2.imencode(".png", np.full((48, 64), 50, np.uint8))[1].tobytes()
        (tmp_path / f"sweep{number}.avi").write_bytes(picture)
    path = tmp_path / "sweep%d.avi"
    path.write_bytes(b"no video" * 100)
    with pytest.raises(SourceError, match="is not a video that can be read"):
        next(VideoSource(path).frames())


def test_a_list_of_other_files_is_not_a_video(tmp_path: Path) -> None:
    _write(tmp_path / "other.avi", _plain())
    path = tmp_path / "sweep.avi"
    path.write_text("ffconcat version 1.0\nfile other.avi\nfile other.avi\n")
    with pytest.raises(SourceError):
        next(VideoSource(path).frames())


@pytest.mark.parametrize("codec", ["FFV1", "MJPG"])
def test_a_cut_video_is_refused_or_gives_its_first_frames(tmp_path: Path, codec: str) -> None:
    whole = _write(tmp_path / "whole.avi", _plain(), codec).read_bytes()
    outcomes = set()
    for length in np.linspace(1, len(whole) - 1, 25).astype(int):
        path = tmp_path / "cut.avi"
        path.write_bytes(whole[:length])
        try:
            levels = _levels(VideoSource(path))
        except EdgeFetalError:
            outcomes.add("refused")
            continue
        outcomes.add("read")
        assert 0 < len(levels) <= len(LEVELS)
        # The last frame may be half a frame; those before it are whole and in their places.
        np.testing.assert_allclose(levels[:-1], LEVELS[: len(levels) - 1], atol=1)
    assert outcomes == {"refused", "read"}


def test_a_video_that_breaks_off_is_refused_and_says_where(tmp_path: Path) -> None:
    """What is lost may be the plane that mattered, and what is left measures too small."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (48, 64), dtype=np.uint8) for _ in range(8)]
    whole = _write(tmp_path / "whole.avi", noise, "MJPG").read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(whole[: 2 * len(whole) // 3])
    with pytest.raises(SourceError, match=r"cut\.avi breaks off after 5 of 8 frames"):
        list(VideoSource(path).frames())


def test_times_of_real_recordings_go_forward(shared_data: Path) -> None:
    for path in sorted((shared_data / "handheld").glob("*.mp4")):
        times = [frame.timestamp_s for frame in VideoSource(path).frames()]
        assert times[0] == 0
        assert np.all(np.diff(times) > 0)


def _avi(path: Path, pictures: Sequence[npt.NDArray[np.uint8] | None]) -> Path:
    """Write Motion JPEG as OpenCV's writer does not: its pictures may differ in size, and None is one dropped."""
    frames = [b"" if picture is None else cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]
    height, width = next(picture.shape for picture in pictures if picture is not None)

    def chunk(name: bytes, content: bytes) -> bytes:
        return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    header = struct.pack("<14I", 40_000, 0, 0, 0, len(frames), 0, 1, 0, width, height, 0, 0, 0, 0)
    stream = b"vidsMJPG" + struct.pack(
        "<IHHIIIIIIII4H", 0, 0, 0, 0, 1, 25, 0, len(frames), 0, 0, 0, 0, 0, width, height
    )
    form = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", 0, 0, 0, 0, 0)
    of_stream = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", form))
    content = chunk(b"LIST", b"hdrl" + chunk(b"avih", header) + of_stream)
    content += chunk(b"LIST", b"movi" + b"".join(chunk(b"00dc", frame) for frame in frames))
    path.write_bytes(chunk(b"RIFF", b"AVI " + content))
    return path


def test_a_video_whose_picture_size_changes_is_refused_where_it_does(tmp_path: Path) -> None:
    """OpenCV brings all frames to the size of the first, and with it the pixel size of the rest would be wrong."""
    small, large = np.full((48, 64), 90, np.uint8), np.full((96, 128), 90, np.uint8)
    assert len(list(VideoSource(_avi(tmp_path / "one.avi", [small] * 7)).frames())) == 7
    frames = VideoSource(_avi(tmp_path / "two.avi", [small] * 4 + [large] * 3)).frames()
    assert [next(frames).index for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(SourceError, match=r"two\.avi changes its picture size or settings at frame 4"):
        next(frames)


def test_frames_have_the_times_of_the_file_where_some_were_dropped(tmp_path: Path) -> None:
    """Grabbers that could not keep up write an empty frame, and the next one is later than the rate says."""
    one = np.full((48, 64), 90, np.uint8)
    path = _avi(tmp_path / "dropped.avi", [one, one, None, None, one, None, one])
    frames = VideoSource(path).frames()
    read = [next(frames).timestamp_s for _ in range(4)]
    np.testing.assert_allclose(read, np.array([0, 1, 4, 6]) / FRAMES_PER_S, atol=0.001)
