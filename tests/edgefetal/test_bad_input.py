"""Every wrong input ends with exit code 2, one sentence that says what to do, and nothing half-written."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal.starter import bundle_folder
from edgefetal_calibration.phantom.cine import Cine
from edgefetal_calibration.phantom.writers import write_video

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.edgefetal.conftest import CommandLine


def copy_starter(folder: Path) -> Path:
    return shutil.copytree(bundle_folder("starter"), folder / "bundle")


def missing_file(_: Path) -> list[str]:
    return ["starter", "none.png"]


def empty_folder(folder: Path) -> list[str]:
    (folder / "empty").mkdir()
    return ["starter", "empty"]


def truncated_png(folder: Path) -> list[str]:
    content = (folder / "head.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    return ["starter", "cut.png"]


def truncated_png_in_a_folder(folder: Path) -> list[str]:
    (folder / "two").mkdir()
    (folder / "two" / "a.png").write_bytes((folder / "head.png").read_bytes())
    (folder / "two" / "b.png").write_bytes((folder / "head.png").read_bytes()[:5000])
    return ["starter", "two"]


def empty_video(folder: Path) -> list[str]:
    (folder / "sweep.mp4").write_bytes(b"")
    return ["starter", "sweep.mp4"]


def garbage_video(folder: Path) -> list[str]:
    (folder / "sweep.avi").write_bytes(b"not a video at all" * 100)
    return ["starter", "sweep.avi"]


def video_without_frames(folder: Path) -> list[str]:
    writer = cv2.VideoWriter(str(folder / "none.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20, (64, 64))
    writer.release()
    return ["starter", "none.avi"]


def unknown_kind(folder: Path) -> list[str]:
    (folder / "notes.txt").write_text("hello")
    return ["starter", "notes.txt"]


def tiny_picture(folder: Path) -> list[str]:
    cv2.imwrite(str(folder / "dot.png"), np.zeros((8, 8), np.uint8))
    return ["starter", "dot.png"]


def no_bundle(folder: Path) -> list[str]:
    (folder / "bundle").mkdir()
    return ["bundle", "head.png"]


def absent_bundle(_: Path) -> list[str]:
    return ["nowhere", "head.png"]


def newer_schema(folder: Path) -> list[str]:
    manifest = copy_starter(folder) / "manifest.json"
    fields = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(fields | {"schema_version": 99, "something_new": 1}))
    return ["bundle", "head.png"]


def altered_model(folder: Path) -> list[str]:
    model = copy_starter(folder) / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    return ["bundle", "head.png"]


def over_budget(folder: Path) -> list[str]:
    manifest = copy_starter(folder) / "manifest.json"
    fields = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(fields | {"budget_passed": False}))
    return ["bundle", "head.png"]


def table_without_the_row(folder: Path) -> list[str]:
    (folder / "scale.csv").write_text("filename,pixel size(mm)\nother.png,0.1\n")
    return ["starter", "head.png", "--scale-csv", "scale.csv"]


def table_without_the_column(folder: Path) -> list[str]:
    (folder / "scale.csv").write_text("filename,size\nhead.png,0.1\n")
    return ["starter", "head.png", "--scale-csv", "scale.csv"]


def missing_table(_: Path) -> list[str]:
    return ["starter", "head.png", "--scale-csv", "none.csv"]


def two_scales(folder: Path) -> list[str]:
    (folder / "scale.csv").write_text("filename,pixel size(mm)\nhead.png,0.1\n")
    return ["starter", "head.png", "--scale-csv", "scale.csv", "--mm-per-px", "0.1"]


def depth_and_scale(_: Path) -> list[str]:
    return ["starter", "head.png", "--mm-per-px", "0.1", "--depth-mm", "160"]


def depth_in_centimetres(_: Path) -> list[str]:
    return ["starter", "head.png", "--depth-mm", "8"]


def profile_of_no_file(_: Path) -> list[str]:
    return ["starter", "head.png", "--profile", "convex"]


def missing_profiles(_: Path) -> list[str]:
    return ["starter", "head.png", "--scale-profile", "none.toml"]


def profile_with_an_unknown_key(folder: Path) -> list[str]:
    (folder / "probes.toml").write_text("[[profile]]\nmm_per_px = 0.1\n")
    return ["starter", "head.png", "--scale-profile", "probes.toml"]


def metaimage(folder: Path, fields: str) -> list[str]:
    header = f"NDims = 2\n{fields}ElementDataFile = LOCAL\n"
    (folder / "sweep.mha").write_bytes(header.encode() + bytes(4800))
    return ["starter", "sweep.mha", "--mm-per-px", "0.1"]


def metaimage_of_16_bits(folder: Path) -> list[str]:
    return metaimage(folder, "DimSize = 80 30\nElementType = MET_USHORT\n")


def cut_metaimage(folder: Path) -> list[str]:
    return metaimage(folder, "DimSize = 80 61\nElementType = MET_UCHAR\n")


def metaimage_that_contradicts_the_figure(folder: Path) -> list[str]:
    return metaimage(folder, "DimSize = 80 60\nElementType = MET_UCHAR\nElementSpacing = 0.1 0.102\n")


def garbage_dicom(folder: Path) -> list[str]:
    (folder / "scan.dcm").write_bytes(bytes(128) + b"DICM" + b"garbage" * 99)
    return ["starter", "scan.dcm"]


def dicom_without_its_mark(folder: Path) -> list[str]:
    (folder / "scan.dcm").write_bytes(b"garbage" * 99)
    return ["starter", "scan.dcm"]


def with_scale(value: str) -> Callable[[Path], list[str]]:
    return lambda _: ["starter", "head.png", "--mm-per-px", value]


def unknown_backend(_: Path) -> list[str]:
    return ["starter", "head.png", "--backend", "abacus"]


def json_over_the_picture(_: Path) -> list[str]:
    return ["starter", "head.png", "--json", "head.png"]


def json_over_the_exam(_: Path) -> list[str]:
    return ["starter", "head.png", "--json", "exam"]


def json_into_the_exam(folder: Path) -> list[str]:
    return ["starter", "head.png", "--json", str(folder / "exam" / "x.json")]


def cut_video(folder: Path) -> list[str]:
    head = cv2.imread(str(folder / "head.png"), cv2.IMREAD_GRAYSCALE)[::2, ::2]
    frames = np.stack([np.roll(head, shift, axis=1) for shift in range(12)])
    write_video(Cine(frames, 20.0, 0.36, 0.36), folder / "whole.avi")
    content = (folder / "whole.avi").read_bytes()
    (folder / "cut.avi").write_bytes(content[: len(content) // 2])
    return ["starter", "cut.avi", "--mm-per-px", "0.36"]


def out_below_a_file(_: Path) -> list[str]:
    return ["starter", "head.png", "--out", "head.png/exam"]


def json_into_nowhere(_: Path) -> list[str]:
    return ["starter", "head.png", "--json", "no/such/folder/x.json"]


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (missing_file, "does not exist"),
        (empty_folder, "holds no PNG or JPEG"),
        (truncated_png, "cut short or damaged"),
        (truncated_png_in_a_folder, "b.png is cut short"),
        (empty_video, "is empty (0 bytes)"),
        (garbage_video, "not a video"),
        (video_without_frames, "frame"),
        (unknown_kind, "of no kind that can be read"),
        (tiny_picture, "8 x 8 pixels"),
        (no_bundle, "is not a bundle"),
        (absent_bundle, "is not a bundle"),
        (newer_schema, "upgrade edgefetal"),
        (altered_model, "model.onnx is not the file that was built"),
        (over_budget, "did not pass its accuracy budget"),
        (table_without_the_row, "has no row for head.png"),
        (table_without_the_column, "lacks the columns"),
        (missing_table, "none.csv cannot be read"),
        (two_scales, "keep the one that is right"),
        (depth_and_scale, "keep the one that is right"),
        (depth_in_centimetres, "16 cm is 160"),
        (profile_of_no_file, "give it with --scale-profile"),
        (missing_profiles, "none.toml cannot be read"),
        (profile_with_an_unknown_key, "mend the entry"),
        (metaimage_of_16_bits, "MET_USHORT, and only 8 bits"),
        (cut_metaimage, "is cut short"),
        (metaimage_that_contradicts_the_figure, "find out which is right"),
        (garbage_dicom, "DICOM file"),
        (dicom_without_its_mark, "no DICM mark"),
        (with_scale("0"), "positive number"),
        (with_scale("-0.1"), "positive number"),
        (with_scale("0.1,0"), "positive number"),
        (with_scale("nan"), "positive number"),
        (with_scale("12"), "check that it is in mm"),
        (with_scale("0.1,0.1,0.1"), "give one number, or two"),
        (with_scale("0.18,0.9"), "check X and Y"),
        (with_scale("wide"), "give one number, or two"),
        (unknown_backend, "no back end 'abacus'"),
        (json_into_nowhere, "cannot be written"),
        (json_over_the_picture, "would overwrite or alter head.png"),
        (json_over_the_exam, "would overwrite or alter exam"),
        (json_into_the_exam, "cannot be written"),
        (cut_video, "breaks off after"),
        (out_below_a_file, "cannot be made"),
    ],
)
def test_run_refuses(
    edgefetal: CommandLine, head_png: Path, tmp_path: Path, prepare: Callable[[Path], list[str]], says: str
) -> None:
    (tmp_path / "head.png").write_bytes(head_png.read_bytes())
    arguments = prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    outcome = edgefetal("run", *arguments, *([] if "--out" in arguments else ["--out", "exam"]))
    assert outcome.exit_code == 2, outcome
    assert outcome.err.startswith("Error: ")
    assert says in outcome.err
    assert outcome.err.strip().count("\n") == 0, "one sentence, no traceback"
    assert sorted(tmp_path.rglob("*")) == before, "nothing was written"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["evaluate", "starter", "--dataset", "hc18"], 2, "KIND:PATH"),
        (["evaluate", "starter", "--dataset", "hc18:none"], 2, "is not an HC18 folder"),
        (["evaluate", "none", "--dataset", "hc18:none"], 2, "is not a bundle"),
        (["verify", "none"], 2, "is not a bundle"),
        (["bench", "none"], 2, "is not a bundle"),
        (["demo", "--ga", "41w0d"], 2, "from 14w0d to 40w0d"),
        (["demo", "--ga", "180mm"], 2, "is no gestational age"),
        (["demo", "--seed", "-1"], 2, "--seed"),
        (["demo", "--out", "."], 2, "exists"),
        (["demo", "--json", "demo-exam"], 2, "would overwrite"),
        (["demo", "--out", "/proc/demo"], 2, "/proc"),
        (["train", "multitask-unet", "--data", "hc18:none", "--out", "run"], 2, "is not an HC18 folder"),
        (["build", "none", "--device", "toaster", "--calibration", "hc18:none", "--out", "b"], 2, "choose one of cpu"),
        (["build", "none", "--device", "cpu", "--calibration", "hc18:none", "--out", "b"], 2, "is not an HC18 folder"),
    ],
)
def test_other_commands_refuse(
    edgefetal: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.setattr("edgefetal.cli.demo._FRAMES", 6)
    outcome = edgefetal(*arguments)
    assert outcome.exit_code == code, outcome
    assert says in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_wrong_usage_is_exit_code_2(edgefetal: CommandLine) -> None:
    assert edgefetal("run", "starter").exit_code == 2
    assert edgefetal("no-such-command").exit_code == 2
