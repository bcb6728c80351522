"""Logs: what is said is on the closed lists, and no free text gets in by any way."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import textwrap
import threading
import warnings
from enum import Enum
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_runtime.service.logs import Event, Field, JsonLines, log_event, structured_logs
from edgefetal_runtime.service.metrics import Drop

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = logging.getLogger("edgefetal_runtime.service.logs")
FIXED = {"time", "monotonic_s", "level", "event", "module"}


def logged(act: Callable[[], object], level: int = logging.DEBUG) -> list[dict[str, object]]:
    """Return the lines that something logs."""
    stream = io.StringIO()
    with structured_logs(stream, level):
        act()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_with_its_fields() -> None:
    fields = {Field.CAUSE: Drop.TORN, Field.FRAMES: 3, Field.LATENCY_S: 0.25, Field.STATE: True}
    (line,) = logged(lambda: log_event(LOG, logging.WARNING, Event.SOURCE_CHANGED, fields))
    assert set(line) == FIXED | {"cause", "frames", "latency_s", "state"}
    assert line["event"] == "source_changed"
    assert line["level"] == "warning"
    assert line["module"] == "edgefetal_runtime.service.logs"
    assert (line["cause"], line["frames"], line["latency_s"], line["state"]) == ("torn", 3, 0.25, True)


def test_every_event_and_field_can_be_said() -> None:
    for event in Event:
        (line,) = logged(lambda event=event: log_event(LOG, logging.INFO, event, dict.fromkeys(Field, 1)))
        assert set(line) == FIXED | {field.value for field in Field}
    assert not {field.value for field in Field} & FIXED


@pytest.mark.parametrize(
    ("level", "said"), [(5, "debug"), (10, "debug"), (20, "info"), (30, "warning"), (40, "error"), (50, "error")]
)
def test_a_level_is_a_word(level: int, said: str) -> None:
    (line,) = logged(lambda: log_event(LOG, level, Event.OTHER), level=1)
    assert line["level"] == said


def test_less_than_the_level_is_left_out() -> None:
    assert logged(lambda: log_event(LOG, logging.INFO, Event.READY), level=logging.WARNING) == []


# Letters that no module, number or key of ours holds in a row, so that finding them means a leak.
names = st.text(alphabet="ÄÖÜßñéЖ中Qq", min_size=4, max_size=30)


class Patient(Exception):  # noqa: N818 - it stands for any
    pass


def made(name: str) -> type[Exception]:
    """An exception whose very name is a patient's."""
    return type(name, (Exception,), {"__module__": name})


def fail(error: BaseException) -> None:
    raise error


def caught(error: BaseException, text: str) -> None:
    """Log an exception that was raised and caught."""
    try:
        fail(error)
    except BaseException:
        LOG.exception("failed on %s", text)


def chained(name: str) -> None:
    try:
        fail(ValueError(name))
    except ValueError as error:
        second = KeyError(name)
        second.__cause__ = error
        caught(second, name)


def in_thread(name: str) -> None:
    thread = threading.Thread(target=fail, args=(Patient(name),), name=name)
    thread.start()
    thread.join()


def uncaught(name: str) -> None:
    try:
        fail(Patient(name))
    except Patient as error:
        sys.excepthook(Patient, error, error.__traceback__)


def from_made_up_file(name: str) -> None:
    try:
        exec(compile("raise ValueError", name, "exec"), {"__name__": name})  # noqa: S102 - code with a patient's name
    except ValueError:
        LOG.exception("")


class Number(int):
    """A number that prints as something else."""

    text: str

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


