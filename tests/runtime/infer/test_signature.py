"""Signatures: they cover every file, are checked before anything is parsed, and nothing else passes for one."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal.starter import bundle_folder
from edgefetal_devices.errors import BundleError, OutputError
from edgefetal_runtime import atomic
from edgefetal_runtime.infer import bundle as layout
from edgefetal_runtime.infer.bundle import MANIFEST, load_bundle, sign_bundle
from edgefetal_runtime.infer.keys import read_signing_key, write_new_keys
from edgefetal_runtime.infer.signature import SIGNATURE, read_signer, sign_manifest
from edgefetal_runtime.infer.trust import Standing, Trust

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefetal_runtime.infer.keys import NamedKey, SigningKey

NOBODY = Trust()
BAD = re.compile(r"signature .* is not of its manifest.*copy the bundle again")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[SigningKey, NamedKey]:
    private, public = write_new_keys("team", tmp_path_factory.mktemp("keys"))
    return read_signing_key(private), public


@pytest.fixture
def key(pair: tuple[SigningKey, NamedKey]) -> SigningKey:
    return pair[0]


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return read_signing_key(write_new_keys("other", tmp_path_factory.mktemp("others"))[0])


@pytest.fixture
def signed(bundle_copy: Path, key: SigningKey) -> Path:
    sign_bundle(load_bundle(bundle_copy, NOBODY), key)
    return bundle_copy


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_signed_bundle_is_the_same_bundle_and_says_who_signed_it(
    bundle_copy: Path, pair: tuple[SigningKey, NamedKey]
) -> None:
    before = load_bundle(bundle_copy, NOBODY)
    assert (before.signer, before.trusted, before.standing) == (None, False, Standing.UNSIGNED)
    after = sign_bundle(before, pair[0])
    assert (after.manifest, after.sha256) == (before.manifest, before.sha256)
    assert (after.signer, after.trusted, after.standing) == (pair[1].key.key_id, False, Standing.UNTRUSTED)
    trusting = load_bundle(bundle_copy, Trust((pair[1],)))
    assert (trusting.signer, trusting.trusted, trusting.standing) == (after.signer, True, Standing.TRUSTED)
    assert [entry.name for entry in bundle_copy.parent.iterdir()] == [bundle_copy.name]


def test_what_is_signed_is_the_domain_and_the_raw_bytes_of_the_manifest(signed: Path) -> None:
    """By the library alone, as another program would check it."""
    fields = json.loads((signed / SIGNATURE).read_bytes())
    assert fields.keys() == {"format", "key_id", "public_key", "signature"}
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(fields["public_key"]))
    message = b"edgefetal bundle manifest, signature 1\n" + (signed / MANIFEST).read_bytes()
    public.verify(bytes.fromhex(fields["signature"]), message)


def test_a_signature_of_the_manifest_alone_is_none(signed: Path, key: SigningKey) -> None:
    """What this key signs for another purpose is no bundle's signature."""
    fields = json.loads((signed / SIGNATURE).read_bytes())
    fields["signature"] = key.sign((signed / MANIFEST).read_bytes()).hex()
    (signed / SIGNATURE).write_text(json.dumps(fields))
    with pytest.raises(BundleError, match=BAD):
        load_bundle(signed, NOBODY)


@pytest.mark.parametrize("trusting", [False, True])
def test_a_change_of_any_file_is_refused(signed: Path, pair: tuple[SigningKey, NamedKey], trusting: bool) -> None:  # noqa: FBT001
    trust = Trust((pair[1],)) if trusting else NOBODY
    for name, good in _contents(signed).items():
        for changed in (good[:-1] + bytes([good[-1] ^ 1]), good[:-2], good + b" ", b""):
            if name == SIGNATURE and changed == good + b" ":
                # A blank after the JSON says nothing else.
                continue
            (signed / name).write_bytes(changed)
            with pytest.raises(BundleError, match=re.escape(name) if name != MANIFEST else "signature"):
                load_bundle(signed, trust)
        (signed / name).unlink()
        if name != SIGNATURE:
            with pytest.raises(BundleError, match=re.escape(name)):
                load_bundle(signed, trust)
        (signed / name).write_bytes(good)
    assert load_bundle(signed, trust).signer == pair[1].key.key_id


def test_a_stranger_who_makes_the_hashes_agree_again_cannot_sign_for_its_maker(
    signed: Path, key: SigningKey, other: SigningKey, edit_manifest: Callable[..., None]
) -> None:
    edit_manifest(signed, name="better")
    with pytest.raises(BundleError, match=BAD):
        load_bundle(signed, NOBODY)
    # With the maker's public key beside a signature of one's own.
    fields = json.loads(sign_manifest((signed / MANIFEST).read_bytes(), other))
    fields |= {"public_key": key.public.raw.hex(), "key_id": key.public.key_id}
    (signed / SIGNATURE).write_text(json.dumps(fields))
    with pytest.raises(BundleError, match=BAD):
        load_bundle(signed, NOBODY)


