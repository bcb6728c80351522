"""What all test folders share: the starter bundle, real data where they are, and a tiny dataset that is drawn."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgefetal.starter import bundle_folder
from edgefetal_calibration.datasets.hc18 import ANNOTATION_SUFFIX, FOLDER, MASK_EDGE_OFFSET_PX, TABLE
from edgefetal_calibration.evaluate import ellipse_mask
from edgefetal_calibration.phantom.head_clip import simulate_head_clip, standard_plane_outline_px
from edgefetal_runtime.infer.bundle import Bundle, load_bundle

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout; tests that need them are skipped where they are absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session")
def hc18_root(shared_data: Path) -> Path:
    """HC18 in its official layout."""
    folder = shared_data / "hc18"
    if not (folder / TABLE).is_file():
        pytest.skip(f"HC18 is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def starter() -> Bundle:
    """The bundle that comes with the package."""
    return load_bundle(bundle_folder("starter"))


@pytest.fixture(scope="session")
def tiny_hc18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-two simulated heads of 28 subjects in HC18's layout, 180 x 260 pixels."""
    root = tmp_path_factory.mktemp("tiny_hc18")
    folder = root / FOLDER
    folder.mkdir()
    rows = []
    for number in range(32):
        subject = number % 28
        name = f"{subject:03d}_{'' if number < 28 else 2}HC.png"
        shape = {
            "hc_mm": 120.0 + 4 * number,
            "height_px": 180,
            "width_px": 260,
            "mm_per_px": 0.62,
            "tilt_rad": 0.05 * number,
        }
        clip = simulate_head_clip(seed=number, frame_count=3, **shape)  # type: ignore[arg-type]
        outline = standard_plane_outline_px(**shape)  # type: ignore[arg-type]
        # Contour pixels of a filled mask lie half a pixel inside its edge.
        mask = ellipse_mask(outline.grown(MASK_EDGE_OFFSET_PX + 0.5), (180, 260))
        cv2.imwrite(str(folder / name), clip.frames[clip.standard_plane_index])
        cv2.imwrite(str(folder / name.replace(".png", ANNOTATION_SUFFIX)), (mask * 255).astype(np.uint8))
        rows.append((name, 0.62, shape["hc_mm"]))
    with (root / TABLE).open("w", newline="") as stream:
        csv.writer(stream).writerows([("filename", "pixel size(mm)", "head circumference (mm)"), *rows])
    return root
