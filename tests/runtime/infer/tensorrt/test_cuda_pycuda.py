"""PyCUDA, which cannot be imported without a driver: a made-up one with the names and rules of its documentation."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgefetal_runtime.infer.tensorrt.cuda import STICKY, CudaError
from edgefetal_runtime.infer.tensorrt.cuda_pycuda import NAME, PyCuda, PyCudaSession, error_numbers, load

SHAPE = (1, 1, 2, 3)
NUMBERS = {
    "out of memory": (2, "CUDA_ERROR_OUT_OF_MEMORY"),
    "an illegal memory access was encountered": (700, "CUDA_ERROR_ILLEGAL_ADDRESS"),
}


class Error(Exception):
    """PyCUDA's; all others derive from it, and none has a number."""


class LogicError(Error):
    pass


class Pinned:
    """What frees a page-locked array; it is the array's base."""

    def __init__(self, driver: Driver, size_bytes: int) -> None:
        self._driver, self.content = driver, bytearray(size_bytes)

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self.content)

    def free(self) -> None:
        self._driver.step("free_host")
        self._driver.pinned -= 1


class PinnedArray(np.ndarray):  # type: ignore[type-arg]
    """NumPy makes no array whose base is ours, so this one says that it is."""

    holder: Pinned

    @property
    def base(self) -> Any:
        return self.holder


class Allocation:
    def __init__(self, driver: Driver, address: int) -> None:
        self._driver, self._address = driver, address

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        self._driver.step("free_device")
        del self._driver.memory[self._address]


class Driver(ModuleType):
    """`pycuda.driver`."""

    Error = Error

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.fails: dict[str, str] = {}
        self.steps: list[str] = []
        self.stack = self.retained = self.streams = self.pinned = 0
        self.memory: dict[int, bytearray] = {}

    def step(self, name: str, *, current: bool = True) -> None:
        self.steps.append(name)
        if name in self.fails:
            raise LogicError(f"cu_{name} failed: {self.fails[name]}")
        assert not current or self.stack, f"{name} without a current context"

    def init(self) -> None:
        self.step("init", current=False)

    def Device(self, number: int) -> Any:  # noqa: N802 - PyCUDA's name
        self.step("Device", current=False)
        assert number == 0
        driver = self

        class Context:
            def push(self) -> None:
                driver.step("push", current=False)
                driver.stack += 1

            def pop(self) -> None:
                driver.step("pop", current=False)
                if not driver.stack:
                    raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
                driver.stack -= 1

            def detach(self) -> None:
                driver.step("detach", current=False)
                assert driver.streams == 0 or "Stream" in driver.fails, "a stream outlives its context"
                driver.retained -= 1

        class Device:
            def retain_primary_context(self) -> Context:
                driver.step("retain_primary_context", current=False)
                driver.retained += 1
                return Context()

            def name(self) -> str:
                return "Orin"

            def compute_capability(self) -> tuple[int, int]:
                return (8, 7)

        return Device()

    def Stream(self, flags: int) -> Any:  # noqa: N802
        self.step("Stream")
        assert flags == 1
        driver = self

        class Stream:
            handle = 77

            def __init__(self) -> None:
                driver.streams += 1

            def __del__(self) -> None:
                assert driver.stack
                driver.streams -= 1

            def synchronize(self) -> None:
                driver.step("synchronize")

        return Stream()

    def mem_get_info(self) -> tuple[int, int]:
        self.step("mem_get_info")
        return (5, 8)

    def get_driver_version(self) -> int:
        return 12060

    def get_version(self) -> tuple[int, int, int]:
        return (12, 2, 0)

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        self.step("pagelocked_empty")
        self.pinned += 1
        array = np.empty(shape, dtype).view(PinnedArray)
        array.holder = Pinned(self, array.nbytes)
        return array

    def mem_alloc(self, size_bytes: int) -> Allocation:
        self.step("mem_alloc")
        address = 4096 * (len(self.memory) + 1)
        self.memory[address] = bytearray(size_bytes)
        return Allocation(self, address)

    def memcpy_htod_async(self, address: int, array: Any, stream: Any) -> None:
        self.step("memcpy_htod_async")
        assert (stream.handle, array.nbytes) == (77, len(self.memory[address]))
        self.memory[address][:] = array.tobytes()

    def memcpy_dtoh_async(self, array: Any, address: int, stream: Any) -> None:
        self.step("memcpy_dtoh_async")
        assert (stream.handle, array.nbytes) == (77, len(self.memory[address]))
        array[:] = np.frombuffer(bytes(self.memory[address]), np.float32).reshape(array.shape)


