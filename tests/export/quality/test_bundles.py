"""From a run of a quality network to a bundle that only says how good a frame is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import pytest

from edgefetal_calibration.budget_file import read_budget
from edgefetal_calibration.datasets.labelled import NOT_THE_PLANE, OPTIMAL, LabelledSweep
from edgefetal_calibration.datasets.split import Part, Split
from edgefetal_devices.errors import BundleError, CheckFailedError, InputError, OutputError
from edgefetal_devices.profile import read_profile
from edgefetal_export.build import BuildResult, build, source_of_run
from edgefetal_export.draft import draft_of, recalibrate
from edgefetal_export.ship import Precision
from edgefetal_export.teachers.fetalclip import FetalClipConfig
from edgefetal_export.teachers.lora import LoraSettings, lora_targets
from edgefetal_export.training.quality.classifier import quality_recipe
from edgefetal_export.training.quality.decision import read_decision
from edgefetal_export.training.quality.encoders import BaselineEncoder, Provenance, TowerEncoder
from edgefetal_export.training.quality.frames import Wishes
from edgefetal_export.training.quality.scoring import load_scorer
from edgefetal_export.training.quality.whole_run import train_on_frames
from edgefetal_export.training.trained import load_trained, parse_recipe
from edgefetal_runtime.infer.bundle import load_bundle
from edgefetal_runtime.infer.golden import check_network, open_for_clinic
from edgefetal_runtime.infer.network import Network, load_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_calibration.budget import AccuracyBudget
    from edgefetal_export.training.quality.classifier import QualityRecipe
    from edgefetal_runtime.infer.backends import Backend

FRAMES = 8
# A fifth of so few exams validates.
EXAM_COUNT, SHARE = 15, 0.2
FLOAT_IN_A_TRANSFORMER = ("LayerNormalization", "Softmax", "Erf", "Gelu")


@dataclass(frozen=True)
class DrawnExam:
    """One sweep on smooth speckle; half of its frames show a bright disc, which is the abdomen here."""

    name: str
    subject: str
    seed: int

    def digest(self) -> str:
        return hashlib.sha256(f"drawn {self.seed}".encode()).hexdigest()

    def labels_digest(self) -> str:
        return hashlib.sha256(f"labels {self.seed}".encode()).hexdigest()

    def sweeps(self) -> Iterator[LabelledSweep]:
        rng = np.random.default_rng(self.seed)
        shows = np.arange(FRAMES) % 2 == 0
        yield LabelledSweep(
            name="sweep_1",
            pixels=np.stack([_picture(rng, shown=bool(shown)) for shown in shows]),
            planes=tuple("abdomen" if shown else "none" for shown in shows),
            grades=np.where(shows, OPTIMAL, NOT_THE_PLANE).astype(np.uint8),
        )


def _picture(rng: np.random.Generator, *, shown: bool) -> npt.NDArray[np.uint8]:
    speckle = cv2.GaussianBlur(rng.integers(0, 120, (60, 80), np.uint8), (0, 0), 1.5)
    if shown:
        cv2.circle(speckle, (int(rng.integers(30, 50)), int(rng.integers(24, 36))), 18, 230, -1)
    return speckle


EXAMS = [DrawnExam(f"exam-{number}", f"phantom/{number}", number) for number in range(EXAM_COUNT)]


def recipe_of(encoder: TowerEncoder | BaselineEncoder, learning_rate: float) -> QualityRecipe:
    wishes = Wishes(
        dataset="phantom",
        weights=Provenance(origin="random"),
        as_published=False,
        epochs=4,
        batch_size=8,
        accumulation=1,
        learning_rate=learning_rate,
        precision="fp32",
        validation_every=1,
        seed=3,
    )
    return quality_recipe(encoder, wishes).model_copy(update={"validation_share": SHARE, "held_out_share": SHARE})


def trained(run: Path, encoder: TowerEncoder | BaselineEncoder, learning_rate: float = 3e-3) -> Path:
    train_on_frames(run, recipe_of(encoder, learning_rate), [("phantom", EXAMS)], None, resume=False)
    return run


def lenient(**changes: dict[str, Any]) -> AccuracyBudget:
    """Judge as few subjects as there are here."""
    budget = read_budget()
    few = {"min_cases": 4, "min_subjects": 2}
    lines = {
        key: getattr(budget, key).model_copy(update=few | changes.get(key, {}))
        for key in ("quality_f1", "float_quality_error")
    }
    return budget.model_copy(update=lines)


@dataclass(frozen=True)
class Shifted:
    """A graph that answers otherwise."""

    backend: Backend
    shift: float
    name: str = "shifted"

    def run(self, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        return {name: answer + np.float32(self.shift) for name, answer in self.backend.run(image).items()}


class Silent:
    """Wants to know nothing."""

    def step(self, title: str, total: int | None) -> Callable[[], None]:  # noqa: ARG002 - the protocol's arguments
        return lambda: None


def built(run: Path, out: Path, budget: AccuracyBudget | None = None, **change: Any) -> BuildResult:
    options: dict[str, Any] = {"precision": Precision.INT8, "least_range_frames": 8, **change}
    return build(
        partial(source_of_run, run),
        read_profile("cpu-x86"),
        EXAMS,
        out,
        name=out.name,
        budget=budget or lenient(),
        progress=Silent(),
        **options,
    )


@pytest.fixture(scope="module")
def tower_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tower with adapters, as FetalCLIP_CLS is trained."""
    config = FetalClipConfig(image_px=64, patch_px=16, width=32, layers=2, heads=2, projection=16)
    lora = LoraSettings(targets=lora_targets(as_published=False), rank=8, alpha=16)
    encoder = TowerEncoder(config=config, trains="adapters", lora=lora)
    return trained(tmp_path_factory.mktemp("runs") / "cls", encoder, learning_rate=1e-2)


