"""`signature.json`: who stands for a bundle.

What is signed are the bytes of `manifest.json`, which holds the hash of every other file, so the signature covers all.
It is the one file that no manifest lists. It is checked over the bytes, before they are parsed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgefetal_devices.errors import BundleError
from edgefetal_runtime.infer.keys import KEY_ID, PublicKey

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_runtime.infer.keys import SigningKey

SIGNATURE = "signature.json"
# Before the bytes that are signed, so that no signature of anything else can pass for one of a bundle.
_DOMAIN = b"edgefetal bundle manifest, signature 1\n"
_MAX_BYTES = 4096


class Signature(BaseModel):
    """`signature.json`.

    Args:
        format: the layout of this file.
        key_id: id of the public key, for people who look into the file.
        public_key: the key that checks it, 32 bytes as hexadecimal digits.
        signature: Ed25519 over `_DOMAIN` and the bytes of `manifest.json`, 64 bytes as hexadecimal digits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["edgefetal-signature/1"] = "edgefetal-signature/1"
    key_id: Annotated[str, Field(pattern=rf"^{KEY_ID}$")]
    public_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


def sign_manifest(manifest: bytes, key: SigningKey) -> bytes:
    """Return the content of `signature.json` for the bytes of a manifest."""
    signature = Signature(
        key_id=key.public.key_id,
        public_key=key.public.raw.hex(),
        signature=key.sign(_DOMAIN + manifest).hex(),
    )
    return (signature.model_dump_json(indent=1) + "\n").encode()


def read_signer(folder: Path, manifest: bytes) -> PublicKey | None:
    """Check a bundle's signature over the bytes of its manifest.

    Returns:
        The key that signed it, which is not for that a trusted one; None where the bundle is not signed.

    Raises:
        BundleError: there is a signature, and it is a link, none, or not of these bytes.
    """
    path = folder / SIGNATURE
    if not os.path.lexists(path):
        return None
    signature = _parse(path, _read(path))
    key = PublicKey(bytes.fromhex(signature.public_key))
    if signature.key_id != key.key_id:
        message = f"{path} says key {signature.key_id} and holds {key.key_id}; copy the bundle again."
        raise BundleError(message)
    if not key.verifies(bytes.fromhex(signature.signature), _DOMAIN + manifest):
        message = (
            f"{folder}: its signature by key {key.key_id} is not of its manifest, so the bundle was altered or the "
            "signature is another's; copy the bundle again, or have it built and signed anew."
        )
        raise BundleError(message)
    return key


def _read(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file():
        message = f"{path} is a link or no file; copy the bundle again."
        raise BundleError(message)
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}); check its permissions, or copy the bundle again."
        raise BundleError(message) from error
    if len(content) > _MAX_BYTES:
        message = f"{path} is too large to be a signature; copy the bundle again."
        raise BundleError(message)
    return content


def _parse(path: Path, content: bytes) -> Signature:
    try:
        return Signature.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its start"
        message = f"{path} is not a signature (at {where}: {first['msg']}); copy the bundle again."
        raise BundleError(message) from error
