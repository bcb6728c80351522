"""Evaluation of many exams in one process and on two workers, in turn; cost as exams grow, fitted as a + b n.

Two workers and one process take turns, so that other work on the machine falls on both alike. Each evaluation includes
starting the workers, opening the network in each, and the proof that each computes the same; listing the dataset is in
neither. `same` says whether the results of both were the same, times left out. The processor's seconds, those of all
processes together, hardly depend on other work, and say what workers cost beside the exams.

`ceiling` is what the machine itself gives: exams a second of as many processes that each evaluate the same exams, and
know nothing of one another, over those of one. Cores that share memory, a clock or a physical core give less than their
number, whoever shares the work out.

The figures are in docs/cluster.md.

python tests/benchmarks/cluster.py starter acouslic:PATH --sizes 1 4 12 50 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefetal.cli.spreading import Wish, spread
from edgefetal.starter import bundle_folder
from edgefetal_calibration.datasets.hc18 import HeadCase
from edgefetal_calibration.datasets.kinds import read_exams
from edgefetal_calibration.each import in_turn
from edgefetal_calibration.evaluate import evaluate_heads
from edgefetal_calibration.frames import evaluate_frames
from edgefetal_runtime.infer.bundle import MODEL, load_bundle
from edgefetal_runtime.infer.network import load_network

_ready: Barrier | None = None

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.synchronize import Barrier

    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_calibration.each import Mapper
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.network import Network


def main() -> None:
    """Print seconds by number of exams and way, ratios pair by pair, and the fitted lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("dataset")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--frames-per-exam", type=int, default=8)
    parser.add_argument("--ceiling-exams", type=int, default=100)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    bundle = load_bundle(bundle_folder(asked.bundle))
    wish = Wish(asked.workers, None)
    _, exams = read_exams(wish.absolute(asked.dataset))
    rows: list[dict[str, Any]] = []
    for size in asked.sizes:
        chosen = exams[:size]
        # Whatever comes first would find the files colder.
        _evaluate(bundle, chosen, Wish(None, None), asked.frames_per_exam)
        for turn in range(asked.rounds):
            ways = {"one": Wish(None, None), "workers": wish}
            timed = {}
            for name in list(ways)[:: -1 if turn % 2 else 1]:
                load = os.getloadavg()[0]
                since_s, since_cpu_s = time.perf_counter(), _cpu_s()
                results = _evaluate(bundle, chosen, ways[name], asked.frames_per_exam)
                timed[name] = (time.perf_counter() - since_s, results, load, _cpu_s() - since_cpu_s)
            row = {
                "n": len(chosen),
                **{f"{name}_s": seconds for name, (seconds, *_) in timed.items()},
                **{f"{name}_cpu_s": cpu_s for name, (*_, cpu_s) in timed.items()},
                "ratio": timed["one"][0] / timed["workers"][0],
                "same": timed["one"][1] == timed["workers"][1],
                "load": [load for _, _, load, _ in timed.values()],
            }
            rows.append(row)
            print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}), flush=True)
    ceilings = [_exams_per_s(asked, asked.workers) / _exams_per_s(asked, 1) for _ in range(asked.rounds)]
    summary = {**_summary(rows), "ceiling": statistics.median(ceilings), "ceilings": ceilings}
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {len(exams)} exams at hand")
    print(json.dumps(summary, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps({"rows": rows, **summary}, indent=1) + "\n")


def _exams_per_s(asked: argparse.Namespace, processes: int) -> float:
    """Evaluate the same exams in so many processes at once; return the exams that all of them do in a second."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes)
    job = (asked.bundle, asked.dataset, asked.ceiling_exams, asked.frames_per_exam)
    with ProcessPoolExecutor(processes, context, initializer=_wait_with, initargs=(ready,)) as pool:
        return sum(pool.map(_alone, [job] * processes))


def _wait_with(ready: Barrier) -> None:
    global _ready  # noqa: PLW0603 - how a pool gives its processes something
    _ready = ready


def _alone(job: tuple[str, str, int, int]) -> float:
    name, dataset, count, frames_per_exam = job
    bundle = load_bundle(bundle_folder(name))
    exams = read_exams(dataset)[1][:count]
    networks = {"shipped": load_network(bundle, threads=1)}
    _results(networks, exams[:1], frames_per_exam, in_turn)
    assert _ready is not None
    _ready.wait()
    since_s = time.perf_counter()
    _results(networks, exams, frames_per_exam, in_turn)
    return len(exams) / (time.perf_counter() - since_s)


def _cpu_s() -> float:
    """Return the processor's seconds of this process and of those that it started and that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _evaluate(bundle: Bundle, exams: Sequence[LabelledExam], wish: Wish, frames_per_exam: int) -> list[Any]:
    """Evaluate as the command does, the network opened in one thread; return the results without their times."""
    networks = {"shipped": load_network(bundle, threads=1)}
    with spread(wish, bundle, networks, {"shipped": MODEL}, "auto", 1) as (graphs, mapper):
        results = _results(graphs, exams, frames_per_exam, mapper)
    return [replace(result, seconds=0.0) for result in results]


def _results(
    networks: Mapping[str, Network], exams: Sequence[LabelledExam], frames_per_exam: int, mapper: Mapper
) -> Sequence[Any]:
    heads = [exam for exam in exams if isinstance(exam, HeadCase)]
    if heads:
        return evaluate_heads(networks, heads, mapper=mapper)["shipped"]
    return evaluate_frames(networks, exams, frames_per_exam, mapper=mapper)["shipped"]


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each size, and for each way a line through them with what it gives for 1,000 exams."""
    sizes = sorted({row["n"] for row in rows})
    keys = ("one_s", "workers_s", "one_cpu_s", "workers_cpu_s", "ratio")
    medians = {n: {key: statistics.median(row[key] for row in rows if row["n"] == n) for key in keys} for n in sizes}
    lines = {}
    for key in keys[:4]:
        if len(sizes) > 1:
            values = np.array([medians[n][key] for n in sizes])
            # Relative errors are what repeats from size to size, so each point weighs by its own value.
            per_exam_s, fixed_s = np.polyfit(sizes, values, 1, w=1 / values)
            lines[key] = {"a_s": fixed_s, "b_s": per_exam_s, "at_1000_s": fixed_s + 1000 * per_exam_s}
    return {"medians": medians, "lines": lines, "all_the_same": all(row["same"] for row in rows)}


if __name__ == "__main__":
    main()