def test_the_id_beside_the_key_must_be_its_own(signed: Path, other: SigningKey) -> None:
    fields = json.loads((signed / SIGNATURE).read_bytes())
    (signed / SIGNATURE).write_text(json.dumps(fields | {"key_id": other.public.key_id}))
    with pytest.raises(BundleError, match=f"says key {other.public.key_id} and holds"):
        load_bundle(signed, NOBODY)


def test_the_signature_of_another_bundle_is_refused(
    signed: Path, key: SigningKey, tmp_path: Path, edit_manifest: Callable[..., None]
) -> None:
    second = shutil.copytree(bundle_folder("starter"), tmp_path / "second")
    edit_manifest(second, name="second")
    sign_bundle(load_bundle(second, NOBODY), key)
    shutil.copy(second / SIGNATURE, signed)
    with pytest.raises(BundleError, match=BAD):
        load_bundle(signed, NOBODY)


def test_a_signed_bundle_with_an_extra_file_is_refused(signed: Path) -> None:
    (signed / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"notes\.txt"):
        load_bundle(signed, NOBODY)


def test_no_manifest_lists_a_signature(signed: Path, key: SigningKey, rehash: Callable[[Path], None]) -> None:
    """Listed, it would have to hold the hash of itself; and a signature that is listed is none that is checked."""
    rehash(signed)
    assert SIGNATURE in json.loads((signed / MANIFEST).read_text())["files"]
    (signed / SIGNATURE).write_bytes(sign_manifest((signed / MANIFEST).read_bytes(), key))
    with pytest.raises(BundleError, match=r"lists 'signature\.json'"):
        load_bundle(signed, NOBODY)


