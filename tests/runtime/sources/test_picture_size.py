"""What compressed packets state of the picture size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefetal_runtime.sources.picture_size import jpeg_size, stated_sizes

# Parameter sets as FFmpeg 9 writes them for 64 x 48 and for 128 x 96: x264, x265 (whole up to the size) and MPEG-4.
STATEMENTS = {
    "h264": ("6764000aacd9447b011000000300100000030320", "6764000aacd9420db01100000300010000030032"),
    "hevc": ("42010101600000030090000003000003001ea020", "42010101600000030090000003000003001ea010"),
    "FMP4": ("2000c48d8800cd0204061443", "2000c48d8800cd04040c1443"),
}


@pytest.mark.parametrize("codec", STATEMENTS)
def test_a_statement_is_found_between_others_and_differs_with_the_size(codec: str) -> None:
    small, large = (bytes.fromhex(text) for text in STATEMENTS[codec])
    other = b"\0\0\1\x65\x88\x84\x21"
    for mark in (b"\0\0\1", b"\0\0\0\1"):
        assert stated_sizes(other + mark + small + other, codec) == {small}
        assert stated_sizes(mark + small + mark + large, codec) == {small, large}
    assert stated_sizes(other, codec) == set()


def test_a_codec_that_is_not_known_states_nothing() -> None:
    assert stated_sizes(b"\0\0\1\x67abc", "FFV1") == set()


@given(st.integers(1, 300), st.integers(1, 300), st.booleans())
def test_the_size_of_a_jpeg_is_read(width: int, height: int, progressive: bool) -> None:  # noqa: FBT001 - drawn
    flags = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    content = cv2.imencode(".jpg", np.zeros((height, width), np.uint8), flags)[1].tobytes()
    assert jpeg_size(content) == height.to_bytes(2, "big") + width.to_bytes(2, "big")


@given(st.binary(max_size=80))
def test_any_bytes_are_read_to_an_end(content: bytes) -> None:
    size = jpeg_size(b"\xff\xd8" + content)
    assert size is None or len(size) == 4
    for codec in STATEMENTS:
        assert all(statement in content for statement in stated_sizes(b"\0" + content, codec))
