"""The command line: one file a command; this package only assembles them.

A command imports what it needs when it runs, so that `--help` is quick and needs neither torch nor OpenCV.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edgefetal.cli import (
    bench,
    build,
    calibrate,
    demo,
    devices,
    distil,
    doctor,
    evaluate,
    exams,
    finish,
    growth,
    import_teacher,
    keys,
    phantom,
    run,
    train,
    verify,
)
from edgefetal_devices.errors import EdgeFetalError, EnvironmentLacksError

_BUILD_PACKAGES = frozenset(
    {
        "accelerate",
        "matplotlib",
        "monai",
        "onnx",
        "onnxscript",
        "peft",
        "safetensors",
        "sympy",
        "torch",
        "transformers",
        "yaml",
    }
)
_CLUSTER_PACKAGES = frozenset({"dask", "distributed"})


class _Group(TyperGroup):
    """Turns an `EdgeFetalError` into one sentence on stderr and its exit code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - Typer vendors Click, whose Context has no stable home
        try:
            return super().invoke(ctx)
        except EdgeFetalError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(error.exit_code) from error
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            extra = "build" if package in _BUILD_PACKAGES else "cluster" if package in _CLUSTER_PACKAGES else None
            if extra is None:
                raise
            typer.echo(
                f"Error: this command needs {package}; install it with: pip install 'edgefetal[{extra}]'", err=True
            )
            raise typer.Exit(EnvironmentLacksError.exit_code) from error


app = typer.Typer(
    name="edgefetal",
    cls=_Group,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    help="Fetal-ultrasound networks on small computers, with no internet and no sonographer.",
    epilog="Research software; not a medical device. Exit codes: 0 done, 1 done but a check failed, 2 wrong usage or "
    "input, 3 the environment lacks something.",
)


def _version(asked: bool) -> None:  # noqa: FBT001 - Typer calls back with the option's value
    if asked:
        from importlib import metadata

        typer.echo(metadata.version("edgefetal"))
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command("demo", epilog="Example: edgefetal demo")(demo.demo)
app.add_typer(train.app, name="train")
app.add_typer(import_teacher.app, name="import")
app.command("distil", epilog=distil.EXAMPLE)(distil.distil)
app.command("build", epilog="Example: edgefetal build RUN --device cpu --calibration hc18:data/hc18 --out BUNDLE")(
    build.build
)
app.command("calibrate", epilog="Example: edgefetal calibrate starter --dataset hc18:data/hc18 --out recalibrated")(
    calibrate.calibrate
)
app.command("verify", epilog="Example: edgefetal verify starter")(verify.verify)
app.add_typer(keys.app, name="keys")
app.command("finish", epilog="Example: edgefetal finish bundle")(finish.finish)
app.command("run", epilog="Example: edgefetal run starter sweep.mp4 --mm-per-px 0.14 --out exam")(run.run)
app.command("evaluate", epilog="Example: edgefetal evaluate starter --dataset hc18:data/hc18 --reference")(
    evaluate.evaluate
)
app.add_typer(exams.app, name="exams")
app.command("growth", epilog="Example: edgefetal growth --ga 28w3d --hc 265 --ac 240 --fl 53")(growth.growth)
app.command("bench", epilog="Example: edgefetal bench starter --threads 1 --html bench.html")(bench.bench)
app.command(
    "phantom", epilog="Example: edgefetal phantom --protocol acouslic --ga 28w0d --exams 10 --seed 1 --out DIR"
)(phantom.phantom)
app.command("devices", epilog="Example: edgefetal devices jetson-orin-nano-8gb --precision int8 --jetpack 6.2")(
    devices.devices
)
app.command("doctor", epilog="Example: edgefetal doctor --json doctor.json")(doctor.doctor)
