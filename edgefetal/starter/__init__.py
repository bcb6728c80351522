"""The starter bundle: a head network that comes with the package, under the name `starter`."""

from __future__ import annotations

from pathlib import Path

NAME = "starter"


def bundle_folder(name: str) -> Path:
    """Return the folder of a bundle as it is named on the command line: a path, or `starter`.

    A folder of your own that is called so is `./starter`.
    """
    return Path(__file__).parent / "bundle" if name == NAME else Path(name)
