"""The clinic's install on an emulated 64-bit Arm processor beside this x86-64 one: do both measure the same?

    python tests/benchmarks/aarch64.py --root /tmp/arm64 --make-root --hc18 ../shared/data/hc18

`--make-root` makes a Debian 12 arm64 root and installs edgefetal there as `install.sh` does on a board: from a folder
of wheels that `devices/board/wheels.py` fills, by the pip in it, with no package index. Further runs leave it out. It
needs root, `apt-get install mmdebstrap arch-test qemu-user-static binfmt-support`, and Linux to know the emulator:
`mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc; update-binfmts --enable qemu-aarch64` where it does not.

Then `verify --run`, `demo` and `run` on real heads and on a simulated sweep, here and there, one thread each; and all
that the two exams hold is compared. `--bundle` may be repeated: each is run on both machines, and on the emulated one
they are compared with one another. The figures are in docs/boards.md. An emulator's times say nothing, and none is
taken.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefetal_calibration.datasets.hc18 import TABLE, read_hc18

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHECKOUT = Path(__file__).resolve().parents[2]
MAX_DIFFERENCE_MM = 0.1
# A core like an Orin's, so that onnxruntime takes the kernels that it would take there.
EMULATED_CORE = "cortex-a76"
# QEMU 7.2 shows programs the host's /proc/cpuinfo, and onnxruntime for Arm crashes when it reads an x86 one.
CPUINFO = "opt/cpuinfo"
CORE = """processor\t: {number}
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd0b
CPU revision\t: 1

