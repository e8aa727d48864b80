"""The commands by name."""

from __future__ import annotations

from typing import Annotated

import typer

from cnnviz.cli.demo import demo
from cnnviz.cli.explain import confusion, explain
from cnnviz.cli.listing import doctor, layers, methods

app = typer.Typer(name="cnnviz", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
# what is no option of the command may be a setting of a method or a renderer
_open = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command(context_settings=_open)(explain)
app.command(context_settings=_open)(confusion)
app.command()(methods)
app.command()(layers)
app.command()(demo)
app.command()(doctor)


def _version(asked: bool) -> None:
    if asked:
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
