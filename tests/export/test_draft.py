"""From graphs to a bundle: what is fitted, on whom, and who judges it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edgefetal_calibration.budget_file import read_budget
from edgefetal_calibration.datasets.hc18 import HeadCase, read_hc18
from edgefetal_calibration.datasets.split import Part, Split
from edgefetal_calibration.evaluate import evaluate_heads
from edgefetal_calibration.intervals import LEVEL, coverage, halves, unused
from edgefetal_devices.errors import BundleError, DatasetError, OutputError
from edgefetal_export.draft import Draft, draft_of, recalibrate
from edgefetal_export.model_card import write_model_card
from edgefetal_export.package import write_bundle
from edgefetal_runtime.infer.bundle import (
    GOLDEN,
    MANIFEST,
    MODEL,
    MODEL_CARD,
    RECIPE,
    REFERENCE,
    SCHEMA_VERSION,
    SPLIT,
    Bundle,
    IntervalBand,
    Intervals,
    Thresholds,
    load_bundle,
    require_fit_for_clinic,
)
from edgefetal_runtime.infer.network import load_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# As few heads as are drawn here are enough, and the starter may refuse some of them.
LENIENT = {"hc": {"min_cases": 4, "min_subjects": 4}, "float_not_measured": {"limit": 90.0}}
BUDGET = read_budget()
BUDGET = BUDGET.model_copy(
    update={key: getattr(BUDGET, key).model_copy(update=change) for key, change in LENIENT.items()}
)


class Silent:
    """Wants to know nothing."""

    def step(self, title: str, total: int | None) -> Callable[[], None]:  # noqa: ARG002 - the protocol's arguments
        return lambda: None


@pytest.fixture(scope="module")
def cases(simulated_hc18: Path) -> list[HeadCase]:
    return read_hc18(simulated_hc18)


@pytest.fixture(scope="module")
def bundle(simulated_bundle: tuple[Path, dict[str, list[int]]]) -> Bundle:
    return load_bundle(simulated_bundle[0])


@pytest.fixture(scope="module")
def intervals(bundle: Bundle) -> Intervals:
    assert bundle.manifest.intervals is not None
    return bundle.manifest.intervals


@pytest.fixture(scope="module")
def evidence(bundle: Bundle) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(bundle.read("evidence.json"))
    return value


@pytest.fixture(scope="module")
def again(simulated_draft: Draft, cases: list[HeadCase], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The draft with decisions that it must not keep, on fewer held-out subjects than an interval can be fitted on."""
    wrong = simulated_draft.manifest.model_copy(
        update={
            "thresholds": Thresholds(plane_probability=1.0, agreement=1.0),
            "budget_passed": False,
            "intervals": Intervals(
                level=0.5,
                dataset="hc18",
                n_subjects=1,
                subjects=("000",),
                digests=(),
                shared=0.0,
                bands={"HC": (IntervalBand(below=None, half_width=0.1, n=9),)},
            ),
        }
    )
    split = simulated_draft.split
    few = [*split.select(cases, Part.VALIDATION), *split.select(cases, Part.HELD_OUT)[:12]]
    out = tmp_path_factory.mktemp("again") / "bundle"
    recalibrate(replace(simulated_draft, manifest=wrong), few, out, budget=BUDGET, progress=Silent())
    return load_bundle(out)


def test_every_step_is_told_to_its_end(simulated_bundle: tuple[Path, dict[str, list[int]]]) -> None:
    assert simulated_bundle[1] == {
        "fit thresholds on validation subjects": [10, 10],
        "fit thresholds on cut heads": [40, 40],
        "run the float graph on validation subjects": [10, 10],
        "judge the shipped graph": [1, 1],
        "report on held-out subjects": [28, 28],
        "judge the intervals": [14, 14],
    }


