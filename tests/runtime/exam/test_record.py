"""`exam.json`: what a reader may rely on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from edgefetal_runtime.biometry.measurement import Abstained, Measured, Quantity
from edgefetal_runtime.exam.points import Points
from edgefetal_runtime.exam.record import (
    SCHEMA_VERSION,
    BundleRecord,
    DatingRecord,
    Exam,
    FrameRecord,
    GrowthRecord,
    HandRecord,
    MeasurementRecord,
    RunRecord,
    ScaleRecord,
    StructureRecord,
    SweepRecord,
    Timings,
    measurement_record,
)

EXAM = Exam(
    schema_version=SCHEMA_VERSION,
    edgefetal="0.1.0",
    created_utc="2026-01-02T03:04:05+00:00",
    bundle=BundleRecord(name="starter", sha256="0" * 64, backend="onnxruntime"),
    source="sweep é.avi",
    source_kind="video",
    one_subject=True,
    frames_announced=None,
    dating=DatingRecord(weeks=20.5, basis="given as 20w3d"),
    interval_level=0.9,
    measurements=(
        MeasurementRecord(
            sweep="sweep é.avi",
            name="HC",
            method="perimeter of an ellipse",
            value=175.25,
            unit="mm",
            interval=(170.0, 180.5),
            no_interval=None,
            frames=(FrameRecord(index=4, timestamp_s=0.16), FrameRecord(index=3, timestamp_s=0.12)),
            abstained=None,
        ),
        MeasurementRecord(
            sweep="sweep é.avi",
            name="cephalic_index",
            method="BPD over OFD",
            value=None,
            unit="1",
            interval=None,
            no_interval=None,
            frames=(),
            abstained="no head is outlined",
        ),
    ),
    growth=(
        GrowthRecord(
            sweep="sweep é.avi",
            measure="HC",
            chart="Hadlock 1984",
            value=175.25,
            z=-0.4,
            centile=34.5,
            centile_interval=(20.0, 51.0),
            note="",
        ),
    ),
    sweeps=(
        SweepRecord(
            name="sweep é.avi",
            frames_seen=9,
            frames_missed=2,
            size_px=(400, 270),
            scale=ScaleRecord(x_mm_per_px=0.1, y_mm_per_px=0.12, origin="command line", relative_uncertainty=0.01),
            hand=HandRecord(
                light="amber",
                reason="fast in places",
                action="go a little more slowly",
                contact=0.95,
                too_fast=0.125,
                turned_back=False,
                duration_s=0.36,
                skill=None,
            ),
            structures=(
                StructureRecord(
                    structure="head",
                    frames_outlined=6,
                    runs=(RunRecord(first=2, last=7, best=512.5),),
                    decided_by="size",
                    chosen=(FrameRecord(index=4, timestamp_s=0.16), FrameRecord(index=3, timestamp_s=0.12)),
                    why="frames 2 to 7 show the structure",
                    contour_px=Points.of([(1.5, 2.25), (3.0, 4.0)]),
                    overlay="overlay-001-head.png",
                ),
                StructureRecord(
                    structure="femur",
                    frames_outlined=0,
                    runs=(),
                    decided_by="size",
                    chosen=(),
                    why="no plane of the femur in 9 frames",
                    contour_px=None,
                    overlay=None,
                ),
            ),
        ),
    ),
    ended="the camera was unplugged",
    cautions=("look at the picture",),
    timings=Timings(
        total_s=1.0, first_result_s=0.1, read_ms=1.0, prepare_ms=2.0, infer_ms=3.0, find_ms=0.5, choose_ms=0.25
    ),
)


def test_a_record_comes_back_as_it_was() -> None:
    assert Exam.model_validate_json(EXAM.model_dump_json(indent=1)) == EXAM


def test_other_programs_find_plain_json_with_nulls_for_what_is_missing() -> None:
    fields = json.loads(EXAM.model_dump_json())
    assert fields["schema_version"] == SCHEMA_VERSION
    assert fields["frames_announced"] is None
    assert fields["measurements"][0]["value"] == 175.25
    assert fields["measurements"][0]["interval"] == [170.0, 180.5]
    assert fields["measurements"][0]["frames"][0] == {"index": 4, "timestamp_s": 0.16}
    assert fields["measurements"][1]["value"] is None
    assert fields["dating"] == {"weeks": 20.5, "basis": "given as 20w3d"}
    assert fields["interval_level"] == 0.9
    assert fields["growth"][0]["centile_interval"] == [20.0, 51.0]
    head, femur = fields["sweeps"][0]["structures"]
    assert head["contour_px"] == [[1.5, 2.25], [3.0, 4.0]]
    assert head["runs"] == [{"first": 2, "last": 7, "best": 512.5}]
    assert (femur["contour_px"], femur["overlay"], femur["chosen"]) == (None, None, [])
    assert fields["sweeps"][0]["hand"]["light"] == "amber"
    assert fields["ended"] == "the camera was unplugged"
    assert "not a medical device" in fields["disclaimer"].lower()


def test_an_outline_is_written_byte_by_byte_as_ever() -> None:
    head = EXAM.sweeps[0].structures[0]
    assert head.model_dump_json(include={"contour_px", "overlay"}, indent=1) == (
        '{\n "contour_px": [\n  [\n   1.5,\n   2.25\n  ],\n  [\n   3.0,\n   4.0\n  ]\n ],\n'
        ' "overlay": "overlay-001-head.png"\n}'
    )


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        EXAM.measurements[0].value = 180.0  # type: ignore[misc]


def _changed(**changes: Any) -> str:
    return json.dumps(json.loads(EXAM.model_dump_json()) | changes)


@pytest.mark.parametrize(
    "text",
    [
        _changed(weight_g=900),
        _changed(bundle={"name": "starter", "sha256": "0"}),
        _changed(measurements=[{"name": "HC"}]),
        _changed(timings=None),
        _changed(schema_version=2, sweeps=[{"name": "s", "frames_seen": 9, "frames_with_head": 6}]),
        _changed(measurements=[json.loads(EXAM.measurements[0].model_dump_json()) | {"abstained": "unsure"}]),
        _changed(measurements=[json.loads(EXAM.measurements[1].model_dump_json()) | {"abstained": None}]),
        "{}",
        "[]",
        "",
    ],
    ids=[
        "unknown field",
        "part lacks a field",
        "measure lacks fields",
        "no timings",
        "earlier layout",
        "value and reason",
        "neither",
        "empty",
        "list",
        "nothing",
    ],
)
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Exam.model_validate_json(text)


def test_a_measure_is_written_down_with_what_it_is_and_how_it_was_taken() -> None:
    quantity = Quantity("HC", "mm", "perimeter of an ellipse", 40.0, 400.0)
    frames = (FrameRecord(index=4, timestamp_s=0.16),)
    there = measurement_record("s", quantity, Measured(175.0, "mm", (170.0, 180.0)), frames)
    assert (there.name, there.unit, there.method) == ("HC", "mm", "perimeter of an ellipse")
    assert (there.value, there.interval, there.abstained, there.frames) == (175.0, (170.0, 180.0), None, frames)
    missing = measurement_record("s", quantity, Abstained("no head"), ())
    assert (missing.value, missing.interval, missing.abstained, missing.unit) == (None, None, "no head", "mm")
