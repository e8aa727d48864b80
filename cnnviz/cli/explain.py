"""The commands that explain pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.errors import FAILED
from cnnviz.cli.options import (
    FILES,
    MODEL,
    QUESTION,
    SPEED,
    WORK,
    Layer,
    Methods,
    Pictures,
    Render,
    Target,
    loaded,
    sharing,
)

if TYPE_CHECKING:
    from cnnviz.cli.batch_explain import Also
    from cnnviz.registry.protocols import Renderer
    from cnnviz.registry.registry import Method


@sharing(QUESTION, FILES, MODEL, WORK, SPEED)
def explain(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    method: Methods = None,
    target: Target = None,
    layer: Layer = None,
    render: Render = None,
) -> int:
    """Explain pictures: where is what speaks for the class, or against it?

    Every setting of a method or of a renderer is an option too: --steps 100, --of guided_backprop, --opacity 0.4,
    --relu, --no-relu. [bold]cnnviz methods NAME[/bold] lists them.
    """
    names = [name.strip() for each in method or ["grad_cam"] for name in each.split(",")]
    return explained(context, pictures, list(dict.fromkeys(names)), {"layer": layer}, target, render, options)


@sharing(QUESTION, FILES, MODEL, WORK, SPEED)
def confusion(
    context: typer.Context,
    pictures: Pictures,
    options: Mapping[str, Any],
    target: Annotated[
        str, typer.Option(help="The true class, by number or name.", rich_help_panel="Question and answer")
    ],
    of: Annotated[
        str, typer.Option(help="The method whose values are split.", rich_help_panel="Question and answer")
    ] = "grad_cam",
    layer: Layer = None,
    render: Render = None,
) -> int:
    """Draw the saliency confusion matrix: what speaks against and for the true class, and the predicted one.

    The settings of --of and of the renderer are options too, such as --layer 3 or --opacity 0.4.
    """
    return explained(context, pictures, ["saliency_confusion"], {"layer": layer, "of": of}, target, render, options)


def explained(
    context: typer.Context,
    pictures: Sequence[str],
    names: Sequence[str],
    given: Mapping[str, str | None],
    target: str | None,
    render: str | None,
    options: Mapping[str, Any],
    also: Also | None = None,
) -> int:
    """Explain and draw; ``also`` is handed what was answered, as :func:`cnnviz.cli.answers.answered` says."""
    from cnnviz.cli.batch_explain import Question, answered, found_pictures, status
    from cnnviz.cli.method_options import formula, named_methods, separated
    from cnnviz.cli.outputs import Drawing, destination
    from cnnviz.cli.targets import read_target
    from cnnviz.images.files import read_input

    declared = [name for parameter in context.command.params for name in parameter.opts]
    chosen = [part for name, text in given.items() if text is not None for part in (f"--{name}", text)]
    tokens = [*pictures, *chosen]
    methods = named_methods(names, tokens)
    paths, settings = separated(tokens, methods, offered_renderers(render), declared)
    found, missing = found_pictures(paths)
    if not found:
        return FAILED
    place = destination(options["output"], found, names, options["show"])
    load = cache(lambda: loaded(options))
    formulas = {name: formula(name, settings, lambda path: read_input(path, load().preprocessing)) for name in names}
    how = {"seed": options["seed"], "memory": value_parsing.byte_count(options["memory"])}
    how |= {name: options[name] for name in ("before_softmax", *SPEED) if name in options}
    question = Question(load(), formulas, read_target(target), how)
    drawing = Drawing(render, settings, frozenset(name for each in methods for name in each.settings))
    work = {name: options[name] for name in ("batch", "quiet", "show")}
    failed = answered(question, found, drawing, place, **work, also=also)
    return status(len(found) + missing, failed + missing)


def offered_renderers(asked: str | None) -> list[Method[Renderer]]:
    """The renderer asked for; otherwise all that load, for which one a method wants shows only in its answer."""
    from cnnviz.registry.registry import PluginError, renderers

    if asked is not None:
        return [renderers[asked]]
    found = []
    for name in renderers:
        try:
            found.append(renderers[name])
        except PluginError:
            continue  # doctor tells; nobody asked for this one
    return found
