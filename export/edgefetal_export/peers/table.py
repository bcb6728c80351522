"""The peers by name: one table, each imported in its own process when it is asked for."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefetal_export.peers.peer import Job, Peer

# What `torch` is followed by: a training run.
RUN: Final = "RUN"
_PEERS: Final = "edgefetal_export.peers"
_IN_PLACE, _PYTORCH, _QUANTISERS = (f"{_PEERS}.{module}" for module in ("in_place", "pytorch", "quantisers"))


@dataclass(frozen=True)
class PeerEntry:
    """One row of the table.

    Args:
        name: on the command line.
        title: what it is, for tables; of one that is quicker than ours may be, why.
        module: module that offers `opens`.
        opens: name of its function `(job: Job, argument: str | None) -> Peer`.
        argument: what its name is followed by, as in `torch:RUN`; None where by nothing.
        needs_data: whether it takes ranges from labelled pictures.
    """

    name: str
    title: str
    module: str
    opens: str
    argument: str | None = None
    needs_data: bool = False


OURS: Final = PeerEntry("edgefetal", "edgefetal", _IN_PLACE, "open_ours", argument="BACKEND")
TABLE: Final = (
    OURS,
    PeerEntry("torch", "PyTorch, eager", _PYTORCH, "open_eager", argument=RUN),
    PeerEntry("torch-compile", "PyTorch, torch.compile", _PYTORCH, "open_compiled", argument=RUN),
    PeerEntry("onnxruntime", "the float graph in onnxruntime", _IN_PLACE, "open_onnxruntime"),
    PeerEntry(
        "openvino",
        "the float graph in OpenVINO, which computes in 16 bits where the processor has units for them",
        f"{_PEERS}.openvino_graphs",
        "open_float",
    ),
    PeerEntry(
        "onnxruntime-int8",
        "onnxruntime's quantize_static as it comes",
        _QUANTISERS,
        "open_default_int8",
        needs_data=True,
    ),
    PeerEntry(
        "nncf",
        "NNCF with accuracy control; OpenVINO runs it, which on x86 is quicker at whole numbers than onnxruntime: ours "
        "there is edgefetal:openvino, whose float layers stay in 32 bits",
        _QUANTISERS,
        "open_nncf",
        needs_data=True,
    ),
    PeerEntry("notebook", "a notebook's loop: OpenCV and onnxruntime", f"{_PEERS}.notebook", "open_notebook"),
    PeerEntry("scikit-image", "a loop with scikit-image's geometry", f"{_PEERS}.scikit_image", "open_scikit_image"),
    PeerEntry(
        "whole-stack",
        "a whole stack in memory, as ACOUSLIC-AI's baseline does",
        f"{_PEERS}.whole_stack",
        "open_whole_stack",
    ),
)


@dataclass(frozen=True)
class PeerChoice:
    """A peer that was asked for.

    Args:
        entry: its row.
        argument: a run's folder or a back end, or None.
    """

    entry: PeerEntry
    argument: str | None

    @property
    def name(self) -> str:
        """Return what it is called in tables: its name, and what it was given."""
        return self.entry.name if self.argument is None else f"{self.entry.name}:{Path(self.argument).name}"

    def open(self, job: Job) -> Peer:
        """Make it ready, in this process.

        Raises:
            ImportError: it is not installed.
            EdgeFetalError: it cannot do this job; says why.
        """
        opens = getattr(importlib.import_module(self.entry.module), self.entry.opens)
        return cast("Callable[[Job, str | None], Peer]", opens)(job, self.argument)


def parse_peer(text: str) -> PeerChoice:
    """Read what stands behind `--baseline`: `NAME`, `torch:RUN` or `edgefetal:BACKEND`.

    Raises:
        InputError: the table has no such name, or it lacks what must follow, or has what must not.
    """
    name, colon, argument = text.partition(":")
    entry = next((entry for entry in TABLE if entry.name == name), None)
    if entry is None:
        known = ", ".join(e.name if e.argument is None else f"{e.name}:{e.argument}" for e in TABLE)
        raise InputError(f"There is no peer {name!r}; choose one of {known}.")
    if entry.argument is not None and not argument:
        raise InputError(f"{name} needs to know which; write {name}:{entry.argument}.")
    if entry.argument is None and colon:
        raise InputError(f"{name} takes nothing behind a colon; write {name} alone.")
    return PeerChoice(entry, argument or None)