def test_intervals_are_fitted_on_half_of_the_held_out_subjects(
    intervals: Intervals, simulated_draft: Draft, cases: list[HeadCase]
) -> None:
    fitting, judging = halves(simulated_draft.split.select(cases, Part.HELD_OUT))
    assert len(fitting) == len(judging) == 14
    assert set(intervals.subjects) == {case.subject for case in fitting}
    assert intervals.n_subjects == 14
    assert sorted(intervals.digests) == sorted(case.digest() for case in fitting)
    assert {simulated_draft.split.parts[subject] for subject in intervals.subjects} == {Part.HELD_OUT}
    assert (intervals.level, intervals.dataset) == (LEVEL, "hc18")
    # No subject has two pictures here, so nothing is known of what they share.
    assert intervals.shared == 1.0
    assert set(intervals.bands) == {"HC", "BPD_outer_outer", "OFD", "cephalic_index"}
    for bands in intervals.bands.values():
        assert 9 <= sum(band.n for band in bands) <= 14


def test_half_widths_are_the_ranked_errors_of_the_fitting_half(
    bundle: Bundle, intervals: Intervals, simulated_draft: Draft, cases: list[HeadCase]
) -> None:
    fitting, _ = halves(simulated_draft.split.select(cases, Part.HELD_OUT))
    results = evaluate_heads({"shipped": load_network(bundle)}, fitting)["shipped"]
    errors = sorted(abs(r.hc_mm - r.hc_true_mm) for r in results if r.hc_mm is not None)
    (band,) = intervals.bands["HC"]
    assert band.n == len(errors)
    # The rank at 90 % is the largest of up to eighteen errors.
    assert band.half_width == pytest.approx(errors[-1], rel=1e-6)


def test_coverage_is_judged_on_the_other_half_only(
    bundle: Bundle, evidence: dict[str, Any], simulated_draft: Draft, cases: list[HeadCase], intervals: Intervals
) -> None:
    _, judging = halves(simulated_draft.split.select(cases, Part.HELD_OUT))
    assert unused(simulated_draft.split.select(cases, Part.HELD_OUT), intervals) == judging
    results = evaluate_heads({"shipped": load_network(bundle)}, judging)["shipped"]
    assert coverage(results, LEVEL) == evidence["coverage"]
    assert evidence["coverage"]["HC"]["n"] == sum(r.hc_mm is not None for r in results) > 0


def test_the_verdict_is_of_validation_subjects_and_held_out_ones_are_reported(
    evidence: dict[str, Any], simulated_draft: Draft
) -> None:
    rows = evidence["frames"]["shipped"]
    assert {simulated_draft.split.parts[row["subject"]] for row in rows} == {Part.VALIDATION}
    assert (len(rows), evidence["held_out"]["shipped"]["n"]) == (10, 28)


def test_thresholds_are_fitted_anew(bundle: Bundle, again: Bundle, starter: Bundle) -> None:
    assert bundle.manifest.thresholds != starter.manifest.thresholds
    assert again.manifest.thresholds == bundle.manifest.thresholds


def test_the_manifest_is_of_the_schema_that_its_fields_need(bundle: Bundle, again: Bundle) -> None:
    """A first-schema program would otherwise complain of an unknown field where it should ask for an upgrade."""
    assert bundle.manifest.schema_version == again.manifest.schema_version == SCHEMA_VERSION


def test_the_verdict_is_given_anew(
    bundle: Bundle, again: Bundle, simulated_draft: Draft, cases: list[HeadCase], tmp_path: Path
) -> None:
    """A bundle that passes after it was said not to, and one that fails after it was said to pass."""
    assert again.manifest.budget_passed is True
    require_fit_for_clinic(again)
    assert bundle.manifest.budget_passed is True
    claimed = simulated_draft.manifest.model_copy(update={"budget_passed": True})
    strays = _with_smaller_heads(simulated_draft.reference)
    done = recalibrate(
        replace(simulated_draft, manifest=claimed, shipped=strays),
        cases,
        tmp_path / "b",
        budget=BUDGET,
        progress=Silent(),
    )
    assert done.evidence["passed"] is False
    assert any("HC error increase" in reason or "no longer measured" in reason for reason in done.evidence["reasons"])
    written = load_bundle(tmp_path / "b")
    assert written.manifest.budget_passed is False
    with pytest.raises(BundleError, match="accuracy budget"):
        require_fit_for_clinic(written)
    assert "Within the accuracy budget: NO" in written.read(MODEL_CARD).decode()


