"""How often a network names the plane that a frame shows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from edgefetal_devices.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from edgefetal_calibration.datasets.labelled import LabelledExam, LabelledSweep


def count_planes(
    exams: Iterable[LabelledExam],
    name_planes: Callable[[LabelledSweep], Sequence[str]],
    advance: Callable[[], None] = lambda: None,
) -> Counter[tuple[str, str]]:
    """Count frames by the plane that they show and the one that is named, a sweep at a time in memory.

    Args:
        exams: whose frames' planes are known.
        name_planes: names the plane of every frame of a sweep, in the names of the output contract.
        advance: called after each exam.

    Raises:
        DatasetError: an exam cannot be read, or does not say which planes its frames show.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for exam in exams:
        for sweep in exam.sweeps():
            if sweep.planes is None:
                raise DatasetError(
                    f"{exam.name}: nobody said which planes the frames of {sweep.name} show; give data that do, such "
                    "as planes-db:PATH or phantom:PATH."
                )
            counts.update(zip(sweep.planes, name_planes(sweep), strict=True))
        advance()
    return counts


def summarise_planes(counts: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """Return accuracy, and of each plane how many of it were found and how many that were named are of it.

    A figure that is undefined, such as the recall of a plane that no frame shows, is None.

    Args:
        counts: frames by the plane that they show and the one that was named.
    """
    total = sum(counts.values())
    names = sorted({name for pair in counts for name in pair})
    planes: dict[str, dict[str, float | int | None]] = {}
    for name in names:
        right = counts.get((name, name), 0)
        shown = sum(count for (plane, _), count in counts.items() if plane == name)
        named = sum(count for (_, plane), count in counts.items() if plane == name)
        planes[name] = {
            "n": shown,
            "n_named": named,
            "recall": right / shown if shown else None,
            "precision": right / named if named else None,
        }
    right = sum(count for (plane, named_as), count in counts.items() if plane == named_as)
    return {
        "n": total,
        "accuracy": right / total if total else None,
        "planes": planes,
        "confusion": [{"shows": plane, "named": named_as, "n": n} for (plane, named_as), n in sorted(counts.items())],
    }
