"""`evidence.html`: how the shipped graph compares with the float one, for whoever has to answer for it.

The page needs nothing but itself: no script, no network, no font of its own. Its policy forbids it all three.
"""

from __future__ import annotations

import base64
import math
import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgefetal_calibration.budget import BROKEN, NOT_JUDGED, PASSED
from edgefetal_devices.errors import InputError
from edgefetal_runtime.biometry.principal import PRINCIPAL
from edgefetal_runtime.svg import BLUE, GREY, ORANGE, Chart, Line, Points, draw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    Row = Mapping[str, Any]

_PICTURES_WITHHELD: Final = (
    "The pictures are left out: a bundle travels further than the consent of the patients in them reaches. "
    "`edgefetal build --worst-cases` writes them beside the bundle, for those who may see them."
)
_NOT_TO_BE_PASSED_ON: Final = (
    "This page holds patients' pictures wherever the validation data are not simulated. It is not to be passed on: "
    "keep it where those data may be kept."
)

# Of a normal distribution 95 % lies within so many standard deviations (Bland and Altman 1986).
_LIMITS_SD: Final = 1.96
_WORST: Final = 10
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_CHART_PX: Final = (440, 320)
_MARKS: Final = {PASSED: "\u2713", BROKEN: "\u2717", NOT_JUDGED: "\u2013"}
_CLASSES: Final = {PASSED: "passed", BROKEN: "broken", NOT_JUDGED: "open"}
_STYLE: Final = """
:root{--ink:#1f2937;--soft:#4b5563;--paper:#fff;--card:#f9fafb;--rule:#d1d5db;--good:#065f46;--good-bg:#d1fae5;
--bad:#991b1b;--bad-bg:#fee2e2;--open:#374151;--open-bg:#e5e7eb;--bar:#0072b2;--bar-bad:#d55e00}
@media screen and (prefers-color-scheme:dark){
:root{--ink:#e5e7eb;--soft:#9ca3af;--paper:#111827;--card:#1f2937;--rule:#374151;
--good:#a7f3d0;--good-bg:#064e3b;--bad:#fecaca;--bad-bg:#7f1d1d;--open:#d1d5db;--open-bg:#374151;--bar:#56b4e9;
--bar-bad:#f59e5b}.chart svg{filter:invert(1) hue-rotate(180deg);mix-blend-mode:screen}}
*{box-sizing:border-box}
body{font:16px/1.5 'DejaVu Sans',Verdana,Arial,sans-serif;color:var(--ink);background:var(--paper);margin:0 auto;
padding:1rem;max-width:64rem;overflow-wrap:anywhere}
h1{font-size:1.4rem;margin:.2rem 0 .8rem}
h2{font-size:1.1rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--rule);padding-bottom:.2rem}
h3{font-size:1rem;margin:1rem 0 .3rem}
p{margin:.4rem 0}
.soft,figcaption{color:var(--soft);font-size:.85rem}
.verdict{font-size:1.15rem;font-weight:bold;padding:.8rem 1rem;border-radius:.4rem;border-left:.5rem solid}
.passed{color:var(--good);background:var(--good-bg)}.broken{color:var(--bad);background:var(--bad-bg)}
.open{color:var(--open);background:var(--open-bg)}
.tag{display:inline-block;padding:.05rem .5rem;border-radius:.3rem;font-weight:bold;white-space:nowrap}
table{border-collapse:collapse;width:100%;font-size:.85rem}
th,td{text-align:left;padding:.3rem .5rem;border-bottom:1px solid var(--rule);vertical-align:top}
th{color:var(--soft);font-weight:normal}
.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1rem}
figure{margin:0;background:var(--paper);border:1px solid var(--rule);border-radius:.4rem;padding:.5rem;
break-inside:avoid}
figure svg,figure img{display:block;width:100%;height:auto}
.bars td:nth-child(2){width:55%;vertical-align:middle}.bars svg{display:block;width:100%;height:.8rem}
code{font-family:'DejaVu Sans Mono',monospace;font-size:.85em}
tr{break-inside:avoid}
@media (max-width:40rem){
.cards thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.cards tbody,.cards tr{display:block}
.cards tr{border:1px solid var(--rule);border-radius:.4rem;margin:.5rem 0;padding:.3rem .5rem;background:var(--card)}
.cards td{display:inline-block;border:0;padding:.1rem .8rem .1rem 0;text-align:left;white-space:normal}
.cards .num::before{content:attr(data-label) ": ";color:var(--soft)}
.cards td:empty{display:none}}
@media print{body{max-width:none;padding:0;font-size:10pt}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


@dataclass(frozen=True)
class CasePicture:
    """A case as a picture, such as the outlines of the label, the float graph and the shipped one over the frame.

    Args:
        caption: what it shows, and which line is which.
        png: the picture, a PNG file.
    """

    caption: str
    png: bytes


@dataclass(frozen=True)
class WorstCase:
    """A frame on which the shipped graph did worse than the float one.

    Args:
        increase: of the error of its length in mm, infinite where the length was lost; of graphs that measure nothing,
            of how far the probability is from the grade.
        shipped: its row of the shipped graph.
        reference: its row of the float graph.
    """

    increase: float
    shipped: Row
    reference: Row


def worst_cases(frames: Mapping[str, Sequence[Row]]) -> list[WorstCase]:
    """Return the frames that eight bits cost most, the worst first, a few at most.

    Args:
        frames: `{"shipped": rows, "reference": rows}`, as `frame_rows` returns them, of the same frames.

    Raises:
        InputError: they are not of the same frames.
    """
    return _worst(_pairs(frames))


def write_evidence_page(evidence: Mapping[str, Any]) -> bytes:
    """Write the page as UTF-8 HTML; a part that was not recorded is named as such.

    Args:
        evidence: what `evidence.json` holds, as JSON values:

            `name`, `device`, `precision`: of the bundle, the profile and the shipped graph (`INT8` if absent).
            `judgement`: as `Judgement.to_json` returns it; this alone must be there.
            `frames`: `{"shipped": rows, "reference": rows}`, as `frame_rows` returns them, of the same frames.
            `sensitivity`: `[{"block", "excess"}]`, the budget's excess with that block alone back in float.
            `mending`: `[{"step", "outcome", "excess"}]`, what was tried, in order.
            `latency`: `{"before_ms", "after_ms", "ratio", "interval": [low, high], "n"}`, medians of a frame; the ratio
            is before over after, with its 95 % interval.
            `calibration`: `{"method", "sha256", "strata": [{"plane", "source", "size", "gain", "n"}]}`.
            `versions`, `machine`: names with what they are.

    Raises:
        InputError: there is no judgement, or the frames of the two graphs are not the same.
    """
    judgement = evidence.get("judgement")
    if not judgement:
        raise InputError("The evidence holds no judgement, so there is nothing to show; judge the graph first.")
    precision = str(evidence.get("precision", "INT8"))
    pairs = _pairs(evidence.get("frames") or {})
    parts = [
        _heading(evidence, precision),
        _verdict(judgement, precision),
        _section("Accuracy budget", _budget_table(judgement)),
        _section("Agreement", _agreement(pairs, precision)),
        _section("Worst cases", _worst_table(_worst(pairs), precision) + _not_recorded(_PICTURES_WITHHELD)),
        _section("Sensitivity of each block", _sensitivity(evidence.get("sensitivity") or [], precision)),
        _section("What was tried to mend it", _mending(evidence.get("mending") or [])),
        _section("Latency", _latency(evidence.get("latency") or {}, precision)),
        _section("Calibration", _calibration(evidence.get("calibration") or {})),
        _section("Versions and machine", _facts({**_part(evidence, "versions"), **_part(evidence, "machine")})),
    ]
    return _page(f"Evidence: {evidence.get('name', 'bundle')}", parts)


def write_cases_page(name: str, frames: Mapping[str, Sequence[Row]], pictures: Sequence[CasePicture]) -> bytes:
    """Write the worst cases as a page with pictures, UTF-8 HTML, which must not get into a bundle.

    Args:
        name: of the bundle.
        frames: as for `worst_cases`.
        pictures: of these.

    Raises:
        InputError: the frames of the two graphs are not the same, or a picture is no PNG.
    """
    title = f"Worst cases: {name}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='verdict broken'>{escape(_NOT_TO_BE_PASSED_ON)}</p>",
        _section("Worst first", _worst_table(worst_cases(frames), "shipped") + _pictures(pictures)),
    ]
    return _page(title, parts)


def _page(title: str, parts: Sequence[str]) -> bytes:
    """Put a page together that needs nothing else."""
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        "<meta name='color-scheme' content='light dark'>\n"
        "<meta http-equiv='Content-Security-Policy' "
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n<p class='soft'>Research software; not a medical device.</p>\n</body>\n</html>\n"
    ).encode()


def _part(evidence: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return evidence.get(key) or {}


def _pairs(frames: Mapping[str, Sequence[Row]]) -> list[tuple[Row, Row]]:
    """Return each frame's rows of the shipped and the float graph.

    Raises:
        InputError: they are not of the same frames.
    """
    shipped, reference = frames.get("shipped", ()), frames.get("reference", ())
    if [row["name"] for row in shipped] != [row["name"] for row in reference]:
        raise InputError("The frames of the two graphs are not the same; write the rows of one evaluation.")
    return list(zip(shipped, reference, strict=True))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>"


def _not_recorded(what: str) -> str:
    return f"<p class='soft'>{escape(what)}</p>"


def _heading(evidence: Mapping[str, Any], precision: str) -> str:
    name, device = (escape(str(evidence.get(key, "unnamed"))) for key in ("name", "device"))
    judged_on = evidence.get("judged_on")
    where = "" if judged_on is None else f" by <code>{escape(str(judged_on))}</code>"
    compiled = "".join(
        f"<p class='soft'><code>{escape(str(file))}</code>: {escape(str(run['told']))}</p>"
        for file, run in evidence.get("dry_runs", {}).items()
    )
    return (
        f"<h1>Evidence: {name}</h1>\n<p class='soft'>{escape(precision)} for <code>{device}</code>, judged{where} "
        f"beside its own float graph on the same frames of validation subjects.</p>{compiled}"
    )


def _verdict(judgement: Mapping[str, Any], precision: str) -> str:
    """Say in one sentence what became of it, and below why."""
    lines: Sequence[Row] = judgement["lines"]
    broken = [line for line in lines if line["verdict"] == BROKEN]
    n_judged = sum(line["verdict"] != NOT_JUDGED for line in lines)
    n_open = len(lines) - n_judged
    beside = f"; {n_open} more could not be judged" if n_open else ""
    if judgement["passed"]:
        sentence = f"Passed: {precision} stayed within its accuracy budget in all of {n_judged} judged lines{beside}."
    elif broken:
        sentence = (
            f"Not passed: {precision} broke {len(broken)} of {n_judged} judged lines of its accuracy budget{beside}; "
            "it does not run in the clinic."
        )
    else:
        sentence = "Not passed: data to judge it by are lacking, so it does not run in the clinic."
    look = "passed" if judgement["passed"] else "broken"
    reasons = "".join(f"<li>{escape(str(reason))}</li>" for reason in judgement["reasons"])
    return f"<p class='verdict {look}'>{escape(sentence)}</p>" + (f"\n<ul>{reasons}</ul>" if reasons else "")


def _budget_table(judgement: Mapping[str, Any]) -> str:
    rows = [
        (
            _tag(line["verdict"]),
            escape(str(line["name"])),
            escape("all frames" if line["group"] == "all" else str(line["group"])),
            _number(line["estimate"]),
            _number(line["upper"]),
            f"{line['limit']:g} {escape(str(line['unit']))}",
            f"{line['n']} / {line['n_subjects']}",
        )
        for line in judgement["lines"]
    ]
    note = (
        "<p class='soft'>The bound is the upper one-sided 95 % bound of the estimate, bootstrapped over subjects; a "
        "line passes where the bound is within the limit. Increases and decreases are of the shipped graph against the "
        "float one, frame by frame; below 0 it does better.</p>"
    )
    return (
        _table(("verdict", "line", "group", "estimate", "bound", "limit", "frames / subjects"), rows, (3, 4, 5, 6))
        + note
    )


def _tag(verdict: str) -> str:
    """Write a verdict in colour, in words and with a mark, so that none of them is needed to read it."""
    return f"<span class='tag {_CLASSES[verdict]}'>{_MARKS[verdict]} {escape(verdict)}</span>"


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = (), look: str = "cards"
) -> str:
    """Write a table of cells that are HTML already; on a phone each row becomes a card.

    Args:
        heads: heads of the columns, as text.
        rows: cells.
        numeric: columns of figures.
        look: its class.
    """
    marks = [" class='num'" if column in numeric else "" for column in range(len(heads))]
    head = "".join(f"<th{mark}>{escape(text)}</th>" for text, mark in zip(heads, marks, strict=True))
    body = "\n".join(
        "<tr>"
        + "".join(
            f"<td{mark} data-label='{escape(text)}'>{cell}</td>"
            for text, mark, cell in zip(heads, marks, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table class='{look}'><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>\n"


def _number(value: float | None) -> str:
    """Write a figure with three digits that matter, and with a true minus sign."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    text = f"{value:.3f}" if abs(value) < 1 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"  # noqa: PLR2004
    # A figure that rounds to nothing has no sign.
    return "0.000" if text == "-0.000" else text.replace("-", "\u2212")


