"""The database: its tables, how it is opened, and which version of them this program writes."""

from __future__ import annotations

import contextlib
import errno
import secrets
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgefetal_devices.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

DATABASE = "exams.sqlite"
WAL = DATABASE + "-wal"
# "efEx": what `file` and others know the database by.
APPLICATION_ID = 0x65664578
VERSION = 1

_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    # `body` is the last checkpoint of an open exam, and the envelope of every other one.
    """CREATE TABLE exam (
        exam_id TEXT PRIMARY KEY,
        patient_id TEXT,
        source TEXT NOT NULL,
        bundle_name TEXT NOT NULL,
        bundle_sha256 TEXT NOT NULL,
        backend TEXT NOT NULL,
        begun_utc TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('open', 'interrupted', 'saved')),
        ended_utc TEXT,
        kept_from_utc TEXT,
        notes TEXT NOT NULL,
        recorded_frames INTEGER NOT NULL,
        envelope_sha256 TEXT,
        seal TEXT NOT NULL,
        body TEXT,
        CHECK ((state = 'open') = (envelope_sha256 IS NULL))
    )""",
    "CREATE INDEX exam_by_patient ON exam (patient_id)",
    """CREATE TABLE picture (
        exam_id TEXT NOT NULL REFERENCES exam ON DELETE CASCADE,
        name TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        role TEXT NOT NULL,
        sweep TEXT NOT NULL,
        frame_index INTEGER,
        timestamp_s REAL,
        PRIMARY KEY (exam_id, name)
    ) WITHOUT ROWID""",
    "CREATE INDEX picture_by_blob ON picture (sha256)",
    # Exams that were deleted: their numbers only, so that a deletion cut short is finished and never undone.
    "CREATE TABLE tombstone (exam_id TEXT PRIMARY KEY) WITHOUT ROWID",
    """CREATE TABLE audit (
        seq INTEGER PRIMARY KEY,
        time_utc TEXT NOT NULL,
        latest_utc TEXT NOT NULL,
        event TEXT NOT NULL,
        subject TEXT NOT NULL,
        details TEXT NOT NULL,
        previous_sha256 TEXT NOT NULL,
        sha256 TEXT NOT NULL
    )""",
    "CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'audit entries stay'); END",
    "CREATE TRIGGER audit_grows BEFORE DELETE ON audit BEGIN SELECT raise(ABORT, 'audit entries stay'); END",
)

# What the database raises; where damage has reached a name in it, Python cannot even decode SQLite's message.
DatabaseFault = (sqlite3.Error, UnicodeDecodeError)
# SQLite's own words, which its error codes reach Python 3.10 by.
_ERRNO_BY_MESSAGE = {
    "database or disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "attempt to write a readonly database": errno.EROFS,
    "unable to open database file": errno.EIO,
    "database is locked": errno.EBUSY,
}
# SQLite would take eight times as much before it wrote over what it holds. The checkpoint of a live examination grows
# with every sweep and is written anew each time, and with it the cache would grow for an hour.
_CACHE_KIB = 256


def damaged(folder: Path, what: str) -> StoreError:
    """Return the error that names damage and the way out of it."""
    return StoreError(
        f"The exam store {folder} is damaged ({what}). Nothing was changed. Restore the folder from a copy; or export "
        f"what can be read with: edgefetal exams rescue {folder} --out FOLDER, and begin a new store elsewhere."
    )


def translated(error: Exception, folder: Path) -> OSError | StoreError:
    """Return SQLite's error as the system's error that caused it, or as damage."""
    for message, number in _ERRNO_BY_MESSAGE.items():
        if message in str(error):
            return OSError(number, str(error))
    return damaged(folder, str(error))


