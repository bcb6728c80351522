"""What all parts of the store work on: its folder, database, blobs, reserve and clock, behind one lock."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import os
import sqlite3
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from edgefetal_devices.errors import EdgeFetalError, OutputError, StoreError
from edgefetal_runtime.store import audit
from edgefetal_runtime.store.blobs import Blobs
from edgefetal_runtime.store.disk import Disk
from edgefetal_runtime.store.policy import MIB, Policy
from edgefetal_runtime.store.recording import SUFFIX
from edgefetal_runtime.store.reserve import Reserve
from edgefetal_runtime.store.schema import (
    DATABASE,
    WAL,
    DatabaseFault,
    damaged,
    open_database,
    open_database_to_read,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

T = TypeVar("T")

_LOCK = "lock"
_BLOBS = "blobs"
_RECORDINGS = "recordings"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# SQLite reports a full disk as an I/O error where its shared memory finds no room.
_NEARLY_NOTHING_BYTES = MIB


def utc_now() -> dt.datetime:
    """Return the clock."""
    return dt.datetime.now(dt.timezone.utc)


@dataclass(eq=False)
class Vault:
    """An opened store.

    Args:
        folder: where it is.
        policy: its rules.
        disk: the door to the disk.
        clock: returns the time, with its zone.
        connection: the database.
        close_connection: closes it.
        lock_descriptor: the lock file of the process that owns the store, or None for a reader.
        reading_only: why nothing can be written, or None.
    """

    folder: Path
    policy: Policy
    disk: Disk
    clock: Callable[[], dt.datetime]
    connection: sqlite3.Connection
    close_connection: Callable[[], None]
    lock_descriptor: int | None
    reading_only: str | None
    lock: threading.RLock = field(default_factory=threading.RLock)
    open_exams: set[str] = field(default_factory=set)
    _unwritten: int = 0

    def __post_init__(self) -> None:
        """Name the parts of the folder."""
        self.blobs = Blobs(self.folder / _BLOBS, self.disk)
        self.recordings = self.folder / _RECORDINGS
        self.reserve = Reserve(self.folder / "reserve", self.policy.reserve_bytes, self.disk)
        self.head = audit.Head(self.folder / audit.HEAD, self.disk)

    def close(self) -> None:
        """Close the database and let others own the store."""
        with self.lock:
            self.close_connection()
            if self.lock_descriptor is not None:
                os.close(self.lock_descriptor)
                self.lock_descriptor = None
            self.reading_only = "it was closed"

    def recording_path(self, exam_id: str) -> Path:
        """Return where the frames of an exam are or would be."""
        return self.recordings / f"{exam_id}{SUFFIX}"

    def subject(self, patient_id: str | None) -> str:
        """Return what stands for a patient in the audit trail."""
        salt = self.connection.execute("SELECT value FROM meta WHERE key = 'salt'").fetchone()[0]
        return audit.subject_hash(salt, patient_id)

    def require_writable(self) -> None:
        """Refuse to write to a store that is open for reading.

        Raises:
            OutputError: it is.
        """
        if self.reading_only is not None:
            message = f"Nothing can be written to the exam store {self.folder}, because {self.reading_only}."
            raise OutputError(message)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Hold the lock while reading.

        Raises:
            StoreError: the database is damaged, or was closed.
        """
        with self.lock:
            try:
                yield self.connection
            except DatabaseFault as error:
                fault = translated(error, self.folder)
                if isinstance(fault, StoreError):
                    raise fault from error
                message = f"The exam store {self.folder} cannot be read ({fault.strerror}); check the disk."
                raise StoreError(message) from error

    @contextlib.contextmanager
    def change(
        self, event: str | None, patient_id: str | None = None, **details: object
    ) -> Iterator[sqlite3.Connection]:
        """Run one transaction with its audit entry; when it returns, both outlast a power cut.

        Args:
            event: what the audit trail says; None for steps on the way, which it leaves out.
            patient_id: whom it is about, if anybody.
            details: what else the trail says; JSON's types.

        Raises:
            OSError: the disk refuses; nothing was changed, as far as the disk tells.
            StoreError: the database is damaged.
            OutputError: the store is open for reading.
        """
        with self.lock:
            self.require_writable()
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                yield self.connection
                entry = None if event is None else self._audit(event, patient_id, details)
                self.connection.execute("COMMIT")
            except BaseException as error:
                self._roll_back()
                if isinstance(error, DatabaseFault):
                    raise self._fault(error) from error
                raise
            if entry is None:
                return
            self._unwritten = 0
            # The change stands. A head that lags behind is no contradiction, and the next entry brings it forward.
            with contextlib.suppress(OSError):
                self.head.write(entry)

    def _audit(self, event: str, patient_id: str | None, details: Mapping[str, Any]) -> audit.Entry:
        if self._unwritten:
            details = {**details, "entries_lost_before": self._unwritten}
        jump_days = self.policy.clock_jump_days
        return audit.append(self.connection, self.clock(), event, self.subject(patient_id), details, jump_days)

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def _fault(self, error: Exception) -> OSError | StoreError:
        """Return what SQLite's error comes from; after a disk that fails rather than fills, write no more."""
        fault = translated(error, self.folder)
        if isinstance(fault, OSError) and fault.errno in (errno.EIO, errno.EROFS):
            if self.disk.free_bytes(self.folder) < _NEARLY_NOTHING_BYTES:
                return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # What a failed sync has lost, a second one would not miss: only a fresh start reads the disk again.
            self.reading_only = f"the disk failed ({fault.strerror}); close the store and open it again"
        return fault

    def note(self, event: str, patient_id: str | None = None, **details: object) -> None:
        """Add an audit entry for something that changes nothing; it is not refused where that cannot be written.

        Care goes first: an exam can be seen on a full disk. The next entry then says how many were lost.
        """
        if self.reading_only is not None:
            return
        try:
            with self.change(event, patient_id, **details):
                pass
        except OSError:
            self._unwritten += 1

    def with_reserve(self, action: Callable[[], T]) -> T:
        """Do something that must not fail on a full disk: there the reserve is given up and it is done again.

        Raises:
            OutputError: the disk refuses all the same.
        """
        try:
            try:
                return action()
            except OSError as error:
                if error.errno not in _FULL or not self.reserve.is_there():
                    raise
                self.reserve.give_up()
                return action()
        except OSError as error:
            raise self.refused(error) from error

    def refused(self, error: OSError) -> OutputError:
        """Return the message for a disk that refuses."""
        return OutputError(
            f"The exam store {self.folder} cannot be written ({error.strerror}); free space or mend the disk, then try "
            "again. What was said to be saved is kept."
        )

    def free_bytes(self) -> int:
        """Return what is free on the disk, the reserve not counted."""
        return self.disk.free_bytes(self.folder)

    def purge_log(self) -> bool:
        """Move all changes from the write-ahead log into the database and empty it; say whether readers let it.

        Raises:
            OSError: the disk refuses.
        """
        try:
            busy = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except DatabaseFault as error:
            raise self._fault(error) from error
        # SQLite shortens the log and does not wait for the disk: the old content could come back after a power cut.
        if (self.folder / WAL).exists():
            self.disk.sync(self.folder / WAL)
        return not busy


