"""Putting a finished bundle in its place: a power cut or a disk that refuses, at every single step, loses nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgefetal_devices.errors import BundleError, CheckFailedError, OutputError
from edgefetal_export.engine import install as install_module
from edgefetal_export.engine.install import (
    Proven,
    TimingCache,
    forget_unused,
    install,
    owned,
    read_timing_cache,
    roll_back,
)
from edgefetal_runtime.infer.finished import (
    ACTIVE,
    ANSWERS,
    ENGINE,
    FINISHED,
    PREVIOUS,
    TIMING,
    linked_folder,
    read_finished,
    sha256_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from edgefetal_runtime.infer.finished import Finished
    from tests.made_up_board import Maker

    Change = tuple[str, list[str]]

CHANGES = ("os.mkdir", "os.rename", "os.symlink", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.link")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is proven here is where files lie: `test_finish.py` opens them, and no disk is waited for."""
    monkeypatch.setattr(install_module, "try_out", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def home(finished_home: Path, tmp_path: Path) -> Path:
    """Where one was finished."""
    return shutil.copytree(finished_home, tmp_path / "home", symlinks=True)


@pytest.fixture
def old(home: Path, bundle_maker: Maker) -> Finished:
    return read_finished(home, trust=bundle_maker.trust)


def _proven(old: Finished, number: int, timing: TimingCache | None = None) -> Proven:
    """Something that was proven, another one for each number."""
    plan, answers = f"engine {number}".encode(), (old.path / ANSWERS).read_bytes()
    return Proven(old.attestation.model_copy(update={"engine_sha256": sha256_of(plan)}), plan, answers, timing)


def _install(home: Path, old: Finished, number: int, maker: Maker) -> Finished:
    """Do what `finish` does once all is proven; the bundle comes from elsewhere."""
    with owned(home):
        forget_unused(home)
        return install(home, old.bundle, _proven(old, number), maker.trust)


class PowerCut(BaseException):
    """From here on nothing reaches the disk any more."""


class Disk:
    """Hears of every change of the disk, and ends them all at one of them, or refuses that one.

    Args:
        at: number of the change, from 0; None for none.
        number: of the error with which it is refused; None for a power cut, after which all are.
    """

    def __init__(self, at: int | None = None, number: int | None = None) -> None:
        self.changes: list[Change] = []
        self._at, self._number = at, number

    @contextlib.contextmanager
    def watched(self) -> Iterator[Self]:
        """Hear of the changes that the body makes; a power cut ends it."""
        good_sync, good_write = os.fsync, Path.write_bytes

        def sync(descriptor: int) -> None:
            self.change("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            good_sync(descriptor)

        def write(path: Path, content: bytes) -> int:
            good_write(path, content[: len(content) // 2])
            self.change("half written", os.fspath(path))
            return good_write(path, content)

        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(PowerCut):
            patch.setattr(os, "fsync", sync)
            patch.setattr(Path, "write_bytes", write)
            _watching.append(self)
            try:
                yield self
            finally:
                _watching.remove(self)

    def change(self, kind: str, *paths: str) -> None:
        """Note a change that is about to be made."""
        self.changes.append((kind, [*paths]))
        number = len(self.changes) - 1
        if self._at is not None and number >= self._at:
            if self._number is None:
                raise PowerCut
            if number == self._at:
                raise OSError(self._number, os.strerror(self._number))

    @property
    def reached(self) -> bool:
        """Whether there were as many changes."""
        return self._at is not None and len(self.changes) > self._at


_watching: list[Disk] = []


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if _watching and (writes or event in CHANGES):
        _watching[0].change(event, *(os.fspath(path) for path in arguments[:2] if isinstance(path, (str, os.PathLike))))


@pytest.fixture(scope="module", autouse=True)
def _ears() -> None:
    """Python's own ears for what changes a disk; they stay, and hear nothing while nobody watches."""
    sys.addaudithook(_heard)


def _fail(number: int) -> None:
    raise OSError(number, os.strerror(number))


def _names(home: Path) -> set[str]:
    return {folder.name for folder in (home / FINISHED).iterdir()}


def _check_tidy(home: Path) -> None:
    """Nothing lies about."""
    kept = {(home / name).readlink().name for name in (ACTIVE, PREVIOUS) if (home / name).is_symlink()}
    assert _names(home) == kept
    assert {entry.name for entry in home.iterdir()} <= {ACTIVE, PREVIOUS, FINISHED, TIMING, "lock"}


def _copies(home: Path) -> Callable[[], Path]:
    """Return what gives a fresh copy of a folder each time, always under the same name."""
    kept = home.rename(home.with_name("kept"))

    def copy() -> Path:
        shutil.rmtree(home, ignore_errors=True)
        return Path(shutil.copytree(kept, home, symlinks=True))

    return copy


@pytest.fixture
def elsewhere(old: Finished, tmp_path: Path) -> Finished:
    """The old one with a bundle that lies outside of home, and so outlives it."""
    bundle = Path(shutil.copytree(old.bundle.path, tmp_path / "bundle"))
    shutil.copy(old.path / ANSWERS, tmp_path / ANSWERS)
    return replace(old, path=tmp_path, bundle=replace(old.bundle, path=bundle))


def test_a_power_cut_at_any_step_leaves_the_old_one_active_or_the_new_one(
    home: Path, elsewhere: Finished, bundle_maker: Maker
) -> None:
    _install(home, elsewhere, 1, bundle_maker)
    fresh = _copies(home)
    seen = []
    for step in range(1000):
        fresh()
        before = linked_folder(home).name
        with Disk(step).watched() as disk:
            _install(home, elsewhere, 2, bundle_maker)
        active = read_finished(home, trust=bundle_maker.trust)
        active.read_answers()
        plan = active.read_engine()
        seen.append(plan)
        assert plan in (b"engine 1", b"engine 2")
        assert (active.path.name == before) == (plan == b"engine 1")
        assert linked_folder(home, PREVIOUS).is_dir() or plan == b"engine 1"
        # Whatever was left, the next one goes in, and takes it away.
        after = _install(home, elsewhere, 3, bundle_maker)
        assert after.read_engine() == b"engine 3"
        assert read_finished(home, PREVIOUS, bundle_maker.trust).read_engine() == plan
        _check_tidy(home)
        if not disk.reached:
            break
    # From some step on it is the new one, and never the old one again.
    first = seen.index(b"engine 2")
    assert 40 < first < len(seen) - 1
    assert set(seen[first:]) == {b"engine 2"}


def test_a_power_cut_before_anything_was_ever_active_leaves_nothing_or_the_new_one(
    tmp_path: Path, elsewhere: Finished, bundle_maker: Maker
) -> None:
    home = tmp_path / "new" / "home"
    for step in range(1000):
        shutil.rmtree(home.parent, ignore_errors=True)
        with Disk(step).watched() as disk:
            _install(home, elsewhere, 1, bundle_maker)
        if os.path.lexists(home / ACTIVE):
            assert read_finished(home, trust=bundle_maker.trust).read_engine() == b"engine 1"
        assert _install(home, elsewhere, 2, bundle_maker).read_engine() == b"engine 2"
        _check_tidy(home)
        if not disk.reached:
            break
    assert step > 40


@pytest.mark.parametrize("number", ERRORS)
def test_a_disk_that_refuses_any_step_leaves_the_old_one_active_and_nothing_of_the_new_one(
    home: Path, elsewhere: Finished, bundle_maker: Maker, number: int
) -> None:
    _install(home, elsewhere, 1, bundle_maker)
    fresh = _copies(home)
    refused, done = 0, True
    for step in range(1000):
        # Where it was refused all is as it was.
        if done:
            fresh()
        links = [linked_folder(home, name) for name in (ACTIVE, PREVIOUS)]
        done = False
        with Disk(step, number).watched() as disk, contextlib.suppress(OutputError):
            _install(home, elsewhere, 2, bundle_maker)
            done = True
        if not done:
            refused += 1
            assert [linked_folder(home, name) for name in (ACTIVE, PREVIOUS)] == links
            assert _names(home) == {folder.name for folder in links}
            assert read_finished(home, trust=bundle_maker.trust).read_engine() == b"engine 1"
        else:
            # What is only tidied away may wait.
            assert read_finished(home, trust=bundle_maker.trust).read_engine() == b"engine 2"
        if not disk.reached:
            break
    assert refused > 40


def test_what_a_disk_that_refuses_says(
    home: Path, elsewhere: Finished, bundle_maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", lambda *_: _fail(errno.ENOSPC))
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\); check the folder, space"):
        _install(home, elsewhere, 2, bundle_maker)


def test_nothing_is_named_before_it_is_on_the_disk(home: Path, elsewhere: Finished, bundle_maker: Maker) -> None:
    """The order in which a disk is told to keep what it was given."""
    with Disk().watched() as disk:
        _install(home, elsewhere, 1, bundle_maker)
    events = disk.changes

    def place(kind: str, *ends: str) -> int:
        (found,) = (n for n, (k, paths) in enumerate(events) if k == kind and [*map(_end, paths)] == [*ends])
        return found

    def _end(path: str) -> str:
        return path.rpartition("/")[2]

    folder = linked_folder(home)
    hidden = home / FINISHED / f".{folder.name}.partial"
    written = [paths[0] for kind, paths in events if kind == "half written"]
    assert len(written) == 13
    assert {Path(path).relative_to(hidden) for path in written} == {
        path.relative_to(folder) for path in folder.rglob("*") if path.is_file()
    }
    named = place("os.rename", hidden.name, folder.name)
    synced = {paths[0]: number for number, (kind, paths) in enumerate(events) if kind == "fsync" and number < named}
    assert set(synced) == {*written, str(hidden), str(hidden / "bundle")}
    assert all(synced[path] > events.index(("half written", [path])) for path in written)
    rest = [(kind, [*map(_end, paths)]) for kind, paths in events[named + 1 :] if kind in ("fsync", "os.rename")]
    assert rest == [
        ("fsync", [FINISHED]),
        ("os.rename", [".previous.partial", PREVIOUS]),
        ("fsync", ["home"]),
        ("os.rename", [".active.partial", ACTIVE]),
        ("fsync", ["home"]),
    ]


def test_it_is_opened_from_the_disk_before_it_is_active(
    home: Path, old: Finished, bundle_maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(finished: Finished) -> None:
        assert finished.read_engine() == b"engine 2"
        assert linked_folder(home) == old.path
        raise CheckFailedError("It answers otherwise.")

    monkeypatch.setattr(install_module, "try_out", fails)
    with pytest.raises(CheckFailedError, match="answers otherwise"):
        _install(home, old, 2, bundle_maker)
    assert linked_folder(home) == old.path
    _check_tidy(home)


def test_only_one_process_finishes_at_a_time(home: Path, old: Finished, bundle_maker: Maker) -> None:
    script = (
        "import sys, time; from pathlib import Path; from edgefetal_export.engine.install import owned\n"
        "with owned(Path(sys.argv[1])): print('owned', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, home], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"owned\n"
        newer, before = _proven(old, 1), _names(home)
        for do in (lambda: _install(home, old, 1, bundle_maker), lambda: _owned_roll_back(home, bundle_maker)):
            with pytest.raises(OutputError, match=r"Another process finishes a bundle in .*home; wait"):
                do()
        assert (_names(home), linked_folder(home)) == (before, old.path)
        # The system gives it up with a process that is killed.
        other.kill()
    assert install(home, old.bundle, newer, bundle_maker.trust).read_engine() == b"engine 1"


def _owned_roll_back(home: Path, maker: Maker) -> None:
    (home / PREVIOUS).symlink_to((home / ACTIVE).readlink())
    try:
        roll_back(home, maker.trust)
    finally:
        (home / PREVIOUS).unlink()


def test_a_folder_of_the_same_name_is_the_very_same(home: Path, old: Finished, bundle_maker: Maker) -> None:
    first = _install(home, old, 1, bundle_maker)
    assert _install(home, old, 1, bundle_maker).path == first.path
    assert (linked_folder(home), linked_folder(home, PREVIOUS)) == (first.path, old.path)


def test_links_to_elsewhere_are_replaced_and_what_they_name_is_left_alone(
    home: Path, elsewhere: Finished, bundle_maker: Maker, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    (home / ACTIVE).unlink()
    (home / ACTIVE).symlink_to("../mine")
    _install(home, elsewhere, 1, bundle_maker)
    assert read_finished(home, trust=bundle_maker.trust).read_engine() == b"engine 1"
    assert (mine / "file").read_text() == "mine"
    assert not os.path.lexists(home / PREVIOUS)


def test_where_links_cannot_be_read_nothing_is_removed(
    home: Path, old: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "readlink", lambda _: _fail(errno.EIO))
    forget_unused(home)
    assert old.path.is_dir()


def test_back_and_forth(home: Path, old: Finished, bundle_maker: Maker) -> None:
    with pytest.raises(BundleError, match="Nothing is previous in"):
        roll_back(home, bundle_maker.trust)
    new = _install(home, old, 1, bundle_maker)
    for active, previous in ((old, new), (new, old), (old, new)):
        assert roll_back(home, bundle_maker.trust).path == active.path
        assert (linked_folder(home), linked_folder(home, PREVIOUS)) == (active.path, previous.path)


def test_the_way_back_is_tried_before_it_is_taken(
    home: Path, old: Finished, bundle_maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = _install(home, old, 1, bundle_maker)
    with monkeypatch.context() as patch:
        patch.setattr(install_module, "try_out", lambda _: _fail_check())
        with pytest.raises(CheckFailedError):
            roll_back(home, bundle_maker.trust)
    assert linked_folder(home) == new.path
    (old.path / ENGINE).unlink()
    monkeypatch.setattr(install_module, "try_out", lambda finished: finished.read_engine())
    with pytest.raises(BundleError, match=r"engine\.plan is missing"):
        roll_back(home, bundle_maker.trust)
    assert (linked_folder(home), linked_folder(home, PREVIOUS)) == (new.path, old.path)


def _fail_check() -> None:
    raise CheckFailedError("It answers otherwise.")


def test_a_power_cut_on_the_way_back_leaves_one_of_the_two_active(
    home: Path, elsewhere: Finished, bundle_maker: Maker
) -> None:
    _install(home, elsewhere, 1, bundle_maker)
    _install(home, elsewhere, 2, bundle_maker)
    fresh = _copies(home)
    for step in range(100):
        fresh()
        with Disk(step).watched() as disk:
            roll_back(home, bundle_maker.trust)
        active, previous = (read_finished(home, name, bundle_maker.trust).read_engine() for name in (ACTIVE, PREVIOUS))
        assert (active, previous) in {
            (b"engine 2", b"engine 1"), (b"engine 1", b"engine 1"), (b"engine 1", b"engine 2"),
        }  # fmt: skip
        if active == previous:
            with pytest.raises(BundleError, match=r"Nothing is kept in .* but what is active"):
                roll_back(home, bundle_maker.trust)
        if not disk.reached:
            break
    assert (active, previous) == (b"engine 1", b"engine 2")
    assert step > 5


def test_without_an_active_one_there_is_a_way_back(home: Path, old: Finished, bundle_maker: Maker) -> None:
    _install(home, old, 1, bundle_maker)
    (home / ACTIVE).unlink()
    assert roll_back(home, bundle_maker.trust).path == old.path
    assert linked_folder(home) == old.path


def test_times_are_kept_when_all_went_well_and_their_loss_is_no_failure(
    home: Path, elsewhere: Finished, bundle_maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(home / TIMING)
    install(home, elsewhere.bundle, _proven(elsewhere, 1, TimingCache("a", b"one")), bundle_maker.trust)
    assert read_timing_cache(home, "a") == TimingCache("a", b"one")
    assert read_timing_cache(home, "b") == TimingCache("b", b"")
    install(home, elsewhere.bundle, _proven(elsewhere, 2, TimingCache("b", b"two")), bundle_maker.trust)
    assert [file.name for file in (home / TIMING).iterdir()] == ["b.cache"]
    install(home, elsewhere.bundle, _proven(elsewhere, 3, TimingCache("b", b"")), bundle_maker.trust)
    assert read_timing_cache(home, "b").content == b"two"
    with monkeypatch.context() as patch, contextlib.suppress(OutputError):
        patch.setattr(install_module, "write_file", lambda *_: _fail(errno.ENOSPC))
        assert install(home, elsewhere.bundle, _proven(elsewhere, 4, TimingCache("c", b"x")), bundle_maker.trust)
    assert read_finished(home, trust=bundle_maker.trust).read_engine() == b"engine 4"
    monkeypatch.setattr(install_module, "try_out", lambda _: _fail_check())
    with pytest.raises(CheckFailedError):
        install(home, elsewhere.bundle, _proven(elsewhere, 5, TimingCache("d", b"x")), bundle_maker.trust)
    assert read_timing_cache(home, "d").content == b""
