from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import pytest

from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.datasets.split import Part, Split
from edgefetal_runtime.exam.record import Exam

if TYPE_CHECKING:
    from edgefetal_runtime.infer.bundle import Bundle
    from tests.edgefetal.conftest import CommandLine, HeadSweep


def test_still_with_a_scale(edgefetal: CommandLine, head_png: Path, sweep: HeadSweep, tmp_path: Path) -> None:
    record = edgefetal.json("run", "starter", head_png, "--mm-per-px", sweep.mm_per_px, "--out", "exam")
    exam = Exam.model_validate(record)
    assert exam == Exam.model_validate_json((tmp_path / "exam" / "exam.json").read_bytes())
    hc = exam.measurements[0]
    assert (hc.name, hc.unit, hc.abstained) == ("HC", "mm", None)
    assert hc.value == pytest.approx(sweep.hc_mm, rel=0.05)
    assert hc.interval is not None
    assert hc.interval[0] < sweep.hc_mm < hc.interval[1]
    assert exam.sweeps[0].scale is not None
    assert exam.sweeps[0].scale.origin == "command line"
    overlay = cv2.imread(str(tmp_path / "exam" / str(exam.sweeps[0].structures[0].overlay)))
    assert overlay is not None
    assert overlay.shape[:2] > sweep.frames.shape[1:]
    assert exam.bundle.name == "starter"
    assert len(exam.bundle.sha256) == 64
    assert exam.timings.infer_ms > 0


