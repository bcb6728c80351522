"""`finish` on a board that is not there: what goes well is attested; what does not, refused, and all is as before."""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up_board import HEADS, NANO, bundle_files

from edgefetal_devices.errors import (
    BundleError,
    CheckFailedError,
    DeviceLostError,
    EdgeFetalError,
    EnvironmentLacksError,
    InputError,
    OutputError,
)
from edgefetal_export.engine.finish import FinishWish
from edgefetal_export.engine.network import FP16, INT8, TypedLayer
from edgefetal_runtime.infer import bundle as layout
from edgefetal_runtime.infer.finished import (
    ACTIVE,
    ANSWERS,
    ENGINE,
    FINISHED,
    PREVIOUS,
    TIMING,
    linked_folder,
    read_finished,
    try_out,
)
from edgefetal_runtime.infer.tensorrt.api import TensorRT
from edgefetal_runtime.infer.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefetal_runtime.infer.finished import Finished
    from tests.made_up_board import MadeUpBoard, Maker

PROCESSOR = FinishWish(allow_onnxruntime=True)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def old(finished_home: Path, home: Path, bundle_maker: Maker) -> Finished:
    """What was active before."""
    shutil.copytree(finished_home, home, symlinks=True)
    return read_finished(home, ACTIVE, bundle_maker.trust)


