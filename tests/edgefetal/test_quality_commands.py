"""Training and judging quality networks through the front door, on simulated exams and on drawn blind sweeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.torch import load_file

from edgefetal_calibration.datasets.kinds import read_exams
from edgefetal_calibration.phantom.ages import parse_ages
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.series import SeriesPlan, write_series
from edgefetal_calibration.phantom.writers import (
    SweepCircumferences,
    write_acouslic_exam,
    write_acouslic_table,
)

if TYPE_CHECKING:
    from tests.edgefetal.conftest import CommandLine

TOWER = ("--random-weights", "--layers", "2", "--width", "16", "--side-px", "112")
ROOT = Path(__file__).parents[2]
SHAPE = (24, 32)


@pytest.fixture(scope="module")
def abdomens(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six simulated exams, each one sweep of six frames across the abdomen."""
    out = tmp_path_factory.mktemp("phantoms") / "abdomens"
    ages = parse_ages("22w0d..34w0d")
    write_series(SeriesPlan(Protocol.ABDOMEN, ages, exams=6, seed=3, skill=1.0, frame_count=6), out)
    return f"phantom:{out}"


@pytest.fixture(scope="module")
def many_abdomens(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sixteen of them, so that two validate and enough are left to take ranges from."""
    out = tmp_path_factory.mktemp("phantoms") / "many"
    ages = parse_ages("22w0d..34w0d")
    write_series(SeriesPlan(Protocol.ABDOMEN, ages, exams=16, seed=4, skill=1.0, frame_count=4), out)
    return f"phantom:{out}"


@pytest.fixture(scope="module")
def blind_sweeps(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six exams in ACOUSLIC-AI's layout: an abdomen is a bright block, and four of six sweeps show none."""
    root = tmp_path_factory.mktemp("drawn") / "acouslic"
    rows = []
    for number in range(6):
        rng = np.random.default_rng(number)
        labels = np.zeros((840, *SHAPE), np.uint8)
        labels[60:66, 6:18, 8:24] = 1
        labels[66:70, 6:18, 8:24] = 2
        labels[200:204, 8:14, 10:18] = 2
        pictures = np.where(labels > 0, 220, rng.integers(0, 60, labels.shape)).astype(np.uint8)
        write_acouslic_exam(root, f"exam-{number}", pictures, labels)
        rows.append(SweepCircumferences(f"exam-{number}", f"S-{number}", (12.4, 8.0, None, None, None, None)))
    write_acouslic_table(root, rows)
    return f"acouslic:{root}"


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A field of view as large as the drawn pictures."""
    path = tmp_path_factory.mktemp("field") / "fov.mha"
    header = (
        "ObjectType = Image\nNDims = 2\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"DimSize = {SHAPE[1]} {SHAPE[0]}\nElementSpacing = 0.28 0.28\nElementType = MET_UCHAR\n"
        "ElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + bytes([1]) * (SHAPE[0] * SHAPE[1]))
    return path


@pytest.mark.parametrize(
    "recipe",
    [
        ("fetalclip-cls", *TOWER),
        ("fetalclip-cls", *TOWER, "--as-published"),
        ("fetalclip-seg", *TOWER, "--filters", "4", "--learning-rate", "0.03"),
        ("fetalclip-seg", *TOWER, "--filters", "2", "--as-published"),
        ("baseline", "densenet121", "--scale", "tiny", "--random-weights", "--precision", "bf16"),
    ],
    ids=lambda recipe: "-".join(word for word in recipe if word.startswith(("fetal", "base", "--as"))),
)
def test_simulated_exams_train_every_recipe(edgefetal: CommandLine, abdomens: str, recipe: tuple[str, ...]) -> None:
    short = ("--epochs", "1", "--batch-size", "4", "--threads", "1")
    metrics = edgefetal.json("train", *recipe, "--data", abdomens, "--out", "run", *short)
    assert metrics["subjects"] == {"train": 4, "validation": 1, "held-out": 1}
    assert metrics["dataset"] == "phantom"
    split = json.loads((edgefetal.folder / "run" / "split.json").read_text())
    assert sorted(split["parts"].values()) == ["held-out", *["train"] * 4, "validation"]
    again = edgefetal("train", *recipe, "--data", abdomens, "--out", "run", *short)
    assert again.exit_code == 2
    assert "--resume" in again.err
    if recipe[0] != "fetalclip-seg":
        report = edgefetal.json("evaluate", "run", "--dataset", abdomens)
        assert (report["quality"]["n_exams"], report["n_left_out"]) == (1, 5)
        assert "nothing was pretrained" in report["note"]


@pytest.fixture(scope="module")
def segmenting_run(blind_sweeps: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from typer.testing import CliRunner

    from edgefetal.cli import app

    run = tmp_path_factory.mktemp("runs") / "seg"
    arguments = ("train", "fetalclip-seg", *TOWER, "--filters", "4", "--encoder", "nothing", "--data", blind_sweeps)
    steps = ("--epochs", "3", "--batch-size", "4", "--validation-every", "10", "--learning-rate", "0.01")
    result = CliRunner().invoke(app, [*arguments, *steps, "--out", str(run), "--threads", "1"])
    assert result.exit_code == 0, result.output
    return run


def test_evaluate_judges_a_run_on_whole_exams(
    edgefetal: CommandLine, blind_sweeps: str, segmenting_run: Path, field: Path
) -> None:
    report = edgefetal.json("evaluate", segmenting_run, "--dataset", blind_sweeps, "--fov", field, "--threads", "1")
    quality = report["quality"]
    assert (quality["n_exams"], quality["n_frames"], quality["n_positive"]) == (1, 840, 14)
    assert (quality["n_sweeps"], quality["n_sweeps_without_plane"]) == (6, 4)
    assert quality["threshold"] == report["decision"]["threshold"]
    assert quality["per_frame"]["auroc"]["value"] > 0.9
    # An outlined area is no probability.
    assert quality["per_frame"]["ece"] == {"value": None, "interval": None}
    (case,) = report["challenge"]["cases"]
    assert case["frame"] in range(60, 70)
    assert case["wfss"] in (0.6, 1.0)
    assert report["challenge"]["total"]["mean"] == pytest.approx(case["total"])
    official = edgefetal.json(
        "evaluate", segmenting_run, "--dataset", blind_sweeps, "--fov", field, "--as-official", "--threads", "1"
    )
    assert official["challenge"]["as_official"] is True
    assert official["quality"] == quality


def test_evaluate_says_no_frame_where_none_is_good(
    edgefetal: CommandLine, blind_sweeps: str, segmenting_run: Path, field: Path, tmp_path: Path
) -> None:
    strict = tmp_path / "strict"
    strict.mkdir()
    for file in segmenting_run.iterdir():
        (strict / file.name).write_bytes(file.read_bytes())
    decision = json.loads((strict / "decision.json").read_text())
    (strict / "decision.json").write_text(json.dumps({**decision, "threshold": 1.0}))
    report = edgefetal.json("evaluate", strict, "--dataset", blind_sweeps, "--fov", field, "--threads", "1")
    assert [case["frame"] for case in report["challenge"]["cases"]] == [-1]
    assert report["quality"]["per_frame"]["recall"]["value"] == 0
    assert report["challenge"]["total"]["mean"] == 0


def test_evaluate_refuses_what_means_nothing_for_a_run(
    edgefetal: CommandLine, blind_sweeps: str, segmenting_run: Path, tiny_hc18: Path, tmp_path: Path
) -> None:
    for options in (("--reference",), ("--chart", "chart.svg"), ("--backend", "onnxruntime"), ("--workers", "2")):
        outcome = edgefetal("evaluate", segmenting_run, "--dataset", blind_sweeps, *options)
        assert outcome.exit_code == 2
        assert f"{options[0]} cannot be used on a training run" in outcome.err
    outcome = edgefetal("evaluate", "starter", "--dataset", f"hc18:{tiny_hc18}", "--as-official")
    assert outcome.exit_code == 2
    assert "--as-official cannot be used on a bundle" in outcome.err
    ungraded = edgefetal("evaluate", segmenting_run, "--dataset", f"hc18:{tiny_hc18}")
    assert ungraded.exit_code == 2
    assert "nobody graded" in ungraded.err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "recipe.json").write_text('{"name": "multitask-unet"}')
    for recipe, says in (
        ('{"name": "multitask-unet"}', "edgefetal build"),
        ('{"name": "skill"}', "other/metrics.json"),
        ('{"name": "from-tomorrow"}', "does not know"),
        ("{", "is damaged"),
    ):
        (tmp_path / "other" / "recipe.json").write_text(recipe)
        other = edgefetal("evaluate", "other", "--dataset", blind_sweeps)
        assert other.exit_code == 2
        assert says in other.err
    (tmp_path / "other" / "recipe.json").write_text('{"name": "sononet"}')
    foreign = edgefetal("evaluate", "other", "--dataset", blind_sweeps, "--part", "validation")
    assert foreign.exit_code == 2
    assert "leave out --part" in foreign.err


def test_challenge_is_left_out_where_the_field_is_of_another_size(
    edgefetal: CommandLine, abdomens: str, segmenting_run: Path, field: Path
) -> None:
    outcome = edgefetal(
        "evaluate", segmenting_run, "--dataset", abdomens, "--part", "all", "--threads", "1", "--json", "out.json"
    )
    assert outcome.exit_code == 0, outcome.err
    report = json.loads((edgefetal.folder / "out.json").read_text())
    assert report["quality"]["n_exams"] == 6
    assert "challenge" not in report
    assert report["challenge_left_out"] in " ".join(outcome.out.split())
    for options in (("--fov", field), ("--as-official",)):
        refused = edgefetal("evaluate", segmenting_run, "--dataset", abdomens, "--part", "all", *options)
        assert refused.exit_code == 2
        assert "There is no challenge score" in refused.err


def test_evaluate_leaves_out_whoever_was_trained_on_under_another_name(
    edgefetal: CommandLine, blind_sweeps: str, segmenting_run: Path, field: Path, tmp_path: Path
) -> None:
    """A copy of the collection with every exam and subject renamed: it is known by its pictures."""
    root, copy = Path(blind_sweeps.partition(":")[2]), tmp_path / "copy"
    for path in root.rglob("*.*"):
        target = copy / path.relative_to(root).with_name(path.name.replace("exam-", "renamed-"))
        target.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        target.write_bytes(
            content.replace(b"exam-", b"renamed-").replace(b"S-", b"P-") if path.suffix == ".csv" else content
        )
    _, exams = read_exams(f"acouslic:{copy}")
    assert {exam.subject for exam in exams} == {f"acouslic/P-{number}" for number in range(6)}
    report = edgefetal.json(
        "evaluate",
        segmenting_run,
        "--dataset",
        f"acouslic:{copy}",
        "--part",
        "validation",
        "--fov",
        field,
    )
    assert report["quality"]["n_exams"] == 1
    assert report["n_left_out"] == 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("fetalclip-cls",), "No weights were named"),
        (("fetalclip-cls", "--weights", "w.pt", "--random-weights"), "contradict each other"),
        (("fetalclip-cls", "--weights", "w.pt", "--layers", "2"), "fit the released tower only"),
        (("fetalclip-cls", "--weights", "missing.pt"), "missing.pt cannot be read"),
        (("fetalclip-cls", "--any-weights", "missing.pt"), "missing.pt cannot be read"),
        (("fetalclip-cls", "--weights", "wrong.pt"), "--any-weights"),
        (("fetalclip-cls", "--random-weights", "--width", "100"), "a multiple of it"),
        (("fetalclip-cls", "--random-weights", "--as-published", "--encoder", "whole"), "trains adapters"),
        (("fetalclip-seg", "--random-weights", "--as-published", "--encoder", "adapters"), "never receive a gradient"),
        (("fetalclip-cls", *TOWER, "--as-published", "--validation-every", "2"), "leave out --validation-every"),
        (("baseline", "vgg16", "--random-weights", "--as-published", "--validation-every", "1"), "--validation-every"),
        (("fetalclip-cls", *TOWER, "--encoder", "whole", "--lora-rank", "8"), "--encoder whole has none"),
        (("fetalclip-seg", *TOWER, "--encoder", "nothing", "--lora-dropout", "0.1"), "--encoder nothing has none"),
        (("fetalclip-seg", *TOWER, "--as-published", "--lora-rank", "8"), "the published segmenter has none"),
        (("fetalclip-seg", *TOWER, "--side-px", "70"), "multiple of 16"),
        (("baseline", "resnet-9", "--random-weights"), "choose one of densenet121"),
        (("baseline", "densenet121"), "either --weights FILE, or --random-weights"),
        (("baseline", "densenet121", "--weights", "w.pt", "--random-weights"), "either --weights FILE"),
        (("baseline", "densenet121", "--scale", "tiny", "--random-weights", "--accumulation", "5"), "multiple of 5"),
    ],
)
def test_bad_wishes_are_refused_with_their_reason(
    edgefetal: CommandLine, abdomens: str, arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    (tmp_path / "wrong.pt").write_bytes(b"not the released file")
    outcome = edgefetal("train", *arguments, "--data", abdomens, "--out", "run", "--epochs", "1", "--batch-size", "4")
    assert outcome.exit_code == 2
    assert says in outcome.err
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_run_becomes_a_bundle_that_only_says_how_good_a_frame_is(
    edgefetal: CommandLine, many_abdomens: str, head_png: Path, tmp_path: Path
) -> None:
    """Built, verified and judged; nothing is measured with it."""
    short = ("--epochs", "1", "--batch-size", "8", "--threads", "1")
    edgefetal.json("train", "fetalclip-cls", *TOWER, "--data", many_abdomens, "--out", "run", *short)
    # Of two validation subjects and one epoch nothing could be known by the default budget.
    few = "{min_cases: 4, min_subjects: 2, limit: 100.0}"
    (tmp_path / "few.yaml").write_text(f"quality_f1: {few}\nfloat_quality_error: {few}\n")
    options = ("--device", "cpu", "--calibration", many_abdomens, "--out", "bundle", "--worst-cases", "cases")
    report = edgefetal.json("build", "run", *options, "--budget", "few.yaml")
    assert report["evidence"]["passed"] is True
    assert report["evidence"]["validation"]["shipped"]["calls"]["n"] == 8
    assert (tmp_path / "cases" / "worst_cases.html").is_file()
    verified = edgefetal.json("verify", "bundle", "--run")
    assert verified["network"]["frames"] == 3
    assert verified["network"]["score_difference"] < 0.1
    judging = ("evaluate", "bundle", "--dataset", many_abdomens, "--reference", "--threads", "1")
    judged = edgefetal.json(*judging)
    # Two processes find the very same.
    assert edgefetal.json(*judging, "--workers", "2") == judged
    of_run = edgefetal.json("evaluate", "run", "--dataset", many_abdomens, "--threads", "1")
    assert judged["quality"]["n_exams"] == of_run["quality"]["n_exams"] == 3
    assert judged["quality"]["threshold"] == of_run["quality"]["threshold"]
    for metric in ("auroc", "f1", "brier"):
        ours, theirs = (of["per_frame"][metric]["value"] for of in (judged["reference"], of_run["quality"]))
        assert ours == pytest.approx(theirs, abs=0.02)
    measured = edgefetal("run", "bundle", head_png, "--mm-per-px", "0.3", "--out", "exam")
    assert measured.exit_code == 2
    assert "there is nothing to measure" in " ".join(measured.err.split())
    assert not (tmp_path / "exam").exists()
    again = edgefetal("calibrate", "bundle", "--dataset", many_abdomens, "--out", "again")
    assert again.exit_code == 2
    assert "edgefetal build" in again.err


def test_ungraded_data_are_refused(edgefetal: CommandLine, abdomens: str, tiny_hc18: Path) -> None:
    for data in ((f"hc18:{tiny_hc18}",), (abdomens, f"hc18:{tiny_hc18}")):
        sets = [word for text in data for word in ("--data", text)]
        outcome = edgefetal("train", "fetalclip-cls", *TOWER, *sets, "--out", "run")
        assert outcome.exit_code == 2
        assert f"hc18:{tiny_hc18} has no grades" in outcome.err


def test_two_processes_train_as_one_does(edgefetal: CommandLine, abdomens: str, tmp_path: Path) -> None:
    """`accelerate launch` on two processes: the same split, a loss that falls, one set of files, one voice."""
    recipe = ("baseline", "vgg16", "--scale", "tiny", "--random-weights", "--learning-rate", "0.003")
    arguments = ("train", *recipe, "--data", abdomens, "--epochs", "3", "--batch-size", "4", "--threads", "1")
    launcher = (
        *("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m", "edgefetal"),
    )
    done = subprocess.run(
        [sys.executable, *launcher, *arguments, "--out", str(tmp_path / "two")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("RANDOM weights") == done.stdout.count("Best: epoch") == 1
    one = edgefetal.json(*arguments, "--out", "one")
    two = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert two["training_frames"] == one["training_frames"]
    for name in ("split.json", "recipe.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert {p.name for p in (tmp_path / "two").iterdir()} == {p.name for p in (tmp_path / "one").iterdir()}
    losses = {count: [row["loss"] for row in of["epochs"]] for count, of in ((1, one), (2, two))}
    assert losses[2][-1] < losses[2][0]
    # This network has neither dropout nor batch statistics, so two processes differ from one by rounding.
    assert losses[2] == pytest.approx(losses[1], rel=1e-3)
    expected, actual = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert max(float((expected[n] - actual[n]).abs().max()) for n in expected) < 1e-3


@pytest.mark.slow
def test_refusal_in_two_processes_ends_both(abdomens: str, tmp_path: Path) -> None:
    """What the main process finds wrong is said, and nobody waits for ever."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "edgefetal")
    recipe = ("baseline", "vgg16", "--scale", "tiny", "--random-weights", "--batch-size", "4", "--threads", "1")
    done = subprocess.run(
        [sys.executable, *launcher, "train", *recipe, "--data", abdomens, "--out", str(tmp_path / "full")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode != 0
    assert "add --resume" in done.stderr
