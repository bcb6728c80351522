"""A record as a page: HTML that needs nothing but itself, no script, no network, no font of its own."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

import numpy as np

from edgefetal_runtime.bench.tables import LATENCY, STAGES, Table, headline, titled_tables
from edgefetal_runtime.svg import BLUE, GREY, ORANGE, Chart, Line, draw

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgefetal_runtime.bench.record import BenchRecord

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """
:root{--ink:#1f2937;--soft:#4b5563;--paper:#fff;--rule:#d1d5db;--bad:#991b1b;--bad-bg:#fee2e2;--good:#065f46;
--good-bg:#d1fae5}
*{box-sizing:border-box}
body{font:16px/1.5 'DejaVu Sans',Verdana,Arial,sans-serif;color:var(--ink);background:var(--paper);margin:0 auto;
padding:1rem;max-width:64rem;overflow-wrap:anywhere}
h1{font-size:1.4rem;margin:.2rem 0 .8rem}
h2{font-size:1.1rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--rule);padding-bottom:.2rem}
.soft{color:var(--soft);font-size:.85rem}
.verdict{padding:.8rem 1rem;border-radius:.4rem;border-left:.5rem solid}
.good{color:var(--good);background:var(--good-bg)}.bad{color:var(--bad);background:var(--bad-bg)}
table{border-collapse:collapse;width:100%;font-size:.85rem}
th,td{text-align:left;padding:.3rem .5rem;border-bottom:1px solid var(--rule);vertical-align:top}
th{color:var(--soft);font-weight:normal}
figure{margin:0}svg{max-width:100%;height:auto}
"""
_COLOURS: Final = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", GREY)
_WIDTH_PX, _ROW_PX, _LABEL_PX, _FIGURE_PX = 800, 26, 130, 90


def bench_page(record: BenchRecord) -> bytes:
    """Write a record as UTF-8 HTML."""
    title = f"Benchmark of {record.subject.name} on {record.machine.board or record.machine.processor}"
    tables = titled_tables(record)
    pictures = {STAGES: f"<figure>{_waterfall(record)}</figure>\n", LATENCY: f"<figure>{draw(_cdf(record))}</figure>\n"}
    parts = [
        "<!doctype html>",
        "<html lang='en'><head><meta charset='utf-8'>",
        f"<meta http-equiv='Content-Security-Policy' content=\"{_POLICY}\">",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        _banner(record),
        *(f"<p>{escape(line)}</p>" for line in headline(record)),
        *(f"<h2>{escape(title)}</h2>\n{pictures.get(title, '')}{_table(table)}" for title, table in tables.items()),
        *(f"<p class='soft'>{escape(note)}</p>" for note in record.notes),
        "<p class='soft'>Research software; not a medical device.</p></body></html>",
    ]
    return "\n".join(parts).encode() + b"\n"


def _banner(record: BenchRecord) -> str:
    """Say first whether the figures can be believed."""
    if not record.conditions.disturbed:
        return "<p class='verdict good'>Nothing disturbed this run.</p>"
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in record.conditions.reasons)
    return (
        f"<div class='verdict bad'>This run was disturbed; its times are not the machine's own.<ul>{reasons}</ul></div>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in table.heads)
    rows = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    note = f"\n<p class='soft'>{escape(table.note)}</p>" if table.note else ""
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>{note}"


def _waterfall(record: BenchRecord) -> str:
    """Draw each stage from where the one before it ends."""
    shown = [(stage.name, stage.mean_ms) for stage in record.stages if stage.mean_ms is not None]
    total = sum(mean for _, mean in shown)
    room_px = _WIDTH_PX - _LABEL_PX - _FIGURE_PX
    height_px = _ROW_PX * len(shown)
    bars: list[str] = []
    passed = 0.0
    for number, (name, mean) in enumerate(shown):
        left_px = _LABEL_PX + room_px * passed / total
        width_px = room_px * mean / total
        top_px = _ROW_PX * number
        bars += _bar(name, f"{mean:.2f} ms", (left_px, top_px, width_px), _COLOURS[number % len(_COLOURS)])
        passed += mean
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH_PX}' height='{height_px}' "
        f"viewBox='0 0 {_WIDTH_PX} {height_px}' font-size='13'><title>Stages of a frame's way</title>"
        f"{''.join(bars)}</svg>"
    )


def _bar(name: str, said: str, place_px: tuple[float, float, float], colour: str) -> Iterable[str]:
    left_px, top_px, width_px = place_px
    yield f"<text x='0' y='{top_px + 17:.0f}' fill='#1f2937'>{escape(name)}</text>"
    yield (
        f"<rect x='{left_px:.1f}' y='{top_px + 4:.0f}' width='{max(width_px, 1.0):.1f}' height='{_ROW_PX - 8}' "
        f"fill='{colour}'/>"
    )
    yield f"<text x='{left_px + max(width_px, 1.0) + 6:.1f}' y='{top_px + 17:.0f}' fill='#1f2937'>{escape(said)}</text>"


def _cdf(record: BenchRecord) -> Chart:
    """Draw which share of the frames came out within which time."""
    shares = np.linspace(0, 100, len(record.latency_cdf_ms)).tolist()
    latency = record.latency_ms
    marks = [("p50", latency.p50, 50.0), ("p95", latency.p95, 95.0)]
    return Chart(
        title="Glass to result, one frame at a time",
        x_label="latency (ms)",
        y_label="frames within it (%)",
        series=(
            Line(record.latency_cdf_ms, shares, colour=BLUE),
            *(Line((ms, ms), (0.0, share), end_label=name, colour=GREY, dashed=True) for name, ms, share in marks),
        ),
        y_range=(0.0, 100.0),
    )
