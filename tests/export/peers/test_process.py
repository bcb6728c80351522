"""A peer in a process of its own: answers, errors and crashes come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefetal_devices.errors import CheckFailedError, EdgeFetalError, EnvironmentLacksError, InputError
from edgefetal_export.peers.process import PeerProcess
from edgefetal_export.peers.table import PeerChoice, PeerEntry, parse_peer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_export.peers.peer import Job, Recording

MADE_UP = """
import os
from edgefetal_devices.errors import InputError

class Peer:
    settings = "made up"

    def examine(self, recording):
        print("a note of a library")
        self.held = bytearray(100_000_000)
        raise InputError("cannot read it")

    def measure(self, frame):
        os._exit(4)

def opens(job, argument):
    made = bytearray(300_000_000)
    if argument == "raise":
        raise ValueError("no such thing")
    if argument == "import":
        import package_that_nobody_has
    if argument == "end":
        os._exit(5)
    return Peer()
"""


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], PeerChoice]:
    (tmp_path / "made_up_peer.py").write_text(MADE_UP)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda argument: PeerChoice(PeerEntry("made-up", "made up", "made_up_peer", "opens", "HOW"), argument)


def test_it_answers_as_it_does_here(job: Job, recording: Recording, pictures: list[HeadCase]) -> None:
    choice = parse_peer("notebook")
    here = choice.open(job)
    with PeerProcess(choice, job) as there:
        assert there.settings == here.settings
        assert there.prepare_s > 0
        examined = there.examine(recording)
        assert examined.value_mm == here.examine(recording)
        assert 0 < examined.seconds < 60
        assert there.measure(pictures[5]) == here.measure(pictures[5].frame())


def test_what_it_raises_comes_back_and_it_goes_on(
    made_up: Callable[[str], PeerChoice], job: Job, recording: Recording
) -> None:
    with PeerProcess(made_up("well"), job) as process:
        for _ in range(2):
            with pytest.raises(InputError, match="cannot read it"):
                process.examine(recording)
        # The 300 MB of its making are forgotten, the 100 of its work are not.
        peak_mb = process.peak_mb()
        assert peak_mb is not None
        assert 100 < peak_mb < 300


def test_a_crash_ends_that_peer_alone(made_up: Callable[[str], PeerChoice], job: Job, pictures: list[HeadCase]) -> None:
    with PeerProcess(made_up("well"), job) as process, pytest.raises(EnvironmentLacksError, match=r"ended \(code 4\)"):
        process.measure(pictures[0])


def test_one_that_was_killed_meanwhile_is_told_at_the_next_question(
    made_up: Callable[[str], PeerChoice], job: Job, pictures: list[HeadCase]
) -> None:
    with PeerProcess(made_up("well"), job) as process:
        process._process.kill()
        process._process.join()
        for ask in (lambda: process.measure(pictures[0]), process.peak_mb):
            with pytest.raises(EnvironmentLacksError, match=r"ended \(code -9\)"):
                ask()


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ("raise", CheckFailedError, "ValueError: no such thing"),
        ("import", EnvironmentLacksError, r"package_that_nobody_has.*pip install 'edgefetal\[build,peers\]'"),
        ("end", EnvironmentLacksError, "the process of made-up:end ended \\(code 5\\)"),
    ],
)
def test_one_that_cannot_begin_says_why(
    made_up: Callable[[str], PeerChoice], job: Job, how: str, error: type[EdgeFetalError], says: str
) -> None:
    with pytest.raises(error, match=says):
        PeerProcess(made_up(how), job)
