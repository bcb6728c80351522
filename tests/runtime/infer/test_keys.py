"""Keys: what RFC 8032 says of them, and files that are taken as they should be or refused with a way out."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_devices.errors import KeyFileError, OutputError
from edgefetal_runtime.infer import keys
from edgefetal_runtime.infer.keys import (
    PublicKey,
    public_text,
    read_public_key,
    read_signing_key,
    write_new_keys,
)

PEM, PKCS8, CLEAR = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
# RFC 8032, 7.1: secret, public, message, signature.
VECTORS = (
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
)
# RFC 8410, 7: what stands before the 32 bytes in PKCS8.
PKCS8_PREFIX = bytes.fromhex("302e020100300506032b657004220420")
PUBLIC = PublicKey(bytes.fromhex(VECTORS[0][1]))


def _private_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def _pem(secret: bytes) -> bytes:
    body = base64.b64encode(PKCS8_PREFIX + secret).decode()
    return f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n".encode()


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_known_answers(tmp_path: Path, secret: str, public: str, message: str, signature: str) -> None:
    key = read_signing_key(_private_file(tmp_path / "rfc.key", _pem(bytes.fromhex(secret))))
    assert key.public.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert key.public.verifies(bytes.fromhex(signature), bytes.fromhex(message))
    assert not key.public.verifies(bytes.fromhex(signature), bytes.fromhex(message) + b"\0")


def test_the_id_is_eighty_bits_of_the_hash_that_anybody_can_take() -> None:
    digest = hashlib.sha256(PUBLIC.raw).hexdigest()
    assert PUBLIC.key_id.replace("-", "") == digest[:20]
    assert PUBLIC.key_id == "21fe-31df-a154-a261-626b"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_bytes_that_are_no_key_verify_nothing(length: int) -> None:
    assert not PublicKey(bytes(length)).verifies(bytes(64), b"")


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_of_another_length_is_none(length: int) -> None:
    assert not PUBLIC.verifies(bytes.fromhex(VECTORS[0][3])[:length].ljust(length, b"\0"), b"")


def test_a_new_pair_signs_what_it_checks_and_the_private_half_is_its_owners_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        private, public = write_new_keys("field-team", tmp_path / "keys")
    finally:
        os.umask(previous)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    assert [file.name for file in sorted(private.parent.iterdir())] == ["field-team.key", "field-team.pub"]
    key, known = read_signing_key(private), read_public_key(public.file)
    assert known == public
    assert known.name == "field-team"
    assert key.public == known.key
    assert known.key.verifies(key.sign(b"hello"), b"hello")
    assert "field-team" in public.file.read_text()
    assert known.key.key_id in public.file.read_text()
    # Two pairs differ.
    assert write_new_keys("other", tmp_path / "keys")[1].key != known.key


def test_a_private_key_is_in_no_repr(tmp_path: Path) -> None:
    private, _ = write_new_keys("team", tmp_path)
    assert repr(read_signing_key(private)) == "SigningKey()"


@pytest.mark.parametrize("there", ["team.key", "team.pub"])
def test_new_keys_overwrite_nothing(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(OutputError, match=f"{there} exists"):
        write_new_keys("team", tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {there: "mine"}


@pytest.mark.parametrize("name", ["", "../up", "a b", ".hidden", "a/b", "n" * 65, "team\n", "-", "ä"])
def test_a_name_that_is_no_plain_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyFileError, match="cannot name a key; use"):
        write_new_keys(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_leaves_no_half_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, good = iter(range(9)), os.fsync

    def second_fails(descriptor: int) -> None:
        if next(calls) == 1:
            raise OSError(28, "No space left on device")
        good(descriptor)

    monkeypatch.setattr(keys.os, "fsync", second_fails)
    with pytest.raises(OutputError, match=r"team\.pub cannot be written \(No space"):
        write_new_keys("team", tmp_path)
    assert list(tmp_path.iterdir()) == []


def _encrypted() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"secret"))


REFUSED_PRIVATE = {
    "encrypted": (_encrypted(), 0o600, "is encrypted"),
    "elliptic curve": (generate_private_key(SECP256R1()).private_bytes(PEM, PKCS8, CLEAR), 0o600, "of another kind"),
    "key agreement": (X25519PrivateKey.generate().private_bytes(PEM, PKCS8, CLEAR), 0o600, "of another kind"),
    "empty": (b"", 0o600, "is not a private key"),
    "public file": (public_text("team", PUBLIC).encode(), 0o600, "is not a private key"),
    "cut": (_pem(bytes(32))[:60], 0o600, "is not a private key"),
    "secret too short": (_pem(bytes(31)), 0o600, "is not a private key"),
    "large": (_pem(bytes(32)) + b"\n" * 5000, 0o600, "is too large"),
    "group may read": (_pem(bytes(32)), 0o640, "chmod 600"),
    "others may read": (_pem(bytes(32)), 0o604, "chmod 600"),
    "others may write": (_pem(bytes(32)), 0o602, "chmod 600"),
}


@pytest.mark.parametrize(("content", "mode", "says"), REFUSED_PRIVATE.values(), ids=REFUSED_PRIVATE)
def test_a_private_key_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, mode: int, says: str) -> None:
    path = _private_file(tmp_path / "team.key", content, mode)
    with pytest.raises(KeyFileError, match=says) as caught:
        read_signing_key(path)
    assert str(path) in str(caught.value)


def test_a_key_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none.key", tmp_path, tmp_path / "pipe", tmp_path / ("n" * 300), Path("a\0b")):
        for read in (read_signing_key, read_public_key):
            with pytest.raises(KeyFileError, match="is not a file"):
                read(path)


def test_a_public_key_that_went_through_another_system_is_read(tmp_path: Path) -> None:
    path = tmp_path / "team.pub"
    for text in (public_text("team", PUBLIC).replace("\n", "\r\n"), public_text("team", PUBLIC).rstrip()):
        path.write_bytes(text.encode())
        assert read_public_key(path).key == PUBLIC


GOOD = public_text("team", PUBLIC)
REFUSED_PUBLIC = {
    "empty": "",
    "a line more": GOOD + "key: 00\n",
    "a line less": GOOD.replace("name: team\n", ""),
    "another version": GOOD.replace("key 1", "key 2"),
    "another key": GOOD.replace("d75a98", "d75a99"),
    "another id": GOOD.replace("21fe", "21ff"),
    "capitals": GOOD.replace(PUBLIC.raw.hex(), PUBLIC.raw.hex().upper()),
    "key too short": GOOD.replace("511a", ""),
    "a name with control characters": GOOD.replace("team", "te\x1bam"),
    "no name": GOOD.replace("team", ""),
    "large": GOOD + "\n" * 5000,
}


@pytest.mark.parametrize("text", REFUSED_PUBLIC.values(), ids=REFUSED_PUBLIC)
def test_a_public_key_that_is_none_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "team.pub"
    path.write_text(text)
    with pytest.raises(KeyFileError, match=r"team\.pub"):
        read_public_key(path)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    content=st.binary(max_size=200)
    | st.tuples(st.integers(0, len(GOOD) - 2), st.integers(0, 255)).map(
        lambda change: GOOD.encode()[: change[0]] + bytes([change[1]]) + GOOD.encode()[change[0] + 1 :]
    )
)
def test_other_bytes_never_give_another_key(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """One byte changed is refused, or was of the name."""
    path = tmp_path_factory.getbasetemp() / "fuzzed.pub"
    _private_file(path, content)
    try:
        found = read_public_key(path)
    except KeyFileError:
        pass
    else:
        assert found.key == PUBLIC
    with pytest.raises(KeyFileError):
        read_signing_key(path)
