"""The accuracy budget: how far the shipped graph may stray from the float one, in millimetres."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgefetal_calibration.evaluate import CaseResult, compare, rows, summarise

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Budget:
    """What is allowed, on the validation subjects.

    Args:
        max_hc_difference_mm: upper 95 % bound of the mean absolute difference of HC between the two graphs.
        max_case_difference_mm: largest difference of any case.
        max_reference_mae_mm: mean absolute HC error of the float graph itself; beyond it there is nothing to keep.
        max_lost_share: share of the cases that one graph measures and the other does not.
        min_measured_share: share of the cases that the float graph must measure for the judgement to mean anything.
    """

    max_hc_difference_mm: float = 0.2
    max_case_difference_mm: float = 2.0
    max_reference_mae_mm: float = 4.0
    max_lost_share: float = 0.02
    min_measured_share: float = 0.8


def judge(shipped: Sequence[CaseResult], reference: Sequence[CaseResult], budget: Budget) -> dict[str, Any]:
    """Judge the shipped graph by its paired results.

    Returns:
        What `evidence.json` holds: the budget, the verdict with its reasons, both summaries, the comparison, all cases.
    """
    paired = compare(shipped, reference)
    n = len(reference)
    n_measured = sum(r.hc_mm is not None for r in reference)
    reasons = []
    if n_measured < budget.min_measured_share * n:
        reasons.append(f"the float network measures only {n_measured} of {n} cases; train it further")
    reference_summary = summarise(reference)
    limits = (
        ("float HC error", reference_summary["hc_mae_mm"], budget.max_reference_mae_mm),
        ("mean HC difference, upper bound,", paired["hc_difference_upper_mm"], budget.max_hc_difference_mm),
        ("largest HC difference", paired["hc_max_abs_difference_mm"], budget.max_case_difference_mm),
    )
    for name, value_mm, limit_mm in limits:
        if value_mm is None or not value_mm <= limit_mm:
            stated = "unknown" if value_mm is None else f"{value_mm:.3f} mm"
            reasons.append(f"the {name} is {stated}, the budget {limit_mm} mm")
    if paired["n_only_one_measured"] > budget.max_lost_share * n:
        reasons.append(f"{paired['n_only_one_measured']} of {n} cases are measured by one graph and not by the other")
    return {
        "part": "validation",
        "budget": asdict(budget),
        "passed": not reasons,
        "reasons": reasons,
        "shipped": summarise(shipped),
        "reference": reference_summary,
        "paired": paired,
        "cases": {"shipped": rows(shipped), "reference": rows(reference)},
    }
