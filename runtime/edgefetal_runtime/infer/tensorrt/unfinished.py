"""What the table of back ends says of TensorRT, which runs engines and no graphs."""

from __future__ import annotations

from typing import NoReturn

from edgefetal_devices.errors import EnvironmentLacksError


def open_graph(_model: bytes, _threads: int | None, _lanes: int = 1) -> NoReturn:
    """Refuse: an engine is built and proven on the device that runs it, and only then is there one to run.

    Raises:
        EnvironmentLacksError: always; says how to get an engine.
    """
    message = (
        "TensorRT runs engines, and these are built on this device by `edgefetal finish BUNDLE`; finish the bundle, or "
        "try it on the processor with --backend onnxruntime-as-written."
    )
    raise EnvironmentLacksError(message)
