"""Keys that bundles are signed with: Ed25519 (RFC 8032), as a private file and a public one.

NAME.key    the private key: PKCS8 as PEM, not encrypted, readable by its owner alone
NAME.pub    the public key: four lines of text, with a name and an id that people compare
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edgefetal_devices.errors import KeyFileError
from edgefetal_runtime.atomic import as_output_error, refuse_existing, sync

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_SUFFIX, PUBLIC_SUFFIX = ".key", ".pub"
# Both files are a few hundred bytes; a file much larger than that is neither, and is not parsed.
_MAX_FILE_BYTES = 4096
_PRIVATE_MODE = 0o600
# What a key id looks like.
KEY_ID = "-".join(["[0-9a-f]{4}"] * 5)
_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
# Line ends of other systems are welcome, because public keys travel by mail and memory sticks.
_PUBLIC_FILE = re.compile(
    rf"edgefetal public key 1\r?\nname: (?P<name>{_NAME})\r?\nid: (?P<id>{KEY_ID})\r?\n"
    r"key: (?P<key>[0-9a-f]{64})(\r?\n)*"
)


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with.

    Args:
        raw: its 32 bytes, as RFC 8032 encodes them.
    """

    raw: bytes

    @property
    def key_id(self) -> str:
        """Return what people compare: the first 80 bits of the key's SHA-256, in groups of four digits."""
        digits = hashlib.sha256(self.raw).hexdigest()
        return "-".join(digits[start : start + 4] for start in range(0, 20, 4))

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Say whether a signature of 64 bytes was made of a message with this key's private half."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            # A ValueError means bytes that are no key at all.
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """A private key that was read and is ready to sign."""

    _private: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """Return its public half."""
        return PublicKey(self._private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message, 64 bytes; the same one every time."""
        return self._private.sign(message)


@dataclass(frozen=True)
class NamedKey:
    """A public key as its file gives it.

    Args:
        name: what its maker calls it; nothing proves it.
        key: the key.
        file: where it was read.
    """

    name: str
    key: PublicKey
    file: Path


def public_text(name: str, key: PublicKey) -> str:
    """Write a public key's file."""
    return f"edgefetal public key 1\nname: {name}\nid: {key.key_id}\nkey: {key.raw.hex()}\n"


def read_public_key(path: Path) -> NamedKey:
    """Read a public key's file.

    Raises:
        KeyFileError: it cannot be read, is no public key, or its id is not that of its key.
    """
    content, _ = _read(path)
    fields = _PUBLIC_FILE.fullmatch(content.decode("utf-8", errors="replace"))
    if fields is None:
        message = f"{path} is not a public key; copy the {PUBLIC_SUFFIX} file that `edgefetal keys new` made again."
        raise KeyFileError(message)
    key = PublicKey(bytes.fromhex(fields["key"]))
    if key.key_id != fields["id"]:
        message = f"{path} says id {fields['id']} and holds key {key.key_id}; copy the {PUBLIC_SUFFIX} file again."
        raise KeyFileError(message)
    return NamedKey(fields["name"], key, path)


def read_signing_key(path: Path) -> SigningKey:
    """Read a private key's file.

    Raises:
        KeyFileError: it cannot be read, others may read it, or it is no unencrypted Ed25519 key.
    """
    content, mode = _read(path)
    if stat.S_IMODE(mode) & 0o077:
        # Whoever read it can sign as its owner, so what it signed proves nothing.
        message = f"{path} can be read or written by others; if it was kept safe until now, run `chmod 600` on it."
        raise KeyFileError(message)
    try:
        private = serialization.load_pem_private_key(content, password=None)
    except TypeError as error:
        message = f"{path} is encrypted, and passphrases are not asked for; give a key made by `edgefetal keys new`."
        raise KeyFileError(message) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        message = f"{path} is not a private key; give the {PRIVATE_SUFFIX} file that `edgefetal keys new` made."
        raise KeyFileError(message) from error
    if not isinstance(private, Ed25519PrivateKey):
        message = f"{path} is a private key of another kind, not Ed25519; give one made by `edgefetal keys new`."
        raise KeyFileError(message)
    return SigningKey(private)


def _read(path: Path) -> tuple[bytes, int]:
    """Read a small file whole; return its content and the mode that it had then."""
    # A pipe would be waited for; `isfile` answers False for a name that no disk takes.
    if not os.path.isfile(path):  # noqa: PTH113
        message = f"{path} is not a file; give a key made by `edgefetal keys new`."
        raise KeyFileError(message)
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}); check its permissions."
        raise KeyFileError(message) from error
    if len(content) > _MAX_FILE_BYTES:
        message = f"{path} is too large to be a key; give one made by `edgefetal keys new`."
        raise KeyFileError(message)
    return content, mode


def write_new_keys(name: str, folder: Path) -> tuple[Path, NamedKey]:
    """Make a pair of keys and write both files.

    Args:
        name: what the files are called, and what the public one says.
        folder: where; made if need be.

    Returns:
        The private file, and the public one.

    Raises:
        KeyFileError: the name is none.
        OutputError: a file exists or cannot be written.
    """
    if not re.fullmatch(_NAME, name):
        message = f"{name!r} cannot name a key; use up to 64 letters, digits, dots, dashes and underscores."
        raise KeyFileError(message)
    private, public = folder / f"{name}{PRIVATE_SUFFIX}", folder / f"{name}{PUBLIC_SUFFIX}"
    for path in (private, public):
        refuse_existing(path)
    made = Ed25519PrivateKey.generate()
    secret = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = SigningKey(made).public
    with as_output_error(private):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(private, secret, _PRIVATE_MODE)
    try:
        with as_output_error(public):
            _write_new(public, public_text(name, key).encode(), 0o644)
            sync(folder)
    except BaseException:
        # Half a pair would only be in the way of the next attempt.
        private.unlink()
        raise
    return private, NamedKey(name, key, public)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist, and that nobody whom its mode shuts out can read at any moment."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as stream:
        try:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
