"""Run with a folder, a first effect, a step and a last effect: one child for each, killed at that effect of its exams.

A fresh interpreter, so that it may fork; each child works in a folder named by the effect, with what it was told was
saved in a file beside it. The last child is killed by nobody and says how many effects there are.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from store_faults import POLICY, Clock, save_one, watched

from edgefetal_runtime.store.exams import ExamStore


class Killer:
    """Kills its own process at an effect; a write is then half done."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.count = 0

    def __call__(self, kind: str, path: Path, *what: object) -> int:
        self.count += 1
        if self._left == 0:
            if kind in ("replace", "append") and isinstance(what[0], bytes):
                with path.open("ab" if kind == "append" else "wb") as stream:
                    stream.write(what[0][: len(what[0]) // 2])
            if kind == "write" and isinstance(what[1], bytes):
                with path.open("r+b") as stream:
                    stream.seek(int(str(what[0])))
                    stream.write(what[1][: len(what[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        return 0


def work(folder: Path, killer: Killer) -> None:
    """Save two exams, delete the first, save a third; say each when it was said to us."""
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(what: str) -> None:
        os.write(said, what.encode() + b"\n")

    with watched(killer) as disk, ExamStore.open(folder / "store", POLICY, disk=disk, clock=Clock()) as store:
        for number in (1, 2):
            say("saved " + save_one(store, f"patient {number}", number).model_dump_json())
        store.get(store.exams("patient 2")[0].exam_id)
        say("deleting patient 1")
        store.delete_patient("patient 1")
        say("deleted patient 1")
        say("saved " + save_one(store, "patient 3", 3).model_dump_json())


def main() -> None:
    root, first, step, last = Path(sys.argv[1]), *(int(n) for n in sys.argv[2:5])
    for at in (*range(first, last, step), 10**9):
        folder = root / str(at)
        folder.mkdir()
        child = os.fork()
        if child == 0:
            killer = Killer(at)
            work(folder, killer)
            (root / "effects").write_text(str(killer.count))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not killed:
            # Past the last effect, or a fault of the child's own: its status tells which.
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
