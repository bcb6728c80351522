"""Options that every recipe has."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer


class Precision(str, Enum):
    """Arithmetic of the forward pass."""

    FP32 = "fp32"
    BF16 = "bf16"


RunOption = Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run, or start it.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the split, the weights and the augmentation.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")]

# Of the networks that outline, whichever learns.
StructuresOption = Annotated[
    str, typer.Option("--structures", help="What to outline, of head, abdomen and femur, with commas between.")
]
EpochsOption = Annotated[int, typer.Option("--epochs", min=1, help="Passes over the training subjects.")]
FramesPerExamOption = Annotated[
    int, typer.Option("--frames-per-exam", min=1, help="Frames of a sweep in an epoch, others in each.")
]
BatchSizeOption = Annotated[
    Optional[int],
    typer.Option(
        "--batch-size", min=1, help="Pictures a step. [default: 16, or half of the data if less]", show_default=False
    ),
]
LearningRateOption = Annotated[float, typer.Option("--learning-rate", min=1e-8, help="Peak of the schedule.")]
PrecisionOption = Annotated[Precision, typer.Option("--precision", help="bf16 is quicker on processors that have it.")]
