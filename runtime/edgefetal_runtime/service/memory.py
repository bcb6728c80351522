"""Memory that was freed and that the C library still holds."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@lru_cache(maxsize=1)
def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's `malloc_trim`, or None where the C library has none, as musl's has not."""
    try:
        function = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = (ctypes.c_size_t,), ctypes.c_int
    return lambda pad: int(function(pad))


def give_back_freed() -> bool:
    """Give whole pages that nothing uses any more back to the kernel; return whether there were any.

    Frames, outlines and the text of the record come and go in every thread's own arena, and what is kept of a sweep
    lies between them, so that arenas grow a little with every sweep although what is in them does not. The next frames
    fetch pages again, which takes some ms: call it at the end of a sweep, when the probe is in the air.
    """
    trim = _malloc_trim()
    return trim is not None and trim(0) == 1
