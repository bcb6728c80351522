"""`edgefetal doctor`: what is wrong with this machine, and what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefetal.cli.options import JsonOption

if TYPE_CHECKING:
    from edgefetal_devices.doctor import Host, TensorRTFound


def doctor(json_file: JsonOption = None) -> None:
    """Look for the usual faults of this machine, and say the command that mends each. Changes nothing."""
    from dataclasses import asdict

    from edgefetal.cli import terminal
    from edgefetal.cli.devices import board_as_json
    from edgefetal_devices.doctor import diagnose
    from edgefetal_devices.errors import CheckFailedError

    terminal.check_json_target(json_file)
    host = this_host()
    findings = diagnose(host)
    terminal.write_json(
        json_file,
        {"board": board_as_json(host.board), "findings": [asdict(finding) for finding in findings]},
    )
    rows = [(finding.check, finding.state, finding.found, finding.remedy or "") for finding in findings]
    terminal.show_table("This machine", ("check", "state", "found", "what mends it"), rows)
    faults = [finding.check for finding in findings if finding.state == "fault"]
    if faults:
        message = f"At fault: {', '.join(faults)}. Mend these first, as the table says."
        raise CheckFailedError(message)


def this_host() -> Host:
    """Find out what the checks look at."""
    import grp
    import os
    import shutil
    import sys
    import time
    from pathlib import Path

    from edgefetal_devices.detect import detect
    from edgefetal_devices.doctor import Host

    def may_open(node: Path) -> bool:
        return os.access(node, os.R_OK | os.W_OK)

    known = {group.gr_gid: group.gr_name for group in grp.getgrall()}
    return Host(
        root=Path("/"),
        board=detect(),
        tensorrt=_tensorrt(),
        environment=None if sys.prefix == sys.base_prefix else Path(sys.prefix),
        free_disk_bytes=shutil.disk_usage(Path.cwd()).free,
        now_s=time.time(),
        may_open=may_open,
        groups=frozenset(known[number] for number in os.getgroups() if number in known),
    )


def _tensorrt() -> TensorRTFound:
    from edgefetal_devices.doctor import TensorRTFound
    from edgefetal_devices.errors import EnvironmentLacksError
    from edgefetal_devices.versions import parsed_version
    from edgefetal_runtime.infer.tensorrt.api import load_tensorrt

    try:
        found = load_tensorrt()
    except EnvironmentLacksError as error:
        return TensorRTFound(None, reason=str(error))
    return TensorRTFound(parsed_version(found.version) or (), is_rtx=found.is_rtx)
