"""What was finished is opened where it was proven, whole and unaltered, or refused with the reason."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgefetal.starter import bundle_folder
from edgefetal_devices.detect import read_serial
from edgefetal_devices.errors import BundleError, CheckFailedError, DeviceLostError, EnvironmentLacksError, InputError
from edgefetal_runtime.atomic import json_bytes
from edgefetal_runtime.infer import finished as module
from edgefetal_runtime.infer.bundle import HALF, load_bundle
from edgefetal_runtime.infer.finished import (
    ACTIVE,
    ANSWERS,
    ATTESTATION,
    BUNDLE,
    ENGINE,
    FINISHED,
    PREVIOUS,
    Attestation,
    Finished,
    active_bundle,
    home_folder,
    id_of,
    linked_folder,
    open_active,
    open_finished,
    read_finished,
    read_folder,
    sha256_of,
    try_out,
)
from edgefetal_runtime.infer.tensorrt.api import TensorRT
from edgefetal_runtime.infer.trust import ENVIRONMENT, Trust

if TYPE_CHECKING:
    from tests.made_up_board import MadeUpBoard, Maker


@pytest.fixture
def home(finished_home: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished_home, tmp_path / "home", symlinks=True)


@pytest.fixture
def finished(home: Path, bundle_maker: Maker) -> Finished:
    return read_finished(home, trust=bundle_maker.trust)


def _attest(home: Path, folder: Path, content: bytes) -> Path:
    """Put another attestation in a folder's place, and the folder where that would lie; make it active."""
    (folder / ATTESTATION).write_bytes(content)
    renamed = folder.rename(folder.with_name(id_of(content)))
    (home / ACTIVE).unlink()
    (home / ACTIVE).symlink_to(f"{FINISHED}/{renamed.name}")
    return renamed


def test_it_answers_as_it_did_and_stays_open(nano: MadeUpBoard, finished: Finished) -> None:
    network = open_finished(finished)
    assert (network.backend.name, network.manifest) == ("tensorrt", finished.bundle.manifest)
    assert len(nano.open_engines) == 1
    assert try_out(finished).frames == 3
    assert [engine.is_open for engine in nano.engines] == [True, False]


def test_the_active_one_is_opened_by_its_name(
    nano: MadeUpBoard, home: Path, bundle_maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEFETAL_HOME", str(home))
    monkeypatch.setenv(ENVIRONMENT, str(bundle_maker.public.file.parent / "none"))
    Path(os.environ[ENVIRONMENT]).mkdir(exist_ok=True)
    bundle, network = open_active()
    assert bundle.manifest.name == "bright"
    assert network.backend is nano.open_engines[0]
    with pytest.raises(InputError, match="leave --backend onnxruntime out"):
        open_active(backend="onnxruntime")


def test_nothing_active_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"Nothing is active in .*home; finish a bundle on this device"):
        read_finished(tmp_path / "home")
    with pytest.raises(BundleError, match="Nothing is previous"):
        read_finished(tmp_path / "home", PREVIOUS)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("how", ["altered", "shorter", "empty", "missing", "a link", "a folder", "a pipe"])
def test_any_file_that_is_not_what_was_proven_is_refused(
    nano: MadeUpBoard, home: Path, finished: Finished, bundle_maker: Maker, how: str, tmp_path: Path
) -> None:
    names = _files(finished.path)
    assert {ENGINE, ANSWERS, ATTESTATION, f"{BUNDLE}/manifest.json", f"{BUNDLE}/signature.json"} <= set(names)
    for name in names:
        path = finished.path / name
        content = path.read_bytes()
        path.unlink()
        if how == "altered":
            path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        elif how == "shorter":
            # The last line end of a signature means nothing.
            path.write_bytes(content[:-2])
        elif how == "empty":
            path.touch()
        elif how == "a link":
            (tmp_path / "same").write_bytes(content)
            path.symlink_to(tmp_path / "same")
        elif how == "a folder":
            path.mkdir()
        elif how == "a pipe":
            os.mkfifo(path)
        with pytest.raises(BundleError) as caught:
            open_finished(read_finished(home, trust=bundle_maker.trust))
        # Who altered a bundle's signature is told so by the folder.
        assert path.name in str(caught.value) or str(path.parent) in str(caught.value)
        assert str(caught.value).endswith(".")
        shutil.rmtree(path) if how == "a folder" else path.unlink(missing_ok=True)
        path.write_bytes(content)
    assert nano.open_engines == []
    assert try_out(read_finished(home, trust=bundle_maker.trust)).frames == 3


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_other_attestation_is_accepted(finished: Finished, bundle_maker: Maker, data: st.DataObject) -> None:
    path = finished.path / ATTESTATION
    good = path.read_bytes()
    content = data.draw(
        st.binary(max_size=200)
        | st.tuples(st.integers(0, len(good) - 1), st.binary(min_size=1, max_size=3)).map(
            lambda change: good[: change[0]] + change[1] + good[change[0] + len(change[1]) :]
        )
    )
    try:
        path.write_bytes(content)
        if content == good:
            read_folder(finished.path, bundle_maker.trust)
        else:
            with pytest.raises(BundleError, match=r"its hash differs"):
                read_folder(finished.path, bundle_maker.trust)
    finally:
        path.write_bytes(good)


