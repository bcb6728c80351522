"""The output contract, as far as a network's shape depends on it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Outputs(BaseModel):
    """What a network answers with; the shape of each network adds its own.

    Args:
        structures: names of the mask channels.
        planes: names of the plane classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    structures: tuple[str, ...]
    planes: tuple[str, ...]

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs in order."""
        return ("mask", "plane")
