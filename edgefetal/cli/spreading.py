"""`--workers` and `--scheduler`: a command's exams in this process, in several, or on several machines."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgefetal_calibration.each import Mapper
    from edgefetal_runtime.infer.bundle import Bundle
    from edgefetal_runtime.infer.network import Network


@dataclass(frozen=True)
class Wish:
    """What the user says of workers.

    Args:
        workers: how many processes to start here, or None.
        scheduler: address of a cluster's scheduler, or None.
    """

    workers: int | None
    scheduler: str | None

    def __bool__(self) -> bool:
        """Say whether there are to be workers at all."""
        return self.workers is not None or self.scheduler is not None

    def threads(self, asked: int | None) -> int | None:
        """Return the CPU threads of a network: as asked, or one where workers stand side by side."""
        return 1 if self and asked is None else asked

    def absolute(self, dataset: str) -> str:
        """Return `KIND:PATH` with a path that means the same to every worker."""
        kind, colon, path = dataset.partition(":")
        return f"{kind}{colon}{Path(path).expanduser().absolute()}" if self and path else dataset


@contextlib.contextmanager
def spread(
    wish: Wish,
    bundle: Bundle,
    networks: Mapping[str, Network],
    files: Mapping[str, str],
    backend: str,
    threads: int | None,
    *,
    clinic: bool = False,
) -> Iterator[tuple[Mapping[str, Network], Mapper]]:
    """Open what the exams are spread over, and prove that every worker there computes what this process computes.

    Args:
        wish: what the user says.
        bundle: the bundle.
        networks: its graphs by name, opened with that back end and those threads.
        files: the file of each.
        backend: name of the back end, or `auto`.
        threads: CPU threads, as `wish.threads` gives them.
        clinic: whether patients are measured.

    Yields:
        The graphs, and who calls a function of them for each exam.

    Raises:
        InputError: there are a scheduler and a number of workers, or the address is none.
        ModuleNotFoundError: dask is not installed; `cli` says what to do.
        EnvironmentLacksError: the workers cannot be reached.
        BundleError: a worker sees another bundle.
        CheckFailedError: a worker computes otherwise.
    """
    from edgefetal_calibration.each import in_turn

    if not wish:
        yield networks, in_turn
        return
    from edgefetal_calibration.cluster import open_cluster
    from edgefetal_calibration.shared import share

    with open_cluster(wish.scheduler, wish.workers) as cluster:
        shared = share(bundle, networks, files, backend=backend, threads=threads or 1, clinic=clinic)
        cluster.check(shared.check)
        yield shared, cluster.map