def test_anisotropic_scale(edgefetal: CommandLine, sweep: HeadSweep, tmp_path: Path) -> None:
    """The same head squeezed to two thirds of its height, with the pixel size to match, measures the same."""
    plane = sweep.frames[sweep.standard_plane_index]
    squeezed = cv2.resize(plane, (plane.shape[1], plane.shape[0] * 2 // 3), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(tmp_path / "squeezed.png"), squeezed)
    x_mm, y_mm = sweep.mm_per_px, sweep.mm_per_px * plane.shape[0] / squeezed.shape[0]
    record = edgefetal.json("run", "starter", "squeezed.png", "--mm-per-px", f"{x_mm},{y_mm}", "--out", "exam")
    assert record["measurements"][0]["value"] == pytest.approx(sweep.hc_mm, rel=0.05)


def test_no_scale_gives_no_millimetres(edgefetal: CommandLine, head_png: Path, sweep: HeadSweep) -> None:
    record = edgefetal.json("run", "starter", head_png, "--out", "exam")
    *lengths, index = record["measurements"]
    assert [length["name"] for length in lengths] == ["HC", "BPD_outer_outer", "OFD"]
    for length in lengths:
        assert length["value"] is None
        assert "--mm-per-px" in length["abstained"]
    assert index["name"] == "cephalic_index"
    assert index["value"] == pytest.approx(sweep.cephalic_index, abs=0.06)
    assert record["sweeps"][0]["scale"] is None
    (head,) = record["sweeps"][0]["structures"]
    assert len(head["contour_px"]) > 50
    assert head["overlay"] == "overlay-001-head.png"


def test_metaimage_brings_its_own_scale(edgefetal: CommandLine, sweep: HeadSweep, tmp_path: Path) -> None:
    count, height, width = sweep.frames.shape
    fields = (
        "NDims = 3",
        f"DimSize = {width} {height} {count}",
        f"ElementSpacing = {sweep.mm_per_px} {sweep.mm_per_px} 1",
        "ElementType = MET_UCHAR",
        "ElementDataFile = LOCAL",
    )
    (tmp_path / "sweep.mha").write_bytes("\n".join((*fields, "")).encode() + sweep.frames.tobytes())
    record = edgefetal.json("run", "starter", "sweep.mha", "--out", "exam")
    assert record["source_kind"] == "metaimage"
    assert record["sweeps"][0]["scale"]["origin"] == "MetaImage ElementSpacing of sweep.mha"
    assert record["measurements"][0]["value"] == pytest.approx(sweep.hc_mm, rel=0.05)


def test_depth_and_ruler_give_millimetres(edgefetal: CommandLine, sweep: HeadSweep, tmp_path: Path) -> None:
    """The sweep's plane beside a ruler, as a machine shows it, and the depth of the picture typed in."""
    plane = sweep.frames[sweep.standard_plane_index].copy()
    height = plane.shape[0]
    plane[:6], plane[:, :60] = 30, 0
    plane[-6:, 60:] = 30
    for number in range(int(height * sweep.mm_per_px / 5) + 1):
        row = min(round(number * 5 / sweep.mm_per_px), height - 2)
        plane[row : row + 2, 20 : 30 if number % 2 == 0 else 25] = 220
    cv2.imwrite(str(tmp_path / "screen.png"), plane)
    record = edgefetal.json("run", "starter", "screen.png", "--depth-mm", height * sweep.mm_per_px, "--out", "exam")
    scale = record["sweeps"][0]["scale"]
    assert scale["y_mm_per_px"] == pytest.approx(sweep.mm_per_px, rel=0.005)
    assert "confirmed by the ruler (5 mm marks" in scale["origin"]
    assert record["measurements"][0]["value"] == pytest.approx(sweep.hc_mm, rel=0.06)


def test_profile_holds_for_its_own_format_only(
    edgefetal: CommandLine, head_png: Path, sweep: HeadSweep, tmp_path: Path
) -> None:
    height, width = cv2.imread(str(head_png), cv2.IMREAD_GRAYSCALE).shape
    for name, profile_width in (("own", width), ("other", width + 1)):
        (tmp_path / f"{name}.toml").write_text(
            '[[profile]]\nname = "convex"\nprobe = "C5"\ndepth_mm = 100\ncapture = "card"\n'
            f"width_px = {profile_width}\nheight_px = {height}\n"
            f"x_mm_per_px = {sweep.mm_per_px}\ny_mm_per_px = {sweep.mm_per_px}\n"
            'relative_uncertainty = 0.005\nmethod = "phantom"\nmade_on = 2026-03-14\n'
        )
        record = edgefetal.json("run", "starter", head_png, "--scale-profile", f"{name}.toml", "--out", name)
        assert (record["measurements"][0]["value"] is not None) == (name == "own")


def test_video_is_one_sweep(edgefetal: CommandLine, sweep_video: Path, sweep: HeadSweep) -> None:
    record = edgefetal.json("run", "starter", sweep_video, "--mm-per-px", sweep.mm_per_px, "--out", "exam")
    hc = record["measurements"][0]
    assert hc["value"] == pytest.approx(sweep.hc_mm, rel=0.05)
    assert abs(hc["frames"][0]["index"] - sweep.standard_plane_index) <= 4
    assert record["sweeps"][0]["frames_seen"] == record["frames_announced"] == len(sweep.frames)
    assert 0 < record["sweeps"][0]["structures"][0]["frames_outlined"] < len(sweep.frames)


def test_folder_measures_each_picture_with_its_own_scale(
    edgefetal: CommandLine, head_png: Path, sweep: HeadSweep, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    half = cv2.imread(str(head_png), cv2.IMREAD_GRAYSCALE)[::2, ::2]
    cv2.imwrite(str(folder / "a_HC.png"), half)
    (folder / "b_HC.png").write_bytes(head_png.read_bytes())
    (folder / "b_HC_Annotation.png").write_bytes(head_png.read_bytes())
    (folder / "scale.csv").write_text(
        f"filename,pixel size(mm)\na_HC.png,{2 * sweep.mm_per_px}\nb_HC.png,{sweep.mm_per_px}\n"
    )
    record = edgefetal.json("run", "starter", folder, "--out", "exam")
    values = {m["sweep"]: m["value"] for m in record["measurements"] if m["name"] == "HC"}
    assert set(values) == {"a_HC.png", "b_HC.png"}
    assert all(value == pytest.approx(sweep.hc_mm, rel=0.06) for value in values.values())
    assert [s["scale"]["origin"] for s in record["sweeps"]] == ["scale.csv, row 2", "scale.csv, row 3"]
    assert len(list((tmp_path / "exam").glob("overlay-*.png"))) == 2


def test_empty_picture_is_an_abstention_and_not_an_error(edgefetal: CommandLine, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "black.png"), cv2.UMat(540, 800, cv2.CV_8U, 0.0).get())
    record = edgefetal.json("run", "starter", "black.png", "--mm-per-px", "0.1", "--out", "exam")
    assert all(m["value"] is None and m["abstained"] for m in record["measurements"])


def test_real_heads(edgefetal: CommandLine, hc18_root: Path, starter: Bundle) -> None:
    """Held-out subjects of HC18, through the front door."""
    split = Split.model_validate_json(starter.read("split.json"))
    table = hc18_root / "training_set_pixel_size_and_HC.csv"
    errors_mm = []
    for number, case in enumerate(split.select(read_hc18(hc18_root), Part.HELD_OUT)[::12]):
        record = edgefetal.json("run", "starter", case.picture, "--scale-csv", table, "--out", f"exam{number}")
        assert table.name in record["sweeps"][0]["scale"]["origin"]
        hc = record["measurements"][0]
        assert hc["abstained"] or abs(hc["value"] - case.hc_mm) < 0.06 * case.hc_mm
        errors_mm += [] if hc["value"] is None else [abs(hc["value"] - case.hc_mm)]
    assert len(errors_mm) >= 8
    assert statistics.median(errors_mm) < 3


def test_name_that_is_not_utf_8(edgefetal: CommandLine, head_png: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/h\xe9ad [red].png")
    Path(odd).write_bytes(head_png.read_bytes())
    record = edgefetal.json("run", "starter", odd, "--mm-per-px", "0.18", "--out", "exam")
    assert record["sweeps"][0]["name"] == "h?ad [red].png"


def test_other_parts_of_a_fetus(edgefetal: CommandLine, shared_data: Path) -> None:
    """Only heads were seen in training: both brain planes are outlined, and few of the eleven other pictures."""
    record = edgefetal.json("run", "starter", shared_data / "sononet" / "example_images", "--out", "exam")
    outlined = {sweep["name"] for sweep in record["sweeps"] if sweep["structures"][0]["contour_px"]}
    assert {"BRAIN-CB.png", "BRAIN-TV.png"} <= outlined
    assert len(outlined) <= 4


def test_eye_is_no_head(edgefetal: CommandLine, shared_data: Path) -> None:
    for name in ("butterfly-ocular-phantom.mp4", "sonosite-anon-eye1-video.mp4"):
        record = edgefetal.json("run", "starter", shared_data / "handheld" / name, "--mm-per-px", "0.06", "--out", name)
        assert record["measurements"][0]["value"] is None


def test_existing_exam_is_not_overwritten(edgefetal: CommandLine, head_png: Path, tmp_path: Path) -> None:
    (tmp_path / "exam").mkdir()
    (tmp_path / "exam" / "mine.txt").write_text("keep me")
    outcome = edgefetal("run", "starter", head_png, "--out", "exam")
    assert outcome.exit_code == 2
    assert "exists" in outcome.err
    assert (tmp_path / "exam" / "mine.txt").read_text() == "keep me"


def test_record_is_the_same_in_both_places(edgefetal: CommandLine, head_png: Path, tmp_path: Path) -> None:
    record = edgefetal.json("run", "starter", head_png, "--mm-per-px", "0.2", "--out", "exam")
    assert record == json.loads((tmp_path / "exam" / "exam.json").read_text())


@pytest.mark.parametrize("command", ["run", "demo"])
def test_machine_that_answers_otherwise_than_the_builder_does_not_measure(
    edgefetal: CommandLine, head_png: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("edgefetal_runtime.infer.golden.MAX_MASK_DISAGREEMENT", -1.0)
    outcome = edgefetal(command, *(["starter", head_png] if command == "run" else []), "--out", "exam")
    assert outcome.exit_code == 1
    assert "build the bundle for this device" in outcome.err
    assert list(tmp_path.iterdir()) == []
