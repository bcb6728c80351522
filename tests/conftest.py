"""What all test folders share: the starter bundle, real data where they are, and a tiny dataset that is drawn."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal.starter import bundle_folder
from edgefetal_calibration.datasets.hc18 import ANNOTATION_SUFFIX, FOLDER, MASK_EDGE_OFFSET_PX, TABLE
from edgefetal_calibration.evaluate import ellipse_mask
from edgefetal_calibration.phantom.head_clip import simulate_head_clip, standard_plane_outline_px
from edgefetal_runtime.infer.bundle import Bundle, load_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgefetal_export.finish import Draft

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


def _draw_hc18(root: Path, heads: Iterable[tuple[str, float]]) -> None:
    """Fill a folder in HC18's layout with simulated heads, 180 x 260 pixels each: file names with HC in mm."""
    folder = root / FOLDER
    folder.mkdir()
    rows = []
    for number, (name, hc_mm) in enumerate(heads):
        shape = {
            "hc_mm": hc_mm,
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
        rows.append((name, 0.62, hc_mm))
    with (root / TABLE).open("w", newline="") as stream:
        csv.writer(stream).writerows([("filename", "pixel size(mm)", "head circumference (mm)"), *rows])


@pytest.fixture(scope="session")
def tiny_hc18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-two simulated heads of 28 subjects in HC18's layout."""
    root = tmp_path_factory.mktemp("tiny_hc18")
    names = [f"{number % 28:03d}_{'' if number < 28 else 2}HC.png" for number in range(32)]
    _draw_hc18(root, ((name, 120.0 + 4 * number) for number, name in enumerate(names)))
    return root


@pytest.fixture(scope="session")
def simulated_hc18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty simulated heads of as many subjects, large enough for the starter, which measures nearly all of them."""
    root = tmp_path_factory.mktemp("simulated_hc18")
    _draw_hc18(root, ((f"{number:03d}_HC.png", 150.0 + 2.5 * number) for number in range(40)))
    return root


@pytest.fixture(scope="session")
def simulated_draft(starter: Bundle, simulated_hc18: Path) -> Draft:
    """The starter's float graph, shipped as it is, as if it had been trained on some of the simulated heads.

    It measures them well and never strays from itself, so it passes its budget on any machine.
    """
    from edgefetal_calibration.datasets.hc18 import read_hc18
    from edgefetal_calibration.datasets.split import split_by_subject
    from edgefetal_export.finish import draft_of

    split = split_by_subject(read_hc18(simulated_hc18), dataset="hc18", seed=1, validation=0.26, held_out=0.7)
    draft = draft_of(starter)
    return replace(draft, shipped=draft.reference, split=split, evidence=None)


@pytest.fixture(scope="session")
def simulated_bundle(
    simulated_draft: Draft, simulated_hc18: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, list[int]]]:
    """That draft finished on the simulated heads; and for each step how many parts were done, and of how many."""
    from edgefetal_calibration.datasets.hc18 import read_hc18
    from edgefetal_export.finish import finish

    steps: dict[str, list[int]] = {}

    class Recorder:
        def step(self, title: str, total: int) -> Callable[[], None]:
            steps[title] = [0, total]

            def advance() -> None:
                steps[title][0] += 1

            return advance

    out = tmp_path_factory.mktemp("simulated_bundle") / "bundle"
    finish(simulated_draft, read_hc18(simulated_hc18), out, progress=Recorder())
    return out, steps
