"""A SQLite VFS that sees, and may refuse, every write of the very library that Python's `sqlite3` uses.

SQLite's own methods run on SQLite's own file objects; only the pointers to the few that change the disk are replaced.
"""

from __future__ import annotations

import contextlib
import ctypes as ct
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OK, FULL, IOERR_WRITE, READONLY = 0, 13, 10 | (3 << 8), 8
_OPEN_CREATE, _OPEN_WAL, _OPEN_MAIN_JOURNAL = 0x4, 0x80000, 0x800

_P = ct.c_void_p
_METHODS = (
    "xClose", "xRead", "xWrite", "xTruncate", "xSync", "xFileSize", "xLock", "xUnlock", "xCheckReservedLock",
    "xFileControl", "xSectorSize", "xDeviceCharacteristics", "xShmMap", "xShmLock", "xShmBarrier", "xShmUnmap",
    "xFetch", "xUnfetch",
)  # fmt: skip
_WRITE = ct.CFUNCTYPE(ct.c_int, _P, _P, ct.c_int, ct.c_int64)
_TRUNCATE = ct.CFUNCTYPE(ct.c_int, _P, ct.c_int64)
_SYNC = ct.CFUNCTYPE(ct.c_int, _P, ct.c_int)
# Names stay pointers: SQLite keeps them, so a copy that Python frees would be read again.
_OPEN = ct.CFUNCTYPE(ct.c_int, _P, _P, _P, ct.c_int, ct.POINTER(ct.c_int))
_DELETE = ct.CFUNCTYPE(ct.c_int, _P, _P, ct.c_int)


class _IoMethods(ct.Structure):
    _fields_ = [("iVersion", ct.c_int), *((name, _P) for name in _METHODS)]


class _Vfs(ct.Structure):
    _fields_ = [
        ("iVersion", ct.c_int),
        ("szOsFile", ct.c_int),
        ("mxPathname", ct.c_int),
        ("pNext", _P),
        ("zName", ct.c_char_p),
        ("pAppData", _P),
        ("xOpen", _P),
        ("xDelete", _P),
        *((f"rest{n}", _P) for n in range(14)),
    ]


def sqlite_library() -> Path | None:
    """Return the shared library that Python's `sqlite3` module is linked with, or None where it is built in."""
    import _sqlite3

    listed = subprocess.run(["/usr/bin/ldd", _sqlite3.__file__], capture_output=True, text=True, check=False).stdout
    paths = [line.split("=>")[1].split()[0] for line in listed.splitlines() if "libsqlite3" in line]
    return Path(paths[0]) if paths else None


def _path(name: int) -> Path:
    return Path(os.fsdecode(ct.string_at(name)))


class Shim:
    """Calls `on_effect(kind, path, *what)` before each change; a number that it returns is SQLite's answer instead.

    Kinds: `open` (a new file), `write` (offset, content), `truncate` (size), `sync` (also the folder of a new journal's
    or log's first), `unlink`.
    """

    def __init__(self, library: Path, on_effect: Callable[..., int]) -> None:
        self._library = ct.CDLL(str(library))
        self._library.sqlite3_vfs_find.restype = ct.POINTER(_Vfs)
        self._library.sqlite3_vfs_find.argtypes = [ct.c_char_p]
        self._library.sqlite3_vfs_register.argtypes = [ct.POINTER(_Vfs), ct.c_int]
        self._library.sqlite3_vfs_unregister.argtypes = [ct.POINTER(_Vfs)]
        self._effect = on_effect
        self._paths: dict[int, Path] = {}
        self._new: set[int] = set()
        self._methods: dict[int, tuple[_IoMethods, object]] = {}
        self._real = self._library.sqlite3_vfs_find(None)
        self._vfs = _Vfs()
        ct.memmove(ct.byref(self._vfs), self._real, ct.sizeof(_Vfs))
        self._vfs.zName = b"edgefetal-shim"
        self._vfs.pNext = None
        real_open = _OPEN(self._real.contents.xOpen)
        real_delete = _DELETE(self._real.contents.xDelete)

        def x_open(vfs: int, name: int | None, file: int, flags: int, out: object) -> int:
            path = None if name is None else _path(name)
            is_new = path is not None and bool(flags & _OPEN_CREATE) and not path.exists()
            if is_new and (refused := self._effect("open", path)):
                return refused
            answer: int = real_open(vfs, name, file, flags, out)
            if answer == OK and path is not None:
                self._paths[file] = path
                self._new.discard(file)
                if is_new and flags & (_OPEN_WAL | _OPEN_MAIN_JOURNAL):
                    self._new.add(file)
                pointer = ct.cast(file, ct.POINTER(_P))
                pointer[0] = ct.addressof(self._replaced(pointer[0]))
            return answer

        def x_delete(vfs: int, name: int, sync_folder: int) -> int:
            path = _path(name)
            if path.exists() and (refused := self._effect("unlink", path)):
                return refused
            answer: int = real_delete(vfs, name, sync_folder)
            if sync_folder:
                self._effect("sync", path.parent)
            return answer

        self._kept = (_OPEN(x_open), _DELETE(x_delete))
        self._vfs.xOpen, self._vfs.xDelete = (ct.cast(function, _P) for function in self._kept)

    def _replaced(self, address: int) -> _IoMethods:
        """Return SQLite's methods of a kind of file, with ours in the place of those that change the disk."""
        if address in self._methods:
            return self._methods[address][0]
        methods = _IoMethods.from_buffer_copy(_IoMethods.from_address(address))
        write, truncate, sync = _WRITE(methods.xWrite), _TRUNCATE(methods.xTruncate), _SYNC(methods.xSync)

        def x_write(file: int, content: int, length: int, offset: int) -> int:
            refused = self._effect("write", self._paths[file], offset, ct.string_at(content, length))
            return refused or int(write(file, content, length, offset))

        def x_truncate(file: int, size: int) -> int:
            return self._effect("truncate", self._paths[file], size) or int(truncate(file, size))

        def x_sync(file: int, flags: int) -> int:
            path = self._paths[file]
            answer = self._effect("sync", path) or int(sync(file, flags))
            if answer == OK and file in self._new:
                # What unixSync does for a new journal or log: UNIXFILE_DIRSYNC.
                self._new.discard(file)
                self._effect("sync", path.parent)
            return answer

        ours = (_WRITE(x_write), _TRUNCATE(x_truncate), _SYNC(x_sync))
        methods.xWrite, methods.xTruncate, methods.xSync = (ct.cast(function, _P) for function in ours)
        self._methods[address] = (methods, ours)
        return methods

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Let every database that is opened within go through the shim; all must be closed within too."""
        self._library.sqlite3_vfs_register(ct.byref(self._vfs), 1)
        try:
            yield
        finally:
            self._library.sqlite3_vfs_register(self._real, 1)
            self._library.sqlite3_vfs_unregister(ct.byref(self._vfs))
