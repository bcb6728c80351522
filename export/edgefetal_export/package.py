"""Writing a bundle: its files, and the manifest with their hashes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from edgefetal_runtime.atomic import write_folder
from edgefetal_runtime.infer.bundle import MANIFEST
from edgefetal_runtime.infer.signature import SIGNATURE, sign_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgefetal_runtime.infer.bundle import Manifest
    from edgefetal_runtime.infer.keys import SigningKey


def write_bundle(folder: Path, files: Mapping[str, bytes], manifest: Manifest, key: SigningKey | None = None) -> None:
    """Write a bundle, all or nothing, its signature included.

    Args:
        folder: where; must not exist.
        files: content by file name.
        manifest: the manifest; its `files` are filled in here.
        key: who signs it; None for a bundle that is not signed.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    complete = manifest.model_copy(update={"files": hashes})
    content = (complete.model_dump_json(indent=1) + "\n").encode()
    signature = {} if key is None else {SIGNATURE: sign_manifest(content, key)}
    write_folder(folder, {**files, MANIFEST: content, **signature})