"""
PROGRAM = "/opt/edgefetal"
# Where the cases lie in the root; both machines read the same files.
CASES = "opt/cases"
WHO = (
    "import platform, sys, numpy, cv2, onnxruntime; print(f'{platform.machine()}, Python "
    "{platform.python_version()}, numpy {numpy.__version__}, OpenCV {cv2.__version__}, "
    "onnxruntime {onnxruntime.__version__}')"
)
# In its own mount namespace, so that /proc and its like are gone from the root when the command ends.
ENTER = (
    f'mount -t proc proc "$1/proc" && mount --bind "$1/{CPUINFO}" "$1/proc/cpuinfo" && '
    'mount --rbind /dev "$1/dev" && mount --rbind /sys "$1/sys" && '
    'root=$1 && cd_to=$2 && shift 2 && exec chroot "$root" /bin/sh -c \'cd "$0" && exec "$@"\' "$cd_to" "$@"'
)


@dataclass(frozen=True)
class Machine:
    """One of the two processors.

    Args:
        name: for the tables.
        root: folder of the emulated one's `/`, as seen from here; both read and write the cases below it.
        emulated: whether commands run inside the root.
        python: its interpreter.
    """

    name: str
    root: Path
    emulated: bool
    python: str

    def run(self, arguments: Sequence[str], folder: str) -> str:
        """Run the interpreter in a folder below `/`; return what it printed.

        Raises:
            RuntimeError: it failed.
        """
        command = [self.python, *arguments]
        environment = dict(os.environ, OMP_NUM_THREADS="1", COLUMNS="200", TERM="dumb")
        if self.emulated:
            command = [
                "unshare", "--mount", "--propagation", "private",
                "sh", "-c", ENTER, "enter", str(self.root), f"/{folder}", *command,
            ]  # fmt: skip
            environment = {
                "OMP_NUM_THREADS": "1", "COLUMNS": "200", "TERM": "dumb", "LANG": "C.UTF-8", "HOME": "/root",
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "QEMU_CPU": EMULATED_CORE, "PIP_CONFIG_FILE": "/dev/null",
            }  # fmt: skip
        cwd = None if self.emulated else self.root / folder
        done = subprocess.run(
            ["nice", "-n", "10", *command],  # noqa: S607 - the user's own PATH
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            message = f"{self.name}: {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            raise RuntimeError(message)
        return done.stdout

    def edgefetal(self, *arguments: object, name: str) -> dict[str, Any]:
        """Run a command of edgefetal among the cases; return what its `--json` wrote, kept as `name`."""
        target = f"{name}-{self.name}.json"
        where = self.root / CASES / target
        where.unlink(missing_ok=True)
        self.run(["-m", "edgefetal", *map(str, arguments), "--json", target], CASES)
        value: dict[str, Any] = json.loads(where.read_text())
        return value

    def examine(self, bundle: str, source: str, *options: str, name: str) -> dict[str, Any]:
        """Run a bundle on a source with one thread; return the exam."""
        out = f"exam-{name}-{self.name}"
        shutil.rmtree(self.root / CASES / out, ignore_errors=True)
        return self.edgefetal("run", bundle, source, *options, "--threads", 1, "--out", out, name=name)


def make_root(root: Path) -> None:
    """Make a Debian 12 arm64 root with Python, and install this checkout there from wheels alone."""
    subprocess.run(
        [  # noqa: S607 - the user's own PATH
            "mmdebstrap", "--variant=apt", "--architectures=arm64", "--include=python3",
            "bookworm", str(root), "http://deb.debian.org/debian",
        ],
        check=True,
    )  # fmt: skip
    install(root)


def install(root: Path) -> None:
    """Install this checkout into a root, with the versions that it is tested with."""
    (root / CPUINFO).write_text("".join(CORE.format(number=number) for number in range(os.cpu_count() or 1)))
    board = _board_wheels()
    python = Machine("aarch64", root, emulated=True, python="/usr/bin/python3")
    version = python.run(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"], "tmp").strip()
    pins = [line for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if "==" in line]
    names = ("numpy", "onnxruntime", "opencv-python-headless", "pydantic")
    same = tuple(pin.partition(";")[0] for pin in pins if pin.partition("==")[0] in names)
    wheels = root / "opt/wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    board.fill(wheels, board.Board(version, same), str(CHECKOUT), pycuda=False)
    installer = next(wheels.glob("pip-*.whl")).name
    python.run(["-m", "venv", "--system-site-packages", "--without-pip", "--clear", PROGRAM], "tmp")
    inside = Machine("aarch64", root, emulated=True, python=f"{PROGRAM}/bin/python")
    pip = f"/opt/wheels/{installer}/pip"
    inside.run([pip, "install", "--quiet", "--no-index", "--find-links", "/opt/wheels", "edgefetal"], "tmp")


def _board_wheels() -> Any:
    """Import `devices/board/wheels.py`, which is a program and in no package."""
    spec = importlib.util.spec_from_file_location("board_wheels", CHECKOUT / "devices/board/wheels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def choose_heads(hc18: Path, count: int, folder: Path) -> int:
    """Copy heads of all sizes, evenly by circumference, with the table of their pixel sizes; return how many."""
    cases = sorted(read_hc18(hc18), key=lambda case: case.hc_mm)
    chosen = [cases[round(k * (len(cases) - 1) / max(count - 1, 1))] for k in range(count)]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for case in chosen:
        shutil.copy(case.picture, folder)
    shutil.copy(hc18 / TABLE, folder)
    return len(list(folder.glob("*.png")))


@dataclass(frozen=True)
class Comparison:
    """How two exams of one source differ.

    Args:
        differences: for each measure and unit, the absolute difference of each value that both have.
        decisions: how many things that are not values were compared: who abstained, frames that were chosen, lights.
        other: which of them differ, and how.
    """

    differences: dict[tuple[str, str], list[float]]
    decisions: int
    other: list[str]


def compare(one: dict[str, Any], two: dict[str, Any]) -> Comparison:
    """Compare the measurements of two `exam.json`, and all that was decided on the way to them."""
    differences: dict[tuple[str, str], list[float]] = {}
    ours, theirs = _measurements(one), _measurements(two)
    other = [f"only one has {key}" for key in sorted(ours.keys() ^ theirs.keys())]
    decisions = len(ours.keys() | theirs.keys())
    for key in ours.keys() & theirs.keys():
        a, b = ours[key], theirs[key]
        if (a["value"] is None) != (b["value"] is None):
            other.append(f"{key}: {a['value']} ({a['abstained']}) and {b['value']} ({b['abstained']})")
        elif a["value"] is not None:
            differences.setdefault((a["name"], a["unit"]), []).append(abs(a["value"] - b["value"]))
    pairs = zip(_decided(one), _decided(two), strict=True)
    for (what, a), (_, b) in pairs:
        decisions += 1
        if a != b:
            other.append(f"{what}: {a} and {b}")
    return Comparison(differences, decisions, other)


def _measurements(exam: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(m["sweep"], m["name"]): m for m in exam["measurements"]}


def _decided(exam: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what was decided in each sweep: which frames were chosen, how many were outlined, the light."""
    for sweep in exam["sweeps"]:
        yield f"{sweep['name']}: light", sweep["hand"] and sweep["hand"]["light"]
        for part in sweep["structures"]:
            where = f"{sweep['name']}: {part['structure']}"
            yield f"{where} chosen", [frame["index"] for frame in part["chosen"]]
            yield f"{where} outlined", part["frames_outlined"]