@pytest.fixture(scope="module")
def tower_bundle(tower_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildResult, Path]:
    """A bundle of it, and the folder of its worst cases."""
    folder = tmp_path_factory.mktemp("bundles")
    result = built(tower_run, folder / "cls", worst_cases=folder / "cases")
    return folder / "cls", result, folder / "cases"


def test_the_bundle_is_whole_and_says_what_it_is(tower_bundle: tuple[Path, BuildResult, Path], tower_run: Path) -> None:
    bundle = load_bundle(tower_bundle[0])
    manifest, decision = bundle.manifest, read_decision(tower_run)
    assert (manifest.heads.mask, manifest.heads.plane, manifest.heads.quality) == ((), (), True)
    assert manifest.thresholds.quality == decision.threshold
    assert manifest.intervals is None
    assert manifest.budget_passed
    assert manifest.training.recipe == "fetalclip-cls"
    assert manifest.training.subjects == {"train": 9, "validation": 3, "held-out": 3}
    split = Split.model_validate_json(bundle.read("split.json"))
    assert {split.parts[f"phantom/{name.split('/')[0][5:]}"] for name in manifest.calibration.frames} == {Part.TRAIN}
    assert tower_bundle[1].parity < 1e-3
    assert parse_recipe(bundle.read("recipe.json"), "here").name == "fetalclip-cls"


def test_its_float_graph_gives_the_probability_of_the_run(
    tower_bundle: tuple[Path, BuildResult, Path], tower_run: Path
) -> None:
    """Adapters, offset and temperature are all in the graph."""
    network, scorer = load_network(load_bundle(tower_bundle[0]), file="reference.onnx"), load_scorer(tower_run)
    assert scorer.decision.temperature != 1
    (sweep,) = EXAMS[0].sweeps()
    answers = [network.infer(network.prepare(pixels)[0]) for pixels in sweep.pixels]
    assert [answer.quality for answer in answers] == pytest.approx(scorer.score_sweep(sweep).tolist(), abs=1e-4)
    assert {answer.mask_logits.shape for answer in answers} == {(0, 64, 64)}


def test_what_eight_bits_ruin_in_a_transformer_stays_in_float(tower_bundle: tuple[Path, BuildResult, Path]) -> None:
    bundle = load_bundle(tower_bundle[0])
    graph = onnx.load_from_string(bundle.read("model.onnx")).graph
    makers = {name: node for node in graph.node for name in node.output}
    rounded = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(rounded) >= 8
    found = [node for node in graph.node if node.op_type in FLOAT_IN_A_TRANSFORMER]
    assert {node.op_type for node in found} >= {"LayerNormalization", "Softmax"}
    for node in found:
        assert makers[node.input[0]].op_type != "DequantizeLinear", node.name
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert len(products) >= 4
    for node in products:
        assert not any(makers[name].op_type == "DequantizeLinear" for name in node.input if name in makers), node.name
    int8 = {layer for group in bundle.manifest.layers if group.precision == "int8" for layer in group.layers}
    # The patches, and of each block query, key, value, output and the two layers of its MLP.
    assert "encoder.vision_model.embeddings.patch_embedding" in int8
    assert len(int8) >= 13
    assert "head" not in int8


