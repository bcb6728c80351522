"""How many processor cores there are to work on."""

from __future__ import annotations

import os
from typing import Final

# Each frame that is worked on holds some 30 MB; a board with more cores than this has little memory for each.
_MOST_LANES: Final = 4


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lanes_for_files(threads: int | None) -> int:
    """Return how many frames of a file to work on side by side.

    Args:
        threads: CPU threads that may be used, or None for all cores.
    """
    return min(usable_cores() if threads is None else threads, _MOST_LANES)
