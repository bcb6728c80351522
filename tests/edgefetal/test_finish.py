"""`edgefetal finish`, and what the other commands make of what is active."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import pytest
from made_up_board import HEADS, MadeUpBoard, draw

from edgefetal_devices.errors import CheckFailedError, EnvironmentLacksError
from edgefetal_runtime.infer.finished import ATTESTATION, FINISHED, linked_folder
from edgefetal_runtime.infer.trust import ENVIRONMENT

if TYPE_CHECKING:
    from tests.edgefetal.conftest import CommandLine
    from tests.made_up_board import Maker


@pytest.fixture
def home(nano: MadeUpBoard, bundle_maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where that board keeps what was finished; it trusts one key, and looks at a few quick exams."""
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    shutil.copy(bundle_maker.public.file, trusted)
    monkeypatch.setenv(ENVIRONMENT, str(trusted))
    monkeypatch.setenv("EDGEFETAL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("edgefetal.cli.finish.this_machine", nano.here)
    monkeypatch.setattr("edgefetal_export.engine.finish.drawn_exams", lambda _: HEADS)
    return tmp_path / "home"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "head.png"), draw((60, 45)))
    return tmp_path / "head.png"


def test_from_a_bundle_to_an_examination_and_back(
    edgefetal: CommandLine, nano_bundle: Path, home: Path, picture: Path
) -> None:
    """The whole way: finish, verify and run what is active, finish again, and go back."""
    outcome = edgefetal("finish", nano_bundle)
    assert outcome.exit_code == 0, outcome.err
    first = linked_folder(home)
    assert "Caution: The clocks change." in outcome.out
    assert "Latency on this device, copies included" in outcome.out
    assert "simulated: HC error increase, all" in outcome.out
    assert "Layers: 1 in int8, 1 in fp16." in outcome.out
    assert f"Active: bright, model.onnx on tensorrt, in {first}. Run it by: edgefetal run active SOURCE" in outcome.out

    verified = edgefetal.json("verify", "active", "--run")
    assert verified["finished"] == json.loads((first / ATTESTATION).read_bytes())
    assert (verified["origin"], verified["network"]["frames"]) == ("trusted", 3)
    said = edgefetal("verify", "active").out
    assert "model.onnx on tensorrt by tensorrt 10.3.0.30, whole as it was proven." in said

    exam = edgefetal.json("run", "active", picture, "--mm-per-px", "1.0", "--out", "exam")
    assert exam["bundle"]["backend"] == "tensorrt"
    assert exam["bundle"]["sha256"] == verified["sha256"]
    assert edgefetal.json("verify", nano_bundle)["finished"] is None

    again = edgefetal.json("finish", nano_bundle)
    second = linked_folder(home)
    assert again["folder"] == str(second) != str(first)
    assert again["engine_sha256"] != verified["finished"]["engine_sha256"]
    back = edgefetal.json("finish", "--back")
    assert back["folder"] == str(linked_folder(home)) == str(first)
    assert edgefetal("finish", "--back").exit_code == 0
    assert linked_folder(home) == second
    # What is active can be finished again by that name.
    assert edgefetal("finish", "active").exit_code == 0
    assert {folder.name for folder in (home / FINISHED).iterdir()} == {linked_folder(home).name, second.name}


def test_what_is_active_is_not_run_where_something_is_wrong(
    edgefetal: CommandLine, nano: MadeUpBoard, nano_bundle: Path, home: Path, picture: Path
) -> None:
    run = ("run", "active", picture, "--mm-per-px", "1.0", "--out", "exam")
    none = edgefetal(*run)
    assert none.exit_code == 2
    assert f"Nothing is active in {home}; finish a bundle on this device" in none.err
    assert edgefetal("finish", nano_bundle).exit_code == 0
    other = edgefetal(*run, "--backend", "onnxruntime")
    assert other.exit_code == 2
    assert "leave --backend onnxruntime out" in other.err
    nano.serial = "1422"
    moved = edgefetal(*run)
    assert moved.exit_code == 2
    assert "another board" in moved.err
    nano.serial = "1421"
    engine = linked_folder(home) / "engine.plan"
    engine.write_bytes(engine.read_bytes() + b"x")
    for command in (run, ("verify", "active")):
        altered = edgefetal(*command)
        assert altered.exit_code == 2
        assert "engine.plan is not the file that was proven here" in altered.err
    assert not Path("exam").exists()


def test_each_refusal_has_its_exit_code_and_changes_nothing(
    edgefetal: CommandLine, nano: MadeUpBoard, nano_bundle: Path, home: Path, bundle_maker: Maker, tmp_path: Path
) -> None:
    nano.load_error = EnvironmentLacksError("TensorRT cannot be used here.")
    lacks = edgefetal("finish", nano_bundle)
    assert lacks.exit_code == 3
    assert "--allow-onnxruntime" in lacks.err
    nano.load_error, nano.build_error = None, (0, CheckFailedError("It does not build."))
    assert edgefetal("finish", nano_bundle).exit_code == 1
    unsigned = edgefetal("finish", bundle_maker.make(tmp_path / "unsigned", signed=False))
    assert unsigned.exit_code == 2
    assert "is not signed" in unsigned.err
    assert list((home / FINISHED).iterdir()) == []
    nano.load_error = EnvironmentLacksError("TensorRT cannot be used here.")
    assert edgefetal.json("finish", nano_bundle, "--allow-onnxruntime")["back_end"] == "onnxruntime"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Name the bundle to finish, or give --back"),
        (("starter", "--back"), "--back takes what is kept"),
        (("--back", "--allow-onnxruntime"), "--back takes what is kept"),
        (("--back", "--dla", "0"), "--back takes what is kept"),
        (("--back",), "Nothing is previous in"),
        (("active",), "Nothing is active in"),
        (("starter", "--json", "home/x.json"), "its folder is missing"),
    ],
)
def test_wrong_usage_says_what_to_do(edgefetal: CommandLine, home: Path, arguments: tuple[str, ...], says: str) -> None:
    outcome = edgefetal("finish", *arguments)
    assert outcome.exit_code == 2, outcome.err
    assert says in outcome.err
    assert not home.exists()


def test_this_machine_is_found_out() -> None:
    import platform

    from edgefetal.cli.finish import this_machine

    here = this_machine()
    assert here.machine == platform.machine()
    assert here.available_bytes is None or here.available_bytes > 1 << 20
    assert all(isinstance(caution, str) and caution for caution in here.cautions)
