"""Logs as JSON lines that no name of a patient or file can get into.

A line says what happened with a word from a closed list, and with fields from another closed list that hold numbers or
words from edgefetal's own enumerations. No free text is written, not even a library's message or an exception's: of
these only the module, the kind of the exception and the lines of code are kept. To read a message itself, run the same
command in a terminal.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import math
import sys
import threading
import time
import traceback
from enum import Enum
from typing import TYPE_CHECKING, TextIO, TypeAlias

from edgefetal_devices.errors import EdgeFetalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

Value: TypeAlias = "int | float | bool | Enum"

_LOG = logging.getLogger(__name__)
# Attributes of a record that carry an event through Python's logging.
_EVENT, _FIELDS = "edgefetal_event", "edgefetal_fields"
_WITHHELD = "withheld"
_MAX_PLACES = 12


class Event(Enum):
    """What can happen."""

    STARTED = "started"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    PIPELINE_STALLED = "pipeline_stalled"
    PIPELINE_RECOVERED = "pipeline_recovered"
    SOURCE_CHANGED = "source_changed"
    RATE_CHANGED = "rate_changed"
    EXAM_OPENED = "exam_opened"
    EXAM_SAVED = "exam_saved"
    EXAM_NOT_SAVED = "exam_not_saved"
    TELEMETRY_FAILED = "telemetry_failed"
    ERROR = "error"
    OTHER = "other"


class Field(Enum):
    """What can be said of it. None of these holds a measurement, a name or a date of birth."""

    STATE = "state"
    CAUSE = "cause"
    SWEEP = "sweep"
    FRAMES = "frames"
    EVERY_NTH = "every_nth"
    LATENCY_S = "latency_s"
    HEADROOM_C = "headroom_c"
    QUIET_S = "quiet_s"
    FREE_BYTES = "free_bytes"
    PORT = "port"


def log_event(logger: logging.Logger, level: int, event: Event, fields: Mapping[Field, Value] | None = None) -> None:
    """Log an event.

    Args:
        logger: the module's.
        level: one of `logging`'s.
        event: what happened.
        fields: what to say of it.
    """
    logger.log(level, event.value, extra={_EVENT: event, _FIELDS: fields or {}})


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON, from the closed lists alone."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; its message and arguments are never looked at."""
        event = getattr(record, _EVENT, None)
        line: dict[str, object] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.timezone.utc).isoformat(timespec="milliseconds"),
            # A clinic's computer may not know the date; this one never jumps.
            "monotonic_s": round(time.monotonic(), 3),
            "level": _level(record.levelno),
            "event": event.value if isinstance(event, Event) else Event.OTHER.value,
            "module": _known_module(record.name),
        }
        fields = getattr(record, _FIELDS, None)
        if isinstance(event, Event) and isinstance(fields, dict):
            line |= {name.value: _plain(value) for name, value in fields.items() if isinstance(name, Field)}
        if record.exc_info and record.exc_info[1] is not None:
            line |= _of_exception(record.exc_info[1])
        return json.dumps(line, allow_nan=False)


class _Lines(logging.Handler):
    """Writes to a stream; what cannot be written is lost, where Python would print the message and its arguments."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self.setFormatter(JsonLines())

    def emit(self, record: logging.LogRecord) -> None:
        # ValueError is a stream that was closed.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(self.format(record) + "\n")
            self._stream.flush()


def _level(number: int) -> str:
    return next(
        (name for least, name in ((40, "error"), (30, "warning"), (20, "info")) if number >= least),
        "debug",
    )


def _known_module(name: object) -> str:
    """Return a name only if a module has it: any text can be a logger's name."""
    return name if isinstance(name, str) and name in sys.modules else _WITHHELD


def _plain(value: object) -> bool | int | float | str:
    if isinstance(value, Enum):
        # An enumeration can be made of any text at run time; ours are in the code.
        ours = type(value).__module__.partition(".")[0] in {"edgefetal", "edgefetal_runtime", "edgefetal_devices"}
        return value.value if ours and isinstance(value.value, str) else _WITHHELD
    # A number's subclass cannot slip a text in: `json` writes it by its number.
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _WITHHELD


def _of_exception(error: BaseException) -> dict[str, object]:
    """Say of an exception what its code says: its kind and where it was raised."""
    kind = type(error)
    places = [
        f"{_known_module(frame.f_globals.get('__name__'))}:{number}"
        for frame, number in traceback.walk_tb(error.__traceback__)
    ]
    known = getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind
    return {"exception": kind.__name__ if known else _WITHHELD, "where": places[-_MAX_PLACES:]}


@contextlib.contextmanager
def structured_logs(stream: TextIO | None = None, level: int = logging.INFO) -> Iterator[None]:
    """Write every log, warning and uncaught exception of the process as JSON lines, until the end of the block.

    Args:
        stream: where to; None for stderr, which is the journal's.
        level: the least that is written.

    Raises:
        SystemExit: an exception left the block. Whoever caught it would print its message, so it ends here, with the
            exit code that it stands for.
    """
    handler = _Lines(sys.stderr if stream is None else stream)
    root = logging.getLogger()
    handlers, old_level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    # These three print messages, which hold paths.
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whichever it is, its message may hold a path
        _LOG.critical("", exc_info=error, extra={_EVENT: Event.ERROR})
        raise SystemExit(error.exit_code if isinstance(error, EdgeFetalError) else 1) from None
    finally:
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        root.setLevel(old_level)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _LOG.critical("", exc_info=(kind, error, trace), extra={_EVENT: Event.ERROR})


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        _uncaught(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)


def _unraisable(arguments: sys.UnraisableHookArgs) -> None:
    if arguments.exc_value is not None:
        _uncaught(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
