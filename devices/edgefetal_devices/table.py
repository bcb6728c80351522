"""Tables of boards and JetPacks, for people: `python -m edgefetal_devices.table docs/devices.md` renews a page."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgefetal_devices.errors import InputError
from edgefetal_devices.jetpack import read_jetpacks
from edgefetal_devices.possible import sufficient_jetpacks, why_not
from edgefetal_devices.profile import read_profiles
from edgefetal_devices.versions import written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefetal_devices.jetpack import JetPack
    from edgefetal_devices.profile import ModeFact, Profile

_NONE: Final = "-"
_GIB: Final = 1 << 30
BOARD_COLUMNS: Final = (
    "profile",
    "target",
    "GPU",
    "memory",
    "computes in",
    "DLA",
    "video encoder",
    "engines on JetPack",
)
JETPACK_COLUMNS: Final = ("JetPack", "Jetson Linux", "TensorRT", "CUDA", "cuDNN", "Python", "Ubuntu")
# A part of a page that is written here, between a line that names it and the next that ends it.
_PART: Final = re.compile(r"(<!-- table: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def board_row(profile: Profile) -> tuple[str, ...]:
    """Write what is known of a target in a line, one cell for each of `BOARD_COLUMNS`."""
    gpu = profile.gpu
    if gpu is None:
        return (profile.name, profile.title, _NONE, _NONE, ", ".join(profile.precisions), _NONE, _NONE, _NONE)
    capabilities = ", ".join(gpu.compute_capabilities)
    return (
        profile.name,
        profile.title,
        f"{gpu.architecture}, {capabilities}",
        _memory(profile),
        ", ".join(profile.precisions),
        str(gpu.dla_cores),
        {True: "yes", False: "no", None: "by card"}[gpu.encoder],
        _engines(profile),
    )


def _memory(profile: Profile) -> str:
    gpu = profile.gpu
    if gpu is None or not gpu.memory_gib:
        return "by card"
    sizes = "/".join(map(str, gpu.memory_gib))
    bandwidth = "" if gpu.memory_gb_per_s is None else f", {gpu.memory_gb_per_s:g} GB/s"
    return f"{sizes} GiB{bandwidth}"


def _engines(profile: Profile) -> str:
    if not profile.is_jetson:
        return "needs none"
    return ", ".join(jetpack.name for jetpack in sufficient_jetpacks(profile)) or "none"


def jetpack_row(jetpack: JetPack) -> tuple[str, ...]:
    """Write what is known of a release in a line, one cell for each of `JETPACK_COLUMNS`; `?` was not checked."""
    versions = (jetpack.tensorrt, jetpack.cuda, jetpack.cudnn)
    linux = ", ".join(written(l4t) for l4t in jetpack.l4t) or "?"
    return (
        jetpack.name,
        linux,
        *("?" if version is None else written(version) for version in versions),
        written(jetpack.python),
        jetpack.ubuntu,
    )


def facts(profile: Profile) -> list[tuple[str, str]]:
    """List what is known of one target, as pairs of a name and a value."""
    pairs = [
        ("target", profile.title),
        ("also called", ", ".join(profile.aliases)),
        ("back end", profile.back_end),
        ("computes in", ", ".join(profile.precisions)),
        ("INT8 recipe", profile.int8.name),
        *_gpu_facts(profile),
        ("notes", profile.notes),
        ("source", profile.source),
    ]
    return [(name, value) for name, value in pairs if value]


def _gpu_facts(profile: Profile) -> list[tuple[str, str]]:
    gpu = profile.gpu
    if gpu is None:
        return []
    workspace = "" if gpu.workspace_bytes is None else f"at most {gpu.workspace_bytes / _GIB:g} GiB"
    made_for = [jetpack.name for jetpack in read_jetpacks() if profile.name in jetpack.boards]
    return [
        ("GPU", f"{gpu.architecture}, compute capability {', '.join(gpu.compute_capabilities)}"),
        ("memory", _memory(profile) + (", shared with the processor" if gpu.memory_shared else "")),
        ("DLA cores", str(gpu.dla_cores)),
        ("TensorRT takes to build", workspace),
        ("part numbers", ", ".join(part.upper() for part in gpu.modules)),
        ("camera connector", _said(gpu.csi)),
        ("video decoder", _said(gpu.decoder)),
        ("video encoder", _said(gpu.encoder)),
        ("JetPacks for it", ", ".join(made_for)),
        ("engines on JetPack", _engines(profile)),
        ("power modes", "; ".join(_mode(mode) for mode in gpu.power_modes)),
    ]


def _said(known: bool | None) -> str:  # noqa: FBT001 - it is the fact itself
    return {True: "yes", False: "no", None: ""}[known]


def _mode(mode: ModeFact) -> str:
    clock = {None: "", 0: ", GPU not limited"}.get(mode.gpu_mhz, f", GPU up to {mode.gpu_mhz} MHz")
    return f"{mode.number} {mode.name}{clock}{' (super)' if mode.table == 'super' else ''}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def renewed(page: str) -> str:
    """Write the tables of a page anew from the data files.

    Args:
        page: Markdown with lines `<!-- table: NAME -->` and `<!-- end -->` round each table; NAME is `boards`,
            `jetpacks` or `refusals`.

    Raises:
        InputError: it has no such lines, or names another table.
    """
    tables = {"boards": _boards, "jetpacks": _jetpacks, "refusals": _refusals}
    names = [found[2] for found in _PART.finditer(page)]
    if not names or not set(names) <= set(tables):
        message = f"A page holds tables of {', '.join(tables)}, each between <!-- table: NAME --> and <!-- end -->."
        raise InputError(message)
    return _PART.sub(lambda found: found[1] + tables[found[2]]() + found[3], page)


def _boards() -> str:
    return markdown(BOARD_COLUMNS, [board_row(profile) for profile in read_profiles()])


def _jetpacks() -> str:
    return markdown(JETPACK_COLUMNS, [jetpack_row(jetpack) for jetpack in read_jetpacks()])


def _refusals() -> str:
    """Write what is refused of each Jetson whatever its JetPack: all of it, a precision, or the DLA."""
    rows: list[tuple[str, str, str]] = []
    for profile in read_profiles():
        for wish, precision, dla in (("fp16", "fp16", False), ("int8", "int8", False), ("the DLA", "auto", True)):
            reason = why_not(profile, precision=precision, jetpack=None, tensorrt=None, dla=dla)
            known = {row[2] for row in rows if row[0] == profile.name}
            if profile.is_jetson and reason is not None and reason not in known:
                rows.append((profile.name, wish, reason))
    return markdown(("profile", "wish", "answer"), rows)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(renewed(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