def _agreement(pairs: Sequence[tuple[Row, Row]], precision: str) -> str:
    """Draw both Bland-Altman plots of every length that there is, and say how frames were called."""
    parts = []
    for measure in (quantity.name for quantity in PRINCIPAL.values()):
        of_measure = [(a, b) for a, b in pairs if a["measure"] == measure and a["measured_mm"] is not None]
        compared = {
            "float": [
                _Compared(a, a["measured_mm"], b["measured_mm"]) for a, b in of_measure if b["measured_mm"] is not None
            ],
            "reference": [
                _Compared(a, a["measured_mm"], a["reference_mm"])
                for a, _ in of_measure
                if a["reference_mm"] is not None
            ],
        }
        figures = [
            _bland_altman(measure, " mm", precision, other, cases)
            for other, cases in compared.items()
            if len(cases) > 1
        ]
        if figures:
            parts.append(f"<h3>{measure}</h3><div class='grid'>{''.join(figures)}</div>")
    parts += _calls(pairs, precision)
    if not parts:
        return _not_recorded("No frames were recorded that both graphs measured.")
    note = (
        "<p class='soft'>Bland-Altman plots: a dot is a frame. The limits hold 95 % of the differences if these are "
        "normally distributed; frames of one subject are taken as if they were independent.</p>"
    )
    return "\n".join(parts) + note


