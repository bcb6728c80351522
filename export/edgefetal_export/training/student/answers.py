"""What the teachers say of every frame: asked once, and kept on disk by the content of exam and teacher.

CACHE/<teacher>/<exam>.npz     named by the SHA-256 of the teacher and of the exam
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_devices.errors import CheckFailedError
from edgefetal_export.training.student.teachers import SweepAnswer
from edgefetal_runtime.atomic import write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_calibration.datasets.labelled import LabelledExam
    from edgefetal_export.training.student.teachers import Teacher

_PARTS = tuple(part.name for part in fields(SweepAnswer))


@dataclass(frozen=True, eq=False)
class Taught:
    """What one teacher says of one frame; a part that it does not know is None.

    Args:
        masks: probability of its structures, 0 to 255, shape (structures, h, w), uint8.
        to_frame: from pixels of these masks to those of the frame, shape (2, 3).
        planes: probability of its planes, shape (planes,).
        features: shape (F,).
        quality: 0 to 1.
        skill: 0 to 1; None also where the sweep is too short to be judged.
    """

    masks: npt.NDArray[np.uint8] | None
    to_frame: npt.NDArray[np.float64]
    planes: npt.NDArray[np.float32] | None
    features: npt.NDArray[np.float32] | None
    quality: float | None
    skill: float | None


def frame_digest(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Hash a frame's size and pixels."""
    return hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).tobytes()).digest()


def ask(
    teachers: Sequence[Teacher],
    exams: Sequence[LabelledExam],
    cache: Path,
    advance: Callable[[], None] = lambda: None,
) -> dict[bytes, tuple[Taught, ...]]:
    """Ask every teacher about every frame, or read what it said before.

    Args:
        teachers: who is asked.
        exams: about whose frames; their labels are not looked at.
        cache: folder of the answers; may be shared by any number of runs.
        advance: called after every exam.

    Returns:
        The teachers' answers, in their order, by the digest of the frame.

    Raises:
        CheckFailedError: a teacher answered with something that is no number.
        DatasetError: an exam cannot be read.
    """
    answers: dict[bytes, tuple[Taught, ...]] = {}
    for exam in exams:
        paths = [cache / teacher.record.sha256[:16] / f"{exam.digest()}.npz" for teacher in teachers]
        known = [_read(path) for path in paths]
        if any(answer is None for answer in known):
            swept = list(exam.sweeps())
            for place, (teacher, path) in enumerate(zip(teachers, paths, strict=True)):
                if known[place] is None:
                    said = [(sweep_digests(sweep.pixels), teacher.answer(sweep)) for sweep in swept]
                    _require_numbers(teacher, exam, [answer for _, answer in said])
                    known[place] = said
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_file(path, _packed(said))
        for per_sweep in zip(*[answer or [] for answer in known], strict=True):
            for index, digest in enumerate(per_sweep[0][0]):
                answers[digest] = tuple(_of_frame(answer, index) for _, answer in per_sweep)
        advance()
    return answers


def sweep_digests(pixels: npt.NDArray[np.uint8]) -> list[bytes]:
    """Hash every frame of a sweep, shape (N, H, W)."""
    return [frame_digest(frame) for frame in pixels]


def _of_frame(answer: SweepAnswer, index: int) -> Taught:
    skill = float(answer.skill[index]) if len(answer.skill) else None
    return Taught(
        masks=answer.masks[index] if len(answer.masks) else None,
        to_frame=answer.to_frame,
        planes=answer.planes[index] if len(answer.planes) else None,
        features=answer.features[index] if len(answer.features) else None,
        quality=float(answer.quality[index]) if len(answer.quality) else None,
        skill=None if skill is None or np.isnan(skill) else skill,
    )


def _require_numbers(teacher: Teacher, exam: LabelledExam, said: Sequence[SweepAnswer]) -> None:
    """Refuse to learn from a teacher that is broken."""
    for answer in said:
        if not all(np.isfinite(part).all() for part in (answer.planes, answer.features, answer.quality)):
            message = (
                f"The teacher {teacher.record.recipe} answers on {exam.name} with something that is no number; "
                "leave it out or train it anew."
            )
            raise CheckFailedError(message)


def _packed(said: Sequence[tuple[list[bytes], SweepAnswer]]) -> bytes:
    """Write answers as an archive of plain arrays."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for number, (digests, answer) in enumerate(said):
        arrays[f"{number}/digests"] = np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), -1)
        arrays |= {f"{number}/{part}": getattr(answer, part) for part in _PARTS}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _read(path: Path) -> list[tuple[list[bytes], SweepAnswer]] | None:
    """Read answers; None where there are none, or the file is damaged and they are asked for again."""
    try:
        content: Mapping[str, npt.NDArray[np.generic]] = dict(
            np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        )
        sweeps = 1 + max(int(name.partition("/")[0]) for name in content)
        return [
            (
                [row.tobytes() for row in content[f"{number}/digests"]],
                SweepAnswer(**{part: content[f"{number}/{part}"] for part in _PARTS}),  # type: ignore[arg-type]
            )
            for number in range(sweeps)
        ]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
