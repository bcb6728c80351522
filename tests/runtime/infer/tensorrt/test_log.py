"""TensorRT's logger: keeps the last errors, prints nothing, and is one for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fake_cuda import Gpu, ILogger, fake_tensorrt

from edgefetal_runtime.infer.tensorrt.log import make_logger, said

if TYPE_CHECKING:
    import pytest


def test_it_keeps_errors_and_nothing_else_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    logger = make_logger(fake_tensorrt(Gpu()))
    severity = ILogger.Severity
    for level in severity:
        logger.log(level, level.name.lower() + ".")  # type: ignore[attr-defined]  # noqa: G003 - TensorRT's log
    assert logger.errors == ["internal_error.", "error."]
    assert said(logger) == "internal_error; error"
    logger.errors.clear()
    assert said(logger) == "it does not say why"
    assert capfd.readouterr() == ("", "")


def test_it_keeps_the_last_errors_and_no_novel() -> None:
    logger = make_logger(fake_tensorrt(Gpu()))
    for number in range(1000):
        logger.log(ILogger.Severity.ERROR, f"{number:x<9999}")  # type: ignore[attr-defined]  # noqa: G004 - likewise
    assert logger.errors[-1].startswith("999x")
    assert len(logger.errors) == 20
    assert max(map(len, logger.errors)) == 500


def test_a_module_has_one_logger() -> None:
    tensorrt = fake_tensorrt(Gpu())
    assert make_logger(tensorrt) is make_logger(tensorrt)
    assert make_logger(tensorrt) is not make_logger(fake_tensorrt(Gpu()))
