"""Addresses of live sources: what is read, what is refused, and that no password is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_devices.errors import ScaleError, SourceError
from edgefetal_runtime.sources.live.address import (
    DrillAddress,
    RtspAddress,
    SimulatedAddress,
    V4l2Address,
    parse_address,
)
from edgefetal_runtime.sources.live.live import open_live
from edgefetal_runtime.sources.scale_wish import ScaleWish


def test_a_device_is_read_with_what_is_asked_of_it() -> None:
    text = "v4l2:/dev/video0?size=1280x720&format=MJPG"
    assert parse_address("v4l2:/dev/video0") == V4l2Address("v4l2:/dev/video0", "/dev/video0")
    assert parse_address(text) == V4l2Address(text, "/dev/video0", (1280, 720), "MJPG")


def test_a_file_is_read_with_its_rate_even_where_its_name_holds_a_question_mark() -> None:
    assert parse_address("simulated:a.mp4?fps=12.5&loop=1") == SimulatedAddress(
        "simulated:a.mp4?fps=12.5&loop=1", Path("a.mp4"), 12.5, loop=True
    )
    assert parse_address("simulated:why?.mp4") == SimulatedAddress("simulated:why?.mp4", Path("why?.mp4"))


def test_a_drill_is_read_step_by_step() -> None:
    text = "drill:frames=3,unplug"
    assert parse_address(text) == DrillAddress(text, (("frames", "3"), ("unplug", "")))


def test_a_stream_is_named_without_its_password() -> None:
    address = parse_address("rtsp://user:secret@10.0.0.2:554/live?token=secret")
    assert isinstance(address, RtspAddress)
    assert address.name == "rtsp://10.0.0.2:554/live"
    with pytest.raises(SourceError) as caught:
        parse_address("rtsps://user:secret@10.0.0.2/live")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "give v4l2:/dev/video0"),
        ("video.mp4", "give v4l2:/dev/video0"),
        ("v4l2:", "give v4l2:/dev/video0"),
        ("v4l2:/etc/passwd", "names no device"),
        ("v4l2:/dev/../etc/passwd", "names no device"),
        ("v4l2:/dev/video0?size=big", "give it as in size=1280x720"),
        ("v4l2:/dev/video0?format=RGB3", "give one of GREY"),
        ("v4l2:/dev/video0?rate=3", "takes size and format"),
        ("v4l2:/dev/video0?size=64x48&size=64x49", "once each"),
        ("rtsp:10.0.0.2", "names no host"),
        ("rtsp://host:port/", "names no host"),
        ("simulated:a.mp4?fps=0", "give fps=1 to 240"),
        ("simulated:a.mp4?fps=nan", "give fps=1 to 240"),
        ("simulated:a.mp4?loop=yes", "loop, which is 0 or 1"),
    ],
)
def test_what_is_no_address_is_refused_with_the_way_out(text: str, remedy: str) -> None:
    with pytest.raises(SourceError, match=remedy.replace("?", r"\?")):
        parse_address(text)


@given(st.text(max_size=60), st.sampled_from(["", "v4l2:", "v4l2:/dev/v", "rtsp://", "simulated:", "drill:"]))
def test_any_text_is_an_address_that_says_the_same_again_or_is_refused(rest: str, scheme: str) -> None:
    try:
        address = parse_address(scheme + rest)
    except SourceError:
        return
    # The child is told by the text alone.
    assert address.text == scheme + rest
    assert parse_address(address.text) == address
    assert "\n" not in address.text


def test_what_can_never_come_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        open_live(f"simulated:{tmp_path / 'none.mp4'}")
    with pytest.raises(SourceError, match="A drill has no step 'dance'"):
        open_live("drill:dance")
    with pytest.raises(ScaleError, match="give a live source its pixel size with"):
        open_live("drill:frames=1", ScaleWish(table=tmp_path / "table.csv"))


def test_a_source_that_was_not_asked_for_frames_says_so_and_counts_none() -> None:
    source = open_live("drill:frames=1")
    assert (source.kind, source.frame_count) == ("drill", None)
    assert (source.status.state.value, source.status.received) == ("opening", 0)
    source.stop()
    assert list(source.frames()) == []
