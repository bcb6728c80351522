"""Files played as if live, and network streams that are none."""

from __future__ import annotations

import itertools
import socket
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal_devices.errors import SourceError
from edgefetal_runtime.scale import Scale
from edgefetal_runtime.sources.live.address import RtspAddress, SimulatedAddress, parse_address
from edgefetal_runtime.sources.live.camera import Break, Captured, PictureFormat
from edgefetal_runtime.sources.live.live import LiveCapture, LiveSource, open_live
from edgefetal_runtime.sources.live.rtsp import RtspCamera
from edgefetal_runtime.sources.live.simulated import SimulatedCamera
from edgefetal_runtime.sources.live.status import LiveState, LiveTiming
from edgefetal_runtime.sources.scale_wish import ScaleWish
from edgefetal_runtime.sources.video import VideoSource

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_runtime.frame import Frame


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def _camera(text: str) -> tuple[SimulatedCamera, _Clock]:
    address, clock = parse_address(text), _Clock()
    assert isinstance(address, SimulatedAddress)
    return SimulatedCamera(address, clock, clock.sleep), clock


def _folder(path: Path, sizes: list[tuple[int, int]]) -> Path:
    path.mkdir()
    for number, (height, width) in enumerate(sizes):
        cv2.imwrite(str(path / f"{number}.png"), np.full((height, width), 10 * number, np.uint8))
    return path


def _played(camera: SimulatedCamera) -> list[Captured | Break]:
    assert isinstance(camera.open(), PictureFormat)
    got: list[Captured | Break] = []
    while not got or not isinstance(got[-1], Break):
        found = camera.read(0.25)
        got += [found] if found is not None else []
    return got


def test_a_folder_is_played_at_the_rate_that_was_asked_for(tmp_path: Path) -> None:
    camera, clock = _camera(f"simulated:{_folder(tmp_path / 'pictures', [(48, 64)] * 5)}?fps=2")
    *frames, last = _played(camera)
    assert last is Break.ENDED
    assert [f.sequence for f in frames if isinstance(f, Captured)] == [0, 1, 2, 3, 4]
    assert [f.device_s for f in frames if isinstance(f, Captured)] == [0, 0.5, 1.0, 1.5, 2.0]
    assert clock.now_s == pytest.approx(2.0)


def test_pictures_of_another_size_are_a_change_of_format_and_a_loop_goes_on(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "pictures", [(48, 64), (48, 64), (24, 32)])
    camera, _ = _camera(f"simulated:{folder}?loop=1")
    assert [type(got) for got in _played(camera)] == [Captured, Captured, Break]
    camera.close()
    assert camera.open() == PictureFormat(32, 24, "GREY")
    assert isinstance(camera.read(0.1), Captured)
    assert camera.read(0.1) is Break.FORMAT_CHANGED
    camera.close()
    assert camera.open() == PictureFormat(64, 48, "GREY")


def test_a_change_of_size_in_a_live_source_voids_the_scale_and_begins_a_segment(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "pictures", [(48, 64)] * 3 + [(24, 32)] * 3)
    wish = ScaleWish(stated=Scale(0.2, 0.2, origin="--mm-per-px"))
    source = open_live(f"simulated:{folder}?fps=20", wish)
    frames: list[Frame] = list(source.frames())
    assert {(frame.segment, bool(frame.scale)) for frame in frames} == {(0, True), (1, False)}
    assert (source.kind, source.status.format_changes, source.status.state) == ("simulated", 1, LiveState.ENDED)


def test_real_recordings_come_through_bit_for_bit_in_real_time(shared_data: Path) -> None:
    path = shared_data / "handheld" / "sonosite-anon-eye1-video.mp4"
    if not path.is_file():
        pytest.skip(f"no recording at {path}")
    source = open_live(f"simulated:{path}")
    live = []
    for frame in source.frames():
        live.append(frame)
        if len(live) == 15:
            source.stop()
    plain = list(itertools.islice(VideoSource(path).frames(), live[-1].index + 1))
    for frame in live:
        np.testing.assert_array_equal(frame.pixels, plain[frame.index].pixels)
        assert frame.timestamp_s - live[0].timestamp_s == pytest.approx(
            plain[frame.index].timestamp_s - plain[live[0].index].timestamp_s
        )
    arrived = [frame.arrived_s for frame in live if frame.arrived_s is not None]
    assert arrived[-1] - arrived[0] == pytest.approx(live[-1].timestamp_s - live[0].timestamp_s, abs=0.3)


def test_a_stream_that_nobody_sends_is_refused_with_its_name_and_without_its_password() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = parse_address(f"rtsp://user:secret@127.0.0.1:{closed.getsockname()[1]}/live")
        assert isinstance(address, RtspAddress)
        camera = RtspCamera(address)
        with pytest.raises(SourceError, match="check its power, network and address") as caught:
            camera.open()
        assert "secret" not in str(caught.value)
        camera.close()


def test_a_sender_that_takes_the_call_and_says_nothing_is_given_up() -> None:
    timing = LiveTiming(open_s=0.8, backoff_first_s=30, backoff_last_s=30, tick_s=0.01)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = parse_address(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live")
        source = LiveSource(LiveCapture(address, timing))
        sleep = source.capture._pause
        seen = []

        def look(seconds: float) -> None:
            seen.append(source.status)
            source.stop()
            sleep(seconds)

        source.capture._pause = look  # type: ignore[method-assign]
        assert list(source.frames()) == []
    assert [status.state for status in seen] == [LiveState.LOST]
    assert "gave no picture within 0.8 s" in seen[0].reason