def lived(driver: Driver) -> None:
    """Do everything that a session can."""
    session = PyCuda(driver, lambda: NUMBERS).open()
    assert session.stream == 77
    session.facts()
    host, address = session.new_host(SHAPE), session.new_device(24)
    host[:] = np.arange(6, dtype=np.float32).reshape(SHAPE)
    session.copy_in(address, host)
    host[:] = 0
    session.copy_out(host, address)
    session.synchronise()
    np.testing.assert_array_equal(host.reshape(-1), np.arange(6))
    session.free_device(address)
    session.free_host(host)
    session.close()


def left(driver: Driver) -> tuple[Any, ...]:
    return (driver.stack, driver.retained, driver.streams, driver.pinned, driver.memory)


def test_everything_is_made_copied_and_freed() -> None:
    driver = Driver()
    lived(driver)
    assert left(driver) == (0, 0, 0, 0, {})
    assert driver.steps[:5] == ["init", "Device", "retain_primary_context", "push", "Stream"]
    # A stack that is not empty when the thread ends makes PyCUDA end the program.
    assert driver.steps[-2:] == ["pop", "detach"]


def test_facts_without_what_it_does_not_know() -> None:
    facts = PyCudaSession(Driver(), lambda: NUMBERS).facts()
    assert (facts.name, facts.compute_capability, facts.uuid) == ("Orin", (8, 7), None)
    assert (facts.total_bytes, facts.free_bytes) == (8, 5)
    assert (facts.driver_cuda, facts.library_cuda, facts.library) == ("12.6", "12.2", NAME)


def test_it_says_that_it_cannot_make_graphs() -> None:
    session = PyCudaSession(Driver(), lambda: NUMBERS)
    assert "cuda-python can" in (session.no_graphs or "")
    for call in (session.begin_capture, session.end_capture, lambda: session.launch(1), lambda: session.free_graph(1)):
        with pytest.raises(CudaError, match="801"):
            call()


@pytest.mark.parametrize(
    ("sentence", "number"),
    [
        ("out of memory", 2),
        ("an illegal memory access was encountered", 700),
        ("an illegal memory access was encountered - somewhere", 700),
        ("words that this driver does not have", 709),
    ],
)
def test_a_sentence_becomes_its_number_and_an_unknown_one_a_loss(sentence: str, number: int) -> None:
    driver = Driver()
    session = PyCudaSession(driver, lambda: NUMBERS)
    driver.fails["synchronize"] = sentence
    with pytest.raises(CudaError, match=rf"{sentence}, {number}, from cu_synchronize") as caught:
        session.synchronise()
    assert (caught.value.number in STICKY) == (number != 2)


def test_every_step_s_error_is_found() -> None:
    healthy = Driver()
    lived(healthy)
    for name in set(healthy.steps):
        driver = Driver()
        driver.fails[name] = "out of memory"
        with pytest.raises(CudaError, match=f"2, from cu_{name}"):
            lived(driver)


@pytest.mark.parametrize("name", ["push", "Stream"])
def test_opening_that_fails_leaves_no_context(name: str) -> None:
    driver = Driver()
    driver.fails[name] = "out of memory"
    with pytest.raises(CudaError):
        PyCudaSession(driver, lambda: NUMBERS)
    assert left(driver) == (0, 0, 0, 0, {})


def test_the_driver_is_asked_for_its_sentences_where_there_is_one() -> None:
    numbers = error_numbers()
    assert numbers == {} or numbers["out of memory"][0] == 2


def test_it_is_imported_by_its_name_without_its_autoinit(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    library = load()
    assert library.name == NAME
    assert driver.steps == []
    assert "pycuda.autoinit" not in sys.modules
