"""Whose bundles this machine takes: the keys that it trusts, and the one policy that follows from them.

A bad signature is refused always and by everything, in `signature.read_signer`. Beyond that it depends on the demand:

| demand | asked by | this machine trusts no key | it trusts some |
|---|---|---|---|
| `ANY` | commands that look at a bundle, judge it, or make another of it | any bundle | any bundle |
| `CLINIC` | whatever measures patients | any bundle | one signed by a trusted key, or the package's own |
| `TRUSTED` | what builds an engine to stay | the package's own | the same |

The bundle that comes inside the package is trusted as the program is. It is known by its folder, not by its name.
"""

from __future__ import annotations

import importlib.util
import os
import stat
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgefetal_devices.errors import BundleError, KeyFileError
from edgefetal_runtime.atomic import as_output_error, sync, write_file
from edgefetal_runtime.infer.keys import PUBLIC_SUFFIX, NamedKey, public_text, read_public_key

if TYPE_CHECKING:
    from edgefetal_runtime.infer.keys import PublicKey

# Names a folder that stands for both of the usual ones.
ENVIRONMENT = "EDGEFETAL_TRUSTED"
SYSTEM_FOLDER = Path("/etc/edgefetal/trusted")


class Standing(Enum):
    """What this machine knows of a bundle's origin.

    A bad signature is no standing: such a bundle is not loaded.
    """

    TRUSTED = "trusted"
    PACKAGED = "packaged"
    UNTRUSTED = "untrusted"
    UNSIGNED = "unsigned"


class Demand(Enum):
    """How much must be known of a bundle's origin; the module's table says what follows."""

    ANY = "any"
    CLINIC = "clinic"
    TRUSTED = "trusted"


class Signed(Protocol):
    """A bundle, as far as its origin goes."""

    @property
    def path(self) -> Path:
        """Return its folder."""

    @property
    def signed_by(self) -> PublicKey | None:
        """Return the key whose good signature it bears, or None where it bears none."""


@dataclass(frozen=True)
class Trust:
    """Whom a machine trusts.

    Args:
        keys: the public keys.
        packaged: folder of the bundle that comes inside the package, or None.
    """

    keys: tuple[NamedKey, ...] = ()
    packaged: Path | None = None

    def find(self, key: PublicKey) -> NamedKey | None:
        """Return a trusted key with its name, or None where it is not trusted; the whole key counts, not its id."""
        return next((known for known in self.keys if known.key == key), None)

    def standing(self, bundle: Signed) -> Standing:
        """Say what is known of a bundle's origin."""
        if bundle.signed_by is not None and self.find(bundle.signed_by) is not None:
            return Standing.TRUSTED
        if self.packaged is not None and bundle.path.resolve() == self.packaged.resolve():
            return Standing.PACKAGED
        return Standing.UNSIGNED if bundle.signed_by is None else Standing.UNTRUSTED


def require(bundle: Signed, trust: Trust, demand: Demand) -> None:
    """Refuse a bundle whose origin is not known as well as is demanded.

    Raises:
        BundleError: so it is.
    """
    standing = trust.standing(bundle)
    if standing in (Standing.TRUSTED, Standing.PACKAGED) or demand is Demand.ANY:
        return
    if demand is Demand.CLINIC and not trust.keys:
        return
    if bundle.signed_by is None:
        message = (
            f"{bundle.path} is not signed, and only bundles signed by a key that this machine trusts are taken here; "
            "have its maker sign it by `edgefetal keys sign`."
        )
    else:
        message = (
            f"{bundle.path} is signed by key {bundle.signed_by.key_id}, which this machine does not trust; compare "
            "that id with its maker's, and add the maker's public key by `edgefetal keys trust`."
        )
    raise BundleError(message)


def machine_trust(folder: Path | None = None) -> Trust:
    """Return whom this machine trusts.

    Args:
        folder: the one folder of trusted keys; None for the usual ones.

    Raises:
        KeyFileError: one of the folders cannot be used as it is.
    """
    found = [key for each in trust_folders(folder) for key in read_folder(each.path, may_lack=each.may_lack)]
    return Trust(tuple(found), packaged_bundle())


@dataclass(frozen=True)
class TrustFolder:
    """A folder of trusted keys.

    Args:
        path: the folder.
        may_lack: whether it may be absent; one that somebody named may not.
    """

    path: Path
    may_lack: bool


