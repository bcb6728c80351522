"""`edgefetal import TEACHER`: take over a network that others trained and published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefetal.cli.options import JsonOption

_EXAMPLE = "Example: edgefetal import sononet --weights SonoNet16.npz --out runs/sononet"

app = typer.Typer(no_args_is_help=True, help="Take over a network that others published.", epilog=_EXAMPLE)


@app.callback()
def _teachers() -> None:
    """Take over a network that others published: name it."""


@app.command("sononet", epilog=_EXAMPLE)
def sononet(
    weights: Annotated[Path, typer.Option("--weights", metavar="FILE", help="Published file, such as SonoNet16.npz.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder to write; must not exist.")],
    any_weights: Annotated[
        bool, typer.Option("--any-weights", help="Also take a file that is not known to be a published one.")
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """SonoNet, the plane classifier of Baumgartner et al. 2017 (arXiv 1612.05601), from its published weights.

    Which network the file holds follows from its arrays. Writes a folder like that of a training run, with the weights
    as safetensors and the network as an ONNX graph that was compared with it.
    """
    from edgefetal.cli import terminal
    from edgefetal_export.teachers.imported import import_sononet

    terminal.check_json_target(json_file, out)
    recipe = import_sononet(weights, out, any_weights=any_weights)
    terminal.write_json(json_file, recipe.model_dump(mode="json"))
    known = "a published file" if recipe.published else "not known to be a published file"
    terminal.say(
        f"{recipe.network.variant} ({known}) with {len(recipe.network.planes)} planes in {out}. "
        f"{recipe.attribution}, {recipe.licence}."
    )