def _calls(pairs: Sequence[tuple[Row, Row]], precision: str) -> list[str]:
    """Say how both graphs call graded frames; nothing where the network calls none."""
    # Bundles of before the decision was recorded have rows without it.
    graded = [(a, b) for a, b in pairs if None not in {a["good"], a.get("called"), b.get("called")}]
    if not graded:
        return []
    rows = []
    for good, kind in ((True, "graded good"), (False, "graded not good")):
        of_kind = [(a["called"], b["called"]) for a, b in graded if a["good"] == good]
        counts = (len(of_kind), sum(b for _, b in of_kind), sum(a for a, _ in of_kind), sum(a != b for a, b in of_kind))
        rows.append((kind, *map(str, counts)))
    heads = ("frames", "number", "called good by float", f"called good by {precision}", "called otherwise")
    table = _table(heads, rows, (1, 2, 3, 4))
    compared = [_Compared(a, a["quality"], b["quality"]) for a, b in graded]
    figure = _bland_altman("quality", "", precision, "float", compared) if len(compared) > 1 else ""
    return [f"<h3>quality</h3>{table}<div class='grid'>{figure}</div>"]


@dataclass(frozen=True)
class _Compared:
    """A frame's row and two figures of it: the shipped graph's, and another."""

    row: Row
    shipped: float
    other: float


