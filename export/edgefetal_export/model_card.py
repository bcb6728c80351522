"""The model card that every bundle carries: what it is, what it learnt from, how well it does, what it is not for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefetal_calibration.datasets import phantom
from edgefetal_calibration.datasets.kinds import dataset_kind
from edgefetal_export.teachers.fetalclip import RELEASED_FILE, FetalClipConfig
from edgefetal_export.training.quality.classifier import QualityRecipe
from edgefetal_export.training.quality.encoders import TowerEncoder
from edgefetal_export.training.student.recipe import StudentRecipe
from edgefetal_runtime.biometry.outline import MIN_COVERAGE

if TYPE_CHECKING:
    from edgefetal_export.training.biometry.multitask import MultitaskRecipe
    from edgefetal_export.training.trained import TrainedRecipe
    from edgefetal_runtime.infer.bundle import Manifest


def _figures(part: str, graph: str, summary: dict[str, Any]) -> str:
    """Write one row of the table of results."""
    keys = ("hc_mae_mm", "hc_bias_mm", "hc_p95_mm", "hc_max_mm")
    numbers = " | ".join("-" if summary[key] is None else f"{summary[key]:.2f}" for key in keys)
    return f"| {part} | {graph} | {summary['n_measured']} of {summary['n']} | {numbers} | {summary['dice_mean']:.4f} |"


def _intervals(manifest: Manifest, evidence: dict[str, Any]) -> str:
    """Say what the intervals are, and whether they hold what they state."""
    intervals = manifest.intervals
    if intervals is None:
        return "None: too few held-out subjects to fit them on; a value comes without its uncertainty."
    of_hc = intervals.bands["HC"]
    reaches = [f" below {band.below:g} mm" if band.below else " above" if len(of_hc) > 1 else "" for band in of_hc]
    bands = ", ".join(
        f"{band.half_width:.1f} mm{reach} (n = {band.n})" for band, reach in zip(of_hc, reaches, strict=True)
    )
    judged = evidence.get("coverage", {}).get("HC")
    held = (
        "There were no others to judge them on."
        if judged is None
        else f"On the other held-out subjects {judged['covered']} of {judged['n']} hold the truth, where\n"
        f"  {judged['expected'][0]} to {judged['expected'][1]} would be within chance."
    )
    return (
        f"Split-conformal at {intervals.level:.0%}, fitted on {intervals.n_subjects} of the held-out subjects.\n"
        f"  HC plus or minus {bands}. {held}\n"
        "  The uncertainty of the pixel size is added when a frame is measured."
    )


def training_command(recipe: TrainedRecipe) -> str:
    """Write the command that trains by a recipe again."""
    data = " ".join(f"--data {kind}:PATH" for kind in recipe.dataset.split("+"))
    if isinstance(recipe, QualityRecipe):
        return f"edgefetal train {recipe.name} {_grader_options(recipe)} {data} --out RUN {_loop_options(recipe)}"
    common = (
        f"{data} --structures {','.join(recipe.network.structures)} --out RUN --epochs {recipe.epochs} "
        f"--frames-per-exam {recipe.frames_per_exam} --batch-size {recipe.batch_size} "
        f"--learning-rate {recipe.learning_rate:g} --precision {recipe.precision} --seed {recipe.seed}"
    )
    if not isinstance(recipe, StudentRecipe):
        return f"edgefetal train {recipe.name} {common} --classification-weight {recipe.classification_weight:g}"
    loss = " ".join(f"--{part}-weight {weight:g}" for part, weight in recipe.loss.model_dump().items())
    options = [
        *(f"--teachers RUN_OF_{teacher.recipe}" for teacher in recipe.teachers),
        *(f"--unlabelled {kind}:PATH" for kind in recipe.unlabelled.split("+") if kind),
        *(["--grades"] if recipe.network.quality and not any(teacher.quality for teacher in recipe.teachers) else []),
        *([] if recipe.split_seed is None else [f"--split-seed {recipe.split_seed}"]),
    ]
    size = f"--student {recipe.size.value} --input {recipe.preprocess.width_px}x{recipe.preprocess.height_px}"
    return " ".join(["edgefetal distil", common, size, loss, *options])


def _grader_options(recipe: QualityRecipe) -> str:
    """Write which quality classifier is trained, and from what."""
    encoder, origin = recipe.encoder, recipe.weights.origin
    if not isinstance(encoder, TowerEncoder):
        begins = "--random-weights" if origin == "random" else "--weights FILE"
        return f"{encoder.name} --scale {encoder.scale} {begins}"
    weights = {"released": f"--weights {RELEASED_FILE}", "given": "--any-weights FILE", "random": "--random-weights"}
    release = FetalClipConfig()
    shape = {
        "layers": (encoder.config.layers, release.layers),
        "width": (encoder.config.width, release.width),
        "side-px": (encoder.config.image_px, release.image_px),
    }
    options = [weights[origin], *(f"--{name} {ours}" for name, (ours, theirs) in shape.items() if ours != theirs)]
    if encoder.lora is None:
        options.append(f"--encoder {encoder.trains}")
    else:
        options.append(f"--lora-rank {encoder.lora.rank} --lora-dropout {encoder.lora.dropout:g}")
    return " ".join(options)


def _loop_options(recipe: QualityRecipe) -> str:
    """Write how a quality classifier is trained."""
    # As published every frame of the validation sweeps is read, and the command takes no other wish.
    rules = "--as-published" if recipe.as_published else f"--validation-every {recipe.validation_every}"
    return (
        f"--epochs {recipe.epochs} --batch-size {recipe.batch_size} --accumulation {recipe.accumulation} "
        f"--learning-rate {recipe.learning_rate:g} --precision {recipe.precision} --seed {recipe.seed} {rules}"
    )


def _network(recipe: MultitaskRecipe | StudentRecipe) -> str:
    """Say what the network is."""
    if not isinstance(recipe, StudentRecipe):
        return "Multi-task U-Net after Qazi et al. 2023 (arXiv 2311.09607)"
    taught = " and ".join(f"{teacher.recipe} ({teacher.sha256[:12]})" for teacher in recipe.teachers)
    return f"Student of size `{recipe.size.value}`, " + (f"taught by {taught}" if taught else "taught by labels alone")


def _unlabelled(recipe: MultitaskRecipe | StudentRecipe) -> str:
    """Say which data it saw without labels."""
    if not (isinstance(recipe, StudentRecipe) and recipe.unlabelled):
        return ""
    kinds = " and ".join(f"{kind} ({dataset_kind(kind).attribution})" for kind in recipe.unlabelled.split("+"))
    return f" Beside these, without\n  labels: {kinds}."


def _other_planes(manifest: Manifest) -> str:
    """Say below which probability other planes are refused."""
    planes = [f"{plane} {least:.3f}" for plane, least in manifest.thresholds.planes.items()]
    return f" Likewise of the {' and the '.join(planes)}." if planes else ""


def _simulated(manifest: Manifest) -> str:
    """Say what it knows from simulations alone."""
    if not manifest.simulated:
        return ""
    return (
        f"\n  **It learnt the {' and the '.join(manifest.simulated)} from simulated pictures alone**, so that is\n"
        "  measured on simulated exams only (`--simulated`)."
    )


def _validation_rows(evidence: dict[str, Any]) -> list[str]:
    """Write a row for each length and graph on validation subjects."""
    rows = []
    for graph, title in (("shipped", evidence["precision"]), ("reference", "float")):
        for measure, of in evidence["validation"][graph]["lengths"].items():
            numbers = " | ".join(
                "-" if of[key] is None else f"{of[key]:.2f}" for key in ("mae_mm", "bias_mm", "max_mm")
            )
            dice = "-" if of["dice_mean"] is None else f"{of['dice_mean']:.4f}"
            rows.append(f"| {measure} | {title} | {of['n_measured']} of {of['n']} | {numbers} | {dice} |")
    return rows


def write_model_card(manifest: Manifest, recipe: TrainedRecipe, evidence: dict[str, Any]) -> str:
    """Write the card, in Markdown, from the bundle's own records.

    Args:
        manifest: the bundle's manifest.
        recipe: how it was trained.
        evidence: what `evidence.json` holds.
    """
    body = (
        _grader_body(manifest, recipe, evidence)
        if isinstance(recipe, QualityRecipe)
        else _outliner_body(manifest, recipe, evidence)
    )
    return f"""# Model card: {manifest.name}