def trust_folders(folder: Path | None = None) -> tuple[TrustFolder, ...]:
    """Return the folders that trusted keys are read from, the one that new ones are written to first.

    Args:
        folder: one that was named, which then is the only one; None for the one that the environment names, or the
            user's and the machine's.
    """
    named = folder or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    if named is not None:
        return (TrustFolder(named, may_lack=False),)
    folders = (_user_folder(), SYSTEM_FOLDER)
    return tuple(TrustFolder(path, may_lack=True) for path in folders if path is not None)


def _user_folder() -> Path | None:
    """Return the user's folder, or None for a user without a home."""
    stated = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    try:
        # The base directory specification has a path that is not absolute left out of account.
        config = stated if stated.is_absolute() else Path.home() / ".config"
    except RuntimeError:
        return None
    return config / "edgefetal" / "trusted"


def packaged_bundle() -> Path | None:
    """Return the folder of the bundle that comes inside the package, or None where the package is not there.

    The package lies above this one and is not imported; where it lies is asked of the import system.
    """
    spec = importlib.util.find_spec("edgefetal")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "starter" / "bundle"


def read_folder(folder: Path, *, may_lack: bool) -> tuple[NamedKey, ...]:
    """Read every key of a folder.

    What is no key is refused and not passed over, because trust that shrinks unseen to nothing would let every bundle
    run. Hidden files are passed over.

    Raises:
        KeyFileError: the folder cannot be read, others may write to it, or it holds something that is no public key.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
    except FileNotFoundError as error:
        if may_lack:
            return ()
        message = f"{folder}, which is to hold the trusted keys, does not exist; make it, or name another."
        raise KeyFileError(message) from error
    except (OSError, ValueError) as error:
        message = f"{folder}, which is to hold the trusted keys, cannot be read as a folder; mend or remove it."
        raise KeyFileError(message) from error
    found = []
    _refuse_writable(folder)
    for name in names:
        path = folder / name
        if path.suffix != PUBLIC_SUFFIX:
            message = (
                f"{path} is among the trusted keys and is not named as one ({PUBLIC_SUFFIX}); rename or remove it."
            )
            raise KeyFileError(message)
        key = read_public_key(path)
        _refuse_writable(path)
        found.append(key)
    return tuple(found)


def _refuse_writable(path: Path) -> None:
    if path.stat().st_mode & stat.S_IWOTH:
        message = f"{path} can be written by anybody, who could have keys of their own trusted; run `chmod o-w` on it."
        raise KeyFileError(message)


def trust_key(key: NamedKey, folder: Path | None = None) -> NamedKey:
    """Trust a key from now on; one that is trusted already stays as it is.

    Args:
        key: the key as its file gives it.
        folder: the one folder of trusted keys, made if need be; None for the usual ones, of which the first gets it.

    Returns:
        The key as it is kept.

    Raises:
        KeyFileError: a folder of trusted keys cannot be used as it is, or holds another key of that name.
        OutputError: the key cannot be written.
    """
    target = trust_folders(folder)[0].path
    with as_output_error(target):
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
    known = machine_trust(folder).find(key.key)
    if known is not None:
        return known
    path = target / f"{key.name}{PUBLIC_SUFFIX}"
    if os.path.lexists(path):
        message = f"{path} holds another key; forget that one first by `edgefetal keys forget`, or rename its file."
        raise KeyFileError(message)
    write_file(path, public_text(key.name, key.key).encode())
    with as_output_error(path):
        sync(target)
    _refuse_writable(path)
    return NamedKey(key.name, key.key, path)


def forget_key(key_id: str, folder: Path | None = None) -> tuple[NamedKey, ...]:
    """Trust a key no longer; return what was removed, one for every file that held it.

    Raises:
        KeyFileError: a folder of trusted keys cannot be used as it is, or none holds such a key.
        OutputError: a file cannot be removed.
    """
    gone = tuple(known for known in machine_trust(folder).keys if known.key.key_id == key_id)
    if not gone:
        message = f"No trusted key has the id {key_id}; `edgefetal keys list` shows which there are."
        raise KeyFileError(message)
    for known in gone:
        with as_output_error(known.file):
            known.file.unlink()
            sync(known.file.parent)
    return gone
