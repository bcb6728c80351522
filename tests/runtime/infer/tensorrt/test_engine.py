"""An engine on a made-up GPU: what it answers, what it refuses, and that nothing leaks whatever fails."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_cuda import FACTS, FakeCuda, Gpu, answers_to, fake_tensorrt, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_devices.errors import (
    BundleError,
    CheckFailedError,
    DeviceLostError,
    EdgeFetalError,
    EnvironmentLacksError,
    InputError,
)
from edgefetal_runtime.infer.network import Network
from edgefetal_runtime.infer.tensorrt.cuda import STICKY
from edgefetal_runtime.infer.tensorrt.engine import TensorRTGraph, open_plan, read_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from edgefetal_runtime.infer.bundle import Bundle

PLAN = plan_of()
SHAPE = (1, 1, 4, 6)


def opened(gpu: Gpu, plan: bytes = PLAN, *, use_graph: bool = True) -> TensorRTGraph:
    return open_plan(plan, fake_tensorrt(gpu), FakeCuda(gpu), use_graph=use_graph)


def image_of(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def equal(answers: dict[str, Any], image: npt.NDArray[np.float32], plan: bytes = PLAN) -> None:
    expected = answers_to(image, plan)
    assert answers.keys() == expected.keys()
    for name, value in expected.items():
        assert answers[name].dtype == np.float32
        np.testing.assert_array_equal(answers[name], value)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Every test ends the threads that it began, except those that a lost GPU keeps for ever."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        assert thread.daemon


# What it answers


@pytest.mark.parametrize("use_graph", [True, False])
def test_every_frame_gets_its_own_answer_and_keeps_it(*, use_graph: bool) -> None:
    gpu = Gpu()
    with opened(gpu, use_graph=use_graph) as graph:
        assert (graph.name, graph.input_shape, graph.facts) == ("tensorrt", SHAPE, FACTS)
        assert (graph.no_graph is None) == use_graph
        kept = [(image_of(seed), graph.run(image_of(seed))) for seed in range(5)]
        assert ("launch" in gpu.steps) == use_graph
    for image, answers in kept:
        equal(answers, image)
        assert answers["mask"].flags.owndata
    assert gpu.clean(), gpu.violations


def test_a_run_is_one_launch_and_one_wait() -> None:
    gpu = Gpu()
    with opened(gpu) as graph:
        del gpu.steps[:]
        graph.run(image_of(0))
        assert gpu.steps == ["launch", "synchronise"]


def test_without_a_graph_a_run_is_copies_round_the_engine_and_one_wait() -> None:
    gpu = Gpu(graphs=False)
    with opened(gpu) as graph:
        assert graph.no_graph == "the made-up library cannot"
        del gpu.steps[:]
        equal(graph.run(image_of(0)), image_of(0))
        assert gpu.steps == ["copy_in", "execute", "copy_out", "copy_out", "synchronise"]


def test_it_was_warm_before_the_first_frame() -> None:
    gpu = Gpu()
    with opened(gpu, use_graph=False):
        assert gpu.steps.count("execute") >= 2
        assert gpu.steps[-1] == "synchronise"


def test_what_is_no_number_stays_none() -> None:
    gpu = Gpu()
    image = image_of(0)
    image[0, 0, 1, 2] = np.nan
    with opened(gpu) as graph:
        equal(graph.run(image), image)


def test_an_image_that_does_not_lie_row_by_row_is_taken_as_what_it_shows() -> None:
    gpu = Gpu()
    turned = np.ascontiguousarray(image_of(3).transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    assert not turned.flags.c_contiguous
    with opened(gpu) as graph:
        equal(graph.run(turned), turned)


def test_it_runs_in_any_thread_and_touches_the_gpu_in_its_own_alone() -> None:
    """A bundle is loaded in one thread, and its network is a stage of the pipeline in another."""
    gpu = Gpu()
    wrong: list[Exception] = []

    def run_many(graph: TensorRTGraph, seed: int) -> None:
        try:
            for number in range(20):
                image = image_of(100 * seed + number)
                equal(graph.run(image), image)
        except Exception as error:  # noqa: BLE001 - shown by the test's thread
            wrong.append(error)

    with opened(gpu) as graph:
        several = [threading.Thread(target=run_many, args=(graph, seed)) for seed in range(4)]
        for thread in several:
            thread.start()
        for thread in several:
            thread.join()
    assert not wrong
    assert gpu.clean(), gpu.violations


def test_a_network_takes_it_as_it_is(intact_bundle: Bundle) -> None:
    spec = intact_bundle.manifest.preprocess
    size = {"height": spec.height_px, "width": spec.width_px}
    plan = plan_of(**size, mask={"shape": [1, 1, spec.height_px, spec.width_px]})
    gpu = Gpu()
    with opened(gpu, plan) as graph:
        network = Network(intact_bundle.manifest, graph)
        image, _ = network.prepare(np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8))
        output = network.infer(image)
        np.testing.assert_array_equal(output.mask_logits, answers_to(image, plan)["mask"][0])
        assert sum(output.plane_probability.values()) == pytest.approx(1.0)


def test_tensorrt_is_asked_what_the_layers_are() -> None:
    gpu = Gpu()
    with opened(gpu) as graph:
        assert graph.inspect() == '{"Layers": ["only"]}'
    with pytest.raises(InputError, match="closed"):
        graph.inspect()
    assert gpu.clean(), gpu.violations


# What it refuses


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 1, 6, 4), np.float32),
        np.zeros((2, 1, 4, 6), np.float32),
        np.zeros((4, 6), np.float32),
        np.zeros(SHAPE, np.float64),
        np.zeros(SHAPE, np.uint8),
    ],
)
def test_an_image_of_another_kind_is_refused_before_the_gpu_is_touched(image: npt.NDArray[Any]) -> None:
    gpu = Gpu()
    with opened(gpu) as graph:
        del gpu.steps[:]
        with pytest.raises(InputError, match=r"takes float32 of shape \(1, 1, 4, 6\)"):
            graph.run(image)
        assert gpu.steps == []
        equal(graph.run(image_of(1)), image_of(1))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mask": {"dtype": "HALF"}}, "mask is not float32"),
        ({"image": {"format": "CHW4"}}, "image does not lie row by row"),
        ({"plane": {"location": "HOST"}}, "plane does not lie in the GPU's memory"),
        ({"image": {"shape": [1, 1, -1, 6]}}, r"image has no fixed shape, but \(1, 1, -1, 6\)"),
        ({"mask": {"shape": []}}, r"mask has no fixed shape"),
        ({"image": {"shape": [2, 1, 4, 6]}}, "image is of 2 pictures"),
        ({"mask": {"shape": [4, 1, 4, 6]}}, "mask is of 4 pictures"),
        ({"image": {"shape": [1, 3, 4, 6]}}, r"takes \(1, 3, 4, 6\) and gives 2 outputs"),
        ({"image": {"shape": [1, 6]}}, r"takes \(1, 6\)"),
        ({"other": {"mode": "INPUT", "shape": [1, 1, 4, 6]}}, r"takes \(1, 1, 4, 6\), \(1, 1, 4, 6\)"),
        ({"image": {"shape": None}}, "takes none and gives 2 outputs"),
        ({"mask": {"shape": None}, "plane": {"shape": None}}, "gives 0 outputs"),
    ],
)
def test_an_engine_of_another_kind_is_refused(changes: dict[str, Any], says: str) -> None:
    gpu = Gpu()
    with pytest.raises(BundleError, match=rf"{says}.*`edgefetal finish BUNDLE`"):
        opened(gpu, plan_of(**changes))
    assert gpu.clean(), gpu.violations
    assert gpu.sessions == 0


@pytest.mark.parametrize("plan", [b"", b"\0" * 100])
def test_a_plan_that_tensorrt_does_not_take_is_refused_in_its_words(plan: bytes) -> None:
    gpu = Gpu()
    with pytest.raises(BundleError, match=r"does not accept the engine \(Serialization assertion failed\); build"):
        opened(gpu, plan)
    assert gpu.clean(), gpu.violations


def test_a_closed_engine_says_so_and_closing_it_twice_is_harmless() -> None:
    gpu = Gpu()
    graph = opened(gpu)
    graph.close()
    steps = list(gpu.steps)
    graph.close()
    with pytest.raises(InputError, match="was closed; open it anew"):
        graph.run(image_of(0))
    assert gpu.steps == steps
    assert gpu.clean(), gpu.violations


def test_an_engine_that_nobody_closed_is_closed_with_its_object() -> None:
    gpu = Gpu()
    graph = opened(gpu)
    graph.run(image_of(0))
    del graph
    gc.collect()
    assert gpu.clean(), gpu.violations


def test_a_thousand_engines_leave_nothing() -> None:
    gpu = Gpu()
    tensorrt, before = fake_tensorrt(gpu), threading.active_count()
    for number in range(1000):
        del gpu.steps[:]
        with open_plan(PLAN, tensorrt, FakeCuda(gpu), use_graph=number % 2 == 0) as graph:
            graph.run(image_of(number % 7))
    assert gpu.clean(), gpu.violations
    assert threading.active_count() == before


# What comes back wrong


@pytest.mark.parametrize("short_bytes", [4, 8, 10**9])
def test_an_answer_that_does_not_come_back_whole_is_no_answer(short_bytes: int) -> None:
    """Otherwise the rest would be of the frame before."""
    gpu = Gpu()
    with opened(gpu) as graph:
        graph.run(image_of(0))
        gpu.short_bytes = min(short_bytes, 8)
        with pytest.raises(CheckFailedError, match="did not come back whole"):
            graph.run(image_of(1))
        gpu.short_bytes = 0
        equal(graph.run(image_of(2)), image_of(2))


def test_a_graph_that_does_nothing_is_not_used() -> None:
    gpu = Gpu(graph_forgets=True)
    with opened(gpu) as graph:
        assert graph.no_graph is not None
        equal(graph.run(image_of(0)), image_of(0))
    assert gpu.clean(), gpu.violations


def test_a_graph_that_repeats_one_answer_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one would that captured the copy back alone."""
    from fake_cuda import FakeSession

    gpu = Gpu()
    plain = FakeSession.launch

    def only_the_copies_back(self: FakeSession, graph: Any) -> None:
        plain(self, graph)
        del gpu.queue[:2]

    monkeypatch.setattr(FakeSession, "launch", only_the_copies_back)
    with opened(gpu) as graph:
        assert graph.no_graph == "its answer is not the engine's"
        equal(graph.run(image_of(0)), image_of(0))
    assert gpu.clean(), gpu.violations