def test_its_golden_frames_hold_and_another_answer_is_refused(tower_bundle: tuple[Path, BuildResult, Path]) -> None:
    bundle = load_bundle(tower_bundle[0])
    report = check_network(bundle, load_network(bundle))
    assert (report.frames, report.mask_disagreement, report.plane_difference) == (3, 0.0, 0.0)
    assert 0 <= report.score_difference < 0.05
    for shift in (0.6, -0.6, np.nan):
        with pytest.raises(CheckFailedError, match=r"of a quality or skill logit|numbers of shape"):
            check_network(bundle, Network(bundle.manifest, Shifted(load_network(bundle).backend, shift)))


def test_its_evidence_is_of_calls(tower_bundle: tuple[Path, BuildResult, Path]) -> None:
    bundle = load_bundle(tower_bundle[0])
    evidence = json.loads(bundle.read("evidence.json"))
    lines = {line["key"]: line for line in evidence["judgement"]["lines"]}
    assert set(lines) == {"quality_f1", "float_quality_error"}
    assert (lines["quality_f1"]["n"], lines["quality_f1"]["n_subjects"]) == (24, 3)
    calls = evidence["validation"]["reference"]["calls"]
    assert (calls["n"], calls["n_good"]) == (24, 12)
    assert evidence["held_out_frames"]["shipped"]["calls"]["n"] == 24
    assert "quality: INT8 against float" in bundle.read("evidence.html").decode()
    card = bundle.read("MODEL_CARD.md").decode()
    for phrase in (
        "Not a medical device",
        "RANDOM weights",
        "**All of them are simulated**",
        "`edgefetal run` refuses it",
        f"probability of {bundle.manifest.thresholds.quality:.3f}",
        "edgefetal train fetalclip-cls --random-weights --layers 2 --width 32 --side-px 64 --lora-rank 8",
    ):
        assert phrase in card


def test_nothing_is_measured_with_it_and_nothing_fitted_again(
    tower_bundle: tuple[Path, BuildResult, Path], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="outlines nothing"):
        open_for_clinic(tower_bundle[0])
    draft = draft_of(load_bundle(tower_bundle[0]))
    with pytest.raises(InputError, match="Build it anew from its run"):
        recalibrate(draft, EXAMS, tmp_path / "again", budget=lenient(), progress=Silent())
    assert not (tmp_path / "again").exists()


def test_its_worst_cases_are_pictures_beside_it(tower_bundle: tuple[Path, BuildResult, Path]) -> None:
    folder = tower_bundle[2]
    assert [file.name for file in folder.iterdir()] == ["worst_cases.html"]
    page = (folder / "worst_cases.html").read_text()
    assert "not to be passed on" in page
    assert page.count("<img ") == 10
    assert "graded good; float" in page
    assert not any("worst" in name for name in load_bundle(tower_bundle[0]).manifest.files)


def test_worst_cases_go_neither_into_the_bundle_nor_round_it(tower_run: Path, tmp_path: Path) -> None:
    for cases in (tmp_path / "b", tmp_path / "b" / "cases", tmp_path):
        with pytest.raises(OutputError):
            built(tower_run, tmp_path / "b", worst_cases=cases)
    with pytest.raises(OutputError, match="lies in"):
        built(tower_run, tmp_path / "cases" / "b", worst_cases=tmp_path / "cases")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_budget_is_written_for_inspection_and_refused(tower_run: Path, tmp_path: Path) -> None:
    """Three subjects are not the eight that the default budget asks for."""
    result = built(tower_run, tmp_path / "refused", read_budget(), precision=Precision.AUTO)
    assert result.evidence["passed"] is False
    assert "Nothing could be judged" in result.evidence["reasons"][0]
    assert load_bundle(tmp_path / "refused").manifest.budget_passed is False
    with pytest.raises(BundleError):
        open_for_clinic(tmp_path / "refused")


@pytest.mark.parametrize("name", ["densenet121", "swin-large"])
def test_a_baseline_goes_through_the_same_door(name: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", BaselineEncoder(name=name, scale="tiny"))
    loose = lenient(quality_f1={"limit": 1.0}, float_quality_error={"limit": 100.0})
    result = built(run, tmp_path / name, loose)
    manifest = load_bundle(tmp_path / name).manifest
    assert manifest.training.parameters == load_trained(run).parameters
    assert result.parity < 2e-3
    assert any(group.precision == "int8" for group in manifest.layers)
    assert f"train baseline {name} --scale tiny --random-weights" in (tmp_path / name / "MODEL_CARD.md").read_text()


def test_a_run_whose_answer_is_an_area_is_refused(tower_run: Path, tmp_path: Path) -> None:
    fields = json.loads((tower_run / "recipe.json").read_text())
    (tmp_path / "recipe.json").write_text(json.dumps(fields | {"name": "fetalclip-seg"}))
    with pytest.raises(InputError, match="edgefetal distil"):
        load_trained(tmp_path)