def ways(name: str) -> list[Callable[[], object]]:
    """Every way that we could think of by which a text could reach a log."""
    loose = Enum("loose", {"A": name})  # type: ignore[misc]  # made at run time on purpose
    number = Number(3)
    number.text = name
    of_state: list[object] = [name, loose.A, [name], number, name.encode()]
    errors = (Patient(name), FileNotFoundError(2, "No such file", name), made(name)(name), KeyboardInterrupt(name))
    return [
        lambda: LOG.info(name),
        lambda: LOG.info("%s", name),
        lambda: LOG.info("%d frames", name),
        lambda: LOG.info("%s", {name: name}),
        lambda: LOG.info("x", extra={"patient": name, "edgefetal_event": name, "edgefetal_fields": {name: name}}),
        lambda: LOG.info("x", extra={"edgefetal_event": Event.OTHER, "edgefetal_fields": {name: 1}}),
        lambda: LOG.info("x", stack_info=True),
        lambda: logging.getLogger(name).error("x"),
        lambda: logging.getLogger("pydicom").warning("Invalid value for VR PN: %r", name),
        lambda: warnings.warn(name, UserWarning, stacklevel=1),
        *(
            lambda value=value: log_event(LOG, logging.INFO, Event.OTHER, {Field.STATE: value})  # type: ignore[misc]
            for value in of_state
        ),
        *(lambda error=error: caught(error, name) for error in errors),  # type: ignore[misc]
        lambda: chained(name),
        lambda: in_thread(name),
        lambda: uncaught(name),
        lambda: from_made_up_file(name),
    ]


@settings(max_examples=30, deadline=None)
@given(name=names)
def test_no_name_gets_in_by_any_way(name: str) -> None:
    stream = io.StringIO()
    acts = ways(name)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with structured_logs(stream, logging.DEBUG):
            for act in acts:
                act()
    text = stream.getvalue()
    lines = text.splitlines()
    assert len(lines) >= len(acts)
    for line in lines:
        values = [str(value) for value in json.loads(line).values()]
        assert name not in "\n".join(values)
        assert name not in line


def test_the_ways_are_many() -> None:
    print(f"{len(ways('QqQq'))} ways by which a name could reach a log")  # noqa: T201 - the CI shows it
    assert len(ways("QqQq")) == 23


def test_of_an_exception_its_kind_and_its_lines_of_code_are_kept() -> None:
    def act() -> None:
        try:
            json.loads("{")
        except ValueError:
            LOG.exception("")

    (line,) = logged(act)
    assert line["exception"] == "JSONDecodeError"
    places = line["where"]
    assert isinstance(places, list)
    assert [place.partition(":")[0] for place in places[1:]] == ["json", "json.decoder", "json.decoder"]
    assert all(place.partition(":")[2].isdigit() for place in places)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "text", b"bytes", object()])
def test_a_value_that_is_none_is_withheld_and_the_line_stays_json(value: object) -> None:
    (line,) = logged(lambda: log_event(LOG, logging.INFO, Event.OTHER, {Field.LATENCY_S: value}))  # type: ignore[dict-item]
    assert line["latency_s"] == "withheld"


def test_everything_is_given_back_at_the_end() -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level, sys.excepthook, threading.excepthook, sys.unraisablehook
    with pytest.raises(SystemExit), structured_logs(io.StringIO()):
        raise ValueError("x")
    assert before == (root.handlers[:], root.level, sys.excepthook, threading.excepthook, sys.unraisablehook)


def test_a_stream_that_is_gone_ends_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    with structured_logs(stream):
        stream.close()
        LOG.error("secret")
    assert capfd.readouterr() == ("", "")


def test_the_formatter_never_builds_the_message() -> None:
    class Explosive:
        def __str__(self) -> str:
            raise AssertionError("looked at")

    record = logging.LogRecord("x", logging.INFO, "f", 1, Explosive(), (), None)
    assert json.loads(JsonLines().format(record))["event"] == "other"


@pytest.mark.parametrize(
    ("ending", "exit_code", "said"),
    [
        ("raise EnvironmentLacksError('/data/JANE-DOE is no camera')", 3, "EnvironmentLacksError"),
        ("raise ValueError('JANE-DOE')", 1, "ValueError"),
        ("threading.Thread(target=int, args=('JANE-DOE',)).start()", 0, "ValueError"),
    ],
)
def test_a_process_that_fails_says_so_without_the_message(ending: str, exit_code: int, said: str) -> None:
    program = f"""
        import threading
        from edgefetal_devices.errors import EnvironmentLacksError
        from edgefetal_runtime.service.logs import structured_logs
        with structured_logs():
            {ending}
            [thread.join() for thread in threading.enumerate() if thread is not threading.main_thread()]
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )
    assert result.returncode == exit_code
    assert result.stdout == ""
    assert "JANE" not in result.stderr
    (line,) = result.stderr.splitlines()
    assert json.loads(line)["exception"] == said