def open_database(folder: Path, sync_folder: Callable[[], None]) -> sqlite3.Connection:
    """Open the database for writing, and make it if the folder holds none.

    Args:
        folder: the store.
        sync_folder: makes the list of names in the store outlast a power cut.

    Raises:
        StoreError: it is damaged, newer than this program, or another program's.
        OSError: the disk refuses.
    """
    connection = sqlite3.connect(folder / DATABASE, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
        # A mapped page that cannot be read kills the process; a read that fails is an error.
        connection.execute("PRAGMA mmap_size = 0")
        version = _guarded_version(connection, folder)
        _require_log(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        if version == 0:
            _create(connection)
            # SQLite syncs the database but its name only by the way, with its log's, and not in every build.
            sync_folder()
        _require_sound(connection, folder)
    except DatabaseFault as error:
        connection.close()
        raise translated(error, folder) from error
    except BaseException:
        connection.close()
        raise
    return connection


def open_database_to_read(folder: Path) -> tuple[sqlite3.Connection, Callable[[], None]]:
    """Open the database for reading, on a disk that may be read-only; return it and what closes it.

    Raises:
        StoreError: it is missing or damaged, or cannot be read.
    """
    if not (folder / DATABASE).is_file():
        message = f"{folder} is not an exam store; name the folder that `edgefetal serve` keeps its exams in."
        raise StoreError(message)
    errors: list[Exception] = []
    for opener in (_read_beside_a_writer, _read_a_copy):
        with contextlib.ExitStack() as stack:
            try:
                connection = opener(folder, stack)
                if _guarded_version(connection, folder) == 0:
                    raise damaged(folder, f"{DATABASE} is empty")
                _require_sound(connection, folder)
            except (*DatabaseFault, OSError) as error:
                fault = error if isinstance(error, OSError) else translated(error, folder)
                if isinstance(fault, StoreError):
                    raise fault from error
                errors.append(error)
                continue
            return connection, stack.pop_all().close
    message = f"The exam store {folder} cannot be read ({errors[-1]}); check its permissions and the disk."
    raise StoreError(message) from errors[-1]


def _read_beside_a_writer(folder: Path, stack: contextlib.ExitStack) -> sqlite3.Connection:
    return _connect_to_read(f"{(folder / DATABASE).absolute().as_uri()}?mode=ro", stack)


def _read_a_copy(folder: Path, stack: contextlib.ExitStack) -> sqlite3.Connection:
    """On a read-only disk SQLite can neither finish a write-ahead log nor make its index; in a copy it can."""
    copies = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for name in (DATABASE, WAL):
        if (folder / name).exists():
            shutil.copyfile(folder / name, copies / name)
    return _connect_to_read(str(copies / DATABASE), stack)


def _connect_to_read(name: str, stack: contextlib.ExitStack) -> sqlite3.Connection:
    connection = sqlite3.connect(
        name, uri=name.startswith("file:"), isolation_level=None, check_same_thread=False, timeout=5.0
    )
    stack.callback(connection.close)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA mmap_size = 0")
    return connection


def _guarded_version(connection: sqlite3.Connection, folder: Path) -> int:
    """Return the version of the tables, 0 in an empty database; refuse what is not ours or too new."""
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    objects = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (application, version, objects) == (0, 0, 0):
        return 0
    if application != APPLICATION_ID:
        message = f"{folder / DATABASE} is not an exam store's database; name another folder."
        raise StoreError(message)
    if version > VERSION:
        message = (
            f"{folder} was written by a newer edgefetal (layout {version}, this one knows {VERSION}); "
            "update edgefetal on this machine."
        )
        raise StoreError(message)
    if version < 1:
        raise damaged(folder, f"layout {version} is unknown")
    return int(version)


def _require_log(journal_mode: str) -> None:
    """Refuse a disk that takes no write-ahead log, such as some network drives."""
    if journal_mode != "wal":
        raise OSError(errno.ENOTSUP, "the disk takes no write-ahead log; use a local one")


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables, all or none."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('salt', ?)", (secrets.token_hex(32),))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _require_sound(connection: sqlite3.Connection, folder: Path) -> None:
    """Refuse a database that contradicts itself; quick, because pictures are outside of it.

    An index that is out of step with its table would hide exams, so `quick_check`, which skips indices, is not enough.
    """
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise damaged(folder, str(found))
    salt = connection.execute("SELECT value FROM meta WHERE key = 'salt'").fetchone()
    if salt is None or len(salt[0]) != 64:  # noqa: PLR2004 - 32 bytes in hex
        raise damaged(folder, "its salt is missing")
