from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.datasets.labelled import LabelledSweep
from edgefetal_calibration.datasets.phantom import read_phantom
from edgefetal_calibration.evaluate import evaluate_heads
from edgefetal_calibration.frames import evaluate_frames, frame_rows
from edgefetal_calibration.phantom.ages import Ages
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.series import SeriesPlan, write_series
from edgefetal_devices.errors import InputError
from edgefetal_runtime.infer.bundle import Bundle, Heads, Manifest
from edgefetal_runtime.infer.network import Network, load_network
from edgefetal_runtime.infer.preprocess import PreprocessSpec, letterbox
from edgefetal_runtime.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_runtime.infer.backends import Backend

SHAPE = (120, 160)
SPEC = PreprocessSpec(height_px=96, width_px=128, mean=0.0, std=1.0)
PLANES = ("head", "abdomen", "femur", "none")


@dataclass
class Said:
    """A network that says the same of every frame, and keeps what it was shown."""

    outputs: dict[str, npt.NDArray[np.float32]]
    shown: list[npt.NDArray[np.float32]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    name: str = ""

    def run(self, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        self.shown.append(image)
        self.log.append(self.name)
        return self.outputs


def disc(radius_px: float = 35.0, ratio: float = 0.95) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    inside: npt.NDArray[np.bool_] = np.hypot((columns - 80) / radius_px, (rows - 60) / (radius_px * ratio)) <= 1
    return inside


def network(manifest: Manifest, heads: Heads, backend: Said) -> Network:
    fitted = manifest.model_copy(update={"heads": heads, "preprocess": SPEC})
    return Network(fitted, cast("Backend", backend))


def answers(plane: str, planes: tuple[str, ...] = PLANES, *, sure: float = 4.0) -> Said:
    """Outline the disc in the second of three channels, and name a plane."""
    box = letterbox(*SHAPE, SPEC)
    rows, columns = np.mgrid[:96, :128].astype(float)
    xy = box.to_frame(np.stack((columns.ravel(), rows.ravel()), axis=1))
    inside = 35.0 - np.hypot(xy[:, 0] - 80, (xy[:, 1] - 60) / 0.95)
    mask = np.full((1, 3, 96, 128), -9.0, np.float32)
    mask[0, 1] = inside.reshape(96, 128)
    named = np.array([[sure if name == plane else 0.0 for name in planes]], np.float32)
    return Said({"mask": mask, "plane": named, "quality": np.array([[2.0]], np.float32)})


@dataclass(frozen=True)
class MadeExam:
    """Sweeps in memory."""

    name: str
    subject: str
    made: tuple[LabelledSweep, ...]

    def digest(self) -> str:
        return self.name

    def labels_digest(self) -> str:
        return self.name

    def sweeps(self) -> Iterator[LabelledSweep]:
        yield from self.made


def sweep(name: str, n: int, *, graded: bool = True, said: bool = True, reference_mm: float = 54.0) -> LabelledSweep:
    """A sweep whose every fourth frame shows the abdomen; the grey level of a frame is its number."""
    shows = np.arange(n) % 4 == 0
    grey = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None] + 1, (n, *SHAPE))
    return LabelledSweep(
        name=name,
        pixels=np.ascontiguousarray(grey),
        masks={"abdomen": (shows[:, None, None] & disc()).astype(np.uint8)},
        planes=tuple("abdomen" if s else "none" for s in shows) if said else None,
        grades=np.where(shows, 1 + np.arange(n) // 4 % 2, 0).astype(np.uint8) if graded else None,
        scale=Scale(0.25, 0.25, origin="made"),
        lengths_mm={"AC": np.where(shows, reference_mm, np.nan)},
    )


def exam(*sweeps: LabelledSweep, name: str = "e", subject: str = "acouslic/S-1") -> LabelledExam:
    return cast("LabelledExam", MadeExam(name, subject, sweeps))


HEADS = Heads(mask=("head", "abdomen", "femur"), plane=PLANES, quality=True)


def test_heads_go_the_clinics_own_way(starter: Bundle, simulated_hc18: Path) -> None:
    cases = read_hc18(simulated_hc18)[28:33]
    net = load_network(starter)
    told: list[int] = []
    found = evaluate_frames({"net": net}, cases, 3, lambda: told.append(1))["net"]
    expected = evaluate_heads({"net": net}, cases)["net"]
    assert len(told) == len(found) == 5
    for mine, theirs, case in zip(found, expected, cases, strict=True):
        assert (mine.name, mine.subject, mine.source) == (case.name, case.subject, "hc18")
        assert (mine.plane, mine.measure, mine.reference_mm) == ("head", "HC", case.hc_mm)
        assert (mine.measured_mm, mine.abstained) == (theirs.hc_mm, theirs.abstained)
        assert mine.dice == pytest.approx(theirs.dice)
        assert (mine.good, mine.quality) == (None, None)
        assert mine.named == "head"
        assert mine.probability == pytest.approx(theirs.plane_probability)


def test_thresholds_of_the_bundle_hold_for_heads(starter: Bundle, simulated_hc18: Path) -> None:
    net = load_network(starter)
    thresholds = starter.manifest.thresholds.model_copy(update={"agreement": 1.0})
    refusing = Network(starter.manifest.model_copy(update={"thresholds": thresholds}), net.backend)
    (found,) = evaluate_frames({"net": refusing}, read_hc18(simulated_hc18)[30:31], 1)["net"]
    assert found.measured_mm is None
    assert "not sure enough" in (found.abstained or "")


def test_an_abdomen_is_measured_and_graded(starter: Bundle) -> None:
    found = evaluate_frames({"net": network(starter.manifest, HEADS, answers("abdomen"))}, [exam(sweep("s", 8))], 8)
    first, second = found["net"][:2]
    assert (first.plane, first.named, first.measure, first.reference_mm) == ("abdomen", "abdomen", "AC", 54.0)
    assert first.measured_mm == pytest.approx(2 * np.pi * 35 * 0.975 * 0.25, rel=0.01)
    assert (first.dice or 0) > 0.97
    assert (first.good, first.abstained) == (True, None)
    assert first.quality == pytest.approx(1 / (1 + np.exp(-2)))
    assert first.called is True
    assert (second.plane, second.named, second.measure) == ("none", "abdomen", None)
    assert (second.reference_mm, second.measured_mm, second.dice, second.good) == (None, None, None, False)
    assert [r.good for r in found["net"]] == [True, False, False, False] * 2
    json.dumps(frame_rows(found["net"]), allow_nan=False)


@pytest.mark.parametrize(("sure", "measured"), [(1.0, False), (1.2, True)])
def test_a_plane_that_is_named_below_the_bundles_threshold_is_not_measured(
    starter: Bundle,
    sure: float,
    measured: bool,  # noqa: FBT001
) -> None:
    """Of four classes, e / (e + 3) is 0.48, and e^1.2 / (e^1.2 + 3) 0.53."""
    thresholds = starter.manifest.thresholds.model_copy(update={"plane_probability": 0.5})
    manifest = starter.manifest.model_copy(update={"thresholds": thresholds})
    net = network(manifest, HEADS, answers("abdomen", sure=sure))
    (found,) = evaluate_frames({"net": net}, [exam(sweep("s", 1))], 1)["net"]
    assert (found.measured_mm is not None) is measured
    assert measured or "not taken for a plane of the abdomen (probability 0.48)" in (found.abstained or "")


def test_without_a_plane_head_the_outline_alone_counts(starter: Bundle) -> None:
    heads = HEADS.model_copy(update={"plane": (), "quality": False})
    (found,) = evaluate_frames({"net": network(starter.manifest, heads, answers("none"))}, [exam(sweep("s", 1))], 1)[
        "net"
    ]
    assert found.measured_mm is not None
    assert (found.named, found.probability, found.quality) == (None, None, None)


def test_what_a_network_has_no_word_for_is_none_to_it(starter: Bundle) -> None:
    backend = answers("none", ("head", "none"))
    heads = Heads(mask=("head",), plane=("head", "none"))
    (found,) = evaluate_frames({"net": network(starter.manifest, heads, backend)}, [exam(sweep("s", 1))], 1)["net"]
    assert (found.plane, found.named, found.measure, found.reference_mm, found.dice) == ("none", "none", *[None] * 3)


def test_without_pixel_size_there_is_no_reference(starter: Bundle) -> None:
    unscaled = replace(sweep("s", 1), scale=None)
    net = network(starter.manifest, HEADS, answers("abdomen"))
    (found,) = evaluate_frames({"net": net}, [exam(unscaled)], 1)["net"]
    assert (found.reference_mm, found.measured_mm) == (None, None)
    assert found.abstained
    assert (found.dice or 0) > 0.97


def test_half_of_the_frames_show_a_plane_and_the_choice_stays(starter: Bundle) -> None:
    made = exam(sweep("a", 40), sweep("b", 40))
    runs = [
        evaluate_frames({"net": network(starter.manifest, HEADS, answers("abdomen"))}, [made], 7)["net"]
        for _ in range(2)
    ]
    assert [r.name for r in runs[0]] == [r.name for r in runs[1]]
    assert len({r.name for r in runs[0]}) == 7
    assert sum(r.plane == "abdomen" for r in runs[0]) == 4
    assert {r.name.split("/")[1] for r in runs[0]} == {"a", "b"}
    other = exam(sweep("a", 40), sweep("b", 40), name="other")
    net = network(starter.manifest, HEADS, answers("abdomen"))
    assert [r.name for r in evaluate_frames({"net": net}, [other], 7)["net"]] != [r.name for r in runs[0]]


def test_where_few_frames_show_a_plane_others_take_their_place(starter: Bundle) -> None:
    net = network(starter.manifest, HEADS, answers("abdomen"))
    found = evaluate_frames({"net": net}, [exam(sweep("a", 5), sweep("b", 3))], 7)["net"]
    assert len(found) == 7
    assert sum(r.plane == "abdomen" for r in found) == 3
    assert len(evaluate_frames({"net": net}, [exam(sweep("a", 5))], 100)["net"]) == 5


def test_a_name_is_that_of_the_frame(starter: Bundle) -> None:
    backend = answers("abdomen")
    found = evaluate_frames({"net": network(starter.manifest, HEADS, backend)}, [exam(sweep("a", 40))], 6)["net"]
    for result, image in zip(found, backend.shown, strict=True):
        assert image.max() * 255 == pytest.approx(int(result.name.rsplit("/", 1)[1]) + 1, abs=0.01)


def test_where_nobody_names_planes_the_outline_does(starter: Bundle) -> None:
    """A frame that is neither outlined nor graded is left out; one that is graded counts for quality."""
    net = network(starter.manifest, HEADS, answers("abdomen"))
    graded = evaluate_frames({"net": net}, [exam(sweep("a", 8, said=False))], 8)["net"]
    assert [r.plane for r in graded] == ["abdomen", None, None, None] * 2
    ungraded = evaluate_frames({"net": net}, [exam(sweep("a", 8, said=False, graded=False))], 8)["net"]
    assert [r.plane for r in ungraded] == ["abdomen", "abdomen"]


def test_networks_see_the_same_frames_in_turns(starter: Bundle) -> None:
    log: list[str] = []
    backends = {name: replace(answers("abdomen"), name=name, log=log) for name in ("a", "b")}
    networks = {name: network(starter.manifest, HEADS, backend) for name, backend in backends.items()}
    results = evaluate_frames(networks, [exam(sweep("s", 4))], 4)
    assert log == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert [r.name for r in results["a"]] == [r.name for r in results["b"]]
    assert all(np.array_equal(x, y) for x, y in zip(backends["a"].shown, backends["b"].shown, strict=True))


def test_the_source_is_the_kind_of_the_dataset(starter: Bundle) -> None:
    net = network(starter.manifest, HEADS, answers("abdomen"))
    made = [exam(sweep("s", 1), subject=subject) for subject in ("acouslic/S-1", "phantom/1-2", "017")]
    assert [r.source for r in evaluate_frames({"net": net}, made, 1)["net"]] == ["acouslic", "phantom", "hc18"]


def test_simulated_exams_are_read(starter: Bundle, tmp_path: Path) -> None:
    write_series(SeriesPlan(Protocol.HEAD, Ages(24.0, 24.0), 1, seed=3, skill=0.9, frame_count=5), tmp_path / "out")
    (made,) = read_phantom(tmp_path / "out")
    found = evaluate_frames({"net": load_network(starter)}, [made], 4)["net"]
    assert {r.source for r in found} == {"phantom"}
    assert {r.subject for r in found} == {made.subject}
    assert {r.plane for r in found} == {"head", "none"}
    shown = [r for r in found if r.plane == "head"]
    assert all(r.reference_mm is not None and r.dice is not None for r in shown)
    assert all(r.measure is None for r in found if r.plane == "none")


def test_no_frames_are_refused(starter: Bundle) -> None:
    with pytest.raises(InputError, match="ask for 1 or more"):
        evaluate_frames({"net": load_network(starter)}, [], 0)


def test_a_quality_that_is_no_number_stays_none(starter: Bundle) -> None:
    backend = answers("abdomen")
    backend.outputs["quality"][:] = np.nan
    output = network(starter.manifest, HEADS, backend).infer(np.zeros((1, 1, 96, 128), np.float32))
    assert output.quality is not None
    assert np.isnan(output.quality)
    assert output.skill is None


def test_bundles_of_before_the_new_heads_are_still_read() -> None:
    heads = Heads.model_validate({"mask": ("head",), "plane": ("head", "none")})
    assert (heads.quality, heads.skill) == (False, False)
