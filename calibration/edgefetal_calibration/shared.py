"""A bundle that several processes and machines see: sent by its path and hash, opened once where it is used.

Every process proves before its first frame that it computes what the sender computes: it has the same bundle, the same
edgefetal, NumPy and OpenCV, and its answers to the bundle's golden frames are the same to the last bit. So results do
not depend on which worker an exam went to.
"""

from __future__ import annotations

import functools
import hashlib
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_devices.errors import BundleError, CheckFailedError
from edgefetal_runtime.infer.bundle import Bundle, load_bundle
from edgefetal_runtime.infer.golden import golden_pixels, open_for_clinic
from edgefetal_runtime.infer.network import Network, load_network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_lock = threading.Lock()


@dataclass(frozen=True)
class Proof:
    """What a process computes with.

    Args:
        versions: names of packages with their versions.
        answers: SHA-256 over the answers of every graph to every golden frame.
    """

    versions: tuple[tuple[str, str], ...]
    answers: str


@dataclass(frozen=True)
class SharedNetworks(Mapping[str, Network]):
    """The graphs of a bundle by name, opened when one is first asked for and kept by the process that asked.

    Args:
        path: folder of the bundle, absolute, and the same on every machine.
        sha256: hash of its manifest.
        files: name of each graph, and its file.
        backend: name of the back end, or `auto`.
        threads: CPU threads of the network, and of OpenCV.
        clinic: whether it is to measure patients with, so that each machine asks for the bundle's origin, budget and
            golden frames as `run` does.
        proof: what the sender computes with.
    """

    path: Path
    sha256: str
    files: tuple[tuple[str, str], ...]
    backend: str
    threads: int
    clinic: bool
    proof: Proof

    def __getitem__(self, name: str) -> Network:
        """Return a graph, ready.

        Raises:
            BundleError: the bundle is missing, altered or another one here.
            CheckFailedError: it computes otherwise here than at the sender.
            EnvironmentLacksError: no back end can run here.
        """
        with _lock:
            return _opened(self)[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names; nothing is opened."""
        return (name for name, _ in self.files)

    def __len__(self) -> int:
        """Return how many graphs there are."""
        return len(self.files)

    def check(self) -> None:
        """Open everything, and raise as `__getitem__` does, so that a worker that cannot is known beforehand."""
        for name in self:
            self[name]


def share(
    bundle: Bundle,
    networks: Mapping[str, Network],
    files: Mapping[str, str],
    *,
    backend: str,
    threads: int,
    clinic: bool,
) -> SharedNetworks:
    """Describe an opened bundle so that others can open it, and know whether they compute what this process computes.

    Args:
        bundle: the bundle.
        networks: its graphs by name, opened with the same back end and threads.
        files: the file of each.
        backend: name of the back end, or `auto`.
        threads: CPU threads.
        clinic: whether it is to measure patients with.
    """
    return SharedNetworks(
        path=bundle.path.absolute(),
        sha256=bundle.sha256,
        files=tuple(files.items()),
        backend=backend,
        threads=threads,
        clinic=clinic,
        proof=_prove(bundle, networks),
    )


def _prove(bundle: Bundle, networks: Mapping[str, Network]) -> Proof:
    packages = (("edgefetal", metadata.version("edgefetal")), ("NumPy", np.__version__), ("OpenCV", cv2.__version__))
    digest = hashlib.sha256()
    for pixels in golden_pixels(bundle):
        for name in sorted(networks):
            network = networks[name]
            for output, value in sorted(network.backend.run(network.prepare(pixels)[0]).items()):
                digest.update(f"{name} {output} {value.dtype} {value.shape}".encode() + value.tobytes())
    return Proof(packages, digest.hexdigest())


@functools.lru_cache(maxsize=2)
def _opened(shared: SharedNetworks) -> dict[str, Network]:
    host = socket.gethostname()
    # OpenCV would otherwise take every core, in each of several workers.
    cv2.setNumThreads(shared.threads)
    if shared.clinic:
        bundle, network = open_for_clinic(shared.path, backend=shared.backend, threads=shared.threads)
        networks = dict.fromkeys(shared, network)
    else:
        bundle = load_bundle(shared.path)
        networks = {
            name: load_network(bundle, backend=shared.backend, file=file, threads=shared.threads)
            for name, file in shared.files
        }
    if bundle.sha256 != shared.sha256:
        raise BundleError(
            f"{shared.path} on {host} is another bundle ({bundle.sha256[:12]}) than the one that was asked for "
            f"({shared.sha256[:12]}); copy that one there."
        )
    here = _prove(bundle, networks)
    for (package, there_version), (_, version) in zip(shared.proof.versions, here.versions, strict=True):
        if version != there_version:
            raise CheckFailedError(
                f"A worker on {host} has {package} {version}, and the command has {there_version}; install the same."
            )
    if here.answers != shared.proof.answers:
        raise CheckFailedError(
            f"A worker on {host} answers the golden frames otherwise than the command's own process, so its results "
            "would differ; use machines with one kind of processor and one version of the back end."
        )
    return networks
