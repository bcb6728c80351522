"""The kinds of dataset that can be named on the command line as `KIND:PATH`: one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgefetal_calibration.datasets import hc18
from edgefetal_devices.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefetal_calibration.datasets.hc18 import HeadCase


@dataclass(frozen=True)
class DatasetKind:
    """One row of the table.

    Args:
        name: name on the command line.
        read: lists the labelled pictures of a folder.
        licence: licence of the published data.
        attribution: the sentence that it asks for.
    """

    name: str
    read: Callable[[Path], list[HeadCase]]
    licence: str
    attribution: str


TABLE = (DatasetKind("hc18", hc18.read_hc18, hc18.LICENCE, hc18.ATTRIBUTION),)


def dataset_kind(name: str) -> DatasetKind:
    """Look up a kind by name.

    Raises:
        DatasetError: there is no such kind.
    """
    for kind in TABLE:
        if kind.name == name:
            return kind
    message = f"There is no dataset kind {name!r}; choose one of {', '.join(kind.name for kind in TABLE)}."
    raise DatasetError(message)


def read_dataset(text: str) -> tuple[DatasetKind, list[HeadCase]]:
    """Read a dataset named as `KIND:PATH`.

    Raises:
        DatasetError: the text is not of that form, the kind is unknown, or the folder has not its layout.
    """
    name, colon, path = text.partition(":")
    if not colon or not path:
        message = f"{text!r} does not name a dataset; write KIND:PATH, such as hc18:data/hc18."
        raise DatasetError(message)
    kind = dataset_kind(name)
    return kind, kind.read(Path(path).expanduser())
