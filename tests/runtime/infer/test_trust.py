"""Trust: which keys a machine takes for good, and what follows for which bundle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgefetal.starter import bundle_folder
from edgefetal_devices.errors import BundleError, KeyFileError
from edgefetal_runtime.infer import bundle as layout
from edgefetal_runtime.infer import trust as trusting
from edgefetal_runtime.infer.bundle import MANIFEST, load_bundle, sign_bundle
from edgefetal_runtime.infer.golden import open_for_clinic
from edgefetal_runtime.infer.keys import public_text, read_signing_key, write_new_keys
from edgefetal_runtime.infer.signature import SIGNATURE
from edgefetal_runtime.infer.trust import (
    ENVIRONMENT,
    Demand,
    Standing,
    Trust,
    forget_key,
    machine_trust,
    packaged_bundle,
    require,
    trust_folders,
    trust_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefetal_runtime.infer.keys import NamedKey, SigningKey

Pair = tuple["SigningKey", "NamedKey"]


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    private, public = write_new_keys("maker", tmp_path_factory.mktemp("maker"))
    return read_signing_key(private), public


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    private, public = write_new_keys("stranger", tmp_path_factory.mktemp("stranger"))
    return read_signing_key(private), public


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "trusted"
    made.mkdir()
    return made


# By: who signed, whom the machine trusts, and what is demanded, the refusal's words, or None where it is taken.
POLICY: list[tuple[str | None, str | None, Demand, str | None]] = [
    (None, None, Demand.ANY, None),
    (None, None, Demand.CLINIC, None),
    (None, None, Demand.TRUSTED, "is not signed"),
    ("maker", None, Demand.ANY, None),
    ("maker", None, Demand.CLINIC, None),
    ("maker", None, Demand.TRUSTED, "which this machine does not trust"),
    (None, "maker", Demand.ANY, None),
    (None, "maker", Demand.CLINIC, "is not signed"),
    (None, "maker", Demand.TRUSTED, "is not signed"),
    ("maker", "maker", Demand.ANY, None),
    ("maker", "maker", Demand.CLINIC, None),
    ("maker", "maker", Demand.TRUSTED, None),
    ("stranger", "maker", Demand.ANY, None),
    ("stranger", "maker", Demand.CLINIC, "which this machine does not trust"),
    ("stranger", "maker", Demand.TRUSTED, "which this machine does not trust"),
]


@pytest.mark.parametrize(("signer", "trusted", "demand", "refusal"), POLICY)
def test_the_policy(
    bundle_copy: Path,
    maker: Pair,
    stranger: Pair,
    signer: str | None,
    trusted: str | None,
    demand: Demand,
    refusal: str | None,
) -> None:
    pairs = {"maker": maker, "stranger": stranger}
    loaded = load_bundle(bundle_copy, Trust())
    if signer is not None:
        loaded = sign_bundle(loaded, pairs[signer][0])
    trust = Trust(() if trusted is None else (pairs[trusted][1],), packaged_bundle())
    if refusal is None:
        assert load_bundle(bundle_copy, trust, demand=demand).trusted == (signer == trusted is not None)
    else:
        with pytest.raises(BundleError, match=refusal) as caught:
            load_bundle(bundle_copy, trust, demand=demand)
        assert "`edgefetal keys " in str(caught.value)
        assert signer is None or pairs[signer][1].key.key_id in str(caught.value)
    if demand is Demand.TRUSTED and refusal is None:
        require(loaded, trust, Demand.TRUSTED)
    elif demand is Demand.TRUSTED:
        with pytest.raises(BundleError, match=refusal):
            require(loaded, trust, Demand.TRUSTED)


@pytest.mark.parametrize("demand", Demand)
def test_a_bad_signature_is_refused_whatever_is_demanded(
    bundle_copy: Path, maker: Pair, edit_manifest: Callable[..., None], demand: Demand
) -> None:
    sign_bundle(load_bundle(bundle_copy, Trust()), maker[0])
    edit_manifest(bundle_copy, name="better")
    for trust in (Trust(), Trust((maker[1],))):
        with pytest.raises(BundleError, match="is not of its manifest"):
            load_bundle(bundle_copy, trust, demand=demand)


def test_the_packages_own_bundle_is_trusted_by_its_folder_and_no_other_by_its_name(
    tmp_path: Path, maker: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = Trust((maker[1],), packaged_bundle())
    starter = load_bundle(bundle_folder("starter"), trust, demand=Demand.TRUSTED)
    assert (starter.standing, starter.trusted, starter.signer) == (Standing.PACKAGED, True, None)
    require(starter, trust, Demand.TRUSTED)
    copy = shutil.copytree(bundle_folder("starter"), tmp_path / "starter" / "bundle")
    monkeypatch.chdir(tmp_path)
    for path in (copy, Path("starter/bundle")):
        with pytest.raises(BundleError, match="is not signed"):
            load_bundle(path, trust, demand=Demand.CLINIC)


def test_the_packages_own_folder_is_where_the_starter_lies() -> None:
    assert packaged_bundle() == bundle_folder("starter")


@pytest.mark.parametrize("signer", [None, "stranger"])
def test_in_the_clinic_nothing_of_a_bundle_without_a_trusted_signature_is_parsed(
    bundle_copy: Path, maker: Pair, stranger: Pair, monkeypatch: pytest.MonkeyPatch, signer: str | None
) -> None:
    if signer is not None:
        sign_bundle(load_bundle(bundle_copy, Trust()), stranger[0])

    def parsed(*_: object) -> None:
        pytest.fail("the manifest was parsed")

    monkeypatch.setattr(layout, "_parse_manifest", parsed)
    with pytest.raises(BundleError, match="`edgefetal keys "):
        open_for_clinic(bundle_copy, trust=Trust((maker[1],)))


def test_the_clinic_asks_the_machine_whom_it_trusts(
    bundle_copy: Path, maker: Pair, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(folder))
    assert open_for_clinic(bundle_copy)[0].standing is Standing.UNSIGNED
    trust_key(maker[1])
    with pytest.raises(BundleError, match="is not signed"):
        open_for_clinic(bundle_copy)
    sign_bundle(load_bundle(bundle_copy), maker[0])
    assert open_for_clinic(bundle_copy)[0].standing is Standing.TRUSTED
    assert open_for_clinic(bundle_folder("starter"))[0].standing is Standing.PACKAGED
    # Without its signature it is one that anybody may have made.
    (bundle_copy / SIGNATURE).unlink()
    with pytest.raises(BundleError, match="is not signed"):
        open_for_clinic(bundle_copy)


def test_a_key_of_the_same_id_is_another_key(bundle_copy: Path, maker: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id is for people; somebody with much time could make a key that shares it."""
    monkeypatch.setattr(type(maker[1].key), "key_id", "0000-0000-0000-0000-0000")
    sign_bundle(load_bundle(bundle_copy, Trust()), maker[0])
    other = type(maker[1])("maker", type(maker[1].key)(bytes(32)), maker[1].file)
    assert load_bundle(bundle_copy, Trust((other,))).standing is Standing.UNTRUSTED


