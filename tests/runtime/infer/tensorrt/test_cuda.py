"""The rules round a CUDA library: one thread, its own memory, nothing after a loss; and which library is taken."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_cuda import FACTS, FakeCuda, Gpu

from edgefetal_devices.errors import DeviceLostError, EnvironmentLacksError, InputError
from edgefetal_runtime.infer.tensorrt import cuda
from edgefetal_runtime.infer.tensorrt.cuda import RELAUNCH, STICKY, Buffer, CudaEntry, Device, cuda_version, load_cuda
from edgefetal_runtime.infer.tensorrt.cuda_pycuda import error_numbers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE = (1, 1, 2, 3)


def everything(device: Device, buffer: Buffer, graph: object) -> dict[str, Callable[[], Any]]:
    return {
        "facts": device.facts,
        "new_buffer": lambda: device.new_buffer(SHAPE),
        "copy_in": lambda: device.copy_in(buffer),
        "copy_out": lambda: device.copy_out(buffer),
        "capture": lambda: device.capture(lambda: None),
        "launch": lambda: device.launch(graph),
        "free_graphs": device.free_graphs,
        "synchronise": device.synchronise,
    }


def test_what_goes_in_comes_out_after_waiting_and_not_before() -> None:
    gpu = Gpu()
    device = Device(FakeCuda(gpu))
    buffers = [device.new_buffer(SHAPE) for _ in range(2)]
    for number, buffer in enumerate(buffers):
        buffer.host[:] = number + 1
        device.copy_in(buffer)
    device.synchronise()
    for buffer in buffers:
        buffer.host[:] = 0
        device.copy_out(buffer)
    assert all((buffer.host == 0).all() for buffer in buffers)
    device.synchronise()
    assert [buffer.host.reshape(-1)[0] for buffer in buffers] == [1, 2]
    assert device.facts() == FACTS
    device.close()
    device.close()
    assert gpu.clean(), gpu.violations


def test_it_waits_for_what_is_queued_before_it_frees_anything() -> None:
    gpu = Gpu()
    device = Device(FakeCuda(gpu))
    device.copy_in(device.new_buffer(SHAPE))
    device.close()
    assert gpu.clean(), gpu.violations


def test_another_thread_is_refused_and_the_gpu_not_touched() -> None:
    gpu = Gpu()
    device = Device(FakeCuda(gpu))
    buffer = device.new_buffer(SHAPE)
    calls = everything(device, buffer, device.capture(lambda: device.copy_in(buffer))) | {"close": device.close}
    steps, said = list(gpu.steps), {}

    def elsewhere() -> None:
        for name, call in calls.items():
            with pytest.raises(InputError) as caught:
                call()
            said[name] = str(caught.value)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert said.keys() == calls.keys()
    assert all("opened by another thread" in text for text in said.values())
    assert gpu.steps == steps
    device.close()
    assert gpu.clean(), gpu.violations


def test_after_it_was_given_back_nothing_runs() -> None:
    gpu = Gpu()
    device = Device(FakeCuda(gpu))
    buffer = device.new_buffer(SHAPE)
    graph = device.capture(lambda: device.copy_in(buffer))
    calls = everything(device, buffer, graph)
    device.close()
    steps = list(gpu.steps)
    for name in set(calls) - {"free_graphs"}:
        with pytest.raises(InputError):
            calls[name]()
    assert gpu.steps == steps


@pytest.mark.parametrize("number", sorted(STICKY))
def test_after_a_loss_every_call_says_so_and_touches_nothing(number: int) -> None:
    gpu = Gpu()
    device = Device(FakeCuda(gpu))
    buffer = device.new_buffer(SHAPE)
    calls = everything(device, buffer, device.capture(lambda: device.copy_in(buffer)))
    assert not device.lost
    gpu.fail_at, gpu.number = len(gpu.steps), number
    with pytest.raises(DeviceLostError):
        device.synchronise()
    steps = list(gpu.steps)
    for call in calls.values():
        with pytest.raises(DeviceLostError, match=rf"{number}, from synchronise.*start it again"):
            call()
    device.close()
    device.close()
    assert device.lost
    assert gpu.steps == steps


@pytest.mark.parametrize("number", [1, 2, 35, 100, 101, 400, 800, 801, 901, 999])
def test_other_errors_can_be_got_over(number: int) -> None:
    gpu = Gpu(fail_at=1, number=number)
    device = Device(FakeCuda(gpu))
    with pytest.raises(EnvironmentLacksError, match=rf"cudaErrorMadeUp, {number}, from facts") as caught:
        device.facts()
    assert not isinstance(caught.value, DeviceLostError)
    assert device.facts() == FACTS
    device.close()
    assert gpu.clean(), gpu.violations


def test_closing_frees_the_rest_even_where_something_cannot_be_freed() -> None:
    healthy = Gpu()
    device = Device(FakeCuda(healthy))
    device.new_buffer(SHAPE)
    device.new_buffer(SHAPE)
    first = len(healthy.steps)
    device.close()
    for at in range(first, len(healthy.steps)):
        gpu = Gpu()
        device = Device(FakeCuda(gpu))
        device.new_buffer(SHAPE)
        device.new_buffer(SHAPE)
        gpu.fail_at = at
        with pytest.raises(EnvironmentLacksError, match=healthy.steps[at]):
            device.close()
        device.close()
        assert gpu.clean(), gpu.violations


def test_only_its_own_memory_is_copied() -> None:
    gpu = Gpu()
    device = Device(FakeCuda(gpu))
    other = Buffer(np.zeros(SHAPE, np.float32), 4096)
    for copy in (device.copy_in, device.copy_out):
        with pytest.raises(InputError, match="does not hold"):
            copy(other)
    device.close()
    assert gpu.clean(), gpu.violations


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), EnvironmentLacksError("no")])
def test_a_capture_that_breaks_off_leaves_a_stream_that_works(error: BaseException) -> None:
    gpu = Gpu()
    device = Device(FakeCuda(gpu))
    buffer = device.new_buffer(SHAPE)

    def breaks() -> None:
        device.copy_in(buffer)
        raise error

    with pytest.raises(type(error)):
        device.capture(breaks)
    assert gpu.captured is None
    device.copy_in(buffer)
    device.synchronise()
    device.close()
    assert gpu.clean(), gpu.violations


def test_where_graphs_cannot_be_made_none_is_begun() -> None:
    gpu = Gpu(graphs=False)
    device = Device(FakeCuda(gpu))
    with pytest.raises(EnvironmentLacksError, match="the made-up library cannot; do without"):
        device.capture(lambda: None)
    assert "begin_capture" not in gpu.steps
    device.close()


def test_a_version_is_written_as_people_do() -> None:
    assert [cuda_version(number) for number in (12060, 13050, 11040, 0)] == ["12.6", "13.5", "11.4", "0.0"]


def test_the_numbers_after_which_nothing_is_tried() -> None:
    assert sorted(STICKY) == [4, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911]


def test_the_numbers_that_need_a_new_process_are_the_documented_ones() -> None:
    """Compared with NVIDIA's own table where its bindings are installed."""
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    documented = {int(error) for error in runtime.cudaError_t if "terminated and relaunched" in _flat(error.__doc__)}
    assert documented <= STICKY
    assert documented == RELAUNCH