def test_where_capturing_fails_it_goes_without_and_says_why() -> None:
    healthy = Gpu()
    opened(healthy).close()
    for name in ("begin_capture", "end_capture", "launch"):
        gpu = Gpu(fail_at=healthy.steps.index(name), number=901)
        with opened(gpu) as graph:
            assert "901" in (graph.no_graph or "")
            equal(graph.run(image_of(0)), image_of(0))
        assert gpu.clean(), gpu.violations


def test_where_tensorrt_cannot_capture_the_engine_it_goes_without() -> None:
    healthy = Gpu()
    opened(healthy).close()
    gpu = Gpu(fail_at=healthy.steps.index("begin_capture") + 2, number=1)
    with opened(gpu) as graph:
        assert "TensorRT did not run the engine" in (graph.no_graph or "")
        equal(graph.run(image_of(0)), image_of(0))
    assert gpu.captured is None
    assert gpu.clean(), gpu.violations


# What fails

RUNS = 3


def use(gpu: Gpu, *, use_graph: bool = True) -> list[EdgeFetalError]:
    """Open, run and close; return what was raised."""
    raised: list[EdgeFetalError] = []
    try:
        graph = opened(gpu, use_graph=use_graph)
    except EdgeFetalError as error:
        return [error]
    for number in range(RUNS):
        try:
            equal(graph.run(image_of(number)), image_of(number))
        except EdgeFetalError as error:  # noqa: PERF203 - the next frames must be tried
            raised.append(error)
    graph.close()
    graph.close()
    return raised


