"""What is decided in advance: what gives way on a full disk, and how long things are kept."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Policy:
    """Rules of one store. As a disk fills, recording stops first, then pictures; measurements have a reserve.

    Args:
        reserve_bytes: kept free by a file of this size, which is given up for nothing but measurements, and deletions.
        stop_recording_below_bytes: with less free than this, frames are no longer recorded.
        leave_out_pictures_below_bytes: with less free than this, pictures are left out, and the exam says so.
        keep_recordings_days: age at which `apply_retention` removes recordings; None keeps them.
        keep_exams_days: age at which `apply_retention` removes exams; None keeps them.
        clock_jump_days: a clock that went further than this since the last audit entry is doubted, and nothing is
            deleted by age until somebody has confirmed it.
    """

    reserve_bytes: int = 64 * MIB
    stop_recording_below_bytes: int = 2048 * MIB
    leave_out_pictures_below_bytes: int = 256 * MIB
    keep_recordings_days: float | None = None
    keep_exams_days: float | None = None
    clock_jump_days: float = 60.0

    def __post_init__(self) -> None:
        """Refuse rules that contradict each other.

        Raises:
            ValueError: a size or an age is not positive, or pictures would go before recordings.
        """
        if self.reserve_bytes < MIB:
            raise ValueError("the reserve must hold an exam: at least one MiB")
        if not 0 <= self.leave_out_pictures_below_bytes <= self.stop_recording_below_bytes:
            raise ValueError("recording must stop before pictures are left out")
        ages = (self.keep_recordings_days, self.keep_exams_days, self.clock_jump_days)
        # Written so that an age that is no number is refused too.
        if not all(age is None or age > 0 for age in ages):
            raise ValueError("ages are in days and positive")
