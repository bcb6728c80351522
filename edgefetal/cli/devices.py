"""`edgefetal devices`: what each board can do, and whether a wish can be had on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edgefetal.cli.options import JsonOption

if TYPE_CHECKING:
    from edgefetal_devices.detect import Board


def devices(
    name: Annotated[Optional[str], typer.Argument(metavar="[NAME]", help="A profile; all where none is named.")] = None,
    precision: Annotated[
        Optional[str],
        typer.Option("--precision", help="Ask whether it computes in fp32, fp16 or int8.", show_default=False),
    ] = None,
    jetpack: Annotated[
        Optional[str], typer.Option("--jetpack", metavar="RELEASE", help="... with this JetPack.", show_default=False)
    ] = None,
    tensorrt: Annotated[
        Optional[str],
        typer.Option("--tensorrt", metavar="VERSION", help="... with this TensorRT in place of JetPack's."),
    ] = None,
    dla: Annotated[bool, typer.Option("--dla", help="... on its Deep Learning Accelerator.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Show the boards that a bundle can be built for, or one of them, and say why a wish cannot be had on it."""
    from edgefetal.cli import terminal
    from edgefetal_devices.detect import detect
    from edgefetal_devices.errors import InputError
    from edgefetal_devices.jetpack import read_jetpack, read_jetpacks
    from edgefetal_devices.possible import require_possible
    from edgefetal_devices.profile import read_profile, read_profiles
    from edgefetal_devices.table import BOARD_COLUMNS, JETPACK_COLUMNS, board_row, facts, jetpack_row
    from edgefetal_devices.versions import parsed_version

    terminal.check_json_target(json_file)
    asked = dla or any(wish is not None for wish in (precision, jetpack, tensorrt))
    if name is None and asked:
        raise InputError("Name the board that is asked about, as in: edgefetal devices jetson-orin-nx-16gb --dla")
    version = None if tensorrt is None else parsed_version(tensorrt)
    if tensorrt is not None and version is None:
        message = f"{tensorrt!r} is no version; give numbers with dots between them, as in --tensorrt 10.3.0."
        raise InputError(message)
    profile = None if name is None else read_profile(name)
    board = detect()
    if profile is not None and asked:
        release = None if jetpack is None else read_jetpack(jetpack)
        require_possible(profile, precision=precision or "auto", jetpack=release, tensorrt=version, dla=dla)
    shown = read_profiles() if profile is None else [profile]
    terminal.write_json(
        json_file,
        {
            "devices": [of.model_dump(mode="json") for of in shown],
            "jetpacks": [of.model_dump(mode="json") for of in read_jetpacks()],
            "here": board_as_json(board),
        },
    )
    if profile is None:
        terminal.show_table("Targets", BOARD_COLUMNS, [board_row(of) for of in shown])
        terminal.show_table("JetPacks", JETPACK_COLUMNS, [jetpack_row(of) for of in read_jetpacks()])
    else:
        terminal.show_table(profile.name, ("", "value"), facts(profile))
    terminal.say(_here(board))
    if asked:
        terminal.say("What was asked for can be had, as far as the documents say.")


def board_as_json(board: Board) -> dict[str, Any]:
    """Write what this machine is for machines."""
    from dataclasses import asdict

    from edgefetal_devices.versions import written

    return asdict(board) | {"l4t": None if board.l4t is None else written(board.l4t)}


def _here(board: Board) -> str:
    if board.profile is None:
        return f"This machine is none of the boards{f' ({board.model})' if board.model else ''}."
    system = "" if board.jetpack is None else f", JetPack {board.jetpack}"
    mode = "" if board.power_mode is None else f", power mode {board.power_mode.name}"
    return f"This machine is {board.profile}{system}{mode}."