Json = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=4),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text(max_size=3), values, max_size=2),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_no_attestation_is_refused_though_its_hash_fits(
    tmp_path: Path, finished: Finished, bundle_maker: Maker, data: st.DataObject
) -> None:
    values = json.loads((finished.path / ATTESTATION).read_bytes())
    field = data.draw(st.sampled_from(sorted(values)))
    content = data.draw(
        st.binary(max_size=60)
        | Json.map(lambda value: json.dumps(value).encode())
        | Json.map(lambda value: json.dumps(values | {field: value}).encode())
        | Json.map(lambda value: json.dumps(values | {"more": value}).encode())
    )
    folder = tmp_path / FINISHED / id_of(content)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ATTESTATION).write_bytes(content)
    # Whatever it says, there is no such bundle beside it.
    with pytest.raises(BundleError):
        read_folder(folder, bundle_maker.trust)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"graph": "split.json"}, "is no attestation"),
        ({"back_end": "onnxruntime"}, "is no attestation"),
        ({"engine_sha256": None}, "is no attestation"),
        ({"gpu": None}, "is no attestation"),
        ({"engine_sha256": "0" * 63}, "is no attestation"),
        ({"format": "edgefetal-attestation/2"}, "is no attestation"),
        ({"bundle_sha256": "0" * 64}, "is not the bundle that was finished here"),
        ({"engine_sha256": "0" * 64}, r"engine\.plan is not the file that was proven here"),
        ({"answers_sha256": "0" * 64}, r"answers\.npz is not the file that was proven here"),
    ],
)
def test_an_attestation_of_something_else_is_refused(
    nano: MadeUpBoard, home: Path, finished: Finished, bundle_maker: Maker, changes: dict[str, Any], says: str
) -> None:
    values = json.loads((finished.path / ATTESTATION).read_bytes())
    _attest(home, finished.path, json_bytes(values | changes))
    with pytest.raises(BundleError, match=f"{says}.*finish the bundle again"):
        open_finished(read_finished(home, trust=bundle_maker.trust))
    assert nano.engines == []


def test_a_graph_that_the_bundle_has_not_is_refused(nano: MadeUpBoard, tmp_path: Path, bundle_maker: Maker) -> None:
    home = tmp_path / "arm"
    done = nano.finish(bundle_maker.make(tmp_path / "b", device="cpu-arm"), home, bundle_maker.trust)
    changed = done.attestation.model_copy(update={"graph": HALF}).model_dump(mode="json")
    _attest(home, done.path, json_bytes(changed))
    with pytest.raises(BundleError, match=r"has no half\.onnx, which was finished here"):
        read_finished(home, trust=bundle_maker.trust)


def test_an_attestation_keeps_no_infinity(finished: Finished) -> None:
    values = json.loads((finished.path / ATTESTATION).read_bytes())
    values["timings"][0]["p50_ms"] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        Attestation.model_validate_json(json.dumps(values), strict=True)


