"""Disks that fail, fill up or lose power, and one exam to save on them."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import hashlib
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sqlite_shim import FULL, IOERR_WRITE, OK, READONLY, Shim, sqlite_library

from edgefetal_runtime.exam.record import BundleRecord
from edgefetal_runtime.store.disk import Disk
from edgefetal_runtime.store.policy import MIB, Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefetal_runtime.store.envelope import StoredExam
    from edgefetal_runtime.store.exams import ExamStore

BUNDLE = BundleRecord(name="starter", sha256="0" * 64, backend="onnxruntime")
# Small, so that a disk can be filled; no limit of free space, so that the machine's own does not matter.
POLICY = Policy(reserve_bytes=MIB, stop_recording_below_bytes=0, leave_out_pictures_below_bytes=0)
RECORD = '{\n "hc_mm": 265.5\n}\n'
SECTOR = 512


class WatchedDisk(Disk):
    """Calls `on_effect(kind, path, *what)` before each change; it may raise instead."""

    def __init__(self, on_effect: Callable[..., int]) -> None:
        self._effect = on_effect

    def write(self, path: Path, content: bytes) -> None:
        self._effect("replace", path, content)
        super().write(path, content)

    def append(self, path: Path, content: bytes) -> None:
        self._effect("append", path, content)
        super().append(path, content)

    def allocate(self, path: Path, size_bytes: int) -> None:
        self._effect("allocate", path, size_bytes)
        super().allocate(path, size_bytes)

    def sync(self, path: Path) -> None:
        self._effect("sync", path)
        super().sync(path)

    def rename(self, old: Path, new: Path) -> None:
        self._effect("rename", old, new)
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        if path.exists():
            self._effect("unlink", path)
        super().unlink(path)

    def mkdir(self, path: Path) -> None:
        if not path.exists():
            self._effect("mkdir", path)
        super().mkdir(path)


@dataclass
class Fault:
    """Fails the n-th effect, or all from there on.

    Args:
        at: which effect, from 0; None for none.
        number: the error.
        lasting: also fail every later one but removals.
    """

    at: int | None
    number: int = errno.ENOSPC
    lasting: bool = False
    count: int = 0
    kinds: list[str] = field(default_factory=list)

    def __call__(self, kind: str, path: Path, *_: object) -> int:
        n = self.count
        self.count += 1
        self.kinds.append(kind)
        if self.at is None or not (n == self.at or (self.lasting and n > self.at)):
            return OK
        if self.lasting and self.number == errno.ENOSPC and kind in ("unlink", "truncate", "sync", "rename"):
            return OK
        raise OSError(self.number, "injected", str(path))


def for_sqlite(effect: Callable[..., int]) -> Callable[..., int]:
    """Turn an effect's `OSError` into SQLite's answer; an exception would be lost in C."""
    codes = {errno.ENOSPC: FULL, errno.EROFS: READONLY}

    def answered(kind: str, path: Path, *what: object) -> int:
        try:
            return effect(kind, path, *what)
        except OSError as error:
            return codes.get(error.errno or 0, IOERR_WRITE)

    return answered


@contextlib.contextmanager
def watched(effect: Callable[..., int]) -> Iterator[WatchedDisk]:
    """Number the effects of the store and of SQLite together, in their order."""
    library = sqlite_library()
    assert library is not None
    with Shim(library, for_sqlite(effect)).installed():
        yield WatchedDisk(effect)


def seeded(seed: object) -> random.Random:
    """Return what decides on faults, the same in every run."""
    return random.Random(str(seed))  # noqa: S311 - faults are no secret


def pictures(seed: int, n: int = 5) -> dict[str, bytes]:
    rng = seeded(seed)
    return {f"overlay-{i:03d}.png": b"\x89PNG" + rng.randbytes(2000) for i in range(n)}


def save_one(store: ExamStore, patient_id: str | None, seed: int, n: int = 5) -> StoredExam:
    """Do a whole exam: a checkpoint, a picture on the way, a recorded frame, and five overlays."""
    exam = store.begin(patient_id, f"sweep {seed}.mp4", BUNDLE)
    exam.add_picture(b"\x89PNG" + bytes([seed % 256]) * 700, "sweep", 3, 0.25, "plane")
    exam.checkpoint('{"partial": 1}')
    exam.record_frame(np.full((4, 6), seed % 256, np.uint8), 0, 0.0)
    return exam.save_record(RECORD, pictures(seed, n))


def whole(store: ExamStore, exam: StoredExam) -> bool:
    """Say whether an exam is in the store to the byte."""
    found = store.get(exam.exam_id)
    return found == exam and all(
        hashlib.sha256(store.picture(exam.exam_id, p.name)).hexdigest() == p.sha256 for p in exam.pictures
    )


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: dt.datetime = dt.datetime(2026, 3, 1, 8, 0, tzinfo=dt.timezone.utc)

    def __call__(self) -> dt.datetime:
        self.now += dt.timedelta(seconds=1)
        return self.now


# --- power cuts -----------------------------------------------------------------------------------------------------

Event = tuple[object, ...]


@dataclass
class Log:
    """Everything that was done to the disk, in order, and what was said to be saved in between."""

    root: Path
    events: list[Event] = field(default_factory=list)

    def __call__(self, kind: str, path: Path, *what: object) -> int:
        # The shared memory of SQLite's log does not outlast a power cut, and nobody expects it to.
        if path.name.endswith("-shm"):
            return OK
        relative = tuple(w.relative_to(self.root) if isinstance(w, Path) else w for w in what)
        self.events.append((kind, path.relative_to(self.root), *relative))
        return OK

    def say(self, what: str, value: object) -> None:
        """Note that the store said something."""
        self.events.append((what, value))


@dataclass
class _Inode:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)


def _applied(content: bytearray, event: Event) -> None:
    if event[0] == "write":
        offset, data = int(event[1]), event[2]  # type: ignore[call-overload]
        assert isinstance(data, bytes)
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data
    else:
        size = int(event[1])  # type: ignore[call-overload]
        del content[size:]
        content.extend(bytes(size - len(content)))


@dataclass
class PowerCut:
    """A disk of which only what was synced is sure.

    Names are as unsure as content: a new, renamed or removed file is sure once its folder was synced.
    """

    inodes: list[_Inode] = field(default_factory=list)
    # Names as the running system sees them, and as they are surely on the disk; a folder is None.
    live: dict[Path, int | None] = field(default_factory=dict)
    durable: dict[Path, int | None] = field(default_factory=dict)
    # Changes of names since the last sync of their folder: what appears and what goes, at once.
    names: list[tuple[dict[Path, int | None], tuple[Path, ...]]] = field(default_factory=list)

    def _new(self, path: Path) -> _Inode:
        self.inodes.append(_Inode())
        self._renamed({path: len(self.inodes) - 1}, ())
        return self.inodes[-1]

    def _renamed(self, appears: dict[Path, int | None], goes: tuple[Path, ...]) -> None:
        for path in goes:
            self.live.pop(path, None)
        self.live.update(appears)
        self.names.append((appears, goes))

    def _inode(self, path: Path) -> _Inode:
        number = self.live.get(path)
        return self._new(path) if number is None else self.inodes[number]

    def apply(self, event: Event) -> None:
        """Do one thing of the log."""
        kind, path = event[0], event[1]
        if not isinstance(path, Path):
            return
        if kind in ("open", "write", "truncate", "replace", "append", "allocate"):
            inode = self._inode(path)
            inode.pending += self._writes(kind, inode, event[2:])
        elif kind == "rename":
            new = event[2]
            assert isinstance(new, Path)
            self._renamed({new: self.live[path]}, (path,))
        elif kind == "unlink":
            self._renamed({}, (path,))
        elif kind == "mkdir":
            self._renamed({path: None}, ())
        elif kind == "sync":
            self._sync(path)
        else:
            raise AssertionError(kind)

    def _writes(self, kind: str, inode: _Inode, what: Event) -> list[Event]:
        """Return what one thing of the log does to a file's content, as writes and truncations."""
        if kind == "replace":
            return [("truncate", 0), ("write", 0, what[0])]
        if kind == "append":
            return [("write", len(self._now(inode)), what[0])]
        if kind == "open":
            return []
        return [("truncate" if kind == "allocate" else kind, *what)]

    @staticmethod
    def _now(inode: _Inode) -> bytearray:
        content = bytearray(inode.durable)
        for event in inode.pending:
            _applied(content, event)
        return content

    def _sync(self, path: Path) -> None:
        number = self.live.get(path)
        if number is not None:
            inode = self.inodes[number]
            inode.durable, inode.pending = self._now(inode), []
            return
        waiting = []
        for appears, goes in self.names:
            if path in {p.parent for p in (*appears, *goes)}:
                _renamed(self.durable, appears, goes)
            else:
                waiting.append((appears, goes))
        self.names = waiting

    def after(self, how: str, rng: random.Random, to: Path) -> None:
        """Write the disk as it may be found after the cut.

        Args:
            how: `dropped`: nothing that was not synced is there; `kept`: all is; `mixed`: some of it, in any order, and
                writes torn at sectors.
            rng: decides what.
            to: an empty folder.
        """
        names = dict(self.durable)
        for appears, goes in self.names:
            if how == "kept" or (how == "mixed" and rng.random() < 0.5):
                _renamed(names, appears, goes)
        for path, number in sorted(names.items()):
            # A name in a folder that was itself lost is lost with it.
            if path.parent != Path() and names.get(path.parent, 0) is not None:
                continue
            if number is None:
                (to / path).mkdir(exist_ok=True)
            elif path.name != "reserve":
                (to / path).write_bytes(self._content(self.inodes[number], how, rng))

    def _content(self, inode: _Inode, how: str, rng: random.Random) -> bytes:
        if how == "dropped":
            return bytes(inode.durable)
        if how == "kept":
            return bytes(self._now(inode))
        content = bytearray(inode.durable)
        pending = [event for event in inode.pending if rng.random() < 0.6]
        if rng.random() < 0.5:
            rng.shuffle(pending)
        for event in pending:
            data = event[2] if event[0] == "write" else b""
            assert isinstance(data, bytes)
            if event[0] == "write" and len(data) > SECTOR and rng.random() < 0.5:
                sectors = rng.sample(range(0, len(data), SECTOR), k=rng.randrange(1, 1 + len(data) // SECTOR))
                for start in sectors:
                    _applied(content, ("write", int(event[1]) + start, data[start : start + SECTOR]))  # type: ignore[call-overload]
            else:
                _applied(content, event)
        return bytes(content)


def _renamed(names: dict[Path, int | None], appears: dict[Path, int | None], goes: tuple[Path, ...]) -> None:
    for path in goes:
        names.pop(path, None)
    names.update(appears)


def fresh_folder(path: Path) -> Path:
    """Empty a folder."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
