"""`edgefetal keys`, and what the other commands make of signatures."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from edgefetal.starter import bundle_folder
from edgefetal_runtime.infer.trust import ENVIRONMENT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.edgefetal.conftest import CommandLine


@pytest.fixture
def trusted(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the keys that this machine trusts."""
    folder = tmp_path_factory.mktemp("trusted")
    monkeypatch.setenv(ENVIRONMENT, str(folder))
    return folder


@pytest.fixture
def team(edgefetal: CommandLine) -> str:
    """A pair of keys in `keys/`; its id."""
    key_id: str = edgefetal.json("keys", "new", "team", "--out", "keys")["id"]
    return key_id


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """An unsigned bundle that is like the starter and is not it."""
    return shutil.copytree(bundle_folder("starter"), tmp_path / "bundle")


def test_from_a_new_key_to_a_clinic_that_takes_its_bundles_alone(
    edgefetal: CommandLine, trusted: Path, team: str, bundle: Path, head_png: Path
) -> None:
    """The whole way: with no key anything runs; with one what it signed, and the starter."""
    run = ("run", bundle, head_png, "--mm-per-px", "0.2", "--out")
    assert edgefetal(*run, "before").exit_code == 0
    told = edgefetal("keys", "trust", "keys/team.pub")
    assert told.exit_code == 0, told.err
    assert team in told.out
    assert "Compare that id" in told.out
    refused = edgefetal(*run, "unsigned")
    assert refused.exit_code == 2
    assert "is not signed, and only bundles signed by a key that this machine trusts" in refused.err
    signed = edgefetal("keys", "sign", bundle, "--key", "keys/team.key")
    assert signed.exit_code == 0, signed.err
    assert f"is signed by key {team}" in signed.out
    assert edgefetal(*run, "signed").exit_code == 0
    assert edgefetal("run", "starter", head_png, "--mm-per-px", "0.2", "--out", "starter-exam").exit_code == 0
    forgotten = edgefetal("keys", "forget", team)
    assert forgotten.exit_code == 0, forgotten.err
    assert "no key is trusted now" in forgotten.out
    assert list(trusted.iterdir()) == []


def test_new_keys_say_what_to_do_with_which(edgefetal: CommandLine, tmp_path: Path) -> None:
    outcome = edgefetal("keys", "new", "team", "--json", "k.json")
    record = json.loads((tmp_path / "k.json").read_text())
    assert record == {"private": "team.key", "name": "team", "id": record["id"], "file": "team.pub"}
    assert "team.key. Keep it" in outcome.out
    assert "edgefetal keys trust team.pub" in outcome.out
    assert f"Its id: {record['id']}." in outcome.out
    again = edgefetal("keys", "new", "team")
    assert again.exit_code == 2
    assert "team.key exists" in again.err


def test_list_names_keys_with_their_ids_and_says_when_there_are_none(
    edgefetal: CommandLine, trusted: Path, team: str
) -> None:
    none = edgefetal("keys", "list")
    assert f"No key is trusted (looked in {trusted}), so bundles of any origin run here." in none.out
    edgefetal("keys", "trust", "keys/team.pub")
    report = edgefetal.json("keys", "list")
    assert report == {"keys": [{"name": "team", "id": team, "file": str(trusted / "team.pub")}]}
    assert team in edgefetal("keys", "list").out


def test_another_folder_of_trusted_keys_is_named(
    edgefetal: CommandLine, trusted: Path, tmp_path: Path, team: str
) -> None:
    assert edgefetal("keys", "trust", "keys/team.pub", "--trusted", tmp_path / "etc").exit_code == 0
    assert list(trusted.iterdir()) == []
    assert edgefetal.json("keys", "list", "--trusted", "etc")["keys"][0]["id"] == team
    assert edgefetal.json("keys", "forget", team, "--trusted", "etc")["trusted"] == 0


def test_sign_replaces_only_when_asked(edgefetal: CommandLine, team: str, bundle: Path) -> None:
    assert edgefetal.json("keys", "sign", bundle, "--key", "keys/team.key")["signer"] == team
    other = edgefetal.json("keys", "new", "other")["id"]
    refused = edgefetal("keys", "sign", bundle, "--key", "other.key")
    assert refused.exit_code == 2
    assert f"is signed by key {team} already; give --replace" in refused.err
    assert edgefetal.json("keys", "sign", bundle, "--key", "other.key", "--replace")["signer"] == other


