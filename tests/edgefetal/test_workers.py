"""Exams spread over workers: the same figures as in one process, whatever happens to a worker.

Two processes are started once, and everything here uses them as a cluster's.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import cv2
import pytest
from distributed import Client, KilledWorker, LocalCluster

from edgefetal_calibration.cluster import Cluster, _outcome, open_cluster
from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.each import in_order, in_turn
from edgefetal_calibration.evaluate import evaluate_heads
from edgefetal_calibration.phantom.ages import parse_ages
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.series import SeriesPlan, write_series
from edgefetal_calibration.shared import Proof, SharedNetworks, share
from edgefetal_devices.errors import (
    BundleError,
    CheckFailedError,
    DatasetError,
    EdgeFetalError,
    EnvironmentLacksError,
)
from edgefetal_runtime.infer.bundle import MODEL, Bundle, load_bundle
from edgefetal_runtime.infer.network import load_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.edgefetal.conftest import CommandLine, HeadSweep

COUNT = 24
NAMES = [f"exam {number}" for number in range(COUNT)]
# These differ from one run of a process to its next.
CLOCKS = ("seconds", "seconds_per_frame", "time_ratio", "timings", "created_utc")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Functions of this file travel whole, since nobody installs tests on a worker.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with open_cluster(None, 2) as opened:
        opened.client.wait_for_workers(2)
        yield opened
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def address(cluster: Cluster) -> str:
    return str(cluster.client.scheduler.address)


def without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_clocks(of) for key, of in value.items() if key not in CLOCKS}
    return [without_clocks(of) for of in value] if isinstance(value, list) else value


def shared_networks(bundle: Bundle) -> SharedNetworks:
    networks = {"shipped": load_network(bundle, threads=1)}
    return share(bundle, networks, {"shipped": MODEL}, backend="auto", threads=1, clinic=False)


def test_pictures_give_the_same_figures_as_in_one_process(
    edgefetal: CommandLine, tiny_hc18: Path, address: str
) -> None:
    options = ("evaluate", "starter", "--dataset", f"hc18:{tiny_hc18}", "--reference")
    alone = edgefetal.json(*options, "--threads", "1")
    spread = edgefetal.json(*options, "--scheduler", address)
    assert spread["n"] == 32
    assert without_clocks(spread) == without_clocks(alone)


def test_exams_of_sweeps_give_the_same_figures_as_in_one_process(
    edgefetal: CommandLine, tmp_path: Path, address: str
) -> None:
    plan = SeriesPlan(Protocol.HEAD, parse_ages("22w0d..34w0d"), exams=5, seed=3, skill=1.0, frame_count=4)
    write_series(plan, tmp_path / "heads")
    # A relative path means nothing to workers, whose working folder is another.
    options = ("evaluate", "starter", "--dataset", "phantom:heads", "--part", "all")
    alone = edgefetal.json(*options, "--threads", "1")
    spread = edgefetal.json(*options, "--scheduler", address)
    assert spread["n_subjects"] == 5
    assert without_clocks(spread) == without_clocks(alone)


def _die_at(marks: str, deadly: int, item: int) -> int:
    """Take the worker along at one item, the first time."""
    mark = Path(marks) / f"begun-{item}"
    first = not mark.exists()
    mark.touch()
    if item == deadly and first:
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item


@pytest.mark.parametrize("batch", [1, 4])
def test_a_worker_killed_half_way_loses_nothing_and_nothing_counts_twice(
    cluster: Cluster, tmp_path: Path, batch: int
) -> None:
    cluster.client.wait_for_workers(2)
    before = {worker["pid"] for worker in cluster.client.run(lambda: {"pid": os.getpid()}).values()}
    function = partial(_die_at, str(tmp_path), COUNT // 2)
    outcomes = list(cluster.map(function, range(COUNT), NAMES, batch=batch))
    assert sorted(index for index, _ in outcomes) == list(range(COUNT))
    assert dict(outcomes) == {number: number * number for number in range(COUNT)}
    cluster.client.wait_for_workers(2)
    after = {worker["pid"] for worker in cluster.client.run(lambda: {"pid": os.getpid()}).values()}
    assert len(before - after) == 1


class _Deadly(dict[str, Any]):
    """Networks of which one use, once, ends the worker as a lack of memory would."""

    def __init__(self, networks: SharedNetworks, mark: str) -> None:
        super().__init__()
        self.networks, self.mark = networks, mark

    def __iter__(self) -> Iterator[str]:
        return iter(self.networks)

    def __getitem__(self, name: str) -> Any:
        network = self.networks[name]
        try:
            os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return network
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Deadly, (self.networks, self.mark)


def test_figures_are_the_same_when_a_worker_dies(
    cluster: Cluster, starter: Bundle, tiny_hc18: Path, tmp_path: Path
) -> None:
    cases = read_hc18(tiny_hc18)[:10]
    networks = {"shipped": load_network(starter, threads=1)}
    alone = evaluate_heads(networks, cases)["shipped"]
    mark = tmp_path / "mark"
    done: list[None] = []
    deadly = _Deadly(shared_networks(starter), str(mark))
    spread = evaluate_heads(deadly, cases, lambda: done.append(None), mapper=cluster.map)["shipped"]
    assert mark.exists()
    assert len(done) == len(cases)
    assert [replace(result, seconds=0.0) for result in spread] == [replace(result, seconds=0.0) for result in alone]


def _fail(marks: str, kind: type[Exception], times: int, item: int) -> int:
    if item == 3:
        tries = len(list(Path(marks).iterdir()))
        (Path(marks) / str(tries)).touch()
        if tries < times:
            raise kind("it went away")
    return item


def test_what_fails_for_a_moment_is_tried_again(cluster: Cluster, tmp_path: Path) -> None:
    function = partial(_fail, str(tmp_path), OSError, 2)
    assert in_order(cluster.map, function, range(6), NAMES[:6], lambda: None) == list(range(6))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("batch", [1, 2, 6])
@pytest.mark.parametrize(("kind", "expected"), [(DatasetError, DatasetError), (ZeroDivisionError, CheckFailedError)])
def test_what_fails_for_good_is_named_and_the_others_are_done(
    cluster: Cluster, tmp_path: Path, kind: type[Exception], expected: type[EdgeFetalError], batch: int
) -> None:
    found = list(cluster.map(partial(_fail, str(tmp_path), kind, 99), range(6), NAMES[:6], batch=batch))
    assert len(found) == 6
    outcomes = dict(found)
    error = outcomes.pop(3)
    assert type(error) is expected
    assert "exam 3" in str(error)
    assert "it went away" in str(error)
    assert outcomes == {number: number for number in (0, 1, 2, 4, 5)}


def test_an_exam_that_kills_every_worker_is_named() -> None:
    class Lost:
        def cancelled(self) -> bool:
            return False

        def result(self) -> None:
            raise KilledWorker("key", None, 3)

    error = _outcome(Lost(), "exam 7")
    assert isinstance(error, CheckFailedError)
    assert "exam 7 took every worker with it that tried it (4)" in str(error)


def _wait_for(mark: str, item: int) -> int:
    """Hold the worker until the test lets go, so that what is queued stays queued."""
    Path(mark, f"begun-{item}").touch()
    while item and not Path(mark, "go").exists():
        time.sleep(0.01)
    return item


def _to_be_done(dask_scheduler: Any) -> int:
    return sum(task.state in {"queued", "waiting", "processing"} for task in dask_scheduler.tasks.values())


def test_an_interruption_cancels_what_is_queued(cluster: Cluster, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_order(cluster.map, partial(_wait_for, str(tmp_path)), range(COUNT), NAMES, interrupt)
    (tmp_path / "go").touch()
    until_s = time.monotonic() + 30
    while cluster.client.run_on_scheduler(_to_be_done):
        assert time.monotonic() < until_s
    # The first, one in each worker, and what was sent to a worker before it was called off.
    assert len(list(tmp_path.glob("begun-*"))) <= 6


def test_own_workers_are_reached_from_this_machine_alone(cluster: Cluster) -> None:
    """What listens runs whatever it is sent."""
    pids = {os.getpid(), *cluster.client.run(os.getpid).values()}
    sockets = {f"socket:[{line.split()[9]}]": line.split()[1] for line in _listening()}
    held = [sockets[link] for pid in pids for link in _links(pid) if link in sockets]
    assert len(held) >= 3
    # The address as the kernel writes it, 127.0.0.1 backwards.
    assert {address.partition(":")[0] for address in held} == {"0100007F"}


def _listening() -> list[str]:
    lines = [*Path("/proc/net/tcp").read_text().splitlines()[1:], *Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    return [line for line in lines if line.split()[3] == "0A"]


def _links(pid: int) -> list[str]:
    return [str(descriptor.readlink()) for descriptor in Path(f"/proc/{pid}/fd").iterdir() if descriptor.is_symlink()]


def test_own_workers_keep_freed_memory_for_the_next_frame(cluster: Cluster) -> None:
    """dask's own setting costs a quarter of the time of each picture; docs/cluster.md."""
    environments = cluster.client.run(lambda: dict(os.environ)).values()
    assert environments
    assert not any(name.startswith("MALLOC_") for environment in environments for name in environment)