def show(title: str, comparisons: Sequence[Comparison]) -> float:
    """Print a table of differences by measure; return the largest in millimetres."""
    joined: dict[tuple[str, str], list[float]] = {}
    for comparison in comparisons:
        for key, values in comparison.differences.items():
            joined.setdefault(key, []).extend(values)
    other = [text for comparison in comparisons for text in comparison.other]
    decisions = sum(comparison.decisions for comparison in comparisons)
    print(f"\n{title}\n| measure | values | largest difference | mean |\n|---|---|---|---|")
    for (name, unit), values in sorted(joined.items()):
        print(f"| {name} | {len(values)} | {max(values):.3g} {unit} | {sum(values) / len(values):.3g} |")
    print(f"{len(other)} of {decisions} decisions differ", *other, sep="\n  ", flush=True)
    return max((max(values) for (_, unit), values in joined.items() if unit == "mm"), default=0.0)


def main() -> None:
    """Run everything on both machines and say how they differ; exit code 1 if by more than 0.1 mm or a decision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="arm64 root")
    parser.add_argument("--make-root", action="store_true", help="make it first; it must not exist")
    parser.add_argument("--install", action="store_true", help="install this checkout anew into a root that exists")
    parser.add_argument("--hc18", type=Path, required=True, help="HC18 in its official layout")
    parser.add_argument("--heads", type=int, default=24)
    parser.add_argument("--bundle", action="append", help="`starter` or a folder; may be repeated [default: starter]")
    asked = parser.parse_args()
    root = asked.root.resolve()
    if asked.make_root:
        make_root(root)
    elif asked.install:
        install(root)
    here = Machine(platform.machine(), root, emulated=False, python=sys.executable)
    there = Machine("aarch64", root, emulated=True, python=f"{PROGRAM}/bin/python")
    cases = root / CASES
    heads = choose_heads(asked.hc18, asked.heads, cases / "heads")
    version = ["qemu-aarch64-static", "--version"]
    qemu = subprocess.run(version, capture_output=True, text=True, check=True).stdout
    print(f"here: {here.run(['-c', WHO], CASES)}emulated: {there.run(['-c', WHO], CASES)}{qemu.splitlines()[0]}")

    for machine in (here, there):
        shutil.rmtree(cases / f"demo-{machine.name}", ignore_errors=True)
    demos = [m.edgefetal("demo", "--out", f"demo-{m.name}", name="demo") for m in (here, there)]
    exams = [json.loads((cases / f"demo-{m.name}" / "exam.json").read_text()) for m in (here, there)]
    pixels = ",".join(str(value) for value in demos[0]["mm_per_px"])
    sweep = f"demo-{here.name}/sweep.avi"
    failed = show("edgefetal demo, each on the sweep that it drew itself", [compare(*exams)]) > MAX_DIFFERENCE_MM

    emulated: dict[str, list[dict[str, Any]]] = {}
    for number, text in enumerate(asked.bundle or ["starter"]):
        bundle = text
        if text != "starter":
            bundle = f"bundle-{number}"
            shutil.rmtree(cases / bundle, ignore_errors=True)
            shutil.copytree(text, cases / bundle)
        results = []
        for machine in (here, there):
            golden = machine.edgefetal("verify", bundle, "--run", name=f"verify-{number}")["network"]
            print(f"\n{text} on {machine.name}: {golden}", flush=True)
            results.append(
                [
                    machine.examine(bundle, "heads", name=f"heads-{number}"),
                    machine.examine(bundle, sweep, "--mm-per-px", pixels, "--simulated", name=f"sweep-{number}"),
                ]
            )
        emulated[text] = results[1]
        found = [compare(*pair) for pair in zip(*results, strict=True)]
        largest_mm = show(f"{text}: {heads} real heads and a simulated sweep, {here.name} and aarch64", found)
        failed = failed or largest_mm > MAX_DIFFERENCE_MM or any(comparison.other for comparison in found)
    names = list(emulated)
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            found = [compare(*pair) for pair in zip(emulated[one], emulated[two], strict=True)]
            show(f"{one} and {two}, both on aarch64", found)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