def test_a_huge_attestation_is_not_read(finished: Finished, bundle_maker: Maker) -> None:
    with (finished.path / ATTESTATION).open("ab") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(BundleError, match="too large"):
        read_folder(finished.path, bundle_maker.trust)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"uuid": "GPU-2"}, r"proven on Orin \(8\.7, GPU-1, driver for CUDA 12\.6\), and this is Orin \(8\.7, GPU-2"),
        ({"uuid": None}, "and this is Orin"),
        ({"name": "Thor"}, "and this is Thor"),
        ({"compute_capability": (8, 6)}, r"and this is Orin \(8\.6"),
        ({"driver_cuda": "12.8"}, r"driver for CUDA 12\.8"),
    ],
)
def test_an_engine_of_another_gpu_or_driver_is_refused_and_closed(
    nano: MadeUpBoard, finished: Finished, changes: dict[str, Any], says: str
) -> None:
    nano.facts = replace(nano.facts, **changes)
    with pytest.raises(BundleError, match=f"{says}.*; finish the bundle again"):
        open_finished(finished)
    assert len(nano.engines) == 1
    assert nano.open_engines == []


def test_how_much_memory_is_free_is_no_matter(nano: MadeUpBoard, finished: Finished) -> None:
    nano.facts = replace(nano.facts, free_bytes=1, library="another", library_cuda="13.0")
    assert try_out(finished).frames == 3


@pytest.mark.parametrize("serial", ["1422", None])
def test_another_board_of_the_same_kind_is_refused_before_its_engine_is_opened(
    nano: MadeUpBoard, finished: Finished, serial: str | None
) -> None:
    nano.serial = serial
    with pytest.raises(BundleError, match=rf"another board \(number 1421\) than this \({serial or 'unknown'}\)"):
        open_finished(finished)
    assert nano.engines == []


def test_the_boards_number_is_read_from_its_device_tree(tmp_path: Path) -> None:
    assert read_serial(tmp_path) is None
    tree = tmp_path / "proc" / "device-tree"
    tree.mkdir(parents=True)
    (tree / "serial-number").write_bytes(b"1421022099999\0")
    assert read_serial(tmp_path) == "1421022099999"
    (tree / "serial-number").write_bytes(b"\0")
    assert read_serial(tmp_path) is None


@pytest.mark.parametrize(("name", "version"), [("tensorrt", "10.3.0.31"), ("tensorrt_rtx", "10.3.0.30")])
def test_another_tensorrt_is_refused_before_the_engine_is_opened(
    nano: MadeUpBoard, finished: Finished, name: str, version: str
) -> None:
    nano.tensorrt = TensorRT(None, name, version)
    with pytest.raises(BundleError, match=rf"built by tensorrt 10\.3\.0\.30 and this machine has {name} {version}"):
        open_finished(finished)
    assert nano.engines == []


def test_without_tensorrt_it_is_not_opened(nano: MadeUpBoard, finished: Finished) -> None:
    nano.load_error = EnvironmentLacksError("TensorRT cannot be used here.")
    with pytest.raises(EnvironmentLacksError):
        open_finished(finished)


def test_an_engine_that_answers_otherwise_than_then_is_refused_and_closed(
    nano: MadeUpBoard, finished: Finished
) -> None:
    nano.alter = lambda _, answers: answers | {"plane": answers["plane"] + 0.6}
    with pytest.raises(CheckFailedError, match=r"answers otherwise here .*; finish the bundle again"):
        open_finished(finished)
    nano.alter, nano.lost_at = lambda _, answers: answers, nano.runs + 1
    with pytest.raises(DeviceLostError):
        open_finished(finished)
    assert nano.open_engines == []


@pytest.mark.parametrize(
    "to",
    [
        "../../elsewhere", "/elsewhere", "elsewhere", f"{FINISHED}/..", f"{FINISHED}/x", f"{FINISHED}/../elsewhere",
        FINISHED, ".", f"{FINISHED}/{'g' * 32}", f"./{FINISHED}/../{FINISHED}/{'0' * 32}",
    ],
)  # fmt: skip
def test_a_link_to_elsewhere_is_never_followed(home: Path, to: str, bundle_maker: Maker) -> None:
    (home / ACTIVE).unlink()
    (home / ACTIVE).symlink_to(to)
    for read in (lambda: read_finished(home, trust=bundle_maker.trust), lambda: active_bundle(home)):
        with pytest.raises(BundleError, match=r"active is no link to something that was finished here; remove it"):
            read()


def test_what_is_no_link_is_refused(home: Path) -> None:
    (home / ACTIVE).unlink()
    (home / ACTIVE).mkdir()
    with pytest.raises(BundleError, match="is no link"):
        linked_folder(home)


