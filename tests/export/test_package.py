"""Bundles are written whole, and signed by whom it is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgefetal_export.package import write_bundle
from edgefetal_runtime.infer.bundle import MANIFEST, load_bundle
from edgefetal_runtime.infer.keys import read_signing_key, write_new_keys
from edgefetal_runtime.infer.signature import SIGNATURE

if TYPE_CHECKING:
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.keys import SigningKey


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return read_signing_key(write_new_keys("team", tmp_path_factory.mktemp("keys"))[0])


def _rewritten(bundle: Bundle, out: Path, key: SigningKey | None) -> None:
    write_bundle(out, {name: bundle.read(name) for name in bundle.manifest.files}, bundle.manifest, key)


def test_what_is_written_is_signed_by_whom_it_is_told_and_by_nobody_else(
    starter: Bundle, key: SigningKey, tmp_path: Path
) -> None:
    _rewritten(starter, tmp_path / "signed", key)
    signed = load_bundle(tmp_path / "signed")
    assert signed.signer == key.public.key_id
    # A signature is no content: it is not carried into what is made of a bundle.
    _rewritten(signed, tmp_path / "again", None)
    assert load_bundle(tmp_path / "again").signer is None
    assert not (tmp_path / "again" / SIGNATURE).exists()


def test_a_bundle_appears_whole_and_signed_or_not_at_all(
    starter: Bundle, key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Killed(BaseException):
        """The process ends here."""

    def killed(partial: Path, *_: object) -> None:
        seen.extend(file.name for file in partial.iterdir())
        raise Killed

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(Killed):
        _rewritten(starter, tmp_path / "new", key)
    assert set(seen) == {*starter.manifest.files, MANIFEST, SIGNATURE}
    assert list(tmp_path.iterdir()) == []
