"""`edgefetal train RECIPE`: one file a recipe; this package only assembles them."""

from __future__ import annotations

import typer

from edgefetal.cli.train import baseline, fetalclip_cls, fetalclip_seg, multitask_unet, skill

_EXAMPLE = "Example: edgefetal train multitask-unet --data hc18:data/hc18 --out runs/heads --epochs 80"

app = typer.Typer(no_args_is_help=True, help="Train a teacher.", epilog=_EXAMPLE)


@app.callback()
def _recipes() -> None:
    """Train a teacher: name a recipe."""


app.command("multitask-unet", epilog=_EXAMPLE)(multitask_unet.multitask_unet)
app.command("skill", epilog=skill.EXAMPLE)(skill.skill)
app.command("fetalclip-cls", epilog=fetalclip_cls.EXAMPLE)(fetalclip_cls.fetalclip_cls)
app.command("fetalclip-seg", epilog=fetalclip_seg.EXAMPLE)(fetalclip_seg.fetalclip_seg)
app.command("baseline", epilog=baseline.EXAMPLE)(baseline.baseline)
