from __future__ import annotations

import cv2
import numpy as np

from edgefetal_export.training.biometry.curves import draw_curves


def test_curves_are_a_picture() -> None:
    rows = [
        {
            "epoch": e,
            "segmentation_loss": 1 / e,
            "classification_loss": 0.5 / e,
            "validation": {"HC": {"mae_mm": 9 / e}, "FL": {"mae_mm": None if e == 1 else 4 / e}},
            "validation_cost_mm": 10 / e,
        }
        for e in (1, 2, 3)
    ]
    picture = cv2.imdecode(np.frombuffer(draw_curves(rows, rows[-1]), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape[1] > picture.shape[0]
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