def test_keys_are_read_from_the_users_folder_and_the_machines(
    tmp_path: Path, maker: Pair, stranger: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(trusting, "SYSTEM_FOLDER", tmp_path / "etc")
    assert machine_trust().keys == ()
    trust_key(maker[1])
    trust_key(stranger[1], tmp_path / "etc")
    found = {key.name: key.file for key in machine_trust().keys}
    assert found == {
        "maker": tmp_path / "config" / "edgefetal" / "trusted" / "maker.pub",
        "stranger": tmp_path / "etc" / "stranger.pub",
    }
    # A folder that somebody names stands for both.
    assert [key.name for key in machine_trust(tmp_path / "etc").keys] == ["stranger"]
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "etc"))
    assert [key.name for key in machine_trust().keys] == ["stranger"]
    # An empty variable is none, and a path that is not absolute is not the user's folder.
    monkeypatch.setenv(ENVIRONMENT, "")
    assert len(machine_trust().keys) == 2
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert trust_folders()[0].path == tmp_path / "home" / ".config" / "edgefetal" / "trusted"


def test_a_user_without_a_home_has_the_machines_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert [each.path for each in trust_folders()] == [trusting.SYSTEM_FOLDER]


RUBBISH: dict[str, Callable[[Path, str], object]] = {
    "empty": lambda folder, _: (folder / "b.pub").write_text(""),
    "cut": lambda folder, text: (folder / "b.pub").write_text(text[:-9]),
    "other bytes": lambda folder, _: (folder / "b.pub").write_bytes(bytes(range(256))),
    "another suffix": lambda folder, text: (folder / "b.pub.txt").write_text(text),
    "a private key": lambda folder, _: (folder / "b.key").write_text("-----BEGIN PRIVATE KEY-----"),
    "a folder": lambda folder, _: (folder / "b.pub").mkdir(),
    "a dangling link": lambda folder, _: (folder / "b.pub").symlink_to("nowhere"),
    "writable by anybody": lambda folder, text: ((folder / "b.pub").write_text(text), (folder / "b.pub").chmod(0o666)),
}


