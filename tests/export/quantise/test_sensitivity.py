"""The search: it names the layer that was made bad on purpose, puts back no more than needed, and ends."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from edgefetal_devices.errors import InputError
from edgefetal_devices.profile import read_int8_recipe
from edgefetal_export.quantise.blocks import blocks_of
from edgefetal_export.quantise.qdq import quantised
from edgefetal_export.quantise.sensitivity import mend, rank_blocks
from edgefetal_runtime.infer.backends import open_backend

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import numpy.typing as npt

    from edgefetal_runtime.infer.backends import Backend
    from tests.export.quantise.conftest import Subject

NAMES = ("a", "b", "c", "d", "e")


def _excess_of(subject: Subject, budget: float) -> Callable[[bytes], float]:
    """Mean error of the outputs, relative to how much they differ from picture to picture, over a budget."""
    reference = open_backend("onnxruntime", subject.model, 1)
    expected = _answers(reference, subject)
    spread = {name: values.std(axis=0).mean() for name, values in expected.items()}

    def excess(model: bytes) -> float:
        found = _answers(open_backend("onnxruntime", model, 1), subject)
        errors = [np.abs(found[name] - expected[name]).mean() / spread[name] for name in expected]
        return float(max(errors)) / budget - 1

    return excess


def _answers(graph: Backend, subject: Subject) -> dict[str, npt.NDArray[np.float32]]:
    found = [graph.run(image) for image in subject.images]
    return {name: np.stack([answer[name] for answer in found]) for name in found[0]}


def _quantise(subject: Subject, recipe: str, widened: str | None = None) -> Callable[[Collection[str]], bytes]:
    ranges = subject.of(recipe)
    if widened is not None:
        low, high = ranges[widened]
        ranges = ranges | {widened: (50 * low, 50 * high)}
    return lambda blocks: quantised(subject.model, read_int8_recipe(recipe), ranges, blocks)


def _candidates(subject: Subject) -> list[str]:
    return [block.name for block in blocks_of(onnx.load_from_string(subject.model).graph) if not block.last]


def test_the_layer_with_a_channel_out_of_scale_is_named_first(spoilt: Subject) -> None:
    ranking = rank_blocks(_candidates(spoilt), _quantise(spoilt, "tensorrt"), _excess_of(spoilt, 0.1))
    assert ranking[0].float_blocks == ("middle",)
    assert ranking[0].excess < 0.5 * ranking[1].excess


def test_the_layer_with_a_channel_out_of_scale_is_put_back_and_no_other(spoilt: Subject) -> None:
    excess = _excess_of(spoilt, 0.1)
    found = mend(_candidates(spoilt), _quantise(spoilt, "tensorrt"), excess)
    assert found.trials[0].float_blocks == ()
    assert found.trials[0].excess > 1
    assert found.passed
    assert found.float_blocks == ("middle",)
    assert excess(found.model) == pytest.approx(found.excess)
    assert mend(_candidates(spoilt), _quantise(spoilt, "tensorrt"), excess) == found


def test_the_layer_whose_input_got_a_wrong_range_is_put_back_and_no_other(tiny: Subject) -> None:
    graph = onnx.load_from_string(tiny.model).graph
    tensor = next(node.input[0] for node in graph.node if "down.1.weight" in node.input)
    # The tensor also goes to the skip, which these recipes leave alone.
    found = mend(_candidates(tiny), _quantise(tiny, "openvino", tensor), _excess_of(tiny, 0.1))
    assert found.trials[0].excess > 0
    assert found.passed
    assert found.float_blocks == ("down.1",)


def test_both_sides_of_a_wrong_range_are_put_back_where_answers_are_quantised_too(tiny: Subject) -> None:
    graph = onnx.load_from_string(tiny.model).graph
    tensor = next(node.input[0] for node in graph.node if "middle.weight" in node.input)
    found = mend(_candidates(tiny), _quantise(tiny, "onnxruntime-x86", tensor), _excess_of(tiny, 0.1))
    assert found.passed
    assert found.float_blocks == ("down.1", "middle")


def test_a_graph_within_its_budget_is_left_alone(tiny: Subject) -> None:
    found = mend(_candidates(tiny), _quantise(tiny, "tensorrt"), _excess_of(tiny, 0.5))
    assert (found.passed, found.float_blocks, len(found.trials)) == (True, (), 1)


def _named(names: Collection[str]) -> bytes:
    return ",".join(names).encode()


def _cost(**worth: float) -> Callable[[bytes], float]:
    """A graph is over by 10, less what its float blocks are worth."""
    return lambda model: 10 - sum(worth.get(name, 0.0) for name in model.decode().split(","))


def test_blocks_are_added_by_worth_and_taken_back_where_unneeded() -> None:
    # d and b are worth most, and c alone would do beside d: greedy adds d, b, c and b proves unneeded.
    def excess(model: bytes) -> float:
        names = set(model.decode().split(","))
        return -1.0 if {"c", "d"} <= names else _cost(d=5, b=4, c=3)(model)

    found = mend(NAMES, _named, excess)
    assert found.float_blocks == ("c", "d")
    assert found.passed
    assert found.model == b"c,d"
    assert ("b", "c", "d") in [trial.float_blocks for trial in found.trials]


def test_where_nothing_passes_the_nearest_is_returned_and_says_so() -> None:
    found = mend(NAMES, _named, _cost(a=1, b=2))
    assert not found.passed
    assert found.excess == 7
    assert set(found.float_blocks) >= {"a", "b"}


@pytest.mark.parametrize("most", [1, 3, 6, 7])
def test_trials_are_bounded_and_each_is_reported(most: int) -> None:
    seen: list[int] = []
    found = mend(NAMES, _named, _cost(a=1), max_trials=most, on_trial=lambda: seen.append(1))
    assert len(seen) == len(found.trials) == most
    assert len({trial.float_blocks for trial in found.trials}) == most
    with pytest.raises(InputError, match="at least one"):
        mend(NAMES, _named, _cost(a=1), max_trials=0)


def test_a_graph_that_cannot_be_measured_is_the_worst() -> None:
    ranking = rank_blocks(NAMES, _named, lambda model: math.nan if model == b"a" else 3.0)
    assert [trial.float_blocks[0] for trial in ranking] == ["b", "c", "d", "e", "a"]
    assert not ranking[-1].passed