def _with_smaller_heads(graph: bytes) -> bytes:
    """Take four off every logit of the mask."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        node.output[:] = ["mask_before" if name == "mask" else name for name in node.output]
        node.input[:] = ["mask_before" if name == "mask" else name for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array(4.0, np.float32), "taken_off"))
    model.graph.node.append(helper.make_node("Sub", ["mask_before", "taken_off"], ["mask"]))
    return bytes(model.SerializeToString())


def test_a_bundle_is_taken_back_to_a_draft_and_finished_with_the_same_graphs(
    bundle: Bundle, cases: list[HeadCase], tmp_path: Path
) -> None:
    draft = draft_of(bundle)
    done = recalibrate(draft, cases, tmp_path / "again", budget=BUDGET, progress=Silent())
    second = load_bundle(tmp_path / "again")
    for name in (MODEL, REFERENCE, GOLDEN, SPLIT, RECIPE):
        assert second.read(name) == bundle.read(name)
    # The same data give the same decisions.
    assert second.manifest.thresholds == bundle.manifest.thresholds
    assert second.manifest.intervals == bundle.manifest.intervals
    assert second.manifest.model_copy(update={"files": {}}) == bundle.manifest.model_copy(update={"files": {}})
    assert set(done.sizes_bytes) == set(second.manifest.files)
    for name, size in done.sizes_bytes.items():
        assert (second.path / name).stat().st_size == size
    assert done.evidence == json.loads(second.read("evidence.json"))


def test_the_starter_can_be_taken_back_to_a_draft(starter: Bundle) -> None:
    draft = draft_of(starter)
    assert draft.manifest == starter.manifest
    assert draft.split == Split.model_validate_json(starter.read(SPLIT))
    assert draft.recipe.name == starter.manifest.training.recipe
    assert (draft.shipped, draft.golden) == (starter.read(MODEL), starter.read(GOLDEN))


def test_too_few_held_out_subjects_make_no_intervals(again: Bundle) -> None:
    assert again.manifest.intervals is None
    assert "coverage" not in json.loads(again.read("evidence.json"))


def test_no_held_out_subjects_at_all_still_make_plain_json(
    simulated_draft: Draft, cases: list[HeadCase], tmp_path: Path
) -> None:
    """Or are refused; but a NaN is no JSON, and a card with `nan` says nothing."""
    validation = simulated_draft.split.select(cases, Part.VALIDATION)
    try:
        recalibrate(simulated_draft, validation, tmp_path / "b", budget=BUDGET, progress=Silent())
    except DatasetError as refusal:
        assert "held-out" in str(refusal)  # noqa: PT017 - either way is right
        assert not (tmp_path / "b").exists()
        return
    evidence = (tmp_path / "b" / "evidence.json").read_text()
    assert "NaN" not in evidence
    assert "nan" not in (tmp_path / "b" / MODEL_CARD).read_text()


def test_no_data_at_all_are_refused(simulated_draft: Draft, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no held-out subjects"):
        recalibrate(simulated_draft, [], tmp_path / "b", budget=BUDGET, progress=Silent())
    assert list(tmp_path.iterdir()) == []


def test_evidence_of_an_earlier_version_is_not_mended(bundle: Bundle, tmp_path: Path) -> None:
    old = tmp_path / "old"
    files = {name: bundle.read(name) for name in bundle.manifest.files} | {"evidence.json": b"{}"}
    write_bundle(old, files, bundle.manifest.model_copy(update={"schema_version": 2}))
    with pytest.raises(BundleError, match="earlier version"):
        draft_of(load_bundle(old))


def test_a_threshold_altered_after_the_judgement_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    lower = bundle.manifest.thresholds.model_copy(update={"agreement": 0.1})
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    write_bundle(tmp_path / "altered", files, bundle.manifest.model_copy(update={"thresholds": lower}))
    with pytest.raises(BundleError, match="thresholds are not those"):
        load_bundle(tmp_path / "altered")


def test_an_existing_folder_is_never_written_over(
    simulated_draft: Draft, cases: list[HeadCase], simulated_bundle: tuple[Path, dict[str, list[int]]]
) -> None:
    before = (simulated_bundle[0] / MANIFEST).read_bytes()
    few = [simulated_draft.split.select(cases, part)[0] for part in (Part.VALIDATION, Part.HELD_OUT)]
    with pytest.raises(OutputError, match="exists"):
        recalibrate(simulated_draft, few, simulated_bundle[0], budget=BUDGET, progress=Silent())
    assert (simulated_bundle[0] / MANIFEST).read_bytes() == before


# The card


def _section(card: str, title: str) -> str:
    """One point of the card, on one line."""
    return " ".join(card.partition(f"- **{title}.** ")[2].partition("\n- **")[0].partition("\n\n")[0].split())


def test_the_card_names_the_intervals_and_whether_they_hold(
    bundle: Bundle, intervals: Intervals, evidence: dict[str, Any]
) -> None:
    said = _section(bundle.read(MODEL_CARD).decode(), "Intervals")
    held = evidence["coverage"]["HC"]
    (band,) = intervals.bands["HC"]
    assert said.startswith("Split-conformal at 90%, fitted on 14 of the held-out subjects.")
    assert f"HC plus or minus {band.half_width:.1f} mm" in said
    assert f"(n = {band.n})" in said
    assert f"{held['covered']} of {held['n']} hold the truth" in said
    assert f"{held['expected'][0]} to {held['expected'][1]} would be within chance" in said
    assert "pixel size is added" in said


def test_a_single_band_is_of_all_sizes(bundle: Bundle) -> None:
    """One band is above nothing: `plus or minus 2.3 mm above (n = 9)` would be no English."""
    assert "mm above" not in _section(bundle.read(MODEL_CARD).decode(), "Intervals")


def test_the_card_names_every_band(bundle: Bundle, evidence: dict[str, Any]) -> None:
    bands = (IntervalBand(below=200.0, half_width=4.42, n=40), IntervalBand(below=None, half_width=10.88, n=17))
    assert bundle.manifest.intervals is not None
    tables = bundle.manifest.intervals.model_copy(update={"bands": {"HC": bands}})
    manifest = bundle.manifest.model_copy(update={"intervals": tables})
    recipe = draft_of(bundle).recipe
    said = _section(write_model_card(manifest, recipe, evidence), "Intervals")
    assert "4.4 mm below 200 mm (n = 40), 10.9 mm above (n = 17)" in said
    unjudged = write_model_card(manifest, recipe, {key: evidence[key] for key in evidence if key != "coverage"})
    assert "There were no others to judge them on" in _section(unjudged, "Intervals")


def test_the_card_says_that_there_are_no_intervals(again: Bundle) -> None:
    assert _section(again.read(MODEL_CARD).decode(), "Intervals") == (
        "None: too few held-out subjects to fit them on; a value comes without its uncertainty."
    )


def test_another_sites_pictures_give_the_intervals_and_nothing_else(
    bundle: Bundle, tiny_cases: list[HeadCase], tmp_path: Path
) -> None:
    recalibrate(draft_of(bundle), tiny_cases, tmp_path / "site", budget=BUDGET, progress=Silent())
    site = load_bundle(tmp_path / "site")
    assert site.manifest.thresholds == bundle.manifest.thresholds
    assert site.manifest.budget_passed is bundle.manifest.budget_passed
    assert site.manifest.intervals is not None
    assert set(site.manifest.intervals.digests) <= {case.digest() for case in tiny_cases}
    assert site.manifest.intervals != bundle.manifest.intervals


def test_too_few_of_another_sites_pictures_are_refused(
    bundle: Bundle, tiny_cases: list[HeadCase], tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="too few to fit intervals on; give more"):
        recalibrate(draft_of(bundle), tiny_cases[:6], tmp_path / "site", budget=BUDGET, progress=Silent())
    assert list(tmp_path.iterdir()) == []
