from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import cv2
import numpy as np
import pytest

from edgefetal_calibration.budget import judge_frames
from edgefetal_calibration.budget_file import read_budget
from edgefetal_calibration.frames import FrameResult, frame_rows
from edgefetal_devices.errors import InputError
from edgefetal_export.evidence import CasePicture, worst_cases, write_cases_page, write_evidence_page

PLANES = {"HC": "head", "AC": "abdomen", "FL": "femur"}
VOID = {"meta", "img", "br", "hr", "link", "input"}


def results(
    measure: str, n: int, *, graph: str, shift_mm: float = 0.0, noise_mm: float = 0.1, seed: int = 1
) -> list[FrameResult]:
    """Frames of subjects with three each, measured by the float graph and, a little off it, by another."""
    rng = np.random.default_rng((seed, len(measure + PLANES[measure])))
    low_mm, high_mm = {"HC": (75, 330), "AC": (90, 340), "FL": (18, 70)}[measure]
    true_mm = np.linspace(low_mm, high_mm, n)
    float_mm = true_mm + rng.normal(0.3, 1.6, n)
    other_mm = float_mm + rng.normal(0.0, noise_mm, n) + shift_mm * np.sign(float_mm - true_mm)
    return [
        FrameResult(
            name=f"{PLANES[measure]}-{k:03d}",
            subject=f"phantom/{k // 3}",
            source="hc18" if measure == "HC" and k % 2 else "phantom",
            plane=PLANES[measure],
            named=PLANES[measure],
            probability=0.97,
            measure=measure,
            reference_mm=float(true_mm[k]),
            measured_mm=float(float_mm[k] if graph == "float" else other_mm[k]),
            abstained=None,
            dice=0.96,
            good=k % 4 != 0,
            quality=0.8 if k % 4 != 0 else 0.2,
            called=k % 4 != 0,
            seconds=0.03,
        )
        for k in range(n)
    ]


def example() -> dict[str, Any]:
    """A page's worth of evidence with passed, broken and open lines."""
    shapes = {"HC": (120, 0.02), "AC": (45, 0.0), "FL": (36, 0.5)}
    shipped = [r for m, (n, shift_mm) in shapes.items() for r in results(m, n, graph="int8", shift_mm=shift_mm)]
    reference = [r for m, (n, _) in shapes.items() for r in results(m, n, graph="float")]
    blocks = ("stem", *(f"encoder.{k}" for k in range(5)), *(f"decoder.{k}" for k in range(4)), "mask head")
    return {
        "name": "ward-3",
        "device": "cpu-x86",
        "judgement": judge_frames(shipped, reference, read_budget(), tuple(PLANES.values())).to_json(),
        "frames": {"shipped": frame_rows(shipped), "reference": frame_rows(reference)},
        "sensitivity": [
            {"block": name, "excess": round(float(np.cos(k * 1.3)) * 0.9 - 0.4, 3)} for k, name in enumerate(blocks)
        ],
        "mending": [
            {"step": "all blocks in INT8", "outcome": "3 lines broken", "excess": 1.4},
            {"step": "mask head in float", "outcome": "1 line broken", "excess": 0.31},
            {"step": "mask head and stem in float", "outcome": "passed", "excess": -0.05},
        ],
        "latency": {"before_ms": 38.21, "after_ms": 21.4, "ratio": 1.79, "interval": [1.71, 1.85], "n": 300},
        "calibration": {
            "method": "moving average of the least and greatest value",
            "sha256": "3f" * 32,
            "strata": [
                {"plane": p, "source": s, "size": size, "gain": gain, "n": 12 + k}
                for k, (p, s, size, gain) in enumerate(
                    [
                        ("head", "hc18", "100 to 200 mm", "low"),
                        ("head", "hc18", "200 mm and more", "high"),
                        ("abdomen", "phantom", "middle third", "middle"),
                    ]
                )
            ],
        },
        "versions": {"edgefetal": "0.1.0", "onnxruntime": "1.31.1", "torch": "2.13.0"},
        "machine": {"processor": "x86-64 with AVX512-VNNI", "threads": 2},
    }


def picture() -> CasePicture:
    """A drawn case: label, float and shipped outline."""
    pixels = np.full((240, 360, 3), 40, np.uint8)
    for colour, axes in (((115, 158, 0), (120, 90)), ((178, 114, 0), (121, 91)), ((0, 94, 213), (126, 93))):
        cv2.ellipse(pixels, (180, 120), axes, 10, 0, 360, colour, 2)
    ok, png = cv2.imencode(".png", pixels)
    assert ok
    return CasePicture("femur-003: label green, float blue, INT8 orange", png.tobytes())