@pytest.fixture(scope="module", params=[True, False])
def steps(request: pytest.FixtureRequest) -> tuple[bool, int]:
    """With or without graphs, how many steps there are when nothing fails."""
    gpu = Gpu(graphs=request.param)
    assert use(gpu) == []
    assert gpu.clean(), gpu.violations
    return request.param, len(gpu.steps)


def test_whichever_step_fails_nothing_leaks_and_nothing_is_used_after_it_was_freed(steps: tuple[bool, int]) -> None:
    graphs, count = steps
    for at in range(count):
        gpu = Gpu(fail_at=at, graphs=graphs)
        raised = use(gpu)
        assert gpu.clean(), (at, gpu.steps[at], gpu.violations)
        assert not any(isinstance(error, DeviceLostError) for error in raised), gpu.steps[at]
        assert len(raised) <= 1, "after one failed frame the others are answered"


def test_whichever_step_loses_the_gpu_every_further_run_says_so_and_nothing_touches_it(steps: tuple[bool, int]) -> None:
    graphs, count = steps
    gpus = [Gpu(fail_at=at, number=700, graphs=graphs) for at in range(count)]
    for gpu in gpus:
        raised = use(gpu)
        # Loss at the very end is nobody's business; before, every try since says it.
        assert {type(error) for error in raised} <= {DeviceLostError}, gpu.steps
        assert all("start it again" in str(error) for error in raised)
    gc.collect()
    for gpu in gpus:
        assert gpu.violations == [], gpu.steps


