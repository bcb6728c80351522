"""`edgefetal evaluate BUNDLE` on single pictures of annotated heads: HC, its interval, and what refusing is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_calibration.datasets.split import Split
    from edgefetal_calibration.each import Mapper
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.network import Network


def evaluate_pictures(
    bundle: Bundle,
    networks: Mapping[str, Network],
    chosen: Sequence[HeadCase],
    split: Split,
    about: Mapping[str, Any],
    chart_file: Path | None,
    json_file: Path | None,
    mapper: Mapper,
) -> None:
    """Measure every picture, judge the bundle's intervals, and draw a chart where one is wanted.

    Args:
        bundle: the bundle.
        networks: its graphs by name.
        chosen: the pictures.
        split: whom the network was trained on.
        about: what else the JSON says; the chart's title and the first line are made of it.
        chart_file: where the chart goes, or None.
        json_file: where the JSON goes, or None.
        mapper: who does it.
    """
    from edgefetal.cli import terminal
    from edgefetal_calibration.charts import draw_evaluation
    from edgefetal_calibration.datasets.split import Part
    from edgefetal_calibration.evaluate import compare, evaluate_heads, rows, summarise
    from edgefetal_calibration.intervals import coverage, risk_coverage, unused
    from edgefetal_runtime.atomic import write_file

    with terminal.steps() as progress:
        results = evaluate_heads(networks, chosen, progress.step("pictures", len(chosen)), mapper=mapper)

    intervals = bundle.manifest.intervals
    # A subject that the network was trained on says nothing of an interval either.
    held_out = split.select(chosen, Part.HELD_OUT)
    fresh = {case.name for case in (unused(held_out, intervals) if intervals else held_out)}
    unseen = [result for result in results["shipped"] if result.name in fresh]
    held = coverage(unseen, intervals.level) if intervals else {}
    risk = risk_coverage(results["shipped"])
    summaries = {name: summarise(of_network) for name, of_network in results.items()}
    value: dict[str, Any] = {
        **about,
        **summaries["shipped"],
        "coverage": held,
        "risk_coverage": risk,
        "cases": rows(results["shipped"]),
    }
    if "reference" in results:
        value["reference"] = {**summaries["reference"], "cases": rows(results["reference"])}
        value["paired"] = compare(results["shipped"], results["reference"])
    if chart_file is not None:
        kind = str(about["dataset"]).partition(":")[0]
        title = f"{bundle.manifest.name} on {kind}, {about['part']} part, n = {len(chosen)}"
        picture = draw_evaluation(results["shipped"], unseen, risk, intervals, title=title)
        write_file(chart_file, picture.encode())
    terminal.write_json(json_file, value)

    terminal.say(f"{about['part']} part: {len(chosen)} of {len(chosen) + about['n_left_out']} pictures.")
    columns = ("graph", "measured", "MAE", "bias", "p95", "max", "Dice", "ms")
    lines = [
        (
            name,
            f"{s['n_measured']} of {s['n']}",
            *(terminal.figure(s[key]) for key in ("hc_mae_mm", "hc_bias_mm", "hc_p95_mm", "hc_max_mm")),
            terminal.figure(s["dice_mean"], 4),
            terminal.figure(1e3 * s["seconds_per_frame"], 1),
        )
        for name, s in summaries.items()
    ]
    terminal.show_table(f"HC error in mm, {summaries['shipped']['n_subjects']} subjects; ms a frame", columns, lines)
    terminal.show_coverage(held)
    if "reference" in results:
        paired = value["paired"]
        terminal.say(
            f"Shipped minus reference, case by case: mean absolute difference "
            f"{terminal.figure(paired['hc_mean_abs_difference_mm'], 3)} mm, largest "
            f"{terminal.figure(paired['hc_max_abs_difference_mm'])} mm; "
            f"{terminal.figure(paired['time_ratio'])} times as fast."
        )
