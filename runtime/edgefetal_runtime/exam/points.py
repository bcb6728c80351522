"""The points of an outline as a record holds them: packed, because a long examination keeps those of every sweep."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from pydantic_core import core_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import GetCoreSchemaHandler

_POINT = struct.Struct("=dd")
_PAIRS = core_schema.tuple_variable_schema(
    core_schema.tuple_positional_schema([core_schema.float_schema(), core_schema.float_schema()])
)


@dataclass(frozen=True, slots=True)
class Points(Sequence[tuple[float, float]]):
    """Points as x, y, as precise as they were given; in JSON a list of lists of two numbers.

    A point takes 16 bytes; as a tuple of two numbers it would take 128.

    Args:
        packed: two 64-bit floats a point.
    """

    packed: bytes

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> Points:
        """Pack points."""
        return cls(b"".join(_POINT.pack(x, y) for x, y in pairs))

    def __len__(self) -> int:
        """Count the points."""
        return len(self.packed) // _POINT.size

    def __iter__(self) -> Iterator[tuple[float, float]]:
        """Yield x and y of every point."""
        return _POINT.iter_unpack(self.packed)

    @overload
    def __getitem__(self, index: int) -> tuple[float, float]: ...
    @overload
    def __getitem__(self, index: slice) -> Points: ...
    def __getitem__(self, index: int | slice) -> tuple[float, float] | Points:
        """Return one point, or some of them.

        Raises:
            IndexError: there is no such point.
        """
        if isinstance(index, slice):
            return Points.of(tuple(self)[index])
        x, y = _POINT.unpack_from(self.packed, range(len(self))[index] * _POINT.size)
        return x, y

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Tell pydantic to read and write a list of pairs."""
        read = core_schema.no_info_after_validator_function(cls.of, _PAIRS)
        return core_schema.json_or_python_schema(
            json_schema=read,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), read]),
            serialization=core_schema.plain_serializer_function_ser_schema(tuple, return_schema=_PAIRS),
        )
