"""The commands by name."""

from __future__ import annotations

from typing import Annotated

import typer

from cnnviz.cli.classic import classic
from cnnviz.cli.confusions import confusions
from cnnviz.cli.deconv_segment import deconv_segment
from cnnviz.cli.demo import demo
from cnnviz.cli.evaluate import evaluate
from cnnviz.cli.excite import excite
from cnnviz.cli.explain import confusion, explain, project
from cnnviz.cli.inspect import doctor, layers, methods
from cnnviz.cli.segment import segment
from cnnviz.cli.synthesize import invert, synthesize

app = typer.Typer(name="cnnviz", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
# what is no option of the command may be a setting of a method or a renderer
_open = {"allow_extra_args": True, "ignore_unknown_options": True}
for command in (explain, confusion, confusions, classic, project, excite, synthesize, invert, segment, evaluate):
    app.command(context_settings=_open)(command)
for command in (deconv_segment, methods, layers, demo, doctor):
    app.command()(command)


def _version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"cnnviz {version('cnnviz')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def cnnviz(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """See why a convolutional network decided what it did."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
