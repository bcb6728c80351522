"""`edgefetal keys`: make keys, sign bundles with them, and say whose bundles this machine takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefetal.cli.options import BundleArgument, JsonOption, TrustedOption

if TYPE_CHECKING:
    from edgefetal_runtime.infer.keys import NamedKey

_NEW = "Example: edgefetal keys new field-team --out keys"
_TRUST = "Example: edgefetal keys trust field-team.pub"
_LIST = "Example: edgefetal keys list"
_SIGN = "Example: edgefetal keys sign bundle --key keys/field-team.key"
_FORGET = "Example: edgefetal keys forget 0f3a-91bc-77d2-405e-a6c8"

PublicFileArgument = Annotated[Path, typer.Argument(metavar="FILE.pub", help="The maker's public key.")]

app = typer.Typer(no_args_is_help=True, help="Make signing keys, sign bundles, and say whom to trust.", epilog=_NEW)


@app.callback()
def _keys() -> None:
    """Make signing keys, sign bundles, and say whose bundles this machine takes: name what to do."""


@app.command("new", epilog=_NEW)
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key's files are called.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the two files.")] = Path(),
    json_file: JsonOption = None,
) -> None:
    """Make a pair of keys: NAME.key signs and is a secret, NAME.pub checks and is for everybody."""
    from edgefetal.cli import terminal
    from edgefetal_runtime.infer.keys import PRIVATE_SUFFIX, PUBLIC_SUFFIX, write_new_keys

    terminal.check_json_target(json_file, out / f"{name}{PRIVATE_SUFFIX}", out / f"{name}{PUBLIC_SUFFIX}")
    private, public = write_new_keys(name, out)
    terminal.write_json(json_file, {"private": str(private), **_as_json(public)})
    terminal.say(f"Private key: {private}. Keep it here or on a stick in a drawer; whoever has it signs in your name.")
    terminal.say(
        f"Public key: {public.file}. Take it to each clinic, and there: edgefetal keys trust {public.file.name}"
    )
    terminal.say(f"Its id: {public.key.key_id}. Tell it by another way, such as the telephone, and have it compared.")


@app.command("trust", epilog=_TRUST)
def trust(file: PublicFileArgument, trusted: TrustedOption = None, json_file: JsonOption = None) -> None:
    """Trust the maker of a public key: from the first one on, nothing else is measured with here."""
    from edgefetal.cli import terminal
    from edgefetal_runtime.infer.keys import read_public_key
    from edgefetal_runtime.infer.trust import trust_key

    terminal.check_json_target(json_file, file, trusted)
    key = trust_key(read_public_key(file), trusted)
    terminal.write_json(json_file, _as_json(key))
    terminal.say(f"Trusted: {key.name}, {key.key.key_id}, in {key.file}.")
    terminal.say("Compare that id with the one that its maker tells you by another way; if it differs, forget it.")
    terminal.say("From now on `edgefetal run` takes only bundles that a trusted key signed, and the starter.")


@app.command("list", epilog=_LIST)
def list_keys(trusted: TrustedOption = None, json_file: JsonOption = None) -> None:
    """List the keys that this machine trusts."""
    from edgefetal.cli import terminal
    from edgefetal_runtime.infer.trust import machine_trust, trust_folders

    terminal.check_json_target(json_file, trusted)
    keys = machine_trust(trusted).keys
    terminal.write_json(json_file, {"keys": [_as_json(key) for key in keys]})
    if not keys:
        folders = " and ".join(str(folder.path) for folder in trust_folders(trusted))
        terminal.say(f"No key is trusted (looked in {folders}), so bundles of any origin run here.")
        return
    rows = [(key.name, key.key.key_id, str(key.file)) for key in keys]
    terminal.show_table("Trusted keys", ("name", "id", "file"), rows)


@app.command("sign", epilog=_SIGN)
def sign(
    bundle: BundleArgument,
    key_file: Annotated[Path, typer.Option("--key", metavar="FILE", help="The private key to sign with.")],
    replace: Annotated[bool, typer.Option("--replace", help="Put the new signature in an old one's place.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Check a bundle and sign it as it is; with the signature you stand for everything in it."""
    from edgefetal.cli import terminal
    from edgefetal.starter import bundle_folder
    from edgefetal_runtime.infer.bundle import load_bundle, sign_bundle
    from edgefetal_runtime.infer.keys import read_signing_key

    folder = bundle_folder(bundle)
    terminal.check_json_target(json_file, folder, key_file)
    key = read_signing_key(key_file)
    signed = sign_bundle(load_bundle(folder), key, replace=replace)
    terminal.write_json(json_file, {"bundle": str(folder), "sha256": signed.sha256, "signer": signed.signer})
    terminal.say(f"{signed.manifest.name}, {signed.sha256[:12]}, is signed by key {signed.signer}.")


@app.command("forget", epilog=_FORGET)
def forget(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `list` shows it.")],
    trusted: TrustedOption = None,
    json_file: JsonOption = None,
) -> None:
    """Trust a key no longer; what it signed is then measured with no more, unless no key is left."""
    from edgefetal.cli import terminal
    from edgefetal_runtime.infer.trust import forget_key, machine_trust

    terminal.check_json_target(json_file, trusted)
    gone = forget_key(key_id, trusted)
    left = machine_trust(trusted).keys
    terminal.write_json(json_file, {"forgotten": [_as_json(key) for key in gone], "trusted": len(left)})
    for key in gone:
        terminal.say(f"Forgotten: {key.name}, {key.key.key_id}, which was in {key.file}.")
    if not left:
        terminal.say("It was the last one: no key is trusted now, and bundles of any origin run here again.")


def _as_json(key: NamedKey) -> dict[str, str]:
    return {"name": key.name, "id": key.key.key_id, "file": str(key.file)}
