"""What stands before networks for colour photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from edgefetal_calibration.phantom.exam import Exam, ExamPlan
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_export.teachers.grey_input import CLIP, IMAGENET, GreyToRgb, square_spec
from edgefetal_runtime.infer.preprocess import place, preprocess


def test_grey_becomes_three_normalised_colours() -> None:
    grey = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3)
    red, green, blue = GreyToRgb(CLIP)(grey)[0]
    np.testing.assert_allclose(red[0], [-1.79226, 0.06904, 1.93034], atol=1e-5)
    np.testing.assert_allclose(green[0], [-1.75210, 0.16139, 2.07488], atol=1e-5)
    np.testing.assert_allclose(blue[0], [-1.48022, 0.33284, 2.14590], atol=1e-5)
    assert GreyToRgb(IMAGENET)(grey)[0, 0, 0, 0] == pytest.approx(-0.485 / 0.229)
    assert not GreyToRgb(CLIP).state_dict()


def test_a_frame_is_padded_to_a_square_on_the_scale_from_0_to_1() -> None:
    tensor, box = preprocess(np.full((562, 744), 255, np.uint8), square_spec())
    assert tensor.shape == (1, 1, 224, 224)
    assert (box.content_width_px, box.content_height_px, box.left_px, box.top_px) == (224, 169, 0, 27)
    assert (tensor[0, 0, 27 : 27 + 169] == 1).all()
    assert not tensor[0, 0, :27].any()
    assert not tensor[0, 0, 27 + 169 :].any()


def test_the_published_way_to_shrink_gives_nearly_the_same_picture() -> None:
    frame = Exam(ExamPlan(Protocol.ACOUSLIC, weeks=24.0, seed=7, frame_count=3)).frame(0, 1).picture
    square = np.zeros((744, 744), np.uint8)
    square[91 : 91 + 562] = frame
    theirs = np.asarray(Image.fromarray(square).resize((224, 224), Image.Resampling.BICUBIC)).astype(float)
    ours = place(frame, square_spec())[0].astype(float)
    seen = theirs > 0
    assert np.abs(ours - theirs)[seen].mean() < 5
    assert np.corrcoef(ours[seen], theirs[seen])[0, 1] > 0.97