def test_a_link_to_what_is_gone_is_refused(home: Path, finished: Finished, bundle_maker: Maker) -> None:
    shutil.rmtree(finished.path)
    with pytest.raises(BundleError, match=r"attestation\.json is missing"):
        read_finished(home, trust=bundle_maker.trust)


def test_a_folder_that_is_elsewhere_is_known_by_what_it_holds(
    home: Path, finished: Finished, bundle_maker: Maker, tmp_path: Path
) -> None:
    """A link in a folder's place changes nothing: its attestation must have the hash that the name says."""
    other = finished.path.rename(tmp_path / "other")
    (other / ATTESTATION).write_bytes((other / ATTESTATION).read_bytes().replace(b"1421", b"1422"))
    finished.path.symlink_to(other)
    with pytest.raises(BundleError, match="its hash differs"):
        read_finished(home, trust=bundle_maker.trust)


@pytest.mark.parametrize("where", [".", FINISHED])
def test_nothing_is_read_where_anybody_may_write(home: Path, bundle_maker: Maker, where: str) -> None:
    (home / where).chmod(0o757)
    with pytest.raises(BundleError, match=r"can be written by anybody.* `chmod o-w` on it"):
        read_finished(home, trust=bundle_maker.trust)
    (home / where).chmod(0o775)
    read_finished(home, trust=bundle_maker.trust)


def test_who_is_no_longer_trusted_does_not_run(home: Path, bundle_maker: Maker, tmp_path: Path) -> None:
    from made_up_board import new_maker

    stranger = new_maker(tmp_path / "stranger")
    with pytest.raises(BundleError, match="which this machine does not trust"):
        read_finished(home, trust=stranger.trust)
    # As everywhere in the clinic: where no key is trusted any bundle runs.
    assert read_finished(home, trust=Trust()).bundle.signer == bundle_maker.public.key.key_id


def test_a_copy_of_the_packages_own_bundle_is_the_packages_own(
    home: Path, finished: Finished, bundle_maker: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a machine that trusts some key, the unsigned starter runs, and so does what was finished of it."""
    packaged = Path(shutil.copytree(finished.bundle.path, tmp_path / "packaged"))
    for folder in (packaged, finished.bundle.path):
        (folder / "signature.json").unlink()
    with pytest.raises(BundleError, match="is not signed"):
        read_finished(home, trust=bundle_maker.trust)
    trust = replace(bundle_maker.trust, packaged=packaged)
    assert read_finished(home, trust=trust).bundle.sha256 == finished.bundle.sha256
    assert active_bundle(home) == finished.bundle.path
    monkeypatch.setattr(module, "packaged_bundle", lambda: packaged)
    assert active_bundle(home) == packaged
    assert load_bundle(active_bundle(home), trust).trusted


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGEFETAL_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_folder() == tmp_path / ".local" / "share" / "edgefetal"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert home_folder() == tmp_path / ".local" / "share" / "edgefetal"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert home_folder() == tmp_path / "data" / "edgefetal"
    monkeypatch.setenv("EDGEFETAL_HOME", str(tmp_path / "mine"))
    assert home_folder() == tmp_path / "mine"
    with pytest.raises(BundleError, match=f"Nothing is active in {tmp_path / 'mine'}"):
        bundle_folder(ACTIVE)
    for wrong in ("mine", "~/mine", "./mine"):
        monkeypatch.setenv("EDGEFETAL_HOME", wrong)
        with pytest.raises(InputError, match="give it as a path from / on"):
            home_folder()


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGEFETAL_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(InputError, match="set EDGEFETAL_HOME to a folder"):
        home_folder()


def test_a_folder_that_cannot_be_read_is_no_surprise(
    home: Path, bundle_maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "readlink", refuse)
        with pytest.raises(BundleError, match=r"active cannot be read \(Permission denied\)"):
            read_finished(home, trust=bundle_maker.trust)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(BundleError, match=r"attestation\.json cannot be read \(Permission denied\)"):
        read_finished(home, trust=bundle_maker.trust)


def test_names_follow_from_the_attestation(finished: Finished) -> None:
    content = (finished.path / ATTESTATION).read_bytes()
    assert finished.path.name == id_of(content) == sha256_of(content)[:32]
