"""Pictures of the worst cases, on simulated heads: what is drawn, and of whom."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.datasets.split import Part
from edgefetal_calibration.frames import evaluate_frames, frame_rows
from edgefetal_devices.errors import OutputError
from edgefetal_export.case_pictures import CASES_PAGE, require_place_for_cases, write_worst_cases
from edgefetal_runtime.infer.backends import open_backend
from edgefetal_runtime.infer.network import Network

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_export.draft import Draft
    from edgefetal_runtime.infer.backends import Backend

# As they are drawn, blue, green, red.
TRUTH, FLOAT, SHIPPED = (115, 158, 0), (233, 180, 86), (0, 94, 213)


class Smaller:
    """A graph that outlines everything a little smaller."""

    name = "smaller"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def run(self, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        answers = self._backend.run(image)
        return {**answers, "mask": answers["mask"] - 3}


def pixels_of(picture: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(axis=2).sum())


def test_the_worst_heads_are_drawn_with_all_three_outlines(
    simulated_draft: Draft, simulated_hc18: Path, tmp_path: Path
) -> None:
    validation = simulated_draft.split.select(read_hc18(simulated_hc18), Part.VALIDATION)
    backend = open_backend("onnxruntime", simulated_draft.reference, threads=1)
    manifest = simulated_draft.manifest
    networks = {"shipped": Network(manifest, Smaller(backend)), "reference": Network(manifest, backend)}
    results = evaluate_frames(networks, validation, 4)
    lost = max(k for k, r in enumerate(results["reference"]) if r.measured_mm is not None)
    results["shipped"][lost] = replace(results["shipped"][lost], measured_mm=None, abstained="nothing is outlined")
    rows = {name: frame_rows(of) for name, of in results.items()}
    count = write_worst_cases(tmp_path / "cases", "ward-3", networks, validation, rows)
    assert count == sum(r.measured_mm is not None for r in results["reference"]) >= 5
    page = (tmp_path / "cases" / CASES_PAGE).read_text()
    assert "Worst cases: ward-3" in page
    assert "not to be passed on" in page
    captions = re.findall(r"<figcaption>([^<]+)<", page)
    # Those that were lost come first, and then the others.
    told = ["shipped lost (" in caption for caption in captions]
    assert told == sorted(told, reverse=True)
    (caption,) = (caption for caption in captions if caption.startswith(results["shipped"][lost].name))
    assert "shipped lost (nothing is outlined)" in caption
    assert all("truth green, float blue, shipped orange" in caption for caption in captions)
    files = [base64.b64decode(found) for found in re.findall(r"base64,([^']+)'", page)]
    assert len(files) == count
    for file in files:
        picture = np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), np.uint8)
        assert picture.shape == (540, 780, 3)
        lengths = [pixels_of(picture, colour) for colour in (TRUTH, FLOAT, SHIPPED)]
        # An outline that crosses another is drawn over in places.
        assert min(lengths) > 200


@pytest.mark.parametrize(("cases", "bundle"), [("a", "a"), ("a/b", "a"), ("a", "a/b")])
def test_the_page_lies_apart_from_the_bundle(cases: str, bundle: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        require_place_for_cases(tmp_path / cases, tmp_path / bundle)
    require_place_for_cases(tmp_path / "cases", tmp_path / "bundle")