def _flat(text: str | None) -> str:
    return " ".join((text or "").split())


# Which library


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = {
        "lacks": "def load():\n    import package_that_nobody_has\n",
        "nodriver": "def load():\n    raise OSError('libcuda.so.1: cannot open shared object file')\n",
        "works": "def load():\n    return __name__\n",
    }
    for name, code in codes.items():
        (tmp_path / f"fake_library_{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cuda, "TABLE", tuple(CudaEntry(name, f"fake_library_{name}") for name in codes))


@pytest.mark.usefixtures("table")
def test_the_first_library_that_loads_is_taken() -> None:
    assert load_cuda() == "fake_library_works"
    assert load_cuda("works") == "fake_library_works"


@pytest.mark.usefixtures("table")
def test_where_none_loads_every_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentLacksError, match=r"libcuda\.so\.1.*pip install pycuda"):
        load_cuda("nodriver")
    monkeypatch.setattr(cuda, "TABLE", cuda.TABLE[:2])
    with pytest.raises(EnvironmentLacksError, match=r"lacks: .*package_that_nobody_has.*; nodriver: .*libcuda"):
        load_cuda()


def test_an_unknown_library_is_refused_and_the_known_ones_offered() -> None:
    with pytest.raises(InputError, match=r"no CUDA library 'cupy'; choose one of pycuda, cuda-python"):
        load_cuda("cupy")


@pytest.mark.parametrize("name", ["pycuda", "cuda-python"])
def test_on_this_machine_it_loads_or_says_why_not(name: str) -> None:
    """And where it loads but there is no GPU, opening it says so."""
    try:
        library = load_cuda(name)
    except EnvironmentLacksError as error:
        said = str(error)
    else:
        assert library.name == name
        if error_numbers():
            pytest.skip("there is a driver here")
        with pytest.raises(EnvironmentLacksError) as caught:
            Device(library)
        assert not isinstance(caught.value, DeviceLostError)
        said = str(caught.value)
    assert name in said or "from cudaSetDevice" in said