class Checked(HTMLParser):
    """Every element is closed, in the right order; what is read is kept."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def read(page: bytes) -> Checked:
    return Checked(page.decode())


@pytest.fixture(scope="module")
def evidence() -> dict[str, Any]:
    return example()


@pytest.fixture(scope="module")
def page(evidence: dict[str, Any]) -> bytes:
    return write_evidence_page(evidence)


def test_the_example_has_every_verdict(evidence: dict[str, Any]) -> None:
    assert {line["verdict"] for line in evidence["judgement"]["lines"]} == {"passed", "broken", "not judged"}


def test_every_line_stands_with_its_verdict_in_words(evidence: dict[str, Any], page: bytes) -> None:
    rows = re.findall(r"<tr><td data-label='verdict'>.*?</tr>", page.decode())
    lines = evidence["judgement"]["lines"]
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        words = read(row.encode()).words
        assert line["verdict"] in words
        assert line["name"] in words
        assert f"{line['n']} / {line['n_subjects']}" in words
        look = {"passed": "tag passed", "broken": "tag broken", "not judged": "tag open"}[line["verdict"]]
        assert f"class='{look}'" in row


def test_the_verdict_comes_first_with_its_reasons(evidence: dict[str, Any], page: bytes) -> None:
    words = read(page).words
    assert "Not passed: INT8 broke" in words
    assert words.index("Not passed") < words.index("Accuracy budget")
    for reason in evidence["judgement"]["reasons"]:
        assert reason in words


def test_a_pass_and_a_lack_of_data_are_said() -> None:
    heads = results("HC", 60, graph="float")
    passed = judge_frames(heads, heads, read_budget(), ("head",)).to_json()
    assert "Passed: INT8 stayed within its accuracy budget" in read(write_evidence_page({"judgement": passed})).words
    lacking = judge_frames(heads, heads, read_budget(), ("head", "femur")).to_json()
    words = read(write_evidence_page({"judgement": lacking, "precision": "FP16"})).words
    assert "Not passed: data to judge it by are lacking" in words
    assert "FL could not be judged" in words
    assert "FP16" in words


def test_the_page_is_whole_and_needs_nothing_else(page: bytes) -> None:
    checked = read(page)
    assert not {tag for tag, _ in checked.seen} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in checked.seen:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "action", "data"):
            value = attributes.get(name)
            assert value is None or (tag == "img" and value.startswith("data:image/png;base64,"))
    text = page.decode().replace("xmlns='http://www.w3.org/2000/svg'", "")
    assert "://" not in text
    assert "@import" not in text
    assert "url(http" not in text
    assert "default-src 'none'" in text


def test_names_in_the_page_are_not_shared(page: bytes) -> None:
    """Two charts of each length, and one of the quality."""
    ids = [attributes["id"] for _, attributes in read(page).seen if "id" in attributes]
    assert len(ids) == len(set(ids)) == 7
    used = set(re.findall(r"url\(#([^)]+)\)", page.decode()))
    assert used == set(ids)


def test_bland_altman_figures_are_right(evidence: dict[str, Any], page: bytes) -> None:
    words = read(page).words
    for measure in PLANES:
        pairs = [
            (a["measured_mm"], b["measured_mm"], a["reference_mm"])
            for a, b in zip(*evidence["frames"].values(), strict=True)
            if a["measure"] == measure
        ]
        shipped, reference, truth = np.array(pairs).T
        for other, name in ((reference, "float"), (truth, "reference")):
            d = shipped - other
            limits = [f"{v:+.2f}".replace("-", "\u2212") for v in d.mean() + np.array([0, -1.96, 1.96]) * d.std(ddof=1)]
            bias = "0.00" if abs(d.mean()) < 0.005 else limits[0]
            assert f"{measure}: INT8 against {name}: bias {bias} mm" in words
            assert f"limits of agreement {limits[1]} to {limits[2]} mm, {len(d)} frames of" in words


def test_worst_cases_are_listed_worst_first(evidence: dict[str, Any]) -> None:
    lost = json.loads(json.dumps(evidence))
    lost["frames"]["shipped"][7].update(measured_mm=None, abstained="nothing is outlined")
    lost["frames"]["shipped"][20]["measured_mm"] = lost["frames"]["shipped"][20]["reference_mm"] + 40
    text = write_evidence_page(lost).decode()
    names = re.findall(r"data-label='frame'>([^<]+)<", text)
    assert names[:2] == ["head-007", "head-020"]
    assert len(names) == 10
    assert "nothing is outlined" in text


def test_pictures_are_on_a_page_of_their_own(evidence: dict[str, Any], page: bytes) -> None:
    assert not any(tag == "img" for tag, _ in read(page).seen)
    assert "The pictures are left out" in read(page).words
    cases = write_cases_page("ward-3", evidence["frames"], [picture()])
    assert sum(tag == "img" for tag, _ in read(cases).seen) == 1
    words = read(cases).words
    assert "label green" in words
    assert "not to be passed on" in words
    test_the_page_is_whole_and_needs_nothing_else(cases)


def test_calls_are_compared_where_nothing_is_measured() -> None:
    """One good frame of 60 is no longer called so, and another's probability fell."""
    nothing = {"measure": None, "reference_mm": None, "measured_mm": None, "dice": None, "named": None}
    reference = [replace(r, **nothing) for r in results("AC", 60, graph="float")]
    shipped = list(reference)
    shipped[5] = replace(shipped[5], quality=0.1, called=False)
    shipped[6] = replace(shipped[6], quality=0.6)
    evidence = {
        "judgement": judge_frames(shipped, reference, read_budget(), ()).to_json(),
        "frames": {"shipped": frame_rows(shipped), "reference": frame_rows(reference)},
    }
    page = write_evidence_page(evidence)
    words = read(page).words
    assert "graded good 45 45 44 1" in words
    assert "graded not good 15 0 0 0" in words
    assert "quality: INT8 against float: bias \u22120.02, 95 % limits" in words
    names = re.findall(r"data-label='frame'>([^<]+)<", page.decode())
    assert names[:2] == ["abdomen-005", "abdomen-006"]
    assert [case.shipped["name"] for case in worst_cases(evidence["frames"])] == names