def open_vault(folder: Path, policy: Policy, disk: Disk, clock: Callable[[], dt.datetime]) -> Vault:
    """Open a store as its owner, making it if need be; where the disk is read-only, for reading.

    Raises:
        StoreError: another process owns it, or it is damaged.
        OutputError: the disk refuses.
    """
    try:
        _make_folders(folder, disk)
        descriptor = _take_lock(folder, disk)
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and (folder / DATABASE).exists():
            return open_vault_to_read(folder, f"its disk is read-only ({error.strerror}); mount it writable", disk)
        message = f"The exam store {folder} cannot be made ({error.strerror}); check the folder, space and permissions."
        raise OutputError(message) from error
    try:
        _refuse_lost_database(folder)
        connection = open_database(folder, lambda: disk.sync(folder))
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EROFS:
            return open_vault_to_read(folder, "its disk is read-only; mount it writable", disk)
        message = f"The exam store {folder} cannot be opened ({error.strerror}); check the disk, space and permissions."
        raise OutputError(message) from error
    except EdgeFetalError:
        os.close(descriptor)
        raise
    return Vault(folder, policy, disk, clock, connection, connection.close, descriptor, None)


def open_vault_to_read(folder: Path, why: str, disk: Disk) -> Vault:
    """Open a store for reading, beside the process that owns it or on a read-only disk.

    Raises:
        StoreError: it is none, is damaged, or cannot be read.
    """
    connection, close = open_database_to_read(folder)
    return Vault(folder, Policy(), disk, utc_now, connection, close, None, why)


def _make_folders(folder: Path, disk: Disk) -> None:
    missing = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    for path in reversed(missing):
        disk.mkdir(path)
        disk.sync(path.parent)
    for path in (folder / _BLOBS, folder / _RECORDINGS):
        if not path.is_dir():
            disk.mkdir(path)
    disk.sync(folder)


def _take_lock(folder: Path, disk: Disk) -> int:
    """Own the store until the descriptor is closed or the process ends, however it ends.

    Raises:
        StoreError: another process owns it.
    """
    descriptor = disk.open_lock(folder / _LOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        message = (
            f"The exam store {folder} is in use by another process (number {owner}); close that one first. Exams can "
            "be listed, shown and exported meanwhile."
        )
        raise StoreError(message) from error
    # Only for that message; on a full disk it stays empty.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _refuse_lost_database(folder: Path) -> None:
    """Refuse to begin an empty database where there was one: it would make all exams vanish without a word.

    Raises:
        StoreError: there was one.
    """
    database = folder / DATABASE
    if database.exists() and database.stat().st_size:
        return
    if (folder / audit.HEAD).exists() or any(Blobs(folder / _BLOBS, Disk()).hashes()):
        raise damaged(folder, f"{DATABASE} is missing or empty")