def _bland_altman(quantity: str, unit: str, precision: str, other: str, cases: Sequence[_Compared]) -> str:
    """Draw the differences of the shipped graph's figures from others, over their means.

    Args:
        quantity: name of what is compared.
        unit: with a space before it, or empty for none.
        precision: of the shipped graph.
        other: what it is compared with, in a word.
        cases: at least two frames.
    """
    ours, theirs = (np.array(values, np.float64) for values in zip(*((c.shipped, c.other) for c in cases), strict=True))
    means, differences = (ours + theirs) / 2, ours - theirs
    bias, sd = float(differences.mean()), float(differences.std(ddof=1))
    low, high = bias - _LIMITS_SD * sd, bias + _LIMITS_SD * sd
    title = f"{quantity}: {precision} against {other}"
    ends = _with_room(means)
    levels = ((bias, "bias", ORANGE, False), (low, "low", GREY, True), (high, "high", GREY, True))
    in_unit = f" ({unit.strip()})" if unit else ""
    chart = Chart(
        title=title,
        x_label=f"mean of both{in_unit}, n = {len(cases)}",
        y_label=f"{precision} \u2212 {other}{in_unit}",
        series=(
            Points(means.tolist(), differences.tolist(), colour=BLUE),
            *(
                Line(ends, (level, level), end_label=_signed(level), colour=colour, dashed=dashed)
                for level, _, colour, dashed in levels
            ),
        ),
        x_range=ends,
        y_range=_with_room(np.array([*differences, low, high, 0.0])),
    )
    n_subjects = len({case.row["subject"] for case in cases})
    caption = (
        f"{title}: bias {_signed(bias)}{unit}, 95 % limits of agreement {_signed(low)} to {_signed(high)}{unit}, "
        f"{len(cases)} frames of {n_subjects} subjects."
    )
    return (
        f"<figure class='chart'>{_inline_svg(draw(chart, size_px=_CHART_PX), f'{quantity}-{other}')}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _with_room(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the least and the greatest value with a little room beside them; never of no width."""
    low, high = float(values.min()), float(values.max())
    room = 0.06 * (high - low) or 0.5
    return low - room, high + room


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\u2212") if abs(value) >= 0.005 else "0.00"  # noqa: PLR2004 - rounds to nothing


def _inline_svg(svg: str, figure_id: str) -> str:
    """Give the parts of a picture names of their own, because a page has one name space for all its pictures."""
    return re.sub(r"(id='|url\(#)axes", rf"\g<1>{figure_id}-axes", svg)


def _worst(pairs: Sequence[tuple[Row, Row]]) -> list[WorstCase]:
    """Rank the frames by how much worse their length came out than the float graph's; where none has one, by calls."""
    for increase_of in (_increase_mm, _increase_of_calls):
        found = [WorstCase(increase, a, b) for a, b in pairs if (increase := increase_of(a, b)) is not None]
        if found:
            return sorted(found, key=lambda case: (-case.increase, case.shipped["name"]))[:_WORST]
    return []


def _worst_table(cases: Sequence[WorstCase], precision: str) -> str:
    """List the frames that came out worst."""
    if not cases:
        return _not_recorded("No frames with a reference were recorded.")
    if cases[0].shipped["reference_mm"] is None:
        return _worst_calls(cases, precision)
    rows = [
        (
            escape(str(case.shipped["name"])),
            escape(str(case.shipped["source"])),
            escape(str(case.shipped["measure"])),
            f"{case.shipped['reference_mm']:.1f}",
            f"{case.reference['measured_mm']:.1f}",
            escape(str(case.shipped["abstained"] or "not measured"))
            if case.shipped["measured_mm"] is None
            else f"{case.shipped['measured_mm']:.1f}",
            "lost" if math.isinf(case.increase) else _signed(case.increase),
        )
        for case in cases
    ]
    heads = ("frame", "source", "length", "reference (mm)", "float (mm)", f"{precision} (mm)", "error increase (mm)")
    return _table(heads, rows, (3, 4, 5, 6))


def _worst_calls(cases: Sequence[WorstCase], precision: str) -> str:
    """List the frames whose probability came out farthest from their grade."""
    rows = [
        (
            escape(str(case.shipped["name"])),
            escape(str(case.shipped["source"])),
            "good" if case.shipped["good"] else "not good",
            f"{case.reference['quality']:.3f}",
            f"{case.shipped['quality']:.3f}",
            "yes" if case.shipped["called"] != case.reference["called"] else "no",
            _signed(case.increase),
        )
        for case in cases
    ]
    heads = ("frame", "source", "graded", "float", precision, "called otherwise", "error increase")
    return _table(heads, rows, (3, 4, 6))


def _increase_of_calls(shipped: Row, reference: Row) -> float | None:
    """Increase of how far the probability is from the grade; None where nothing can be said."""
    if shipped["good"] is None or shipped.get("called") is None or reference.get("called") is None:
        return None
    grade = float(shipped["good"])
    return float(abs(shipped["quality"] - grade) - abs(reference["quality"] - grade))


def _increase_mm(shipped: Row, reference: Row) -> float | None:
    """Increase of the absolute error; infinite where the frame was lost, None where nothing can be said."""
    true_mm, float_mm, shipped_mm = shipped["reference_mm"], reference["measured_mm"], shipped["measured_mm"]
    if true_mm is None or float_mm is None:
        return None
    return math.inf if shipped_mm is None else abs(shipped_mm - true_mm) - abs(float_mm - true_mm)


def _pictures(pictures: Sequence[CasePicture]) -> str:
    """Embed pictures.

    Raises:
        InputError: one is no PNG.
    """
    figures = []
    for picture in pictures:
        if not picture.png.startswith(_PNG_SIGNATURE):
            raise InputError(f"The picture {picture.caption[:80]!r} is no PNG; encode it as one.")
        data, caption = base64.b64encode(picture.png).decode(), escape(picture.caption)
        image = f"<img alt='{caption}' src='data:image/png;base64,{data}'>"
        figures.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return f"<div class='grid'>{''.join(figures)}</div>"


def _sensitivity(blocks: Sequence[Row], precision: str) -> str:
    """Draw a bar for each block, the one that eight bits hurt most first; right of the line is beyond the budget."""
    if not blocks:
        return _not_recorded("It was not measured, because no block had to be put back into float.")
    ranked = sorted(blocks, key=lambda block: (_finite(block["excess"]), str(block["block"])))
    excesses = [_finite(block["excess"]) for block in ranked]
    span = (min(0.0, *excesses), max(0.0, *excesses))
    rows = [
        (f"<code>{escape(str(block['block']))}</code>", _bar(excess, span), _percent(block["excess"]))
        for block, excess in zip(ranked, excesses, strict=True)
    ]
    note = (
        "<p class='soft'>The largest excess over the budget with that block alone back in float and all others in "
        f"{escape(precision)}; 0 % is just within it. The first is the block that costs most.</p>"
    )
    return _table(("block", "excess", "of the limit"), rows, (2,), "bars") + note


def _finite(value: float | None) -> float:
    """Return an excess that can be drawn: one without a figure, where data were lacking, is drawn as none."""
    return 0.0 if value is None or not math.isfinite(value) else float(value)


def _percent(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "\u2013"
    return f"{100 * value:+.0f} %".replace("-", "\u2212")


def _bar(value: float, span: tuple[float, float]) -> str:
    """Draw a bar from 0 to a value, where the whole width is the span."""
    low, high = span
    width = (high - low) or 1.0
    zero, end = 100 * (0 - low) / width, 100 * (value - low) / width
    colour = "var(--bar-bad)" if value > 0 else "var(--bar)"
    return (
        "<svg viewBox='0 0 100 10' preserveAspectRatio='none' aria-hidden='true'>"
        f"<rect x='{min(zero, end):.2f}' y='1' width='{abs(end - zero):.2f}' height='8' style='fill:{colour}'/>"
        f"<rect x='{min(max(zero - 0.15, 0), 99.7):.2f}' y='0' width='0.3' height='10' style='fill:var(--ink)'/></svg>"
    )


def _mending(steps: Sequence[Row]) -> str:
    if not steps:
        return _not_recorded("Nothing was tried.")
    rows = [
        (str(number), escape(str(step["step"])), escape(str(step["outcome"])), _percent(step["excess"]))
        for number, step in enumerate(steps, 1)
    ]
    return _table(("no.", "step", "outcome", "excess after it"), rows, (3,))


def _latency(latency: Mapping[str, Any], precision: str) -> str:
    """Say what a frame takes before and after; which is the quicker, where the interval tells."""
    if not latency:
        return _not_recorded("It was not measured.")
    low, high = latency["interval"]
    ratio = float(latency["ratio"])
    if low > 1:
        told = f"{precision} is quicker"
    elif high < 1:
        told = f"{precision} is slower"
    else:
        told = "the interval holds 1, so neither is known to be quicker"
    rows = [
        (
            f"{latency['before_ms']:.2f} ms",
            f"{latency['after_ms']:.2f} ms",
            f"{ratio:.2f} ({low:.2f} to {high:.2f})",
            escape(str(latency.get("n", "\u2013"))),
        )
    ]
    heads = ("float, median", f"{precision}, median", "times as fast (95 % interval)", "frames")
    return _table(heads, rows, (0, 1, 2, 3)) + f"<p>{escape(told[0].upper() + told[1:])}.</p>"


def _calibration(calibration: Mapping[str, Any]) -> str:
    """Say which frames the ranges came from, by stratum."""
    if not calibration:
        return _not_recorded("No frames were needed, or none were recorded.")
    strata: Sequence[Row] = calibration.get("strata") or []
    rows = [
        (*(escape(str(stratum.get(key, "\u2013"))) for key in ("plane", "source", "size", "gain")), str(stratum["n"]))
        for stratum in strata
    ]
    facts = {
        "method": calibration.get("method", "\u2013"),
        "frames": sum(int(stratum["n"]) for stratum in strata),
        "hash of the frames": calibration.get("sha256", "\u2013"),
    }
    table = _table(("plane", "source", "size", "gain", "frames"), rows, (4,)) if rows else ""
    return _facts(facts) + table


def _facts(facts: Mapping[str, Any]) -> str:
    if not facts:
        return _not_recorded("They were not recorded.")
    rows = [(escape(str(name)), f"<code>{escape(str(value))}</code>") for name, value in facts.items()]
    return _table(("what", "which"), rows, (), "facts")
