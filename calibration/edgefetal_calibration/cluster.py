"""Many exams on several processes or machines, by dask, an extra; the one module that knows it.

The workers only read: they get a function and an exam, and send back its result. Whoever asked puts the results
together, in the order of the exams, so an exam whose worker died is done again elsewhere and counts once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import dask
from distributed import CancelledError, Client, Future, KilledWorker, LocalCluster, as_completed

from edgefetal_devices.errors import CheckFailedError, EdgeFetalError, EnvironmentLacksError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from edgefetal_calibration.each import ItemT, ResultT

# How often an exam that failed is tried again, since shared disks and networks fail for a moment; dask itself gives an
# exam up that took four workers with it.
RETRIES: Final = 2
_CONNECT_S: Final = 10.0
# Batches that each worker gets at least, where there are so many items.
_PARTS: Final = 4
# How long to wait for a worker: at first, and when all are gone, which a restart mends.
_PATIENCE_S: Final = 60.0
# Two classes until Python 3.11.
_TIMEOUTS: Final = (TimeoutError, asyncio.TimeoutError)
_ENVIRONMENT: Final = "distributed.nanny.pre-spawn-environ"
_ADDRESS: Final = re.compile(r"(tcp|tls)://[^\s/]+:\d+")


@dataclass(frozen=True)
class Cluster:
    """Workers that are there.

    Args:
        client: connected to their scheduler.
        patience_s: how long nothing may happen with no worker left.
    """

    client: Client
    patience_s: float = _PATIENCE_S

    def check(self, function: Callable[[], None]) -> None:
        """Call a function in every worker that is there now.

        Raises:
            EdgeFetalError: it raised so on one of them.
            EnvironmentLacksError: a worker was lost meanwhile, or lacks a module.
        """
        try:
            self.client.run(function)
        except EdgeFetalError:
            raise
        except Exception as error:
            raise EnvironmentLacksError(
                f"A worker cannot begin ({_why(error)}); install edgefetal[cluster] in the same version on every "
                "machine and start the workers anew."
            ) from error

    def map(
        self, function: Callable[[ItemT], ResultT], items: Sequence[ItemT], names: Sequence[str], *, batch: int = 1
    ) -> Generator[tuple[int, ResultT | EdgeFetalError], None, None]:
        """Call a function on the workers, as `each.Mapper` says.

        Of a batch that fails every item is tried again by itself, which tells whose fault it was.

        Raises:
            EnvironmentLacksError: the scheduler is lost, or every worker.
        """
        run = uuid.uuid4().hex[:12]
        work = partial(_several, function)

        def submit(batches: Sequence[Sequence[int]], retries: int) -> dict[str, tuple[Sequence[int], bool, Any]]:
            keys = [f"edgefetal-{run}-{retries}-{of[0]}-{names[of[0]]}" for of in batches]
            handed = [[items[index] for index in of] for of in batches]
            futures = self.client.map(work, handed, key=keys, retries=retries, pure=False)
            return {future.key: (of, retries > 0, future) for of, future in zip(batches, futures, strict=True)}

        # Large batches would leave workers with nothing.
        workers = len(self.client.scheduler_info(n_workers=-1)["workers"])
        batch = min(batch, max(1, math.ceil(len(items) / (_PARTS * max(1, workers)))))
        batches = [range(len(items))[start : start + batch] for start in range(0, len(items), batch)]
        # A batch that fails is not tried again as it is.
        waiting = submit(batches, RETRIES if batch == 1 else 0)
        try:
            while waiting:
                for future in self._some(future for *_, future in waiting.values()):
                    indices, last, _ = waiting.pop(future.key)
                    outcome = _outcome(future, names[indices[0]])
                    if not isinstance(outcome, EdgeFetalError):
                        yield from zip(indices, outcome, strict=True)
                    elif last:
                        yield indices[0], outcome
                    else:
                        waiting |= submit([[index] for index in indices], RETRIES)
        finally:
            if waiting:
                with contextlib.suppress(Exception):
                    # Whatever ended this is what is to be said, and not that there was nobody to cancel.
                    self.client.cancel([future for *_, future in waiting.values()])

    def _some(self, futures: Iterator[Future[ResultT]]) -> Iterator[Future[ResultT]]:
        """Yield futures as they are done, for as long as it is worth waiting, and none twice.

        Raises:
            EnvironmentLacksError: no worker is left, or no scheduler.
        """
        try:
            yield from as_completed(list(futures), loop=self.client.loop, timeout=self.patience_s)
        except _TIMEOUTS as error:
            if not self.client.scheduler_info(n_workers=-1)["workers"]:
                raise EnvironmentLacksError(
                    f"No worker is left at {_address(self.client)}, and none came back; start one by `dask worker "
                    f"{_address(self.client)} --nthreads 1`, and run this again."
                ) from error


def _own_environment() -> dict[str, str]:
    """Return what dask puts into the environment of workers, less what makes these slow.

    It has the C library give freed memory back at once, which also makes it fetch every array of a frame anew from the
    kernel: a quarter more time for each picture.
    """
    return {name: value for name, value in dask.config.get(_ENVIRONMENT).items() if not name.startswith("MALLOC_")}


def _several(function: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
    return [function(item) for item in items]


def _outcome(future: Future[ResultT], name: str) -> ResultT | EdgeFetalError:
    """Return what a future that is done holds, or an error that names its exam."""
    if future.cancelled():
        raise EnvironmentLacksError("The scheduler was lost; start it and its workers again, and then this command.")
    try:
        result: ResultT = future.result()
    except CancelledError as error:
        raise EnvironmentLacksError(
            "The scheduler was lost; start it and its workers again, and then this command."
        ) from error
    except EdgeFetalError as error:
        return error if name in str(error) else type(error)(f"{name}: {error}")
    except KilledWorker as error:
        return CheckFailedError(
            f"{name} took every worker with it that tried it ({error.allowed_failures + 1}); give the workers more "
            "memory, or leave it out."
        )
    except Exception as error:  # noqa: BLE001 - whatever a worker raises is pickled and comes out here
        return CheckFailedError(
            f"{name} failed on a worker, {RETRIES + 1} times ({_why(error)}); run it without workers to see where."
        )
    return result


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _address(client: Client) -> str:
    return str(client.scheduler.address) if client.scheduler is not None else "the scheduler"


@contextlib.contextmanager
def open_cluster(scheduler: str | None, workers: int | None) -> Iterator[Cluster]:
    """Connect to a scheduler, or start workers on this machine that end with the body.

    Args:
        scheduler: its address, such as `tcp://10.0.0.1:8786`; None for workers of one's own.
        workers: how many processes to start, where there is no scheduler.

    Raises:
        InputError: both or neither are given, or the address is none.
        EnvironmentLacksError: the scheduler does not answer, or it has no workers.
    """
    if (scheduler is None) == (workers is None):
        raise InputError("Give --workers N to start workers here, or --scheduler to use those of a cluster; not both.")
    if scheduler is not None and not _ADDRESS.fullmatch(scheduler):
        raise InputError(f"{scheduler!r} is no address of a scheduler; write tcp://HOST:PORT, or tls://HOST:PORT.")
    with contextlib.ExitStack() as stack:
        address: Any = scheduler
        if scheduler is None:
            stack.enter_context(dask.config.set({_ENVIRONMENT: _own_environment()}))
            address = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    # A network is one to a process, and its threads are counted in `SharedNetworks`.
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    # Not its usual port on every network that this machine is in.
                    dashboard_address="127.0.0.1:0",
                    worker_dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                )
            )
        try:
            client = stack.enter_context(Client(address, timeout=_CONNECT_S, set_as_default=False))
            client.wait_for_workers(1, timeout=_PATIENCE_S)
        except (OSError, *_TIMEOUTS) as error:
            raise EnvironmentLacksError(
                f"No scheduler with workers answers at {scheduler or 'this machine'}; start them by `dask scheduler` "
                "and `dask worker tcp://HOST:8786 --nthreads 1`, or use --workers."
            ) from error
        yield Cluster(client)
