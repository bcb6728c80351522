"""The split by subject: who was trained on, who chose the checkpoint, who was never seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence  # noqa: TC003 - pydantic reads annotations at run time
from enum import Enum
from typing import Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from edgefetal_devices.errors import DatasetError


class Part(str, Enum):
    """A part of a dataset."""

    TRAIN = "train"
    VALIDATION = "validation"
    HELD_OUT = "held-out"


class Case(Protocol):
    """What a split needs to know of a labelled case."""

    @property
    def name(self) -> str:
        """File name."""

    @property
    def subject(self) -> str:
        """Whose picture it is."""

    def digest(self) -> str:
        """SHA-256 of its pixels."""


CaseT = TypeVar("CaseT", bound=Case)


class Split(BaseModel):
    """Which subjects are in which part; written beside the model and into the bundle.

    Args:
        dataset: kind of the dataset, such as `hc18`.
        seed: seed of the draw.
        parts: subject to part.
        digests: content hash of every picture of the training and validation subjects, with its subject, by which they
            are known again under other names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    seed: int
    parts: dict[str, Part]
    digests: dict[str, str]

    def select(self, cases: Iterable[CaseT], part: Part) -> list[CaseT]:
        """Return the cases of one part.

        A collection is recognised by the content of its pictures. If it shares none with training and validation, it is
        another collection, whose subject numbers mean nothing here, and every case of it is held out.
        """
        cases = list(cases)
        # A known picture says whose subject it is, whatever its file is called here.
        known = {
            case.subject: self.parts[self.digests[digest]]
            for case in cases
            if (digest := case.digest()) in self.digests
        }
        if not known:
            return cases if part is Part.HELD_OUT else []
        return [case for case in cases if known.get(case.subject, self.parts.get(case.subject, Part.HELD_OUT)) is part]


def split_by_subject(cases: Sequence[Case], *, dataset: str, seed: int, validation: float, held_out: float) -> Split:
    """Draw a split in which no subject is in two parts.

    Subjects are ranked by a hash of the seed and their name, so the draw depends on nothing else and a subject that is
    added later moves few of the others.

    Args:
        cases: labelled cases.
        dataset: kind of the dataset.
        seed: seed of the draw.
        validation: share of the subjects that choose the checkpoint.
        held_out: share of the subjects that are never seen.

    Raises:
        DatasetError: there are too few subjects for three parts.
    """
    subjects = sorted({case.subject for case in cases}, key=lambda s: hashlib.sha256(f"{seed}:{s}".encode()).digest())
    n_held_out, n_validation = (max(1, round(share * len(subjects))) for share in (held_out, validation))
    if len(subjects) < n_held_out + n_validation + 1:
        message = f"The dataset has {len(subjects)} subject(s); a split by subject needs at least three."
        raise DatasetError(message)
    parts = {
        subject: Part.HELD_OUT
        if rank < n_held_out
        else Part.VALIDATION
        if rank < n_held_out + n_validation
        else Part.TRAIN
        for rank, subject in enumerate(subjects)
    }
    digests = {case.digest(): case.subject for case in cases if parts[case.subject] is not Part.HELD_OUT}
    return Split(dataset=dataset, seed=seed, parts=dict(sorted(parts.items())), digests=digests)


ALL = "all"


def select_part(split: Split, cases: Sequence[CaseT], part: str) -> list[CaseT]:
    """Return the cases of a part named on the command line, or `all`.

    Raises:
        DatasetError: there is no such part, or the dataset holds nothing of it.
    """
    names = [known.value for known in Part]
    if part not in (*names, ALL):
        message = f"There is no part {part!r}; choose one of {', '.join((*names, ALL))}."
        raise DatasetError(message)
    chosen = list(cases) if part == ALL else split.select(cases, Part(part))
    if not chosen:
        message = f"The dataset holds no pictures of the {part} part; give other data, or choose another --part."
        raise DatasetError(message)
    return chosen