@pytest.mark.parametrize(
    ("signer", "trusting", "exit_code", "says"),
    [
        (None, False, 0, "It is not signed: nobody stands for it."),
        (None, True, 1, "It is not signed: nobody stands for it."),
        ("team", False, 0, "which is not trusted here."),
        ("team", True, 0, "It is signed by team, key "),
        ("other", True, 1, "which is not trusted here."),
    ],
)
def test_verify_says_whose_a_bundle_is(
    edgefetal: CommandLine,
    trusted: Path,
    team: str,
    bundle: Path,
    tmp_path: Path,
    signer: str | None,
    trusting: bool,  # noqa: FBT001
    exit_code: int,
    says: str,
) -> None:
    ids = {"team": team, "other": edgefetal.json("keys", "new", "other", "--out", "keys")["id"]}
    if signer is not None:
        edgefetal.json("keys", "sign", bundle, "--key", f"keys/{signer}.key")
    if trusting:
        edgefetal.json("keys", "trust", "keys/team.pub")
    origin = "unsigned" if signer is None else "trusted" if trusting and signer == "team" else "untrusted"
    for option in ((), ("--trusted", trusted)):
        outcome = edgefetal("verify", bundle, *option, "--json", "v.json")
        assert outcome.exit_code == exit_code, outcome.err
        assert says in outcome.out
        report = json.loads((tmp_path / "v.json").read_text())
        assert report["origin"] == origin
        assert report["signer"] == (None if signer is None else ids[signer])
        assert report["trusted"] is (origin == "trusted")
        # Nothing more of a bundle that would not run here is looked into.
        assert report["golden_frames"] == (None if exit_code else 3)
        assert ("golden frames are prepared" in outcome.out) is (exit_code == 0)


def test_verify_of_the_starter_says_that_it_comes_with_the_program(
    edgefetal: CommandLine, trusted: Path, team: str
) -> None:
    edgefetal.json("keys", "trust", "keys/team.pub")
    assert list(trusted.iterdir())
    report = edgefetal.json("verify", "starter")
    assert (report["origin"], report["signer"], report["trusted"]) == ("packaged", None, True)
    assert team not in edgefetal("verify", "starter").out


@pytest.mark.parametrize("command", ["verify", "run", "bench", "evaluate", "calibrate", "sign"])
def test_every_command_refuses_a_bad_signature(
    edgefetal: CommandLine, team: str, bundle: Path, head_png: Path, command: str
) -> None:
    assert edgefetal.json("keys", "sign", bundle, "--key", "keys/team.key")["signer"] == team
    manifest = bundle / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    arguments = {
        "verify": ("verify", bundle),
        "run": ("run", bundle, head_png, "--out", "exam"),
        "bench": ("bench", bundle),
        "evaluate": ("evaluate", bundle, "--dataset", "hc18:none"),
        "calibrate": ("calibrate", bundle, "--dataset", "hc18:none", "--out", "new"),
        "sign": ("keys", "sign", bundle, "--key", "keys/team.key", "--replace"),
    }[command]
    outcome = edgefetal(*arguments)
    assert outcome.exit_code == 2
    assert "is not of its manifest, so the bundle was altered" in outcome.err


@pytest.mark.usefixtures("team")
def test_a_broken_key_among_the_trusted_ones_stops_every_run(
    edgefetal: CommandLine, trusted: Path, head_png: Path
) -> None:
    (trusted / "team.pub").write_bytes((edgefetal.folder / "keys" / "team.pub").read_bytes()[:-9])
    for arguments in (("run", "starter", head_png, "--out", "exam"), ("verify", "starter"), ("keys", "list")):
        outcome = edgefetal(*arguments)
        assert outcome.exit_code == 2
        assert f"{trusted / 'team.pub'} is not a public key" in outcome.err


@pytest.mark.parametrize("command", ["build", "calibrate"])
def test_a_key_that_cannot_be_used_is_refused_before_any_work(
    edgefetal: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def worked(*_: object) -> None:
        pytest.fail("the data were read")

    monkeypatch.setattr("edgefetal_calibration.datasets.kinds.read_exams", worked)
    monkeypatch.setattr("edgefetal_runtime.infer.bundle.load_bundle", worked)
    (tmp_path / "open.key").write_text("-----BEGIN PRIVATE KEY-----")
    (tmp_path / "open.key").chmod(0o644)
    for key, says in (("none.key", "is not a file"), ("open.key", "chmod 600")):
        arguments = {
            "build": ("build", "run", "--device", "cpu", "--calibration", "hc18:data"),
            "calibrate": ("calibrate", "starter", "--dataset", "hc18:data"),
        }[command]
        outcome = edgefetal(*arguments, "--out", "new", "--key", key)
        assert outcome.exit_code == 2
        assert says in outcome.err
    assert not (tmp_path / "new").exists()


def test_a_key_is_not_overwritten_by_the_result(
    edgefetal: CommandLine, team: str, bundle: Path, tmp_path: Path
) -> None:
    secret = (tmp_path / "keys" / "team.key").read_bytes()
    for arguments in (
        ("keys", "sign", bundle, "--key", "keys/team.key"),
        ("calibrate", "starter", "--dataset", "hc18:data", "--out", "new", "--key", "keys/team.key"),
    ):
        outcome = edgefetal(*arguments, "--json", "keys/team.key")
        assert outcome.exit_code == 2
        assert "would overwrite or alter keys/team.key" in outcome.err
    assert (tmp_path / "keys" / "team.key").read_bytes() == secret
    assert team


@pytest.mark.parametrize("command", ["new", "trust", "list", "sign", "forget"])
def test_help_has_an_example(edgefetal: CommandLine, command: str) -> None:
    outcome = edgefetal("keys", command, "--help")
    assert outcome.exit_code == 0
    assert f"Example: edgefetal keys {command}" in outcome.out