@pytest.mark.parametrize("spoil", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_among_the_trusted_keys_is_refused_by_its_name(
    folder: Path, maker: Pair, stranger: Pair, bundle_copy: Path, spoil: Callable[[Path, str], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Passed over, it would leave less trust than somebody meant, and at worst none, with which all runs."""
    trust_key(maker[1], folder)
    spoil(folder, public_text("b", stranger[1].key))
    monkeypatch.setenv(ENVIRONMENT, str(folder))
    for ask in (machine_trust, lambda: open_for_clinic(bundle_copy), lambda: load_bundle(bundle_copy)):
        with pytest.raises(KeyFileError, match=rf"{folder}/b\."):
            ask()


def test_hidden_files_are_passed_over_and_links_to_keys_are_read(folder: Path, maker: Pair) -> None:
    (folder / ".maker.pub.partial").write_text("half a k")
    (folder / "linked.pub").symlink_to(maker[1].file)
    assert [key.key for key in machine_trust(folder).keys] == [maker[1].key]


def test_a_folder_that_anybody_may_write_to_is_refused(folder: Path, maker: Pair) -> None:
    trust_key(maker[1], folder)
    folder.chmod(0o777)
    with pytest.raises(KeyFileError, match="can be written by anybody"):
        machine_trust(folder)


def test_a_named_folder_that_is_missing_or_no_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for name, says in (("none", "does not exist"), ("file", "cannot be read as a folder"), ("n" * 300, "cannot be")):
        monkeypatch.setenv(ENVIRONMENT, str(tmp_path / name))
        for ask in (machine_trust, lambda name=name: machine_trust(tmp_path / name)):
            with pytest.raises(KeyFileError, match=says):
                ask()


def test_one_of_the_usual_folders_that_is_no_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "edgefetal").write_text("")
    with pytest.raises(KeyFileError, match="cannot be read as a folder"):
        machine_trust()


def test_a_key_is_kept_once_and_another_of_its_name_is_refused(folder: Path, maker: Pair, stranger: Pair) -> None:
    kept = trust_key(maker[1], folder)
    assert (kept.file, kept.key) == (folder / "maker.pub", maker[1].key)
    assert trust_key(type(kept)("renamed", maker[1].key, maker[1].file), folder) == kept
    with pytest.raises(KeyFileError, match=r"maker\.pub holds another key"):
        trust_key(type(kept)("maker", stranger[1].key, stranger[1].file), folder)
    assert [file.name for file in folder.iterdir()] == ["maker.pub"]
    assert machine_trust(folder).keys == (kept,)


def test_a_key_is_forgotten_in_every_file(folder: Path, maker: Pair, stranger: Pair) -> None:
    trust_key(maker[1], folder)
    shutil.copy(folder / "maker.pub", folder / "again.pub")
    trust_key(stranger[1], folder)
    assert {key.file.name for key in forget_key(maker[1].key.key_id, folder)} == {"again.pub", "maker.pub"}
    assert [key.name for key in machine_trust(folder).keys] == ["stranger"]
    for unknown in (maker[1].key.key_id, stranger[1].key.key_id[:-1], "", "*"):
        with pytest.raises(KeyFileError, match="No trusted key has the id"):
            forget_key(unknown, folder)


def test_a_bundle_whose_manifest_is_missing_is_refused_for_that(bundle_copy: Path, maker: Pair) -> None:
    sign_bundle(load_bundle(bundle_copy, Trust()), maker[0])
    (bundle_copy / MANIFEST).unlink()
    with pytest.raises(BundleError, match="is not a bundle"):
        load_bundle(bundle_copy, Trust())