def _folders(home: Path) -> set[str]:
    return {folder.name for folder in (home / FINISHED).iterdir()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_attested_is_what_was_built_found_and_written(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, bundle_maker: Maker
) -> None:
    before = dt.datetime.now(dt.timezone.utc).replace(microsecond=0)
    finished = nano.finish(nano_bundle, home, bundle_maker.trust)
    attested = finished.attestation
    assert finished.path == linked_folder(home)
    assert before <= dt.datetime.fromisoformat(attested.created_utc) <= dt.datetime.now(dt.timezone.utc)
    assert attested.created_utc.endswith("+00:00")
    assert attested.bundle_sha256 == _sha256(nano_bundle / layout.MANIFEST)
    assert attested.engine_sha256 == _sha256(finished.path / ENGINE)
    assert attested.answers_sha256 == _sha256(finished.path / ANSWERS)
    assert (finished.path / ENGINE).read_bytes().endswith(bundle_files()[layout.MODEL])
    assert (attested.signer, attested.device) == (bundle_maker.public.key.key_id, NANO)
    assert (attested.graph, attested.back_end, attested.tensorrt) == ("model.onnx", "tensorrt", "tensorrt 10.3.0.30")
    assert attested.gpu is not None
    assert attested.gpu.model_dump() == {
        "name": "Orin", "compute_capability": "8.7", "uuid": "GPU-1", "driver_cuda": "12.6",
    }  # fmt: skip
    assert attested.board.model_dump() == {
        "model": "Made-up Orin Nano", "serial": "1421", "profile": NANO, "jetpack": "6.1",
        "power_mode": "MAXN_SUPER", "memory_total_bytes": 8 << 30,
    }  # fmt: skip
    assert attested.layers == {"int8": 1, "fp16": 1}
    assert [(timing.graph, timing.back_end, timing.build_s, timing.n) for timing in attested.timings] == [
        ("model.onnx", "tensorrt", 12.5, 200), ("half.onnx", "tensorrt", 12.5, 200),
    ]  # fmt: skip
    assert attested.timings[0].p50_ms == pytest.approx(4.0, rel=0.01)
    found = {check.what: check.outcome for check in attested.checks}
    assert found["3 golden frames prepared"] == "bit for bit as where the bundle was built"
    assert "of the mask differs" in found["3 golden frames beside the processor"]
    assert f"of 0.1, {len(HEADS)} frames" in found["simulated: HC error increase, all"]
    assert attested.cautions == ("The clocks change.",)
    # Read from the disk as `run active` does, it is the same.
    assert read_finished(home, ACTIVE, bundle_maker.trust).attestation == attested
    assert try_out(finished).frames == 3
    assert nano.open_engines == []


def test_the_build_is_capped_and_the_second_one_uses_what_the_first_measured(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, bundle_maker: Maker
) -> None:
    nano.finish(nano_bundle, home, bundle_maker.trust)
    nano.finish(nano_bundle, home, bundle_maker.trust, available_bytes=1 << 30)
    assert [wish.workspace_bytes for wish in nano.wishes] == [1 << 30, 1 << 30, 1 << 29, 1 << 29]
    assert [wish.timing_cache for wish in nano.wishes] == [b"", b"measured 0", b"measured 1", b"measured 2"]
    # Never across GPUs or versions.
    nano.tensorrt = TensorRT(None, "tensorrt", "10.7.0")
    nano.finish(nano_bundle, home, bundle_maker.trust)
    assert nano.wishes[4].timing_cache == b""
    assert len(list((home / TIMING).iterdir())) == 1


@pytest.mark.parametrize(
    ("shipped_s", "half_s", "taken"),
    [(0.004, 0.002, layout.HALF), (0.004, 0.004, layout.MODEL), (0.004, 0.008, layout.MODEL)],
)
def test_the_shipped_graph_is_taken_unless_another_is_known_to_be_faster(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, bundle_maker: Maker, shipped_s: float, half_s: float, taken: str
) -> None:
    nano.seconds = {layout.MODEL: shipped_s, layout.HALF: half_s}
    finished = nano.finish(nano_bundle, home, bundle_maker.trust)
    assert finished.attestation.graph == taken
    assert (finished.path / ENGINE).read_bytes().endswith(bundle_files()[taken])
    assert [timing.p50_ms for timing in finished.attestation.timings] == pytest.approx(
        [1e3 * shipped_s, 1e3 * half_s], rel=0.01
    )
    assert finished.attestation.layers == ({"fp16": 2} if taken == layout.HALF else {"int8": 1, "fp16": 1})


def test_the_one_before_is_kept_and_those_before_that_are_not(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, bundle_maker: Maker
) -> None:
    """Within a second, and where the clock runs backwards: their names have nothing to do with it."""
    paths = [nano.finish(nano_bundle, home, bundle_maker.trust).path for _ in range(3)]
    assert len(set(paths)) == 3
    assert (linked_folder(home), linked_folder(home, PREVIOUS)) == (paths[2], paths[1])
    assert _folders(home) == {paths[1].name, paths[2].name}


def test_without_a_number_of_board_or_gpu_that_is_said(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, bundle_maker: Maker
) -> None:
    nano.facts = replace(nano.facts, uuid=None)
    assert len(nano.finish(nano_bundle, home, bundle_maker.trust).attestation.cautions) == 1
    nano.serial = None
    cautions = nano.finish(nano_bundle, home, bundle_maker.trust).attestation.cautions
    assert any("Nothing tells this board" in caution for caution in cautions)


def test_a_bundle_for_the_processor_needs_no_tensorrt(
    nano: MadeUpBoard, home: Path, tmp_path: Path, bundle_maker: Maker
) -> None:
    bundle = bundle_maker.make(tmp_path / "bundle", device="cpu-arm")
    nano.load_error = EnvironmentLacksError("There is none.")
    finished = nano.finish(bundle, home, bundle_maker.trust)
    attested = finished.attestation
    assert (attested.graph, attested.back_end) == ("model.onnx", "onnxruntime")
    assert (attested.tensorrt, attested.engine_sha256, attested.gpu, attested.layers) == (None, None, None, {})
    assert not (finished.path / ENGINE).exists()
    assert nano.engines == []
    assert try_out(finished).frames == 3
    with pytest.raises(InputError, match="which has no DLA; leave --dla out"):
        nano.finish(bundle, home, bundle_maker.trust, FinishWish(dla_core=0))
    with pytest.raises(InputError, match="and this is x86_64; build it for this machine"):
        nano.finish(bundle, home, bundle_maker.trust, machine="x86_64")


def test_the_processor_stands_in_for_tensorrt_where_that_is_wished(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, bundle_maker: Maker
) -> None:
    nano.load_error = EnvironmentLacksError("TensorRT cannot be used here: it is not installed.")
    with pytest.raises(EnvironmentLacksError, match=r"not installed\. Or run the float graph .*--allow-onnxruntime"):
        nano.finish(nano_bundle, home, bundle_maker.trust)
    with pytest.raises(EnvironmentLacksError, match=r"not installed\.$"):
        nano.finish(nano_bundle, home, bundle_maker.trust, FinishWish(allow_onnxruntime=True, dla_core=0))
    attested = nano.finish(nano_bundle, home, bundle_maker.trust, PROCESSOR).attestation
    assert (attested.graph, attested.back_end, attested.gpu) == ("reference.onnx", "onnxruntime", None)
    # Where TensorRT can be used the wish changes nothing.
    nano.load_error = None
    assert nano.finish(nano_bundle, home, bundle_maker.trust, PROCESSOR).attestation.back_end == "tensorrt"


def _refused(
    nano: MadeUpBoard, bundle: Path, home: Path, trust: Trust | None, old: Finished, **here: Any
) -> EdgeFetalError:
    """Finish in vain; nothing has changed, what was active still opens, and no engine was left open."""
    before = {path: path.lstat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    with pytest.raises(EdgeFetalError) as caught:
        nano.finish(bundle, home, trust, **here)
    assert {path: path.lstat().st_mtime_ns for path in home.rglob("*") if path.is_file()} == before
    assert nano.open_engines == []
    assert _folders(home) == {old.path.name}
    still = read_finished(home, ACTIVE, old_trust(old))
    assert still.attestation == old.attestation
    return caught.value


def old_trust(old: Finished) -> Trust:
    """Trust whoever signed what was active."""
    from edgefetal_runtime.infer.keys import NamedKey

    assert old.bundle.signed_by is not None
    return Trust((NamedKey("maker", old.bundle.signed_by, Path("maker.pub")),))


@pytest.mark.parametrize(
    ("board", "says"),
    [
        ({"profile": None}, r"Made-up Orin Nano, which is no board of ours; .*--device cpu\."),
        ({"profile": None, "model": None}, "this is aarch64, which is no board of ours"),
        ({"profile": "jetson-orin-nx-16gb"}, r"Made-up Orin Nano, jetson-orin-nx-16gb; .*--device jetson-orin-nx-16gb"),
        ({"jetpack": "4.6.6"}, r"JetPack 4\.6\.6 is not made for Jetson Orin Nano"),
        ({"jetpack": "5.1.6"}, r"TensorRT 8\.5\.2 \(10\.3 is needed\)"),
    ],
)
def test_another_board_or_too_old_a_jetpack_is_refused(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished, board: dict[str, Any], says: str
) -> None:
    here = replace(nano.here().board, **board)
    error = _refused(nano, nano_bundle, home, old_trust(old), old, board=here)
    assert isinstance(error, InputError)
    assert re.search(says, str(error)), error
    assert nano.wishes == []


def test_another_gpu_than_the_boards_is_refused(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished
) -> None:
    nano.facts = replace(nano.facts, compute_capability=(8, 6))
    error = _refused(nano, nano_bundle, home, old_trust(old), old)
    assert "The GPU Orin has compute capability 8.6, and Jetson Orin Nano 8GB has 8.7" in str(error)
    assert nano.wishes == []


def test_a_tensorrt_that_is_not_the_boards_is_refused(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished
) -> None:
    nano.tensorrt = TensorRT(None, "tensorrt", "11.4.1")
    assert "TensorRT 11.4.1 is not made for" in str(_refused(nano, nano_bundle, home, old_trust(old), old))


def test_a_dla_that_is_not_there_is_refused(nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished) -> None:
    error = _refused(nano, nano_bundle, home, old_trust(old), old, wish=FinishWish(dla_core=0))
    assert "has no DLA" in str(error)


def test_too_little_memory_is_refused(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished, tmp_path: Path, bundle_maker: Maker
) -> None:
    error = _refused(nano, nano_bundle, home, old_trust(old), old, available_bytes=900 << 20)
    assert isinstance(error, EnvironmentLacksError)
    assert "944 MB of memory are free, and finishing wants 1074; close other programs" in str(error)
    assert nano.wishes == []
    # Proving takes less than building.
    processor = bundle_maker.make(tmp_path / "bundle", device="cpu-arm")
    error = _refused(nano, processor, home, old_trust(old), old, available_bytes=500 << 20)
    assert "finishing wants 537" in str(error)


def test_a_full_disk_is_refused_before_anything_is_built(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(home)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=100 << 20))
    error = _refused(nano, nano_bundle, home, old_trust(old), old)
    assert f"The disk of {home} has 105 MB free, and finishing wants 268" in str(error)
    assert nano.wishes == []


def test_a_disk_that_fills_meanwhile_is_refused(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == ENGINE:
            raise OSError(errno.ENOSPC, "No space left on device")
        return good(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    error = _refused(nano, nano_bundle, home, old_trust(old), old)
    assert isinstance(error, OutputError)
    assert "No space left on device" in str(error)


def test_a_bundle_of_unknown_origin_is_refused(
    nano: MadeUpBoard, home: Path, old: Finished, tmp_path: Path, bundle_maker: Maker, nano_bundle: Path
) -> None:
    unsigned = bundle_maker.make(tmp_path / "unsigned", signed=False)
    assert "is not signed" in str(_refused(nano, unsigned, home, bundle_maker.trust, old))
    # Even where no key is trusted, and `run` would take it.
    assert "is not signed" in str(_refused(nano, unsigned, home, Trust(), old))
    assert "which this machine does not trust" in str(_refused(nano, nano_bundle, home, Trust(), old))


@pytest.mark.parametrize("name", [*bundle_files(), layout.MANIFEST, "signature.json"])
def test_a_tampered_bundle_is_refused(
    nano: MadeUpBoard, home: Path, old: Finished, tmp_path: Path, nano_bundle: Path, name: str
) -> None:
    folder = tmp_path / "tampered"
    shutil.copytree(nano_bundle, folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    error = _refused(nano, folder, home, old_trust(old), old)
    assert isinstance(error, BundleError)
    assert str(folder) in str(error)
    assert nano.wishes == []


def test_a_bundle_that_is_altered_while_it_is_finished_is_refused(
    nano: MadeUpBoard, home: Path, old: Finished, tmp_path: Path, nano_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "altered"
    shutil.copytree(nano_bundle, folder)
    timed = nano.time_networks

    def alter(*arguments: Any, **named: Any) -> Any:
        (folder / layout.MODEL_CARD).write_text("altered")
        return timed(*arguments, **named)

    monkeypatch.setattr("edgefetal_export.engine.prove.time_networks", alter)
    assert "MODEL_CARD.md is not the file that was built" in str(_refused(nano, folder, home, old_trust(old), old))


def test_a_bundle_that_is_not_fit_is_refused(
    nano: MadeUpBoard, home: Path, old: Finished, tmp_path: Path, bundle_maker: Maker
) -> None:
    over = bundle_maker.make(tmp_path / "over", budget_passed=False)
    assert "did not pass its accuracy budget" in str(_refused(nano, over, home, bundle_maker.trust, old))
    evidence = json.loads(bundle_files()[layout.EVIDENCE])
    del evidence["judgement"]
    silent = bundle_maker.make(tmp_path / "silent", files={layout.EVIDENCE: json.dumps(evidence).encode()})
    error = _refused(nano, silent, home, bundle_maker.trust, old)
    assert "does not say which budget it was judged by" in str(error)
    strange = bundle_maker.make(tmp_path / "strange", device="toaster")
    assert "no device profile 'toaster'" in str(_refused(nano, strange, home, bundle_maker.trust, old))
    assert nano.wishes == []


def _block(_: bytes, answers: dict[str, Any]) -> dict[str, Any]:
    answers["mask"][0, 0, :4, :4] *= -1
    return answers


def _plane(_: bytes, answers: dict[str, Any]) -> dict[str, Any]:
    answers["plane"][0, 0] += 0.6
    return answers


def _nan(_: bytes, answers: dict[str, Any]) -> dict[str, Any]:
    answers["mask"][0, 0, 0, 0] = np.nan
    return answers


def _nameless(_: bytes, answers: dict[str, Any]) -> dict[str, Any]:
    return {"mask": answers["mask"]}


def _narrow(_: bytes, answers: dict[str, Any]) -> dict[str, Any]:
    return answers | {"mask": answers["mask"][:, :, :1]}


def _half_alone(graph: bytes, answers: dict[str, Any]) -> dict[str, Any]:
    return _block(graph, answers) if graph == bundle_files()[layout.HALF] else answers


@pytest.mark.parametrize("alter", [_block, _plane, _nan, _nameless, _narrow, _half_alone])
def test_an_engine_that_answers_otherwise_than_the_processor_is_refused(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished, alter: Callable[..., Any]
) -> None:
    nano.alter = alter
    error = _refused(nano, nano_bundle, home, old_trust(old), old)
    assert isinstance(error, CheckFailedError)
    assert "answers otherwise here than it should" in str(error)
    assert "build the bundle for this device again" in str(error)


def test_an_engine_over_the_budget_is_refused_though_golden_frames_agree(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished
) -> None:
    """A head that is drawn one pixel wider costs more than the budget allows; golden frames come first, and are few."""
    golden = 2 * 3

    def widen(_: bytes, answers: dict[str, Any]) -> dict[str, Any]:
        mask = answers["mask"]
        if nano.runs > golden:
            answers["mask"] = np.maximum(mask, np.roll(mask, 1, axis=3))
        return answers

    nano.alter = widen
    error = _refused(nano, nano_bundle, home, old_trust(old), old)
    assert isinstance(error, CheckFailedError)
    assert "model.onnx breaks the accuracy budget on simulated exams: HC error increase" in str(error)
    assert "Nothing was activated" in str(error)


def test_too_few_exams_to_judge_on_are_refused(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("made_up_board.HEADS", HEADS[:9])
    error = _refused(nano, nano_bundle, home, old_trust(old), old)
    assert "Too few simulated exams are measured" in str(error)
    assert "(HC in 9 frames)" in str(error)


@pytest.mark.parametrize("got", ["Half", "FP16", "Float", "FP32"])
def test_a_quantised_layer_that_runs_in_float_is_refused(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished, got: str
) -> None:
    nano.computes_in[INT8] = got
    error = _refused(nano, nano_bundle, home, old_trust(old), old)
    assert isinstance(error, CheckFailedError)
    assert "1 layers that the bundle quantises run in float in this engine: outline" in str(error)


@pytest.mark.parametrize(("count", "found"), [(0, 0), (2, 2)])
def test_another_number_of_quantised_layers_than_promised_is_refused(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished, count: int, found: int
) -> None:
    nano.layers = (*(TypedLayer(f"layer {number}", INT8) for number in range(count)), TypedLayer("last", FP16))
    error = _refused(nano, nano_bundle, home, old_trust(old), old)
    assert f"The manifest says that 1 layers are INT8, and TensorRT reads {found} as such" in str(error)
    assert nano.engines == []


@pytest.mark.parametrize("said", ["", "no JSON", "[]", "{}", '{"Layers": 3}', '{"Layers": [{}]}', '{"Layers": null}'])
def test_an_inspector_that_says_nothing_of_use_is_refused(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished, said: str
) -> None:
    nano.inspected = said
    error = _refused(nano, nano_bundle, home, old_trust(old), old)
    assert isinstance(error, CheckFailedError)
    assert "INT8 cannot be proven" in str(error)


@pytest.mark.parametrize("build", [0, 1])
def test_a_graph_that_tensorrt_does_not_take_is_refused_and_the_other_engine_closed(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished, build: int
) -> None:
    nano.build_error = (build, CheckFailedError("TensorRT does not take operator Fancy."))
    assert str(_refused(nano, nano_bundle, home, old_trust(old), old)) == "TensorRT does not take operator Fancy."
    assert len(nano.engines) == build


# In the golden frames, the exams, the answers to keep, and when what was written is opened.
@pytest.mark.parametrize("lost_at", [0, 6, 20, 6 + 4 * len(HEADS), 6 + 4 * len(HEADS) + 3])
def test_a_gpu_that_is_lost_ends_it(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished, lost_at: int
) -> None:
    nano.lost_at = lost_at
    error = _refused(nano, nano_bundle, home, old_trust(old), old)
    assert isinstance(error, DeviceLostError)
    assert nano.runs == lost_at + 1


def test_a_gpu_that_was_lost_before_is_not_passed_over_for_the_processor(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, old: Finished
) -> None:
    nano.load_error = DeviceLostError("The GPU is lost; start the program again.")
    error = _refused(nano, nano_bundle, home, old_trust(old), old, wish=PROCESSOR)
    assert isinstance(error, DeviceLostError)


def test_what_is_active_can_be_finished_again(
    nano: MadeUpBoard, home: Path, old: Finished, bundle_maker: Maker
) -> None:
    """As after a new driver, when the bundle itself is long gone."""
    nano.facts = replace(nano.facts, driver_cuda="12.8")
    with pytest.raises(BundleError, match=r"driver for CUDA 12\.6"):
        try_out(old)
    again = nano.finish(old.bundle.path, home, bundle_maker.trust)
    assert try_out(again).frames == 3
    assert (linked_folder(home), linked_folder(home, PREVIOUS)) == (again.path, old.path)


def test_a_home_that_cannot_be_written_is_refused_before_anything_is_built(
    nano: MadeUpBoard, nano_bundle: Path, tmp_path: Path, bundle_maker: Maker
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/home cannot be written \(Not a directory\)"):
        nano.finish(nano_bundle, tmp_path / "file" / "home", bundle_maker.trust)
    assert nano.wishes == []


def test_a_folder_that_anybody_may_write_to_is_refused(
    nano: MadeUpBoard, nano_bundle: Path, home: Path, bundle_maker: Maker
) -> None:
    home.mkdir()
    home.chmod(0o777)
    with pytest.raises(BundleError, match=r"home can be written by anybody, .*`chmod o-w`"):
        nano.finish(nano_bundle, home, bundle_maker.trust)
    assert _folders(home) == set()
    home.chmod(0o755)
    # Whatever the user's mask is.
    mask = os.umask(0)
    try:
        nano.finish(nano_bundle, home, bundle_maker.trust)
    finally:
        os.umask(mask)
