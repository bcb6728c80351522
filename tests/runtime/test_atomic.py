"""Folders and files appear whole or not at all, and never over something that was there."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from edgefetal_devices.errors import OutputError
from edgefetal_runtime import atomic
from edgefetal_runtime.atomic import refuse_existing, write_file, write_folder

FILES = {"a.json": b"{}", "b.png": bytes(1000), "empty": b""}


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _fail(monkeypatch: pytest.MonkeyPatch, method: str, after: int = 0) -> None:
    """Let a method of `Path` fail as a full disk does, after so many good calls."""
    good = getattr(Path, method)
    calls = iter(range(1_000_000))

    def failing(path: Path, *args: object, **kwargs: object) -> object:
        if next(calls) >= after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return good(path, *args, **kwargs)

    monkeypatch.setattr(Path, method, failing)


def test_a_folder_is_written_whole_with_its_parents(tmp_path: Path) -> None:
    folder = tmp_path / "clinic" / "exam 1"
    write_folder(folder, FILES)
    assert _contents(folder) == FILES
    assert [entry.name for entry in folder.parent.iterdir()] == ["exam 1"]


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder"])
def test_what_exists_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "exam"
    if kind == "file":
        path.write_bytes(b"mine")
    else:
        path.mkdir()
    if kind == "folder":
        (path / "mine").write_bytes(b"mine")
    for refuse in (lambda: refuse_existing(path), lambda: write_folder(path, FILES)):
        with pytest.raises(OutputError, match=r"exam exists; name another, or remove it first"):
            refuse()
    assert path.read_bytes() == b"mine" if kind == "file" else "a.json" not in _contents(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["exam"]


def test_a_new_name_is_not_refused(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("method", "after"), [("write_bytes", 0), ("write_bytes", 2), ("rename", 0), ("mkdir", 1)])
def test_a_full_disk_leaves_no_folder_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, after: int
) -> None:
    _fail(monkeypatch, method, after)
    with pytest.raises(OutputError, match=r"exam cannot be written \(No space left on device\); check the folder"):
        write_folder(tmp_path / "exam", FILES)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_before_the_last_step_leaves_nothing_under_the_folders_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            write_folder(tmp_path / "exam", FILES)
    assert not (tmp_path / "exam").exists()
    # What the killed run left does not get into the next one.
    write_folder(tmp_path / "exam", {"only": b"1"})
    assert _contents(tmp_path / "exam") == {"only": b"1"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["exam"]


def test_nothing_has_its_name_before_it_would_outlast_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_sync, real_rename = atomic.sync, Path.rename

    def sync(path: Path) -> None:
        steps.append(f"sync {path.name}")
        real_sync(path)

    def rename(path: Path, target: Path) -> Path:
        steps.append(f"rename to {target.name}")
        return real_rename(path, target)

    monkeypatch.setattr(atomic, "sync", sync)
    monkeypatch.setattr(Path, "rename", rename)
    write_folder(tmp_path / "new" / "exam", FILES)
    before, after = steps[: steps.index("rename to exam")], steps[steps.index("rename to exam") + 1 :]
    assert sorted(before[:-1]) == sorted(f"sync {name}" for name in FILES)
    assert before[-1] == "sync .exam.partial"
    assert after == ["sync new", f"sync {tmp_path.name}"]


def test_a_folder_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"cannot be made, because .*file is not a folder"):
        write_folder(tmp_path / "file" / "exam", FILES)
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_folder_name_that_no_disk_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_folder(tmp_path / ("n" * 300), FILES)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_file(path, b"old")
    write_file(path, b"new")
    assert _contents(tmp_path) == {"result.json": b"new"}


@pytest.mark.parametrize("method", ["write_bytes", "replace"])
def test_a_full_disk_keeps_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(b"old")
    with monkeypatch.context() as patched:
        _fail(patched, method)
        with pytest.raises(OutputError, match=r"result\.json cannot be written \(No space left on device\); check"):
            write_file(path, b"new")
    assert _contents(tmp_path) == {"result.json": b"old"}


@pytest.mark.parametrize("parent", ["missing", "file"])
def test_a_file_in_no_folder_is_refused(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"result\.json cannot be written .*check the folder"):
        write_file(tmp_path / parent / "result.json", b"new")
    assert _contents(tmp_path) == {"file": b"mine"}
