"""The unit file that systemd starts edgefetal with: `python -m edgefetal_runtime.service.unit` prints it."""

from __future__ import annotations

import sys
from importlib import resources

UNIT = "edgefetal.service"


def unit_text() -> str:
    """Return the unit file that is shipped."""
    return (resources.files("edgefetal_runtime.service") / UNIT).read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.stdout.write(unit_text())
