"""The audit trail: entries that are only ever added, each with the hash of the one before.

Altering, removing or swapping entries breaks the chain. Cutting off its end does not, so the hash of the last entry is
also kept in a file of its own (`Head`). Whoever can rewrite the database and that file can forge both.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgefetal_runtime.store.disk import Disk

HEAD = "audit-head.json"
# In the details of an entry, where the clock moved.
STEPPED_BACK = "clock_stepped_back_s"
STEPPED_FORWARD = "clock_stepped_forward_s"
CLOCK_CONFIRMED = "clock confirmed"
BROKEN = "audit broken"
# Clocks that are kept by NTP are moved by less.
_STEP_BACK_S = 1.0
_DAY_S = 86400.0
_FIRST = "0" * 64
_COLUMNS = "seq, time_utc, latest_utc, event, subject, details, previous_sha256, sha256"


@dataclass(frozen=True)
class Entry:
    """One entry.

    Args:
        seq: 1 for the first, then one more each.
        time_utc: the clock, ISO 8601.
        latest_utc: the latest time of this and all earlier entries.
        event: what happened.
        subject: hash of the patient's id, or empty.
        details: JSON.
        previous_sha256: hash of the entry before.
        sha256: hash of all the above.
    """

    seq: int
    time_utc: str
    latest_utc: str
    event: str
    subject: str
    details: str
    previous_sha256: str
    sha256: str

    def own_hash(self) -> str:
        """Return the hash that the entry should carry."""
        covered = [
            self.previous_sha256, self.seq, self.time_utc, self.latest_utc, self.event, self.subject, self.details,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(covered).encode()).hexdigest()


def timestamp(time: dt.datetime) -> str:
    """Write a time in UTC so that texts sort as times do."""
    return time.astimezone(dt.timezone.utc).isoformat(timespec="microseconds")


def subject_hash(salt: str, patient_id: str | None) -> str:
    """Return what stands for a patient in the trail; empty where there is none."""
    if patient_id is None:
        return ""
    return hmac.new(bytes.fromhex(salt), patient_id.encode(), hashlib.sha256).hexdigest()


def last_entry(connection: sqlite3.Connection) -> Entry | None:
    """Return the newest entry."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM audit ORDER BY seq DESC LIMIT 1").fetchone()  # noqa: S608 - ours
    return None if row is None else Entry(*row)


def entries(connection: sqlite3.Connection) -> Iterator[Entry]:
    """Yield all entries, oldest first."""
    for row in connection.execute(f"SELECT {_COLUMNS} FROM audit ORDER BY seq"):  # noqa: S608 - our own columns
        yield Entry(*row)


def append(
    connection: sqlite3.Connection,
    now: dt.datetime,
    event: str,
    subject: str,
    details: Mapping[str, Any],
    clock_jump_days: float,
) -> Entry:
    """Add an entry to the transaction that is open; one whose clock moved says so."""
    last = last_entry(connection)
    time_utc = timestamp(now)
    details = dict(details)
    if last is not None:
        step_s = _step_s(last, now)
        if step_s < -_STEP_BACK_S:
            details[STEPPED_BACK] = round(-step_s, 1)
        if step_s > clock_jump_days * _DAY_S:
            details[STEPPED_FORWARD] = round(step_s, 1)
    entry = Entry(
        seq=1 if last is None else last.seq + 1,
        time_utc=time_utc,
        latest_utc=time_utc if last is None else max(time_utc, last.latest_utc),
        event=event,
        subject=subject,
        details=json.dumps(details, sort_keys=True),
        previous_sha256=_FIRST if last is None else last.sha256,
        sha256="",
    )
    connection.execute(
        f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own columns
        (
            entry.seq, entry.time_utc, entry.latest_utc, entry.event, entry.subject, entry.details,
            entry.previous_sha256, entry.own_hash(),
        ),
    )  # fmt: skip
    return Entry(**{**vars(entry), "sha256": entry.own_hash()})


def _step_s(last: Entry, now: dt.datetime) -> float:
    """Return how far the clock went since the last entry; 0 where that one is damaged, which `first_broken` names."""
    try:
        return (now - dt.datetime.fromisoformat(last.time_utc)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def clock_in_doubt(connection: sqlite3.Connection) -> bool:
    """Say whether the clock jumped forward and nobody has confirmed it since."""
    confirmed = connection.execute("SELECT max(seq) FROM audit WHERE event = ?", (CLOCK_CONFIRMED,)).fetchone()[0]
    jumped = connection.execute(
        "SELECT 1 FROM audit WHERE seq > ? AND event <> ? AND instr(details, ?) LIMIT 1",
        (confirmed or 0, CLOCK_CONFIRMED, STEPPED_FORWARD),
    ).fetchone()
    return jumped is not None


def first_broken(connection: sqlite3.Connection) -> str | None:
    """Name the first entry that does not follow from the one before, or return None."""
    expected_seq, previous = 1, _FIRST
    for entry in entries(connection):
        if entry.seq != expected_seq:
            return f"audit entry {expected_seq} is missing"
        if entry.previous_sha256 != previous or entry.sha256 != entry.own_hash():
            return f"audit entry {entry.seq} ({entry.event}) was altered, or the one before it"
        expected_seq, previous = entry.seq + 1, entry.sha256
    return None


@dataclass(frozen=True)
class Head:
    """The file that knows the last entry's number and hash.

    Args:
        path: where it is.
        disk: what writes it.
    """

    path: Path
    disk: Disk

    def write(self, entry: Entry) -> None:
        """Replace the file; when this returns, it outlasts a power cut.

        Raises:
            OSError: the disk refuses; the old file stays.
        """
        partial = self.path.with_name(f".{self.path.name}.partial")
        self.disk.write(partial, (json.dumps({"seq": entry.seq, "sha256": entry.sha256}) + "\n").encode())
        self.disk.sync(partial)
        self.disk.rename(partial, self.path)
        self.disk.sync(self.path.parent)

    def contradiction(self, connection: sqlite3.Connection) -> str | None:
        """Say how the trail contradicts the file, or return None; it may run ahead of it, never fall behind."""
        last = last_entry(connection)
        try:
            head = json.loads(self.path.read_text(encoding="utf-8"))
            seq, sha256 = int(head["seq"]), str(head["sha256"])
        except FileNotFoundError:
            # A process that was killed after its first entry has not written the file yet.
            return None if last is None or last.seq <= 1 else f"{self.path.name} is missing"
        except (OSError, ValueError, KeyError, TypeError):
            return f"{self.path.name} cannot be read"
        row = connection.execute("SELECT sha256 FROM audit WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            return f"audit entry {seq} was written and is missing; the last one is {last.seq if last else 0}"
        return None if row[0] == sha256 else f"audit entry {seq} is not the one that was written"