def test_what_else_was_recorded_is_there(page: bytes) -> None:
    words = read(page).words
    for stated in ("encoder.3", "mask head and stem in float", "1.79 (1.71 to 1.85)", "INT8 is quicker", "3f" * 32):
        assert stated in words
    for stated in ("middle third", "moving average", "AVX512-VNNI", "1.31.1", "\u22125 %", "+140 %"):
        assert stated in words
    order = [words.index(step) for step in ("all blocks in INT8", "mask head in float", "mask head and stem in float")]
    assert order == sorted(order)


def test_what_was_not_recorded_is_said(evidence: dict[str, Any]) -> None:
    words = read(write_evidence_page({"judgement": evidence["judgement"]})).words
    for stated in ("No frames were recorded", "It was not measured", "Nothing was tried", "They were not recorded"):
        assert stated in words


@pytest.mark.parametrize(("interval", "told"), [((0.9, 1.1), "neither is known"), ((0.7, 0.9), "INT8 is slower")])
def test_latency_is_told_by_its_interval(evidence: dict[str, Any], interval: tuple[float, float], told: str) -> None:
    latency = {"before_ms": 20.0, "after_ms": 20.0, "ratio": 1.0, "interval": interval, "n": 9}
    assert told in read(write_evidence_page({"judgement": evidence["judgement"], "latency": latency})).words


def test_text_stays_text(evidence: dict[str, Any]) -> None:
    """Whatever a name holds, it is read as a name."""
    evil = "<script>alert(1)</script>' onload='x\" & co"
    hostile = json.loads(json.dumps(evidence))
    hostile.update(name=evil, device=evil, precision=evil, versions={evil: evil}, machine={evil + "2": evil})
    for graph in hostile["frames"].values():
        for row in graph:
            row.update(name=evil + row["name"], source=evil)
    for line in hostile["judgement"]["lines"]:
        line.update(name=evil, group=evil, unit=evil)
    hostile["judgement"]["reasons"] = [evil]
    hostile["sensitivity"][0]["block"] = evil
    hostile["mending"][0].update(step=evil, outcome=evil)
    hostile["calibration"].update(method=evil, sha256=evil)
    hostile["calibration"]["strata"][0].update(plane=evil, source=evil, size=evil, gain=evil)
    hostile["frames"]["shipped"][0].update(measured_mm=None, abstained=evil)
    pages = (
        write_evidence_page(hostile),
        write_cases_page(evil, hostile["frames"], [CasePicture(evil, picture().png)]),
    )
    for checked in map(read, pages):
        assert "script" not in {tag for tag, _ in checked.seen}
        assert not any("onload" in attributes for _, attributes in checked.seen)
        assert evil in checked.words


def test_no_judgement_other_frames_and_other_files_are_refused(evidence: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no judgement"):
        write_evidence_page({})
    frames = {**evidence["frames"], "reference": evidence["frames"]["reference"][1:]}
    with pytest.raises(InputError, match="not the same"):
        write_evidence_page({**evidence, "frames": frames})
    with pytest.raises(InputError, match="no PNG"):
        write_cases_page("ward-3", evidence["frames"], [CasePicture("a", b"GIF89a")])
