"""Real pictures of one fetus and a real volume, from file to gestational age; truth is known by hand only."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal_runtime.biometry.abdomen import ABDOMEN_SHAPE, AC, measure_abdomen
from edgefetal_runtime.biometry.ellipse import Ellipse
from edgefetal_runtime.biometry.field import fan_field
from edgefetal_runtime.biometry.measurement import Measured
from edgefetal_runtime.biometry.outline import Outline, outline_round
from edgefetal_runtime.growth.dating import DATING
from edgefetal_runtime.growth.measures import Biometry, Measure
from edgefetal_runtime.infer.preprocess import PreprocessSpec, preprocess
from edgefetal_runtime.sources.source import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import CommandLine

SPEC = PreprocessSpec(height_px=192, width_px=288, mean=0.15, std=0.2)
HEAD = "image_transducer0_2D_1558092496062_layer0.mhd"
HEART = "image_transducer0_2D_1558092754103_layer0.mhd"
ABDOMEN = "image_transducer0_2D_1558092927832_layer0.mhd"
FEMUR = "image_transducer0_2D_1558092947471_layer0.mhd"


def _ages(exam: dict[str, Any]) -> dict[str, float]:
    return {m["method"]: m["value"] for m in exam["measurements"] if m["name"] == "GA"}


def test_a_real_head_is_dated_to_the_22nd_week(edgefetal: CommandLine, shared_data: Path, tmp_path: Path) -> None:
    """By hand: about 192 mm in the middle of the skull, which is some 3 mm thick in the picture; 21 to 22 weeks."""
    exam = edgefetal.json("run", "starter", shared_data / "pretus" / HEAD, "--out", tmp_path / "exam")
    hc = next(m for m in exam["measurements"] if m["name"] == "HC")
    assert hc["value"] == pytest.approx(200, abs=4)
    assert hc["interval"][0] < 197 < hc["interval"][1]
    assert "ElementSpacing" in exam["sweeps"][0]["scale"]["origin"]
    assert len(_ages(exam)) == 4
    for weeks in _ages(exam).values():
        assert 21 <= weeks < 23


@pytest.mark.parametrize("name", [HEART, ABDOMEN, FEMUR])
def test_no_other_plane_of_that_fetus_is_measured_as_a_head(
    edgefetal: CommandLine, shared_data: Path, tmp_path: Path, name: str
) -> None:
    exam = edgefetal.json("run", "starter", shared_data / "pretus" / name, "--out", tmp_path / "exam")
    assert all(m["value"] is None and m["abstained"] for m in exam["measurements"])


def test_a_real_abdomen_outlined_by_hand_is_dated_to_the_22nd_week(shared_data: Path) -> None:
    frame = next(iter(open_source(shared_data / "pretus" / ABDOMEN).frames()))
    image, box = preprocess(frame.pixels, SPEC)
    by_hand_px = Ellipse(center_x=297, center_y=180, semi_major=89, semi_minor=82, angle_rad=0.3)
    rows, columns = np.mgrid[: SPEC.height_px, : SPEC.width_px].astype(float)
    grid = np.stack((columns.ravel(), rows.ravel()), axis=1)
    logits = -by_hand_px.signed_distance(box.to_frame(grid)).reshape(rows.shape).astype(np.float32)
    outline = outline_round(logits, box, frame.scale, ABDOMEN_SHAPE, fan_field(image[0, 0], SPEC, box))
    assert isinstance(outline, Outline)
    ac = measure_abdomen(outline)[AC]
    assert isinstance(ac, Measured)
    assert ac.value == pytest.approx(163, abs=5)
    formula = next(f for f in DATING if f.author == "Hadlock 1984" and f.measures == (Measure.AC,))
    weeks = formula.estimate(Biometry(ac_mm=ac.value)).value
    assert isinstance(weeks, float)
    assert 21 <= weeks < 22


def test_planes_of_a_real_volume_are_dated_to_the_22nd_and_23rd_week(
    edgefetal: CommandLine, shared_data: Path, tmp_path: Path
) -> None:
    """By hand: 198 to 208 mm in the middle of the skull on planes 100 to 124, 22 weeks; the outer edge adds about 5 mm.

    These few alone begin at the largest section, so that a larger one might lie before them: the sweep that is measured
    goes across all of the head.
    """
    source = next((shared_data / "fetal_head_volume").glob("*.mha")).read_bytes()
    header, _, body = source.partition(b"ElementDataFile = LOCAL\n")
    fields = dict(line.split(" = ") for line in header.decode().splitlines())
    columns, depth, slices = map(int, fields["DimSize"].split())
    x_mm, _, z_mm = map(float, fields["ElementSpacing"].split())
    volume = np.frombuffer(zlib.decompress(body), np.uint8).reshape(slices, depth, columns)

    def examined(name: str, first: int, last: int) -> dict[str, Any]:
        stack = np.ascontiguousarray(volume[:, first : last + 1 : 4].transpose(1, 0, 2))
        path = tmp_path / f"{name}.mha"
        path.write_bytes(
            (
                f"ObjectType = Image\nNDims = 3\nDimSize = {columns} {slices} {len(stack)}\n"
                f"ElementSpacing = {x_mm} {z_mm} 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
            ).encode()
            + stack.tobytes()
        )
        return edgefetal.json("run", "starter", path, "--out", tmp_path / name)

    cut_off = next(m for m in examined("cut", 100, 124)["measurements"] if m["name"] == "HC")
    assert cut_off["value"] is None
    assert cut_off["abstained"].startswith("the sweep begins on the head")
    exam = examined("whole", 60, 164)
    hc = next(m for m in exam["measurements"] if m["name"] == "HC")
    assert 100 <= 60 + 4 * hc["frames"][0]["index"] <= 124
    assert 200 <= hc["value"] <= 214
    assert hc["interval"][0] < 208 < hc["interval"][1]
    for weeks in _ages(exam).values():
        assert 21.5 <= weeks < 24
