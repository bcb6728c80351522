"""Options that every recipe has."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Precision(str, Enum):
    """Arithmetic of the forward pass."""

    FP32 = "fp32"
    BF16 = "bf16"


RunOption = Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run, or start it.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the split, the weights and the augmentation.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")]
