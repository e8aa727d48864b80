"""The commands by name, each with an example that stands under its help."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from cnnviz.cli.audit import audit
from cnnviz.cli.batch import batch
from cnnviz.cli.classic import classic
from cnnviz.cli.completion import among
from cnnviz.cli.confusions import confusions
from cnnviz.cli.deconv_segment import deconv_segment
from cnnviz.cli.demo import demo
from cnnviz.cli.evaluate import evaluate
from cnnviz.cli.excite import excite
from cnnviz.cli.explain import confusion, explain, project
from cnnviz.cli.inspect import doctor, layers, methods
from cnnviz.cli.new import new
from cnnviz.cli.report import report
from cnnviz.cli.sanity import sanity
from cnnviz.cli.segment import segment
from cnnviz.cli.serve import serve
from cnnviz.cli.synthesize import invert, synthesize

app = typer.Typer(
    name="cnnviz",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
# what is no option of the command may be a setting of a method or a renderer
_open = {"allow_extra_args": True, "ignore_unknown_options": True}


def _add(command: Callable[..., Any], example: str, settings: dict[str, bool] | None = None) -> None:
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)  # else lines end where they end here
    app.command(context_settings=settings, help=help, epilog=f"[bold]Example:[/bold] cnnviz {example}")(command)


_add(explain, "explain photos/ --model resnet50 --method grad_cam,gradient -o maps/", _open)
_add(report, "report photos/ --model resnet50 --method grad_cam,gradient -o report.html", _open)
_add(confusion, "confusion cat.jpg --model resnet50 --target 'tiger cat' -o confusion.png", _open)
_add(confusions, "confusions labelled/ --model resnet50 -o matrix.png --counts counts.csv", _open)
_add(classic, "classic cat.jpg --model resnet50 -o results/ --sheet results.png", _open)
_add(project, "project cat.jpg --model resnet50 --layer layer2 --top 6 -o projected.png", _open)
_add(excite, "excite photos/ --model resnet50 --layer layer2 --channels 3,7 -o excited.png", _open)
_add(synthesize, "synthesize feature_image --model resnet50 --target goldfish -o goldfish.png", _open)
_add(invert, "invert cat.jpg --model resnet50 --layer layer1,layer3 -o inverted.png", _open)
_add(segment, "segment photos/ --model resnet50 -o cut/ --write-masks masks/", _open)
_add(evaluate, "evaluate photos/ --annotations masks/ --method grad_cam,gradient --metric roc_auc", _open)
_add(sanity, "sanity --method grad_cam -o sanity.md", _open)
_add(new, "new attribution my-cam")
_add(deconv_segment, "deconv-segment demo/pictures -o segmented.png")
_add(batch, "batch photos/ answers/ --model resnet50 --method grad_cam,gradient --metric sparseness", _open)
_add(audit, "audit answers/ --method grad_cam -o report.html")
_add(serve, "serve --model resnet50")
_add(methods, "methods integrated_gradients")
_add(layers, "layers resnet50")
_add(demo, "demo -o demo")
_add(doctor, "doctor")


def _commands() -> list[str]:
    return list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]  # of the group that it is


@app.command(name="help", epilog="[bold]Example:[/bold] cnnviz help explain")
def help_of(
    context: typer.Context,
    command: Annotated[
        str | None, typer.Argument(help="One of the commands.", show_default=False, autocompletion=among(_commands))
    ] = None,
) -> None:
    """Print the help of a command; without one, list the commands."""
    top = context.find_root()
    if command is None:
        typer.echo(top.get_help())
        return
    group: Any = top.command
    if command not in group.commands:
        group.resolve_command(top, [command])  # raises, and knows the nearest name
    chosen = group.commands[command]
    typer.echo(chosen.make_context(command, [], parent=top, resilient_parsing=True).get_help())


def _version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"cnnviz {version('cnnviz')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def cnnviz(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """See why a convolutional network decided what it did.

    [bold]cnnviz COMMAND -h[/bold] tells the options of a command. [bold]cnnviz demo[/bold] shows what there is.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