def test_no_worker_left_is_said() -> None:
    with (
        LocalCluster(
            n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
        ) as none,
        Client(none, set_as_default=False) as client,
        pytest.raises(EnvironmentLacksError, match=r"No worker is left at tcp://.*dask worker tcp://"),
    ):
        list(Cluster(client, patience_s=0.2).map(abs, [1, 2], NAMES[:2]))


def test_another_bundle_on_a_worker_is_refused(cluster: Cluster, starter: Bundle, tmp_path: Path) -> None:
    """A worker finds at the same path what was put there since, as where folders are copied and not shared."""
    folder = shutil.copytree(starter.path, tmp_path / "bundle")
    shared = shared_networks(load_bundle(folder))
    manifest = folder / "manifest.json"
    whole = manifest.read_bytes()
    manifest.unlink()
    with pytest.raises(BundleError, match="is not a bundle"):
        cluster.check(shared.check)
    manifest.write_text(json.dumps({**json.loads(whole), "name": "another"}))
    with pytest.raises(BundleError, match="is another bundle"):
        cluster.check(shared.check)
    # A worker that came after the check asks for itself.
    (_, error), *_ = cluster.map(partial(_open, shared), [0], ["exam 0"])
    assert isinstance(error, BundleError)


def _open(shared: SharedNetworks, item: int) -> int:
    shared.check()
    return item


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda proof: replace(proof, answers="0"), "answers the golden frames otherwise"),
        (
            lambda proof: replace(proof, versions=(*proof.versions[:2], ("OpenCV", "1.0"))),
            r"has OpenCV .*, and the command has 1\.0; install the same",
        ),
    ],
    ids=["another processor", "another version"],
)
def test_a_worker_that_computes_otherwise_is_refused(
    cluster: Cluster, starter: Bundle, change: Callable[[Proof], Proof], says: str
) -> None:
    shared = shared_networks(starter)
    cluster.check(shared.check)
    with pytest.raises(CheckFailedError, match=says):
        cluster.check(replace(shared, proof=change(shared.proof)).check)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--workers", "2", "--scheduler", "tcp://h:1"), 2, "not both"),
        (("--scheduler", "h:1"), 2, "write tcp://HOST:PORT"),
        (("--scheduler", "tcp://127.0.0.1:9"), 3, "No scheduler with workers answers at tcp://127.0.0.1:9"),
    ],
)
def test_what_is_no_cluster_is_refused(
    edgefetal: CommandLine,
    tiny_hc18: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    monkeypatch.setattr("edgefetal_calibration.cluster._CONNECT_S", 0.3)
    outcome = edgefetal("evaluate", "starter", "--dataset", f"hc18:{tiny_hc18}", *options)
    assert outcome.exit_code == code
    assert says in outcome.err


def test_without_dask_it_is_said_what_to_install(
    edgefetal: CommandLine, tiny_hc18: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "edgefetal_calibration.cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    outcome = edgefetal("evaluate", "starter", "--dataset", f"hc18:{tiny_hc18}", "--workers", "2")
    assert outcome.exit_code == 3
    assert "pip install 'edgefetal[cluster]'" in outcome.err
    # Without workers it is not missed.
    assert edgefetal("evaluate", "starter", "--dataset", f"hc18:{tiny_hc18}").exit_code == 0


@pytest.fixture
def recordings(tmp_path: Path, sweep: HeadSweep) -> Path:
    """A picture, a folder of two, a MetaImage that is none, and what is no recording."""
    folder = tmp_path / "recordings"
    (folder / "two").mkdir(parents=True)
    plane = sweep.standard_plane_index
    for name, index in (("a.png", plane), ("two/1.png", plane - 1), ("two/2.png", plane + 1)):
        cv2.imwrite(str(folder / name), sweep.frames[index])
    (folder / "broken.mha").write_text("nothing")
    (folder / "notes.csv").write_text("a,b\n")
    (folder / ".hidden.png").write_text("")
    return folder


def exam_of(out: Path, name: str) -> Any:
    return without_clocks(json.loads((out / name / "exam.json").read_text()))


def test_each_recording_becomes_an_exam_the_same_on_workers(
    edgefetal: CommandLine, recordings: Path, sweep: HeadSweep, tmp_path: Path, address: str
) -> None:
    options = ("run", "starter", recordings.name, "--each", "--mm-per-px", sweep.mm_per_px)
    alone = edgefetal(*options, "--out", "alone", "--threads", "1")
    spread = edgefetal(*options, "--out", "spread", "--scheduler", address, "--json", "spread.json")
    for outcome, out in ((alone, "alone"), (spread, "spread")):
        assert outcome.exit_code == 1
        assert "3 recordings: 2 done, 1 failed" in outcome.out
        assert "recordings/broken.mha: " in outcome.out
        assert "1 of 3 recordings have no exam" in outcome.err
        assert sorted(path.name for path in (tmp_path / out).iterdir()) == ["a.png", "each.json", "two"]
    for name in ("a.png", "two"):
        record = exam_of(tmp_path / "alone", name)
        assert record == exam_of(tmp_path / "spread", name)
        assert record["source"] == f"recordings/{name}"
        pictures = sorted(path.name for path in (tmp_path / "alone" / name).glob("*.png"))
        assert pictures
        for picture in pictures:
            one, other = (tmp_path / out / name / picture for out in ("alone", "spread"))
            assert one.read_bytes() == other.read_bytes()
    assert exam_of(tmp_path / "alone", "a.png")["measurements"][0]["value"] == pytest.approx(sweep.hc_mm, rel=0.05)
    rows = json.loads((tmp_path / "spread.json").read_text())["exams"]
    assert [(row["source"], row["state"]) for row in rows] == [
        ("recordings/a.png", "done"), ("recordings/broken.mha", "failed"), ("recordings/two", "done"),
    ]  # fmt: skip


def test_run_again_does_what_is_missing_and_nothing_twice(
    edgefetal: CommandLine, recordings: Path, tmp_path: Path
) -> None:
    options = ("run", "starter", "recordings", "--each", "--out", "out")
    assert edgefetal(*options).exit_code == 1
    first = (tmp_path / "out" / "two" / "exam.json").read_bytes()
    shutil.rmtree(tmp_path / "out" / "a.png")
    (recordings / "broken.mha").unlink()
    again = edgefetal(*options)
    assert again.exit_code == 0, again.err
    assert "2 recordings: 1 done, 1 done before" in again.out
    assert (tmp_path / "out" / "two" / "exam.json").read_bytes() == first
    assert (tmp_path / "out" / "a.png" / "exam.json").is_file()
    # Another pixel size gives other figures, and nobody is to find both in one folder.
    other = edgefetal(*options, "--mm-per-px", "0.3")
    assert other.exit_code == 2
    assert "out was begun with another scale" in other.err
    # A recording that was replaced is not passed off as examined.
    shutil.copy(recordings / "two" / "1.png", recordings / "a.png")
    os.utime(recordings / "a.png", ns=(1, 1))
    changed = edgefetal(*options)
    assert changed.exit_code == 1
    assert "recordings/a.png: it changed since it was examined" in changed.out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--workers", "2", "--out", "o"), "add --each"),
        (("--each",), "give --out DIR"),
        (("--each", "--out", "o", "--ga", "28w0d"), "--ga is of one exam"),
        (("--each", "--out", "o", "--store", "s"), "--store is of one exam"),
        (("--each", "--out", "recordings"), "was not begun by `run --each`"),
    ],
)
def test_each_refuses(edgefetal: CommandLine, recordings: Path, options: tuple[str, ...], says: str) -> None:
    outcome = edgefetal("run", "starter", recordings, *options)
    assert outcome.exit_code == 2
    assert says in outcome.err


def test_each_needs_a_folder_that_holds_recordings(edgefetal: CommandLine, recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, says in ((recordings / "a.png", "is no folder"), (tmp_path / "empty", "holds no recording")):
        outcome = edgefetal("run", "starter", source, "--each", "--out", "o")
        assert outcome.exit_code == 2
        assert says in outcome.err
    what_is_active = edgefetal("run", "active", recordings, "--each", "--out", "o", "--workers", "2")
    assert what_is_active.exit_code == 2
    assert "of this machine alone" in what_is_active.err


def test_in_turn_and_on_workers_are_called_alike(cluster: Cluster) -> None:
    """Closing either early is allowed and ends it."""
    for mapper in (in_turn, cluster.map):
        with closing(mapper(abs, [-1, -2, -3], NAMES[:3])) as outcomes:
            assert next(outcomes) in ((0, 1), (1, 2), (2, 3))