@pytest.mark.parametrize("run", range(RUNS))
def test_from_the_run_on_that_loses_the_gpu_none_is_answered(run: int) -> None:
    healthy = Gpu()
    use(healthy)
    last = [at for at, name in enumerate(healthy.steps) if name == "launch"][-RUNS + run]
    raised = use(Gpu(fail_at=last, number=700))
    assert [type(error) for error in raised] == [DeviceLostError] * (RUNS - run)


@settings(max_examples=60, deadline=None)
@given(
    at=st.integers(0, 80),
    number=st.sampled_from([1, 2, 35, 100, 201, 400, 801, 901, *sorted(STICKY)]),
    graphs=st.booleans(),
    use_graph=st.booleans(),
)
def test_any_failure_at_any_step_is_one_of_our_errors(*, at: int, number: int, graphs: bool, use_graph: bool) -> None:
    gpu = Gpu(fail_at=at, number=number, graphs=graphs)
    raised = use(gpu, use_graph=use_graph)
    gc.collect()
    assert gpu.violations == []
    assert (number in STICKY) or gpu.clean()
    assert all(isinstance(error, (EnvironmentLacksError, CheckFailedError, BundleError)) for error in raised)


def test_a_gpu_that_is_lost_in_a_run_stays_lost_even_when_it_is_closed() -> None:
    gpu = Gpu()
    graph = opened(gpu)
    gpu.fail_at, gpu.number = len(gpu.steps) + 1, 719
    with pytest.raises(DeviceLostError, match=r"719.*start it again") as caught:
        graph.run(image_of(0))
    assert caught.value.exit_code == 3
    steps = list(gpu.steps)
    for _ in range(3):
        with pytest.raises(DeviceLostError, match="719"):
            graph.run(image_of(0))
        graph.close()
    del graph
    gc.collect()
    assert gpu.steps == steps
    assert gpu.violations == []


def test_where_there_is_no_gpu_it_says_so() -> None:
    gpu = Gpu(fail_at=0, number=100)
    with pytest.raises(EnvironmentLacksError, match=r"100, from open\); look whether `nvidia-smi`") as caught:
        opened(gpu)
    assert not isinstance(caught.value, DeviceLostError)
    with pytest.raises(EnvironmentLacksError, match="100"):
        read_facts(FakeCuda(Gpu(fail_at=0, number=100)))


def test_memory_that_is_full_is_said() -> None:
    healthy = Gpu()
    opened(healthy).close()
    with pytest.raises(EnvironmentLacksError, match="close what else uses its memory"):
        opened(Gpu(fail_at=healthy.steps.index("new_device"), number=2))


def test_the_facts_of_a_gpu_cost_nothing_afterwards() -> None:
    gpu, before = Gpu(), threading.active_count()
    assert read_facts(FakeCuda(gpu)) == FACTS
    assert gpu.clean(), gpu.violations
    assert threading.active_count() == before
    with pytest.raises(DeviceLostError):
        read_facts(FakeCuda(Gpu(fail_at=1, number=214)))


AT_EXIT = """
import atexit, sys
import numpy as np
from fake_cuda import FakeCuda, Gpu, fake_tensorrt, plan_of
from edgefetal_devices.errors import DeviceLostError
from edgefetal_runtime.infer.tensorrt.engine import open_plan

gpu = Gpu()
# What is said here is said last of all.
atexit.register(lambda: print(gpu.violations, gpu.live_tensorrt, gpu.sessions))
graph = open_plan(plan_of(), fake_tensorrt(gpu), FakeCuda(gpu), use_graph=True)
if sys.argv[1] == "lost":
    gpu.fail_at, gpu.number = len(gpu.steps), 700
    try:
        graph.run(np.zeros((1, 1, 4, 6), np.float32))
    except DeviceLostError as error:
        raise SystemExit(error.exit_code)
"""


@pytest.mark.parametrize(
    ("how", "code", "left"), [("well", 0, "[] [] 0"), ("lost", 3, "[] ['runtime', 'engine', 'context'] 1")]
)
def test_a_program_that_ends_frees_the_engine_and_a_lost_one_is_left_alone(how: str, code: int, left: str) -> None:
    folder = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, *filter(None, sys.path)])}
    command = [sys.executable, "-c", AT_EXIT, how]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (code, left, "")
