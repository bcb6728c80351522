"""The split by subject: who was trained on, who chose the checkpoint, who was never seen.

Nobody is in two parts: neither by name, nor by the content of a picture or an exam that stands under two names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence  # noqa: TC003 - pydantic reads annotations at run time
from enum import Enum
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from typing_extensions import Self  # noqa: TC002 - pydantic reads annotations at run time

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


def kind_in_name(subject: str) -> str | None:
    """Return the kind that a subject's name stands with, as in `acouslic/S-017`; None of a bare number of HC18's."""
    kind, slash, _ = subject.partition("/")
    return kind if slash else None


class Split(BaseModel):
    """Which subjects are in which part; written beside the model and into the bundle.

    Args:
        dataset: kind of the dataset, such as `hc18`; of several, joined by `+`.
        seed: seed of the draw.
        parts: subject to part.
        digests: content hash of every picture or exam of the training and validation subjects, with its subject, by
            which they are known again under other names.

    Raises:
        ValidationError: a content hash is of a subject that is in no part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    seed: int
    parts: dict[str, Part]
    digests: dict[str, str]

    @model_validator(mode="after")
    def _digests_are_of_subjects(self) -> Self:
        strangers = set(self.digests.values()) - set(self.parts)
        if strangers:
            raise ValueError(f"the content of subject {min(strangers)} is known, and the subject is in no part")
        return self

    def select(self, cases: Iterable[CaseT], part: Part) -> list[CaseT]:
        """Return the cases of one part.

        A collection is recognised by the content of its pictures. If it shares none with training and validation, it is
        another collection: names that stand with their kind, such as `acouslic/S-017`, are still the same subjects, in
        other pictures or another form; bare numbers mean nothing here, and their cases are held out.

        Raises:
            DatasetError: a subject of these cases holds the content of subjects of two parts.
        """
        cases = list(cases)
        # A known picture says whose subject it is, whatever its file is called here.
        known: dict[str, Case] = {}
        for case in cases:
            if case.digest() not in self.digests:
                continue
            other = known.setdefault(case.subject, case)
            parts = [self.parts[self.digests[one.digest()]] for one in (other, case)]
            if parts[0] is not parts[1]:
                raise DatasetError(
                    f"Subject {case.subject} is in two parts: {other.name} is of the {parts[0].value} part and "
                    f"{case.name} of the {parts[1].value} part; give the two different subjects."
                )
        if not known:
            named = {subject: of for subject, of in self.parts.items() if kind_in_name(subject)}
            return [case for case in cases if named.get(case.subject, Part.HELD_OUT) is part]
        by_content = {subject: self.parts[self.digests[case.digest()]] for subject, case in known.items()}
        return [
            case for case in cases if by_content.get(case.subject, self.parts.get(case.subject, Part.HELD_OUT)) is part
        ]


def parse_split(content: bytes, source: object) -> Split:
    """Read a split's JSON.

    Args:
        content: of the file.
        source: where it came from, for the message.

    Raises:
        DatasetError: it is no split, or names a subject or a picture twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            # JSON takes the last of two equal keys, and the first part of a subject would be forgotten.
            if key in found:
                raise DatasetError(f"{source} has {key[:80]!r} in it twice, so nobody knows its part; draw it anew.")
            found[key] = value
        return found

    try:
        return Split.model_validate(json.loads(content, object_pairs_hook=once))
    except (ValueError, RecursionError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise DatasetError(f"{source} is no split ({why}); give the one that the training run wrote.") from error


def refuse_shared(groups: Mapping[str, Iterable[Case]]) -> None:
    """Refuse groups of cases that are to be of different subjects, and are not.

    Args:
        groups: cases by the name of their group, such as that of a part.

    Raises:
        DatasetError: a subject, or a picture or exam, is in two groups; the message names both.
    """
    subjects: dict[str, tuple[str, Case]] = {}
    contents: dict[str, tuple[str, Case]] = {}
    for group, cases in groups.items():
        for case in cases:
            for place, key in ((subjects, case.subject), (contents, case.digest())):
                other_group, other = place.setdefault(key, (group, case))
                if other_group != group:
                    raise DatasetError(_shared(other, other_group, case, group))


def _shared(a: Case, a_group: str, b: Case, b_group: str) -> str:
    if a.subject == b.subject:
        return (
            f"Subject {a.subject} is in two groups: {a.name} in {a_group} and {b.name} in {b_group}; keep a subject in "
            "one of them."
        )
    return (
        f"{a.name} of subject {a.subject} ({a_group}) and {b.name} of subject {b.subject} ({b_group}) are the same "
        "pictures; remove one of them, or give both one subject."
    )


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
        DatasetError: there are too few subjects for three parts, or two subjects in different parts have the same
            picture or exam.
    """
    return split_datasets([(dataset, cases)], seed=seed, validation=validation, held_out=held_out)


def split_datasets(
    datasets: Iterable[tuple[str, Sequence[Case]]], *, seed: int, validation: float, held_out: float
) -> Split:
    """Draw one split of several datasets, each by itself as `split_by_subject` does, so that each is in every part.

    Args:
        datasets: kind of each dataset and its cases; those of one kind are taken together.
        seed: seed of the draw.
        validation: share of the subjects that choose the checkpoint.
        held_out: share of the subjects that are never seen.

    Raises:
        DatasetError: as `split_by_subject` does, for each of them and for all together.
    """
    by_kind: dict[str, list[Case]] = {}
    for kind, cases in datasets:
        by_kind.setdefault(kind, []).extend(cases)
    parts: dict[str, Part] = {}
    for cases in by_kind.values():
        # A subject of two kinds, which only a reader of one's own can give, keeps the part of the first.
        parts = {**_draw_parts(cases, seed, validation, held_out), **parts}
    every = [case for cases in by_kind.values() for case in cases]
    refuse_shared({part.value: [case for case in every if parts[case.subject] is part] for part in Part})
    digests = {case.digest(): case.subject for case in every if parts[case.subject] is not Part.HELD_OUT}
    return Split(dataset="+".join(by_kind), seed=seed, parts=dict(sorted(parts.items())), digests=digests)


def _draw_parts(cases: Sequence[Case], seed: int, validation: float, held_out: float) -> dict[str, Part]:
    subjects = sorted({case.subject for case in cases}, key=lambda s: hashlib.sha256(f"{seed}:{s}".encode()).digest())
    n_held_out, n_validation = (max(1, round(share * len(subjects))) for share in (held_out, validation))
    if len(subjects) < n_held_out + n_validation + 1:
        message = f"The dataset has {len(subjects)} subject(s); a split by subject needs at least three."
        raise DatasetError(message)
    return {
        subject: Part.HELD_OUT
        if rank < n_held_out
        else Part.VALIDATION
        if rank < n_held_out + n_validation
        else Part.TRAIN
        for rank, subject in enumerate(subjects)
    }


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
