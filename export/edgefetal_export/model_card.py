"""The model card that every bundle carries: what it is, what it learnt from, how well it does, what it is not for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefetal_runtime.biometry.outline import MIN_COVERAGE

if TYPE_CHECKING:
    from edgefetal_export.training.biometry.multitask import MultitaskRecipe
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


def training_command(recipe: MultitaskRecipe) -> str:
    """Write the command that trains by a recipe again."""
    return (
        f"edgefetal train {recipe.name} --data {recipe.dataset}:PATH --out RUN --epochs {recipe.epochs} "
        f"--batch-size {recipe.batch_size} --learning-rate {recipe.learning_rate:g} "
        f"--classification-weight {recipe.classification_weight:g} --precision {recipe.precision} --seed {recipe.seed}"
    )


def write_model_card(manifest: Manifest, recipe: MultitaskRecipe, evidence: dict[str, Any]) -> str:
    """Write the card, in Markdown, from the bundle's own records.

    Args:
        manifest: the bundle's manifest.
        recipe: how it was trained.
        evidence: what `evidence.json` holds.
    """
    training, subjects, thresholds = manifest.training, manifest.training.subjects, manifest.thresholds
    difference_mm = evidence["paired"]["hc_mean_abs_difference_mm"]
    stated = "not known, nothing was measured" if difference_mm is None else f"{difference_mm:.3f} mm"
    held_out = evidence["held_out"]
    table = "\n".join(
        [
            "| part | graph | measured | HC mean abs. error (mm) | bias | 95th percentile | largest | Dice |",
            "|---|---|---|---|---|---|---|---|",
            _figures("held out", "INT8", held_out["shipped"]),
            _figures("held out", "float", held_out["reference"]),
            *(
                _figures(f"held out, HC {band['from_mm']} to {band['to_mm']} mm", "INT8", band)
                for band in held_out["shipped"]["by_size"]
            ),
            _figures("validation", "INT8", evidence["shipped"]),
            _figures("validation", "float", evidence["reference"]),
        ]
    )
    return f"""# Model card: {manifest.name}

**Not a medical device.** Research software; nothing here may be used for diagnosis or to manage a pregnancy.

- **What it does.** Outlines the {" and ".join(manifest.heads.mask)} in a 2-D ultrasound picture and says whether the
  picture shows one ({", ".join(manifest.heads.plane)}). The runtime fits an ellipse to the outline.
- **Network.** Multi-task U-Net after Qazi et al. 2023 (arXiv 2311.09607), {training.parameters:,} parameters, input
  {manifest.preprocess.width_px} x {manifest.preprocess.height_px}; shipped in INT8 for `{manifest.device}`.
- **Training data.** {training.attribution}; licence {training.licence}.
  Split by subject, which is an examination (the leading number of a file's name): {subjects["train"]} to train,
  {subjects["validation"]} to choose the checkpoint, {subjects["held-out"]} held out. One woman may have several
  examinations; the data do not say which.
- **Pictures without a head** were made from the same pictures (windows beside the head, the head painted over, blank
  and noisy screens). Other fetal anatomy was never seen in training, so `none` is not to be relied on for it.
- **Refusals.** A frame is refused below a head probability of {thresholds.plane_probability:.3f}, or below an agreement
  of {thresholds.agreement:.3f} between the mask and its ellipse. Each is the value that 2 % of the validation heads
  fall below, or 0.5 where that is more. At least {max(MIN_COVERAGE, thresholds.coverage):.0%} of the outline must be in
  the picture: with less, cut validation heads were not measured well enough. Beside these, the outline must be
  elliptical and of a head's size.
- **Intervals.** {_intervals(manifest, evidence)}

{table}

Validation subjects chose the checkpoint and the thresholds, so their figures flatter; held-out subjects chose nothing
but the intervals, which change no value.
Mean absolute difference between the two graphs on validation, case by case: {stated}.
Within the accuracy budget: {"yes" if evidence["passed"] else "NO"}.

Exported with torch {manifest.tools.get("torch", "unknown")} and judged on {manifest.tools["machine"]}. Trained by

    {training_command(recipe)}
"""
