"""`edgefetal bench`, through the front door."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from edgefetal_calibration.phantom.cine import Cine
from edgefetal_calibration.phantom.writers import write_mha
from edgefetal_runtime.bench import versus
from edgefetal_runtime.bench.versus import Timed, time_turn
from edgefetal_runtime.infer.bundle import load_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from tests.edgefetal.conftest import CommandLine, HeadSweep

FEW = ("--threads", "1", "--frames", "10", "--pairs", "1", "--blocks", "1", "--rounds", "2")


def test_bench(edgefetal: CommandLine, sweep_video: Path, tmp_path: Path) -> None:
    report = edgefetal.json(
        "bench", "starter", "--source", sweep_video, "--simulated", *FEW, "--seconds", "0.2", "--cold-starts", "1",
        "--html", "bench.html",
    )  # fmt: skip
    assert report["stages_over_glass"] == pytest.approx(1.0, abs=0.03)
    latency = report["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p95"] <= latency["max"]
    assert latency["p99"] is None
    assert report["subject"]["threads"] == 1
    assert (report["subject"]["graph"], report["versus"]["against"]["graph"]) == ("shipped", "float")
    assert report["versus"]["clock"] == "cpu"
    assert report["source"]["frames"] == 20
    stream = report["stream"]
    assert stream["analysed"] > 0
    assert stream["received"] >= stream["analysed"]
    # The starter alone is 2 MB; a process that loaded nothing would have less than 60.
    assert 60 < report["peak_rss_mb"] < 2000
    assert 0 < report["first_result_s"] < 60
    assert (tmp_path / "bench.html").read_bytes().startswith(b"<!doctype html>")


def test_one_record_each_cannot_tell(edgefetal: CommandLine, sweep_video: Path) -> None:
    few = ("--source", sweep_video, *FEW, "--seconds", "0", "--cold-starts", "0", "--against", "none")
    first = edgefetal("bench", "starter", *few, "--json", "a.json")
    assert first.exit_code == 0, first.err
    assert json.loads((edgefetal.folder / "a.json").read_text())["versus"] is None
    compared = edgefetal("bench", "--compare", "a.json", "a.json", "--json", "c.json")
    assert compared.exit_code == 0, compared.err
    assert "cannot be told from these records" in compared.out
    assert json.loads((edgefetal.folder / "c.json").read_text())["real"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Name a bundle"),
        (("starter", "--compare", "a.json", "b.json"), "leave starter out"),
        (("--compare", "a.json", "b.json"), "a.json cannot be read"),
        (("starter", "--source", "v4l2:/dev/video0"), "cannot be read twice"),
        (("starter", "--source", "none.mp4"), "none.mp4"),
        (("starter", "--against", "none.bundle"), "is not a bundle"),
        (("starter", "--html", "."), "cannot be written"),
        (("--compare", "a.json", "b.json", "--json", "a.json"), "overwrite"),
        (("starter", "--baseline", "jax"), "no peer 'jax'"),
        (("starter", "--baseline", "torch"), "write torch:RUN"),
        (("starter", "--baseline", "notebook", "--baseline", "all"), "notebook is named twice"),
        (("starter", "--baseline", "nncf"), "give --dataset hc18:PATH"),
        (("starter", "--dataset", "hc18:none"), "name them by --baseline"),
        (("starter", "--baseline", "torch:none"), "none is no training run"),
        (("starter", "--baseline", "edgefetal:onnx"), "no back end 'onnx'; choose one of tensorrt, openvino"),
        (("starter", "--baseline", "notebook", "--precision", "float"), "the graph of a bundle that ships"),
    ],
)
def test_wrong_usage(edgefetal: CommandLine, arguments: tuple[str, ...], says: str) -> None:
    outcome = edgefetal("bench", *arguments)
    assert outcome.exit_code == 2
    assert says in outcome.err


def test_beside_other_tools(edgefetal: CommandLine, sweep_stack: Path, simulated_hc18: Path) -> None:
    report = edgefetal.json(
        "bench", "starter", "--source", sweep_stack, "--simulated", *FEW, "--seconds", "0", "--cold-starts", "0",
        "--against", "none", "--recordings", "1", "--baseline", "notebook", "--baseline", "whole-stack",
        "--dataset", f"hc18:{simulated_hc18}", "--html", "bench.html",
    )  # fmt: skip
    peers = report["peers"]
    assert (peers["recordings"], peers["simulated"]) == (1, True)
    assert peers["pictures"].startswith("40 held-out pictures of hc18")
    ours, notebook, stack = peers["rows"]
    assert [row["name"] for row in peers["rows"]] == ["edgefetal", "notebook", "whole-stack"]
    # OpenCV reads no stack, and says so; the other two do the work.
    assert "reads no .mha" in notebook["unavailable"]
    for row in (ours, stack):
        assert row["exams_per_minute"] > 0
        assert row["pictures"]["measured"] >= 36
        assert row["pictures"]["mae_mm"] < 10
        # Nobody knows the truth of a recording that was given.
        assert row["recordings"] is None
    assert "Beside other tools" in (edgefetal.folder / "bench.html").read_text()


def test_a_quantiser_needs_pictures_that_the_bundle_has_learnt(edgefetal: CommandLine, simulated_hc18: Path) -> None:
    outcome = edgefetal("bench", "starter", "--baseline", "nncf", "--dataset", f"hc18:{simulated_hc18}")
    assert outcome.exit_code == 2
    assert "give the set that it was trained on" in outcome.err


def test_peers_need_millimetres_and_square_pixels(
    edgefetal: CommandLine, sweep: HeadSweep, sweep_video: Path, tmp_path: Path
) -> None:
    oblong = tmp_path / "oblong.mha"
    write_mha(Cine(sweep.frames[:4], sweep.frames_per_s, sweep.mm_per_px, 1.1 * sweep.mm_per_px), oblong)
    for source, says in ((sweep_video, "does not say how large its pixels are"), (oblong, "are not square")):
        outcome = edgefetal("bench", "starter", "--source", source, *FEW, "--baseline", "notebook")
        assert outcome.exit_code == 2
        assert says in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize(("slowdown", "least"), [(1.0, 19), (1.05, 19)])
def test_the_interval_keeps_its_word_on_this_machine(slowdown: float, least: int) -> None:
    """A bundle against itself in 20 repeats, and against itself with 5 % planted; by the processor's clock."""
    from edgefetal.starter import bundle_folder
    from edgefetal_runtime.frame import Frame
    from edgefetal_runtime.infer.golden import golden_pixels
    from edgefetal_runtime.infer.network import load_network
    from edgefetal_runtime.scale import NOT_GIVEN

    bundle = load_bundle(bundle_folder("starter"))
    frames = [Frame(pixels, "golden", n, 0.0, NOT_GIVEN) for n, pixels in enumerate(golden_pixels(bundle))]
    slowed: list[Any] = []

    def load_slowed() -> Any:
        slowed.append(load_network(bundle, threads=1))
        return slowed[-1]

    def turn(network: Any, frame: Frame) -> Timed:
        timed = time_turn(network, frame)
        factor = slowdown if any(network is one for one in slowed) else 1.0
        return Timed(*(factor * getattr(timed, name) for name in Timed.__dataclass_fields__))

    sides = []
    for _ in range(20):
        slowed.clear()
        found = versus.time_versus(
            lambda: load_network(bundle, threads=1), load_slowed, frames, blocks=8, rounds=16, turn=turn
        )
        sides.append(found.frame_cpu.side())
    assert sides.count(0 if slowdown == 1.0 else 1) >= least
