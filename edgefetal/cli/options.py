"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

BundleArgument = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, `starter`, or `active`: what was finished here.")
]
JsonOption = Annotated[
    Optional[Path],
    typer.Option("--json", metavar="FILE", help="Write the result as JSON."),
]
BackendOption = Annotated[str, typer.Option("--backend", help="Back end that runs the graph, or `auto`.")]
ThreadsOption = Annotated[
    Optional[int],
    typer.Option(
        "--threads", min=1, help="CPU threads of the network. [default: the back end's choice]", show_default=False
    ),
]
WorkersOption = Annotated[
    Optional[int],
    typer.Option(
        "--workers", min=1, help="Spread the exams over so many processes here. [default: one]", show_default=False
    ),
]
SchedulerOption = Annotated[
    Optional[str],
    typer.Option("--scheduler", metavar="tcp://HOST:PORT", help="Spread the exams over the workers of a dask cluster."),
]
BudgetOption = Annotated[
    Optional[Path],
    typer.Option("--budget", metavar="YAML", help="What may be lost. [default: ours]", show_default=False),
]
KeyOption = Annotated[
    Optional[Path],
    typer.Option(
        "--key", metavar="FILE", help="Sign the bundle with this private key. [default: not signed]", show_default=False
    ),
]
TrustedOption = Annotated[
    Optional[Path],
    typer.Option(
        "--trusted",
        metavar="DIR",
        help="Folder of trusted keys. [default: yours and /etc/edgefetal/trusted]",
        show_default=False,
    ),
]
