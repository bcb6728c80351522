"""SIGTERM and SIGINT: one drains and saves, two end at once, and no moment loses what was saved."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from edgefetal_runtime.service.stop import Stop

DEADLINE_S = 30.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def send(number: signal.Signals) -> None:
    """Signal this process; Python runs the handler before the next step of the main thread."""
    signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_one_signal_asks_for_the_end_and_no_more(number: signal.Signals) -> None:
    calls: list[str] = []
    with Stop(lambda: calls.append("stop")) as stop:
        assert not stop.requested
        send(number)
        assert (stop.requested, stop.urgent, calls) == (True, False, ["stop"])


def test_a_second_signal_raises_once_and_a_third_does_nothing() -> None:
    calls: list[str] = []
    with Stop(lambda: calls.append("stop")) as stop:
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert stop.urgent
        send(signal.SIGINT)
        send(signal.SIGTERM)
    assert calls == ["stop"]


def test_what_is_being_saved_is_saved_first() -> None:
    steps: list[str] = []

    def save() -> None:
        with stop.saving():
            steps.append("begun")
            send(signal.SIGTERM)
            with stop.saving():
                send(signal.SIGINT)
            steps.append("ended")
        steps.append("never")

    with Stop() as stop:
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            save()
    assert steps == ["begun", "ended"]


def test_saving_under_one_signal_or_none_raises_nothing() -> None:
    with Stop() as stop:
        with stop.saving():
            pass
        with stop.saving():
            send(signal.SIGTERM)
        assert not stop.urgent


def test_an_error_while_saving_is_not_swallowed() -> None:
    with Stop() as stop, pytest.raises(ValueError, match="disk"), stop.saving():
        raise ValueError("disk")


def test_handlers_are_given_back() -> None:
    seen: list[int] = []
    before = {number: signal.signal(number, lambda number, _: seen.append(number)) for number in SIGNALS}
    mine = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with pytest.raises(ValueError, match="x"), Stop():
            raise ValueError("x")
        assert {number: signal.getsignal(number) for number in SIGNALS} == mine
        send(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_no_pipe_is_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with Stop():
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_thread_that_waits_is_woken_by_the_signal() -> None:
    with Stop() as stop:
        answers: list[bool] = []
        threads = [threading.Thread(target=lambda: answers.append(stop.wait(DEADLINE_S))) for _ in range(3)]
        for thread in threads:
            thread.start()
        send(signal.SIGTERM)
        for thread in threads:
            thread.join(DEADLINE_S)
        assert answers == [True] * 3
        assert stop.wait(DEADLINE_S)


def test_waiting_ends_with_its_time() -> None:
    with Stop() as stop:
        assert not stop.wait(0.0)


def test_a_thread_may_ask_too_and_is_heard_once() -> None:
    calls: list[str] = []
    with Stop(lambda: calls.append("stop")) as stop:
        threads = [threading.Thread(target=stop.request) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stop.requested
        assert not stop.urgent
    assert calls == ["stop"]


def test_asking_before_and_after_the_block_is_allowed() -> None:
    stop = Stop()
    stop.request()
    with stop:
        assert stop.requested
    late = Stop()
    with late:
        pass
    late.request()
    assert late.requested


def test_another_thread_cannot_take_the_signals_over() -> None:
    errors: list[Exception] = []

    def enter() -> None:
        try:
            Stop().__enter__()
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert len(errors) == 1


# Exams of 50 frames for ever, each saved; a signal drains the one that is open. It says what it does, line by line.
SERVICE = textwrap.dedent(
    """
    import json, sys
    from pathlib import Path
    from edgefetal_runtime.atomic import write_folder
    from edgefetal_runtime.service.stop import Stop

    def say(what):
        sys.stdout.write(what + "\\n")
        sys.stdout.flush()

    out = Path(sys.argv[1])
    with Stop() as stop:
        exam = 0
        try:
            while not stop.requested:
                frames = []
                for frame in range(50):
                    if stop.requested:
                        break
                    frames.append(frame)
                    say(f"frame {frame}")
                for step in range(20):
                    say(f"drain {step}")
                with stop.saving():
                    say("saving")
                    files = {f"{i}.bin": bytes(20_000) for i in range(20)}
                    write_folder(out / f"exam-{exam}", {**files, "exam.json": json.dumps(frames).encode()})
                    say(f"saved {exam}")
                exam += 1
        except KeyboardInterrupt:
            sys.exit(130)
    """
)


def whole_exams(out: Path) -> list[list[int]]:
    """Read every exam that is there; a partial one would fail."""
    exams = [folder for folder in sorted(out.iterdir()) if not folder.name.startswith(".")]
    for folder in exams:
        assert len(list(folder.iterdir())) == 21
        assert all((folder / f"{i}.bin").stat().st_size == 20_000 for i in range(20))
    return [json.loads((folder / "exam.json").read_text()) for folder in exams]


def interrupt(out: Path, lines: int, second_after: int | None, rng: random.Random) -> str:
    """Run the service, signal it after so many lines, perhaps once more, and judge what it leaves."""
    out.mkdir()
    child = subprocess.Popen([sys.executable, "-c", SERVICE, str(out)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(lines)]
    child.send_signal(rng.choice(SIGNALS))
    if second_after is not None:
        said += [child.stdout.readline() for _ in range(second_after)]
        child.send_signal(rng.choice(SIGNALS))
    guard = threading.Timer(DEADLINE_S, child.kill)
    guard.start()
    said += child.stdout.readlines()
    child.wait()
    guard.cancel()
    child.stdout.close()
    confirmed = sum(line.startswith("saved") for line in said)
    exams = whole_exams(out)
    # What it said to be saved is there, and nothing else is: not even a half-written folder.
    assert len(list(out.iterdir())) == len(exams) == confirmed
    # A second signal that comes after the block ends a process that has nothing left to lose.
    late = {-number for number in SIGNALS}
    assert child.returncode in ({0} if second_after is None else {0, 130} | late)
    if child.returncode != 130:
        last_frames = sum(line.startswith("frame") for line in said) - sum(map(len, exams[:-1]))
        assert exams[-1] == list(range(last_frames))
    return "ended at once" if child.returncode == 130 else "drained"


def interrupted(tmp_path: Path, times: int, seed: int) -> dict[str, int]:
    rng = random.Random(seed)  # noqa: S311 - moments, not secrets
    ends: dict[str, int] = {}
    for number in range(times):
        second_after = None if number % 2 else rng.choice((0, 0, 1, 5, 15, 30))
        end = interrupt(tmp_path / str(number), rng.randint(1, 200), second_after, rng)
        ends[end] = ends.get(end, 0) + 1
    print(f"{times} real processes signalled at random moments: {ends}")  # noqa: T201 - the CI shows it
    return ends


def test_a_real_process_loses_nothing_at_random_moments(tmp_path: Path) -> None:
    assert sum(interrupted(tmp_path, 14, seed=5).values()) == 14


@pytest.mark.slow
def test_a_real_process_loses_nothing_at_many_random_moments(tmp_path: Path) -> None:
    ends = interrupted(tmp_path, 300, seed=6)
    assert min(ends["drained"], ends["ended at once"]) > 30
