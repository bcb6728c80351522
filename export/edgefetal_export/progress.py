"""Who wants to know how far a long work is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Progress(Protocol):
    """Who wants to know how far the work is."""

    def step(self, title: str, total: int | None) -> Callable[[], None]:
        """Begin a step of `total` parts, None where nobody knows; return what to call after each part."""