def _link(path: Path) -> None:
    path.rename(path.parent.parent / path.name)
    path.symlink_to(path.parent.parent / path.name)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _fields(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _without(path: Path, field: str) -> None:
    fields = json.loads(path.read_text())
    del fields[field]
    path.write_text(json.dumps(fields))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (_link, "is a link or no file"),
    "dangling link": (_dangling, "is a link or no file"),
    "folder": (_folder, "is a link or no file"),
    "pipe": (_pipe, "is a link or no file"),
    "empty": (lambda p: p.write_bytes(b""), "is not a signature"),
    "no JSON": (lambda p: p.write_bytes(b"signed, the boss"), "is not a signature"),
    "null": (lambda p: p.write_bytes(b"null"), "is not a signature"),
    "a list": (lambda p: p.write_bytes(b"[]"), "is not a signature"),
    "nested deep": (lambda p: p.write_bytes(b"[" * 4000), "is not a signature"),
    "other bytes": (lambda p: p.write_bytes(bytes(range(256))), "is not a signature"),
    "large": (lambda p: p.write_bytes(p.read_bytes() + b" " * 4096), "is too large"),
    "another format": (lambda p: _fields(p, format="edgefetal-signature/2"), "is not a signature"),
    "a field more": (lambda p: _fields(p, comment="x"), "is not a signature"),
    "no format": (lambda p: _without(p, "key_id"), "is not a signature"),
    "key too short": (lambda p: _fields(p, public_key="00" * 31), "is not a signature"),
    "key as a number": (lambda p: _fields(p, public_key=1), "is not a signature"),
    "signature too long": (lambda p: _fields(p, signature="00" * 65), "is not a signature"),
    "signature in capitals": (lambda p: _fields(p, signature="AB" * 64), "is not a signature"),
    "signature with a line end": (lambda p: _fields(p, signature="00" * 64 + "\n"), "is not a signature"),
    "an id with control characters": (lambda p: _fields(p, key_id="\x1b[2J"), "is not a signature"),
    "all zero": (lambda p: _fields(p, signature="00" * 64), "is not of its manifest"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_signature_is_refused_and_is_not_the_same_as_none(
    signed: Path, damage: Callable[[Path], object], says: str
) -> None:
    damage(signed / SIGNATURE)
    with pytest.raises(BundleError, match=says) as caught:
        load_bundle(signed, NOBODY)
    assert str(signed) in str(caught.value)
    assert "copy the bundle again" in str(caught.value)


@pytest.mark.parametrize(
    "manifest",
    [b"[" * 200_000, b"", b"not JSON", b'{"schema_version": 999}', b"\xff" * 9, b'{"schema_version": 1, "name": 5}'],
    ids=["nested deep", "empty", "no JSON", "newer", "binary", "invalid"],
)
def test_the_manifest_is_not_parsed_before_its_signature_holds(
    signed: Path, monkeypatch: pytest.MonkeyPatch, manifest: bytes
) -> None:
    def parsed(*_: object) -> None:
        pytest.fail("the manifest was parsed")

    (signed / MANIFEST).write_bytes(manifest)
    monkeypatch.setattr(layout, "_parse_manifest", parsed)
    with pytest.raises(BundleError, match=BAD):
        load_bundle(signed, NOBODY)


@pytest.fixture(scope="module")
def manifest_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifest")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_other_bytes_are_ever_a_signature(
    manifest_alone: Path, pair: tuple[SigningKey, NamedKey], data: st.DataObject
) -> None:
    manifest = b'{"name": "a bundle"}'
    good = sign_manifest(manifest, pair[0])
    fields = json.loads(good)
    kind = data.draw(st.sampled_from(["bytes", "flip", "cut", "fields"]))
    if kind == "bytes":
        content = data.draw(st.binary(max_size=5000))
    elif kind == "flip":
        place = data.draw(st.integers(0, len(good) - 1))
        content = good[:place] + bytes([good[place] ^ data.draw(st.integers(1, 255))]) + good[place + 1 :]
    elif kind == "cut":
        content = good[: data.draw(st.integers(0, len(good) - 2))]
    else:
        digits = st.text("0123456789abcdef", min_size=128, max_size=128)
        value = data.draw(digits | digits.map(lambda text: text[:64]) | st.none() | st.integers() | st.text(max_size=9))
        content = json.dumps(fields | {data.draw(st.sampled_from(sorted(fields))): value}).encode()
    (manifest_alone / SIGNATURE).write_bytes(content)
    try:
        signer = read_signer(manifest_alone, manifest)
    except BundleError:
        return
    # What is taken says the very same, with other blanks at most.
    assert json.loads(content) == fields
    assert signer == pair[1].key


@settings(max_examples=100, deadline=None, derandomize=True)
@given(manifest=st.binary(max_size=300), change=st.integers(0, 299), other=st.binary(min_size=1, max_size=1))
def test_a_signature_holds_for_its_bytes_and_for_no_others(
    manifest_alone: Path, pair: tuple[SigningKey, NamedKey], manifest: bytes, change: int, other: bytes
) -> None:
    (manifest_alone / SIGNATURE).write_bytes(sign_manifest(manifest, pair[0]))
    assert read_signer(manifest_alone, manifest) == pair[1].key
    changed = manifest[:change] + other + manifest[change + 1 :]
    if changed != manifest:
        with pytest.raises(BundleError, match=BAD):
            read_signer(manifest_alone, changed)


def test_an_old_signature_gives_way_only_when_that_is_asked_for(signed: Path, other: SigningKey) -> None:
    loaded = load_bundle(signed, NOBODY)
    before = _contents(signed)
    with pytest.raises(BundleError, match=rf"signed by key {loaded.signer} already; give --replace"):
        sign_bundle(loaded, other)
    assert _contents(signed) == before
    assert sign_bundle(loaded, other, replace=True).signer == other.public.key_id
    assert {name: content for name, content in _contents(signed).items() if name != SIGNATURE} == {
        name: content for name, content in before.items() if name != SIGNATURE
    }


def test_the_packages_own_bundle_is_not_signed(bundle_copy: Path, key: SigningKey) -> None:
    # A copy stands for it, because what is installed must outlast a failure of this test.
    with pytest.raises(BundleError, match="belongs to the program"):
        sign_bundle(load_bundle(bundle_copy, Trust(packaged=bundle_copy)), key)
    assert not (bundle_copy / SIGNATURE).exists()


def test_what_changed_since_it_was_verified_is_not_signed(
    bundle_copy: Path, key: SigningKey, edit_manifest: Callable[..., None]
) -> None:
    loaded = load_bundle(bundle_copy, NOBODY)
    edit_manifest(bundle_copy, name="better")
    with pytest.raises(BundleError, match="hash differs"):
        sign_bundle(loaded, key)
    assert not (bundle_copy / SIGNATURE).exists()


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("moment", ["sync", "replace"])
def test_a_kill_while_signing_leaves_the_old_signature_whole(
    signed: Path, other: SigningKey, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    loaded = load_bundle(signed, NOBODY)
    before = _contents(signed)
    with monkeypatch.context() as patched:
        patched.setattr(*((atomic, "sync", killed) if moment == "sync" else (type(signed), "replace", killed)))
        with pytest.raises(Killed):
            sign_bundle(loaded, other, replace=True)
    # No leftover lies in the bundle, which would make it none.
    assert _contents(signed) == before
    assert load_bundle(signed, NOBODY).signer == loaded.signer
    assert sign_bundle(loaded, other, replace=True).signer == other.public.key_id
    assert [entry.name for entry in signed.parent.iterdir()] == [signed.name]


def test_a_folder_beside_which_nothing_can_be_written_is_refused(
    signed: Path, other: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    loaded = load_bundle(signed, NOBODY)
    with monkeypatch.context() as patched:
        patched.setattr(type(signed), "write_bytes", full)
        with pytest.raises(OutputError, match="Read-only file system"):
            sign_bundle(loaded, other, replace=True)
    assert load_bundle(signed, NOBODY).signer == loaded.signer


def test_a_bundle_is_signed_from_inside_its_own_folder(
    bundle_copy: Path, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle_copy)
    assert sign_bundle(load_bundle(type(bundle_copy)(), NOBODY), key).signer == key.public.key_id
    assert [entry.name for entry in bundle_copy.parent.iterdir()] == [bundle_copy.name]
