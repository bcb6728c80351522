"""The model card that every bundle carries: what it is, what it learnt from, how well it does, what it is not for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgefetal_runtime.infer.bundle import Manifest


def _figures(summary: dict[str, Any]) -> str:
    """Write one row of the table of results."""
    mae_mm, bias_mm, p95_mm = (summary[key] for key in ("hc_mae_mm", "hc_bias_mm", "hc_p95_mm"))
    numbers = "- | - | -" if mae_mm is None else f"{mae_mm:.2f} | {bias_mm:+.2f} | {p95_mm:.2f}"
    return f"{summary['n_measured']} of {summary['n']} | {numbers} | {summary['dice_mean']:.4f}"


def write_model_card(manifest: Manifest, evidence: dict[str, Any]) -> str:
    """Write the card, in Markdown, from the bundle's own records.

    Args:
        manifest: the bundle's manifest.
        evidence: what `evidence.json` holds.
    """
    training, subjects = manifest.training, manifest.training.subjects
    paired = evidence["paired"]
    difference_mm = paired["hc_mean_abs_difference_mm"]
    stated = "not known, nothing was measured" if difference_mm is None else f"{difference_mm:.3f} mm"
    return f"""# Model card: {manifest.name}

**Not a medical device.** Research software; nothing here may be used for diagnosis or to manage a pregnancy.

- **What it does.** Outlines the {" and ".join(manifest.heads.mask)} in a 2-D ultrasound picture and says whether the
  picture shows one ({", ".join(manifest.heads.plane)}). The runtime fits an ellipse to the outline.
- **Network.** Multi-task U-Net after Qazi et al. 2023 (arXiv 2311.09607), {training.parameters:,} parameters, input
  {manifest.preprocess.width_px} x {manifest.preprocess.height_px}; shipped in INT8 for `{manifest.device}`.
- **Training data.** {training.attribution}; licence {training.licence}. Split by subject:
  {subjects["train"]} to train, {subjects["validation"]} to choose the checkpoint, {subjects["held-out"]} never seen.
- **Pictures without a head** were made from the same pictures (windows beside the head, the head painted over, blank
  and noisy screens). Other fetal anatomy was never seen in training, so `none` is not to be relied on for it.
- **Refusals.** A frame is refused below a head probability of {manifest.thresholds.plane_probability:.3f}, or below an
  agreement of {manifest.thresholds.agreement:.3f} between the mask and its ellipse (each fitted so that 2 % of the
  validation heads fall below it).
- **Intervals.** None; a value comes without its uncertainty.

Validation subjects (they chose the checkpoint, so these figures flatter; evaluate on subjects never seen):

| graph | measured | HC mean abs. error (mm) | bias (mm) | 95th percentile (mm) | Dice |
|---|---|---|---|---|---|
| shipped, INT8 | {_figures(evidence["shipped"])} |
| reference, float | {_figures(evidence["reference"])} |

Mean absolute difference between the two, case by case: {stated}.
Within the accuracy budget: {"yes" if evidence["passed"] else "NO"}.
"""
