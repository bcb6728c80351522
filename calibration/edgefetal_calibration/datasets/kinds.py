"""The kinds of dataset that can be named on the command line as `KIND:PATH`: one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgefetal_calibration.datasets import acouslic, folder, hc18, phantom, planes_db
from edgefetal_calibration.datasets.hc18 import HeadCase
from edgefetal_devices.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefetal_calibration.datasets.labelled import LabelledExam


@dataclass(frozen=True)
class DatasetKind:
    """One row of the table.

    Args:
        name: name on the command line.
        read: lists the exams of a folder.
        licence: licence of the published data.
        attribution: the sentence that it asks for.
    """

    name: str
    read: Callable[[Path], Sequence[LabelledExam]]
    licence: str
    attribution: str


TABLE = (
    DatasetKind(hc18.KIND, hc18.read_hc18, hc18.LICENCE, hc18.ATTRIBUTION),
    DatasetKind(acouslic.KIND, acouslic.read_acouslic, acouslic.LICENCE, acouslic.ATTRIBUTION),
    DatasetKind(planes_db.KIND, planes_db.read_planes_db, planes_db.LICENCE, planes_db.ATTRIBUTION),
    DatasetKind(phantom.KIND, phantom.read_phantom, phantom.LICENCE, phantom.ATTRIBUTION),
    DatasetKind(folder.KIND, folder.read_folder, folder.LICENCE, folder.ATTRIBUTION),
)


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


def read_exams(text: str) -> tuple[DatasetKind, list[LabelledExam]]:
    """Read a dataset named as `KIND:PATH`.

    Raises:
        DatasetError: the text is not of that form, the kind is unknown, or the folder has not its layout.
    """
    name, colon, path = text.partition(":")
    if not colon or not path:
        message = f"{text!r} does not name a dataset; write KIND:PATH, such as hc18:data/hc18."
        raise DatasetError(message)
    kind = dataset_kind(name)
    return kind, list(kind.read(Path(path).expanduser()))


def read_heads(text: str) -> tuple[DatasetKind, list[HeadCase]]:
    """Read a dataset of single pictures with annotated heads, for what can use no other.

    Raises:
        DatasetError: as `read_exams` does, or the dataset is of another kind.
    """
    kind, exams = read_exams(text)
    heads = [exam for exam in exams if isinstance(exam, HeadCase)]
    if len(heads) < len(exams):
        raise DatasetError(
            f"{text!r} holds no pictures with annotated heads, which are needed here; give hc18:PATH. Simulated heads "
            "in that layout lie in the folder hc18/ of each exam that "
            "`edgefetal phantom --protocol head --format png` writes."
        )
    return kind, heads
