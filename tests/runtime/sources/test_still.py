"""Stills: each picture is a sweep of one frame with its own pixel size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal_devices.errors import SourceError
from edgefetal_runtime.scale import NOT_GIVEN, Scale
from edgefetal_runtime.sources.still import StillSource

if TYPE_CHECKING:
    from pathlib import Path


def test_every_picture_is_a_sweep_of_its_own(tmp_path: Path) -> None:
    scale = Scale(0.1, 0.1, origin="test")
    pictures = []
    for level, size in ((7, scale), (9, NOT_GIVEN)):
        path = tmp_path / f"{level}.png"
        cv2.imwrite(str(path), np.full((20, 30), level, np.uint8))
        pictures.append((path, size))
    source = StillSource("folder", tuple(pictures))
    frames = list(source.frames())
    assert source.frame_count == 2
    assert [(f.sweep, f.index, f.timestamp_s, f.scale) for f in frames] == [
        ("7.png", 0, 0.0, scale),
        ("9.png", 0, 0.0, NOT_GIVEN),
    ]
    assert [(f.pixels.shape, f.pixels.min(), f.pixels.max()) for f in frames] == [((20, 30), 7, 7), ((20, 30), 9, 9)]


def test_pictures_are_read_when_their_turn_comes(tmp_path: Path) -> None:
    first, second = tmp_path / "1.png", tmp_path / "2.png"
    cv2.imwrite(str(first), np.full((20, 30), 7, np.uint8))
    frames = StillSource("folder", ((first, NOT_GIVEN), (second, NOT_GIVEN))).frames()
    assert next(frames).sweep == "1.png"
    with pytest.raises(SourceError, match=r"2\.png does not exist"):
        next(frames)
