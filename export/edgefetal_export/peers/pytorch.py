"""A training run in PyTorch, as it is and compiled, in the place of our network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edgefetal_export.draft import with_thresholds
from edgefetal_export.peers.in_place import in_place
from edgefetal_export.training.trained import load_trained
from edgefetal_runtime.infer.bundle import load_bundle

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from edgefetal_export.peers.in_place import InPlace
    from edgefetal_export.peers.peer import Job
    from edgefetal_runtime.infer.backends import Backend
    from edgefetal_runtime.infer.bundle import Manifest

    Array = npt.NDArray[np.float32]


def open_eager(job: Job, run: str | None) -> InPlace:
    """Load a training run into PyTorch: inference mode, channels last."""
    return _in_torch(job, run, compiled=False)


def open_compiled(job: Job, run: str | None) -> InPlace:
    """Load a training run into PyTorch and compile it, with its weights frozen, as PyTorch advises for inference."""
    return _in_torch(job, run, compiled=True)


def _in_torch(job: Job, run: str | None, *, compiled: bool) -> InPlace:
    assert run is not None  # noqa: S101 - the table asks for it
    torch.set_num_threads(job.threads or len(os.sched_getaffinity(0)))
    trained = load_trained(Path(run))
    # torch's types know the option for tensors alone.
    module = trained.network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    call: Callable[[torch.Tensor], Any] = module
    if compiled:
        call = torch.compile(module, options={"freezing": True})

    class _Torch:
        name = "torch-compile" if compiled else "torch"
        lanes = 1

        def run(self, image: Array) -> dict[str, Array]:
            with torch.inference_mode():
                answer = call(torch.from_numpy(image).to(memory_format=torch.channels_last))
            tensors = answer if isinstance(answer, tuple) else (answer,)
            return {name: tensor.numpy() for name, tensor in zip(trained.output_names, tensors, strict=True)}

    bundle = load_bundle(job.bundle)
    meaning = {"heads": trained.heads, "preprocess": trained.recipe.preprocess}
    manifest = bundle.manifest.model_copy(update=meaning)
    frozen, fitted = (", weights frozen" if compiled else "", "its own" if job.validation else "the bundle's")
    settings = (
        f"{trained.recipe.name}, {trained.parameters / 1e6:.1f} M parameters, PyTorch {torch.__version__}, inference "
        f"mode, channels last{frozen}, {fitted} thresholds, {torch.get_num_threads()} threads, one frame at a time"
    )
    return in_place(bundle, _fitted(manifest, _Torch(), job), _Torch(), settings)


def _fitted(manifest: Manifest, backend: Backend, job: Job) -> Manifest:
    """Fit the thresholds of a network that is not the bundle's, as `build` does, where there are pictures for it."""
    return with_thresholds(manifest, backend, job.validation, _Unseen()) if job.validation else manifest


class _Unseen:
    """Nobody wants to know how far a peer's process is."""

    def step(self, title: str, total: int | None) -> Callable[[], None]:  # noqa: ARG002 - as `Progress` says
        return lambda: None
