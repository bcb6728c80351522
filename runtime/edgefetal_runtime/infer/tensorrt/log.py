"""What TensorRT says: kept for our own messages instead of printed."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

if TYPE_CHECKING:
    from edgefetal_runtime.infer.tensorrt.api import TensorRT

_KEPT: Final = 20
_KEPT_CHARACTERS: Final = 500


class Logger(Protocol):
    """A logger that TensorRT accepts; it keeps the last errors and prints nothing."""

    errors: list[str]


@functools.cache
def make_logger(tensorrt: TensorRT) -> Logger:
    """Return the one logger for a TensorRT module; builder and runtime share it.

    TensorRT wants one logger that outlives all that it made, so it is kept for as long as the program runs. Clear
    `errors` before a step whose errors are to be told apart.
    """
    module = tensorrt.module
    error = int(module.ILogger.Severity.ERROR)

    def start(self: Any) -> None:  # noqa: ANN401 - a class made of a module without types
        module.ILogger.__init__(self)
        self.errors = []

    def log(self: Any, severity: Any, message: str) -> None:  # noqa: ANN401 - likewise
        # Lower is worse: INTERNAL_ERROR is 0 and ERROR 1.
        if int(severity) <= error:
            self.errors.append(str(message)[:_KEPT_CHARACTERS])
            del self.errors[:-_KEPT]

    return cast("Logger", type("Logger", (module.ILogger,), {"__init__": start, "log": log})())


def said(logger: Logger) -> str:
    """Join what TensorRT complained of, for a message."""
    return "; ".join(error.strip().rstrip(".") for error in logger.errors) or "it does not say why"