**Not a medical device.** Research software; nothing here may be used for diagnosis or to manage a pregnancy.

{body}

Within the accuracy budget: {"yes" if evidence["passed"] else "NO"}; `evidence.html` shows it line by line.

Exported with torch {manifest.tools.get("torch", "unknown")} and judged on {manifest.tools["machine"]}. Trained by

    {training_command(recipe)}
"""


def _grader_body(manifest: Manifest, recipe: QualityRecipe, evidence: dict[str, Any]) -> str:
    """Say what a network does that tells good frames from others, and how well."""
    training, subjects = manifest.training, manifest.training.subjects
    simulated = recipe.dataset.split("+") == [phantom.KIND]
    only = "\n  **All of them are simulated**, so its figures say nothing of patients." if simulated else ""
    name = recipe.name if isinstance(recipe.encoder, TowerEncoder) else f"{recipe.name} {recipe.encoder.name}"
    rows = [
        f"| {part} | {title} | {of['n']} | {of['n_good']} | {of['n_called']} | {of['n_right']} | "
        f"{'-' if of['f1'] is None else format(of['f1'], '.3f')} |"
        for part, key in (("held out", "held_out_frames"), ("validation", "validation"))
        for title, graph in ((evidence["precision"], "shipped"), ("float", "reference"))
        if (of := evidence[key][graph]["calls"]) is not None
    ]
    table = "\n".join(
        ["| part | graph | frames | good | called good | called rightly | F1 |", "|---|---|---|---|---|---|---|", *rows]
    )
    return f"""\
