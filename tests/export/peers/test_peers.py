"""Every peer, for what it is: one head in pictures, and a sweep."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefetal_devices.errors import EdgeFetalError, InputError
from edgefetal_export.peers.in_place import InPlace
from edgefetal_export.peers.table import parse_peer
from edgefetal_export.training.trained import load_trained

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_calibration.datasets.hc18 import HeadCase
    from edgefetal_export.peers.peer import Job, Recording

NEEDS = {"scikit-image": "skimage", "openvino": "openvino", "nncf": "nncf"}


def _named(name: str, *marks: pytest.MarkDecorator) -> object:
    module = NEEDS.get(name, "cv2")
    lacking = pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"{name} is not installed; pip install 'edgefetal[peers]'"
    )
    return pytest.param(name, marks=(lacking, *marks), id=name)


LOOPS = ["notebook", "scikit-image", "whole-stack"]
EVERY = [
    *map(_named, ["edgefetal:onnxruntime", "onnxruntime", "openvino", "onnxruntime-int8", *LOOPS]),
    _named("nncf", pytest.mark.slow),
]


@pytest.mark.parametrize("name", EVERY)
def test_heads_in_pictures_are_measured(name: str, job: Job, pictures: list[HeadCase]) -> None:
    peer = parse_peer(name).open(job)
    errors = []
    for case in pictures[20:28]:
        measured = peer.measure(case.frame())
        if measured is not None:
            errors.append(abs(measured - case.hc_mm) / case.hc_mm)
    assert len(errors) >= 6
    assert np.median(errors) < 0.03
    assert peer.settings


@pytest.mark.parametrize("name", EVERY)
def test_a_sweep_is_examined(name: str, job: Job, recording: Recording) -> None:
    value = parse_peer(name).open(job).examine(recording)
    assert value == pytest.approx(recording.truth_mm, rel=0.06)


@pytest.mark.parametrize("name", [*map(_named, LOOPS)])
def test_a_picture_without_a_head_gives_nothing(name: str, job: Job, pictures: list[HeadCase]) -> None:
    frame = pictures[0].frame()
    assert parse_peer(name).open(job).measure(replace(frame, pixels=np.zeros_like(frame.pixels))) is None


def test_a_notebook_reads_videos_and_a_whole_stack_stacks(job: Job, recording: Recording) -> None:
    assert recording.stack is not None
    with pytest.raises(InputError, match=r"reads no \.mha"):
        parse_peer("notebook").open(job).examine(replace(recording, path=recording.stack))
    with pytest.raises(InputError, match="MetaImage"):
        parse_peer("whole-stack").open(job).examine(replace(recording, stack=None))


def test_a_training_run_answers_in_pytorch_as_its_network_does(
    job: Job, tiny_run: Path, tiny_cases: list[HeadCase]
) -> None:
    import torch

    validation = tuple(tiny_cases[:4])
    peer = parse_peer(f"torch:{tiny_run}").open(replace(job, validation=validation))
    assert isinstance(peer, InPlace)
    trained = load_trained(tiny_run)
    # Its own preprocessing, heads and thresholds, not the bundle's.
    assert peer.network.manifest.preprocess == trained.recipe.preprocess
    assert peer.network.manifest.heads == trained.heads
    image, _ = peer.network.prepare(tiny_cases[9].frame().pixels)
    with torch.inference_mode():
        wanted = dict(zip(trained.output_names, trained.network(torch.from_numpy(image)), strict=True))
    for name, value in peer.network.backend.run(image).items():
        np.testing.assert_allclose(value, wanted[name].numpy(), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_compiled_run_answers_as_the_plain_one(job: Job, tiny_run: Path, tiny_cases: list[HeadCase]) -> None:
    plain, compiled = (
        parse_peer(f"{name}:{tiny_run}").open(replace(job, validation=())) for name in ("torch", "torch-compile")
    )
    assert isinstance(plain, InPlace)
    assert isinstance(compiled, InPlace)
    image, _ = plain.network.prepare(tiny_cases[9].frame().pixels)
    wanted = plain.network.backend.run(image)
    for name, value in compiled.network.backend.run(image).items():
        np.testing.assert_allclose(value, wanted[name], rtol=0, atol=1e-3)


def test_a_quantiser_without_pictures_says_so(job: Job) -> None:
    with pytest.raises(EdgeFetalError, match="give --dataset"):
        parse_peer("onnxruntime-int8").open(replace(job, training=()))
