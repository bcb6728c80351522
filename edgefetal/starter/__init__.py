"""The starter bundle: a head network that comes with the package, under the name `starter`."""

from __future__ import annotations

from pathlib import Path

from edgefetal_runtime.infer.finished import ACTIVE, active_bundle, home_folder

NAME = "starter"


def bundle_folder(name: str) -> Path:
    """Return the folder of a bundle as it is named on the command line: a path, `starter`, or `active`.

    `active` is what was finished on this machine. A folder of your own that is called so is `./starter` or `./active`.

    Raises:
        BundleError: it is `active`, and nothing is.
    """
    if name == ACTIVE:
        return active_bundle(home_folder())
    return Path(__file__).parent / "bundle" if name == NAME else Path(name)