- **What it does.** Says how likely it is that a 2-D ultrasound picture shows an abdominal plane that can be
  measured. It outlines and measures nothing, so `edgefetal run` refuses it.
- **Network.** `{name}` after He, Wang and Yaqub 2025 (arXiv 2507.22802), adapters merged; {training.parameters:,}
  numbers were trained, input {manifest.preprocess.width_px} x {manifest.preprocess.height_px}; shipped in
  {evidence["precision"]} for `{manifest.device}`. {recipe.weights.sentence()}
- **Training data.** {training.attribution}; licence {training.licence}.{only}
  Split by subject: {subjects["train"]} to train, {subjects["validation"]} to choose the checkpoint,
  {subjects["held-out"]} held out.
- **Decision.** A frame is called good from a probability of {manifest.thresholds.quality:.3f} on, as the run
  {"fixes it, as published" if recipe.as_published else "fitted it on the validation subjects"}.
- **Intervals.** None: it measures nothing.

{table}

Of each exam some frames were judged, half of them with the plane where there are as many; in examinations it is much
rarer, so F1 is lower there: `edgefetal evaluate` judges whole exams. Validation subjects chose the checkpoint and the
decision, so their figures flatter."""


def _outliner_body(manifest: Manifest, recipe: MultitaskRecipe | StudentRecipe, evidence: dict[str, Any]) -> str:
    """Say what a network does that outlines, and how well."""
    training, subjects, thresholds = manifest.training, manifest.training.subjects, manifest.thresholds
    precision = evidence["precision"]
    held_out = evidence["held_out"]
    table = "\n".join(
        [
            "| part | graph | measured | HC mean abs. error (mm) | bias | 95th percentile | largest | Dice |",
            "|---|---|---|---|---|---|---|---|",
            _figures("held out", precision, held_out["shipped"]),
            _figures("held out", "float", held_out["reference"]),
            *(
                _figures(f"held out, HC {band['from_mm']} to {band['to_mm']} mm", precision, band)
                for band in held_out["shipped"]["by_size"]
            ),
        ]
    )
    validation = "\n".join(
        [
            "| length | graph | measured | mean abs. error (mm) | bias | largest | Dice |",
            "|---|---|---|---|---|---|---|",
            *_validation_rows(evidence),
        ]
    )
    return f"""\
- **What it does.** Outlines the {" and ".join(manifest.heads.mask)} in a 2-D ultrasound picture and says what the
  picture shows ({", ".join(manifest.heads.plane)}). The runtime fits a shape to the outline and measures that.
- **Network.** {_network(recipe)}; {training.parameters:,} parameters, input {manifest.preprocess.width_px} x
  {manifest.preprocess.height_px}; shipped in {precision} for `{manifest.device}`.
- **Training data.** {training.attribution}; licence {training.licence}.{_unlabelled(recipe)}{_simulated(manifest)}
  Split by subject, which is an examination (the leading number of a file's name): {subjects["train"]} to train,
  {subjects["validation"]} to choose the checkpoint, {subjects["held-out"]} held out. One woman may have several
  examinations; the data do not say which.
- **Pictures without a head** were made from the same pictures (windows beside the head, the head painted over, blank
  and noisy screens). Anatomy that is not named above was never labelled in training, so `none` is not to be relied on
  for it.
- **Refusals.** A frame is refused below a head probability of {thresholds.plane_probability:.3f}, or below an agreement
  of {thresholds.agreement:.3f} between the mask and its ellipse. Each is the value that 2 % of the validation heads
  fall below, or 0.5 where that is more.{_other_planes(manifest)}
  At least {max(MIN_COVERAGE, thresholds.coverage):.0%} of the outline must be in the picture: with less, cut validation
  heads were not measured well enough. Beside these, the outline must be elliptical and of a head's size.
- **Intervals.** {_intervals(manifest, evidence)}

{table}

Held-out subjects chose nothing but the intervals, which change no value. Validation subjects, below, chose the
checkpoint and the thresholds, so their figures flatter.

{validation}"""
